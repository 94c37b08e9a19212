//! What policies may ask to be changed in a statement: see the list in `docs/policy.md`, "Rewrites".

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use gateway_core::error::{Denial, DenialCode};
use gateway_core::operation::{Access, Effect, Fact, Operation};
use gateway_core::pipeline::{Estimator, Rewriter};

use crate::analysis::{self, LexSettings, Limits, RelationUse, Restriction, RewriteError, Statement};
use crate::catalog::{Catalog, Relation};
use crate::effects;
use crate::estimate::{PgEstimator, Side};
use crate::statement::{Prepared, Text, written};

/// A table that a statement names, and what comes along with it.
#[derive(Clone, Debug)]
pub(crate) struct NamedTable {
    schema: Option<String>,
    name: String,
    is: (String, String),
    columns: Vec<String>,
    /// Other tables that are read or changed through it.
    reaches: Vec<(String, String)>,
}

/// The tables that a statement names.
pub(crate) fn named_tables(catalog: &Catalog, statement: &Statement) -> Vec<NamedTable> {
    let known = |used| catalog.relation(&written_name(used)).map(|relation| (used, relation));
    statement.relations.iter().filter_map(known).map(|(used, r)| named_table(catalog, used, r)).collect()
}

fn written_name(used: &RelationUse) -> String {
    written(used.schema.as_deref(), &used.name)
}

fn named_table(catalog: &Catalog, used: &RelationUse, relation: &Arc<Relation>) -> NamedTable {
    let full = |r: &Relation| (r.schema.clone(), r.name.clone());
    let along = effects::consequences(catalog, relation, effects::event(used.access), None);
    let along = along.into_iter().skip(1).map(|(_, r)| r);
    let through = catalog.ancestors(relation).into_iter().chain(along);
    // A partition that is read through its table is restricted with it.
    let views = catalog.reached(relation).into_iter().filter(|_| relation.is_view());
    NamedTable {
        schema: used.schema.clone(),
        name: used.name.clone(),
        is: full(relation),
        columns: relation.columns().map(str::to_owned).collect(),
        reaches: through.chain(views).map(|r| full(&r)).collect(),
    }
}

/// What is known of an operation besides its text.
#[derive(Clone, Debug)]
pub(crate) struct Background {
    /// Whose it is: the operation has this very list.
    pub(crate) accesses: Arc<[Access]>,
    pub(crate) tables: Arc<[NamedTable]>,
    /// For `EXECUTE` and `FETCH`: the text of what they run, as the server has it.
    pub(crate) stands_for: Option<Bytes>,
    pub(crate) source: Source,
}

/// The statement that an operation was made of.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) text: Arc<Text>,
    /// Which statement of the text.
    pub(crate) index: usize,
    /// Type OIDs that Parse gives its parameters.
    pub(crate) types: Arc<[u32]>,
    /// What `EXECUTE` and the like stand for.
    pub(crate) refers_to: Option<Arc<Prepared>>,
}

impl Source {
    /// The statement itself.
    pub(crate) fn statement(&self) -> Option<&Statement> {
        self.text.statement(self.index)
    }

    /// The statement that it stands for.
    pub(crate) fn referent(&self) -> Option<&Statement> {
        self.refers_to.as_deref().and_then(Prepared::statement)
    }
}

/// Applies the rewrites to texts that were not sent yet, and looks whether those that were keep to them.
#[derive(Clone, Debug)]
pub(crate) struct PgRewriter {
    pub(crate) lexing: LexSettings,
    /// False where the server has the text already.
    pub(crate) possible: bool,
    pub(crate) backgrounds: Arc<[Background]>,
    /// How many of them are only prepared; those that run follow.
    pub(crate) prepared: usize,
    /// Where estimates are asked for.
    pub(crate) side: Arc<Side>,
    pub(crate) search_path: Option<Arc<str>>,
    pub(crate) settings: Arc<BTreeMap<String, String>>,
}

impl Rewriter for PgRewriter {
    fn rewrite(&self, operation: &Operation, rewrites: &[&str]) -> Result<Option<Operation>, Denial> {
        let background = self.backgrounds.iter().find(|b| Arc::ptr_eq(&b.accesses, &operation.accesses));
        let duties = Duties::read(rewrites)?;
        let rewriting = Rewriting { lexing: self.lexing, operation, background };
        let sent = background.and_then(|b| b.stands_for.as_ref());
        let original = std::str::from_utf8(sent.unwrap_or(&operation.statement)).unwrap_or_default();
        let Some(text) = rewriting.all(original, &duties)? else { return Ok(None) };
        if !self.possible || sent.is_some() {
            let message = "the policy asks for a rewrite of what was prepared or declared without it";
            return Err(unmet(message).with_hint("prepare or declare it again, and send it on its own"));
        }
        Ok(Some(rewriting.rewritten(text, &duties)))
    }

