//! Settings and transactions.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    AlterDatabaseSetStmt, AlterRoleSetStmt, AlterSystemStmt, DiscardMode, DiscardStmt, Node, TransactionStmt,
    VariableSetKind, VariableSetStmt,
};

use super::super::model::{Change, SettingChange, SettingKind, SettingScope, Transaction};
use super::{Walk, Walker, names};

impl Walker {
    /// `SET` in all its spellings, and `RESET`.
    pub(super) fn set(&mut self, set: &VariableSetStmt, scope: SettingScope) -> Walk {
        let local = set.is_local && scope == SettingScope::Session;
        let scope = if local { SettingScope::Local } else { scope };
        let name = Some(set.name.to_ascii_lowercase()).filter(|name| !name.is_empty());
        match set.kind() {
            VariableSetKind::VarSetMulti => return self.set_transaction(set),
            VariableSetKind::VarSetValue => self.set_value(name, &set.args, scope)?,
            VariableSetKind::VarSetDefault => self.setting(name, None, SettingKind::Default, scope),
            VariableSetKind::VarSetCurrent => self.setting(name, None, SettingKind::FromCurrent, scope),
            VariableSetKind::VarReset => self.setting(name, None, SettingKind::Reset, scope),
            VariableSetKind::VarResetAll => self.setting(None, None, SettingKind::ResetAll, scope),
            VariableSetKind::Undefined => return self.not_understood("a set"),
        }
        Ok(())
    }

    fn set_value(&mut self, name: Option<String>, arguments: &[Node], scope: SettingScope) -> Walk {
        let values: Option<Vec<String>> = arguments.iter().map(names::constant).collect();
        let kind = if values.is_some() { SettingKind::Set } else { SettingKind::Computed };
        let value = values.map(|values| values.join(", "));
        if let (Some("role" | "session_authorization"), Some(role)) = (name.as_deref(), value.as_deref()) {
            let role = role.to_owned();
            self.role_named(&role);
        }
        // `SET TIME ZONE INTERVAL ..` casts: the type is a built-in one.
        self.each(arguments)?;
        self.setting(name, value, kind, scope);
        Ok(())
    }

    fn setting(
        &mut self,
        name: Option<String>,
        value: Option<String>,
        kind: SettingKind,
        scope: SettingScope,
    ) {
        self.writes();
        self.found.settings.push(SettingChange { name, value, kind, scope });
    }

    /// `SET TRANSACTION`, `SET SESSION CHARACTERISTICS`, and `SET TRANSACTION SNAPSHOT`.
    fn set_transaction(&mut self, set: &VariableSetStmt) -> Walk {
        self.writes();
        let mut transaction = Transaction::default();
        match set.name.as_str() {
            "TRANSACTION" => self.transaction_modes(&set.args, &mut transaction)?,
            "SESSION CHARACTERISTICS" => {
                self.transaction_modes(&set.args, &mut transaction)?;
                self.session_characteristics(&transaction);
            }
            "TRANSACTION SNAPSHOT" => transaction.name = set.args.first().and_then(names::constant),
            _ => return self.not_understood("a set of several settings"),
        }
        self.found.transaction = Some(transaction);
        Ok(())
    }

    fn session_characteristics(&mut self, transaction: &Transaction) {
        let on_off = |value: bool| if value { "on" } else { "off" }.to_owned();
        let changes = [
            ("default_transaction_isolation", transaction.isolation.clone()),
            ("default_transaction_read_only", transaction.read_only.map(on_off)),
            ("default_transaction_deferrable", transaction.deferrable.map(on_off)),
        ];
        for (name, value) in changes {
            if value.is_some() {
                self.setting(Some(name.to_owned()), value, SettingKind::Set, SettingScope::Session);
            }
        }
    }

    fn transaction_modes(&mut self, modes: &[Node], transaction: &mut Transaction) -> Walk {
        for mode in modes {
            let Some(NodeEnum::DefElem(mode)) = mode.node.as_ref() else {
                return self.not_understood("a mode");
            };
            let value = names::option_text(mode).to_ascii_lowercase();
            let on = names::option_bool(mode);
            match mode.defname.as_str() {
                // Repeated modes: the server sets them in order, the last one stays.
                "transaction_isolation" => transaction.isolation = Some(value),
                "transaction_read_only" if on.is_some() => transaction.read_only = on,
                "transaction_deferrable" if on.is_some() => transaction.deferrable = on,
                _ => return self.not_understood("a transaction mode"),
            }
        }
        Ok(())
    }

    pub(super) fn transaction(&mut self, statement: &TransactionStmt) -> Walk {
        let mut transaction = Transaction { chain: statement.chain, ..Transaction::default() };
        transaction.name = names::filled(&statement.savepoint_name).or_else(|| names::filled(&statement.gid));
        self.transaction_modes(&statement.options, &mut transaction)?;
        self.found.transaction = Some(transaction);
        Ok(())
    }

    pub(super) fn discard(&mut self, discard: &DiscardStmt) -> Walk {
        self.writes();
        if discard.target() == DiscardMode::DiscardAll {
            self.setting(None, None, SettingKind::ResetAll, SettingScope::Session);
        }
        Ok(())
    }

    pub(super) fn alter_system(&mut self, alter: &AlterSystemStmt) -> Walk {
        self.writes();
        self.set_statement(alter.setstmt.as_ref(), SettingScope::System)
    }

    pub(super) fn alter_role_set(&mut self, alter: &AlterRoleSetStmt) -> Walk {
        self.role(alter.role.as_ref());
        let role = alter.role.as_ref().map(names::role_text);
        self.object("role", role.into_iter().collect(), Change::Alter);
        self.set_statement(alter.setstmt.as_ref(), SettingScope::RoleOrDatabase)
    }

    pub(super) fn alter_database_set(&mut self, alter: &AlterDatabaseSetStmt) -> Walk {
        self.object("database", vec![alter.dbname.clone()], Change::Alter);
        self.set_statement(alter.setstmt.as_ref(), SettingScope::RoleOrDatabase)
    }

    pub(super) fn set_statement(&mut self, set: Option<&VariableSetStmt>, scope: SettingScope) -> Walk {
        match set {
            Some(set) => self.set(set, scope),
            None => self.not_understood("a setting without a name"),
        }
    }
}
