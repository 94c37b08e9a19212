//! Moves bytes between the two connections and the session, and waits for what the session waits for. The only file here that
//! knows time and sockets after login.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use gateway_core::approval::Delivery;
use gateway_core::error::{Denial, DenialCode};
use gateway_core::intake::Intake;
use gateway_core::pipeline::{Guard, Held, Judged, Permit, Released};
use gateway_core::session::CloseReason;
use tokio::io::AsyncWrite;
use tokio::sync::Notify;
use tokio::time::Sleep;

use crate::codec::ProtocolError;
use crate::io::BoxedStream;
use crate::login::upstream::CancelKey;
use crate::rewriter::PgRewriter;
use crate::session::{Judge, MAX_WAIT, Session, Task};

/// Bytes waiting for a slow client before the gateway stops reading from the server.
const MAX_QUEUED_DOWNSTREAM: usize = 1024 * 1024;

/// Bytes waiting for a slow server before the gateway stops reading from the client.
const MAX_QUEUED_UPSTREAM: usize = 1024 * 1024;

/// What a session keeps of the buffer to the server once all of it is written, in bytes: room for short statements.
const KEPT_UPSTREAM: usize = 2 * 1024;

/// Bytes of the client kept while its operation waits for people; more is left in the socket.
const MAX_WAITING: usize = 256 * 1024;

/// Pieces written with one system call.
const MAX_PIECES: usize = 16;

/// Rounds without waiting after which the clock is looked at again. 32: at most some milliseconds of work.
const LIFE_ROUNDS: u32 = 32;

/// How long what is left to say may take when a session ends.
const FAREWELL: Duration = Duration::from_secs(5);

/// What the driver waits for on behalf of the session.
enum Judgement {
    /// Both may pass.
    Forward(Option<Permit>, Option<Permit>),
    Refuse(Denial),
    /// People are asked; the prepared part may pass already.
    Held(Option<Permit>, Box<Held>),
}

type Settling = Pin<Box<dyn Future<Output = Result<(), Denial>> + Send>>;

type Deciding = Pin<Box<dyn Future<Output = Judgement> + Send>>;

/// A session with its two connections.
pub(crate) struct Driver {
    session: Session,
    guard: Guard,
    rewriter: PgRewriter,
    down: BoxedStream,
    up: BoxedStream,
    down_in: Intake,
    up_in: Intake,
    down_out: VecDeque<Bytes>,
    down_flush: bool,
    up_flush: bool,
    /// The buffer to the server has grown beyond [`KEPT_UPSTREAM`].
    up_large: bool,
    deciding: Option<Deciding>,
    holding: bool,
    /// The client cancelled while it was being judged: it is not to be held.
    cancel_wanted: bool,
    /// Waits for another session to be out of the way.
    waiting: Option<Pin<Box<dyn Future<Output = bool> + Send>>>,
    wait_until: tokio::time::Instant,
    /// Waits for the recorder to take more, or for new masks.
    catching_up: Option<Settling>,
    /// With strict recording: waits until what is to be sent is on disk.
    settling: Option<Settling>,
    settled: bool,
    expiry: Pin<Box<Sleep>>,
    cancel: CancelKey,
    /// A cancel of the gateway's own is under way. Until the server has taken it nothing more is sent, or it could hit what comes next
    /// (tcop/postgres.c, `ProcessInterrupts`: it is ignored between commands).
    cancelling: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// A cancel of the client's, on its way to the server.
    passing_on: Option<tokio::task::JoinHandle<()>>,
    cancel_asked: Arc<Notify>,
    ended: Option<CloseReason>,
}

impl Driver {
    pub(crate) fn new(
        session: Session,
        guard: Guard,
        rewriter: PgRewriter,
        (down, up): (BoxedStream, BoxedStream),
        cancel: CancelKey,
        cancel_asked: Arc<Notify>,
    ) -> Self {
        let left = guard.expires_at().since(guard.pipeline().clock().now());
        Self {
            session,
            guard,
            rewriter,
            down,
            up,
            down_in: Intake::default(),
            up_in: Intake::default(),
            down_out: VecDeque::new(),
            down_flush: false,
            up_flush: false,
            up_large: false,
            deciding: None,
            holding: false,
            cancel_wanted: false,
            waiting: None,
            wait_until: tokio::time::Instant::now(),
            catching_up: None,
            settling: None,
            settled: false,
            // Far-away expiries are looked at again once a day: the timer cannot hold centuries.
            expiry: Box::pin(tokio::time::sleep(left.min(Duration::from_secs(86_400)))),
            cancel,
            cancelling: None,
            passing_on: None,
            cancel_asked,
            ended: None,
        }
    }

