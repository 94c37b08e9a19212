//! How many attacks there are of each class and technique, and how many were held.

use std::collections::BTreeSet;

use crate::case::{CLASSES, Technique, techniques};
use crate::trial::{Attack, Outcome};

/// Variants of everything, at least: one alone is stopped by luck.
const VARIANTS: usize = 3;

/// Which attacks are variants of what.
pub struct Coverage {
    groups: Vec<Group>,
    /// Numbers that cases name and the list does not.
    unknown: BTreeSet<u8>,
}

struct Group {
    name: String,
    attacks: BTreeSet<String>,
}

impl Coverage {
    pub fn of(attacks: &[Attack]) -> Self {
        let list = techniques();
        let group = |name: String, belongs: &dyn Fn(&Attack) -> bool| Group {
            name,
            attacks: attacks.iter().filter(|a| belongs(a)).map(|a| a.name.clone()).collect(),
        };
        let classes = CLASSES.iter().map(|class| group(format!("class {class}"), &|a| a.class == *class));
        let each = |t: &Technique| {
            group(format!("technique {:02}, {}", t.number, t.name), &|a| a.techniques.contains(&t.number))
        };
        let groups = classes.chain(list.iter().map(each)).collect();
        let known: BTreeSet<u8> = list.iter().map(|t| t.number).collect();
        let named: BTreeSet<u8> = attacks.iter().flat_map(|a| a.techniques.iter().copied()).collect();
        Self { groups, unknown: named.difference(&known).copied().collect() }
    }

    /// Prints what was tried and held of each; whether there is enough of all.
    pub fn report(&self, outcomes: &[(String, Outcome)]) -> bool {
        let held: BTreeSet<&String> =
            outcomes.iter().filter(|(_, o)| matches!(o, Outcome::Held)).map(|(name, _)| name).collect();
        for Group { name, attacks } in &self.groups {
            let (tried, held) = (attacks.len(), attacks.iter().filter(|a| held.contains(a)).count());
            let few = if tried < VARIANTS { "  TOO FEW" } else { "" };
            println!("{name}: tried {tried}, held {held}{few}");
        }
        for number in &self.unknown {
            println!("technique {number} is not in the list");
        }
        self.unknown.is_empty() && self.groups.iter().all(|group| group.attacks.len() >= VARIANTS)
    }
}
