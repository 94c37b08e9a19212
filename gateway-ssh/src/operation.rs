//! From a channel request to what it does to what.

use std::borrow::Cow;

use bytes::Bytes;
use gateway_core::error::Denial;
use gateway_core::operation::{Access, Action, Argument, Effect, Fact, Facts, Operation, Resource};

use crate::command::Command;
use crate::sftp::FileAction;
use crate::upstream::door::Expected;

/// The policy schema fragment of this protocol.
pub const SCHEMA: &str = include_str!("../schema/ssh.cedarschema");

/// Longest `exec` request, in bytes: longer ones are refused, not cut.
pub(crate) const MAX_COMMAND_BYTES: usize = 128 * 1024;

/// A terminal as it was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Terminal {
    pub(crate) term: String,
    pub(crate) size: Size,
    pub(crate) modes: Vec<(russh::Pty, u32)>,
}

/// Columns, rows, and both in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) columns: u32,
    pub(crate) rows: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// A screen of the client's that programs may draw on (RFC 4254 section 6.3.1).
#[derive(Clone)]
pub(crate) struct Screen {
    pub(crate) single: bool,
    pub(crate) protocol: String,
    pub(crate) cookie: String,
    pub(crate) number: u32,
}

impl std::fmt::Debug for Screen {
    /// The cookie opens the screen.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("number", &self.number).finish_non_exhaustive()
    }
}

/// What has been granted for the channel before its program starts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setting {
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) terminal: Option<Terminal>,
    /// The program may ask the client's agent.
    pub(crate) agent: bool,
    /// The program may draw on the client's screen.
    pub(crate) screen: Option<Screen>,
    /// The terminal is judged when it is known what for.
    pub(crate) unjudged: bool,
    /// A terminal was asked for and refused: so is the program that wanted it.
    pub(crate) refused: Option<Denial>,
}

impl Setting {
    /// What gives a program its meaning besides its line: shown to whoever reviews it, and part of what an approval is bound to.
    fn bind(&self, operation: &mut Operation) {
        for (name, value) in &self.environment {
            operation.arguments.push(argument(format!("env {name}"), value));
        }
        if self.terminal.is_some() {
            operation.arguments.push(argument("pty".to_owned(), "yes"));
        }
        for expected in self.expected() {
            operation.arguments.push(argument(format!("{expected:?}").to_lowercase(), "yes"));
        }
    }

    /// Which channels the target may open while the program runs.
    pub(crate) fn expected(&self) -> Vec<Expected> {
        let agent = self.agent.then_some(Expected::Agent);
        let screen = self.screen.as_ref().map(|_| Expected::X11);
        agent.into_iter().chain(screen).collect()
    }
}

/// Something that belongs to an operation besides its statement.
pub(crate) fn argument(kind: String, value: &str) -> Argument {
    Argument { kind, value: Some(Bytes::copy_from_slice(value.as_bytes())) }
}