    /// Runs the session to its end and seals its recording.
    pub(crate) async fn run(mut self: Box<Self>, greeting: Released) -> CloseReason {
        self.down_out.push_back(greeting.into_bytes());
        let cancel_asked = Arc::clone(&self.cancel_asked);
        let mut asked = Box::pin(cancel_asked.notified());
        poll_fn(|cx| {
            while asked.as_mut().poll(cx).is_ready() {
                asked = Box::pin(cancel_asked.notified());
                self.client_cancels();
            }
            self.poll(cx)
        })
        .await;
        let reason = self.ended.take().unwrap_or(CloseReason::Downstream);
        // On the heap once the session ends: while it lasts it needs no room for its end.
        Box::pin(self.leave(reason.clone())).await;
        reason
    }

    async fn leave(&mut self, reason: CloseReason) {
        self.farewell().await;
        if let Err(error) = self.guard.close(reason).await {
            tracing::error!(%error, session.id = %self.guard.info().id, "the recording could not be sealed");
        }
    }

    /// Sends what is left to be said, for a bounded time; a statement still running is cancelled.
    async fn farewell(&mut self) {
        self.deciding = None;
        let busy = !self.session.is_idle();
        if self.guard.is_strict() && self.guard.settle().await.is_err() {
            self.down_out.clear();
        }
        let say = async {
            poll_fn(|cx| self.poll_write_down(cx)).await?;
            poll_fn(|cx| Pin::new(&mut self.down).poll_shutdown(cx)).await
        };
        let _ = tokio::time::timeout(FAREWELL, say).await;
        if busy {
            let _ = tokio::time::timeout(FAREWELL, self.cancel.cancel()).await;
        }
        let leave = async {
            poll_fn(|cx| self.poll_write_up(cx)).await?;
            poll_fn(|cx| Pin::new(&mut self.up).poll_shutdown(cx)).await
        };
        let _ = tokio::time::timeout(FAREWELL, leave).await;
        if busy || self.session.is_defining() {
            let _ = tokio::time::timeout(FAREWELL, self.until_server_is_done()).await;
        }
    }

    /// The server closes its connection once it has finished or undone what it was doing. Until then the session's changes of
    /// definitions, and its uses of them, count for the other sessions.
    async fn until_server_is_done(&mut self) {
        while let Ok(1..) = poll_fn(|cx| self.up_in.poll_read(&mut self.up, cx)).await {
            self.up_in.bytes.clear();
        }
    }

