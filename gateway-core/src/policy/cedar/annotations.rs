//! What the annotations of one policy say.

use std::collections::BTreeSet;
use std::time::Duration;

use cedar_policy::{Effect, Policy};

use super::diagnostics::nearest;
use crate::policy::{Budget, Content, Per, Subjects};

/// How long a request for approval stays open unless the rule says otherwise.
const DEFAULT_TTL: Duration = Duration::from_secs(15 * 60);
/// How long after its first use a budget is full again unless it says otherwise.
const DEFAULT_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);
/// A request nobody decides must not stay open for ever: one week, the longest a rule may ask for.
const MAX_TTL: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// More distinct reviewers than any group can be expected to gather for one operation.
const MAX_QUORUM: u32 = 32;
/// Names of approvals and groups end up in messages and keys: characters.
const MAX_NAME: usize = 128;

const KNOWN: [&str; 10] = [
    "id",
    "approval",
    "reason",
    "hint",
    "rewrite",
    "limit_rows",
    "limit_bytes",
    "max_rows_affected",
    "budget",
    "record",
];

/// The parsed annotations of one policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Annotations {
    pub(super) approval: Option<Approval>,
    pub(super) reason: Option<String>,
    pub(super) hint: Option<String>,
    pub(super) rewrite: Option<String>,
    pub(super) limit_rows: Option<u64>,
    pub(super) limit_bytes: Option<u64>,
    pub(super) max_rows_affected: Option<u64>,
    pub(super) budget: Option<Budget>,
    pub(super) record: Option<Content>,
}

/// `@approval("reviewers=dba; quorum=2; ttl=15m; name=...")`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Approval {
    pub(super) name: String,
    pub(super) reviewers: String,
    pub(super) quorum: u32,
    pub(super) ttl: Duration,
}

/// What is wrong with an annotation, and the remedy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) message: String,
    pub(super) help: String,
}

impl Problem {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

impl Annotations {
    /// Reads all annotations of `policy`; reports every one that is unknown, malformed or would do nothing.
    pub(super) fn read(policy: &Policy) -> (Self, Vec<Problem>) {
        let mut all = Self::default();
        let mut problems = Vec::new();
        for (key, value) in policy.annotations() {
            if let Err(problem) = all.take(key, value, policy.effect()) {
                problems.push(problem);
            }
        }
        (all, problems)
    }

    fn take(&mut self, key: &str, value: &str, effect: Effect) -> Result<(), Problem> {
        match (key, effect) {
            ("id", _) => plain("id", value).map(drop)?,
            ("approval", Effect::Forbid) => self.approval = Some(approval(value)?),
            ("reason", Effect::Forbid) => self.reason = Some(text("reason", value)?),
            ("hint", Effect::Forbid) => self.hint = Some(text("hint", value)?),
            ("rewrite", Effect::Permit) => self.rewrite = Some(text("rewrite", value)?),
            ("limit_rows", Effect::Permit) => self.limit_rows = Some(number("limit_rows", value)?),
            ("limit_bytes", Effect::Permit) => self.limit_bytes = Some(number("limit_bytes", value)?),
            ("max_rows_affected", Effect::Permit) => {
                self.max_rows_affected = Some(number("max_rows_affected", value)?);
            }
            ("budget", Effect::Permit) => self.budget = Some(budget(value)?),
            ("record", Effect::Permit) => self.record = Some(content(value)?),
            (key, effect) if KNOWN.contains(&key) => return Err(misplaced(key, effect)),
            _ => return Err(unknown(key)),
        }
        Ok(())
    }
}

fn misplaced(key: &str, effect: Effect) -> Problem {
    let (on, instead) = match effect {
        Effect::Permit => ("permit", "forbid"),
        Effect::Forbid => ("forbid", "permit"),
    };
    Problem::new(
        format!("`@{key}` does nothing on a `{on}`"),
        format!("move it to a `{instead}` rule or remove it"),
    )
}

fn unknown(key: &str) -> Problem {
    let help = nearest(key, KNOWN).map_or_else(
        || format!("the known annotations are {}", KNOWN.map(|k| format!("`@{k}`")).join(", ")),
        |near| format!("did you mean `@{near}`?"),
    );
    Problem::new(format!("unknown annotation `@{key}`"), help)
}

fn text(key: &str, value: &str) -> Result<String, Problem> {
    if value.trim().is_empty() {
        return Err(Problem::new(format!("`@{key}` is empty"), format!("write `@{key}(\"...\")`")));
    }
    Ok(value.to_owned())
}

fn plain(key: &str, value: &str) -> Result<String, Problem> {
    let fits = !value.is_empty() && value.chars().count() <= MAX_NAME && !value.chars().any(char::is_control);
    fits.then(|| value.to_owned()).ok_or_else(|| {
        Problem::new(
            format!("`{key}` must be 1 to {MAX_NAME} printable characters"),
            "choose a short plain name",
        )
    })
}

fn number(key: &str, value: &str) -> Result<u64, Problem> {
    value.trim().parse().map_err(|_| {
        Problem::new(
            format!("`@{key}` must be a whole number, not `{value}`"),
            format!("write `@{key}(\"1000\")`"),
        )
    })
}

fn approval(value: &str) -> Result<Approval, Problem> {
    let (mut reviewers, mut name, mut quorum, mut ttl) = (None, None, None, None);
    for part in value.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let (key, value) =
            part.split_once('=').ok_or_else(|| approval_problem(&format!("`{part}` has no value")))?;
        let (key, value) = (key.trim(), value.trim());
        let repeated = match key {
            "reviewers" => reviewers.replace(plain("reviewers", value)?).is_some(),
            "name" => name.replace(plain("name", value)?).is_some(),
            "quorum" => quorum.replace(parse_quorum(value)?).is_some(),
            "ttl" => ttl.replace(parse_ttl(value)?).is_some(),
            _ => return Err(unknown_key(key)),
        };
        if repeated {
            return Err(approval_problem(&format!("`{key}` is given twice")));
        }
    }
    let reviewers = reviewers.ok_or_else(|| approval_problem("it names no reviewers"))?;
    Ok(Approval {
        name: name.unwrap_or_else(|| reviewers.clone()),
        reviewers,
        quorum: quorum.unwrap_or(1),
        ttl: ttl.unwrap_or(DEFAULT_TTL),
    })
}