fn operation(
    kind: &'static str,
    statement: impl Into<Bytes>,
    resource: Resource,
    facts: impl IntoIterator<Item = (&'static str, Fact)>,
) -> Operation {
    let mut operation = Operation::new(kind, statement);
    operation.accesses = [Access::new(Action::new(kind), resource)].into();
    let facts: Facts = facts.into_iter().map(|(name, fact)| (Cow::Borrowed(name), fact)).collect();
    operation.facts = facts.into();
    operation
}

/// A command line: `exec` for each program, `exec_unresolved` if there may be more, and `serve` for a well-known server.
pub(crate) fn exec(target: &Resource, command: &Command, setting: &Setting) -> Operation {
    let mut exec = Operation::new("exec", command.line.clone());
    let access =
        |action: &'static str, name: &str| Access::new(Action::new(action), target.child("Command", name));
    let mut accesses: Vec<_> = command.programs.iter().map(|program| access("exec", program)).collect();
    accesses.extend(command.server.map(|server| access("serve", server)));
    let mut known = command.resolved && !accesses.is_empty();
    for (path, written) in &command.files {
        let action = Action::new(if *written { "redirect_write" } else { "redirect_read" });
        // A name before `..` may be a link: only the host knows what is before that.
        match file(target, path.as_bytes()).filter(|_| !crate::sftp::goes_back(path.as_bytes())) {
            Some(resource) => accesses.push(Access::new(action, resource)),
            None => known = false,
        }
    }
    if !known {
        accesses.push(Access::new(Action::new("exec_unresolved"), target.clone()));
    }
    let mut facts = command.facts.clone();
    facts.insert(Cow::Borrowed("pty"), setting.terminal.is_some().into());
    (exec.accesses, exec.facts) = (accesses.into(), facts.into());
    setting.bind(&mut exec);
    exec
}

/// A file by its absolute path: each component in the one before. `None` if it is relative, no text, or too deep.
pub(crate) fn file(target: &Resource, path: &[u8]) -> Option<Resource> {
    let text = std::str::from_utf8(path).ok().filter(|path| !path.contains('\0'))?;
    let clean =
        crate::sftp::normalise(text.as_bytes(), None).and_then(|path| String::from_utf8(path).ok())?;
    let components: Vec<_> = clean.split('/').filter(|name| !name.is_empty()).collect();
    if components.len() > MAX_PATH_DEPTH {
        return None;
    }
    let root = if components.is_empty() { target.child("Path", "") } else { target.clone() };
    let file = components.iter().fold(root, |folder, name| folder.child("Path", *name));
    Some(file.with("path", clean))
}

/// Adds what a file action needs to be permitted, once. Flushing and closing need nothing.
pub(crate) fn touch(accesses: &mut Vec<Access>, action: FileAction, path: &Resource) {
    let action = match action {
        FileAction::Read => "read_file",
        FileAction::Write | FileAction::Create | FileAction::Truncate | FileAction::Append => "write_file",
        FileAction::List => "list_files",
        FileAction::Stat | FileAction::Resolve => "stat_file",
        FileAction::Setstat => "set_attributes",
        FileAction::Remove | FileAction::Rmdir => "remove_file",
        FileAction::Mkdir => "make_directory",
        FileAction::Rename | FileAction::Replace => "rename_file",
        FileAction::Symlink | FileAction::Hardlink => "link_file",
        FileAction::Readlink => "read_link",
        FileAction::Sync | FileAction::Close => return,
    };
    let access = Access::new(Action::new(action), path.clone());
    if !accesses.contains(&access) {
        accesses.push(access);
    }
}

/// Most components of a path; each is an entity for policy.
const MAX_PATH_DEPTH: usize = 64;

/// A login shell.
pub(crate) fn shell(target: &Resource, setting: &Setting) -> Operation {
    let mut shell = operation("shell", "", target.clone(), [("pty", Fact::from(setting.terminal.is_some()))]);
    setting.bind(&mut shell);
    shell
}

/// A session of commands, each judged by itself; it changes nothing by itself.
pub(crate) fn command_shell(target: &Resource, setting: &Setting) -> Operation {
    let pty = Fact::from(setting.terminal.is_some());
    let mut shell = operation("command_shell", "", target.clone(), [("pty", pty)]);
    setting.bind(&mut shell);
    shell.effect = Effect::Read;
    shell
}

/// Another folder for the coming lines of a session of commands. `None` if it is no path that can be judged.
pub(crate) fn change_directory(target: &Resource, folder: &str) -> Option<Operation> {
    let path = file(target, folder.as_bytes())?;
    let mut change = operation("change_directory", format!("cd {folder}"), path, []);
    change.effect = Effect::Read;
    Some(change)
}

/// A subsystem; starting one changes nothing by itself.
pub(crate) fn subsystem(target: &Resource, name: &str, setting: &Setting) -> Operation {
    let mut subsystem = operation("subsystem", name.to_owned(), target.child("Subsystem", name), []);
    setting.bind(&mut subsystem);
    subsystem.effect = if name == "sftp" { Effect::Read } else { Effect::Write };
    subsystem
}

/// A terminal; it changes nothing by itself.
pub(crate) fn pty(target: &Resource, terminal: &Terminal) -> Operation {
    let Terminal { term, size, .. } = terminal;
    let statement = format!("{term} {}x{}", size.columns, size.rows);
    let mut pty = operation("pty", statement, target.clone(), [("term", Fact::from(term.as_str()))]);
    pty.effect = Effect::Read;
    pty
}

/// A variable for the next program; it changes nothing by itself.
pub(crate) fn env(target: &Resource, name: &str, value: &str) -> Operation {
    let statement = format!("{name}={value}");
    let mut env = operation("env", statement, target.child("Variable", name), [("value", value.into())]);
    env.effect = Effect::Read;
    env
}

/// A signal for the running program.
pub(crate) fn signal(target: &Resource, name: &str) -> Operation {
    operation("signal", name.to_owned(), target.clone(), [("signal", name.into())])
}

/// A TCP forward; `kind` is `direct_tcpip` or `tcpip_forward`.
pub(crate) fn tcp(target: &Resource, kind: &'static str, host: &str, port: u32) -> Operation {
    let name = format!("{host}:{port}");
    let endpoint = target.child("Endpoint", &*name).with("host", host).with("port", i64::from(port));
    operation(kind, name, endpoint, [])
}

/// A socket forward; `kind` is `direct_streamlocal` or `streamlocal_forward`.
pub(crate) fn socket(target: &Resource, kind: &'static str, path: &str) -> Operation {
    operation(kind, path.to_owned(), target.child("Socket", path), [])
}

/// Whether a socket's path means the same however it is read: absolute, and nothing in it to be taken away. Other spellings of a
/// path would be other resources.
pub(crate) fn is_socket_path(path: &str) -> bool {
    path.len() <= crate::sftp::MAX_PATH_BYTES
        && !path.contains('\0')
        && path.starts_with('/')
        && crate::sftp::normalise(path.as_bytes(), None).is_some_and(|clean| clean == path.as_bytes())
}

/// `agent_forward` or `x11`.
pub(crate) fn forwarding(target: &Resource, kind: &'static str) -> Operation {
    operation(kind, "", target.clone(), [])
}
