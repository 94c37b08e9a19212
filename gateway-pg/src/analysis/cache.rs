//! Analyses of texts seen before.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::model::Analysis;
use super::variants::{Form, observe};
use super::{AnalysisError, LexSettings, Limits, analyse_scanned};

/// Upper bounds of an [`AnalysisCache`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// Texts kept. Default 4,096: an application has hundreds of distinct statements.
    pub entries: usize,
    /// Bytes of texts and analyses together, estimated. Default 32 MiB.
    pub bytes: usize,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self { entries: 4096, bytes: 32 << 20 }
    }
}

/// A bounded map from text and lexing settings to analysis, shared by sessions.
///
/// Of statements that read or change rows, texts that differ in plain integers only share one analysis if nothing in it depends on
/// their values; all others are known by their exact text. A hit hashes the text, compares it and clones an `Arc`. Names are not
/// resolved in an analysis, so a change of search_path, role or catalog does not outdate it. Errors are not kept. Entries not
/// hit since the last round go first (second chance).
#[derive(Debug)]
pub struct AnalysisCache {
    /// Keyed per process, so that an agent cannot choose texts that collide.
    hasher: RandomState,
    limits: Limits,
    shards: Vec<Mutex<Shard>>,
}

/// Shards: sessions seldom wait for each other, and a power of two picks one by mask.
const SHARDS: usize = 16;

#[derive(Debug)]
struct Shard {
    limits: CacheLimits,
    entries: HashMap<u64, Entry>,
    /// Hashes in the order they will be considered for eviction.
    order: VecDeque<u64>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    text: Box<[u8]>,
    settings: LexSettings,
    analysis: Arc<Analysis>,
    /// For a form of many texts: what stands before and after its statement, in bytes. No integer is taken out there.
    margins: Option<(usize, usize)>,
    bytes: usize,
    hit: bool,
}

/// The analysis of a text.
#[derive(Debug, Clone)]
pub struct Understood {
    /// What it says. Ranges in it may be those of another text: see [`range`](Self::range).
    pub analysis: Arc<Analysis>,
    /// Where the only statement stands in this text, if the analysis is shared with texts of other integers.
    only: Option<Range<usize>>,
}

impl Understood {
    /// Where the statement at `index` stands in the text.
    #[must_use]
    pub fn range(&self, index: usize) -> Option<Range<usize>> {
        let statement = self.analysis.statements.get(index)?;
        Some(self.only.clone().unwrap_or_else(|| statement.range.clone()))
    }

    /// A copy of the analysis with the ranges of this text: what [`analyse`](super::analyse) says of it.
    #[must_use]
    pub fn to_analysis(&self) -> Analysis {
        let mut analysis = Analysis::clone(&self.analysis);
        if let (Some(only), [statement]) = (&self.only, analysis.statements.as_mut_slice()) {
            statement.range = only.clone();
        }
        analysis
    }
}

#[derive(Debug)]
struct Known {
    analysis: Arc<Analysis>,
    margins: Option<(usize, usize)>,
}

impl Known {
    fn understood(self, text: &[u8]) -> Understood {
        let only = self.margins.map(|(before, after)| before..text.len().saturating_sub(after));
        Understood { analysis: self.analysis, only }
    }
}

/// Statements whose texts commonly hold values: one that reads or changes rows.
const WITH_VALUES: [&str; 5] = ["select", "insert", "update", "delete", "merge"];

/// What stands before and after the only statement of a text, if it is of a kind that comes with many values.
fn margins(text: &[u8], analysis: &Analysis) -> Option<(usize, usize)> {
    let [only] = analysis.statements.as_slice() else { return None };
    let after = text.len().checked_sub(only.range.end)?;
    WITH_VALUES.contains(&&*only.kind).then_some((only.range.start, after))
}

impl AnalysisCache {
    /// A cache for texts within `limits`.
    #[must_use]
    pub fn new(cache: CacheLimits, limits: Limits) -> Self {
        let shard =
            CacheLimits { entries: cache.entries.div_ceil(SHARDS), bytes: cache.bytes.div_ceil(SHARDS) };
        let shards = (0..SHARDS).map(|_| Mutex::new(Shard::new(shard))).collect();
        Self { hasher: RandomState::new(), limits, shards }
    }

    /// The analysis of a text, from the cache or made now. The lock is not held while it is made.
    ///
    /// # Errors
    /// As [`analyse`](super::analyse), and for text that is not UTF-8.
    pub fn analyse(&self, text: &[u8], settings: &LexSettings) -> Result<Understood, AnalysisError> {
        if text.len() > self.limits.statement_bytes {
            return Err(AnalysisError::TooLong { bytes: text.len(), limit: self.limits.statement_bytes });
        }
        if let Some(known) = self.get(text, settings, false) {
            return Ok(known.understood(text));
        }
        let read = std::str::from_utf8(text)
            .map_err(|error| AnalysisError::NotUtf8 { offset: error.valid_up_to() })?;
        let form = Form::of(read, settings, &self.limits)?;
        if form.varies()
            && let Some(known) = self.get(&form.key, settings, true)
        {
            return Ok(known.understood(text));
        }
        let (analysis, met) = observe(|| analyse_scanned(read, settings));
        let analysis = Arc::new(analysis?);
        let margins = margins(text, &analysis).filter(|_| form.varies() && form.holds_for_all(&met));
        let key = if margins.is_some() { &form.key } else { text };
        let known = Known { analysis, margins };
        self.insert(key, settings, &known);
        Ok(known.understood(text))
    }

