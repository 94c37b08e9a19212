//! Asks a running gateway.

use std::os::unix::fs::MetadataExt;
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
    ///
    /// The token goes to whoever listens there, who could then approve with it. So nobody but the folder's owner may write there, and it is the
    /// caller, that owner or root who listens.
    pub(crate) async fn connect(path: &Path, token: Secret<String>) -> Result<Self, Failure> {
        let owner = closed_folder(path)?;
        let stream = UnixStream::connect(path).await.map_err(|e| unreachable(path, &e))?;
        let (peer, own) = (stream.peer_cred()?.uid(), UnixStream::pair()?.0.peer_cred()?.uid());
        if !may_listen(peer, owner, own) {
            return Err(Failure::new(format!(
                "user {peer} listens at `{}`, not you or the owner of its folder; your token was not sent, name the gateway's own socket",
                path.display()
            )));
        }
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

fn unreachable(path: &Path, error: &std::io::Error) -> Failure {
    let path = path.display();
    Failure::new(format!(
        "cannot reach a gateway at `{path}`: {error}; is it running, is this its `admin_socket`, and are you its user?"
    ))
}

/// The owner of the socket's folder, in which nobody else may write.
fn closed_folder(socket: &Path) -> Result<u32, Failure> {
    let folder = socket.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let shown = folder.display();
    let folder = std::fs::metadata(folder).map_err(|e| unreachable(socket, &e))?;
    if folder.mode() & 0o022 == 0 {
        return Ok(folder.uid());
    }
    Err(Failure::new(format!(
        "others may write in `{shown}`, so anybody could listen there; your token was not sent, name the gateway's own socket"
    )))
}

const fn may_listen(peer: u32, folder_owner: u32, own: u32) -> bool {
    peer == 0 || peer == folder_owner || peer == own
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn a_token_is_not_shown_where_anybody_may_listen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        for (mode, good) in [(0o700, true), (0o755, true), (0o777, false), (0o1777, false), (0o720, false)] {
            std::fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
            let connected = AdminClient::connect(&path, Secret::from("token")).await;
            assert_eq!(connected.is_ok(), good, "{mode:o}");
        }
    }

    #[test]
    fn strangers_do_not_listen_for_the_gateway() {
        assert!(may_listen(0, 7, 8) && may_listen(7, 7, 8) && may_listen(8, 7, 8));
        assert!(!may_listen(65534, 7, 8));
    }
}
