//! Simple queries whose later statements name what earlier ones define: run statement by statement, answered as one.
//!
//! The server takes the statements of a simple query one after the other, in an implicit transaction block where no other one is open
//! (PostgreSQL documentation, "Multiple Statements in a Simple Query"). What a name means is known once the statements before it have run,
//! so here each statement is judged then, and sent as a query of its own. A block of the gateway's stands for the implicit one:
//! it begins before the first statement outside a block of the client's, and ends with the query, with the client's own COMMIT or ROLLBACK,
//! or with an error. The client sees the answers of one simple query: no CommandComplete of the gateway's block, one ReadyForQuery, the
//! last CommandComplete only once the block is committed, changed settings at the end, and positions of errors counted in the text it sent.
//!
//! A statement that is refused is the error that the query ends with: what ran before it in the same block is undone.
//! What a COMMIT of the client's ended before stays, as after any error.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use gateway_core::error::{Denial, DenialCode};
use gateway_core::pipeline::Results;

use super::flow::Flow;
use super::segment::Segment;
use super::{Phase, Session};
use crate::analysis::Statement;
use crate::codec::backend::TransactionStatus;
use crate::codec::{ProtocolError, encode, next_frame};
use crate::statement::{Text, changes_meaning, ends_transaction, names_something};

/// Bytes sent for one query in parts, each as long as the text up to its end. 64 of the longest text, or 1,000 statements of 64 bytes.
const MAX_SCRIPT_BYTES: usize = 64 << 20;

/// A command of the gateway's own, which the client does not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    Begin,
    Commit,
    Rollback,
}

impl Own {
    const fn text(self) -> &'static str {
        match self {
            Self::Begin => "BEGIN",
            Self::Commit => "COMMIT",
            Self::Rollback => "ROLLBACK",
        }
    }
}

/// A simple query on its way, statement by statement.
#[derive(Debug)]
pub(super) struct Script {
    /// What has not been sent yet, each a text with one statement.
    parts: VecDeque<Arc<Text>>,
    /// A block of the gateway's is open in place of the implicit one.
    pub(super) block: bool,
    /// The gateway's own command under way.
    own: Option<Own>,
    /// The last CommandComplete, until the block is committed.
    completion: Option<Bytes>,
    /// Labels reachable from any statement so far whose values may not be shown: its block may still report them.
    protected: BTreeSet<usize>,
}

impl Script {
    /// True while the last statement runs, whose completion depends on the end of the block.
    fn completes(&self) -> bool {
        self.block && self.parts.is_empty() && self.own.is_none()
    }
}

impl Session {
    /// Starts a simple query that has to run statement by statement; gives the segment back if it need not or cannot.
    pub(super) fn start_script(&mut self, segment: Segment) -> Option<Segment> {
        match segment.query().is_some_and(|text| needs_parts(text, self.dirty_transaction)) {
            true => self.run_in_parts(segment),
            false => Some(segment),
        }
    }

    /// Runs a simple query statement by statement; gives the segment back if that cannot be.
    pub(super) fn run_in_parts(&mut self, segment: Segment) -> Option<Segment> {
        let fits = self.status != TransactionStatus::Failed && !self.mid_unit;
        let Some(text) = segment.query().filter(|t| fits && t.analysis.statements.len() > 1) else {
            return Some(segment);
        };
        let idle = self.status == TransactionStatus::Idle;
        if !blocks_fit(&text.analysis.statements, idle) {
            return Some(segment);
        }
        let Some(parts) = self.parts(text) else { return Some(segment) };
        if idle {
            self.began = self.config.definitions.epoch();
        }
        self.told = Some(self.reported.clone());
        let protected = BTreeSet::new();
        self.script = Some(Script { parts, block: false, own: None, completion: None, protected });
        self.advance();
        None
    }

