//! Runs `corpus.txt`: statements, each followed by the facts the analysis must tell.
//!
//! A case is its SQL (lines up to the first `=>`), then one `=> ` line per statement or one `=> error: ..`, then a
//! blank line. `BLESS=1 cargo test` writes the facts as they are; read the difference before committing it.

use std::fmt::Write;
use std::path::PathBuf;

use gateway_pg::analysis::{
    Analysis, AnalysisError, CopyEndpoint, Filter, FunctionRole, LexSettings, Limits, OutputKind,
    RelationUse, SourceKind, Statement, analyse,
};

/// One case of the corpus.
pub(crate) struct Case {
    pub(crate) sql: String,
    facts: String,
}

pub(crate) fn settings() -> LexSettings {
    LexSettings { server_version_num: 150_018, ..LexSettings::default() }
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/analysis/corpus.txt")
}

pub(crate) fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(path()).expect("read the corpus");
    let blocks =
        text.split("\n\n").map(str::trim).filter(|block| !block.is_empty() && !block.starts_with('#'));
    blocks.map(case).collect()
}

fn case(block: &str) -> Case {
    let (sql, facts): (Vec<&str>, Vec<&str>) = block.lines().partition(|line| !line.starts_with("=>"));
    Case { sql: sql.join("\n"), facts: facts.join("\n") }
}