    fn undoes_changes(&self) -> bool {
        true
    }

    fn estimator(&self) -> Option<Arc<dyn Estimator>> {
        Some(Arc::new(PgEstimator {
            side: Arc::clone(&self.side),
            lexing: self.lexing,
            search_path: self.search_path.clone(),
            settings: Arc::clone(&self.settings),
            backgrounds: Arc::clone(&self.backgrounds),
            prepared: self.prepared,
        }))
    }
}

fn unmet(message: impl Into<String>) -> Denial {
    Denial::new(DenialCode::ObligationUnmet, message)
}

/// The rewrites, understood.
#[derive(Debug, Default)]
struct Duties {
    read_only: bool,
    require_where: bool,
    limit: Option<u64>,
    tables: BTreeMap<(String, String), Restriction>,
}

impl Duties {
    fn read(rewrites: &[&str]) -> Result<Self, Denial> {
        let mut duties = Self::default();
        for rewrite in rewrites {
            let unknown = || unmet(format!("the policy's rewrite `{rewrite}` is not understood"));
            let (word, rest) = rewrite.split_once(':').map_or((*rewrite, ""), |(word, rest)| (word, rest));
            match word.trim() {
                "read_only" if rest.is_empty() => duties.read_only = true,
                "require_where" if rest.is_empty() => duties.require_where = true,
                "limit" => {
                    let rows = rest.trim().parse().map_err(|_| unknown())?;
                    duties.limit = Some(duties.limit.map_or(rows, |known| known.min(rows)));
                }
                "where" | "columns" | "null" => duties.restrict(word.trim(), rest).ok_or_else(unknown)?,
                _ => {
                    return Err(unmet(format!(
                        "the policy's rewrite `{rewrite}` is not possible for PostgreSQL"
                    )));
                }
            }
        }
        Ok(duties)
    }

    /// `schema.table:` and a condition or a list of columns.
    fn restrict(&mut self, word: &str, rest: &str) -> Option<()> {
        let (table, what) = rest.split_once(':')?;
        let (schema, table) = table.trim().split_once('.')?;
        let key = (schema.to_owned(), table.to_owned());
        let restriction = self.tables.entry(key).or_insert_with(|| Restriction {
            schema: schema.to_owned(),
            table: table.to_owned(),
            ..Restriction::default()
        });
        let names: Vec<String> = what.split(',').map(|name| name.trim().to_owned()).collect();
        let named = !names.iter().any(String::is_empty);
        match word {
            "where" => restriction.conditions.push(what.trim().to_owned()),
            "columns" if named => restriction.columns = Some(names),
            "null" if named => restriction.null = names,
            _ => return None,
        }
        Some(())
    }
}

struct Rewriting<'a> {
    lexing: LexSettings,
    operation: &'a Operation,
    background: Option<&'a Background>,
}

