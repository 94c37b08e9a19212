//! What becomes of each column of an answer: what it carries, by its origin and by the statement, decides.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use gateway_core::error::{Denial, DenialCode};
use gateway_core::pipeline::Results;

use super::{Expect, Flow, Reached};
use crate::analysis::{ColumnUse, FunctionClass, Statement, classify_function};
use crate::catalog::{Origin, Relation, is_builtin};
use crate::codec::ProtocolError;
use crate::codec::backend::{self, Field};
use crate::definitions::Names;
use crate::effects;
use crate::operation::may_return_rows;
use crate::references::{is_column, may_be_row};
use crate::session::rows::{Chunk, Edit};
use crate::session::shape::{self, Column, Shape};
use crate::session::{Portal, Session, Task};
use crate::statement::{Prepared, may_mention, written};
use crate::types::Kind;

impl Session {
    /// What has to happen to each column of a COPY TO, by name where it copies a table.
    pub(super) fn copy_columns(
        &self,
        flow: &Flow,
        statement: &Statement,
        columns: usize,
        format: i16,
    ) -> Vec<Column> {
        let names = crate::operation::copied_columns(statement, &self.catalog);
        // A query's columns have no known types; it is copied as text only, and NULL is a value of all of them.
        let plain = || Column::Scan(shape::encoding(Arc::new(Kind::Unknown), 0));
        match names {
            Some(origins) if origins.len() == columns => {
                origins.into_iter().map(|origin| self.copy_column(flow, origin, format)).collect()
            }
            _ if flow.protected.is_empty() => vec![plain(); columns],
            _ => {
                let hidden = || Column::Withhold(shape::encoding(Arc::new(Kind::Opaque), 0));
                let outputs = self.protected_outputs(Some(statement), &flow.protected);
                let outputs = outputs.filter(|o| o.len() == columns).unwrap_or_else(|| vec![true; columns]);
                outputs.into_iter().map(|hides| if hides { hidden() } else { plain() }).collect()
            }
        }
    }

    fn copy_column(&self, flow: &Flow, (table, attribute): (u32, i16), format: i16) -> Column {
        let kind = self.catalog.by_oid(table).and_then(|r| r.type_of(attribute));
        let encoding = match kind {
            Some(kind) => shape::encoding(self.catalog.kind(kind), format),
            // Not known: nothing of it may be seen.
            None => return Column::Withhold(shape::encoding(Arc::new(Kind::Opaque), format)),
        };
        let origin = self.catalog.origin(&self.labels, table, attribute);
        self.column(flow, origin, encoding)
    }

    pub(super) fn row(
        &mut self,
        flow: &mut Flow,
        body: &[u8],
        at: Range<usize>,
        chunk: &mut Chunk,
    ) -> Result<(), ProtocolError> {
        let shape = match flow.expected.front() {
            Some(Expect::Simple { .. }) => flow.shape.as_ref(),
            Some(Expect::Execute { portal }) => portal.shape.get(),
            _ => None,
        };
        let Some(shape) = shape else {
            return Err(ProtocolError::Unexpected { tag: b'D', during: "before its columns were described" });
        };
        chunk.rows += 1;
        if !shape.relied.is_empty() {
            let shape = Arc::clone(shape);
            if !flow.uphold(&shape.relied) {
                self.tasks.push_back(Task::CancelUpstream);
            }
            return chunk.row(&shape, body, at);
        }
        if shape.passes { Ok(()) } else { chunk.row(shape, body, at) }
    }

    /// The result of a call outside SQL came.
    pub(super) fn called(
        &self,
        flow: &mut Flow,
        portal: &Portal,
        result: u32,
        at: Range<usize>,
        chunk: &mut Chunk,
    ) {
        let format = portal.bind.as_ref().and_then(|bind| bind.result_formats.first()).copied().unwrap_or(0);
        let encoding = shape::encoding(self.catalog.kind(result), format);
        let hides = !flow.protected.is_empty();
        let column = if hides { Column::Withhold(encoding) } else { shape::unlabelled(encoding) };
        flow.outcome = "FUNCTION CALL".to_owned();
        chunk.rows += 1;
        chunk.edits.push((at, Edit::Value(column)));
    }

