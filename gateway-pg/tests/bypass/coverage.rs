//! What the attacks cover: classes, and the catalogue of known ways past a gateway in `ways.toml`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::trial::{Attack, Outcome};

/// Variants that every class and every way needs: one or two could be held by chance.
const VARIANTS: usize = 3;

/// The classes of this adapter: 1 to 12 hide what a statement does, 13 to 21 get values past the mask.
const CLASSES: std::ops::RangeInclusive<u8> = 1..=21;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalogue {
    way: Vec<Way>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Way {
    number: u8,
    text: String,
}

/// How many were tried and held.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    tried: usize,
    held: usize,
}

/// Prints how often each class and way was tried and held. Returns how many of them have too few variants.
pub fn report(outcomes: &[(Attack, Outcome)]) -> usize {
    let catalogue: Catalogue = toml::from_str(include_str!("ways.toml")).unwrap();
    let mut classes: BTreeMap<u8, Count> = CLASSES.map(|class| (class, Count::default())).collect();
    let mut ways: BTreeMap<u8, Count> = catalogue.way.iter().map(|w| (w.number, Count::default())).collect();
    for (attack, outcome) in outcomes {
        count(classes.entry(attack.class).or_default(), outcome);
        for way in &attack.ways {
            count(ways.get_mut(way).expect("a case names a way of the catalogue"), outcome);
        }
    }
    let line = |what: String, Count { tried, held }: Count| {
        let few = if tried < VARIANTS { "  TOO FEW" } else { "" };
        println!("tried {tried:3}, held {held:3}  {what}{few}");
        usize::from(tried < VARIANTS)
    };
    let thin: usize = classes.iter().map(|(class, n)| line(format!("class {class}"), *n)).sum();
    let way = |w: &Way| line(format!("way {}: {}", w.number, w.text), ways[&w.number]);
    thin + catalogue.way.iter().map(way).sum::<usize>()
}

fn count(count: &mut Count, outcome: &Outcome) {
    count.tried += 1;
    count.held += usize::from(matches!(outcome, Outcome::Held));
}
