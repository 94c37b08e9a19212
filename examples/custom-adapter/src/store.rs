//! The store itself: the real upstream of this example, small enough to read. It knows one account and no gateway.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use gateway_core::credentials::{Secret, UpstreamCredential};
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};

use crate::Lines;

/// Keys the store holds at most, of at most one line each: 64 MiB.
const MAX_KEYS: usize = 1_000;

/// Lines of the journal kept at most; older ones go first.
const MAX_JOURNAL: usize = 1_000;

/// A key-value server. Cheap to clone; all clones are the same store.
#[derive(Clone, Debug, Default)]
pub struct KvServer(Arc<Mutex<Store>>);

#[derive(Debug, Default)]
struct Store {
    values: BTreeMap<Bytes, Bytes>,
    journal: Vec<Bytes>,
}

impl KvServer {
    /// Serves clients that log in with `account`, until the listener fails or the future is dropped.
    ///
    /// # Errors
    /// The listener fails.
    pub async fn serve(self, listener: TcpListener, account: UpstreamCredential) -> io::Result<()> {
        let account = Arc::new(account);
        loop {
            let (tcp, _) = listener.accept().await?;
            let (server, account) = (self.clone(), Arc::clone(&account));
            tokio::spawn(async move { server.client(tcp, &account).await });
        }
    }

    /// Starts a store of its own on a free port of loopback, with a random password.
    ///
    /// # Errors
    /// No port, or no randomness.
    pub async fn start() -> io::Result<(Self, SocketAddr, UpstreamCredential)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let random: [u8; 16] = gateway_core::random::bytes().map_err(io::Error::other)?;
        let password = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let account =
            UpstreamCredential::Password { username: "gateway".to_owned(), password: Secret::new(password) };
        let server = Self::default();
        tokio::spawn(server.clone().serve(listener, account.clone()));
        Ok((server, address, account))
    }

    /// The commands that arrived, oldest first.
    pub fn journal(&self) -> Vec<Bytes> {
        self.store().journal.clone()
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn client(&self, tcp: TcpStream, account: &UpstreamCredential) -> io::Result<()> {
        let mut lines = Lines(BufReader::new(tcp));
        let secret = account.secrets().next().map(|secret| secret.expose().clone()).unwrap_or_default();
        let expected = format!("AUTH {} {secret}", account.username());
        if lines.next().await?.is_none_or(|line| line != expected) {
            return lines.write(b"NO\n").await;
        }
        lines.write(b"OK\n").await?;
        while let Some(line) = lines.next().await? {
            let answer = self.store().run(&line);
            lines.write(&answer).await?;
        }
        Ok(())
    }
}

impl Store {
    fn run(&mut self, line: &Bytes) -> Vec<u8> {
        if self.journal.len() == MAX_JOURNAL {
            self.journal.remove(0);
        }
        self.journal.push(line.clone());
        let words: Vec<Bytes> =
            line.splitn(3, |byte| *byte == b' ').map(|word| line.slice_ref(word)).collect();
        match words.as_slice() {
            [verb, key] if verb == "GET" => match self.values.get(key) {
                Some(value) => [b"VALUE ", &value[..], b"\n"].concat(),
                None => b"NONE\n".to_vec(),
            },
            [verb, key, value] if verb == "SET" => self.set(key, value),
            [verb, key] if verb == "DEL" => {
                self.values.remove(key).map_or_else(|| b"NONE\n".to_vec(), |_| b"OK\n".to_vec())
            }
            [verb] if verb == "KEYS" => {
                let keys = self.values.keys().map(|key| [b"KEY ", &key[..], b"\n"].concat());
                keys.chain([b"END\n".to_vec()]).flatten().collect()
            }
            _ => b"ERROR\n".to_vec(),
        }
    }

    fn set(&mut self, key: &Bytes, value: &Bytes) -> Vec<u8> {
        if self.values.len() >= MAX_KEYS && !self.values.contains_key(key) {
            return b"ERROR\n".to_vec();
        }
        self.values.insert(key.clone(), value.clone());
        b"OK\n".to_vec()
    }
}
