//! Accesses and facts as recordings and lists may show them: an agent can write a card number as a name, and a password as an argument.

use std::sync::Arc;

use crate::masking::{ClassSet, Scanner};
use crate::operation::{Access, Facts, reworded};
use crate::place::ByPlace;

/// Lists remembered for one session. 64: about as many statements as an application repeats, and little memory.
const MAX_REMEMBERED: usize = 64;

/// Sensitive spans of one statement that are looked for in its facts. 64: more are a document, whose texts are all withheld.
const MAX_SPANS: usize = 64;

/// What stands for a text, or a part of one, that the statement showed to be sensitive.
const WITHHELD: &str = "[REDACTED]";

/// What was masked lately.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    accesses: Remembered<[Access]>,
    facts: Remembered<Facts>,
}

/// Shared values and their masked forms, by where a value lies. The value is kept with it, so that nothing else can come to lie there.
#[derive(Debug)]
struct Remembered<T: ?Sized>(ByPlace<usize, (Arc<T>, Arc<T>)>);

impl<T: ?Sized> Default for Remembered<T> {
    fn default() -> Self {
        Self(ByPlace::default())
    }
}

impl<T: ?Sized> Remembered<T> {
    fn of(&mut self, value: &Arc<T>, mask: impl FnOnce(&Arc<T>) -> Arc<T>) -> Arc<T> {
        let place = Arc::as_ptr(value).cast::<()>().addr();
        if let Some((known, masked)) = self.0.get(&place)
            && Arc::ptr_eq(known, value)
        {
            return Arc::clone(masked);
        }
        let masked = mask(value);
        if self.0.len() >= MAX_REMEMBERED {
            self.0.clear();
        }
        self.0.insert(place, (Arc::clone(value), Arc::clone(&masked)));
        masked
    }
}

impl Recorded {
    /// The accesses with sensitive content in their names and facts masked.
    pub(super) fn accesses(&mut self, accesses: &Arc<[Access]>, scanner: &Scanner) -> Arc<[Access]> {
        self.accesses.of(accesses, |accesses| mask_accesses(accesses, scanner))
    }

    /// The facts of a statement with sensitive content masked. What is sensitive only where it stands in the statement, such as the
    /// value behind `PASSWORD=`, is masked where it stands alone, too.
    pub(super) fn facts(&mut self, facts: &Arc<Facts>, statement: &[u8], scanner: &Scanner) -> Arc<Facts> {
        if facts.is_empty() {
            return Arc::clone(facts);
        }
        self.facts.of(facts, |facts| {
            let spans = sensitive(statement, scanner);
            reworded(facts, |text| withhold(text, &spans).or_else(|| mask(text, scanner))).into()
        })
    }
}

/// The sensitive parts of a statement.
fn sensitive(statement: &[u8], scanner: &Scanner) -> Vec<String> {
    let mut findings = Vec::new();
    scanner.find(statement, &ClassSet::default(), &mut findings);
    let span = |range| String::from_utf8_lossy(statement.get(range).unwrap_or_default()).into_owned();
    findings.into_iter().map(|finding| span(finding.range)).collect()
}

fn withhold(text: &str, spans: &[String]) -> Option<String> {
    if spans.len() > MAX_SPANS {
        return Some(WITHHELD.to_owned());
    }
    let present: Vec<_> = spans.iter().filter(|span| !span.is_empty() && text.contains(*span)).collect();
    let replaced = present.iter().fold(text.to_owned(), |text, span| text.replace(*span, WITHHELD));
    (!present.is_empty()).then_some(replaced)
}

fn mask_accesses(accesses: &Arc<[Access]>, scanner: &Scanner) -> Arc<[Access]> {
    let renamed = |a: &Access| Access::new(a.action.clone(), a.resource.renamed(|name| mask(name, scanner)));
    let masked: Arc<[Access]> = accesses.iter().map(renamed).collect();
    if masked == *accesses { Arc::clone(accesses) } else { masked }
}

fn mask(text: &str, scanner: &Scanner) -> Option<String> {
    let masked = scanner.mask(text.as_bytes(), &ClassSet::default())?;
    Some(String::from_utf8_lossy(&masked.text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::masking::RuleSet;
    use crate::operation::{Action, Fact, Resource};

    const CARD: &str = "4111111111111111";

    fn scanner() -> Scanner {
        Scanner::new(RuleSet::builtin()).unwrap()
    }

    #[test]
    fn what_is_remembered_is_what_would_be_masked_anew() {
        let scanner = scanner();
        let mut recorded = Recorded::default();
        for round in 0..3 * MAX_REMEMBERED {
            let name = if round % 2 == 0 { CARD.to_owned() } else { format!("t{round}") };
            let table = Resource::target("shop").child("Table", name);
            let accesses: Arc<[Access]> = [Access::new(Action::new("select"), table)].into();
            let first = recorded.accesses(&accesses, &scanner);
            assert_eq!(first, mask_accesses(&accesses, &scanner));
            assert!(Arc::ptr_eq(&first, &recorded.accesses(&accesses, &scanner)));
            assert_eq!(first == accesses, round % 2 == 1);
        }
        assert!(recorded.accesses.0.len() <= MAX_REMEMBERED);
    }

    #[test]
    fn what_the_statement_shows_to_be_sensitive_is_masked_in_its_facts() {
        let facts: Facts =
            [("value".into(), Fact::from("hunter2hunter2")), ("name".into(), Fact::from("x"))].into();
        let shown = Recorded::default().facts(&facts.into(), b"PGPASSWORD=hunter2hunter2", &scanner());
        assert_eq!(shown.get("value"), Some(&Fact::from(WITHHELD)));
        assert_eq!(shown.get("name"), Some(&Fact::from("x")));
    }

    #[test]
    fn texts_in_facts_are_masked_wherever_they_stand() {
        let scanner = scanner();
        let path = format!("/data/{CARD}.csv");
        let facts: Facts = [
            ("command".into(), Fact::from("mysql --password=hunter2hunter2")),
            ("reads".into(), Fact::from_iter([path.clone(), "/etc/hosts".to_owned()])),
            ("bytes".into(), Fact::from(4711)),
        ]
        .into();
        let shown = format!("{:?}", Recorded::default().facts(&facts.into(), b"", &scanner));
        assert!(!shown.contains("hunter2") && !shown.contains(CARD), "{shown}");
        assert!(shown.contains("/etc/hosts") && shown.contains("4711"), "{shown}");
        let file = Resource::target("host").child("File", "x").with("path", path);
        let accesses: Arc<[Access]> = [Access::new(Action::new("read"), file)].into();
        assert!(!format!("{:?}", Recorded::default().accesses(&accesses, &scanner)).contains(CARD));
    }
}
