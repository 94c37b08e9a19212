//! Roles and privileges.

use pg_query::protobuf::{
    AlterDefaultPrivilegesStmt, AlterRoleStmt, CreateRoleStmt, DropOwnedStmt, DropRoleStmt, GrantRoleStmt,
    GrantStmt, GrantTargetType, Node, ObjectType, ReassignOwnedStmt,
};

use super::super::model::{Access, Change};
use super::{Walk, Walker, kind, names};

impl Walker {
    pub(super) fn create_role(&mut self, role: &CreateRoleStmt) -> Walk {
        self.role_named(&role.role);
        self.create_one("role", &role.role, &role.options)
    }

    pub(super) fn alter_role(&mut self, alter: &AlterRoleStmt) -> Walk {
        self.role(alter.role.as_ref());
        let name = alter.role.as_ref().map(names::role_text).unwrap_or_default();
        self.alter_one("role", &name, &alter.options)
    }

    pub(super) fn drop_role(&mut self, drop: &DropRoleStmt) -> Walk {
        for role in &drop.roles {
            let name = self.object_name(role)?;
            self.object("role", name, Change::Drop).conditional = drop.missing_ok;
        }
        Ok(())
    }

    pub(super) fn grant(&mut self, grant: &GrantStmt) -> Walk {
        let change = if grant.is_grant { Change::Grant } else { Change::Revoke };
        let cascade = self.cascade(grant.behavior());
        self.each(&grant.privileges)?;
        self.each(&grant.grantees)?;
        self.role(grant.grantor.as_ref());
        let defaults = grant.targtype() == GrantTargetType::AclTargetDefaults;
        if grant.objects.is_empty() {
            self.object(kind::object_kind(grant.objtype()), Vec::new(), change);
        }
        for object in grant.objects.iter().filter(|_| !defaults) {
            self.grant_on(grant, object, change, cascade)?;
        }
        Ok(())
    }

    fn grant_on(&mut self, grant: &GrantStmt, object: &Node, change: Change, cascade: bool) -> Walk {
        let name = self.object_name(object)?;
        let whole_schema = grant.targtype() == GrantTargetType::AclTargetAllInSchema;
        let kind = if whole_schema { ObjectType::ObjectSchema } else { grant.objtype() };
        match kind {
            ObjectType::ObjectTable | ObjectType::ObjectSequence => {
                self.relation_parts(&name, Access::Ddl)?;
            }
            ObjectType::ObjectFunction | ObjectType::ObjectProcedure | ObjectType::ObjectRoutine => {
                self.granted_function(&name)?;
            }
            _ => {}
        }
        self.object(kind::object_kind(kind), name, change).cascade = cascade;
        Ok(())
    }

    pub(super) fn grant_role(&mut self, grant: &GrantRoleStmt) -> Walk {
        let change = if grant.is_grant { Change::Grant } else { Change::Revoke };
        let cascade = self.cascade(grant.behavior());
        self.role(grant.grantor.as_ref());
        self.each(&grant.grantee_roles)?;
        for role in &grant.granted_roles {
            let name = self.object_name(role)?;
            for role in &name {
                self.role_named(role);
            }
            self.object("role", name, change).cascade = cascade;
        }
        Ok(())
    }

    pub(super) fn default_privileges(&mut self, alter: &AlterDefaultPrivilegesStmt) -> Walk {
        self.object("default_privileges", Vec::new(), Change::Alter);
        self.each(&alter.options)?;
        match alter.action.as_ref() {
            Some(grant) => self.grant(grant),
            None => self.not_understood("default privileges"),
        }
    }

    pub(super) fn drop_owned(&mut self, drop: &DropOwnedStmt) -> Walk {
        let cascade = self.cascade(drop.behavior());
        self.each(&drop.roles)?;
        self.object("owned", Vec::new(), Change::Drop).cascade = cascade;
        Ok(())
    }

    pub(super) fn reassign_owned(&mut self, reassign: &ReassignOwnedStmt) -> Walk {
        self.each(&reassign.roles)?;
        self.role(reassign.newrole.as_ref());
        self.object("owned", Vec::new(), Change::Owner);
        Ok(())
    }
}
