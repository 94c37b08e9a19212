//! From rules to one immutable program.

use regex_automata::util::primitives::StateID;
use regex_syntax::hir::Hir;
use regex_syntax::hir::literal::{ExtractKind, Extractor};

use super::automaton::{BuildFailure, CAP, Machine, Pairs};
use super::builtin::{self, BuiltIn, FAMILIES, Family};
use super::class::{DataClass, MAX_CLASSES};
use super::rule::{Rule, RuleError, RuleSet, Validator};
use super::tail::Tail;
use super::text::{LOOK_BEHIND, distinct};
use super::transform::Transform;
use super::trigger::{MAX_LITERAL, MAX_PACK, Pack};
use super::validate::{self, Candidate};

/// Largest automaton of one custom rule, in bytes: what some hundred states take.
pub const MAX_RULE_BYTES: usize = 64 * 1024;
/// Largest automata together, in bytes: they must share the processor's cache with everything else.
pub const MAX_TOTAL_BYTES: usize = 4 * 1024 * 1024;
/// Most rules, built-in ones included.
pub const MAX_RULES: usize = 512;

/// What must stand before a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    Any,
    Word,
    /// A word boundary, if the candidate begins with a word byte.
    WordIfWord,
    /// At least one byte of an e-mail name, which belongs to the span.
    LocalPart,
    Address,
}

/// Patterns with one automaton.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) machine: Machine,
    pub(super) rules: Vec<u16>,
    pub(super) left: Left,
    /// Longest way from a candidate to the byte that decides it, in bytes.
    pub(super) reach: usize,
}

/// A compiled rule.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) class: u16,
    pub(super) check: Check,
    pub(super) tail: Tail,
    pub(super) lookahead: usize,
    /// May match more than [`CAP`] bytes by its own pattern.
    pub(super) open_ended: bool,
}

#[derive(Debug)]
pub(super) enum Check {
    BuiltIn(builtin::Check),
    Custom(CustomCheck),
}

/// The conditions of a custom rule beside its pattern.
#[derive(Debug)]
pub(super) struct CustomCheck {
    validator: Option<Validator>,
    keyword: Option<Vec<u8>>,
}

impl CustomCheck {
    pub(super) fn accepts(&self, candidate: &Candidate<'_>) -> bool {
        let valid = match self.validator {
            None => true,
            Some(Validator::Luhn) => validate::luhn(candidate.bytes()),
            Some(Validator::Mod97) => validate::mod_97(candidate.bytes()),
            Some(Validator::Distinct(least)) => distinct(candidate.bytes()) >= usize::from(least),
        };
        valid && self.keyword.as_ref().is_none_or(|keyword| keyword_before(keyword, candidate))
    }
}

fn keyword_before(keyword: &[u8], candidate: &Candidate<'_>) -> bool {
    let start = candidate.range.start;
    let from = candidate.low.max(start.saturating_sub(LOOK_BEHIND));
    let before = candidate.text.get(from..start).unwrap_or_default();
    before.windows(keyword.len()).any(|window| window.eq_ignore_ascii_case(keyword))
}

/// Everything a scan needs, shared by all sessions.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) classes: Vec<DataClass>,
    pub(super) transforms: Vec<Transform>,
    pub(super) rules: Vec<Compiled>,
    pub(super) groups: Vec<Group>,
    pub(super) packs: Vec<Pack>,
    families: Vec<(Family, usize)>,
    built_in_packs: usize,
    literal_groups: Vec<usize>,
    word_groups: Vec<usize>,
    /// How any match begins, and how one longer than [`NEAR`] begins.
    near: Pairs,
    far: Pairs,
}

/// Matches up to this many bytes long are short: numbers and addresses.
const NEAR: usize = 64;

impl Program {
    pub(super) fn new(set: RuleSet) -> Result<Self, RuleError> {
        let mut builder = Builder::default();
        builder.known();
        if set.built_in {
            builder.built_in(&set.without)?;
        }
        set.rules.iter().try_for_each(|rule| builder.custom(rule))?;
        builder.finish(set.transforms)
    }

    pub(super) fn class(&self, rule: u16) -> u16 {
        self.rules.get(usize::from(rule)).map_or(0, |rule| rule.class)
    }

    pub(super) fn transform(&self, rule: u16) -> Transform {
        self.transforms.get(usize::from(self.class(rule))).copied().unwrap_or(Transform::Redact)
    }

    /// Whether the rule's values may go on without limit.
    pub(super) fn swallows(&self, rule: u16) -> bool {
        self.rules
            .get(usize::from(rule))
            .is_some_and(|rule| rule.open_ended || !matches!(rule.tail, Tail::None))
    }

    pub(super) fn family(&self, family: Family) -> Option<usize> {
        self.families.iter().find(|(f, _)| *f == family).map(|(_, group)| *group)
    }

