//! Commands that are neither queries nor definitions: `COPY`, cursors, prepared statements, `EXPLAIN`, maintenance.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    CallStmt, ClosePortalStmt, ClusterStmt, CopyStmt, DeallocateStmt, DeclareCursorStmt, DoStmt, ExecuteStmt,
    ExplainStmt, FetchDirection, FetchStmt, LockStmt, Node, PrepareStmt, RangeVar, ReindexObjectType,
    ReindexStmt, TruncateStmt, VacuumRelation, VacuumStmt,
};

use super::super::model::{
    Access, Change, Code, Copy, CopyDirection, CopyEndpoint, CopyFormat, Cursor, Explain, Filter,
    Modification, Output, OutputKind, Place, Prepared, SourceKind,
};
use super::{Walk, Walker, names};

/// `CURSOR_OPT_HOLD` of `nodes/parsenodes.h`.
const CURSOR_OPT_HOLD: i32 = 0x20;
/// `FETCH_ALL` of `nodes/parsenodes.h`: the largest long.
const FETCH_ALL: i64 = i64::MAX;

impl Walker {
    pub(super) fn copy(&mut self, copy: &CopyStmt) -> Walk {
        let columns = self.strings(&copy.attlist)?;
        let endpoint = match (copy.is_program, names::filled(&copy.filename)) {
            (true, program) => CopyEndpoint::Program(program.unwrap_or_default()),
            (false, Some(file)) => CopyEndpoint::File(file),
            (false, None) => CopyEndpoint::Client,
        };
        if copy.is_from || endpoint != CopyEndpoint::Client {
            self.writes();
        }
        self.in_frame(|walker| walker.copied(copy, &columns))?;
        let options: Vec<(String, String)> = names::options(&copy.options)
            .map(|option| (option.defname.to_ascii_lowercase(), names::option_text(option)))
            .collect();
        self.found.copy = Some(copy_facts(copy, endpoint, columns, options));
        Ok(())
    }

    /// Notes what is copied, and its columns as read.
    fn copied(&mut self, copy: &CopyStmt, columns: &[String]) -> Walk {
        if let Some(query) = copy.query.as_deref() {
            self.found.outputs = self.subquery(Some(query))?;
        }
        let Some(range) = copy.relation.as_ref() else { return Ok(()) };
        let access = if copy.is_from { Access::Insert } else { Access::Read };
        let relation = self.relation(range, access);
        let (kind, alias) = (SourceKind::Relation(relation), Some(range.relname.clone()));
        self.source(kind, alias, Vec::new(), Vec::new());
        if copy.is_from {
            let filter = Filter::NotApplicable;
            self.found.modifications.push(Modification {
                relation,
                access,
                filter,
                columns: columns.to_vec(),
            });
        } else {
            self.copied_columns(columns);
        }
        self.at_place(Place::Filter, |walker| walker.maybe(copy.where_clause.as_deref()))
    }

    fn copied_columns(&mut self, columns: &[String]) {
        self.place = Place::Output;
        let indexes: Vec<usize> =
            columns.iter().map(|column| self.column(vec![column.clone()], false)).collect();
        let mut outputs: Vec<Output> =
            indexes.into_iter().map(|index| output(OutputKind::Column(index), index)).collect();
        if columns.is_empty() {
            let index = self.column(Vec::new(), true);
            outputs.push(output(OutputKind::Star(index), index));
        }
        self.place = Place::Other;
        self.found.outputs = outputs;
    }

    pub(super) fn truncate(&mut self, truncate: &TruncateStmt) -> Walk {
        self.writes();
        self.cascade(truncate.behavior());
        self.relations(&truncate.relations, Access::Truncate)
    }

    pub(super) fn lock(&mut self, lock: &LockStmt) -> Walk {
        self.writes();
        self.relations(&lock.relations, Access::Lock)
    }

    pub(super) fn relations(&mut self, nodes: &[Node], access: Access) -> Walk {
        for node in nodes {
            let Some(NodeEnum::RangeVar(range)) = node.node.as_ref() else {
                return self.not_understood("a relation");
            };
            self.relation(range, access);
        }
        Ok(())
    }

    pub(super) fn vacuum(&mut self, vacuum: &VacuumStmt) -> Walk {
        self.writes();
        self.each(&vacuum.options)?;
        self.each(&vacuum.rels)
    }

    pub(super) fn vacuum_relation(&mut self, vacuum: &VacuumRelation) -> Walk {
        self.strings(&vacuum.va_cols)?;
        self.maintain(vacuum.relation.as_ref());
        Ok(())
    }

    fn maintain(&mut self, range: Option<&RangeVar>) {
        self.writes();
        if let Some(range) = range {
            self.relation(range, Access::Maintain);
        }
    }

    pub(super) fn cluster(&mut self, cluster: &ClusterStmt) -> Walk {
        self.maintain(cluster.relation.as_ref());
        self.each(&cluster.params)
    }

    pub(super) fn reindex(&mut self, reindex: &ReindexStmt) -> Walk {
        self.writes();
        self.each(&reindex.params)?;
        match reindex.kind() {
            ReindexObjectType::ReindexObjectTable => self.maintain(reindex.relation.as_ref()),
            ReindexObjectType::ReindexObjectIndex => {
                let name = reindex.relation.as_ref().map(names::range_parts).unwrap_or_default();
                self.object("index", name, Change::Alter);
            }
            ReindexObjectType::ReindexObjectSchema => {
                self.object("schema", vec![reindex.name.clone()], Change::Alter);
            }
            ReindexObjectType::ReindexObjectSystem | ReindexObjectType::ReindexObjectDatabase => {
                self.object("database", vec![reindex.name.clone()], Change::Alter);
            }
            ReindexObjectType::Undefined => return self.not_understood("a reindex"),
        }
        Ok(())
    }

