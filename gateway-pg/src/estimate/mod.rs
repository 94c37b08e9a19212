//! What a held statement would do, for the people who decide about it: told by the planner, never by running it.
//!
//! Asked on a connection of the gateway's own, to the same database as the same role and with the session's settings, in a transaction that
//! reads only and is undone. Not on the session's: its open transaction would keep the locks, and a plan that fails would end it. What that
//! connection cannot see (temporary and uncommitted objects) gets no estimate: its names must mean there exactly what people are asked about.
//!
//! Planning runs code: it computes what is constant, and compares values of statistics. So nothing is planned that may call anything but
//! harmless built-in functions, and nobody may change what the names mean until it is planned (see [`crate::definitions`]).

mod notes;
mod plan;
mod side;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use gateway_core::approval::Estimate;
use gateway_core::operation::{Access, Argument, Fact, Operation};
use gateway_core::pipeline::Estimator;

use crate::analysis::{self, AnalysisCache, LexSettings, Limits, Statement};
use crate::catalog::{Catalog, DEFINITIONS, LabelIndex, QUESTION, Relation};
use crate::definitions::Uses;
use crate::memo::Memos;
use crate::operation::{self, Place, Subject};
use crate::rewriter::{Background, Source};
use crate::scope::used_names;
use crate::session::UNKNOWN_SETTING;
use crate::statement::{Prepared, Text};
use plan::Plan;
use side::{Connection, Question, Trouble};
pub(crate) use side::{MAX_CONNECTIONS, Side};

/// What the planner is asked with. Never `ANALYZE`: that would run the statement.
const EXPLAIN: &str = "EXPLAIN (FORMAT JSON) ";

const TYPES: &str = include_str!("types.sql");

/// Commands that `EXPLAIN` takes (PostgreSQL documentation, "EXPLAIN").
const PLANNED: [&str; 9] = [
    "select",
    "insert",
    "update",
    "delete",
    "merge",
    "select_into",
    "create_table_as",
    "declare_cursor",
    "execute",
];

/// Tells what the statements of one message would do.
#[derive(Clone)]
pub(crate) struct PgEstimator {
    pub(crate) side: Arc<Side>,
    pub(crate) lexing: LexSettings,
    /// The session's, as the server told it with the names.
    pub(crate) search_path: Option<Arc<str>>,
    /// Settings that change what statements do, as far as the session changed them.
    pub(crate) settings: Arc<BTreeMap<String, String>>,
    pub(crate) backgrounds: Arc<[Background]>,
    /// How many of them are only prepared; the ones that run follow.
    pub(crate) prepared: usize,
}

impl fmt::Debug for PgEstimator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgEstimator").field("database", &self.side.database).finish_non_exhaustive()
    }
}

#[async_trait]
impl Estimator for PgEstimator {
    async fn estimate(&self, operations: &[Operation]) -> Vec<Estimate> {
        match self.estimates(operations).await {
            Ok(estimates) => estimates,
            Err(trouble) => operations.iter().map(|_| Estimate::unknown(&trouble)).collect(),
        }
    }
}

impl PgEstimator {
    async fn estimates(&self, operations: &[Operation]) -> Result<Vec<Estimate>, Trouble> {
        self.refuse_unknown_settings()?;
        let closed = |_| Trouble::new("the gateway is about to end");
        let _turn = self.side.turns().acquire().await.map_err(closed)?;
        let mut connection = self.side.connect().await?;
        let mut estimates = Vec::with_capacity(operations.len());
        for (index, operation) in operations.iter().enumerate() {
            let background = self.backgrounds.get(self.prepared + index);
            let estimate = match background {
                Some(background) => self.one(&mut connection, operation, &background.source).await,
                None => Err(Trouble::new("what the statement means is not known")),
            };
            estimates.push(estimate.unwrap_or_else(Estimate::unknown));
        }
        Ok(estimates)
    }

    fn refuse_unknown_settings(&self) -> Result<(), Trouble> {
        let unknown = self.settings.iter().find(|(_, value)| value.starts_with(UNKNOWN_SETTING));
        unknown.map_or(Ok(()), |(name, _)| {
            Err(Trouble::new(format!("the value that `{name}` has in the session is not known")))
        })
    }

    async fn one(
        &self,
        connection: &mut Connection,
        operation: &Operation,
        source: &Source,
    ) -> Result<Estimate, Trouble> {
        connection.begin().await?;
        for (name, value) in self.settings.iter() {
            connection.set(name, value).await?;
        }
        let told = self.look(connection, operation, source).await?;
        let subject = told.subject(self, &told.judged);
        connection.set("search_path", "").await?;
        let mut estimate = notes::estimate(connection, &subject).await?;
        // Last: a plan that fails ends the transaction.
        let plan = match told.refuse_to_plan(self) {
            Ok(()) => self.plan(connection, operation, source, &told).await,
            Err(trouble) => Err(trouble),
        };
        match plan {
            Ok(plan) => notes::add_plan(&mut estimate, &plan),
            // What is not planned may be known all the same: what is dropped is the whole of it.
            Err(_) if estimate.rows.is_some() => {}
            Err(trouble) => estimate.notes.insert(0, format!("no estimate: {trouble}")),
        }
        Ok(estimate)
    }

