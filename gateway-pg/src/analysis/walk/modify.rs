//! `INSERT`, `UPDATE`, `DELETE`, `MERGE`.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    BoolExprType, CmdType, DeleteStmt, InferClause, InsertStmt, MergeMatchKind, MergeStmt, MergeWhenClause,
    Node, OnConflictAction, OnConflictClause, RangeVar, ReturningClause, UpdateStmt,
};

use super::super::model::{
    Access, Filter, Modification, Output, Place, SettingChange, SettingKind, SettingScope, SourceKind,
};
use super::{Walk, Walker, filter, names};

impl Walker {
    pub(super) fn insert(&mut self, insert: &InsertStmt) -> Walk<Vec<Output>> {
        let ctes = self.ctes.len();
        self.with(insert.with_clause.as_ref())?;
        let target = self.target_relation(insert.relation.as_ref(), Access::Insert)?;
        let columns = self.assigned_names(&insert.cols)?;
        self.modification(target, Access::Insert, Filter::NotApplicable, columns);
        if let Some(query) = insert.select_stmt.as_deref() {
            let outputs = self.subquery(Some(query))?;
            self.stored(&outputs);
        }
        let outputs = self.in_frame(|walker| walker.insert_rest(insert, target));
        self.ctes.truncate(ctes);
        outputs
    }

    fn insert_rest(&mut self, insert: &InsertStmt, target: usize) -> Walk<Vec<Output>> {
        self.target_source(insert.relation.as_ref(), target);
        if let Some(conflict) = insert.on_conflict_clause.as_deref() {
            self.on_conflict(insert.relation.as_ref(), conflict, target)?;
        }
        self.returning(insert.returning_clause.as_ref(), target)
    }

    fn on_conflict(&mut self, range: Option<&RangeVar>, conflict: &OnConflictClause, target: usize) -> Walk {
        if let Some(infer) = conflict.infer.as_deref() {
            self.infer(infer)?;
            if !infer.conname.is_empty() {
                // The columns of a constraint are read as those are that stand here by name.
                self.read_access(target);
            }
        }
        if conflict.infer.as_deref().is_none_or(|infer| !infer.conname.is_empty()) {
            // Which columns its constraint, or every unique index, compares is not known from the text.
            self.compared_row();
        }
        if conflict.action() != OnConflictAction::OnconflictUpdate {
            return Ok(());
        }
        let updated = self.target_relation(range, Access::Update)?;
        self.source(SourceKind::Pseudo(Some(target)), Some("excluded".to_owned()), Vec::new(), Vec::new());
        let columns = self.assignments(&conflict.target_list)?;
        // Only rows in conflict are updated: the key is the filter even without `WHERE`.
        self.row_filter(conflict.where_clause.as_deref())?;
        self.modification(updated, Access::Update, Filter::Present, columns);
        Ok(())
    }

    pub(super) fn infer(&mut self, infer: &InferClause) -> Walk {
        self.at_place(Place::Filter, |walker| {
            walker.each(&infer.index_elems)?;
            walker.maybe(infer.where_clause.as_deref())
        })
    }

    pub(super) fn update(&mut self, update: &UpdateStmt) -> Walk<Vec<Output>> {
        let ctes = self.ctes.len();
        self.with(update.with_clause.as_ref())?;
        let target = self.target_relation(update.relation.as_ref(), Access::Update)?;
        self.note_settings_view(update.relation.as_ref());
        let outputs = self.in_frame(|walker| walker.update_body(update, target));
        self.ctes.truncate(ctes);
        outputs
    }

    fn update_body(&mut self, update: &UpdateStmt, target: usize) -> Walk<Vec<Output>> {
        self.target_source(update.relation.as_ref(), target);
        self.from(&update.from_clause)?;
        let columns = self.assignments(&update.target_list)?;
        let filter = self.row_filter(update.where_clause.as_deref())?;
        self.modification(target, Access::Update, filter, columns);
        self.returning(update.returning_clause.as_ref(), target)
    }

