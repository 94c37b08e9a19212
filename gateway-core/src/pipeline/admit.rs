//! From pending to permit: decide, rewrite to a fixed point, approve, record.

use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::Rewriter;
use super::content::content;
use super::guard::{Guard, GuardInner, internal, recorder_failed};
use super::held::Held;
use super::memo::Memo;
use super::permit::{Judged, Pending, Permit, Refused};
use super::release::Results;
use crate::approval::{
    AccessRequest, ApprovalError, Delivery, Digest, Estimate, OperationSummary, RequestId, RequestState,
};
use crate::error::{Denial, DenialCode};
use crate::masking::ClassSet;
use crate::operation::{Access, Batch, Effect, Facts, Operation, Stage};
use crate::policy::{Allowed, ApprovalRule, Content, Decision, Obligation, PolicyInput};
use crate::recording::{Position, Record, RecordError, RecordedDenial, RecordedOperation};
use crate::text::is_deceptive;

/// A batch that still changes after this many rewrites is denied.
const MAX_REWRITE_PASSES: usize = 4;

/// Longest statement text kept whole in a record, in bytes; of a longer one the first and the last half of so many are, because either end
/// may hold what matters. The full length stands beside it, and the batch's digest is of the whole.
const MAX_RECORDED_STATEMENT_BYTES: usize = 64 * 1024;

/// Longest statement text shown in lists of requests, in bytes: thousands of requests are kept. The exact text stands beside it.
const MAX_LISTED_STATEMENT_BYTES: usize = 4 * 1024;

/// Longest exact text shown to a reviewer, in bytes; longer operations cannot be approved.
const MAX_REVIEWED_BYTES: usize = 256 * 1024;

/// The verdict on a whole batch: what everything in it has in common.
enum Verdict {
    Allow(Allowed),
    Hold { rules: Vec<ApprovalRule>, then: Allowed },
}

impl Guard {
    /// Judges a batch: deny beats hold beats allow; several holds become one request.
    pub async fn judge(&self, pending: Pending, rewriter: &dyn Rewriter) -> Judged {
        let delivery = self.0.pipeline.delivery;
        self.judge_for(pending, rewriter, delivery).await
    }

    /// Judges a batch with approvals delivered in the given way.
    pub async fn judge_for(&self, pending: Pending, rewriter: &dyn Rewriter, delivery: Delivery) -> Judged {
        let first = pending.first;
        match self.0.admit(pending, rewriter, delivery).await {
            Ok(judged) => judged,
            Err(denial) => Judged::Refused(Refused { first, denial }),
        }
    }
}

impl GuardInner {
    async fn admit(
        self: &Arc<Self>,
        mut pending: Pending,
        rewriter: &dyn Rewriter,
        delivery: Delivery,
    ) -> Result<Judged, Denial> {
        if !Arc::ptr_eq(self, &pending.guard) {
            return Err(internal("a batch of another session was presented"));
        }
        if let Some(denial) = self.over() {
            return Err(self.denied(&pending, denial));
        }
        let verdict = match self.settle(&mut pending, rewriter).await {
            Ok(verdict) => verdict,
            Err(denial) => return Err(self.denied(&pending, denial)),
        };
        match verdict {
            Verdict::Allow(allowed) => self.permit(pending, allowed, None).await,
            Verdict::Hold { then, .. } if pending.batch.stage() == Stage::Prepare => {
                self.permit(pending, then, None).await
            }
            Verdict::Hold { rules, .. } => {
                pending.estimator = rewriter.estimator();
                // On the heap, as it is rare: every judgement would have its room.
                Box::pin(self.hold(pending, rules, delivery)).await
            }
        }
    }

    fn over(&self) -> Option<Denial> {
        if self.failed.load(std::sync::atomic::Ordering::Acquire) {
            return Some(recorder_failed(&RecordError("it failed before".to_owned())));
        }
        let expires = self.info.principal.expires_at;
        (expires <= self.pipeline.clock.now()).then(|| {
            Denial::new(DenialCode::IdentityExpired, format!("the identity expired at {expires}"))
                .with_hint("connect again with a new token")
        })
    }