    /// Asks what the names mean on this connection.
    async fn look(
        &self,
        connection: &mut Connection,
        operation: &Operation,
        source: &Source,
    ) -> Result<Told, Trouble> {
        let judged = self.judged(operation, source)?;
        let mut catalog = Catalog::on_path(self.search_path.clone());
        let mut asked = source.text.unresolved(&catalog);
        asked.add(judged.text.unresolved(&catalog));
        asked.add(source.refers_to.as_ref().map(|p| p.text.unresolved(&catalog)).unwrap_or_default());
        // What names nothing is the same under any path, and then the session may never have been told its own.
        if !asked.is_empty() {
            connection.set("search_path", self.path()?).await?;
            catalog.begin(&asked);
            let question = Question { text: QUESTION, parameters: asked.parameters(), ..Question::default() };
            let mut rows = connection.bodies(question).await?;
            if asked.definitions {
                let question = Question { text: DEFINITIONS, ..Question::default() };
                rows.extend(connection.bodies(question).await?);
            }
            for row in rows {
                catalog.learn(&asked, &row).map_err(|_| Trouble::new("the server's answer is malformed"))?;
            }
        }
        let told = Told {
            catalog,
            labels: LabelIndex::default(),
            place: self.place(),
            judged,
            nothing: Statement::default(),
            names_something: !asked.is_empty(),
            uses: None,
        };
        let template = operation::template(&told.subject(self, source));
        let binding =
            template.map_err(|_| Trouble::new("its names cannot be told outside of its session"))?;
        if binding.binding().as_bytes() != operation.binding.as_bytes() {
            return Err(Trouble::new(
                "outside of its session its names or settings mean something else (temporary or uncommitted objects)",
            ));
        }
        self.keep_from_changing(told, source)
    }

    fn path(&self) -> Result<&str, Trouble> {
        self.search_path.as_deref().ok_or_else(|| Trouble::new("the session's search path is not known"))
    }

    /// The judged text, which is the client's own unless it was rewritten.
    fn judged(&self, operation: &Operation, source: &Source) -> Result<Source, Trouble> {
        if operation.statement == source.text.slice(source.index) {
            return Ok(source.clone());
        }
        let text = Text::understand(
            &AnalysisCache::default(),
            &mut Memos::default(),
            operation.statement.clone(),
            &self.lexing,
        );
        let text = text.map_err(|_| Trouble::new("the rewritten statement is not understood"))?;
        Ok(Source { text, index: 0, ..source.clone() })
    }

    fn place(&self) -> Place {
        let target = self.side.gateway.target_name().to_owned();
        Place { target, database: self.side.database.clone() }
    }

    /// From here on no session of this gateway changes what the names mean, for as long as what is returned lives.
    fn keep_from_changing(&self, mut told: Told, source: &Source) -> Result<Told, Trouble> {
        let definitions = self.side.gateway.definitions();
        let uses = definitions.join(&self.side.database);
        let statements = [Some(source), Some(&told.judged)].into_iter().flatten();
        let statements: Vec<&Statement> =
            statements.flat_map(|s| s.statement().into_iter().chain(s.referent())).collect();
        let names = Arc::new(used_names(statements.into_iter(), &told.catalog));
        uses.enter(&[Arc::clone(&names)]);
        if definitions.is_blocked(&uses, [&*names]) {
            return Err(Trouble::new("another session is changing what its names mean"));
        }
        told.uses = Some(uses);
        Ok(told)
    }

    async fn plan(
        &self,
        connection: &mut Connection,
        operation: &Operation,
        source: &Source,
        told: &Told,
    ) -> Result<Plan, Trouble> {
        refuse_user_types(connection, &told.catalog).await?;
        if told.names_something {
            connection.set("search_path", self.path()?).await?;
        }
        if let Some(prepared) = &source.refers_to {
            prepare(connection, source, prepared).await?;
        }
        let text = std::str::from_utf8(&operation.statement).unwrap_or_default();
        let explained = format!("{EXPLAIN}{text}");
        self.refuse_anything_but_explain(&explained)?;
        let question = Question {
            text: &explained,
            types: &source.types,
            formats: operation.arguments.iter().map(format_of).collect(),
            parameters: operation.arguments.iter().map(|a| a.value.clone()).collect(),
        };
        let rows = connection.bodies(question).await?;
        let json: Vec<String> = rows.iter().filter_map(|row| side::cells(row)?.into_iter().next()?).collect();
        Plan::read(&json.concat()).ok_or_else(|| Trouble::new("the server's plan is not understood"))
    }

