//! What an analysis says about a statement: plain data, no references into the tree it came from.
//!
//! Names stand as PostgreSQL's lexer left them: folded, unquoted and decoded, never resolved against a catalog.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

/// The statements of one query text, in order. Empty statements are dropped, so `;` and a lone comment give none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Analysis {
    /// The statements in the order the server would run them.
    pub statements: Vec<Statement>,
}

/// One statement: everything it names and what it would do with it.
///
/// The lists hold what the text says at any depth (subqueries, CTEs, DDL expressions and the statements inside
/// `EXPLAIN`, `PREPARE`, `DECLARE` and `CREATE RULE`). A reader that judges every entry judges the whole statement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statement {
    /// Byte offsets into the analysed text, without surrounding white space and semicolon; leading comments included.
    pub range: Range<usize>,
    /// Lower-case command name, for example `select`, `copy_from`, `create_table_as`, `drop_table`, `alter_role`.
    pub kind: Cow<'static, str>,
    /// Relations and what is done to them, without duplicates. Names that a CTE shadows are absent.
    pub relations: Vec<RelationUse>,
    /// Functions called or referred to, without duplicates. See also [`ColumnUse`] about `u.f` standing for `f(u)`.
    pub functions: Vec<FunctionUse>,
    /// Operators used, without duplicates, those of `BETWEEN`, `IN`, `CASE` and `USING` too. An unqualified one may be shadowed by a user's operator.
    pub operators: Vec<QualifiedName>,
    /// Types named, without duplicates: those qualified with a schema other than `pg_catalog`, and unqualified ones
    /// that are no built-in type. Casting to them may run a user's function (casts, domain checks, input functions).
    pub types: Vec<QualifiedName>,
    /// Unqualified names of the server's own types, without duplicates: a user's type that comes earlier in the search path takes
    /// such a name over.
    pub server_types: Vec<String>,
    /// Settings changed, in order.
    pub settings: Vec<SettingChange>,
    /// Objects created, altered or dropped, in order.
    pub objects: Vec<ObjectChange>,
    /// Role names mentioned (grantees, owners, `SET ROLE`), without duplicates. `current_user` and the like included.
    pub roles: Vec<String>,
    /// Range table: everything columns can come from, in order of appearance at any depth.
    pub sources: Vec<Source>,
    /// CTEs in order of appearance at any depth; several may have the same name.
    pub ctes: Vec<Cte>,
    /// Column references, without duplicates.
    pub columns: Vec<ColumnUse>,
    /// Fields selected from an expression, `(expr).field`, without duplicates: each may stand for a call `field(expr)`.
    pub fields: Vec<String>,
    /// What the statement returns: the target list or `RETURNING`; for set operations merged by position.
    pub outputs: Vec<Output>,
    /// The inserts, updates and deletes with their row filters, at any depth.
    pub modifications: Vec<Modification>,
    /// Yes-or-no facts.
    pub flags: Flags,
    /// `LIMIT` or `FETCH FIRST` of the outermost query when it is a plain constant.
    pub limit: Option<u64>,
    /// Highest `$n` used, 0 if none.
    pub parameters: u32,
    /// The foreign keys of tables that it makes or changes.
    pub foreign_keys: Vec<ForeignKey>,
    /// Set for `COPY`.
    pub copy: Option<Copy>,
    /// Set for `DECLARE`, `FETCH`, `MOVE`, `CLOSE`.
    pub cursor: Option<Cursor>,
    /// Set for `PREPARE`, `EXECUTE`, `DEALLOCATE`, also inside `EXPLAIN` and `CREATE TABLE AS`.
    pub prepared: Option<Prepared>,
    /// Set for `EXPLAIN`.
    pub explain: Option<Explain>,
    /// Set for transaction control and `SET TRANSACTION`.
    pub transaction: Option<Transaction>,
    /// Set for `DO`, `CREATE FUNCTION`, `CREATE PROCEDURE`.
    pub code: Option<Code>,
    /// The statement inside `EXPLAIN`, `PREPARE` or `DECLARE`; its facts are merged into this one already.
    pub inner: Option<Box<Self>>,
}

