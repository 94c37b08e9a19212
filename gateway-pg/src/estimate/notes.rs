//! The lines that people read: what a statement touches, what is lost by it, and what comes along.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use gateway_core::approval::Estimate;

use super::plan::Plan;
use super::side::{Connection, Trouble};
use crate::analysis::{Access as Use, Change, RelationUse};
use crate::catalog::{self, Event};
use crate::effects;
use crate::operation::Subject;

const SIZES: &str = include_str!("sizes.sql");
const LOST: &str = include_str!("lost.sql");
const EMPTIED: &str = include_str!("emptied.sql");
const ARCHIVE: &str = "SELECT current_setting('archive_mode')";
const DATABASE: &str = "SELECT pg_database_size(d.oid)::text FROM pg_database d WHERE d.datname = $1";

/// Relations whose sizes are asked for. 500: what a drop of a large schema takes along; people see the largest first.
const MAX_RELATIONS: usize = 500;

/// Lines of one kind. 12: a few of every kind fit below what the core shows.
const MAX_LINES: usize = 12;

/// How large a relation is now.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sized {
    name: String,
    /// `None` for what holds no rows itself.
    rows: Option<u64>,
    bytes: Option<u64>,
}

impl Sized {
    fn size(&self) -> String {
        let rows = self.rows.map(|rows| format!("about {rows} rows"));
        let bytes = self.bytes.map(readable);
        rows.into_iter().chain(bytes).collect::<Vec<_>>().join(", ")
    }

    fn line(&self, verb: &str) -> String {
        match self.size() {
            size if size.is_empty() => format!("{verb} {}", self.name),
            size => format!("{verb} {}: {size}", self.name),
        }
    }
}

/// What is known without a plan.
pub(super) async fn estimate(
    connection: &mut Connection,
    subject: &Subject<'_>,
) -> Result<Estimate, Trouble> {
    let lost = Lost::of(connection, subject).await?;
    let mut estimate = lost.estimate;
    let touched: Vec<_> =
        touched(subject).into_iter().filter(|(oid, _)| !lost.relations.contains(oid)).collect();
    let sizes = sizes(connection, touched.iter().map(|(oid, _)| *oid)).await?;
    let lines = touched.iter().filter_map(|(oid, verb)| Some(sizes.get(oid)?.line(verb)));
    add_lines(&mut estimate.notes, lines.collect());
    Ok(estimate)
}

/// Puts what the planner expects before everything else.
pub(super) fn add_plan(estimate: &mut Estimate, plan: &Plan) {
    estimate.rows = Some(plan.rows());
    let line = |c: &super::plan::Change| {
        format!("{} on {}: about {} rows by the planner", c.operation, c.relation, c.rows)
    };
    let mut lines: Vec<_> = plan.changes.iter().map(line).collect();
    if lines.is_empty() {
        lines.push(format!("returns about {} rows by the planner", plan.returned));
    }
    let rest = std::mem::take(&mut estimate.notes);
    add_lines(&mut estimate.notes, lines);
    estimate.notes.extend(rest);
}

fn add_lines(notes: &mut Vec<String>, mut lines: Vec<String>) {
    let more = lines.len().saturating_sub(MAX_LINES);
    lines.truncate(MAX_LINES);
    notes.extend(lines);
    if more > 0 {
        notes.push(format!("and {more} more"));
    }
}

/// The relations that a statement names or brings along, each once with the strongest thing that happens to it, what is named first.
fn touched(subject: &Subject<'_>) -> Vec<(u32, String)> {
    let mut found: Vec<(bool, Event, u32)> = Vec::new();
    for statement in subject.statements() {
        for used in &statement.relations {
            let Some(relation) = subject.relation(used) else { continue };
            let event = effects::event(used.access);
            let parts = if used.only { Vec::new() } else { subject.catalog.descendants(relation) };
            for part in [relation].into_iter().chain(&parts) {
                let columns = effects::updated_columns(statement, used);
                let events = effects::consequences(subject.catalog, part, event, columns.as_deref());
                found.extend(events.iter().skip(1).map(|(event, r)| (true, *event, r.oid)));
                found.push((false, event, part.oid));
            }
            found.extend(subject.catalog.reached(relation).iter().map(|r| (false, event, r.oid)));
        }
    }
    found.sort_by_key(|(along, event, oid)| (*along, *event == Event::Read, *oid));
    let mut seen = BTreeSet::new();
    found.retain(|(.., oid)| seen.insert(*oid));
    found.into_iter().map(|(along, event, oid)| (oid, verb(along, event).to_owned())).collect()
}