fn approval_problem(what: &str) -> Problem {
    Problem::new(
        format!("`@approval` cannot be read: {what}"),
        "write `@approval(\"reviewers=dba; quorum=2; ttl=15m; name=...\")`; only `reviewers` is required",
    )
}

/// Different subjects that a budget may count; each is remembered. 100,000.
const MAX_SUBJECTS: u64 = 100_000;

/// `rows=N; bytes=N; subjects=N; of=CLASS; per=task; window=1d; name=...`.
fn budget(value: &str) -> Result<Budget, Problem> {
    let problem = |message: String| {
        Problem::new(
            format!("`@budget`: {message}"),
            "write it like `@budget(\"name=reading; rows=10000; per=task; window=1d\")`",
        )
    };
    let (mut subjects, mut of) = (None, None);
    let (name, window) = (String::new(), DEFAULT_WINDOW);
    let mut budget = Budget { name, per: Per::Task, rows: None, bytes: None, subjects: None, window };
    let mut seen = BTreeSet::new();
    for part in value.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').ok_or_else(|| problem(format!("`{part}` has no value")))?;
        let (key, value) = (key.trim(), value.trim());
        if !seen.insert(key) {
            return Err(problem(format!("`{key}` is given twice")));
        }
        let number =
            || value.parse().map_err(|_| problem(format!("`{key}` must be a whole number, not `{value}`")));
        match (key, value) {
            ("name", name) => budget.name = plain("name", name)?,
            ("rows", _) => budget.rows = Some(number()?),
            ("bytes", _) => budget.bytes = Some(number()?),
            ("subjects", _) => subjects = Some(number()?),
            ("of", class) => of = Some(plain("of", class)?),
            ("per", "task") => budget.per = Per::Task,
            ("per", "session") => budget.per = Per::Session,
            ("window", _) => {
                budget.window = parse_ttl(value)
                    .map_err(|_| problem("`window` must be like `1h`, at most 7 days".to_owned()))?
            }
            _ => return Err(problem(format!("`{part}` is not understood"))),
        }
    }
    budget.subjects = match (subjects, of) {
        (None, None) => None,
        (Some(limit), Some(of)) if limit <= MAX_SUBJECTS => Some(Subjects { limit, of }),
        (Some(_), Some(_)) => return Err(problem(format!("`subjects` must be at most {MAX_SUBJECTS}"))),
        _ => {
            return Err(problem("`subjects` and `of` (the class of labelled fields) go together".to_owned()));
        }
    };
    if budget.name.is_empty() || (budget.rows, budget.bytes, &budget.subjects) == (None, None, &None) {
        return Err(problem("it needs a `name`, and `rows`, `bytes` or `subjects`".to_owned()));
    }
    Ok(budget)
}

/// `digest`, `output` or `all`.
fn content(value: &str) -> Result<Content, Problem> {
    match value {
        "digest" => Ok(Content::Digest),
        "output" => Ok(Content::Output),
        "all" => Ok(Content::All),
        _ => Err(Problem::new(
            format!("`@record`: `{value}` is not understood"),
            "write `digest` (lengths and hashes), `output` (what is released, as without it) or `all` (also what the client sends)",
        )),
    }
}

fn unknown_key(key: &str) -> Problem {
    let known = ["reviewers", "quorum", "ttl", "name"];
    let near = nearest(key, known).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    approval_problem(&format!("unknown key `{key}`{near}"))
}

fn parse_quorum(value: &str) -> Result<u32, Problem> {
    value.parse().ok().filter(|n| (1..=MAX_QUORUM).contains(n)).ok_or_else(|| {
        approval_problem(&format!("`quorum` must be a whole number from 1 to {MAX_QUORUM}, not `{value}`"))
    })
}