    /// The shape of a result that is described by the body of a RowDescription.
    pub(super) fn described(
        &mut self,
        flow: &Flow,
        body: &[u8],
        statement: Option<&Statement>,
    ) -> Result<Arc<Shape>, ProtocolError> {
        if !self.labels.is_empty() {
            return Ok(Arc::new(self.shape(flow, &backend::row_description(body)?, statement)));
        }
        self.shapes.of(body, self.catalog.generation(), || {
            let fields = backend::row_description(body)?;
            // Without labels every column is what its type is; see `shape`.
            let encodings = fields.iter().map(|f| shape::encoding(self.catalog.kind(f.type_oid), f.format));
            let shape = Shape::new(encodings.map(shape::unlabelled).collect());
            Ok((shape, fields.iter().all(|field| is_builtin(field.type_oid))))
        })
    }

    /// Decides once for a result what has to happen to each of its columns.
    fn shape(&self, flow: &Flow, fields: &[Field], statement: Option<&Statement>) -> Shape {
        // Rows of a write without RETURNING come from a rule that selects, about which the statement's text says nothing.
        let by_rule = statement.is_some_and(|s| !s.modifications.is_empty() && !may_return_rows(s));
        let referent = statement.and_then(|s| self.referent(s, &[]).ok().flatten());
        let statement = referent.as_deref().and_then(Prepared::statement).or(statement);
        let by_rule = by_rule || referent.is_some() && statement.is_some_and(|s| !may_return_rows(s));
        let by_rule =
            by_rule || !flow.protected.is_empty() && statement.is_some_and(|s| self.is_answered_by_rules(s));
        let names = self.names_of(&flow.protected, statement);
        let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let known = match flow.protected.is_empty() {
            true => None,
            false => self.protected_outputs(statement, &flow.protected).filter(|o| o.len() == fields.len()),
        };
        let mut relies = false;
        let columns = fields.iter().enumerate().map(|(i, field)| {
            let encoding = shape::encoding(self.catalog.kind(field.type_oid), field.format);
            if by_rule {
                return Column::Withhold(encoding);
            }
            if field.table != 0 {
                let origin = self.catalog.origin(&self.labels, field.table, field.attribute);
                relies |= match &origin {
                    Origin::Plain | Origin::Unknown => false,
                    Origin::Labelled(labels) => labels.len() > 1,
                    Origin::Derived(_) => true,
                };
                return self.column(flow, origin, encoding);
            }
            relies = true;
            let computed = match &known {
                Some(known) => known.get(i).copied().unwrap_or(true),
                None => !names.is_empty() && statement.is_none_or(|s| may_mention(s, Some(i), &names)),
            };
            if computed { Column::Withhold(encoding) } else { shape::unlabelled(encoding) }
        });
        let mut shape = Shape::new(columns.collect());
        if relies {
            shape.relied = flow.shown.clone();
        }
        shape
    }

    /// Names were asked for before the statement ran. The server has described its result now, so it holds its locks and what it
    /// reads can no longer change; what changed, or was changing, in between could have made a view show something else.
    pub(super) fn refuse_if_uncertain(&mut self, flow: &mut Flow, statement: Option<&Statement>) {
        let Some(statement) = statement.filter(|_| !self.labels.is_empty()) else { return };
        let definitions = &self.config.definitions;
        let views = self.views(statement);
        let names: Names = views.iter().map(|view| view.name.clone()).collect();
        let changing = definitions.is_blocked(&self.uses, [&names]);
        if !views.is_empty() && (changing || !self.epoch.is_unchanged(definitions.epoch())) {
            let message = "another session is changing definitions, so what the view shows is uncertain";
            let denial = Denial::new(DenialCode::NotUnderstood, message).with_hint("try again");
            flow.refusal = Some(denial);
            self.tasks.push_back(Task::CancelUpstream);
        }
    }

    /// The views a statement names and everything those read.
    fn views(&self, statement: &Statement) -> Vec<Arc<Relation>> {
        let referent = self.referent(statement, &[]).ok().flatten();
        let statements = [Some(statement), referent.as_deref().and_then(Prepared::statement)];
        let names = statements.into_iter().flatten().flat_map(|s| &s.relations);
        let relations = names.filter_map(|r| self.catalog.relation(&written(r.schema.as_deref(), &r.name)));
        let views = relations.filter(|relation| relation.is_view());
        views.flat_map(|view| [vec![Arc::clone(view)], self.catalog.reached(view)].concat()).collect()
    }

