//! One relation as the server describes it: its columns, what it stands on, what runs and changes along with it.

use std::collections::{BTreeMap, BTreeSet};

use super::{SHAPE, number};
use crate::codec::ProtocolError;

/// What happens to a relation's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    Read,
    Insert,
    Delete,
    Update,
    Truncate,
    /// Maintenance rebuilds what its rows are stored in.
    Maintain,
}

impl Event {
    /// The bits of `pg_trigger.tgtype` (PostgreSQL source, catalog/pg_trigger.h); 1 for reading, 64 for maintenance.
    const fn bits(self) -> u8 {
        match self {
            Self::Read => 1,
            Self::Insert => 4,
            Self::Delete => 8,
            Self::Update => 16,
            Self::Truncate => 32,
            Self::Maintain => 1 | 16 | 64,
        }
    }

    /// The events that a stored command makes, by its `CmdType` (PostgreSQL source, nodes/nodes.h). 5 and 6 differ by version: a merge,
    /// or a command that touches no rows.
    const fn of_command(code: u8) -> &'static [Self] {
        match code {
            b'1' => &[Self::Read],
            b'2' => &[Self::Update],
            b'3' => &[Self::Insert],
            b'4' => &[Self::Delete],
            _ => &[Self::Insert, Self::Update, Self::Delete],
        }
    }
}

/// The bit of `pg_trigger.tgtype` for what runs before the event and may change the row.
const BEFORE: u8 = 2;

/// A function that runs by itself when a relation is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredCall {
    pub(crate) schema: String,
    pub(crate) name: String,
    /// `view` (or rule), `policy`, `trigger`, `default`, `check`, `index`, `partition` or `statistics`.
    pub(crate) via: String,
    /// Those of [`Event::bits`], and [`BEFORE`].
    events: u8,
    /// Changes with every change of the function.
    digest: String,
}

/// A foreign key of another table through which changes come over it (PostgreSQL documentation, "Foreign Keys").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cascade {
    /// The other table.
    pub(crate) table: u32,
    /// What happens to its rows when those they refer to are deleted.
    pub(crate) on_delete: Option<Event>,
    /// What happens to them when the columns they refer to change.
    pub(crate) on_update: Option<Event>,
    /// The columns they refer to.
    pub(crate) key: Vec<i16>,
}

/// One thing that a rule makes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    on: Event,
    /// The event on what the rule touches, which is among the relation's parents.
    pub(crate) made: Event,
    /// It may happen to the relation itself.
    pub(crate) own: bool,
}

/// A table, view or the like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relation {
    /// Its object id.
    pub(crate) oid: u32,
    /// Its schema.
    pub(crate) schema: String,
    /// Its name.
    pub(crate) name: String,
    /// `pg_class.relkind`.
    pub(crate) kind: char,
    /// Inheritance parents, the relations a view reads, those its rules touch, and the one whose long values a TOAST table holds.
    pub(crate) parents: Vec<u32>,
    pub(super) columns: BTreeMap<i16, String>,
    /// The types of its columns, as object ids.
    types: BTreeMap<i16, u32>,
    /// For views: (column, origin table, origin column) of every target entry in the stored query, in order. For tables: (column, 0, 0) of
    /// every generated column.
    pub(super) origins: Vec<(i16, u32, i16)>,
    /// Inheritance children and partitions.
    pub(super) children: Vec<u32>,
    /// Functions that run by themselves when it is used.
    calls: Vec<StoredCall>,
    /// Foreign keys of other tables that pass changes on.
    cascades: Vec<Cascade>,
    /// Changes with every change of a stored query.
    stored: String,
    /// What its rules make of an event, without the rules of reading, which make views.
    rules: Vec<Rule>,
    /// What its row policies read.
    pub(super) policies: Vec<u32>,
    /// The columns by which it is divided into partitions, those in expressions too; 0 stands for an expression.
    partition_key: Vec<i16>,
    /// The columns that each check, unique index and exclusion compares; 0 stands for any of them.
    compared: Vec<Vec<i16>>,
}

impl Relation {
    /// Functions that run by themselves when `event` happens to it.
    pub(crate) fn calls(&self, event: Event) -> impl Iterator<Item = &StoredCall> {
        self.calls.iter().filter(move |call| call.events & event.bits() != 0)
    }

    /// Functions of any stored expression that planning may compute, for whatever event: all but those of triggers.
    pub(crate) fn planned_calls(&self) -> impl Iterator<Item = &StoredCall> {
        let reads = |c: &StoredCall| crate::analysis::classify_function(Some(&c.schema), &c.name).is_read();
        self.calls.iter().filter(move |call| call.via != "trigger" && !reads(call))
    }