    /// Decides and rewrites until nothing changes.
    async fn settle(&self, pending: &mut Pending, rewriter: &dyn Rewriter) -> Result<Verdict, Denial> {
        for _ in 0..=MAX_REWRITE_PASSES {
            let verdict = self.verdict(&pending.batch, &BTreeSet::new()).await?;
            let (Verdict::Allow(allowed) | Verdict::Hold { then: allowed, .. }) = &verdict;
            let rewrites: Vec<_> = rewrites(allowed).collect();
            if rewrites.is_empty() || !self.rewrite(pending, rewriter, &rewrites)? {
                pending.settled = rewrites.into_iter().map(str::to_owned).collect();
                pending.undoes = rewriter.undoes_changes();
                if is_uncapped(pending, allowed) {
                    let message = "the policy caps how much may be changed, which cannot be done here";
                    return Err(Denial::new(DenialCode::ObligationUnmet, message)
                        .with_hint("ask the gateway's operators for a rule without this cap"));
                }
                return Ok(verdict);
            }
        }
        Err(Denial::new(
            DenialCode::ObligationUnmet,
            "the rewrites the policies ask for do not come to an end",
        ))
    }

    /// Applies the rewrites; false if nothing changed.
    fn rewrite(
        &self,
        pending: &mut Pending,
        rewriter: &dyn Rewriter,
        rewrites: &[&str],
    ) -> Result<bool, Denial> {
        let mut changed = false;
        let mut operations = Vec::with_capacity(pending.batch.operations().len());
        for operation in pending.batch.operations() {
            let rewritten = rewriter.rewrite(operation, rewrites)?;
            changed |= rewritten.is_some();
            operations.push(rewritten.unwrap_or_else(|| operation.clone()));
        }
        if !changed {
            return Ok(false);
        }
        self.presented(pending).map_err(|e| recorder_failed(&e))?;
        let rewrites = rewrites.iter().map(|&r| r.to_owned()).collect();
        self.record(Record::Rewritten { operations: pending.ids(), rewrites })
            .map_err(|e| recorder_failed(&e))?;
        if let Some(batch) = Batch::new(pending.batch.stage(), operations) {
            pending.batch = batch;
        }
        Ok(true)
    }

    /// The strictest verdict over all operations, with these approvals granted.
    async fn verdict(&self, batch: &Batch, approvals: &BTreeSet<String>) -> Result<Verdict, Denial> {
        let mut allowed = Allowed::default();
        let mut rules: Vec<ApprovalRule> = Vec::new();
        for operation in batch.operations() {
            match self.decide(operation, approvals).await? {
                Decision::Allow(more) => merge(&mut allowed, more),
                Decision::Deny(denial) => return Err(denial),
                Decision::Hold(asked) => {
                    let granted =
                        asked.iter().map(|r| r.name.clone()).chain(approvals.iter().cloned()).collect();
                    match self.decide(operation, &granted).await? {
                        Decision::Allow(more) => merge(&mut allowed, more),
                        Decision::Deny(denial) => return Err(denial),
                        Decision::Hold(_) => {
                            return Err(internal("a rule asks for approval of an approved operation"));
                        }
                    }
                    add_rules(&mut rules, asked)?;
                }
            }
        }
        Ok(if rules.is_empty() { Verdict::Allow(allowed) } else { Verdict::Hold { rules, then: allowed } })
    }

    async fn decide(&self, operation: &Operation, approvals: &BTreeSet<String>) -> Result<Decision, Denial> {
        let patterns = self.pipeline.patterns.matching(&operation.statement);
        let again = approvals.is_empty();
        if again
            && let Some(allowed) = self.memo().answer(operation, &patterns, &self.pipeline.policy.revision())
        {
            return Ok(Decision::Allow(allowed));
        }
        let input = PolicyInput::new(&self.info, operation, self.pipeline.clock.now())
            .approved(approvals)
            .matching(&patterns);
        let decision = self.pipeline.policy.decide(&input).await.map_err(|cause| {
            Denial::new(
                DenialCode::PolicyError,
                "the policies could not be evaluated for this operation, so it is denied",
            )
            .with_hint("tell the gateway's operator; the log names the policy")
            .with_cause(cause)
        })?;
        if let (Decision::Allow(allowed), true) = (&decision, again) {
            self.memo().keep(operation, &patterns, allowed);
        }
        Ok(decision)
    }