const fn verb(along: bool, event: Event) -> &'static str {
    match (along, event) {
        (_, Event::Read) => "touches",
        (false, Event::Insert) => "inserts into",
        (false, Event::Update) => "updates",
        (false, Event::Delete) => "deletes from",
        (false, Event::Truncate) => "empties",
        (false, Event::Maintain) => "rebuilds",
        (true, Event::Insert) => "along with it inserts into",
        (true, Event::Update) => "along with it (foreign key, rule or view) updates",
        (true, Event::Delete) => "along with it (foreign key, rule or view) deletes from",
        (true, Event::Truncate | Event::Maintain) => "along with it touches",
    }
}

/// What is gone for good once a statement has run.
#[derive(Debug, Default)]
struct Lost {
    relations: BTreeSet<u32>,
    estimate: Estimate,
}

impl Lost {
    async fn of(connection: &mut Connection, subject: &Subject<'_>) -> Result<Self, Trouble> {
        let statement = subject.statement;
        let oids = |uses: Vec<&RelationUse>| {
            uses.into_iter().filter_map(|used| subject.relation(used)).map(|r| r.oid).collect::<BTreeSet<_>>()
        };
        let emptied = oids(statement.relations_under(Use::Truncate).collect());
        if !emptied.is_empty() {
            let parameters = vec![Some(list(emptied.iter().copied())), Some(truth(statement.flags.cascade))];
            let rows = connection.rows(EMPTIED, parameters).await?;
            return Self::told(connection, ("empties", &emptied), rows).await;
        }
        let dropped: Vec<_> = statement.objects.iter().filter(|o| o.change == Change::Drop).collect();
        let of_kind =
            |kind: &'static str| dropped.iter().filter(move |o| o.kind == kind).filter_map(|o| o.name.last());
        if let Some(database) = of_kind("database").next() {
            return Self::of_database(connection, database).await;
        }
        let gone = oids(statement.relations_under(Use::Ddl).collect());
        let schemas: Vec<String> = of_kind("schema").cloned().collect();
        if of_kind("column").next().is_some() {
            let rows = gone.iter().map(|oid| vec![Some(oid.to_string()), None]).collect();
            return Self::told(connection, ("drops a column of", &gone), rows).await;
        }
        let named = |o: &&&crate::analysis::ObjectChange| RELATIONS.contains(&&*o.kind);
        if dropped.iter().filter(named).count() == 0 && schemas.is_empty() {
            return Ok(Self::default());
        }
        let parameters = vec![
            Some(list(gone.iter().copied())),
            Some(catalog::array(&schemas)),
            Some(truth(statement.flags.cascade)),
        ];
        let rows = connection.rows(LOST, parameters).await?;
        Self::told(connection, ("drops", &gone), rows).await
    }

    async fn of_database(connection: &mut Connection, name: &str) -> Result<Self, Trouble> {
        let rows = connection.rows(DATABASE, vec![Some(Bytes::copy_from_slice(name.as_bytes()))]).await?;
        let bytes = rows.into_iter().flatten().flatten().next().and_then(|bytes| bytes.parse().ok());
        let size = bytes.map_or_else(|| "of unknown size".to_owned(), readable);
        let mut lost = Self::default();
        lost.estimate.notes.push(format!("drops the database {name}: {size}"));
        lost.estimate.notes.push(archive(connection).await?);
        Ok(lost)
    }