    /// `pg_settings` has a rule that turns an update into `set_config`.
    fn note_settings_view(&mut self, range: Option<&RangeVar>) {
        let Some(range) = range else { return };
        if range.relname == "pg_settings" && matches!(range.schemaname.as_str(), "" | "pg_catalog") {
            self.found.settings.push(SettingChange {
                name: None,
                value: None,
                kind: SettingKind::Computed,
                scope: SettingScope::Session,
            });
        }
    }

    pub(super) fn delete(&mut self, delete: &DeleteStmt) -> Walk<Vec<Output>> {
        let ctes = self.ctes.len();
        self.with(delete.with_clause.as_ref())?;
        let target = self.target_relation(delete.relation.as_ref(), Access::Delete)?;
        let outputs = self.in_frame(|walker| walker.delete_body(delete, target));
        self.ctes.truncate(ctes);
        outputs
    }

    fn delete_body(&mut self, delete: &DeleteStmt, target: usize) -> Walk<Vec<Output>> {
        self.target_source(delete.relation.as_ref(), target);
        self.from(&delete.using_clause)?;
        let filter = self.row_filter(delete.where_clause.as_deref())?;
        self.modification(target, Access::Delete, filter, Vec::new());
        self.returning(delete.returning_clause.as_ref(), target)
    }

    pub(super) fn merge(&mut self, merge: &MergeStmt) -> Walk<Vec<Output>> {
        let ctes = self.ctes.len();
        self.with(merge.with_clause.as_ref())?;
        let outputs = self.in_frame(|walker| walker.merge_body(merge));
        self.ctes.truncate(ctes);
        outputs
    }

    fn merge_body(&mut self, merge: &MergeStmt) -> Walk<Vec<Output>> {
        // The join condition reads the target whatever the arms do.
        let target = self.target_relation(merge.relation.as_ref(), Access::Read)?;
        self.target_source(merge.relation.as_ref(), target);
        self.from(merge.source_relation.as_deref().map_or(&[], std::slice::from_ref))?;
        let filter = self.row_filter(merge.join_condition.as_deref())?;
        for clause in &merge.merge_when_clauses {
            let Some(NodeEnum::MergeWhenClause(clause)) = clause.node.as_ref() else {
                return self.not_understood("a merge arm");
            };
            self.merge_arm(merge.relation.as_ref(), clause, filter)?;
        }
        self.returning(merge.returning_clause.as_ref(), target)
    }

    fn merge_arm(&mut self, range: Option<&RangeVar>, clause: &MergeWhenClause, join: Filter) -> Walk {
        let condition = self.row_filter(clause.condition.as_deref())?;
        let columns = self.assignments(&clause.target_list)?;
        self.at_place(Place::Assignment, |walker| walker.each(&clause.values))?;
        let access = match clause.command_type() {
            CmdType::CmdInsert => Access::Insert,
            CmdType::CmdUpdate => Access::Update,
            CmdType::CmdDelete => Access::Delete,
            CmdType::CmdNothing => return Ok(()),
            _ => return self.not_understood("a merge arm"),
        };
        let relation = self.target_relation(range, access)?;
        let filter = match (access, clause.match_kind()) {
            (Access::Insert, _) => Filter::NotApplicable,
            // The arm takes the rows that did not join: the join condition limits nothing.
            (_, MergeMatchKind::MergeWhenNotMatchedBySource) => condition,
            _ if join == Filter::Present => Filter::Present,
            _ => condition,
        };
        self.modification(relation, access, filter, columns);
        Ok(())
    }

    /// Notes the target of a write: always a relation, even where a CTE has that name.
    fn target_relation(&mut self, range: Option<&RangeVar>, access: Access) -> Walk<usize> {
        self.writes();
        match range {
            Some(range) => Ok(self.relation(range, access)),
            None => self.not_understood("a statement without a target"),
        }
    }