    pub(super) fn has_shapes(&self) -> bool {
        [Family::Digits, Family::Account, Family::Email, Family::Address]
            .iter()
            .any(|f| self.family(*f).is_some())
    }

    /// The groups to try where a literal of `pack` was found.
    pub(super) fn pack_groups(&self, pack: usize) -> impl Iterator<Item = usize> {
        let built_in = pack < self.built_in_packs;
        let own = [Family::Tokens, Family::Anywhere]
            .into_iter()
            .filter(move |_| built_in)
            .filter_map(|f| self.family(f));
        own.chain(self.literal_groups.iter().copied().filter(move |_| !built_in))
    }

    pub(super) fn word_groups(&self) -> impl Iterator<Item = usize> {
        self.word_groups.iter().copied()
    }

    /// Whether a group that reaches `distance` bytes far can begin with `pair`.
    pub(super) fn may_hold(&self, pair: (u8, Option<u8>), distance: usize) -> bool {
        let table = if distance > NEAR { &self.far } else { &self.near };
        table.allows(pair)
    }

    pub(super) fn begins(&self, group: usize, byte: u8) -> bool {
        self.groups.get(group).is_some_and(|group| group.machine.begins_with(byte))
    }

    pub(super) fn follow(&self, group: usize, state: StateID, byte: u8) -> Option<StateID> {
        self.groups.get(group)?.machine.follow(state, byte)
    }
}

#[derive(Debug, Default)]
struct Builder {
    classes: Vec<DataClass>,
    rules: Vec<Compiled>,
    groups: Vec<Group>,
    packs: Vec<Pack>,
    families: Vec<(Family, usize)>,
    built_in_packs: usize,
    literal_groups: Vec<usize>,
    word_groups: Vec<usize>,
    literals: Vec<Vec<u8>>,
    bytes: usize,
}

impl Builder {
    fn known(&mut self) {
        self.classes.push(DataClass::INJECTED_CREDENTIAL);
        let check = Check::Custom(CustomCheck { validator: None, keyword: None });
        self.rules.push(Compiled { class: 0, check, tail: Tail::None, lookahead: 0, open_ended: false });
    }

    fn built_in(&mut self, without: &[DataClass]) -> Result<(), RuleError> {
        let rules: Vec<BuiltIn> =
            builtin::rules().into_iter().filter(|rule| !without.contains(&rule.class)).collect();
        for family in FAMILIES {
            let members: Vec<&BuiltIn> = rules.iter().filter(|rule| rule.family == *family).collect();
            if !members.is_empty() {
                self.family(*family, &members)?;
            }
        }
        self.packs.extend(builtin::LITERALS.iter().filter_map(|literals| Pack::new(literals)));
        self.built_in_packs = self.packs.len();
        Ok(())
    }

    fn family(&mut self, family: Family, members: &[&BuiltIn]) -> Result<(), RuleError> {
        let patterns: Vec<&str> = members.iter().map(|rule| rule.pattern).collect();
        let name = members.first().map(|rule| rule.class.name()).unwrap_or_default();
        let machine = self.machine(name, &patterns, MAX_TOTAL_BYTES)?;
        let mut numbers = Vec::new();
        for rule in members {
            let class = self.class(&rule.class)?;
            let check = Check::BuiltIn(rule.check);
            numbers.push(self.rule(Compiled {
                class,
                check,
                tail: rule.tail,
                lookahead: rule.lookahead,
                open_ended: false,
            })?);
        }
        let left = match family {
            Family::Digits | Family::Account | Family::Tokens => Left::Word,
            Family::Email => Left::LocalPart,
            Family::Address => Left::Address,
            Family::Anywhere => Left::Any,
        };
        self.families.push((family, self.groups.len()));
        let reach = patterns.iter().map(|pattern| longest(pattern)).max().unwrap_or(CAP) + LOOK_BEHIND / 4;
        self.groups.push(Group { machine, rules: numbers, left, reach });
        Ok(())
    }

    fn custom(&mut self, rule: &Rule) -> Result<(), RuleError> {
        let hir = regex_syntax::ParserBuilder::new()
            .unicode(false)
            .utf8(false)
            .build()
            .parse(&rule.pattern)
            .map_err(|e| RuleError::Pattern { rule: rule.name.clone(), reason: reason(&e) })?;
        let shortest = hir.properties().minimum_len().unwrap_or(0);
        if shortest == 0 {
            return Err(RuleError::MatchesEmpty(rule.name.clone()));
        }
        if shortest >= CAP {
            return Err(RuleError::TooLong(rule.name.clone()));
        }
        let check = Check::Custom(custom_check(rule)?);
        let machine = self.machine(&rule.name, &[&rule.pattern], MAX_RULE_BYTES)?;
        let class = self.class(&rule.class)?;
        let open_ended = hir.properties().maximum_len().is_none_or(|most| most >= CAP);
        let lookahead = super::transform::TAG_LOOKAHEAD;
        let number = self.rule(Compiled { class, check, tail: Tail::None, lookahead, open_ended })?;
        let left = self.trigger(&hir);
        self.groups.push(Group { machine, rules: vec![number], left, reach: CAP + LOOK_BEHIND });
        Ok(())
    }

