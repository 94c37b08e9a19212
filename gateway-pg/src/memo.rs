//! What one session knows of statements that come again and again, so that it is worked out once.
//!
//! Everything here follows from an analysis, the session's fixed facts and its catalog. The catalog counts its changes; what was worked
//! out before the last one is dropped, never used.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::analysis::Analysis;
use crate::catalog::{Catalog, quote};
use crate::definitions::Names;
use crate::operation::Template;
use crate::scope::used_names;
use crate::session::Meaning;
use crate::statement::{looks_up_names, qualified_calls, unqualified_calls, written};

/// Analyses remembered for a session; beyond this all are forgotten. 256: more than an application has statements; each takes some
/// kilobytes, see also [`MAX_BYTES`].
const MAX_REMEMBERED: usize = 256;

/// Bytes of analyses remembered for a session, each with what follows from it; beyond this all are forgotten.
const MAX_BYTES: usize = 2 * 1024 * 1024;

/// An analysis of more bytes is not remembered: such statements are seldom the same twice.
const MAX_ANALYSIS_BYTES: usize = 128 * 1024;

/// Statements of one text that are remembered. 16: more come from scripts, which are run once.
const MAX_STATEMENTS: usize = 16;

/// Memos by where their analysis lies; each keeps its analysis, so that nothing else can come to lie there.
#[derive(Debug, Default)]
pub(crate) struct Memos {
    known: HashMap<usize, Arc<Memo>>,
    bytes: usize,
}

impl Memos {
    /// The memo of an analysis.
    pub(crate) fn of(&mut self, analysis: &Arc<Analysis>) -> Arc<Memo> {
        self.weighed(analysis, Analysis::heap_bytes)
    }

    fn weighed(&mut self, analysis: &Arc<Analysis>, weigh: impl FnOnce(&Analysis) -> usize) -> Arc<Memo> {
        let place = Arc::as_ptr(analysis).addr();
        if let Some(known) = self.known.get(&place) {
            return Arc::clone(known);
        }
        let bytes = weigh(analysis);
        let memo = Arc::new(Memo::new(Arc::clone(analysis), bytes));
        if bytes > MAX_ANALYSIS_BYTES {
            return memo;
        }
        if self.known.len() >= MAX_REMEMBERED || self.bytes + bytes > MAX_BYTES {
            *self = Self::default();
        }
        self.bytes += bytes;
        self.known.insert(place, Arc::clone(&memo));
        memo
    }
}

/// What is known of one analysis.
#[derive(Debug)]
pub(crate) struct Memo {
    /// Relations it names, as the catalog is asked for them.
    pub(crate) relations: Vec<String>,
    /// Functions and operators it names whose meaning the catalog is asked for.
    pub(crate) functions: Vec<String>,
    /// Types it names, as the catalog is asked for them.
    pub(crate) types: Vec<String>,
    /// Some statement looks up names that are not among these.
    pub(crate) looks_up_names: bool,
    /// Some statement stands for another one, prepared or declared before: what holds of it is not a matter of its text.
    refers: bool,
    /// About how many bytes the analysis takes.
    pub(crate) bytes: usize,
    known: Mutex<Known>,
    analysis: Arc<Analysis>,
}

/// The statement's place in its text, how many came in its message, and whether a transaction is open.
pub(crate) type TemplateKey = (usize, usize, bool);

/// What holds for one state of the catalog.
#[derive(Debug, Default)]
struct Known {
    generation: u64,
    resolved: bool,
    templates: Vec<(TemplateKey, Arc<Template>)>,
    meanings: Vec<(usize, Arc<Meaning>)>,
    names: Option<Arc<Names>>,
}