    fn target_source(&mut self, range: Option<&RangeVar>, target: usize) {
        let Some(range) = range else { return };
        let (alias, columns) = names::alias_parts(range.alias.as_ref());
        self.source(
            SourceKind::Relation(target),
            alias.or_else(|| Some(range.relname.clone())),
            columns,
            Vec::new(),
        );
    }

    /// Walks `SET` lists and `INSERT` column lists; the names of the columns written.
    fn assignments(&mut self, targets: &[Node]) -> Walk<Vec<String>> {
        let columns = self.assigned_names(targets)?;
        self.at_place(Place::Assignment, |walker| {
            targets.iter().try_for_each(|target| match target.node.as_ref() {
                Some(NodeEnum::ResTarget(target)) => walker.maybe(target.val.as_deref()),
                _ => walker.not_understood("an assignment"),
            })
        })?;
        Ok(columns)
    }

    fn assigned_names(&mut self, targets: &[Node]) -> Walk<Vec<String>> {
        targets
            .iter()
            .map(|target| match target.node.as_ref() {
                Some(NodeEnum::ResTarget(target)) => {
                    self.indirection(&target.indirection)?;
                    Ok(target.name.clone())
                }
                _ => self.not_understood("a column list"),
            })
            .collect()
    }

    fn row_filter(&mut self, condition: Option<&Node>) -> Walk<Filter> {
        let Some(condition) = condition else { return Ok(Filter::Absent) };
        let chooses = self.at_place(Place::Filter, |walker| walker.chooses(condition))?;
        Ok(if chooses { Filter::Present } else { Filter::Constant })
    }

    /// Walks a condition; whether it may be true for some rows and not for others. What reads no column is the same for all of them.
    fn chooses(&mut self, condition: &Node) -> Walk<bool> {
        if let Some(NodeEnum::BoolExpr(expression)) = condition.node.as_ref()
            && matches!(expression.boolop(), BoolExprType::AndExpr | BoolExprType::OrExpr)
        {
            let arms: Vec<bool> = expression.args.iter().map(|arm| self.chooses(arm)).collect::<Walk<_>>()?;
            let every = expression.boolop() == BoolExprType::OrExpr;
            return Ok(if every { !arms.contains(&false) } else { arms.contains(&true) });
        }
        let ((), columns) = self.capture(|walker| walker.node(condition))?;
        let cursor = matches!(condition.node, Some(NodeEnum::CurrentOfExpr(_)));
        self.found.flags.current_of |= cursor;
        Ok(cursor || !columns.is_empty() && !filter::always_true(condition))
    }

    fn modification(&mut self, relation: usize, access: Access, filter: Filter, columns: Vec<String>) {
        if matches!(filter, Filter::Absent | Filter::Constant) {
            self.found.flags.unbounded_write = true;
        }
        self.found.modifications.push(Modification { relation, access, filter, columns });
    }

    fn returning(&mut self, returning: Option<&ReturningClause>, target: usize) -> Walk<Vec<Output>> {
        let Some(returning) = returning else { return Ok(Vec::new()) };
        self.found.flags.returning = true;
        // `old` and `new` (server version 18) or the names given to them; a real alias of that name comes first.
        let mut aliases = vec!["old".to_owned(), "new".to_owned()];
        aliases.extend(returning.options.iter().filter_map(|option| match option.node.as_ref() {
            Some(NodeEnum::ReturningOption(option)) => Some(option.value.clone()),
            _ => None,
        }));
        for alias in aliases {
            if !self.is_surely_called(&alias) {
                self.source(SourceKind::Pseudo(Some(target)), Some(alias), Vec::new(), Vec::new());
            }
        }
        self.targets(&returning.exprs)
    }

    /// Marks the columns of a query's outputs as stored.
    pub(super) fn stored(&mut self, outputs: &[Output]) {
        for index in outputs.iter().flat_map(|output| output.columns.iter().copied()) {
            if let Some(column) = self.found.columns.get_mut(index) {
                column.places.insert(Place::Assignment);
            }
        }
    }
}