    /// Records and grants. Writes are durable before the permit exists.
    async fn permit(
        self: &Arc<Self>,
        pending: Pending,
        allowed: Allowed,
        approval: Option<RequestId>,
    ) -> Result<Judged, Denial> {
        if pending.batch.stage() == Stage::Execute {
            // What could release nothing does not even run.
            let accounts = Results::accounts(self, &allowed.obligations);
            if !accounts.is_empty() {
                let left = self.pipeline.budgets.check(&accounts, self.pipeline.clock.now());
                left.map_err(|denial| self.denied(&pending, denial))?;
            }
        }
        let plan = self.mask_plan().await.map_err(|denial| self.denied(&pending, denial))?;
        let approved = approval.is_some();
        let presented = self.presented(&pending).and_then(|_| {
            self.record(Record::Allowed {
                operations: pending.ids(),
                rules: allowed.rules,
                obligations: allowed.obligations.clone(),
                approval,
            })
        });
        let position = presented.map_err(|e| recorder_failed(&e))?;
        if self.recording.strict()
            || (pending.batch.stage() == Stage::Execute && pending.batch.effect() == Effect::Write)
        {
            self.durable(position).await.map_err(|e| recorder_failed(&e))?;
        }
        self.counters.allow.increment(1);
        let Pending { batch, first, .. } = pending;
        let results = Results::new(Arc::clone(self), first, plan, &allowed.obligations);
        let obligations = allowed.obligations;
        Ok(Judged::Permit(Box::new(Permit { batch, first, results, obligations, approved })))
    }

    /// Uses up a grant, or asks people.
    async fn hold(
        self: &Arc<Self>,
        pending: Pending,
        rules: Vec<ApprovalRule>,
        delivery: Delivery,
    ) -> Result<Judged, Denial> {
        let digest = self.digest(&pending.batch);
        let approver = &self.pipeline.approver;
        let now = self.pipeline.clock.now();
        let failed = |e: ApprovalError| approval_failed(&e);
        match approver.redeem(&digest, &rules, now).await.map_err(failed) {
            Ok(Some(request)) => return self.approved(pending, request, &rules).await,
            Ok(None) => {}
            Err(denial) => return Err(self.denied(&pending, denial)),
        }
        if delivery != Delivery::Hold
            && let Some(open) = approver.open_request(&digest, now).await.map_err(failed)?
        {
            return Err(self.denied(&pending, ask_again(open)));
        }
        let request =
            self.request(&pending, digest, rules, delivery).map_err(|d| self.denied(&pending, d))?;
        // Presented first: if the client leaves during the estimate, the record tells what it asked for.
        self.presented(&pending).map_err(|e| recorder_failed(&e))?;
        self.ask(pending, request).await
    }

    /// Submits a request; the hold is durable in the record before anybody is told.
    async fn ask(self: &Arc<Self>, pending: Pending, mut request: AccessRequest) -> Result<Judged, Denial> {
        let estimates = self.estimates(&pending).await;
        let estimated = Self::estimated(&pending, request.id, &estimates);
        for (operation, estimate) in request.operations.iter_mut().zip(estimates) {
            operation.estimate = estimate;
        }
        let held = Record::Held {
            operations: pending.ids(),
            request: request.id,
            rules: request.rules.clone(),
            expires: request.expires,
        };
        let position =
            [Some(held), estimated].into_iter().flatten().try_fold(Position(0), |_, r| self.record(r));
        let position = position.map_err(|e| recorder_failed(&e))?;
        self.durable(position).await.map_err(|e| recorder_failed(&e))?;
        let (id, delivery) = (request.id, request.delivery);
        let held = Held::new(Arc::clone(self), pending, &request);
        match self.pipeline.approver.submit(request).await {
            Ok(open) if open == id => {}
            // Another came first while this was looked at: it is the one that people see.
            Ok(open) => {
                let withdrawn = self.record(Record::Decided { request: id, state: RequestState::Revoked });
                let denial = withdrawn.map_or_else(|e| recorder_failed(&e), |_| ask_again(open));
                return Err(held.refuse_keeping_request(denial));
            }
            Err(error) => return Err(held.refuse(approval_failed(&error))),
        }
        self.counters.hold.increment(1);
        if delivery == Delivery::Hold {
            return Ok(Judged::Held(Box::new(held)));
        }
        Err(held.refuse_keeping_request(ask_again(id)))
    }

