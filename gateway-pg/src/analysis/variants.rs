//! Texts that differ in nothing but plain integers, and when one analysis is true of all of them.
//!
//! A client that writes its keys into its texts sends a new text each time, and parsing is what costs most of judging one. Here is why an
//! analysis may be used again for another text with the same [form](Form):
//!
//! 1. *The form keeps every byte but the integers.* White space, comments, names, operators, strings and all other numbers are part of
//!    it as they are written. Only a token that is nothing but one to [`MAX_DIGITS`] digits is taken out, and its place keeps
//!    [`HOLE`], a byte no token begins with. The scan that finds the tokens runs over every text, with all its limits and
//!    refusals, before the form is looked up; so it knows the same tokens at the same places of both texts.
//! 2. *The server's lexer gives the same tokens.* One to nine digits are an integer constant (`ICONST`, never out of its range, so never
//!    a `FCONST`) in every version, whatever digits they are: nothing else can become of them, neither a name nor a radix prefix, as
//!    what follows is in the form.
//! 3. *The grammar gives the same tree but for the values.* A form is kept only if every integer taken out has become a constant
//!    node (`A_Const`) of its own, at the token's place or that of the minus sign before it: so the grammar did nothing with it
//!    but store it. Where a rule looks at an integer (`FLOAT(24)` becomes `float4`) it makes no such node of it, and where it
//!    puts it into an option it makes another node.
//! 4. *The analysis has not looked at the values.* All readers of constants tell [`observe`] when they read a number. If one did (a
//!    `LIMIT`, `WHERE 1 = 1`), the form is not kept. So what it says of one text is what it would say of the other.
//!
//! Whatever fits none of this is parsed. What depends on the values themselves (the recorded text, patterns, the digest) is made
//! from the text at hand by others, who are never given another one. `tests` compares with fresh analyses.

use std::cell::RefCell;

use super::scan::{TokenClass, scan};
use super::{AnalysisError, LexSettings, Limits};

/// Longest integer taken out: every number of nine digits fits 32 bits.
const MAX_DIGITS: usize = 9;

/// Most integers of a form. 256: texts with more (long lists) seldom have the same length twice, and are not looked up.
const MAX_INTEGERS: usize = 256;

/// What stands for an integer in a form. No text that passes the scan has it outside strings and comments.
const HOLE: u8 = 1;

/// A text without its plain integers.
#[derive(Debug)]
pub(super) struct Form {
    pub(super) key: Vec<u8>,
    /// Where each integer stood, and the minus sign right before it.
    integers: Vec<(usize, Option<usize>)>,
}

impl Form {
    /// Of a text; the scan is the one that must precede every analysis.
    ///
    /// # Errors
    /// As the scan.
    pub(super) fn of(text: &str, settings: &LexSettings, limits: &Limits) -> Result<Self, AnalysisError> {
        let bytes = text.as_bytes();
        let mut form = Self { key: Vec::with_capacity(text.len()), integers: Vec::new() };
        let (mut copied, mut minus) = (0, None);
        scan(text, settings, limits, |token| {
            let written = bytes.get(token.start..token.end).unwrap_or_default();
            let plain = written.len() <= MAX_DIGITS && written.iter().all(u8::is_ascii_digit);
            if token.class == TokenClass::Number && plain && form.integers.len() <= MAX_INTEGERS {
                form.key.extend_from_slice(bytes.get(copied..token.start).unwrap_or_default());
                form.key.push(HOLE);
                form.integers.push((token.start, minus));
                copied = token.end;
            }
            minus = (written == b"-").then_some(token.start);
        })?;
        form.key.extend_from_slice(bytes.get(copied..).unwrap_or_default());
        Ok(form)
    }

    /// Whether other texts can have the same form.
    pub(super) fn varies(&self) -> bool {
        (1..=MAX_INTEGERS).contains(&self.integers.len())
    }