    /// Does whatever can be done now; ready when the session is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut rounds = (0..LIFE_ROUNDS).cycle();
        loop {
            if rounds.next() == Some(0) || self.guard.has_failed() {
                self.check_life(cx);
            }
            match self.step(cx) {
                Ok(true) if self.ended.is_none() => {}
                Ok(false) if self.ended.is_none() => return Poll::Pending,
                Ok(_) => return Poll::Ready(()),
                Err(reason) => {
                    self.ended.get_or_insert(reason);
                    return Poll::Ready(());
                }
            }
        }
    }

    /// One round; true if there may be something left to do that nothing will wake the session for.
    fn step(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        let mut moved = self.tasks();
        moved |= self.poll_deciding(cx);
        moved |= self.poll_waiting(cx);
        moved |= self.poll_cancelling(cx);
        moved |= self.poll_catching_up(cx);
        moved |= self.poll_settling(cx);
        if moved {
            self.resume()?;
        }
        // Everything else that moved so far is done with below.
        let begun = self.queue_output() | (moved && self.deciding.is_some());
        self.writes(cx)?;
        if self.session.is_closed() {
            return if self.down_out.is_empty() { Err(CloseReason::Downstream) } else { Ok(false) };
        }
        let read = self.read_up(cx)? | self.read_down(cx)?;
        Ok(begun || read || self.session.has_tasks())
    }

    /// Ends the session when its identity or its recorder is over, also in the middle of a result.
    fn check_life(&mut self, cx: &mut Context<'_>) {
        let woken = self.expiry.as_mut().poll(cx).is_ready();
        let Some(reason) = self.guard.is_over() else {
            if woken {
                let left = self.guard.expires_at().since(self.guard.pipeline().clock().now());
                let again = left.clamp(Duration::from_millis(1), Duration::from_secs(86_400));
                self.expiry.as_mut().reset(tokio::time::Instant::now() + again);
                let _ = self.expiry.as_mut().poll(cx);
            }
            return;
        };
        if self.ended.is_none() {
            let denial = match reason {
                CloseReason::IdentityExpired => {
                    Denial::new(DenialCode::IdentityExpired, "the identity has expired")
                        .with_hint("connect again with a new token")
                }
                _ => Denial::new(DenialCode::RecorderFailed, "the session can no longer be recorded"),
            };
            self.session.end(&denial);
            self.take_output();
            self.ended = Some(reason);
        }
    }

    fn tasks(&mut self) -> bool {
        let mut any = false;
        while let Some(task) = self.session.poll_task() {
            any = true;
            match task {
                Task::Judge(judge) => {
                    let rewriter = PgRewriter {
                        possible: judge.rewritable,
                        backgrounds: Arc::clone(&judge.backgrounds),
                        prepared: judge.prepare.as_ref().map_or(0, |p| p.batch().operations().len()),
                        search_path: self.session.search_path(),
                        settings: Arc::clone(self.session.settings()),
                        ..self.rewriter.clone()
                    };
                    self.deciding = Some(Box::pin(decide(self.guard.clone(), judge, rewriter)));
                }
                Task::Wait { seen, first } => self.wait(seen, first),
                Task::CancelUpstream => self.cancel_own(),
            }
        }
        any
    }

    /// Waits until a session is done that may be in the way.
    fn wait(&mut self, seen: Option<u64>, first: bool) {
        if first {
            self.wait_until = tokio::time::Instant::now() + MAX_WAIT;
        }
        let (until, freed) = (self.wait_until, self.session.definitions().freed_since(seen));
        self.waiting = Some(Box::pin(async move {
            tokio::time::timeout_at(until, freed).await.is_ok() && tokio::time::Instant::now() < until
        }));
    }

    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(waiting) = &mut self.waiting else { return false };
        let Poll::Ready(freed) = waiting.as_mut().poll(cx) else { return false };
        self.waiting = None;
        self.session.wake(freed);
        true
    }

    /// Has the server stop what the gateway does not let through.
    fn cancel_own(&mut self) {
        let cancel = self.cancel.clone();
        self.cancelling.get_or_insert_with(|| Box::pin(pass_on(cancel)));
    }

    fn poll_cancelling(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(cancelling) = &mut self.cancelling else { return false };
        if cancelling.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.cancelling = None;
        true
    }

    /// Passes the client's cancel on beside everything else. One at a time: while one is on its way another would do no more.
    fn cancel_upstream(&mut self) {
        if self.passing_on.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
            self.passing_on = Some(tokio::spawn(pass_on(self.cancel.clone())));
        }
    }

    /// The client's CancelRequest: ends a hold, or what runs at the server.
    fn client_cancels(&mut self) {
        if self.holding {
            self.deciding = None;
            self.holding = false;
            self.session.refuse(&cancelled_by_client());
        } else if self.waiting.take().is_some() {
            self.session.stop_waiting(&cancelled_by_client());
        } else if self.deciding.is_some() {
            self.cancel_wanted = true;
        } else {
            self.cancel_upstream();
        }
    }

    fn poll_deciding(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deciding) = &mut self.deciding else { return false };
        let Poll::Ready(judgement) = deciding.as_mut().poll(cx) else { return false };
        self.deciding = None;
        let held = std::mem::take(&mut self.holding);
        let cancelled = std::mem::take(&mut self.cancel_wanted);
        match judgement {
            Judgement::Forward(prepare, execute) if cancelled => {
                self.session.withdraw_permits(prepare, execute, &cancelled_by_client());
            }
            Judgement::Forward(prepare, execute) if held => self.session.forward_approved(prepare, execute),
            Judgement::Forward(prepare, execute) => self.session.forward(prepare, execute),
            Judgement::Refuse(denial) => self.session.refuse(&denial),
            Judgement::Held(_, held) if cancelled => {
                self.deciding = Some(Box::pin(async move { Judgement::Refuse(held.cancel().await) }));
            }
            Judgement::Held(prepare, held) => {
                self.session.notice(held_notice(&held));
                self.holding = true;
                self.deciding = Some(Box::pin(async move { after_hold(prepare, *held).await }));
            }
        }
        true
    }

    fn poll_catching_up(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(waiting) = &mut self.catching_up else { return false };
        let Poll::Ready(done) = waiting.as_mut().poll(cx) else { return false };
        self.catching_up = None;
        match done {
            Ok(()) => self.session.adopt_masks(),
            Err(denial) => self.session.end(&denial),
        }
        true
    }

    fn poll_settling(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(settling) = &mut self.settling else { return false };
        let Poll::Ready(done) = settling.as_mut().poll(cx) else { return false };
        self.settling = None;
        self.settled = done.is_ok();
        // A recorder that failed ends the session; see `check_life`.
        true
    }

    /// Takes what may be sent. With strict recording it is on disk first; true if the wait for that begins.
    fn queue_output(&mut self) -> bool {
        if self.guard.is_strict() && !self.settled {
            let begins = self.session.has_output() && self.settling.is_none();
            if begins {
                let guard = self.guard.clone();
                self.settling = Some(Box::pin(async move { guard.settle().await }));
            }
            return begins;
        }
        self.settled = false;
        self.take_output();
        false
    }

    fn take_output(&mut self) {
        while let Some(released) = self.session.poll_downstream() {
            self.down_out.push_back(released.into_bytes());
        }
    }

    fn writes(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        if let Poll::Ready(Err(_)) = self.poll_write_down(cx) {
            return Err(CloseReason::Downstream);
        }
        if self.cancelling.is_some() {
            return Ok(());
        }
        match self.poll_write_up(cx) {
            Poll::Ready(Err(_)) => Err(self.upstream_lost()),
            _ => Ok(()),
        }
    }

    fn poll_write_down(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.down_out.front().is_some_and(Bytes::is_empty) {
                self.down_out.pop_front();
            }
            if self.down_out.is_empty() {
                break;
            }
            let written = match (self.down_out.len(), self.down_out.front()) {
                (1, Some(only)) => Pin::new(&mut self.down).poll_write(cx, only),
                _ => {
                    let mut pieces = [IoSlice::new(&[]); MAX_PIECES];
                    pieces.iter_mut().zip(&self.down_out).for_each(|(to, piece)| *to = IoSlice::new(piece));
                    let used = pieces.get(..self.down_out.len().min(MAX_PIECES)).unwrap_or_default();
                    Pin::new(&mut self.down).poll_write_vectored(cx, used)
                }
            };
            match ready!(written?) {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written_down(written),
            }
            self.down_flush = true;
        }
        if self.down_flush {
            ready!(Pin::new(&mut self.down).poll_flush(cx))?;
            self.down_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    fn written_down(&mut self, mut written: usize) {
        while let Some(front) = self.down_out.front_mut().filter(|_| written > 0) {
            let part = written.min(front.len());
            front.advance(part);
            written -= part;
            if front.is_empty() {
                self.down_out.pop_front();
            }
        }
    }

    fn poll_write_up(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let out = self.session.upstream_bytes();
        self.up_large |= out.len() > KEPT_UPSTREAM;
        while !out.is_empty() {
            match Pin::new(&mut self.up).poll_write(cx, out)? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(n) => out.advance(n),
                Poll::Pending => return Poll::Pending,
            }
            self.up_flush = true;
        }
        // Asking what names mean takes some kilobytes, and a session asks seldom.
        if std::mem::take(&mut self.up_large) {
            *out = BytesMut::new();
        }
        if self.up_flush {
            ready!(Pin::new(&mut self.up).poll_flush(cx))?;
            self.up_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    fn queued_down(&self) -> usize {
        self.down_out.iter().map(Bytes::len).sum()
    }

    /// Reads from the server unless the client or the recorder is behind, or masks have to be asked anew.
    fn read_up(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        if self.catching_up.is_some() || self.queued_down() > MAX_QUEUED_DOWNSTREAM {
            return Ok(false);
        }
        let stale = self.session.results().is_some_and(|r| r.is_stale());
        if stale || !self.guard.has_room() {
            let guard = self.guard.clone();
            self.catching_up = Some(Box::pin(async move { guard.catch_up().await }));
            return Ok(true);
        }
        match self.up_in.poll_read(&mut self.up, cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(n)) if n > 0 => {
                let handled = self.session.handle_upstream(&mut self.up_in.bytes);
                handled.map_err(|e| self.violation(&e, "server"))?;
                self.resume()?;
                Ok(true)
            }
            Poll::Ready(_) => Err(self.upstream_lost()),
        }
    }

    /// Reads from the client unless the server is behind or the session cannot take more yet.
    fn read_down(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        let full = self.session.upstream_bytes().len() > MAX_QUEUED_UPSTREAM;
        let waiting = self.deciding.is_some() || self.session.is_judging();
        if full
            || (waiting && self.down_in.bytes.len() > MAX_WAITING)
            || self.down_in.bytes.len() > self.session.max_input()
        {
            return Ok(false);
        }
        match self.down_in.poll_read(&mut self.down, cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(n)) if n > 0 => {
                self.resume()?;
                Ok(true)
            }
            Poll::Ready(_) => Err(CloseReason::Downstream),
        }
    }

    /// Lets the session look at what the client has sent so far.
    fn resume(&mut self) -> Result<(), CloseReason> {
        let handled = self.session.handle_downstream(&mut self.down_in.bytes);
        handled.map_err(|e| self.violation(&e, "client"))
    }

    fn violation(&mut self, error: &ProtocolError, side: &str) -> CloseReason {
        tracing::info!(%error, side, session.id = %self.guard.info().id, "protocol violation");
        let denial =
            Denial::new(DenialCode::NotUnderstood, format!("protocol violation by the {side}: {error}"));
        self.session.end(&denial);
        self.take_output();
        CloseReason::ProtocolViolation(error.to_string())
    }

    fn upstream_lost(&mut self) -> CloseReason {
        if !self.session.is_closed() {
            let denial = Denial::new(DenialCode::UpstreamUnavailable, "the server closed the connection")
                .with_hint("connect again");
            self.session.end(&denial);
            self.take_output();
        }
        CloseReason::Upstream
    }
}

