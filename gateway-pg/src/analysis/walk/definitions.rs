//! Definitions of relations: tables, views, indexes, sequences, triggers, rules, policies, and changes to them.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    AlterPolicyStmt, AlterSeqStmt, AlterTableCmd, AlterTableStmt, AlterTableType, ColumnDef, ConstrType,
    Constraint, CreateForeignTableStmt, CreatePolicyStmt, CreateSeqStmt, CreateStatsStmt, CreateStmt,
    CreateTableAsStmt, CreateTrigStmt, DropBehavior, IndexElem, IndexStmt, Node, ObjectType,
    PartitionBoundSpec, PartitionCmd, RangeVar, RefreshMatViewStmt, RuleStmt, TableLikeClause, TypeName,
    ViewStmt,
};

use super::super::model::{Access, Change, ForeignKey, ObjectChange, Place, SourceKind};
use super::frames::Frame;
use super::{Walk, Walker, kind, names};

impl Walker {
    /// Notes that a relation's definition changes.
    fn defines(
        &mut self,
        kind: &'static str,
        range: Option<&RangeVar>,
        change: Change,
    ) -> Walk<&mut ObjectChange> {
        match range {
            Some(range) => {
                self.relation(range, Access::Ddl);
                Ok(self.object(kind, names::range_parts(range), change))
            }
            None => self.not_understood("a definition without a name"),
        }
    }

    pub(super) fn cascade(&mut self, behavior: DropBehavior) -> bool {
        let cascade = behavior == DropBehavior::DropCascade;
        self.found.flags.cascade |= cascade;
        cascade
    }

    pub(super) fn create_table(&mut self, create: &CreateStmt, kind: &'static str) -> Walk {
        self.defines(kind, create.relation.as_ref(), Change::Create)?.conditional = create.if_not_exists;
        self.parents(&create.inh_relations)?;
        self.type_name(create.of_typename.as_ref())?;
        self.each(&create.table_elts)?;
        self.each(&create.constraints)?;
        self.each(&create.nnconstraints)?;
        self.each(&create.options)?;
        self.partition_bound(create.partbound.as_ref())?;
        create.partspec.as_ref().map_or(Ok(()), |spec| self.each(&spec.part_params))
    }

    /// Tables that get another child: its rows are theirs from then on, and what is added to a partitioned table may go there.
    fn parents(&mut self, parents: &[Node]) -> Walk {
        [Access::Reference, Access::Ddl, Access::Insert]
            .into_iter()
            .try_for_each(|access| self.relations(parents, access))
    }

    pub(super) fn create_foreign_table(&mut self, create: &CreateForeignTableStmt) -> Walk {
        let Some(base) = create.base_stmt.as_ref() else { return self.not_understood("a foreign table") };
        self.create_table(base, "foreign_table")?;
        self.reaches_server(&create.servername);
        self.each(&create.options)
    }

    pub(super) fn column_def(&mut self, column: &ColumnDef) -> Walk {
        if !column.type_name.as_ref().is_some_and(is_serial) {
            self.type_name(column.type_name.as_ref())?;
        }
        self.maybe(column.raw_default.as_deref())?;
        if let Some(collate) = column.coll_clause.as_deref() {
            self.strings(&collate.collname)?;
        }
        if let Some(sequence) = column.identity_sequence.as_ref() {
            self.relation(sequence, Access::Reference);
        }
        self.each(&column.constraints)?;
        self.each(&column.fdwoptions)
    }

    pub(super) fn like(&mut self, like: &TableLikeClause) -> Walk {
        match like.relation.as_ref() {
            Some(range) => {
                self.relation(range, Access::Reference);
                Ok(())
            }
            None => self.not_understood("a like without a table"),
        }
    }

    pub(super) fn constraint(&mut self, constraint: &Constraint) -> Walk {
        if constraint.contype() == ConstrType::Undefined {
            return self.not_understood("a constraint");
        }
        self.maybe(constraint.raw_expr.as_deref())?;
        self.maybe(constraint.where_clause.as_deref())?;
        // An exclusion is a pair of an index element and an operator's name.
        for exclusion in &constraint.exclusions {
            self.exclusion(exclusion)?;
        }
        self.each(&constraint.options)?;
        if let Some(range) = constraint.pktable.as_ref() {
            let relation = self.relation(range, Access::Reference);
            let columns = self.strings(&constraint.pk_attrs)?;
            self.found.foreign_keys.push(ForeignKey { relation, columns });
        }
        Ok(())
    }

    fn exclusion(&mut self, pair: &Node) -> Walk {
        match pair.node.as_ref() {
            Some(NodeEnum::List(pair)) => match pair.items.as_slice() {
                [element, operator] => {
                    self.node(element)?;
                    self.exclusion_operator(operator)
                }
                _ => self.not_understood("an exclusion"),
            },
            _ => self.not_understood("an exclusion"),
        }
    }