    /// The types of its columns, as object ids.
    pub(crate) fn types(&self) -> impl Iterator<Item = u32> {
        self.types.values().copied()
    }

    /// Foreign keys of other tables that pass changes on.
    pub(crate) fn cascades(&self) -> &[Cascade] {
        &self.cascades
    }

    /// What rules make of an event on it.
    pub(crate) fn rules(&self, event: Event) -> impl Iterator<Item = Rule> + '_ {
        self.rules.iter().filter(move |rule| rule.on == event).copied()
    }

    /// Whether an update of these columns may change to which of its own partitions a row belongs; `None`: it is not known which columns.
    pub(crate) fn divides_by(&self, columns: Option<&[&str]>) -> bool {
        let in_key =
            |name: &&str| self.attribute(name).is_none_or(|number| self.partition_key.contains(&number));
        // An expression in which no column was found may depend on any.
        let known = columns.filter(|_| self.partition_key.iter().any(|number| *number != 0));
        self.is_partitioned() && known.is_none_or(|names| names.iter().any(in_key))
    }

    /// Whether its rows lie in partitions.
    pub(crate) const fn is_partitioned(&self) -> bool {
        self.kind == 'p'
    }

    /// Whether a trigger of it may change the rows of an update before they are stored.
    pub(crate) fn changes_updates(&self) -> bool {
        self.calls(Event::Update).any(|call| call.via == "trigger" && call.events & BEFORE != 0)
    }

    /// Whether it holds the long values of another table, one piece to a row (PostgreSQL documentation, "TOAST").
    pub(crate) const fn is_toast(&self) -> bool {
        self.kind == 't'
    }

    /// True for views and materialised views.
    pub(crate) const fn is_view(&self) -> bool {
        matches!(self.kind, 'v' | 'm')
    }

    /// The numbers of its columns, in order.
    pub(crate) fn attributes(&self) -> impl Iterator<Item = i16> {
        self.columns.keys().copied()
    }

    /// The names of its columns, in order.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.values().map(String::as_str)
    }

    /// Whether it has a column of this name.
    pub(crate) fn has_column(&self, name: &str) -> bool {
        self.attribute(name).is_some()
    }

    /// The type of a column, as an object id.
    pub(crate) fn type_of(&self, attribute: i16) -> Option<u32> {
        self.types.get(&attribute).copied()
    }

    /// What it is, for binding an approval to it: another object or other columns give another text.
    pub(crate) fn definition(&self) -> String {
        format!(
            "{}.{} #{} {} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {}",
            self.schema,
            self.name,
            self.oid,
            self.kind,
            self.parents,
            (&self.columns, &self.types),
            self.origins,
            self.children,
            self.calls,
            self.cascades,
            self.policies,
            self.partition_key,
            self.compared,
            self.stored
        )
    }

    /// The origins of one column.
    pub(super) fn origins_of(&self, attribute: i16) -> &[(i16, u32, i16)] {
        let start = self.origins.partition_point(|(number, ..)| *number < attribute);
        let end = self.origins.partition_point(|(number, ..)| *number <= attribute);
        self.origins.get(start..end).unwrap_or_default()
    }

    /// The columns that a change of some (of any, if it is not known of which) has compared with them, or with those of other rows: whether
    /// the change succeeds tells something of them.
    pub(crate) fn compared_with(&self, changed: Option<&[&str]>) -> BTreeSet<i16> {
        let is_changed = |number: &i16| {
            let name = self.columns.get(number).map(String::as_str);
            changed.is_some_and(|changed| name.is_some_and(|name| changed.contains(&name)))
        };
        let all = || self.columns.keys().copied().collect::<Vec<_>>();
        let groups = self.compared.iter().map(|group| if group.contains(&0) { all() } else { group.clone() });
        let concerned = groups.filter(|group| changed.is_none() || group.iter().any(is_changed));
        // A key of one column is only compared with what is written into it.
        let concerned = concerned.filter(|group| group.len() > 1);
        concerned.flatten().filter(|number| !is_changed(number)).collect()
    }

    /// Whether a column of a table is computed from others.
    pub(super) fn is_generated(&self, attribute: i16) -> bool {
        self.origins_of(attribute).iter().any(|(_, table, _)| *table == 0)
    }

    /// The number of a column.
    pub(crate) fn attribute(&self, column: &str) -> Option<i16> {
        self.columns.iter().find(|(_, name)| *name == column).map(|(number, _)| *number)
    }
}