    /// The text is put together: whatever is in it, it must be one EXPLAIN that runs nothing.
    fn refuse_anything_but_explain(&self, text: &str) -> Result<(), Trouble> {
        let analysis = analysis::analyse(text, &self.lexing, &Limits::default());
        let explains = |s: &Statement| s.explain.as_ref().is_some_and(|explain| !explain.analyze);
        match analysis.as_ref().map(|analysis| analysis.statements.as_slice()) {
            Ok([statement]) if explains(statement) => Ok(()),
            _ => Err(Trouble::new("it cannot be planned as it is written")),
        }
    }
}

/// What was learned of a statement outside of its session.
struct Told {
    catalog: Catalog,
    labels: LabelIndex,
    place: Place,
    judged: Source,
    /// Stands for a statement that is not there.
    nothing: Statement,
    /// It depends on the search path.
    names_something: bool,
    /// Keeps others from changing what the names mean.
    uses: Option<Arc<Uses>>,
}

impl Told {
    fn subject<'a>(&'a self, estimator: &'a PgEstimator, source: &'a Source) -> Subject<'a> {
        Subject {
            place: &self.place,
            catalog: &self.catalog,
            labels: &self.labels,
            text: Bytes::new(),
            statement: source.statement().unwrap_or(&self.nothing),
            refers_to: source.referent(),
            refers_to_text: source.refers_to.as_ref().map(|prepared| prepared.text.as_sent(prepared.index)),
            bind: None,
            types: &source.types,
            settings: &estimator.settings,
            lexing: estimator.lexing,
            in_transaction: false,
            of: 1,
        }
    }

    /// Planning must not run anybody's code, nor ask other servers.
    fn refuse_to_plan(&self, estimator: &PgEstimator) -> Result<(), Trouble> {
        let subject = self.subject(estimator, &self.judged);
        let kind = &*subject.statement.kind;
        if !PLANNED.contains(&kind) {
            return Err(Trouble::new(format!("the server does not plan `{}`", kind.replace('_', " "))));
        }
        let template = operation::template(&subject).map_err(|_| Trouble::new("its names cannot be told"))?;
        if let Some(called) = template.accesses().iter().find(|access| runs_in_planning(access)) {
            let path: Vec<&str> =
                called.resource.path().iter().skip(2).map(|(_, name)| name.as_str()).collect();
            return Err(Trouble::new(format!("it may call `{}`, which planning could run", path.join("."))));
        }
        self.catalog.relations().try_for_each(refuse_relation)
    }
}

/// Whether it is a call that planning may make: triggers do not run before the statement does.
fn runs_in_planning(access: &Access) -> bool {
    let trigger = Fact::from("trigger");
    access.action.as_str() == "call" && access.resource.attributes.get("via") != Some(&trigger)
}

fn refuse_relation(relation: &Relation) -> Result<(), Trouble> {
    let name = format!("{}.{}", relation.schema, relation.name);
    if relation.kind == 'f' {
        return Err(Trouble::new(format!(
            "`{name}` is a foreign table, whose planning would ask another server"
        )));
    }
    match relation.planned_calls().next() {
        None => Ok(()),
        Some(call) => Err(Trouble::new(format!(
            "`{}.{}` belongs to `{name}` ({}), and planning could run it",
            call.schema, call.name, call.via
        ))),
    }
}

/// Values of types that users made are compared by functions that users made.
async fn refuse_user_types(connection: &mut Connection, catalog: &Catalog) -> Result<(), Trouble> {
    let types = catalog.relations().flat_map(|r| r.types()).filter(|oid| operation::is_user_type(*oid));
    let types = notes::list(types);
    match connection.rows(TYPES, vec![Some(types)]).await?.into_iter().flatten().flatten().next() {
        None => Ok(()),
        Some(name) => Err(Trouble::new(format!("planning could run code of the type `{name}`"))),
    }
}

/// Makes known what an `EXECUTE` stands for, in the way the session did.
async fn prepare(connection: &mut Connection, source: &Source, prepared: &Prepared) -> Result<(), Trouble> {
    let sent = prepared.text.as_sent(prepared.index);
    if sent != prepared.text.slice(prepared.index) {
        return Err(Trouble::new("what it runs was rewritten when it was prepared"));
    }
    let text = std::str::from_utf8(&sent).unwrap_or_default();
    let kind = prepared.text.statement(prepared.index).map(|s| &*s.kind);
    if kind == Some("prepare") {
        return connection.bodies(Question { text, ..Question::default() }).await.map(drop);
    }
    let name = source.statement().and_then(|s| s.prepared.as_ref()?.name.clone()).unwrap_or_default();
    connection.prepare(&name, text, &prepared.types).await
}

fn format_of(argument: &Argument) -> i16 {
    i16::from(argument.kind.ends_with(operation::BINARY))
}