    /// Judges once more with the approval and lets it pass, or not.
    pub(super) async fn approved(
        self: &Arc<Self>,
        pending: Pending,
        request: RequestId,
        rules: &[ApprovalRule],
    ) -> Result<Judged, Denial> {
        // It takes a while: what is judged by is of after it.
        self.still_as_told(&pending, request).await.map_err(|d| self.denied(&pending, d))?;
        let names: BTreeSet<_> = rules.iter().map(|r| r.name.clone()).collect();
        let verdict = match self.over() {
            Some(denial) => Err(denial),
            None => self.verdict(&pending.batch, &names).await,
        };
        match verdict {
            // A rewrite that is new would not be met: people approved the text as it is.
            Ok(Verdict::Allow(allowed))
                if rewrites(&allowed).all(|r| pending.settled.iter().any(|s| s == r))
                    && !is_uncapped(&pending, &allowed) =>
            {
                self.permit(pending, allowed, Some(request)).await
            }
            Ok(_) => Err(self.denied(&pending, policy_changed())),
            Err(denial) => Err(self.denied(&pending, denial)),
        }
    }

    /// What the policies in force ask people to approve before this may run.
    pub(super) async fn asked_now(&self, pending: &Pending) -> Result<Vec<ApprovalRule>, Denial> {
        match self.verdict(&pending.batch, &BTreeSet::new()).await? {
            Verdict::Allow(_) => Ok(Vec::new()),
            Verdict::Hold { rules, .. } => Ok(rules),
        }
    }

    fn request(
        &self,
        pending: &Pending,
        digest: Digest,
        rules: Vec<ApprovalRule>,
        delivery: Delivery,
    ) -> Result<AccessRequest, Denial> {
        let now = self.pipeline.clock.now();
        let ttl = rules.iter().map(|r| r.ttl).min().unwrap_or_default();
        Ok(AccessRequest {
            id: RequestId::random().map_err(internal)?,
            digest,
            session: self.info.id,
            requester: (*self.info.principal).clone(),
            target: self.info.target.clone(),
            rules,
            operations: pending
                .batch
                .operations()
                .iter()
                .map(|o| self.summary(o))
                .collect::<Result<_, _>>()?,
            delivery,
            created: now,
            expires: now.plus(ttl).min(self.info.principal.expires_at),
            state: RequestState::Pending,
            reviews: Vec::new(),
        })
    }

    fn summary(&self, operation: &Operation) -> Result<OperationSummary, Denial> {
        let mut exact = escape(&operation.statement);
        for (i, argument) in operation.arguments.iter().enumerate() {
            // One line for each argument, whatever is in it: a value cannot pose as another argument.
            let line = |bytes: &[u8]| escape(bytes).replace('\n', "\\n");
            let value = argument.value.as_deref().map_or_else(|| "NULL".to_owned(), line);
            exact.push_str(&format!("\n${} [{}] = {value}", i + 1, line(argument.kind.as_bytes())));
        }
        if exact.len() > MAX_REVIEWED_BYTES {
            let message = format!(
                "an operation of more than {MAX_REVIEWED_BYTES} bytes cannot be reviewed by a person"
            );
            return Err(
                Denial::new(DenialCode::LimitExceeded, message).with_hint("split it into smaller operations")
            );
        }
        Ok(OperationSummary {
            kind: operation.kind.to_string(),
            masked: shortened(self.recorded_text(operation)),
            exact,
            accesses: self.recorded_accesses(operation).to_vec(),
            estimate: Estimate::default(),
        })
    }

    fn digest(&self, batch: &Batch) -> Digest {
        self.pipeline.digest_key.batch_in(&self.digest, batch)
    }

    fn memo(&self) -> MutexGuard<'_, Memo> {
        self.memo.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The accesses as recordings and lists may show them.
    fn recorded_accesses(&self, operation: &Operation) -> Arc<[Access]> {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.accesses(&operation.accesses, &self.pipeline.scanner)
    }

    /// The facts as recordings may show them.
    fn recorded_facts(&self, operation: &Operation) -> Arc<Facts> {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.facts(&operation.facts, &operation.statement, &self.pipeline.scanner)
    }

    /// The statement as recordings and lists may show it.
    fn recorded_text(&self, operation: &Operation) -> String {
        let text = operation.recorded.as_ref().map_or(&*operation.statement, String::as_bytes);
        let masked = self.pipeline.scanner.mask(text, &ClassSet::default());
        let text = masked.as_ref().map_or(text, |masked| masked.text.as_slice());
        abridged(text)
    }

