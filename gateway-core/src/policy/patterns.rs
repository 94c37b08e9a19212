//! Named sets of patterns that a statement may match.
//!
//! They add risk to a decision (`context.patterns.contains("...")`); they are never the only wall, because a statement
//! can be written in a thousand ways. What an operation touches is found by its grammar, not here.

use std::collections::BTreeSet;
use std::fmt;

use aho_corasick::AhoCorasick;
use regex_automata::meta::Regex;
use regex_automata::util::syntax;

/// One set may not grow larger once compiled: bytes. A few hundred plain patterns take less.
const MAX_COMPILED: usize = 8 << 20;
/// What the lazily built automaton of one set may use while it searches: bytes, per thread at work.
const MAX_CACHE: usize = 2 << 20;
/// More sets than anybody reviews, and every one is searched for at every operation.
const MAX_SETS: usize = 256;
/// Patterns in one set.
const MAX_PATTERNS: usize = 10_000;
/// Repetitions and groups nested deeper are refused: they cost time at load and nobody can read them.
const MAX_NESTING: u32 = 64;

/// Upper and lower case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Case {
    /// Letters match either case: ASCII letters in literals, all letters in regexes. The default: SQL keywords and most
    /// names have no case.
    #[default]
    Insensitive,
    /// Letters match as written.
    Sensitive,
}

/// A set before it is compiled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatternSet {
    /// What policies call it.
    pub name: String,
    /// Regular expressions, in the syntax of the `regex` crate; unanchored, matched against bytes, linear in time.
    pub regexes: Vec<String>,
    /// Literal texts.
    pub literals: Vec<String>,
    /// How case counts.
    pub case: Case,
}

impl PatternSet {
    /// An empty set, insensitive to case.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Adds a regular expression.
    #[must_use]
    pub fn regex(mut self, pattern: impl Into<String>) -> Self {
        self.regexes.push(pattern.into());
        self
    }

    /// Adds a literal text.
    #[must_use]
    pub fn literal(mut self, text: impl Into<String>) -> Self {
        self.literals.push(text.into());
        self
    }

    /// Sets how case counts.
    #[must_use]
    pub const fn case(mut self, case: Case) -> Self {
        self.case = case;
        self
    }
}

/// A set that cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// A pattern is not a regular expression, or too large.
    #[error("pattern set `{set}`: pattern `{pattern}` cannot be compiled: {cause}")]
    Pattern {
        /// The set's name.
        set: String,
        /// The pattern.
        pattern: String,
        /// Why.
        cause: String,
    },
    /// The set as a whole cannot be compiled.
    #[error("pattern set `{set}` {cause}")]
    Set {
        /// The set's name.
        set: String,
        /// Why, and the remedy.
        cause: String,
    },
    /// There are too many sets.
    #[error("there are more than {MAX_SETS} pattern sets; merge some")]
    TooMany,
}

/// Compiled sets, searched once per operation. Cheap to share behind an `Arc`.
///
/// ```
/// use gateway_core::policy::patterns::{PatternSet, PatternSets};
///
/// let sets = PatternSets::compile([
///     PatternSet::new("mass_change").regex(r"where\s+(true|1\s*=\s*1)"),
///     PatternSet::new("payroll").literal("salary"),
/// ])?;
/// let names = sets.matching(b"UPDATE staff SET salary = 0 WHERE 1=1");
/// assert_eq!(names.into_iter().collect::<Vec<_>>(), ["mass_change", "payroll"]);
/// # Ok::<(), gateway_core::policy::patterns::PatternError>(())
/// ```
#[derive(Default)]
pub struct PatternSets {
    sets: Vec<Compiled>,
}

struct Compiled {
    name: String,
    regex: Option<Regex>,
    literals: Option<AhoCorasick>,
}

impl fmt::Debug for PatternSets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl PatternSets {
    /// Compiles all sets.
    ///
    /// # Errors
    /// A pattern that is not a regular expression or too large, an empty or repeated set, too many of them; each names
    /// the set and the pattern.
    pub fn compile(sets: impl IntoIterator<Item = PatternSet>) -> Result<Self, PatternError> {
        let mut compiled = Self::default();
        for set in sets {
            if compiled.names().any(|name| name == set.name) {
                return Err(unusable(&set, "is given twice; merge them or rename one"));
            }
            compiled.sets.push(compile(&set)?);
        }
        if compiled.sets.len() > MAX_SETS { Err(PatternError::TooMany) } else { Ok(compiled) }
    }

    /// The names of all sets.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sets.iter().map(|set| set.name.as_str())
    }

    /// The names of the sets that match anywhere in `statement`. Does not allocate for names when nothing matches.
    pub fn matching(&self, statement: &[u8]) -> BTreeSet<String> {
        self.sets.iter().filter(|set| set.matches(statement)).map(|set| set.name.clone()).collect()
    }
}

impl Compiled {
    fn matches(&self, statement: &[u8]) -> bool {
        self.literals.as_ref().is_some_and(|literals| literals.is_match(statement))
            || self.regex.as_ref().is_some_and(|regex| regex.is_match(statement))
    }
}

fn compile(set: &PatternSet) -> Result<Compiled, PatternError> {
    check(set)?;
    let regex = (!set.regexes.is_empty()).then(|| compile_regexes(set)).transpose()?;
    let literals = (!set.literals.is_empty()).then(|| compile_literals(set)).transpose()?;
    Ok(Compiled { name: set.name.clone(), regex, literals })
}

