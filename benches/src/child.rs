//! Processes that a bench starts.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Result;

/// A process that ends with its pipe: when this is dropped, and when we die.
#[derive(Debug)]
pub(crate) struct Supervised(Child);

impl Drop for Supervised {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

impl Supervised {
    /// Starts it with its input and output connected to us.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        Ok(Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?))
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// The next line of its output.
    ///
    /// # Errors
    /// It ended before.
    pub(crate) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let output = self.0.stdout.as_mut().ok_or("the output is not connected")?;
        // It prints one line and nothing after it.
        BufReader::new(output).read_line(&mut line)?;
        if line.is_empty() { Err("it ended before it was ready".into()) } else { Ok(line) }
    }

    /// Writes its settings as one line to its input: not arguments, which everybody may read. Reads what it says to that.
    ///
    /// # Errors
    /// It does not get ready.
    pub(crate) fn configure<T: DeserializeOwned>(&mut self, settings: &impl Serialize) -> Result<T> {
        let input = self.0.stdin.as_mut().ok_or("the input is not connected")?;
        serde_json::to_writer(&mut *input, settings)?;
        input.write_all(b"\n")?;
        Ok(serde_json::from_str(&self.line()?)?)
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// It fails on its way out.
    pub(crate) fn stop(mut self) -> Result<()> {
        drop(self.0.stdin.take());
        let status = self.0.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the gateway ended with {status}").into()) }
    }
}