    /// As [`recorded_text`](Self::recorded_text), made once for a statement that comes again.
    fn recorded_statement(&self, operation: &Operation) -> Arc<str> {
        let make = || self.recorded_text(operation).into();
        if operation.recorded.is_some() { make() } else { self.memo().statement(&operation.statement, make) }
    }

    fn presented(&self, pending: &Pending) -> Result<Position, RecordError> {
        let operations =
            pending.batch.operations().iter().zip(pending.ids()).map(|(operation, id)| RecordedOperation {
                id,
                kind: operation.kind.clone(),
                stage: pending.batch.stage(),
                statement: self.recorded_statement(operation),
                statement_bytes: operation.statement.len() as u64,
                arguments: operation.arguments.len() as u64,
                effect: operation.effect,
                accesses: self.recorded_accesses(operation),
                facts: self.recorded_facts(operation),
            });
        let operations = operations.collect();
        self.record(Record::Presented { digest: self.digest(&pending.batch), operations })
    }

    pub(super) fn record_refusal(&self, pending: &Pending, denial: &Denial) -> Result<Position, RecordError> {
        self.presented(pending)?;
        self.record_denied(pending, denial)
    }

    /// The denial as recordings may show it: its words may repeat names that the agent wrote.
    fn recorded_denial(&self, denial: &Denial) -> RecordedDenial {
        let mut recorded = RecordedDenial::from(denial);
        if let Some(masked) = self.pipeline.scanner.mask(recorded.message.as_bytes(), &ClassSet::default()) {
            recorded.message = String::from_utf8_lossy(&masked.text).into_owned();
        }
        recorded
    }

    pub(super) fn record_denied(&self, pending: &Pending, denial: &Denial) -> Result<Position, RecordError> {
        self.counters.deny.increment(1);
        self.record(Record::Denied { operations: pending.ids(), denial: self.recorded_denial(denial) })
    }

    /// Records the refusal of a presented batch; a recorder that fails turns it into its own denial.
    fn denied(&self, pending: &Pending, denial: Denial) -> Denial {
        tracing::info!(session.id = %self.info.id, code = %denial.code, cause = denial.cause(), "operation denied");
        match self.record_refusal(pending, &denial) {
            Ok(_) => denial,
            Err(error) => recorder_failed(&error),
        }
    }
}

fn rewrites(allowed: &Allowed) -> impl Iterator<Item = &str> {
    allowed.obligations.iter().filter_map(|obligation| match obligation {
        Obligation::Rewrite(text) => Some(text.as_str()),
        _ => None,
    })
}

/// Whether a cap on changes would be promised and not kept.
fn is_uncapped(pending: &Pending, allowed: &Allowed) -> bool {
    let capped = allowed.obligations.iter().any(|duty| matches!(duty, Obligation::LimitAffected(_)));
    capped && !pending.undoes && pending.batch.effect() == Effect::Write
}

/// Adds what another operation of the batch was allowed by; together they last no longer than one operation.
fn merge(into: &mut Allowed, more: Allowed) {
    if into.rules.is_empty() && into.obligations.is_empty() {
        *into = more;
        return;
    }
    into.lasts = None;
    // One record for all of them: the fullest that any of them asks for.
    let kept = content(&into.obligations).max(content(&more.obligations));
    add(&mut into.rules, &more.rules);
    add(&mut into.obligations, &more.obligations);
    if into.obligations.iter().any(|duty| matches!(duty, Obligation::Record(_))) {
        let others = into.obligations.iter().filter(|duty| !matches!(duty, Obligation::Record(_))).cloned();
        let record = (kept != Content::Output).then_some(Obligation::Record(kept));
        into.obligations = others.chain(record).collect();
    }
}

fn add<T: Clone + PartialEq>(into: &mut Arc<[T]>, more: &[T]) {
    let new: Vec<_> = more.iter().filter(|item| !into.contains(item)).cloned().collect();
    if !new.is_empty() {
        *into = into.iter().cloned().chain(new).collect();
    }
}

/// Adds rules, one entry for each name; one name with two meanings is an error.
fn add_rules(into: &mut Vec<ApprovalRule>, more: Vec<ApprovalRule>) -> Result<(), Denial> {
    for rule in more {
        match into.iter_mut().find(|known| known.name == rule.name) {
            None => into.push(rule),
            Some(known) if known.reviewers == rule.reviewers && known.quorum == rule.quorum => {
                known.ttl = known.ttl.min(rule.ttl);
                known.rules.extend(rule.rules);
            }
            Some(known) => return Err(internal(format!("approval `{}` has two meanings", known.name))),
        }
    }
    Ok(())
}