/// A possibly qualified name.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QualifiedName {
    /// Schema as written, `None` to be resolved by search_path.
    pub schema: Option<String>,
    /// The object's own name.
    pub name: String,
}

/// A relation (table, view, sequence, ...) and one kind of access to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationUse {
    /// Database as written in a three-part name; the server accepts only the current one.
    pub catalog: Option<String>,
    /// Schema as written, `None` to be resolved by search_path.
    pub schema: Option<String>,
    /// The relation's own name.
    pub name: String,
    /// What is done to it.
    pub access: Access,
    /// `ONLY` was written: inheritance children are left out. False as soon as one use reaches the children.
    pub only: bool,
    /// `*` or `alias.*` expands to its columns somewhere, or a natural join compares them.
    pub star: bool,
    /// Its alias may stand for the whole row somewhere (`SELECT u`, `to_json(u)`, `(u).x`).
    pub whole_row: bool,
}

/// What is done to a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Rows or columns are read.
    Read,
    /// Rows are added.
    Insert,
    /// Rows are changed.
    Update,
    /// Rows are removed.
    Delete,
    /// All rows are removed at once.
    Truncate,
    /// Rows or the table are locked explicitly (`FOR UPDATE`, `LOCK`).
    Lock,
    /// The definition is created, altered, dropped, commented or its privileges are changed.
    Ddl,
    /// Another object's definition refers to it (foreign key, `INHERITS`, `LIKE`, publication).
    Reference,
    /// Rows are not changed but work is done on its storage (`VACUUM`, `ANALYZE`, `REINDEX`, `CLUSTER`, `REFRESH`).
    Maintain,
}

/// A function called or referred to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionUse {
    /// Schema as written, `None` to be resolved by search_path.
    pub schema: Option<String>,
    /// The function's own name.
    pub name: String,
    /// Number of arguments as written; `f(*)` has none.
    pub arguments: usize,
    /// How the statement uses it.
    pub role: FunctionRole,
    /// Written with `VARIADIC`, so the argument count is a lower bound.
    pub variadic: bool,
    /// Written with `OVER`.
    pub window: bool,
}

/// How a statement uses a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FunctionRole {
    /// Called when the statement runs (or, within a definition, when the defined object is used).
    Call,
    /// Named as the implementation of something (trigger, cast, operator, language, aggregate).
    Implementation,
}

/// Something columns can come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What it is.
    pub kind: SourceKind,
    /// The name columns are qualified with: the alias, or the relation's own name.
    pub alias: Option<String>,
    /// Columns renamed by the alias, in order; may be shorter than the real list.
    pub columns: Vec<String>,
    /// What a subquery or CTE yields; empty when not known from the text.
    pub outputs: Vec<Output>,
    /// For a function, `XMLTABLE` or `JSON_TABLE`: the columns that go in, indexes into [`Statement::columns`].
    /// Anything it yields may come from them.
    pub inputs: Vec<usize>,
}

/// A `WITH` query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cte {
    /// Its name.
    pub name: String,
    /// What it yields; empty when nothing, or when not known from the text.
    pub outputs: Vec<Output>,
}

/// What a [`Source`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind {
    /// A relation: index into [`Statement::relations`].
    Relation(usize),
    /// A CTE: index into [`Statement::ctes`]. Its outputs stand in [`Source::outputs`] too, except where it is read before its end:
    /// in its own recursive term, and in CTEs of a `WITH RECURSIVE` that come before it.
    Cte(usize),
    /// A subquery or `VALUES` in `FROM`.
    Subquery,
    /// Functions in `FROM`, `ROWS FROM`, `XMLTABLE`, `JSON_TABLE`.
    Function,
    /// The alias of a join, which hides the names below it.
    Join,
    /// `excluded`, `old` or `new`: rows of the relation with that index, when known.
    Pseudo(Option<usize>),
}

