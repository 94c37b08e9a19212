//! The obligations of permits, together.

use std::collections::{BTreeMap, BTreeSet};

use super::annotations::Annotations;
use crate::policy::{Content, Obligation};

/// Two rewrites that no statement can satisfy at once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contradiction(pub(super) String, pub(super) String);

/// The union of the duties of all determining permits: smallest caps and limits, all row predicates, the fullest recording.
pub(super) fn union<'a>(
    permits: impl Iterator<Item = &'a Annotations>,
) -> Result<Vec<Obligation>, Contradiction> {
    let mut rewrites: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut budgets = BTreeSet::new();
    let (mut rows, mut bytes, mut affected, mut content) = (None, None, None, None);
    for permit in permits {
        if let Some(rewrite) = &permit.rewrite {
            rewrites.entry(word(rewrite)).or_default().insert(rewrite);
        }
        rows = smaller(rows, permit.limit_rows);
        bytes = smaller(bytes, permit.limit_bytes);
        affected = smaller(affected, permit.max_rows_affected);
        budgets.extend(permit.budget.clone());
        // Who says nothing wants what is released.
        content = content.max(Some(permit.record.unwrap_or_default()));
    }
    let mut duties = Vec::new();
    for (word, texts) in rewrites {
        duties.extend(combine(word, &texts)?.into_iter().map(|text| Obligation::Rewrite(text.to_owned())));
    }
    duties.extend(rows.map(Obligation::LimitRows));
    duties.extend(bytes.map(Obligation::LimitBytes));
    duties.extend(affected.map(Obligation::LimitAffected));
    duties.extend(budgets.into_iter().map(Obligation::Budget));
    duties.extend(content.filter(|content| *content != Content::Output).map(Obligation::Record));
    Ok(duties)
}

/// Whether two rewrites exclude each other.
pub(super) fn contradict(a: &str, b: &str) -> bool {
    word(a) == word(b) && combine(word(a), &BTreeSet::from([a, b])).is_err()
}

/// `limit:N` takes the smallest, `where:...` takes all; any other word must be said the same way by everybody, `columns` and `null` for each
/// thing they name.
fn combine<'a>(word: &str, texts: &BTreeSet<&'a str>) -> Result<Vec<&'a str>, Contradiction> {
    let mut all = texts.iter().copied();
    match word {
        "where" => Ok(all.collect()),
        "limit" if texts.iter().all(|text| limit(text).is_some()) => {
            Ok(all.min_by_key(|text| limit(text)).into_iter().collect())
        }
        _ => match (all.next(), all.next()) {
            (Some(a), Some(b)) => Err(Contradiction(a.to_owned(), b.to_owned())),
            (only, _) => Ok(only.into_iter().collect()),
        },
    }
}

/// What is said: the first word, for `columns:T:...` and `null:T:...` with the thing they are said of.
fn word(rewrite: &str) -> &str {
    let Some((word, rest)) = rewrite.split_once(':') else { return rewrite.trim() };
    match (word.trim(), rest.split_once(':')) {
        ("columns" | "null", Some((of, _))) => {
            rewrite.get(..word.len() + 1 + of.len()).unwrap_or(word).trim()
        }
        (word, _) => word,
    }
}

fn limit(rewrite: &str) -> Option<u64> {
    rewrite.split_once(':')?.1.trim().parse().ok()
}

fn smaller(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewriting(text: &str) -> Annotations {
        Annotations { rewrite: Some(text.to_owned()), ..Annotations::default() }
    }

    #[test]
    fn the_smallest_caps_win_and_predicates_add_up() {
        let all = [
            Annotations { limit_rows: Some(10), limit_bytes: Some(7), ..rewriting("limit:1000") },
            Annotations { limit_rows: Some(5), max_rows_affected: Some(3), ..rewriting("limit: 500") },
            rewriting("null:a.b: c"),
            rewriting("null:a.d: c"),
            rewriting("where:a = 1"),
            rewriting("where:b = 2"),
            rewriting("read_only"),
            rewriting("read_only"),
        ];
        let rewrite = |text: &str| Obligation::Rewrite(text.to_owned());
        let expected = vec![
            rewrite("limit: 500"),
            rewrite("null:a.b: c"),
            rewrite("null:a.d: c"),
            rewrite("read_only"),
            rewrite("where:a = 1"),
            rewrite("where:b = 2"),
            Obligation::LimitRows(5),
            Obligation::LimitBytes(7),
            Obligation::LimitAffected(3),
        ];
        assert_eq!(union(all.iter()), Ok(expected));
    }

    #[test]
    fn other_rewrites_must_agree() {
        let all = [rewriting("role:a"), rewriting("role:b")];
        assert_eq!(union(all.iter()), Err(Contradiction("role:a".to_owned(), "role:b".to_owned())));
        assert!(contradict("null:a.b: c", "null:a.b: d") && !contradict("null:a.b: c", "columns:a.b: d"));
        assert!(contradict("role:a", "role:b") && contradict("limit:x", "limit:1"));
        assert!(!contradict("role:a", "read_only") && !contradict("limit:1", "limit:2"));
    }
}