    /// `named`: what happens to the relations that the statement names; the others go along.
    async fn told(
        connection: &mut Connection,
        (verb, named): (&str, &BTreeSet<u32>),
        rows: Vec<super::side::Row>,
    ) -> Result<Self, Trouble> {
        let cell = |row: &super::side::Row, i: usize| row.get(i).cloned().flatten();
        let relations: BTreeSet<u32> =
            rows.iter().filter_map(|row| cell(row, 0)?.parse().ok()).chain(named.iter().copied()).collect();
        let sizes = sizes(connection, relations.iter().copied()).await?;
        let mut lost = Self::default();
        let all = sizes.values().filter_map(|sized| sized.rows);
        lost.estimate.rows = Some(all.fold(0, u64::saturating_add));
        let (direct, along): (Vec<_>, Vec<_>) = sizes.iter().partition(|(oid, _)| named.contains(oid));
        lost.say(direct, verb);
        lost.say(along, if verb == "empties" { "along with it empties" } else { "takes along" });
        let others = rows.iter().filter_map(|row| cell(row, 1)).map(|other| format!("takes along {other}"));
        add_lines(&mut lost.estimate.notes, others.collect());
        if relations.len() > MAX_RELATIONS {
            let rest = relations.len() - MAX_RELATIONS;
            lost.estimate.notes.push(format!("and {rest} relations more, whose sizes are not counted"));
        }
        lost.estimate.notes.push(archive(connection).await?);
        lost.relations = relations;
        Ok(lost)
    }

    /// The largest first.
    fn say(&mut self, mut relations: Vec<(&u32, &Sized)>, verb: &str) {
        relations.sort_by_key(|(_, sized)| std::cmp::Reverse(sized.bytes));
        add_lines(&mut self.estimate.notes, relations.iter().map(|(_, sized)| sized.line(verb)).collect());
    }
}

/// Kinds of objects that hold rows or show them.
const RELATIONS: [&str; 5] = ["table", "view", "materialized_view", "sequence", "foreign_table"];

/// Whether anything could bring back what is lost, as far as the server tells.
async fn archive(connection: &mut Connection) -> Result<String, Trouble> {
    let rows = connection.rows(ARCHIVE, Vec::new()).await?;
    let mode = rows.into_iter().flatten().flatten().next().unwrap_or_default();
    Ok(match mode.as_str() {
        "on" | "always" => format!(
            "no backup is made by this: the server archives its log (`archive_mode` is {mode}), so the whole server may be restored to the \
             moment before, if there is a base backup"
        ),
        _ => format!(
            "no backup is made by this, and the server does not archive its log (`archive_mode` is {mode}): nothing here brings it back"
        ),
    })
}

async fn sizes(
    connection: &mut Connection,
    oids: impl Iterator<Item = u32>,
) -> Result<BTreeMap<u32, Sized>, Trouble> {
    let rows = connection.rows(SIZES, vec![Some(list(oids.take(MAX_RELATIONS)))]).await?;
    Ok(rows.into_iter().filter_map(sized).collect())
}

fn sized(row: super::side::Row) -> Option<(u32, Sized)> {
    let [oid, name, rows, bytes] = <[Option<String>; 4]>::try_from(row).ok()?;
    let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
    Some((oid?.parse().ok()?, Sized { name: name?, rows: number(rows), bytes: number(bytes) }))
}

/// Object ids as an array.
pub(super) fn list(oids: impl Iterator<Item = u32>) -> Bytes {
    catalog::array(&oids.map(|oid| oid.to_string()).collect::<Vec<_>>())
}

fn truth(value: bool) -> Bytes {
    Bytes::from_static(if value { b"true" } else { b"false" })
}

/// A size as people read it, rounded down.
fn readable(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes;
    let mut unit = 0;
    while size >= 10 * 1024 && unit + 1 < UNITS.len() {
        size /= 1024;
        unit += 1;
    }
    format!("{size} {}", UNITS.get(unit).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        for (bytes, text) in
            [(0, "0 bytes"), (8_192, "8192 bytes"), (81_920, "80 KiB"), (u64::MAX, "16777215 TiB")]
        {
            assert_eq!(readable(bytes), text);
        }
    }

    #[test]
    fn many_lines_become_few() {
        let mut notes = Vec::new();
        add_lines(&mut notes, (0..20).map(|n| n.to_string()).collect());
        assert_eq!(notes.len(), MAX_LINES + 1);
        assert_eq!(notes.last().unwrap(), "and 8 more");
    }
}