    /// Whether an analysis that met this holds for every text of this form.
    pub(super) fn holds_for_all(&self, met: &Met) -> bool {
        let is_constant = |place: &usize| i32::try_from(*place).is_ok_and(|at| met.integers.contains(&at));
        !met.numbers_were_read
            && self.varies()
            && self
                .integers
                .iter()
                .all(|(at, minus)| is_constant(at) || minus.as_ref().is_some_and(is_constant))
    }
}

impl Met {
    fn met(&mut self, location: i32) {
        // More than a form can have are not worth remembering.
        if self.integers.len() <= MAX_INTEGERS {
            self.integers.push(location);
        } else {
            self.numbers_were_read = true;
        }
    }
}

/// What an analysis met of numbers.
#[derive(Debug, Default)]
pub(super) struct Met {
    /// Where the integer constants stand that the walk came across.
    integers: Vec<i32>,
    /// Something depends on the value of a number.
    numbers_were_read: bool,
}

thread_local! {
    /// Of the analysis under way on this thread. Here, because the readers of constants are plain functions all over the walk, and one
    /// that would forget to hand its witness on is just what must not happen.
    static MET: RefCell<Option<Met>> = const { RefCell::new(None) };
}

/// Runs an analysis and tells what it met.
pub(super) fn observe<T>(work: impl FnOnce() -> T) -> (T, Met) {
    MET.set(Some(Met::default()));
    let result = work();
    (result, MET.take().unwrap_or(Met { numbers_were_read: true, ..Met::default() }))
}

/// The walk has come across an integer constant.
pub(super) fn integer_met(location: i32) {
    MET.with_borrow_mut(|met| met.iter_mut().for_each(|met| met.met(location)));
}

