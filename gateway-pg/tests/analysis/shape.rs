//! Size and depth: refused with a reason, on stacks of ordinary size.

use gateway_pg::analysis::{AnalysisError, Limits, analyse};

use crate::corpus::settings;

/// Tokio's and the standard library's default for threads.
const STACK: usize = 2 << 20;

fn on_small_stack(sql: String, limits: Limits) -> Result<usize, AnalysisError> {
    let work = move || analyse(&sql, &settings(), &limits).map(|analysis| analysis.statements.len());
    std::thread::Builder::new().stack_size(STACK).spawn(work).expect("spawn").join().expect("no panic")
}

fn wide() -> Limits {
    Limits {
        nesting: usize::MAX,
        comment_depth: usize::MAX,
        chain: usize::MAX,
        tokens: usize::MAX,
        ..Limits::default()
    }
}

fn deep() -> Vec<(&'static str, String)> {
    let many = 100_000;
    vec![
        ("parentheses", format!("select {}1{}", "(".repeat(many), ")".repeat(many))),
        ("open parentheses", format!("select {}", "(".repeat(many))),
        ("brackets", format!("select {}1{}", "array[".repeat(many), "]".repeat(many))),
        ("case", format!("select {}1{}", "case when ".repeat(many / 2), " then 1 end".repeat(many / 4))),
        ("subqueries", format!("select {}1{}", "(select ".repeat(many), ")".repeat(many))),
        ("concatenation", format!("select {}1", "a||".repeat(many))),
        ("plus", format!("select {}1", "1+".repeat(500_000))),
        ("casts", format!("select 1{}", "::int".repeat(many))),
        ("not", format!("select {}true", "not ".repeat(many))),
        ("minus", format!("select {}1", "- ".repeat(many))),
        ("unions", format!("select 1{}", " union select 1".repeat(50_000))),
        ("joins", format!("select 1 from a{}", " cross join a".repeat(50_000))),
        ("right-nested or", format!("select {}true{}", "a or (".repeat(many), ")".repeat(many))),
        ("calls", format!("select {}1{}", "f(".repeat(many), ")".repeat(many))),
        ("collate", format!("select a{}", " collate \"C\"".repeat(50_000))),
        ("is null", format!("select a{}", " is null".repeat(50_000))),
        (
            "from nesting",
            format!("select 1 from {}a{}", "(".repeat(many), " join b on true)".repeat(many / 4)),
        ),
        ("with nesting", format!("{}select 1{}", "with a as (".repeat(40_000), ") select 1".repeat(40_000))),
    ]
}

#[test]
fn depth_is_refused_before_the_parser() {
    for (what, sql) in deep() {
        let found = on_small_stack(sql, Limits::default());
        let refused =
            matches!(found, Err(AnalysisError::TooDeep { .. } | AnalysisError::TooManyTokens { .. }));
        assert!(refused, "{what}: {found:?}");
    }
}

#[test]
fn depth_does_not_crash_the_parser_either() {
    for (what, sql) in deep() {
        assert!(on_small_stack(sql, wide()).is_err(), "{what}");
    }
}

#[test]
fn comments_nest_up_to_their_limit() {
    let nested = |depth: usize| format!("{} x {} select 1", "/*".repeat(depth), "*/".repeat(depth));
    assert_eq!(on_small_stack(nested(32), Limits::default()), Ok(1));
    assert!(matches!(on_small_stack(nested(33), Limits::default()), Err(AnalysisError::TooDeep { .. })));
    assert!(matches!(on_small_stack(nested(100_000), Limits::default()), Err(AnalysisError::TooDeep { .. })));
}

#[test]
fn long_lists_are_fine() {
    let list = |item: &dyn Fn(usize) -> String, count| (1..=count).map(item).collect::<Vec<_>>().join(",");
    let cases = [
        ("in list", format!("select * from t where a in ({})", list(&|n| n.to_string(), 65_000))),
        ("parameters", format!("select * from t where a in ({})", list(&|n| format!("${n}"), 65_535))),
        ("and", format!("select 1 from t where a=1{}", " and a=1".repeat(5_000))),
        ("or", format!("select 1 from t where a=1{}", " or a=1".repeat(5_000))),
        ("values", format!("insert into t values {}", list(&|n| format!("({n},'x')"), 20_000))),
        ("targets", format!("select {}", list(&|n| format!("a{n} || 'x'"), 1_600))),
        ("string", format!("select '{}'", "x".repeat(1_000_000))),
    ];
    for (what, sql) in cases {
        assert_eq!(on_small_stack(sql, Limits::default()), Ok(1), "{what}");
    }
}