fn parse_ttl(value: &str) -> Result<Duration, Problem> {
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match value.get(digits.len()..) {
        Some("s") => Some(1),
        Some("m") => Some(60),
        Some("h") => Some(60 * 60),
        Some("d") => Some(24 * 60 * 60),
        _ => None,
    };
    let seconds = unit.zip(digits.parse::<u64>().ok()).and_then(|(unit, n)| n.checked_mul(unit));
    seconds.map(Duration::from_secs).filter(|ttl| !ttl.is_zero() && *ttl <= MAX_TTL).ok_or_else(|| {
        approval_problem(&format!(
            "`ttl` must be like `30s`, `15m`, `2h` or `1d`, at most 7 days, not `{value}`"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &str) -> (Annotations, Vec<Problem>) {
        Annotations::read(&Policy::parse(None, source).unwrap())
    }

    #[test]
    fn an_approval_has_defaults() {
        let (all, problems) = read("@approval(\"reviewers=dba\") forbid(principal, action, resource);");
        assert!(problems.is_empty());
        let approval = all.approval.unwrap();
        assert_eq!((approval.name.as_str(), approval.quorum, approval.ttl), ("dba", 1, DEFAULT_TTL));
    }

    #[test]
    fn an_approval_is_read_in_full() {
        let read = approval("reviewers = dba; quorum=2 ;ttl=2h; name=drops").unwrap();
        assert_eq!((read.name.as_str(), read.reviewers.as_str(), read.quorum), ("drops", "dba", 2));
        assert_eq!(read.ttl, Duration::from_secs(7200));
    }

    #[test]
    fn bad_approvals_say_what_is_wrong() {
        for (value, part) in [
            ("", "no reviewers"),
            ("quorum=2", "no reviewers"),
            ("reviewers", "has no value"),
            ("reviewers=a; reviewers=b", "given twice"),
            ("reviewers=a; quorum=0", "from 1 to"),
            ("reviewers=a; quorum=33", "from 1 to"),
            ("reviewers=a; ttl=0s", "`ttl` must be"),
            ("reviewers=a; ttl=8d", "`ttl` must be"),
            ("reviewers=a; ttl=99999999999999999999d", "`ttl` must be"),
            ("reviewers=a; ttl=5", "`ttl` must be"),
            ("reviewer=a", "did you mean `reviewers`?"),
        ] {
            let problem = approval(value).unwrap_err();
            assert!(problem.message.contains(part), "{value}: {}", problem.message);
        }
    }

    #[test]
    fn unknown_and_idle_annotations_are_refused() {
        let (_, problems) = read("@aproval(\"x\") @limit_rows(\"5\") forbid(principal, action, resource);");
        let all: Vec<_> = problems.iter().map(|p| format!("{} {}", p.message, p.help)).collect();
        assert!(all.iter().any(|p| p.contains("did you mean `@approval`?")), "{all:?}");
        assert!(all.iter().any(|p| p.contains("does nothing on a `forbid`")), "{all:?}");
    }

    #[test]
    fn budgets_are_read_in_full_or_refused() {
        let read = budget("name=a; rows=5; bytes=7; per=session; window=2h").unwrap();
        let window = Duration::from_secs(7200);
        let (rows, bytes) = (Some(5), Some(7));
        let subjects = None;
        assert_eq!(read, Budget { name: "a".to_owned(), per: Per::Session, rows, bytes, subjects, window });
        let subjects = Some(Subjects { limit: 9, of: "email".to_owned() });
        assert_eq!(budget("name=a; subjects=9; of=email").unwrap().subjects, subjects);
        assert_eq!(budget("name=a; rows=5").map(|b| (b.per, b.window)), Ok((Per::Task, DEFAULT_WINDOW)));
        for wrong in [
            "",
            "rows=5",
            "name=a",
            "name=a; rows=x",
            "name=a; rows=5; rows=6",
            "name=a; rows=5; per=day",
            "name=a; row=5",
            "name=a; subjects=5",
            "name=a; of=email",
            "name=a; of=email; rows=5",
            "name=a; of=email; subjects=9000000",
            "name=a; rows=5; window=9d",
        ] {
            assert!(budget(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_recorded_is_one_of_three_words() {
        let (rule, problems) = read("@record(\"all\") permit(principal, action, resource);");
        assert_eq!((rule.record, problems.len()), (Some(Content::All), 0));
        assert_eq!(content("digest"), Ok(Content::Digest));
        assert_eq!(content("output"), Ok(Content::Output));
        assert!(content("none").is_err());
        let (_, problems) = read("@record(\"all\") forbid(principal, action, resource);");
        assert!(problems[0].message.contains("does nothing on a `forbid`"));
    }

    #[test]
    fn permits_carry_no_approval() {
        let (_, problems) = read("@approval(\"reviewers=dba\") permit(principal, action, resource);");
        assert!(problems[0].message.contains("does nothing on a `permit`"));
    }
}