    fn exclusion_operator(&mut self, operator: &Node) -> Walk {
        match operator.node.as_ref() {
            Some(NodeEnum::List(name)) => self.operator(&name.items),
            _ => self.not_understood("an exclusion operator"),
        }
    }

    pub(super) fn index_element(&mut self, element: &IndexElem) -> Walk {
        if !element.name.is_empty() {
            self.column(vec![element.name.clone()], false);
        }
        self.maybe(element.expr.as_deref())?;
        self.strings(&element.collation)?;
        self.strings(&element.opclass)?;
        self.each(&element.opclassopts)
    }

    pub(super) fn partition_bound(&mut self, bound: Option<&PartitionBoundSpec>) -> Walk {
        let Some(bound) = bound else { return Ok(()) };
        self.each(&bound.listdatums)?;
        self.each(&bound.lowerdatums)?;
        self.each(&bound.upperdatums)
    }

    pub(super) fn partition_command(&mut self, command: &PartitionCmd) -> Walk {
        if let Some(range) = command.name.as_ref() {
            self.relation(range, Access::Ddl);
        }
        self.partition_bound(command.bound.as_ref())
    }

    pub(super) fn create_view(&mut self, view: &ViewStmt) -> Walk {
        let change = if view.replace { Change::Replace } else { Change::Create };
        self.defines("view", view.view.as_ref(), change)?;
        self.each(&view.options)?;
        let outputs = self.subquery(view.query.as_deref())?;
        self.stored(&outputs);
        Ok(())
    }

    pub(super) fn create_table_as(&mut self, create: &CreateTableAsStmt) -> Walk {
        let Some(into) = create.into.as_deref() else { return self.not_understood("a target table") };
        let kind = if create.objtype() == ObjectType::ObjectMatview { "materialized_view" } else { "table" };
        self.defines(kind, into.rel.as_ref(), Change::Create)?.conditional = create.if_not_exists;
        self.each(&into.options)?;
        match create.query.as_deref() {
            Some(Node { node: Some(NodeEnum::ExecuteStmt(execute)) }) => self.execute(execute),
            query => {
                let outputs = self.subquery(query)?;
                self.stored(&outputs);
                Ok(())
            }
        }
    }

    pub(super) fn refresh(&mut self, refresh: &RefreshMatViewStmt) -> Walk {
        self.writes();
        match refresh.relation.as_ref() {
            Some(range) => {
                self.relation(range, Access::Maintain);
                Ok(())
            }
            None => self.not_understood("a refresh"),
        }
    }

    pub(super) fn create_index(&mut self, index: &IndexStmt) -> Walk {
        let Some(table) = index.relation.as_ref() else { return self.not_understood("an index") };
        let relation = self.relation(table, Access::Ddl);
        self.object("index", names::filled(&index.idxname).into_iter().collect(), Change::Create)
            .conditional = index.if_not_exists;
        self.in_frame(|walker| {
            walker.source(
                SourceKind::Relation(relation),
                Some(table.relname.clone()),
                Vec::new(),
                Vec::new(),
            );
            walker.each(&index.index_params)?;
            walker.each(&index.index_including_params)?;
            walker.at_place(Place::Filter, |walker| walker.maybe(index.where_clause.as_deref()))
        })?;
        self.each(&index.options)
    }

    pub(super) fn create_sequence(&mut self, create: &CreateSeqStmt) -> Walk {
        self.defines("sequence", create.sequence.as_ref(), Change::Create)?.conditional =
            create.if_not_exists;
        self.each(&create.options)
    }

    pub(super) fn alter_sequence(&mut self, alter: &AlterSeqStmt) -> Walk {
        self.defines("sequence", alter.sequence.as_ref(), Change::Alter)?.conditional = alter.missing_ok;
        self.each(&alter.options)
    }

    pub(super) fn create_statistics(&mut self, statistics: &CreateStatsStmt) -> Walk {
        let name = self.strings(&statistics.defnames)?;
        self.object("statistics", name, Change::Create).conditional = statistics.if_not_exists;
        self.relations(&statistics.relations, Access::Ddl)?;
        self.each(&statistics.exprs)
    }

    pub(super) fn create_trigger(&mut self, trigger: &CreateTrigStmt) -> Walk {
        let Some(table) = trigger.relation.as_ref() else { return self.not_understood("a trigger") };
        let relation = self.relation(table, Access::Ddl);
        let change = if trigger.replace { Change::Replace } else { Change::Create };
        self.object("trigger", table_part(table, &trigger.trigname), change);
        if let Some(range) = trigger.constrrel.as_ref() {
            self.relation(range, Access::Reference);
        }
        self.implementation(&trigger.funcname)?;
        self.each(&trigger.args)?;
        self.on_rows(relation, trigger.when_clause.as_deref())
    }