/// A column reference as written.
///
/// PostgreSQL reads `u.f` as the call `f(u)` when `u` has no column `f`, and `f(u)` as the column when there is no
/// such function. A reader with a catalog must treat a qualified reference that is no column as a function call on
/// the whole row, and one without a catalog must not take the absence of a function for proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnUse {
    /// The parts as written, qualifier first; without the star.
    pub name: Vec<String>,
    /// Ends in `*`.
    pub star: bool,
    /// Might be an alias standing for its whole row.
    pub whole_row: bool,
    /// Sources it may belong to, innermost query first: indexes into [`Statement::sources`]. A superset.
    pub sources: Vec<usize>,
    /// Where it is used.
    pub places: BTreeSet<Place>,
}

/// Where a column is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// By itself in a target list or `RETURNING`.
    Output,
    /// Inside something computed in a target list or `RETURNING`.
    Expression,
    /// In `WHERE`, `HAVING`, `ON`, `USING`, `FILTER` or a merge condition; a star for `NATURAL`.
    Filter,
    /// In `ORDER BY`, `GROUP BY`, a window; under `DISTINCT` and in the arms of a set operation that compares rows. Also where these
    /// name an output by its alias or number.
    Order,
    /// In a value that is stored (`SET`, `INSERT ... VALUES`).
    Assignment,
    /// Anywhere else (function in `FROM`, `LIMIT`, definitions).
    Other,
}

/// One returned column, as far as the text tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The name given with `AS`, if any; in a set operation also the one that a plain column of its first arm gives.
    pub alias: Option<String>,
    /// What it is.
    pub kind: OutputKind,
    /// Every column reference inside, subqueries included: indexes into [`Statement::columns`].
    pub columns: Vec<usize>,
}

/// What an [`Output`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputKind {
    /// A plain column reference, that of the index.
    Column(usize),
    /// A star, that of the index; stands for an unknown number of columns.
    Star(usize),
    /// Anything computed.
    Expression,
    /// `(expression).*`: computed, and stands for an unknown number of columns.
    Expanded,
}

/// An insert, update, delete or merge with its row filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modification {
    /// Index of the target in [`Statement::relations`] under the access of this modification.
    pub relation: usize,
    /// `insert`, `update`, `delete`; a merge has one entry per kind of arm.
    pub access: Access,
    /// Which rows it is limited to.
    pub filter: Filter,
    /// Columns written, as named; empty for an insert that names none and for deletes.
    pub columns: Vec<String>,
}

/// The row filter of a modification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Does not apply (insert).
    NotApplicable,
    /// No `WHERE`.
    Absent,
    /// A `WHERE` that chooses nothing: `true`, `1=1`, `id = id`, or anything that reads no column.
    Constant,
    /// A `WHERE` that reads columns.
    Present,
}

/// A foreign key: writes to its table ask whether the columns it refers to hold a value, and may be given new values of theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey {
    /// Index of the table referred to in [`Statement::relations`], under [`Access::Reference`].
    pub relation: usize,
    /// The columns referred to, as named; empty for the primary key.
    pub columns: Vec<String>,
}

/// Yes-or-no facts of a statement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    /// Changes data, definitions, settings, session or server, by its own shape.
    pub writes: bool,
    /// Calls a function that is no harmless built-in, or names a user's operator or type: effects unknown.
    pub unproven: bool,
    /// `FOR UPDATE`, `FOR SHARE` and the like.
    pub locks_rows: bool,
    /// A CTE inserts, updates, deletes or merges.
    pub modifying_cte: bool,
    /// Has `RETURNING`.
    pub returning: bool,
    /// Creates or names a temporary object.
    pub temporary: bool,
    /// Contains a password or a connection string as a literal; see [`super::mask_literals`].
    pub password: bool,
    /// An update or delete whose filter is absent or constant.
    pub unbounded_write: bool,
    /// `CASCADE` was written.
    pub cascade: bool,
    /// The outermost query is a set operation.
    pub set_operation: bool,
    /// A `NATURAL` join: which columns it compares and merges, the text does not tell.
    pub natural_join: bool,
    /// A CTE with `SEARCH` or `CYCLE`: a star inside its own recursive term leaves the columns out that these add.
    pub ordered_recursion: bool,
    /// Changes the row a cursor stands on: which one that is, neither the text nor its names tell.
    pub current_of: bool,
    /// Names a type whose values are names of objects (`regclass` and the like): constants of it mean what is found by them.
    pub object_names: bool,
    /// `ALTER DOMAIN` that tests, now or later, the values of its type in every table.
    pub tests_domain: bool,
}

