//! Statement texts as a session knows them: analysed once, named by what they define and use.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use gateway_core::error::{Denial, DenialCode};

use crate::analysis::{
    Analysis, AnalysisCache, AnalysisError, ColumnUse, FunctionRole, LexSettings, Output, OutputKind, Place,
    SourceKind, Statement, Understood,
};
use crate::catalog::{Catalog, Unresolved, quote};
use crate::memo::{Memo, Memos};
use crate::operation::FUNCTIONS;

/// One text and what it says.
#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) bytes: Bytes,
    pub(crate) analysis: Arc<Analysis>,
    /// Where its statements stand.
    understood: Understood,
    /// What this session knows of its analysis.
    pub(crate) memo: Arc<Memo>,
    /// How many statements came with it in one message, itself included.
    of: usize,
    /// The text the server has instead, if it was rewritten: that of its only statement.
    pub(crate) sent: std::sync::OnceLock<Bytes>,
}

impl Text {
    /// Analyses `bytes` with the server's own grammar.
    pub(crate) fn understand(
        cache: &AnalysisCache,
        memos: &mut Memos,
        bytes: Bytes,
        settings: &LexSettings,
    ) -> Result<Arc<Self>, Denial> {
        let understood = cache.analyse(&bytes, settings).map_err(|error| not_understood(&error))?;
        let memo = memos.of(&understood.analysis);
        let of = understood.analysis.statements.len();
        let analysis = Arc::clone(&understood.analysis);
        Ok(Arc::new(Self { bytes, analysis, understood, memo, of, sent: std::sync::OnceLock::new() }))
    }

    /// The same text, one of `count` statements of a message.
    pub(crate) fn one_of(self: Arc<Self>, count: usize) -> Arc<Self> {
        let (bytes, understood) = (self.bytes.clone(), self.understood.clone());
        Arc::new(Self {
            bytes,
            analysis: Arc::clone(&self.analysis),
            understood,
            memo: Arc::clone(&self.memo),
            of: count,
            sent: std::sync::OnceLock::new(),
        })
    }

    /// How many statements its message holds.
    pub(crate) const fn of(&self) -> usize {
        self.of
    }

    /// Where the statement at `index` stands.
    pub(crate) fn range(&self, index: usize) -> Option<std::ops::Range<usize>> {
        self.understood.range(index).filter(|r| r.start <= r.end && r.end <= self.bytes.len())
    }

    /// About how many bytes it takes as long as it is kept.
    pub(crate) fn weight(&self) -> usize {
        self.bytes.len() + self.memo.bytes
    }

    /// Names in it that the catalog has not been asked for.
    pub(crate) fn unresolved(&self, catalog: &Catalog) -> Unresolved {
        Unresolved {
            definitions: self.memo.looks_up_names && catalog.definitions().is_none(),
            ..catalog.unresolved(&self.memo.relations, &self.memo.functions, &self.memo.types)
        }
    }

    /// The statement at `index`, if there are so many.
    pub(crate) fn statement(&self, index: usize) -> Option<&Statement> {
        self.analysis.statements.get(index)
    }

    /// The statement at `index` as the server has it.
    pub(crate) fn as_sent(&self, index: usize) -> Bytes {
        self.sent.get().map_or_else(|| self.slice(index), Bytes::clone)
    }

    /// What the server gets instead, as text.
    pub(crate) fn rewritten(&self) -> std::borrow::Cow<'_, str> {
        self.sent.get().map_or_else(Default::default, |sent| String::from_utf8_lossy(sent))
    }

    /// The exact bytes of the statement at `index`.
    pub(crate) fn slice(&self, index: usize) -> Bytes {
        self.range(index).map_or_else(Bytes::new, |r| self.bytes.slice(r))
    }
}

/// A relation's name as the catalog is asked for it.
pub(crate) fn written(schema: Option<&str>, name: &str) -> String {
    match schema {
        Some(schema) => format!("{}.{}", quote(schema), quote(name)),
        None => quote(name),
    }
}