    /// A condition on the rows of a relation before and after a change.
    fn on_rows(&mut self, relation: usize, condition: Option<&Node>) -> Walk {
        self.in_frame(|walker| {
            walker.old_and_new(relation);
            walker.at_place(Place::Filter, |walker| walker.maybe(condition))
        })
    }

    fn old_and_new(&mut self, relation: usize) {
        for alias in ["old", "new"] {
            self.source(SourceKind::Pseudo(Some(relation)), Some(alias.to_owned()), Vec::new(), Vec::new());
        }
    }

    pub(super) fn create_rule(&mut self, rule: &RuleStmt) -> Walk {
        let Some(table) = rule.relation.as_ref() else { return self.not_understood("a rule") };
        let relation = self.relation(table, Access::Ddl);
        let change = if rule.replace { Change::Replace } else { Change::Create };
        self.object("rule", table_part(table, &rule.rulename), change);
        self.on_rows(relation, rule.where_clause.as_deref())?;
        for action in &rule.actions {
            self.nested_with(action, |walker| {
                let relation = walker.relation(table, Access::Ddl);
                walker.frames.push(Frame::default());
                walker.old_and_new(relation);
            })?;
        }
        self.found.outputs.clear();
        Ok(())
    }

    pub(super) fn create_policy(&mut self, policy: &CreatePolicyStmt) -> Walk {
        self.policy(policy.table.as_ref(), &policy.policy_name, Change::Create, &policy.roles)?;
        self.row_conditions(policy.table.as_ref(), [policy.qual.as_deref(), policy.with_check.as_deref()])
    }

    pub(super) fn alter_policy(&mut self, policy: &AlterPolicyStmt) -> Walk {
        self.policy(policy.table.as_ref(), &policy.policy_name, Change::Alter, &policy.roles)?;
        self.row_conditions(policy.table.as_ref(), [policy.qual.as_deref(), policy.with_check.as_deref()])
    }

    /// Conditions that choose rows of a table.
    fn row_conditions(&mut self, table: Option<&RangeVar>, conditions: [Option<&Node>; 2]) -> Walk {
        let Some(table) = table else { return self.not_understood("a policy") };
        let relation = self.relation(table, Access::Ddl);
        self.in_frame(|walker| {
            walker.source(
                SourceKind::Relation(relation),
                Some(table.relname.clone()),
                Vec::new(),
                Vec::new(),
            );
            walker.at_place(Place::Filter, |walker| {
                conditions.into_iter().try_for_each(|condition| walker.maybe(condition))
            })
        })
    }

    fn policy(&mut self, table: Option<&RangeVar>, name: &str, change: Change, roles: &[Node]) -> Walk {
        let Some(table) = table else { return self.not_understood("a policy") };
        self.relation(table, Access::Ddl);
        self.object("policy", table_part(table, name), change);
        self.each(roles)
    }

    pub(super) fn alter_table(&mut self, alter: &AlterTableStmt) -> Walk {
        let Some(range) = alter.relation.as_ref() else { return self.not_understood("an alter") };
        let kind = kind::object_kind(alter.objtype());
        match alter.objtype() {
            ObjectType::ObjectIndex | ObjectType::ObjectType => {}
            _ => {
                self.relation(range, Access::Ddl);
            }
        }
        self.object(kind, names::range_parts(range), Change::Alter).conditional = alter.missing_ok;
        self.each(&alter.cmds)
    }

    pub(super) fn alter_table_command(&mut self, command: &AlterTableCmd) -> Walk {
        self.cascade(command.behavior());
        self.role(command.newowner.as_ref());
        match (command.subtype(), command.def.as_deref()) {
            (AlterTableType::Undefined, _) => self.not_understood("an alter"),
            // Here a relation's name stands for a parent, not for something in `FROM`.
            (AlterTableType::AtAddInherit | AlterTableType::AtDropInherit, Some(parent)) => {
                self.parents(std::slice::from_ref(parent))
            }
            (_, definition) => self.maybe(definition),
        }
    }
}

/// `serial` and its kin are no types but shorthands for a sequence, read before types are looked up.
fn is_serial(name: &TypeName) -> bool {
    let [name] = name.names.as_slice() else { return false };
    matches!(
        names::string(name),
        Some("serial" | "serial2" | "serial4" | "serial8" | "smallserial" | "bigserial")
    )
}

/// The name of something that belongs to a table: the table's name with its own behind.
fn table_part(table: &RangeVar, name: &str) -> Vec<String> {
    let mut parts = names::range_parts(table);
    parts.push(name.to_owned());
    parts
}
