//! What one session knows of statements that come again and again, so that it is worked out once.
//!
//! Everything here follows from an analysis, the session's fixed facts and its catalog. The catalog counts its changes; what was worked
//! out before the last one is dropped, never used.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::analysis::Analysis;
use crate::catalog::quote;
use crate::operation::Template;
use crate::session::Meaning;
use crate::statement::{qualified_calls, unqualified_calls, written};

/// Analyses remembered for a session; beyond this all are forgotten. 256: more than an application has statements; each takes some
/// kilobytes.
const MAX_REMEMBERED: usize = 256;

/// Statements of one text that are remembered. 16: more come from scripts, which are run once.
const MAX_STATEMENTS: usize = 16;

/// Memos by where their analysis lies; each keeps its analysis, so that nothing else can come to lie there.
#[derive(Debug, Default)]
pub(crate) struct Memos(HashMap<usize, Arc<Memo>>);

impl Memos {
    /// The memo of an analysis.
    pub(crate) fn of(&mut self, analysis: &Arc<Analysis>) -> Arc<Memo> {
        let place = Arc::as_ptr(analysis).addr();
        if let Some(known) = self.0.get(&place) {
            return Arc::clone(known);
        }
        if self.0.len() >= MAX_REMEMBERED {
            self.0.clear();
        }
        let memo = Arc::new(Memo::new(Arc::clone(analysis)));
        self.0.insert(place, Arc::clone(&memo));
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
    /// Some statement stands for another one, prepared or declared before: what holds of it is not a matter of its text.
    refers: bool,
    known: Mutex<Known>,
    _analysis: Arc<Analysis>,
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
}

impl Memo {
    fn new(analysis: Arc<Analysis>) -> Self {
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
            refers: analysis.statements.iter().any(|s| s.prepared.is_some() || s.cursor.is_some()),
            known: Mutex::default(),
            _analysis: analysis,
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