/// Whether a statement that changes something looks names up that its text does not show as names: code does, and functions and types
/// that take names as values.
pub(crate) fn looks_up_names(statement: &Statement) -> bool {
    const BY_NAME: [&str; 5] =
        ["has_", "pg_get_serial_sequence", "pg_relation_", "pg_table_is_visible", "to_reg"];
    let by_name = |name: &str| BY_NAME.iter().any(|known| name.starts_with(known));
    !statement.read_only()
        && (statement.flags.unproven
            || statement.flags.object_names
            || statement.kind == "do"
            || statement.functions.iter().any(|f| by_name(&f.name)))
}

/// Names that a user's function, operator or type on the search path could take over: calls without schema, which may also be casts
/// (`type f`), qualified column references (`u.f` is also `f(u)` and a cast of the row, `row type f`), fields (`(e).f` is also `f(e)`
/// and `e::f`), and operators without schema as `operator =`. Also of functions without schema that are defined, changed or dropped.
pub(crate) fn unqualified_calls(statement: &Statement) -> impl Iterator<Item = String> {
    let calls = statement.functions.iter().filter(|f| f.schema.is_none() && f.role == FunctionRole::Call);
    let calls = calls.map(|f| &f.name).chain(&statement.fields);
    let columns = statement.columns.iter().filter(|c| c.name.len() > 1 && !c.star);
    let columns = columns.filter_map(|c| c.name.last());
    let operators = statement.operators.iter().filter(|o| o.schema.is_none());
    let defined = statement.objects.iter().filter(|o| o.name.len() == 1 && FUNCTIONS.contains(&&*o.kind));
    calls
        .flat_map(|name| [name.clone(), format!("type {name}")])
        .chain(columns.flat_map(|name| [name.clone(), format!("row type {name}")]))
        .chain(operators.map(|o| format!("operator {}", o.name)))
        .chain(defined.filter_map(|o| o.name.last().cloned()))
        .collect::<Vec<_>>()
        .into_iter()
}

/// Names of functions called with their schema: what they are is part of what an approval is bound to.
pub(crate) fn qualified_calls(statement: &Statement) -> impl Iterator<Item = String> {
    let calls = statement.functions.iter().filter(|f| f.schema.as_deref().is_some_and(|s| s != "pg_catalog"));
    calls.map(|f| f.name.clone())
}

fn not_understood(error: &AnalysisError) -> Denial {
    let code = match error {
        AnalysisError::Syntax { .. } | AnalysisError::Unterminated { .. } => DenialCode::Malformed,
        _ => DenialCode::NotUnderstood,
    };
    Denial::new(code, format!("the statement is refused because it cannot be understood exactly: {error}"))
        .with_hint("send one plain statement in standard PostgreSQL syntax")
}

/// A prepared statement of the session, by protocol or by `PREPARE`.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) text: Arc<Text>,
    /// Which statement of the text; its `inner` if it is a `PREPARE`.
    pub(crate) index: usize,
    /// Type OIDs that Parse gives its parameters.
    pub(crate) types: Arc<[u32]>,
}

impl Prepared {
    pub(crate) fn new(text: Arc<Text>, index: usize) -> Self {
        Self { text, index, types: Arc::default() }
    }

    /// With the parameter types that Parse gives.
    pub(crate) fn with_types(self, types: Vec<u32>) -> Self {
        Self { types: types.into(), ..self }
    }

    /// What runs when it is executed; `None` for an empty text.
    pub(crate) fn statement(&self) -> Option<&Statement> {
        let statement = self.text.statement(self.index)?;
        match (&statement.inner, &*statement.kind) {
            (Some(inner), "prepare" | "declare_cursor") => Some(inner),
            _ => Some(statement),
        }
    }
}

