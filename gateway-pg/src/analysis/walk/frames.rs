//! What names in a query may mean: the sources that are visible, query by query.

use super::super::model::{Source, SourceKind};
use super::{Walk, Walker};

/// The sources of one query level.
#[derive(Default)]
pub(super) struct Frame {
    pub(super) sources: Vec<usize>,
    /// From this position on, the server is sure to see the sources by their names: all of them once `FROM` has been read, none
    /// while it is, and those of the join within its `ON`.
    sure: usize,
}

impl Walker {
    /// Walks something in `FROM`: what stands beside it is visible to some of it only.
    pub(super) fn in_from<T>(&mut self, walk: impl FnOnce(&mut Self) -> Walk<T>) -> Walk<T> {
        self.sure_from(usize::MAX, walk)
    }

    /// Walks the condition of a join whose items begin at this position: it sees these only, and outer queries.
    pub(super) fn sure_from<T>(
        &mut self,
        position: usize,
        walk: impl FnOnce(&mut Self) -> Walk<T>,
    ) -> Walk<T> {
        let set = |walker: &mut Self, sure| {
            walker.frames.last_mut().map(|frame| std::mem::replace(&mut frame.sure, sure))
        };
        let before = set(self, position);
        let result = walk(self);
        set(self, before.unwrap_or_default());
        result
    }

    /// Sources in the innermost query so far.
    pub(super) fn width(&self) -> usize {
        self.frames.last().map_or(0, |frame| frame.sources.len())
    }

    /// Candidate sources of a column reference, and whether it may be an alias standing for its row.
    pub(super) fn resolve(&self, name: &[String], star: bool) -> (Vec<usize>, bool) {
        let qualifiers = name.len().saturating_sub(usize::from(!star));
        let (qualifiers, rest) = name.split_at_checked(qualifiers).unwrap_or((name, &[]));
        match (qualifiers, rest) {
            ([], [only]) => (self.visible(), self.sources_called(only, false).is_some()),
            ([.., table], _) => {
                let called = self.sources_called(table, qualifiers.len() > 1);
                (called.unwrap_or_else(|| self.visible()), false)
            }
            _ => (self.frames.last().map(|frame| self.reached(frame).collect()).unwrap_or_default(), false),
        }
    }

    fn visible(&self) -> Vec<usize> {
        self.frames.iter().rev().flat_map(|frame| self.reached(frame)).collect()
    }

    /// `excluded`, `old` and `new` are reached by name only.
    fn reached(&self, frame: &Frame) -> impl Iterator<Item = usize> {
        frame.sources.iter().copied().filter(|&index| {
            !matches!(self.found.sources.get(index), Some(Source { kind: SourceKind::Pseudo(_), .. }))
        })
    }

    /// Sources that a qualifier may mean, innermost query first; `None` if none has this name.
    ///
    /// The server passes over what it cannot see and goes on in the query around: what a join's alias hides, what stands beside
    /// the join whose `ON` it reads, and for a name with a schema all but tables (PostgreSQL documentation, "Table Expressions").
    /// So this stops at a query only where the name is sure to be seen. A function whose name is not known may have any but those
    /// beside it: the server refuses two of the same name in one query.
    pub(super) fn sources_called(&self, alias: &str, with_schema: bool) -> Option<Vec<usize>> {
        let (mut found, mut unnamed) = (Vec::new(), Vec::new());
        for frame in self.frames.iter().rev() {
            if with_schema {
                found.extend(self.called(&frame.sources, alias).filter(|&at| self.relation_of(at).is_some()));
                continue;
            }
            found.extend(self.called_in(frame, alias));
            if self.surely_called_in(frame, alias) {
                break;
            }
            unnamed.extend(frame.sources.iter().filter(|&&index| self.is_unnamed_function(index)));
        }
        if found.is_empty() {
            return None;
        }
        unnamed.retain(|index| !found.contains(index));
        found.append(&mut unnamed);
        Some(found)
    }

    /// Sources of that name in one query; a join's alias stands for all of its query.
    fn called_in(&self, frame: &Frame, alias: &str) -> Vec<usize> {
        let matching: Vec<_> = self.called(&frame.sources, alias).collect();
        if matching.iter().any(|&index| self.is_join(index)) { frame.sources.clone() } else { matching }
    }

    /// A subquery without an alias has no name at all.
    fn is_unnamed_function(&self, source: usize) -> bool {
        let source = self.found.sources.get(source);
        source.is_some_and(|source| source.alias.is_none() && source.kind == SourceKind::Function)
    }

    fn called<'a>(&'a self, sources: &'a [usize], alias: &'a str) -> impl Iterator<Item = usize> + 'a {
        sources.iter().copied().filter(move |&index| {
            self.found.sources.get(index).is_some_and(|source| source.alias.as_deref() == Some(alias))
        })
    }

    fn surely_called_in(&self, frame: &Frame, alias: &str) -> bool {
        let sure = frame.sources.get(frame.sure..).unwrap_or_default();
        self.called(sure, alias).next().is_some() && !sure.iter().any(|&index| self.is_join(index))
    }

    /// Whether the innermost query is sure to have a source of this name.
    pub(super) fn is_surely_called(&self, alias: &str) -> bool {
        self.frames.last().is_some_and(|frame| self.surely_called_in(frame, alias))
    }

    fn is_join(&self, source: usize) -> bool {
        self.found.sources.get(source).is_some_and(|source| source.kind == SourceKind::Join)
    }
}