    /// Merges the inner statement. Without `ANALYZE` it is planned only, but judged as if it ran is the safe reading
    /// of what it names; just its writes do not happen.
    pub(super) fn explain(&mut self, explain: &ExplainStmt) -> Walk {
        let facts = explain_facts(explain);
        let Some(query) = explain.query.as_deref() else { return self.not_understood("an empty explain") };
        let inner = self.nested(query)?;
        if !facts.analyze {
            self.found.flags.writes = false;
            self.found.flags.unbounded_write = false;
        } else {
            self.found.kind = "explain_analyze".into();
        }
        self.found.prepared.clone_from(&inner.prepared);
        self.found.limit = inner.limit;
        // What an explain returns is the plan.
        self.found.outputs.clear();
        self.found.explain = Some(facts);
        self.found.inner = Some(Box::new(inner));
        Ok(())
    }

    pub(super) fn prepare(&mut self, prepare: &PrepareStmt) -> Walk {
        self.each(&prepare.argtypes)?;
        let Some(query) = prepare.query.as_deref() else { return self.not_understood("an empty prepare") };
        let inner = self.nested(query)?;
        self.found.prepared =
            Some(Prepared { name: Some(prepare.name.clone()), arguments: prepare.argtypes.len() });
        // What a prepare returns is nothing; its execution returns the inner outputs.
        self.found.outputs.clear();
        self.found.inner = Some(Box::new(inner));
        Ok(())
    }

    /// What runs was told by the `PREPARE`: unknown here.
    pub(super) fn execute(&mut self, execute: &ExecuteStmt) -> Walk {
        self.found.flags.unproven = true;
        self.each(&execute.params)?;
        self.found.prepared =
            Some(Prepared { name: Some(execute.name.clone()), arguments: execute.params.len() });
        Ok(())
    }

    pub(super) fn deallocate(&mut self, deallocate: &DeallocateStmt) -> Walk {
        let name = names::filled(&deallocate.name).filter(|_| !deallocate.isall);
        self.found.prepared = Some(Prepared { name, arguments: 0 });
        Ok(())
    }

    pub(super) fn declare(&mut self, declare: &DeclareCursorStmt) -> Walk {
        let Some(query) = declare.query.as_deref() else { return self.not_understood("an empty cursor") };
        let inner = self.nested(query)?;
        self.found.cursor = Some(Cursor {
            name: Some(declare.portalname.clone()),
            hold: declare.options & CURSOR_OPT_HOLD != 0,
            moves: false,
            rows: None,
        });
        self.found.limit = inner.limit;
        self.found.inner = Some(Box::new(inner));
        Ok(())
    }

    /// What is fetched was told by the `DECLARE`: unknown here. A cursor over a volatile query runs it now.
    pub(super) fn fetch(&mut self, fetch: &FetchStmt) -> Walk {
        self.found.flags.unproven = true;
        let counted =
            matches!(fetch.direction(), FetchDirection::FetchForward | FetchDirection::FetchBackward);
        self.found.cursor = Some(Cursor {
            name: Some(fetch.portalname.clone()),
            hold: false,
            moves: fetch.ismove,
            rows: Some(fetch.how_many).filter(|&rows| counted && rows != FETCH_ALL),
        });
        Ok(())
    }

    pub(super) fn close_cursor(&mut self, close: &ClosePortalStmt) -> Walk {
        let name = names::filled(&close.portalname);
        self.found.cursor = Some(Cursor { name, hold: false, moves: false, rows: None });
        Ok(())
    }

    pub(super) fn do_block(&mut self, block: &DoStmt) -> Walk {
        self.writes();
        let mut code = Code::default();
        for option in names::options(&block.args) {
            match option.defname.as_str() {
                "language" => code.language = Some(names::option_text(option).to_ascii_lowercase()),
                "as" => code.bytes += names::option_text(option).len(),
                _ => return self.not_understood("an option of do"),
            }
        }
        self.found.code = Some(code);
        Ok(())
    }

    pub(super) fn call_procedure(&mut self, call: &CallStmt) -> Walk {
        self.writes();
        let Some(function) = call.funccall.as_ref() else { return self.not_understood("a call") };
        self.found.flags.unproven = true;
        self.call(function)?;
        self.each(&call.outargs)
    }
}

fn output(kind: OutputKind, index: usize) -> Output {
    Output { alias: None, kind, columns: vec![index] }
}

fn copy_facts(
    copy: &CopyStmt,
    endpoint: CopyEndpoint,
    columns: Vec<String>,
    options: Vec<(String, String)>,
) -> Copy {
    // The server refuses repeated options, so the first is the only one.
    let option = |name: &str| options.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let format = match option("format").as_deref().map(str::to_ascii_lowercase).as_deref() {
        None | Some("text") => CopyFormat::Text,
        Some("csv") => CopyFormat::Csv,
        Some("binary") => CopyFormat::Binary,
        Some(_) => CopyFormat::Unknown,
    };
    let direction = if copy.is_from { CopyDirection::From } else { CopyDirection::To };
    let (header, encoding) = (option("header"), option("encoding"));
    Copy { direction, endpoint, query: copy.query.is_some(), columns, format, header, encoding, options }
}

fn explain_facts(explain: &ExplainStmt) -> Explain {
    let mut facts = Explain::default();
    for option in names::options(&explain.options) {
        let name = option.defname.to_ascii_lowercase();
        if name == "analyze" {
            // The server reads them in order and keeps the last; a value it would refuse counts as on.
            facts.analyze = names::option_bool(option).unwrap_or(true);
        }
        facts.options.push((name, names::option_text(option)));
    }
    facts
}
