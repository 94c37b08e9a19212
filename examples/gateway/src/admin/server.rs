//! Answers reviewers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use gateway_core::approval::{ApprovalError, Approver, RequestId, Verdict};
use gateway_core::clock::Clock;
use gateway_core::credentials::Secret;
use gateway_core::identity::{Authenticator, Presented, PrincipalKind, VerifiedPrincipal, verify};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::audit::{AuditLog, Entry, Event};
use super::protocol::{
    Answer, Ask, MAX_COMMENT_BYTES, MAX_LISTED, MAX_REQUEST_BYTES, Refusal, RefusalCode, Request,
};
use super::socket::AdminSocket;

/// Reviewers connected at once. 32: people, not agents; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 32;
/// Longest time for one request: to send it, to have it answered, to take the answer. Issuers' keys may have to be fetched.
const REQUEST_TIME: Duration = Duration::from_secs(30);
/// Pause after a connection could not be accepted, when the machine is short of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the admin socket.
#[derive(Clone, Debug)]
pub(crate) struct AdminServer {
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) approver: Arc<dyn Approver>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) audit: Arc<AuditLog>,
}

impl AdminServer {
    /// Serves until `stop` is ready.
    pub(crate) async fn serve(self, socket: AdminSocket, stop: impl Future<Output = ()>) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let next = async {
                // The semaphore is never closed.
                let slot = Arc::clone(&slots).acquire_owned().await.ok();
                (slot, socket.accept().await)
            };
            let (slot, accepted) = tokio::select! {
                () = &mut stop => return,
                next = next => next,
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                Ok(stream) => {
                    let server = self.clone();
                    connections.spawn(async move {
                        if let Err(error) = server.connection(stream).await {
                            tracing::debug!(%error, "a reviewer's connection broke off");
                        }
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a reviewer's connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn connection(&self, stream: UnixStream) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        while tokio::time::timeout(REQUEST_TIME, self.one(&mut stream)).await?? {}
        Ok(())
    }

    /// Answers one request; false at the end of the connection.
    async fn one(&self, stream: &mut BufReader<UnixStream>) -> io::Result<bool> {
        let mut line = Vec::with_capacity(8 * 1024);
        (&mut *stream).take(MAX_REQUEST_BYTES).read_until(b'\n', &mut line).await?;
        let line = Secret::new(line);
        if line.expose().is_empty() {
            return Ok(false);
        }
        let whole = line.expose().ends_with(b"\n");
        let answer = if whole { self.answer(line.expose()).await } else { cut_off() };
        let mut out = serde_json::to_vec(&answer)?;
        out.push(b'\n');
        stream.get_mut().write_all(&out).await?;
        Ok(whole)
    }

    async fn answer(&self, line: &[u8]) -> Answer {
        // The cause is not repeated: it may quote the line, and with it the token.
        let Ok(Request { token, ask }) = serde_json::from_slice(line) else {
            let message = "this is not a request; is the client of the same version as the gateway?";
            return refused(RefusalCode::BadRequest, message);
        };
        let reviewer = match self.reviewer(token).await {
            Ok(reviewer) => reviewer,
            Err(refusal) => return Answer::Refused(refusal),
        };
        match self.act(&reviewer, ask).await {
            Ok(answer) => answer,
            Err(refusal) => Answer::Refused(refusal),
        }
    }

    /// Who asks: a person with a valid token, or nobody.
    async fn reviewer(&self, token: Secret<String>) -> Result<VerifiedPrincipal, Refusal> {
        let verified = verify(&*self.authenticator, &Presented::Token(token), &*self.clock).await;
        let principal = match verified {
            Ok(principal) => principal,
            Err(error) => {
                let message = format!("the reviewer's token was not accepted: {error}");
                self.note(None, Event::Refused, None, Some("token not accepted")).await?;
                return Err(Refusal { code: RefusalCode::Unauthenticated, message });
            }
        };
        if principal.kind == PrincipalKind::Human {
            return Ok(principal);
        }
        self.note(Some(&principal), Event::Refused, None, Some("not a person")).await?;
        let message = format!(
            "only people review, and this token is of the {} `{}`; present your own token",
            principal.kind.as_str(),
            principal.actor
        );
        Err(Refusal { code: RefusalCode::NotAPerson, message })
    }

    async fn act(&self, reviewer: &VerifiedPrincipal, ask: Ask) -> Result<Answer, Refusal> {
        match ask {
            Ask::List => {
                self.note(Some(reviewer), Event::Listed, None, None).await?;
                self.approver.list(reviewer, MAX_LISTED).await.map(Answer::Requests).map_err(Refusal::from)
            }
            Ask::Show { id } => {
                self.note(Some(reviewer), Event::Viewed, Some(id), None).await?;
                self.approver.show(id, reviewer).await.map(answer_one).map_err(Refusal::from)
            }
            Ask::Approve { id, comment } => self.review(reviewer, id, Verdict::Approve, comment).await,
            Ask::Reject { id, comment } => self.review(reviewer, id, Verdict::Reject, comment).await,
        }
    }

    /// A verdict that cannot be written down has no effect.
    async fn review(
        &self,
        reviewer: &VerifiedPrincipal,
        id: RequestId,
        verdict: Verdict,
        comment: Option<String>,
    ) -> Result<Answer, Refusal> {
        if comment.as_ref().is_some_and(|comment| comment.len() > MAX_COMMENT_BYTES) {
            let message = format!("the comment is longer than {MAX_COMMENT_BYTES} bytes; shorten it");
            return Err(Refusal { code: RefusalCode::BadRequest, message });
        }
        let event = match verdict {
            Verdict::Approve => Event::Approving,
            Verdict::Reject => Event::Rejecting,
        };
        self.note(Some(reviewer), event, Some(id), comment.as_deref()).await?;
        match self.approver.review(id, reviewer, verdict, comment, self.clock.now()).await {
            Ok(request) => {
                // The verdict stands whether or not this line can be written; the line before tells of it.
                let _ =
                    self.note(Some(reviewer), Event::Reviewed, Some(id), Some(request.state.as_str())).await;
                Ok(answer_one(request))
            }
            Err(error) => {
                self.note(Some(reviewer), Event::Refused, Some(id), Some(&error.to_string())).await?;
                Err(error.into())
            }
        }
    }

    /// Writes down what happens, in the log for good and in the log for watching.
    async fn note(
        &self,
        who: Option<&VerifiedPrincipal>,
        event: Event,
        request: Option<RequestId>,
        detail: Option<&str>,
    ) -> Result<(), Refusal> {
        let actor = who.map(|who| who.actor.clone());
        let (audit, at) = (Arc::clone(&self.audit), self.clock.now());
        let detail = detail.map(str::to_owned);
        let reviewer = actor.as_ref().map(ToString::to_string);
        tracing::info!(reviewer, ?event, request = request.map(|id| id.to_string()), "review channel");
        let append = move || {
            let entry = Entry::new(at, event, actor.as_ref()).about(request).detail(detail.as_deref());
            audit.append(&entry)
        };
        let written = tokio::task::spawn_blocking(append).await.map_err(io::Error::other).and_then(|r| r);
        written.map_err(|error| {
            tracing::error!(%error, "the audit log cannot be written");
            let message = "the audit log cannot be written, so nothing was done; tell the gateway's operator";
            Refusal { code: RefusalCode::Failed, message: message.to_owned() }
        })
    }
}

fn answer_one(request: gateway_core::approval::AccessRequest) -> Answer {
    Answer::Request(Box::new(request))
}

fn refused(code: RefusalCode, message: &str) -> Answer {
    Answer::Refused(Refusal { code, message: message.to_owned() })
}

fn cut_off() -> Answer {
    let message = format!("the request is cut off or longer than {MAX_REQUEST_BYTES} bytes");
    refused(RefusalCode::BadRequest, &message)
}

impl From<ApprovalError> for Refusal {
    fn from(error: ApprovalError) -> Self {
        let code = match &error {
            ApprovalError::Store(_) => RefusalCode::Failed,
            _ => RefusalCode::Refused,
        };
        Self { code, message: error.to_string() }
    }
}