    /// Names under which protected values may be mentioned: those of the labels, and of the columns that carry them on in views.
    pub(in crate::session) fn names_of(
        &self,
        protected: &BTreeSet<usize>,
        statement: Option<&Statement>,
    ) -> BTreeSet<String> {
        let labels = protected.iter().filter_map(|i| self.guard.labels().get(*i));
        let mut names: BTreeSet<String> = labels.map(|l| l.resource.name().to_owned()).collect();
        if names.is_empty() {
            return names;
        }
        let relations = statement.into_iter().flat_map(|s| &s.relations);
        let known = relations.filter_map(|r| self.catalog.relation(&written(r.schema.as_deref(), &r.name)));
        for relation in known {
            let carriers = self.catalog.carriers(&self.labels, relation, protected);
            names.extend(carriers.into_iter().map(str::to_owned));
        }
        names.extend(statement.into_iter().flat_map(|s| self.calls_on_rows(s)));
        names
    }

    /// Qualified names that are no columns but may be functions: `c.row_to_json` is the call `row_to_json(c)` of the whole row.
    fn calls_on_rows(&self, statement: &Statement) -> Vec<String> {
        let function = |name: &str| {
            matches!(classify_function(Some("pg_catalog"), name), FunctionClass::Builtin { .. })
                || self.catalog.has_user_function(name)
        };
        let called = |c: &ColumnUse, name: &str| {
            may_be_row(&self.catalog, statement, c)
                || (function(name) && !is_column(&self.catalog, statement, c))
        };
        let qualified = statement.columns.iter().filter(|c| c.name.len() > 1);
        let named = qualified.filter_map(|c| c.name.last().map(|name| (c, name)));
        named.filter(|(c, name)| called(c, name)).map(|(_, name)| name.clone()).collect()
    }

    fn column(&self, flow: &Flow, origin: Origin, encoding: shape::Encoding) -> Column {
        let shown = |l: &usize| flow.results.as_ref().is_some_and(|r| r.reveals(*l));
        let counted = |l: &usize| flow.results.as_ref().is_some_and(|r| r.counts(*l));
        match origin {
            Origin::Plain => shape::unlabelled(encoding),
            Origin::Unknown => Column::Withhold(encoding),
            Origin::Derived(labels) if !labels.iter().all(|l| shown(l) && !counted(l)) => {
                Column::Withhold(encoding)
            }
            // Counted under one of them, a value would be none of the others' subjects.
            Origin::Labelled(labels) if labels.len() > 1 && labels.iter().any(counted) => {
                Column::Withhold(encoding)
            }
            Origin::Labelled(labels) | Origin::Derived(labels) => {
                match (labels.iter().find(|l| !shown(l)), labels.first()) {
                    (Some(hidden), _) => Column::Label(*hidden, encoding),
                    (None, Some(label)) => Column::Reveal(*label, encoding),
                    (None, None) => shape::unlabelled(encoding),
                }
            }
        }
    }

    /// Labels of what a statement names, and of what its changes change along: errors there quote whole rows.
    fn labels_reached(&self, statement: &Statement) -> BTreeSet<usize> {
        let mut labels = BTreeSet::new();
        for used in &statement.relations {
            let name = written(used.schema.as_deref(), &used.name);
            let Some(relation) = self.catalog.relation(&name) else { continue };
            labels.extend(self.catalog.protected(&self.labels, relation));
            let (event, columns) = (effects::event(used.access), effects::updated_columns(statement, used));
            let parts = if used.only { Vec::new() } else { self.catalog.descendants(relation) };
            for part in [relation].into_iter().chain(&parts) {
                let along = effects::consequences(&self.catalog, part, event, columns.as_deref());
                labels.extend(along.iter().flat_map(|(_, r)| self.catalog.protected(&self.labels, r)));
            }
        }
        labels
    }

    /// Labels reachable from a statement. Those this principal may see only so that they can be counted are protected.
    pub(in crate::session) fn reached_by<'a>(
        &self,
        statements: impl Iterator<Item = &'a Statement>,
        results: Option<&Results>,
    ) -> Reached {
        let mut reached = Reached::default();
        if self.labels.is_empty() {
            return reached;
        }
        for statement in statements {
            let referent = self.referent(statement, &[]).ok().flatten();
            let both = [Some(statement), referent.as_deref().and_then(Prepared::statement)];
            let labels = both.into_iter().flatten().flat_map(|s| self.labels_reached(s));
            let everything = if statement.flags.tests_domain { self.labels.all() } else { BTreeSet::new() };
            let shows = |l: &usize| results.is_some_and(|r| r.reveals(*l) && !r.counts(*l));
            let (shown, protected): (Vec<_>, Vec<_>) = labels.chain(everything).partition(shows);
            reached.shown.extend(shown);
            reached.protected.extend(protected);
        }
        reached
    }
}