    /// The statements as texts of their own, each where it stood, so that positions in them are positions in the whole.
    fn parts(&mut self, text: &Text) -> Option<VecDeque<Arc<Text>>> {
        let count = text.analysis.statements.len();
        let whole = std::str::from_utf8(&text.bytes).ok()?;
        let mut bytes = 0;
        let mut parts = VecDeque::new();
        for index in 0..count {
            let range = text.range(index)?;
            bytes += range.end;
            if bytes > MAX_SCRIPT_BYTES {
                return None;
            }
            // Positions count characters (PostgreSQL documentation, "Error and Notice Message Fields").
            let before = whole.get(..range.start)?.chars().count();
            let part = Bytes::from(" ".repeat(before) + whole.get(range)?);
            let part =
                Text::understand(&self.config.analyses, &mut self.memos, part, &self.config.lexing).ok()?;
            if part.analysis.statements.len() != 1 {
                return None;
            }
            parts.push_back(part.one_of(count));
        }
        Some(parts)
    }

    /// Goes on with the next statement, or ends.
    fn advance(&mut self) {
        let idle = self.status == TransactionStatus::Idle;
        let Some(script) = &mut self.script else { return };
        let Some(next) = script.parts.front().and_then(|text| text.statement(0)) else {
            return match script.block {
                true => self.run_own(Own::Commit, None),
                false => self.end_script(),
            };
        };
        match (&*next.kind, script.block) {
            ("commit", true) => self.run_own(Own::Commit, None),
            ("rollback", true) => self.run_own(Own::Rollback, None),
            ("begin" | "commit" | "rollback", _) => self.run_part(),
            (_, false) if idle => self.run_own(Own::Begin, None),
            _ => self.run_part(),
        }
    }

    fn run_part(&mut self) {
        let Some(text) = self.script.as_mut().and_then(|script| script.parts.pop_front()) else { return };
        let mut bytes = BytesMut::new();
        encode::query(&mut bytes, std::str::from_utf8(&text.bytes).unwrap_or_default());
        if let Ok(Some(frame)) = next_frame(&mut bytes, |_| usize::MAX >> 1) {
            self.assemble(Segment::of_query(frame, text));
        }
    }

    /// Sends a command of the gateway's own; an error of it is an error of the statement whose results are given.
    fn run_own(&mut self, own: Own, results: Option<Results>) {
        let Some(script) = &mut self.script else { return };
        self.aborted |= matches!(own, Own::Rollback);
        script.own = Some(own);
        encode::query(&mut self.to_upstream, own.text());
        let results = results.or_else(|| self.kept.take());
        self.phase = Phase::Flowing(Box::new(Flow::own(results, script.protected.clone())));
    }

    /// A statement of the script, or a command of the gateway's own, has been answered up to ReadyForQuery.
    pub(super) fn part_over(
        &mut self,
        results: Option<Results>,
        refusal: Option<Denial>,
        failed: bool,
        outcome: &str,
    ) {
        self.mid_unit = false;
        let Some(script) = &mut self.script else { return };
        let own = script.own.take();
        if let Some(denial) = refusal {
            self.finish(results, denial.code.as_str());
            return self.deny(&Segment::simple(), denial);
        }
        match own {
            None if failed => {
                self.finish(results, outcome);
                self.fail_script();
            }
            None => {
                // An error at the end of the block is told in the name of the last statement.
                self.kept_or_finish(results, outcome);
                self.advance();
            }
            Some(Own::Begin) if failed => {
                self.finish(results, outcome);
                let denial = Denial::new(DenialCode::UpstreamUnavailable, "the server begins no transaction");
                self.deny(&Segment::simple(), denial.with_hint("try again"));
            }
            Some(Own::Begin) => {
                script.block = true;
                self.kept = results;
                self.advance();
            }
            Some(Own::Commit | Own::Rollback) => {
                script.block = false;
                let told = script.completion.take().filter(|_| !failed);
                self.finish(results, outcome);
                self.settle_transaction();
                if let Some(told) = told {
                    self.originate(told);
                }
                if failed { self.end_script() } else { self.advance() }
            }
        }
    }