/// A statement as it is kept: whole, or its two ends with a mark between them.
fn abridged(text: &[u8]) -> String {
    let half = MAX_RECORDED_STATEMENT_BYTES / 2;
    let left_out = text.len().saturating_sub(MAX_RECORDED_STATEMENT_BYTES);
    match (text.get(..half), text.get(half + left_out..)) {
        (Some(head), Some(tail)) if left_out > 0 => {
            format!("{}\n[... {left_out} bytes left out ...]\n{}", escape(head), escape(tail))
        }
        _ => escape(text),
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > MAX_LISTED_STATEMENT_BYTES {
        text.truncate(text.floor_char_boundary(MAX_LISTED_STATEMENT_BYTES));
        text.push('…');
    }
    text
}

/// Text for people: UTF-8 with control, bidirectional and invisible characters escaped, so that what is shown is what runs.
pub(super) fn escape(bytes: &[u8]) -> String {
    let plain = |b: &u8| matches!(b, b' '..=b'~' | b'\n' | b'\t');
    if let Ok(text) = std::str::from_utf8(bytes)
        && bytes.iter().all(plain)
    {
        return text.to_owned();
    }
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' | '\t' => out.push(c),
                c if is_deceptive(c) => out.extend(c.escape_unicode()),
                c => out.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
    }
    out
}

pub(super) fn approval_failed(error: &ApprovalError) -> Denial {
    let denial = match error {
        ApprovalError::TooMany(_) => Denial::new(DenialCode::LimitExceeded, error.to_string()),
        _ => Denial::new(
            DenialCode::ApprovalRequired,
            "this needs approval, and the approval store is not available",
        ),
    };
    denial.with_cause(error)
}

fn ask_again(request: RequestId) -> Denial {
    Denial::new(
        DenialCode::ApprovalRequired,
        format!("this needs approval; request {request} is waiting for a reviewer"),
    )
    .with_hint("present exactly the same operation again once it is approved")
    .with_approval(request.to_string())
}

pub(super) fn policy_changed() -> Denial {
    Denial::new(
        DenialCode::ApprovalRequired,
        "the policies changed while this was waiting and now ask for another approval",
    )
    .with_hint("present the operation again")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One operation's wish to keep less must not hide another's.
    #[test]
    fn a_batch_is_recorded_as_fully_as_any_of_it() {
        let allowed = |content: Content| Allowed {
            rules: [format!("{content:?}")].into(),
            obligations: match content {
                Content::Output => [].into(),
                content => [Obligation::Record(content)].into(),
            },
            lasts: None,
        };
        let all = [Content::Digest, Content::Output, Content::All];
        for (a, b) in all.iter().flat_map(|a| all.map(|b| (*a, b))) {
            let mut batch = allowed(a);
            merge(&mut batch, allowed(b));
            assert_eq!(content(&batch.obligations), a.max(b), "{a:?} {b:?}");
        }
    }

    #[test]
    fn long_statements_keep_both_ends() {
        let padded =
            |n: usize| format!("select 1 where '{}' = '' union all select ssn from customers", "x".repeat(n));
        let whole = padded(60_000);
        assert_eq!(abridged(whole.as_bytes()), whole);
        let long = padded(70_000);
        let kept = abridged(long.as_bytes());
        let mark = format!("\n[... {} bytes left out ...]\n", long.len() - MAX_RECORDED_STATEMENT_BYTES);
        let (head, tail) = kept.split_once(&mark).unwrap();
        assert!(head.starts_with("select 1") && tail.ends_with("select ssn from customers"));
        assert!(long.starts_with(head) && long.ends_with(tail));
        assert_eq!(head.len() + tail.len(), MAX_RECORDED_STATEMENT_BYTES);
        let exact = "y".repeat(MAX_RECORDED_STATEMENT_BYTES);
        assert_eq!(abridged(exact.as_bytes()), exact);
    }

    #[test]
    fn shows_what_runs() {
        assert_eq!(escape("a\u{202e}b\u{200b}\u{1b}[1m\n".as_bytes()), "a\\u{202e}b\\u{200b}\\u{1b}[1m\n");
        assert_eq!(escape(&[b'a', 0xff]), "a\\xff");
    }
}