impl Memo {
    fn new(analysis: Arc<Analysis>, bytes: usize) -> Self {
        let mut relations = BTreeSet::new();
        let mut functions = BTreeSet::new();
        let mut types = BTreeSet::new();
        for statement in &analysis.statements {
            relations.extend(statement.relations.iter().map(|r| written(r.schema.as_deref(), &r.name)));
            functions.extend(unqualified_calls(statement));
            functions.extend(qualified_calls(statement));
            types.extend(statement.types.iter().map(|t| written(t.schema.as_deref(), &t.name)));
            types.extend(statement.server_types.iter().map(|name| quote(name)));
        }
        Self {
            relations: relations.into_iter().collect(),
            functions: functions.into_iter().collect(),
            types: types.into_iter().collect(),
            looks_up_names: analysis.statements.iter().any(looks_up_names),
            refers: analysis.statements.iter().any(|s| s.prepared.is_some() || s.cursor.is_some()),
            bytes,
            known: Mutex::default(),
            analysis,
        }
    }

    fn known(&self, generation: u64) -> MutexGuard<'_, Known> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.generation != generation {
            *known = Known { generation, ..Known::default() };
        }
        known
    }

    /// Whether all names are known to have a meaning in this state of the catalog.
    pub(crate) fn is_resolved(&self, generation: u64) -> bool {
        self.known(generation).resolved
    }

    /// Notes that the catalog knows all its names.
    pub(crate) fn set_resolved(&self, generation: u64) {
        self.known(generation).resolved = !self.refers;
    }

    /// What the operation of a statement has in common with the next one; made if it is not known.
    pub(crate) fn template<E>(
        &self,
        generation: u64,
        key: TemplateKey,
        make: impl FnOnce() -> Result<Template, E>,
    ) -> Result<Arc<Template>, E> {
        let known =
            self.known(generation).templates.iter().find(|(k, _)| *k == key).map(|(_, t)| Arc::clone(t));
        if let Some(known) = known {
            return Ok(known);
        }
        let template = Arc::new(make()?);
        let mut known = self.known(generation);
        if key.0 < MAX_STATEMENTS && !self.refers {
            known.templates.push((key, Arc::clone(&template)));
        }
        Ok(template)
    }

    /// The names whose meaning matters for what the text does; made if they are not known.
    pub(crate) fn names(&self, catalog: &Catalog) -> Arc<Names> {
        let generation = catalog.generation();
        if let Some(known) = &self.known(generation).names {
            return Arc::clone(known);
        }
        let names = Arc::new(used_names(self.analysis.statements.iter(), catalog));
        self.known(generation).names = Some(Arc::clone(&names));
        names
    }

    /// What the names of a prepared statement mean; made if it is not known.
    pub(crate) fn meaning(
        &self,
        generation: u64,
        index: usize,
        make: impl FnOnce() -> Meaning,
    ) -> Arc<Meaning> {
        let known =
            self.known(generation).meanings.iter().find(|(i, _)| *i == index).map(|(_, m)| Arc::clone(m));
        known.unwrap_or_else(|| {
            let meaning = Arc::new(make());
            let mut known = self.known(generation);
            if index < MAX_STATEMENTS {
                known.meanings.push((index, Arc::clone(&meaning)));
            }
            meaning
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn analysis() -> Arc<Analysis> {
        Arc::new(Analysis::default())
    }

    #[test]
    fn a_large_analysis_is_not_kept() {
        let (mut memos, large) = (Memos::default(), analysis());
        memos.weighed(&large, |_| MAX_ANALYSIS_BYTES + 1);
        assert_eq!(Arc::strong_count(&large), 1);
        assert_eq!(memos.bytes, 0);
    }

    #[test]
    fn what_is_kept_is_bounded_by_number_and_bytes() {
        let mut memos = Memos::default();
        for _ in 0..1_000 {
            memos.weighed(&analysis(), |_| MAX_ANALYSIS_BYTES);
            assert!(memos.bytes <= MAX_BYTES);
        }
        for _ in 0..1_000 {
            memos.weighed(&analysis(), |_| 1);
            assert!(memos.known.len() <= MAX_REMEMBERED);
        }
    }

    #[test]
    fn the_same_analysis_has_the_same_memo() {
        let (mut memos, analysis) = (Memos::default(), analysis());
        let first = memos.weighed(&analysis, |_| 1);
        assert!(Arc::ptr_eq(&first, &memos.weighed(&analysis, |_| 1)));
        assert_eq!(memos.bytes, 1);
    }
}