    /// Finds what triggers a pattern: literals if it begins with some, else word starts.
    fn trigger(&mut self, hir: &Hir) -> Left {
        let mut extractor = Extractor::new();
        extractor.kind(ExtractKind::Prefix).limit_total(MAX_PACK);
        let mut found = extractor.extract(hir);
        found.keep_first_bytes(MAX_LITERAL);
        let long = found.min_literal_len().is_some_and(|least| least >= 3);
        match found.literals().filter(|_| long) {
            Some(literals) => {
                self.literals.extend(literals.iter().map(|l| l.as_bytes().to_ascii_lowercase()));
                self.literal_groups.push(self.groups.len());
                Left::Any
            }
            None => {
                self.word_groups.push(self.groups.len());
                Left::WordIfWord
            }
        }
    }

    fn machine(&mut self, name: &str, patterns: &[&str], limit: usize) -> Result<Machine, RuleError> {
        let machine = Machine::new(patterns, limit).map_err(|failure| match failure {
            BuildFailure::TooLarge => RuleError::TooLarge(name.to_owned()),
            BuildFailure::Unsupported(reason) => RuleError::Pattern { rule: name.to_owned(), reason },
        })?;
        self.bytes += machine.size();
        if self.bytes > MAX_TOTAL_BYTES {
            return Err(RuleError::TotalTooLarge(name.to_owned()));
        }
        Ok(machine)
    }

    fn class(&mut self, class: &DataClass) -> Result<u16, RuleError> {
        let index = self.classes.iter().position(|c| c == class).unwrap_or(self.classes.len());
        if index == self.classes.len() {
            self.classes.push(class.clone());
        }
        u16::try_from(index).ok().filter(|_| index < MAX_CLASSES).ok_or(RuleError::TooMany(MAX_CLASSES))
    }

    fn rule(&mut self, rule: Compiled) -> Result<u16, RuleError> {
        let number = u16::try_from(self.rules.len()).ok().filter(|n| usize::from(*n) < MAX_RULES);
        self.rules.push(rule);
        number.ok_or(RuleError::TooMany(MAX_RULES))
    }

    fn finish(mut self, changes: Vec<(DataClass, Transform)>) -> Result<Program, RuleError> {
        self.literals.sort();
        self.literals.dedup();
        self.packs.extend(self.literals.chunks(MAX_PACK).filter_map(Pack::new));
        let mut transforms: Vec<Transform> = self.classes.iter().map(DataClass::default_transform).collect();
        for (class, transform) in changes {
            if !transform.fits_content() {
                return Err(RuleError::KeyedTransform(class));
            }
            self.classes
                .iter()
                .zip(&mut transforms)
                .filter(|(c, _)| **c == class)
                .for_each(|(_, t)| *t = transform);
        }
        let (mut near, mut far) = (Pairs::default(), Pairs::default());
        for group in &self.groups {
            near.add(group.machine.pairs());
            if group.reach > NEAR {
                far.add(group.machine.pairs());
            }
        }
        Ok(Program {
            near,
            far,
            classes: self.classes,
            transforms,
            rules: self.rules,
            groups: self.groups,
            packs: self.packs,
            families: self.families,
            built_in_packs: self.built_in_packs,
            literal_groups: self.literal_groups,
            word_groups: self.word_groups,
        })
    }
}

/// Longest match of a pattern, in bytes.
fn longest(pattern: &str) -> usize {
    let parsed = regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build().parse(pattern);
    parsed.ok().and_then(|hir| hir.properties().maximum_len()).unwrap_or(CAP)
}

fn custom_check(rule: &Rule) -> Result<CustomCheck, RuleError> {
    let keyword = rule.keyword.as_ref().map(|keyword| keyword.to_ascii_lowercase().into_bytes());
    if keyword.as_ref().is_some_and(|k| k.is_empty() || k.len() > LOOK_BEHIND / 2) {
        return Err(RuleError::Keyword(rule.name.clone()));
    }
    Ok(CustomCheck { validator: rule.validator, keyword })
}

fn reason(error: &regex_syntax::Error) -> String {
    match error {
        regex_syntax::Error::Parse(e) => e.kind().to_string(),
        regex_syntax::Error::Translate(e) => e.kind().to_string(),
        _ => "the pattern does not parse".to_owned(),
    }
}
