//! Accesses as recordings and lists may show them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::masking::{ClassSet, Scanner};
use crate::operation::Access;

/// Lists of accesses remembered for one session. 64: about as many statements as an application repeats, and little memory.
const MAX_REMEMBERED: usize = 64;

/// The masked forms of lists of accesses, by where a list lies. The list is kept with it, so that nothing else can come to lie there.
#[derive(Debug, Default)]
pub(super) struct Recorded(HashMap<usize, Pair>);

/// A list and its masked form.
type Pair = (Arc<[Access]>, Arc<[Access]>);

impl Recorded {
    /// The list with sensitive content in its names masked: an agent can write a card number as a name.
    pub(super) fn of(&mut self, accesses: &Arc<[Access]>, scanner: &Scanner) -> Arc<[Access]> {
        let place = Arc::as_ptr(accesses).cast::<Access>().addr();
        if let Some((known, masked)) = self.0.get(&place)
            && Arc::ptr_eq(known, accesses)
        {
            return Arc::clone(masked);
        }
        let masked = mask(accesses, scanner);
        if self.0.len() >= MAX_REMEMBERED {
            self.0.clear();
        }
        self.0.insert(place, (Arc::clone(accesses), Arc::clone(&masked)));
        masked
    }
}

fn mask(accesses: &Arc<[Access]>, scanner: &Scanner) -> Arc<[Access]> {
    let mask = |name: &str| {
        let masked = scanner.mask(name.as_bytes(), &ClassSet::default())?;
        Some(String::from_utf8_lossy(&masked.text).into_owned())
    };
    let masked: Arc<[Access]> =
        accesses.iter().map(|a| Access::new(a.action.clone(), a.resource.renamed(mask))).collect();
    if masked == *accesses { Arc::clone(accesses) } else { masked }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::masking::RuleSet;
    use crate::operation::{Action, Resource};

    #[test]
    fn what_is_remembered_is_what_would_be_masked_anew() {
        let scanner = Scanner::new(RuleSet::builtin()).unwrap();
        let mut recorded = Recorded::default();
        for round in 0..3 * MAX_REMEMBERED {
            let name = if round % 2 == 0 { "4111111111111111".to_owned() } else { format!("t{round}") };
            let table = Resource::target("shop").child("Table", name);
            let accesses: Arc<[Access]> = [Access::new(Action::new("select"), table)].into();
            let first = recorded.of(&accesses, &scanner);
            assert_eq!(first, mask(&accesses, &scanner));
            assert!(Arc::ptr_eq(&first, &recorded.of(&accesses, &scanner)));
            assert_eq!(first == accesses, round % 2 == 1);
        }
        assert!(recorded.0.len() <= MAX_REMEMBERED);
    }
}