fn check(set: &PatternSet) -> Result<(), PatternError> {
    if set.name.is_empty() {
        return Err(unusable(set, "has no name"));
    }
    if set.regexes.is_empty() && set.literals.is_empty() {
        return Err(unusable(set, "has no patterns and would never match; remove it"));
    }
    if set.regexes.len() + set.literals.len() > MAX_PATTERNS {
        return Err(unusable(set, &format!("has more than {MAX_PATTERNS} patterns; split it")));
    }
    // An empty pattern matches every statement: surely not what was meant.
    match set.literals.iter().chain(&set.regexes).any(String::is_empty) {
        true => Err(unusable(set, "has an empty pattern, which matches everything; remove it")),
        false => Ok(()),
    }
}

fn compile_regexes(set: &PatternSet) -> Result<Regex, PatternError> {
    let mut trees = Vec::with_capacity(set.regexes.len());
    let config = syntax_config(set.case);
    for pattern in &set.regexes {
        let tree = syntax::parse_with(pattern, &config).map_err(|e| bad(set, pattern, &e))?;
        // By itself first, so that the one that is too large is named.
        builder().build_from_hir(&tree).map_err(|e| bad(set, pattern, &e))?;
        trees.push(tree);
    }
    builder()
        .build_many_from_hir(&trees)
        .map_err(|e| unusable(set, &format!("is too large with all its patterns together; split it ({e})")))
}

fn builder() -> regex_automata::meta::Builder {
    let limits = Regex::config()
        .nfa_size_limit(Some(MAX_COMPILED))
        .onepass_size_limit(Some(MAX_COMPILED))
        .hybrid_cache_capacity(MAX_CACHE)
        .utf8_empty(false);
    let mut builder = Regex::builder();
    builder.configure(limits);
    builder
}

fn syntax_config(case: Case) -> syntax::Config {
    syntax::Config::new().case_insensitive(case == Case::Insensitive).utf8(false).nest_limit(MAX_NESTING)
}

fn compile_literals(set: &PatternSet) -> Result<AhoCorasick, PatternError> {
    AhoCorasick::builder()
        .ascii_case_insensitive(set.case == Case::Insensitive)
        .build(&set.literals)
        .map_err(|e| unusable(set, &format!("has too many literals; split it ({e})")))
        .and_then(|built| match built.memory_usage() > MAX_COMPILED {
            true => Err(unusable(
                set,
                &format!("has literals that compile to more than {MAX_COMPILED} bytes; split it"),
            )),
            false => Ok(built),
        })
}

fn bad(set: &PatternSet, pattern: &str, cause: &dyn fmt::Display) -> PatternError {
    PatternError::Pattern { set: set.name.clone(), pattern: pattern.to_owned(), cause: cause.to_string() }
}

fn unusable(set: &PatternSet, cause: &str) -> PatternError {
    PatternError::Set { set: set.name.clone(), cause: cause.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matching(set: PatternSet, statement: &str) -> bool {
        !PatternSets::compile([set]).unwrap().matching(statement.as_bytes()).is_empty()
    }

    #[test]
    fn regexes_and_literals_match_anywhere_and_ignore_case() {
        let set = || PatternSet::new("s").regex(r"drop\s+table").literal("pg_sleep");
        assert!(matching(set(), "/* x */ DROP\n TABLE t"));
        assert!(matching(set(), "select PG_Sleep(1)"));
        assert!(!matching(set(), "select 1"));
    }

    #[test]
    fn case_counts_where_asked() {
        let set = || PatternSet::new("s").regex("drop").literal("Salary").case(Case::Sensitive);
        assert!(matching(set(), "drop") && matching(set(), "Salary"));
        assert!(!matching(set(), "DROP salary"));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_searched_too() {
        let sets = PatternSets::compile([PatternSet::new("s").regex("secret")]).unwrap();
        assert_eq!(sets.matching(b"\xff\xfe secret \x80").len(), 1);
    }

    #[test]
    fn nothing_matches_no_sets() {
        assert!(PatternSets::default().matching(b"anything").is_empty());
    }

    #[test]
    fn refusals_name_the_set_and_the_pattern() {
        let refusal = |set: PatternSet| PatternSets::compile([set]).unwrap_err().to_string();
        assert!(
            refusal(PatternSet::new("a").regex("ok").regex("(")).contains("pattern set `a`: pattern `(`")
        );
        let huge = refusal(PatternSet::new("a").regex(r"(\w{500}){500}"));
        assert!(huge.contains(r"pattern set `a`: pattern `(\w{500}){500}`"), "{huge}");
        assert!(refusal(PatternSet::new("a")).contains("would never match"));
        assert!(refusal(PatternSet::new("a").literal("")).contains("matches everything"));
        let twice = [PatternSet::new("a").literal("x"), PatternSet::new("a").literal("y")];
        assert!(PatternSets::compile(twice).unwrap_err().to_string().contains("given twice"));
        let deep = format!("{}x{}", "(".repeat(200), ")".repeat(200));
        assert!(refusal(PatternSet::new("a").regex(deep)).contains("pattern set `a`"));
    }

    #[test]
    fn many_sets_are_refused() {
        let sets = (0..=MAX_SETS).map(|i| PatternSet::new(format!("s{i}")).literal("x"));
        assert_eq!(PatternSets::compile(sets).unwrap_err(), PatternError::TooMany);
    }
}