    /// The results of the last statement of a block wait for its end; others are complete.
    fn kept_or_finish(&mut self, results: Option<Results>, outcome: &str) {
        let ends_block = self.script.as_ref().is_some_and(|s| {
            let next = s.parts.front().and_then(|t| t.statement(0));
            s.block && next.is_none_or(|n| matches!(&*n.kind, "commit" | "rollback"))
        });
        match ends_block {
            true => self.kept = results,
            false => self.finish(results, outcome),
        }
    }

    /// After the server's error: what stands for the implicit block is undone.
    fn fail_script(&mut self) {
        let Some(script) = &mut self.script else { return };
        script.parts.clear();
        match script.block && self.status != TransactionStatus::Idle {
            true => self.run_own(Own::Rollback, None),
            false => self.end_script(),
        }
    }

    fn end_script(&mut self) {
        self.script = None;
        self.settle_transaction();
        self.ready_locally();
        self.start_over();
    }

    /// Ends the script for a refusal; true if the server is undoing its block now.
    pub(super) fn abandon_script(&mut self) -> bool {
        let Some(script) = self.script.take() else { return false };
        let undo = script.block && self.status != TransactionStatus::Idle;
        if undo {
            self.aborted = true;
            encode::query(&mut self.to_upstream, Own::Rollback.text());
        }
        undo
    }

    /// Whether the client is in a transaction block of its own.
    pub(super) fn in_clients_transaction(&self) -> bool {
        self.status != TransactionStatus::Idle && !self.script.as_ref().is_some_and(|script| script.block)
    }

    /// Takes in a CommandComplete; true if it is not to be shown, or not yet.
    pub(super) fn keeps_completion(&mut self, tag: &str) -> bool {
        let Some(script) = self.script.as_mut().filter(|script| script.completes()) else { return false };
        let mut frame = BytesMut::new();
        encode::command_complete(&mut frame, tag);
        script.completion = Some(frame.freeze());
        true
    }

    /// The client's own BEGIN took over the block in which the statements before it ran.
    pub(super) fn script_began(&mut self) {
        if let Some(script) = &mut self.script {
            script.block = false;
        }
    }

    /// Notes which labels a statement may have reported.
    pub(super) fn script_protects(&mut self, protected: &BTreeSet<usize>) {
        if let Some(script) = &mut self.script {
            script.protected.extend(protected);
        }
    }

    /// Whether a notice is about the gateway's block: BEGIN says so in an open one, and does not in an implicit one (PostgreSQL
    /// documentation, Appendix A: 25001 is `active_sql_transaction`).
    pub(super) fn is_about_own_block(&self, flow: &Flow, body: &[u8]) -> Result<bool, ProtocolError> {
        let begins = self.script.as_ref().is_some_and(|s| s.block) && flow.runs("begin");
        Ok(begins && crate::codec::backend::fields(body)?.iter().any(|field| *field == (b'C', &b"25001"[..])))
    }
}

/// Whether a statement of a text names something whose meaning an earlier one may have changed. `dirty`: the open transaction changed
/// it, and its end changes it back.
fn needs_parts(text: &Text, dirty: bool) -> bool {
    let mut changed = false;
    text.analysis.statements.iter().any(|statement| {
        let names = changed && names_something(statement);
        changed |= changes_meaning(statement) || (dirty && ends_transaction(statement));
        names
    })
}

/// Whether the gateway's block behaves as the implicit one would. Savepoints and the first half of a two-phase commit do not work in an
/// implicit block, nor does a chained end.
fn blocks_fit(statements: &[Statement], idle: bool) -> bool {
    let mut own = idle;
    statements.iter().all(|statement| {
        let chained = statement.transaction.as_ref().is_some_and(|t| t.chain);
        match &*statement.kind {
            "begin" => own = false,
            "commit" | "rollback" if !(own && chained) => own = !chained,
            "commit" | "rollback" | "savepoint" | "release" | "rollback_to" | "prepare_transaction"
                if own =>
            {
                return false;
            }
            "prepare_transaction" => own = true,
            _ => {}
        }
        true
    })
}