impl Rewriting<'_> {
    /// The text after all of them; `None` if it keeps to them already.
    fn all(&self, text: &str, duties: &Duties) -> Result<Option<String>, Denial> {
        if duties.read_only && self.operation.effect != Effect::Read {
            return Err(unmet("the policy allows this for reading only"));
        }
        if duties.require_where {
            self.refuse_unbounded()?;
        }
        let restrictions = self.restrictions(duties)?;
        let mut new = None;
        if !restrictions.is_empty() {
            let is = |schema: Option<&str>, name: &str| self.meaning(schema, name);
            let restricted = analysis::restrict(text, &restrictions, &is, &self.lexing, &Limits::default());
            new = restricted.map_err(|cause| {
                unmet(format!(
                    "the policy restricts what is seen of a table, which cannot be done here: {cause}"
                ))
                .with_hint("name the table once, in a plain SELECT, UPDATE or DELETE")
            })?;
        }
        if let Some(rows) = duties.limit {
            let limited = self.limited(new.as_deref().unwrap_or(text), rows)?;
            new = limited.or(new);
        }
        Ok(new)
    }

    fn refuse_unbounded(&self) -> Result<(), Denial> {
        let fact = |name: &str| self.operation.facts.get(name) == Some(&Fact::Bool(true));
        let changes = |a: &Access| matches!(a.action.as_str(), "update" | "delete");
        let empties = self.operation.accesses.iter().any(|a| a.action.as_str() == "truncate");
        let unbounded = !fact("has_where") || fact("where_constant");
        if empties || (self.operation.accesses.iter().any(changes) && unbounded) {
            let hint = "add a WHERE clause that depends on the rows";
            return Err(unmet("the policy allows changes with a condition only").with_hint(hint));
        }
        Ok(())
    }

    fn tables(&self) -> &[NamedTable] {
        self.background.map_or(&[], |b| &b.tables)
    }

    /// Which table a name means. A text that was rewritten names it in full.
    fn meaning(&self, schema: Option<&str>, name: &str) -> Option<(String, String)> {
        let named = |t: &&NamedTable| t.name == name && t.schema.as_deref() == schema;
        let full = |t: &&NamedTable| t.is.1 == name && schema == Some(t.is.0.as_str());
        let found = self.tables().iter().find(named).or_else(|| self.tables().iter().find(full));
        found.map(|t| t.is.clone())
    }

    /// The restrictions of tables that the operation touches.
    fn restrictions(&self, duties: &Duties) -> Result<Vec<Restriction>, Denial> {
        let touched = |restriction: &&Restriction| {
            self.operation.accesses.iter().any(|access| is_table(access, restriction))
        };
        duties.tables.values().filter(touched).map(|restriction| self.restriction(restriction)).collect()
    }

    fn restriction(&self, restriction: &Restriction) -> Result<Restriction, Denial> {
        let target = (restriction.schema.clone(), restriction.table.clone());
        let reached = |t: &NamedTable| t.is != target && t.reaches.contains(&target);
        let direct = self.tables().iter().find(|t| t.is == target);
        let Some(direct) = direct.filter(|_| !self.tables().iter().any(reached)) else {
            let message =
                "the policy restricts what is seen of a table that the statement reaches through another one";
            return Err(unmet(message).with_hint(format!("name `{}.{}` itself", target.0, target.1)));
        };
        let mut restriction = restriction.clone();
        restriction.all.clone_from(&direct.columns);
        Ok(restriction)
    }

    fn limited(&self, text: &str, rows: u64) -> Result<Option<String>, Denial> {
        let returning = self.operation.facts.get("returning") == Some(&Fact::Bool(true));
        let limits = Limits::default();
        let plain = |text: &str| {
            let limited = analysis::limit(text, rows, &self.lexing, &limits)?;
            Ok((limited != text).then_some(limited))
        };
        let inside = |text: &str| analysis::limit_inside(text, rows, &self.lexing, &limits);
        let limited: Result<_, RewriteError> = match &*self.operation.kind {
            "select" => plain(text),
            "prepare" | "declare_cursor" | "copy_to" => inside(text),
            "execute" | "fetch" => inside(text).or_else(|_| plain(text)),
            _ if returning => Err(RewriteError::Unsuitable { what: "what is returned by a change" }),
            _ => Ok(None),
        };
        limited.map_err(|cause| {
            let message = format!(
                "the policy limits this to {rows} rows, which cannot be added to the statement: {cause}"
            );
            unmet(message).with_hint(format!("add LIMIT {rows} yourself"))
        })
    }

    fn rewritten(&self, text: String, duties: &Duties) -> Operation {
        let mut rewritten = self.operation.clone();
        let facts = Arc::make_mut(&mut rewritten.facts);
        if duties.limit.is_some() {
            facts.insert("has_limit".into(), true.into());
        }
        // A change under a further condition depends on the rows.
        if duties.tables.values().any(|t| !t.conditions.is_empty())
            && matches!(&*rewritten.kind, "update" | "delete")
        {
            facts.insert("has_where".into(), true.into());
        }
        if rewritten.recorded.is_some() {
            let masked = analysis::mask_literals(&text, &self.lexing, &Limits::default());
            let withheld = |_| format!("({} with literals withheld)", rewritten.kind);
            rewritten.recorded = Some(masked.unwrap_or_else(withheld));
        }
        rewritten.statement = Bytes::from(text);
        rewritten
    }
}

fn is_table(access: &Access, restriction: &Restriction) -> bool {
    let path = access.resource.path();
    let named = |kind: &str, name: &str| path.iter().any(|(k, n)| k == kind && n == name);
    named("Schema", &restriction.schema) && named("Table", &restriction.table)
}