/// One change of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingChange {
    /// Lower-case name, `role`, `session_authorization`, `client_encoding`, `timezone` for the spelled-out forms;
    /// `None` when it is computed (`set_config(x, ..)`, `UPDATE pg_settings`) or stands for all of them.
    pub name: Option<String>,
    /// The value, several joined by `, `; `None` for a default or when it is computed.
    pub value: Option<String>,
    /// How it changes.
    pub kind: SettingKind,
    /// For whom it changes.
    pub scope: SettingScope,
}

/// How a setting changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingKind {
    /// To the value given.
    Set,
    /// To a value that the text does not tell.
    Computed,
    /// To its default.
    Default,
    /// To the session's present value (`FROM CURRENT`).
    FromCurrent,
    /// `RESET name`.
    Reset,
    /// `RESET ALL`, `DISCARD ALL`.
    ResetAll,
}

/// For whom a setting changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingScope {
    /// This session.
    Session,
    /// This transaction.
    Local,
    /// `set_config` with a computed third argument.
    Unknown,
    /// While a function runs.
    Function,
    /// A role's or database's later sessions.
    RoleOrDatabase,
    /// The server (`ALTER SYSTEM`).
    System,
}

/// An object created, altered or dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectChange {
    /// Lower-case kind: `table`, `view`, `function`, `role`, `extension`, ...
    pub kind: Cow<'static, str>,
    /// Its name's parts, qualifier first; empty for objects without one (casts) and unnamed ones.
    pub name: Vec<String>,
    /// What happens.
    pub change: Change,
    /// The new name or schema of a rename or move.
    pub renamed: Option<String>,
    /// `IF EXISTS` or `IF NOT EXISTS`.
    pub conditional: bool,
    /// `CASCADE`.
    pub cascade: bool,
}

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is made.
    Create,
    /// It is made, or replaced if there.
    Replace,
    /// Its definition changes.
    Alter,
    /// It is renamed.
    Rename,
    /// It moves to another schema.
    Move,
    /// It gets another owner.
    Owner,
    /// It goes.
    Drop,
    /// Privileges on it are given.
    Grant,
    /// Privileges on it are taken.
    Revoke,
    /// It gets a comment or security label.
    Describe,
}

/// `COPY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Into the table, or out of it.
    pub direction: CopyDirection,
    /// The far end.
    pub endpoint: CopyEndpoint,
    /// A query is copied instead of a relation.
    pub query: bool,
    /// Columns listed; empty means all.
    pub columns: Vec<String>,
    /// The data's format.
    pub format: CopyFormat,
    /// `HEADER`: the value as written, `true` when bare.
    pub header: Option<String>,
    /// `ENCODING`.
    pub encoding: Option<String>,
    /// Every option as written, lower-case names, in order; lists joined by `, `.
    pub options: Vec<(String, String)>,
}

/// Which way `COPY` goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyDirection {
    /// `COPY ... FROM`.
    From,
    /// `COPY ... TO`.
    To,
}

/// The far end of `COPY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyEndpoint {
    /// `STDIN` or `STDOUT`: the client's connection.
    Client,
    /// A file of the server.
    File(String),
    /// A program the server runs.
    Program(String),
}

/// Format of `COPY` data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyFormat {
    /// The default.
    Text,
    /// Comma separated values.
    Csv,
    /// PostgreSQL's binary format.
    Binary,
    /// A format this code does not know.
    Unknown,
}

/// A cursor's use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Its name; `None` for `CLOSE ALL`.
    pub name: Option<String>,
    /// `WITH HOLD`.
    pub hold: bool,
    /// `MOVE`: no rows come back.
    pub moves: bool,
    /// Rows asked for by `FETCH`, when forward or backward; `None` for all and absolute positions.
    pub rows: Option<i64>,
}

/// A prepared statement's use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Its name; `None` for `DEALLOCATE ALL`.
    pub name: Option<String>,
    /// Number of arguments of `EXECUTE`, or declared types of `PREPARE`.
    pub arguments: usize,
}