/// Judges what is prepared first, then what runs.
async fn decide(guard: Guard, judge: Judge, rewriter: PgRewriter) -> Judgement {
    let prepare = match judge.prepare {
        None => None,
        Some(pending) => match guard.judge(pending, &rewriter).await {
            Judged::Permit(permit) => Some(*permit),
            Judged::Refused(refused) => return Judgement::Refuse(refused.denial),
            Judged::Held(held) => return Judgement::Refuse(held.cancel().await),
        },
    };
    let Some(pending) = judge.execute else { return Judgement::Forward(prepare, None) };
    let judged = if judge.in_transaction {
        // A hold inside an open transaction would keep its locks: the agent comes back once it is approved.
        guard.judge_for(pending, &rewriter, Delivery::Retry).await
    } else {
        guard.judge(pending, &rewriter).await
    };
    match judged {
        Judged::Permit(permit) => Judgement::Forward(prepare, Some(*permit)),
        Judged::Refused(refused) => Judgement::Refuse(refused.denial),
        Judged::Held(held) => Judgement::Held(prepare, held),
    }
}

async fn after_hold(prepare: Option<Permit>, held: Held) -> Judgement {
    match held.wait().await {
        Judged::Permit(permit) => Judgement::Forward(prepare, Some(*permit)),
        Judged::Refused(refused) => Judgement::Refuse(refused.denial),
        Judged::Held(held) => Judgement::Refuse(held.cancel().await),
    }
}

/// In the server's own words (ProcessInterrupts).
/// Has the server cancel what runs, in the time that may take.
async fn pass_on(cancel: CancelKey) {
    match tokio::time::timeout(FAREWELL, cancel.cancel()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "cancel could not be passed on"),
        Err(_) => tracing::warn!("the server did not take a cancel in time"),
    }
}

fn cancelled_by_client() -> Denial {
    Denial::new(DenialCode::Cancelled, "canceling statement due to user request")
}

fn held_notice(held: &Held) -> crate::codec::encode::Fields {
    let reviewers: Vec<_> = held.reviewers().collect();
    vec![
        (b'S', "NOTICE".to_owned()),
        (b'V', "NOTICE".to_owned()),
        (b'C', "01000".to_owned()),
        (
            b'M',
            format!("gateway: held for approval by {}; request {}", reviewers.join(" and "), held.request()),
        ),
        (b'H', format!("waiting until {}; cancel to give up", held.expires())),
    ]
}
