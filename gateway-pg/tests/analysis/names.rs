//! Names that the text implies, and what they can stand for.

use std::collections::BTreeSet;

use gateway_pg::analysis::{Limits, Place, SourceKind, Statement, analyse};

use crate::corpus::settings;

fn statement(sql: &str) -> Statement {
    let mut analysis = analyse(sql, &settings(), &Limits::default()).expect(sql);
    analysis.statements.remove(0)
}

fn operators(sql: &str) -> BTreeSet<String> {
    statement(sql).operators.into_iter().map(|o| o.name).collect()
}

/// An arm of `OR` that reads no column is the same for every row.
#[test]
fn arms_that_read_no_column_choose_nothing() {
    for arm in [
        "1 in (1)",
        "'x' like 'x'",
        "1 between 0 and 2",
        "true is true",
        "id is not distinct from id",
        "f(1)",
    ] {
        for (sql, unbounded) in [
            (format!("delete from t where id = 1 or {arm}"), true),
            (format!("update t set a = 1 where (id = 1 or {arm}) or id = 2"), true),
            (format!("delete from t where id = 1 or a = 2 and {arm}"), false),
            (format!("delete from t where id = 1 and ({arm})"), false),
        ] {
            assert_eq!(statement(&sql).flags.unbounded_write, unbounded, "{sql}");
        }
    }
}

#[test]
fn operators_that_the_grammar_stands_for_are_named() {
    let cases: [(&str, &[&str]); 11] = [
        ("select 1 between 2 and 3", &["<=", ">="]),
        ("select 1 between symmetric 2 and 3", &["<=", ">="]),
        ("select 1 not between 2 and 3", &["<", ">"]),
        ("select 1 not between symmetric 2 and 3", &["<", ">"]),
        ("select case 1 when 2 then 3 end", &["="]),
        ("select case when true then 3 end", &[]),
        ("select 1 in (select 2)", &["="]),
        ("select 1 not in (select 2)", &["="]),
        ("select exists (select 2)", &[]),
        ("select 1 from a join b using (c)", &["="]),
        ("select 1 from a natural join b", &["="]),
    ];
    for (sql, names) in cases {
        assert_eq!(operators(sql), names.iter().map(|n| (*n).to_owned()).collect(), "{sql}");
    }
}

#[test]
fn a_natural_join_reads_every_column_to_compare_it() {
    let natural = statement("select x from a natural full join b");
    assert!(natural.flags.natural_join);
    assert!(natural.columns.iter().any(|c| c.star && c.places.contains(&Place::Filter)));
    assert!(!statement("select x from a full join b using (x)").flags.natural_join);
    assert!(statement("explain select 1 from (select * from a natural join b) c").flags.natural_join);
}

/// The relations that the reference `x.f` may belong to.
fn belongs_to(sql: &str) -> Vec<String> {
    let found = statement(sql);
    let column = found.columns.iter().find(|c| c.name == ["x", "f"]).expect(sql);
    let relation = |source: &usize| match found.sources[*source].kind {
        SourceKind::Relation(index) => found.relations[index].name.clone(),
        ref other => format!("{other:?}"),
    };
    column.sources.iter().map(relation).collect()
}

#[test]
fn siblings_are_visible_to_lateral_subqueries_only() {
    let outer = "select (select max(p) from inner_table x, {} (select x.f as p) s) from outer_table x";
    assert_eq!(belongs_to(&outer.replace("{}", "")), ["outer_table"]);
    assert_eq!(belongs_to(&outer.replace("{}", "lateral")), ["inner_table"]);
    assert_eq!(belongs_to("select x.f from inner_table x, (select 1) s"), ["inner_table"]);
}