/// `EXPLAIN`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Explain {
    /// The inner statement is run. The last `ANALYZE` option wins, as in the server; an unknown value counts as on.
    pub analyze: bool,
    /// Options as written, lower-case names, in order.
    pub options: Vec<(String, String)>,
}

/// Transaction control.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// Savepoint's name or two-phase identifier.
    pub name: Option<String>,
    /// `AND CHAIN`.
    pub chain: bool,
    /// `READ ONLY` is `Some(true)`, `READ WRITE` is `Some(false)`.
    pub read_only: Option<bool>,
    /// Isolation level, lower case.
    pub isolation: Option<String>,
    /// `DEFERRABLE` is `Some(true)`.
    pub deferrable: Option<bool>,
}

/// Code that travels inside a statement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Code {
    /// The language, lower case; `None` when not written (`DO` then means plpgsql).
    pub language: Option<String>,
    /// `SECURITY DEFINER`.
    pub security_definer: bool,
    /// Bytes of source text.
    pub bytes: usize,
}

impl Analysis {
    /// Whether every statement is proven to only read. An empty query is.
    #[must_use]
    pub fn read_only(&self) -> bool {
        self.statements.iter().all(Statement::read_only)
    }

    /// Estimate of the heap bytes held, for cache bounds.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.statements.iter().map(Statement::heap_bytes).sum()
    }
}

impl Statement {
    /// Whether the text proves that this statement only reads: neither writes nor calls anything of unknown effect.
    ///
    /// Unqualified functions and operators count as the built-in ones of that name, so a caller must have made sure
    /// that the session's search_path shadows none of them.
    #[must_use]
    pub fn read_only(&self) -> bool {
        !self.flags.writes && !self.flags.unproven
    }

    fn heap_bytes(&self) -> usize {
        // Names are counted as one small allocation each.
        const NAME: usize = 32;
        let outputs = |outputs: &[Output]| {
            outputs
                .iter()
                .map(|output| size_of::<Output>() + NAME + size_of_val(&output.columns[..]))
                .sum::<usize>()
        };
        let columns = self.columns.iter().map(|column| {
            // The tree of places is one node.
            size_of::<ColumnUse>() + column.name.len() * (NAME + 24) + size_of_val(&column.sources[..]) + 64
        });
        let sources = self.sources.iter().map(|source| {
            size_of::<Source>()
                + NAME * (1 + source.columns.len())
                + outputs(&source.outputs)
                + size_of_val(&source.inputs[..])
        });
        let ctes = self.ctes.iter().map(|cte| size_of::<Cte>() + NAME + outputs(&cte.outputs));
        let copies = self.copy.iter().map(|copy| NAME * (4 + copy.columns.len() + copy.options.len() * 3));
        let values = self.settings.iter().map(|setting| setting.value.as_ref().map_or(0, String::len));
        size_of::<Self>()
            + self.relations.len() * (size_of::<RelationUse>() + 3 * NAME)
            + self.functions.len() * (size_of::<FunctionUse>() + 2 * NAME)
            + (self.operators.len() + self.types.len()) * (size_of::<QualifiedName>() + 2 * NAME)
            + self.settings.len() * (size_of::<SettingChange>() + NAME)
            + self.objects.len() * (size_of::<ObjectChange>() + 4 * NAME)
            + (self.roles.len() + self.fields.len()) * (24 + NAME)
            + self
                .modifications
                .iter()
                .map(|known| size_of::<Modification>() + known.columns.len() * (24 + NAME))
                .sum::<usize>()
            + self
                .foreign_keys
                .iter()
                .map(|key| size_of::<ForeignKey>() + key.columns.len() * (24 + NAME))
                .sum::<usize>()
            + columns.sum::<usize>()
            + sources.sum::<usize>()
            + ctes.sum::<usize>()
            + copies.sum::<usize>()
            + values.sum::<usize>()
            + outputs(&self.outputs)
            + self.inner.as_deref().map_or(0, Self::heap_bytes)
    }

    /// Relations under one access.
    pub fn relations_under(&self, access: Access) -> impl Iterator<Item = &RelationUse> {
        self.relations.iter().filter(move |relation| relation.access == access)
    }
}