/// Whether a computed output of the statement may contain one of these columns, as far as its text tells. Errs towards true.
pub(crate) fn may_mention(statement: &Statement, output: Option<usize>, protected: &BTreeSet<&str>) -> bool {
    let plain_sources =
        statement.sources.iter().all(|s| matches!(s.kind, SourceKind::Relation(_)) && s.columns.is_empty());
    let positional =
        plain_sources && !statement.flags.set_operation && !statement.outputs.iter().any(spreads);
    if positional && let Some(output) = output.and_then(|i| statement.outputs.get(i)) {
        return output
            .columns
            .iter()
            .filter_map(|i| statement.columns.get(*i))
            .any(|c| mentions(c, protected));
    }
    if output.and_then(|i| statement.outputs.get(i)).is_some_and(|o| {
        o.kind == OutputKind::Expression && o.columns.is_empty() && !statement.flags.set_operation
    }) && !statement.outputs.iter().any(spreads)
    {
        return false;
    }
    let renamed = statement.sources.iter().any(|s| !s.columns.is_empty());
    // What NATURAL merges is computed, and the text names none of it.
    let nested = statement.flags.set_operation || statement.flags.natural_join || !plain_sources;
    renamed
        || statement.columns.iter().any(|c| match c.star {
            true => nested && !is_natural(c),
            false => mentions(c, protected),
        })
}

/// Whether it stands for what `NATURAL` joins only: that puts nothing out by itself.
fn is_natural(column: &ColumnUse) -> bool {
    column.name.is_empty() && column.places.iter().all(|place| *place == Place::Filter)
}

/// Whether an output stands for an unknown number of columns, so that what comes after it cannot be told by its place.
fn spreads(output: &Output) -> bool {
    matches!(output.kind, OutputKind::Star(_) | OutputKind::Expanded)
}

pub(crate) fn mentions(column: &ColumnUse, protected: &BTreeSet<&str>) -> bool {
    column.whole_row
        || column.star
        || column.name.last().is_some_and(|name| protected.contains(name.as_str()))
}

/// Settings that change what names mean or who runs.
const MEANINGFUL: [&str; 3] = ["search_path", "role", "session_authorization"];

/// Whether a change of this setting changes what names mean; `None` is one that the text does not tell.
pub(crate) fn is_meaningful(setting: Option<&str>) -> bool {
    setting.is_none_or(|name| MEANINGFUL.contains(&name))
}

/// Whether a statement is part of a two-phase commit: what it commits may have been done by anybody.
pub(crate) fn is_two_phase(statement: &Statement) -> bool {
    matches!(&*statement.kind, "prepare_transaction" | "commit_prepared" | "rollback_prepared")
}

/// Whether a statement makes the transaction read a snapshot that another one exported.
pub(crate) fn imports_snapshot(statement: &Statement) -> bool {
    statement.kind == "set_transaction" && statement.transaction.as_ref().is_some_and(|t| t.name.is_some())
}

/// Whether a statement changes what names mean from here on.
pub(crate) fn changes_meaning(statement: &Statement) -> bool {
    statement.settings.iter().any(|s| is_meaningful(s.name.as_deref()))
        || !statement.objects.is_empty()
        || statement.flags.temporary
        || is_two_phase(statement)
        || matches!(&*statement.kind, "discard" | "do" | "call" | "select_into" | "create_table_as")
}

/// Whether a statement changes what names mean to other sessions too, once it is committed.
pub(crate) fn changes_definitions(statement: &Statement) -> bool {
    !statement.objects.is_empty()
        || is_two_phase(statement)
        || matches!(&*statement.kind, "do" | "call" | "select_into" | "create_table_as")
}

/// Whether a statement ends a transaction or part of one, and so undoes what changed the meaning of names in it.
pub(crate) fn ends_transaction(statement: &Statement) -> bool {
    statement.transaction.is_some()
        && !matches!(&*statement.kind, "begin" | "savepoint" | "release" | "set_transaction")
}

/// Whether a statement names anything whose meaning could have changed.
pub(crate) fn names_something(statement: &Statement) -> bool {
    !statement.relations.is_empty()
        || !statement.functions.is_empty()
        || !statement.operators.is_empty()
        || !statement.types.is_empty()
        || !statement.fields.is_empty()
        || statement.prepared.is_some()
        || statement.cursor.is_some()
}