    fn hash(&self, key: &[u8], settings: &LexSettings, form: bool) -> u64 {
        self.hasher.hash_one((key, settings, form))
    }

    fn get(&self, key: &[u8], settings: &LexSettings, form: bool) -> Option<Known> {
        let hash = self.hash(key, settings, form);
        self.shard(hash)?.get(hash, key, settings, form)
    }

    fn insert(&self, key: &[u8], settings: &LexSettings, known: &Known) {
        let hash = self.hash(key, settings, known.margins.is_some());
        if let Some(mut shard) = self.shard(hash) {
            shard.insert(hash, key, settings, known);
        }
    }

    /// Number of texts kept.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).entries.len())
            .sum()
    }

    /// Bytes kept, estimated.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).bytes).sum()
    }

    fn shard(&self, hash: u64) -> Option<MutexGuard<'_, Shard>> {
        // The top bits pick the shard: the map inside uses its own hash of the whole.
        let index = usize::try_from(hash >> 60).ok()? % SHARDS;
        Some(self.shards.get(index)?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Default for AnalysisCache {
    fn default() -> Self {
        Self::new(CacheLimits::default(), Limits::default())
    }
}

impl Shard {
    fn new(limits: CacheLimits) -> Self {
        Self { limits, entries: HashMap::new(), order: VecDeque::new(), bytes: 0 }
    }

    fn get(&mut self, hash: u64, text: &[u8], settings: &LexSettings, form: bool) -> Option<Known> {
        let entry = self.entries.get_mut(&hash)?;
        if *entry.text != *text || entry.settings != *settings || entry.margins.is_some() != form {
            return None;
        }
        entry.hit = true;
        Some(Known { analysis: Arc::clone(&entry.analysis), margins: entry.margins })
    }

    fn insert(&mut self, hash: u64, text: &[u8], settings: &LexSettings, known: &Known) {
        let bytes = text.len() + size_of::<Entry>() + known.analysis.heap_bytes();
        if bytes > self.limits.bytes || self.entries.contains_key(&hash) {
            // Too big to keep; or another session was faster; or a collision, which costs a parse and nothing else.
            return;
        }
        while self.entries.len() >= self.limits.entries.max(1) || self.bytes + bytes > self.limits.bytes {
            if !self.evict() {
                return;
            }
        }
        let entry = Entry {
            text: text.into(),
            settings: *settings,
            analysis: Arc::clone(&known.analysis),
            margins: known.margins,
            bytes,
            hit: false,
        };
        self.entries.insert(hash, entry);
        self.order.push_back(hash);
        self.bytes += bytes;
    }

    /// Drops the first entry that was not hit since it was last considered.
    fn evict(&mut self) -> bool {
        while let Some(hash) = self.order.pop_front() {
            match self.entries.get_mut(&hash) {
                Some(entry) if entry.hit => {
                    entry.hit = false;
                    self.order.push_back(hash);
                }
                Some(entry) => {
                    self.bytes -= entry.bytes;
                    self.entries.remove(&hash);
                    return true;
                }
                None => {}
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_share_one_analysis_and_settings_keep_apart() {
        let cache = AnalysisCache::default();
        let on = LexSettings::default();
        let off = LexSettings { standard_conforming_strings: false, ..on };
        let of = |text: &str, settings: &LexSettings| {
            cache.analyse(text.as_bytes(), settings).expect("analyse").analysis
        };
        let first = of("select 'a'", &on);
        assert!(Arc::ptr_eq(&first, &of("select 'a'", &on)));
        assert!(!Arc::ptr_eq(&first, &of("select 'a'", &off)));
        assert!(!Arc::ptr_eq(&first, &of("select 'a' ", &on)));
        assert_eq!(cache.entries(), 3);
        assert!(cache.analyse(b"selec", &on).is_err());
        assert!(cache.analyse(b"select '\xff'", &on).is_err());
        assert_eq!(cache.entries(), 3);
    }

    #[test]
    fn bounds_hold_and_what_is_hit_stays() {
        let limits = CacheLimits { entries: 64, bytes: 1 << 20 };
        let cache = AnalysisCache::new(limits, Limits::default());
        let of =
            |text: &str| cache.analyse(text.as_bytes(), &LexSettings::default()).expect("analyse").analysis;
        let hot = of("select hot");
        for number in 0..1000 {
            let text = format!("select {number} from t{number}");
            of(&text);
            assert!(Arc::ptr_eq(&hot, &of("select hot")), "{number}");
        }
        assert!(cache.entries() <= 64);
        assert!(cache.bytes() <= 1 << 20);
    }

    #[test]
    fn a_collision_is_a_miss() {
        let mut shard = Shard::new(CacheLimits::default());
        let known = Known { analysis: Arc::new(Analysis::default()), margins: None };
        shard.insert(7, b"a", &LexSettings::default(), &known);
        assert!(shard.get(7, b"b", &LexSettings::default(), false).is_none());
        assert!(shard.get(7, b"a", &LexSettings::default(), true).is_none());
        assert!(shard.get(7, b"a", &LexSettings::default(), false).is_some());
    }

    #[test]
    fn bytes_are_bounded_too() {
        let cache = AnalysisCache::new(CacheLimits { entries: 1 << 20, bytes: 1 << 18 }, Limits::default());
        for number in 0..500 {
            let text = format!("select '{}{number}'", "x".repeat(2000));
            cache.analyse(text.as_bytes(), &LexSettings::default()).expect("analyse");
        }
        assert!(cache.bytes() <= 1 << 18, "{}", cache.bytes());
        assert!(cache.entries() > 0);
    }
}