/// The value of a number is being read.
pub(super) fn number_read() {
    MET.with_borrow_mut(|met| met.iter_mut().for_each(|met| met.numbers_were_read = true));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{AnalysisCache, analyse};
    use super::*;

    /// Statements in which integers stand where they may mean something; `#` is where one goes.
    const STATEMENTS: [&str; 44] = [
        "select abalance from pgbench_accounts where aid = #",
        "update pgbench_accounts set abalance = abalance + -# where aid = #",
        "update t set a = # where # = #",
        "update t set a = 1 where #",
        "delete from t where # <> #",
        "delete from t where true or # = #",
        "delete from t where not (# = #) and id = #",
        "insert into pgbench_history (tid, bid, mtime) values (#, #, current_timestamp)",
        "select * from t limit #",
        "select * from t where a = # limit # offset #",
        "select * from t limit -#",
        "select * from t fetch first # rows only",
        "select a::varchar(#), b::numeric(#, #) from t where c = #",
        "select cast(a as float(#)) from t where b = #",
        "select a::interval(#), b::timestamp(#) from t where c = #",
        "select interval '1' year, # from t",
        "select interval(#) '1 day' from t where a = #",
        "select set_config('search_path', 'x', # = #), set_config('a.b', '#', true)",
        "select set_config('a.b', #::text, #::bool)",
        "select pg_sleep(#), nextval('s'), f(#, -#, - -#, +#)",
        "select '#', E'a\\'#', $$#$$, $q$ # $q$, U&'\\0041#', N'#', B'#', x'#' from t where a = #",
        "select a -- # it's\n from t /* # */ where b = # -- #",
        "/* # */ select # from t where a = # ;  -- # end",
        "select #.5, .#, #., #e#, #.#e-#, a[#], a[#:#] from t",
        "select 0x#, 0o#, 1_#, #_000 from t",
        "select # a, # as b, a# from t# where x# = #",
        "select # union select # order by # limit #",
        "with c as (select # as n) update t set a = c.n from c where t.b = #",
        "with recursive r as (select # as n union all select n + # from r where n < #) select * from r",
        "select sum(a) over (order by b rows between # preceding and # following) from t where c = #",
        "select * from t tablesample system(#) repeatable (#) where a = #",
        "select case when a = # then # else -# end from t",
        "select * from t where a between # and # and b in (#, #, -#) and c = any(array[#, #])",
        "select extract(year from a), substring(b from # for #), overlay(c placing 'x' from #) from t",
        "merge into t using s on t.id = # when matched then update set a = # when not matched then insert values (#)",
        "insert into t values (#, 'a'), (-#, 'b') on conflict (a) do update set b = # where t.c = #",
        "select * from generate_series(#, #) as g(a), rows from (f(#) as (a float(#)))",
        "select # ; select #",
        "select $# from t where a = #",
        "select a from t where b = # group by # having count(*) > # order by # desc",
        "select json_value(a, '$.x' returning numeric(#)) from t where b = #",
        "select * from t where a = # for update",
        "explain select * from t where a = #",
        "prepare p# as select * from t where a = #",
    ];

    fn fill(statement: &str, integers: &[String]) -> String {
        let mut integers = integers.iter().cycle();
        statement.split('#').enumerate().fold(String::new(), |text, (i, part)| {
            if i == 0 { part.to_owned() } else { text + integers.next().unwrap() + part }
        })
    }

    fn integers() -> impl Strategy<Value = Vec<String>> {
        let integer = prop_oneof![
            (0..3u32).prop_map(|n| n.to_string()),
            any::<u32>().prop_map(|n| n.to_string()),
            any::<u64>().prop_map(|n| n.to_string()),
            (1..60u32).prop_map(|n| n.to_string()),
            "[0-9]{1,12}",
            Just("007".to_owned()),
            Just("999999999".to_owned()),
            Just("2147483648".to_owned()),
        ];
        prop::collection::vec(integer, 1..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

        #[test]
        fn a_shared_analysis_is_what_a_fresh_one_would_be(
            statement in 0..STATEMENTS.len(),
            variants in prop::collection::vec(integers(), 2..6),
            modern: bool,
            conforming: bool,
        ) {
            let settings = LexSettings {
                standard_conforming_strings: conforming,
                backslash_quote: true,
                server_version_num: if modern { 180_000 } else { 150_000 },
                other_encoding: false,
            };
            let cache = AnalysisCache::default();
            for integers in variants {
                let text = fill(STATEMENTS[statement], &integers);
                let fresh = analyse(&text, &settings, &Limits::default());
                let shared = cache.analyse(text.as_bytes(), &settings);
                if let Ok(shared) = &shared {
                    for (i, statement) in shared.to_analysis().statements.iter().enumerate() {
                        prop_assert_eq!(shared.range(i), Some(statement.range.clone()));
                    }
                }
                prop_assert_eq!(shared.map(|s| s.to_analysis()), fresh, "{}", text);
            }
        }
    }

    fn is_shared(one: &str, other: &str) -> bool {
        let cache = AnalysisCache::default();
        let of = |text: &str| cache.analyse(text.as_bytes(), &LexSettings::default()).unwrap().analysis;
        std::sync::Arc::ptr_eq(&of(one), &of(other))
    }

    #[test]
    fn everyday_texts_share_and_those_that_depend_on_a_number_do_not() {
        for statement in [STATEMENTS[0], STATEMENTS[1], STATEMENTS[7], STATEMENTS[31]] {
            let texts = [["1".to_owned()], ["98765".to_owned()]].map(|n| fill(statement, &n));
            assert!(is_shared(&texts[0], &texts[1]), "{statement}");
        }
        // What reads no column counts as constant, whatever its numbers.
        assert!(is_shared("delete from t where id = 3 or 1 = 1", "delete from t where id = 3 or 1 = 2"));
        for (one, other) in [
            ("select 1 limit 5", "select 1 limit 6"),
            ("select a::float(24) from t", "select a::float(25) from t"),
            ("select 'a' from t where b = 1", "select 'c' from t where b = 1"),
            ("select 1 from t", "select 1111111111 from t"),
            ("select 1 from t", "select 1.0 from t"),
            ("select 1 /* 1 */ from t", "select 1 /* 2 */ from t"),
        ] {
            assert!(!is_shared(one, other), "{one}");
        }
    }
}
