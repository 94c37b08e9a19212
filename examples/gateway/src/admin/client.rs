//! Asks a running gateway.

use std::path::Path;
use std::time::Duration;

use gateway_core::credentials::Secret;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::protocol::{Answer, Ask, MAX_ANSWER_BYTES, Request};
use crate::output::Failure;

/// Longest wait for an answer: longer than the gateway's own limit, whose message says more.
const ANSWER_TIME: Duration = Duration::from_secs(40);

/// A connection to the admin socket, with one reviewer's token.
#[derive(Debug)]
pub(crate) struct AdminClient {
    stream: BufReader<UnixStream>,
    token: Secret<String>,
}

impl AdminClient {
    /// Connects to the socket at `path`.
    pub(crate) async fn connect(path: &Path, token: Secret<String>) -> Result<Self, Failure> {
        let stream = UnixStream::connect(path).await.map_err(|e| {
            let path = path.display();
            Failure::new(format!(
                "cannot reach a gateway at `{path}`: {e}; is it running, is this its `admin_socket`, and are you its user?"
            ))
        })?;
        Ok(Self { stream: BufReader::new(stream), token })
    }

    /// Asks, and waits for the answer. A refusal is a failure with the gateway's words.
    pub(crate) async fn ask(&mut self, ask: Ask) -> Result<Answer, Failure> {
        match tokio::time::timeout(ANSWER_TIME, self.exchange(ask)).await {
            Ok(Ok(Answer::Refused(refusal))) => Err(Failure::new(refusal.message)),
            Ok(result) => result,
            Err(_) => Err(Failure::new("the gateway did not answer in time; look into its log")),
        }
    }

    async fn exchange(&mut self, ask: Ask) -> Result<Answer, Failure> {
        let request = Request { token: self.token.clone(), ask };
        let line = Secret::new(serde_json::to_string(&request)? + "\n");
        self.stream.get_mut().write_all(line.expose().as_bytes()).await?;
        let mut answer = Vec::new();
        (&mut self.stream).take(MAX_ANSWER_BYTES).read_until(b'\n', &mut answer).await?;
        if !answer.ends_with(b"\n") {
            return Err(Failure::new("the gateway ended the connection; look into its log"));
        }
        let wrong = |_| Failure::new("the answer cannot be read; is the gateway of the same version?");
        serde_json::from_slice(&answer).map_err(wrong)
    }
}