pub(super) fn relation(cells: &[Option<&str>]) -> Result<Relation, ProtocolError> {
    let [_, Some(oid), Some(schema), Some(name), Some(kind), more @ ..] = cells else {
        return Err(SHAPE);
    };
    let [
        parents,
        columns,
        origins,
        children,
        calls,
        stored,
        cascades,
        rules,
        policies,
        partition_key,
        compared,
    ] = more
    else {
        return Err(SHAPE);
    };
    let list = |text: &Option<&str>| {
        text.unwrap_or_default().split(',').filter(|t| !t.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let columns: BTreeMap<i16, (String, u32)> =
        columns.map_or_else(|| Ok(BTreeMap::new()), |text| serde_json::from_str(text).map_err(|_| SHAPE))?;
    Ok(Relation {
        oid: number(oid)?,
        schema: (*schema).to_owned(),
        name: (*name).to_owned(),
        kind: kind.chars().next().ok_or(SHAPE)?,
        parents: list(parents).iter().map(|t| number(t)).collect::<Result<_, _>>()?,
        types: columns.iter().map(|(number, (_, kind))| (*number, *kind)).collect(),
        columns: columns.into_iter().map(|(number, (name, _))| (number, name)).collect(),
        origins: list(origins)
            .iter()
            .map(|t| origin(t))
            .collect::<Result<BTreeSet<_>, _>>()?
            .into_iter()
            .collect(),
        children: list(children).iter().map(|t| number(t)).collect::<Result<_, _>>()?,
        calls: calls_of(*calls)?,
        cascades: list(cascades).iter().map(|t| cascade(t)).collect::<Result<_, _>>()?,
        stored: stored.unwrap_or_default().to_owned(),
        rules: list(rules).iter().map(|t| rule(t)).collect::<Result<Vec<_>, _>>()?.concat(),
        policies: list(policies).iter().map(|t| number(t)).collect::<Result<_, _>>()?,
        partition_key: list(partition_key).iter().map(|t| number(t)).collect::<Result<_, _>>()?,
        compared: list(compared)
            .iter()
            .map(|t| t.split('+').map(number).collect::<Result<_, _>>())
            .collect::<Result<_, _>>()?,
    })
}

/// `event:command+command`, as `pg_rewrite.ev_type` and `CmdType`, and `:self` if it may touch its own relation. Whatever a rule does, it
/// may read its relation and what it touches.
fn rule(text: &str) -> Result<Vec<Rule>, ProtocolError> {
    let (on, commands) = text.split_once(':').ok_or(SHAPE)?;
    let (commands, own) =
        commands.strip_suffix(":self").map_or((commands, false), |commands| (commands, true));
    let on = match on {
        "2" => Event::Update,
        "3" => Event::Insert,
        "4" => Event::Delete,
        _ => return Err(SHAPE),
    };
    let codes = commands.split('+').filter_map(|code| code.bytes().next());
    let made = codes.flat_map(Event::of_command).filter(|made| **made != Event::Read);
    let writes = made.map(|made| Rule { on, made: *made, own });
    Ok(writes.chain([Rule { on, made: Event::Read, own: true }]).collect())
}

fn calls_of(json: Option<&str>) -> Result<Vec<StoredCall>, ProtocolError> {
    let rows: Vec<(String, String, u8, String, String)> =
        json.map_or_else(|| Ok(Vec::new()), |text| serde_json::from_str(text).map_err(|_| SHAPE))?;
    let call = |(schema, name, events, via, digest)| StoredCall { schema, name, via, events, digest };
    Ok(rows.into_iter().map(call).collect())
}

/// `on delete:on update:table:columns`, actions as `pg_constraint.confdeltype` and `confupdtype`.
fn cascade(text: &str) -> Result<Cascade, ProtocolError> {
    let [on_delete, on_update, table, key] = text.split(':').collect::<Vec<_>>()[..] else {
        return Err(SHAPE);
    };
    let action = |code: &str, cascaded: Event| match code {
        "c" => Some(cascaded),
        "n" | "d" => Some(Event::Update),
        _ => None,
    };
    Ok(Cascade {
        table: number(table)?,
        on_delete: action(on_delete, Event::Delete),
        on_update: action(on_update, Event::Update),
        key: key.split('+').map(number).collect::<Result<_, _>>()?,
    })
}

fn origin(text: &str) -> Result<(i16, u32, i16), ProtocolError> {
    let mut parts = text.split(':');
    let mut next = || parts.next().ok_or(SHAPE);
    Ok((number(next()?)?, number(next()?)?, number(next()?)?))
}