#[test]
fn chains_that_people_write_are_fine_and_longer_ones_are_named() {
    let chain = |count: usize| format!("select a{}", " || b".repeat(count));
    assert_eq!(on_small_stack(chain(40), Limits::default()), Ok(1));
    for count in [60, 200, 300] {
        let found = on_small_stack(chain(count), Limits::default());
        assert!(matches!(found, Err(AnalysisError::TooDeep { .. })), "{count}: {found:?}");
    }
    let unions = |count: usize| format!("select 1{}", " union all select 1".repeat(count));
    assert_eq!(on_small_stack(unions(80), Limits::default()), Ok(1));
    let joins = |count: usize| format!("select 1 from a{}", " join b using (x)".repeat(count));
    assert_eq!(on_small_stack(joins(40), Limits::default()), Ok(1));
}

#[test]
fn size_is_refused_by_name() {
    let limits = Limits::default();
    let long = format!("select '{}'", "x".repeat(limits.statement_bytes));
    assert!(matches!(on_small_stack(long, limits), Err(AnalysisError::TooLong { .. })));
    let many = "select 1;".repeat(2_000);
    assert!(matches!(on_small_stack(many, limits), Err(AnalysisError::TooManyStatements { .. })));
    assert_eq!(on_small_stack("select 1;".repeat(1_000), limits), Ok(1_000));
    let tokens = format!("select {}1", "1,".repeat(200_000));
    assert!(matches!(on_small_stack(tokens, limits), Err(AnalysisError::TooManyTokens { .. })));
}

/// Short texts whose facts would be quadratic: refused or answered, but soon.
#[test]
fn orders_of_many_outputs_are_refused() {
    let many = |item: &str, count: usize| vec![item; count].join(",");
    for order in
        [many("a", 20_000), many("20000", 20_000), format!("grouping sets (({}))", many("a", 20_000))]
    {
        let by = if order.starts_with('g') { "group by" } else { "order by" };
        let sql = format!("select {} from t {by} {order}", many("a", 20_000));
        assert_eq!(analyse(&sql, &settings(), &Limits::default()).err(), Some(AnalysisError::TooComplex));
    }
    let fine = format!("select {} from t order by {}", many("a", 300), many("a", 300));
    analyse(&fine, &settings(), &Limits::default()).expect("300 columns");
}

#[test]
fn wide_statements_do_not_explode() {
    let list = |item: &dyn Fn(usize) -> String, count| (1..=count).map(item).collect::<Vec<_>>().join(",");
    let columns = list(&|n| format!("a{n}"), 8_000);
    let cases = [
        ("columns by tables", format!("select {columns} from {}", list(&|n| format!("t x{n}"), 8_000))),
        ("tables", format!("select 1 from {}", list(&|n| format!("t{n}"), 15_000))),
        ("functions", format!("select {}", list(&|n| format!("f{n}()"), 12_000))),
        ("types", format!("select {}", list(&|n| format!("1::t{n}"), 12_000))),
        ("fields", format!("select {}", list(&|n| format!("(a).t{n}"), 10_000))),
        ("roles", format!("drop role {}", list(&|n| format!("r{n}"), 15_000))),
        (
            "copies of a cte",
            format!("with c as (select {columns} from t) select 1 from {}", list(&|_| "c".into(), 8_000)),
        ),
        ("stars against columns", format!("select {columns} from t union select * from t")),
        ("ctes", format!("with {} select 1", list(&|n| format!("c{n} as (select 1 from c)"), 6_000))),
    ];
    for (what, sql) in cases {
        let found = on_small_stack(sql, Limits::default());
        assert!(matches!(found, Ok(1) | Err(AnalysisError::TooComplex)), "{what}: {found:?}");
    }
}