#[test]
fn every_statement_tells_its_facts() {
    let cases = cases();
    assert!(cases.len() > 200, "{} cases", cases.len());
    if std::env::var_os("BLESS").is_some() {
        return bless(&cases);
    }
    let wrong: Vec<String> = cases
        .iter()
        .filter(|case| facts(&case.sql) != case.facts)
        .map(|case| format!("{}\nexpected\n{}\nfound\n{}\n", case.sql, case.facts, facts(&case.sql)))
        .collect();
    assert!(wrong.is_empty(), "{} of {} cases differ\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

fn bless(cases: &[Case]) {
    let text = std::fs::read_to_string(path()).expect("read the corpus");
    let mut out = String::new();
    let mut cases = cases.iter();
    for block in text.split("\n\n").map(str::trim).filter(|block| !block.is_empty()) {
        if block.starts_with('#') {
            write!(out, "{block}\n\n").expect("write");
        } else if let Some(case) = cases.next() {
            write!(out, "{}\n{}\n\n", case.sql, facts(&case.sql)).expect("write");
        }
    }
    std::fs::write(path(), out.trim_end().to_owned() + "\n").expect("write the corpus");
}

/// Those of a server that knows all of the grammar where an older one refuses the text for its version.
fn analysed(sql: &str) -> Result<Analysis, AnalysisError> {
    match analyse(sql, &settings(), &Limits::default()) {
        Err(AnalysisError::VersionDependent { .. })
            if ["json", "merge_action"].iter().any(|word| sql.contains(word)) =>
        {
            let newest = LexSettings { server_version_num: 180_000, ..LexSettings::default() };
            analyse(sql, &newest, &Limits::default())
        }
        other => other,
    }
}

fn facts(sql: &str) -> String {
    match analysed(sql) {
        Err(error) => format!("=> error: {error}"),
        Ok(Analysis { statements }) if statements.is_empty() => "=> nothing".to_owned(),
        Ok(Analysis { statements }) => statements.iter().map(line).collect::<Vec<_>>().join("\n"),
    }
}

fn line(statement: &Statement) -> String {
    let mut out = format!("=> {}", statement.kind);
    let mut part = |name: &str, items: Vec<String>| {
        if !items.is_empty() {
            write!(out, " | {name} {}", items.join(", ")).expect("write");
        }
    };
    part("on", statement.relations.iter().map(relation).collect());
    part("calls", functions(statement, FunctionRole::Call));
    part("uses", functions(statement, FunctionRole::Implementation));
    let operators = statement.operators.iter().filter(|operator| operator.schema.is_some());
    part("operators", operators.map(|name| qualified(&name.schema, &name.name)).collect());
    part("types", statement.types.iter().map(|name| qualified(&name.schema, &name.name)).collect());
    part(
        "sets",
        statement
            .settings
            .iter()
            .map(|set| {
                let (name, value) = (set.name.as_deref().unwrap_or("?"), set.value.as_deref().unwrap_or("?"));
                format!("{:?} {:?} {name}={value}", set.scope, set.kind).to_lowercase()
            })
            .collect(),
    );
    part(
        "objects",
        statement
            .objects
            .iter()
            .map(|object| {
                let renamed = object.renamed.as_deref().map(|name| format!(" to {name}")).unwrap_or_default();
                let marks = [(object.conditional, " conditional"), (object.cascade, " cascade")];
                let marks: String = marks.iter().filter(|(set, _)| *set).map(|(_, mark)| *mark).collect();
                format!("{:?} {} {}{renamed}{marks}", object.change, object.kind, object.name.join("."))
                    .to_lowercase()
            })
            .collect(),
    );
    part("roles", statement.roles.clone());
    part(
        "rows",
        statement
            .modifications
            .iter()
            .map(|change| {
                let relation = &statement.relations[change.relation];
                let filter = match change.filter {
                    Filter::NotApplicable => "",
                    Filter::Absent => " all",
                    Filter::Constant => " constant",
                    Filter::Present => " some",
                };
                let columns = if change.columns.is_empty() {
                    String::new()
                } else {
                    format!("({})", change.columns.join(" "))
                };
                format!("{:?} {}{columns}{filter}", change.access, relation.name).to_lowercase()
            })
            .collect(),
    );
    part("returns", statement.outputs.iter().map(|output| returned(statement, output)).collect());
    part("fields", statement.fields.clone());
    part("limit", statement.limit.iter().map(u64::to_string).collect());
    part(
        "copy",
        statement
            .copy
            .iter()
            .map(|copy| {
                let end = match &copy.endpoint {
                    CopyEndpoint::Client => "client".to_owned(),
                    CopyEndpoint::File(file) => format!("file {file}"),
                    CopyEndpoint::Program(program) => format!("program {program}"),
                };
                format!(
                    "{:?} {end} {:?} ({}) {:?}",
                    copy.direction,
                    copy.format,
                    copy.columns.join(" "),
                    copy.options
                )
            })
            .collect(),
    );
    part("cursor", statement.cursor.iter().map(|cursor| format!("{cursor:?}")).collect());
    part(
        "prepared",
        statement
            .prepared
            .iter()
            .map(|prepared| format!("{}/{}", prepared.name.as_deref().unwrap_or("all"), prepared.arguments))
            .collect(),
    );
    part("explain", statement.explain.iter().map(|explain| format!("analyze={}", explain.analyze)).collect());
    part("transaction", statement.transaction.iter().map(|transaction| format!("{transaction:?}")).collect());
    part("code", statement.code.iter().map(|code| format!("{code:?}")).collect());
    part("flags", flags(statement));
    out
}

fn returned(statement: &Statement, output: &gateway_pg::analysis::Output) -> String {
    let column = |index: usize| {
        let column = &statement.columns[index];
        let from: Vec<String> = column.sources.iter().map(|&source| source_name(statement, source)).collect();
        let star = if column.star { if column.name.is_empty() { "*" } else { ".*" } } else { "" };
        format!("{}{star}<{}>", column.name.join("."), from.join(" "))
    };
    let columns: Vec<String> = output.columns.iter().map(|&index| column(index)).collect();
    let text = match output.kind {
        OutputKind::Column(_) | OutputKind::Star(_) => columns.join(" "),
        OutputKind::Expression => format!("expr({})", columns.join(" ")),
        OutputKind::Expanded => format!("expanded({})", columns.join(" ")),
    };
    output.alias.as_deref().map(|alias| format!("{alias}={text}")).unwrap_or(text)
}

fn source_name(statement: &Statement, index: usize) -> String {
    let source = &statement.sources[index];
    match &source.kind {
        SourceKind::Relation(relation) => statement.relations[*relation].name.clone(),
        SourceKind::Cte(cte) => format!("cte:{}", statement.ctes[*cte].name),
        SourceKind::Subquery => "subquery".to_owned(),
        SourceKind::Function => "function".to_owned(),
        SourceKind::Join => "join".to_owned(),
        SourceKind::Pseudo(_) => format!("pseudo:{}", source.alias.as_deref().unwrap_or_default()),
    }
}

fn relation(used: &RelationUse) -> String {
    let name = qualified(&used.schema, &used.name);
    let catalog = used.catalog.as_deref().map(|catalog| format!("{catalog}.")).unwrap_or_default();
    let marks = [(used.only, " only"), (used.star, " *"), (used.whole_row, " row")];
    let marks: String = marks.iter().filter(|(set, _)| *set).map(|(_, mark)| *mark).collect();
    format!("{:?} {catalog}{name}{marks}", used.access).to_lowercase()
}

fn functions(statement: &Statement, role: FunctionRole) -> Vec<String> {
    let used = statement.functions.iter().filter(|function| function.role == role);
    used.map(|function| format!("{}/{}", qualified(&function.schema, &function.name), function.arguments))
        .collect()
}

fn qualified(schema: &Option<String>, name: &str) -> String {
    schema.as_deref().map(|schema| format!("{schema}.{name}")).unwrap_or_else(|| name.to_owned())
}

fn flags(statement: &Statement) -> Vec<String> {
    let flags = statement.flags;
    let named = [
        (flags.writes, "writes"),
        (flags.unproven, "unproven"),
        (flags.locks_rows, "locks_rows"),
        (flags.modifying_cte, "modifying_cte"),
        (flags.returning, "returning"),
        (flags.temporary, "temporary"),
        (flags.password, "password"),
        (flags.unbounded_write, "unbounded_write"),
        (flags.cascade, "cascade"),
        (flags.set_operation, "set_operation"),
    ];
    named.iter().filter(|(set, _)| *set).map(|(_, name)| (*name).to_owned()).collect()
}
