//! What an `exec` request would run: the bytes of the request in, facts for policy and the line to send out.
//!
//! Three degrees of certainty, best first:
//!
//! 1. [`Analysis::argv`]: the line is one simple command in the strict grammar of [`simple`]; its argv is exact.
//! 2. [`Analysis::canonical`]: every word is literal and the line is made of simple commands, pipelines, lists, groups and
//!    redirections. The gateway sends this re-serialised form, so a shell can only run what was judged, whatever
//!    the original bytes would have meant to it.
//! 3. Everything else is explained as far as it can be; [`Analysis::unresolved`] says what could not be told.
//!
//! [`Analysis::canonical`] can be there while [`Analysis::unresolved`] is not empty: `python3 -c '…'` is an exact argv,
//! yet nobody here knows what the Python text does. What is *not* done here: no environment, working directory, alias, function
//! or `PATH` of the target is known, so `ls` means whatever the target's `PATH` says. Permit absolute paths where that matters.

mod explain;
mod extent;
mod forms;
mod invocation;
mod options;
mod parse;
mod programs;
mod scripts;
mod server;
pub mod simple;
mod walk;
mod word;
mod wrappers;

use std::collections::BTreeSet;

use gateway_core::operation::{Fact, Facts};
use serde::{Deserialize, Serialize};

pub use server::{GitService, ServerCommand};

/// Longest line that is parsed at all, in bytes. Longer ones are unresolved; the parser needs some 0.5 us per byte.
pub const MAX_LINE_BYTES: usize = 16 * 1024;
/// Most opening brackets, backquotes and compound keywords in a line. The parser recurses, and retries, on each.
pub const MAX_OPENERS: usize = 64;
/// Deepest nesting of code within code (`sh -c "sh -c …"`, substitutions) that is followed.
pub const MAX_CODE_DEPTH: usize = 6;
/// Most commands, files and reasons listed; what comes after is counted as [`Reason::TooLarge`].
pub const MAX_LISTED: usize = 256;
/// Longest excerpt of the line in an [`Unresolved`], in characters.
pub const MAX_EXCERPT_CHARS: usize = 80;

/// What is known about one `exec` line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Analysis {
    /// The exact argument vector, program first, if the line is one simple command in the strict grammar.
    pub argv: Option<Vec<String>>,
    /// What the gateway must send instead of the original bytes. `None`: there is no form of this line whose meaning is known,
    /// and `unresolved` says why.
    ///
    /// With `argv` it means the same to every login shell tested ([`simple::canonical`]); without, it may hold operators and
    /// redirections, which fish and csh read differently: send it to POSIX login shells only (dash and bash are tested).
    pub canonical: Option<String>,
    /// A well-known server started over SSH, if `argv` is exactly one.
    pub server: Option<ServerCommand>,
    /// Every command found, in the order of the text, those inside wrappers, substitutions and `-c` texts included.
    pub commands: Vec<Command>,
    /// Files the shell opens for redirections, and those that `find -fprint` writes. Not the files named in arguments.
    pub files: Vec<FileUse>,
    /// What kinds of construct and program occur.
    pub risks: BTreeSet<Risk>,
    /// What could not be told. Empty: `commands` and `files` are complete.
    pub unresolved: Vec<Unresolved>,
}

/// One command the line may run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The words as the shell would pass them; the first is the program.
    pub argv: Vec<Word>,
    /// The wrappers (`sudo`, `env`, …) it was found behind, outermost first.
    pub behind: Vec<String>,
    /// Where in the line it stands.
    pub place: Place,
}

impl Command {
    /// The program as written, if it is literal: `/usr/bin/ls` or `ls`.
    pub fn program(&self) -> Option<&str> {
        self.argv.first().and_then(Word::text)
    }

    /// The last component of the program's path, if it is literal.
    pub fn name(&self) -> Option<&str> {
        self.program().map(programs::basename)
    }
}

/// One argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// Exactly this text.
    Static(String),
    /// Computed when it runs; the source text, cut to [`MAX_EXCERPT_CHARS`].
    Computed(String),
}

impl Word {
    /// The text, if it is literal.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Static(text) => Some(text),
            Self::Computed(_) => None,
        }
    }
}

/// Where a command stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In the line itself.
    Line,
    /// In `$(…)`, backquotes or `<(…)`.
    Substitution,
    /// In a function's body: runs when it is called.
    Function,
    /// In text handed to another interpreter: `sh -c`, `eval`, `trap`, `watch`.
    Code,
    /// Run by another program with arguments of its own: `xargs`, `find -exec`.
    Launched,
}

/// A file opened for a redirection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileUse {
    /// As written: may be relative to a working directory that is not known here.
    pub path: String,
    /// How it is opened.
    pub mode: FileMode,
}

/// How a redirection opens its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileMode {
    /// `<`
    Read,
    /// `>` and `>|`: created or emptied.
    Write,
    /// `>>`
    Append,
    /// `<>`
    ReadWrite,
}

/// A kind of construct or program that policies may want to name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// `NAME=value` before a command, or for `env` and `sudo`.
    Environment,
    /// `&`
    Background,
    /// `$((…))`
    Arithmetic,
    /// `if`, `for`, `while`, `case`.
    ControlFlow,
    /// What outlives the session: `nohup`, `setsid`, `at`, `crontab`, `systemd-run`, `tmux`.
    Detached,
    /// A construct that POSIX shells and bash read differently.
    Dialect,
    /// Deletes by `find -delete`.
    Deletes,
    /// Defines a function.
    Function,
    /// `*`, `?`, `[…]`, `{a,b}` or `~`.
    Glob,
    /// `<<` or `<<<`.
    HereDocument,
    /// A general interpreter: shells, Python, awk, editors.
    Interpreter,
    /// More than one command: `;`, `&&`, `||`, newline.
    List,
    /// Opens a network connection: `/dev/tcp`, `ssh`, `nc`.
    Network,
    /// Bytes outside printable ASCII, tab and newline.
    OddBytes,
    /// `|`
    Pipeline,
    /// Runs with other rights: `sudo`, `su`, `doas`, `pkexec`.
    Privilege,
    /// Text is given to an interpreter as code, or an option names a command to run.
    RunsCode,
    /// The program offers a shell escape to whoever operates it: pagers, `man`, `top`.
    ShellEscape,
    /// Changes how later words are read or run: `alias`, `trap`, `export`, `set`, `hash`.
    ShellState,
    /// `(…)`
    Subshell,
    /// `$(…)`, backquotes, `<(…)`.
    Substitution,
    /// `$name`, `${…}`
    Variable,
    /// A program whose arguments are another command.
    Wrapper,
    /// Opens a file for writing.
    WritesFile,
}

/// Something that could not be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unresolved {
    /// Why.
    pub reason: Reason,
    /// The part of the line, cut to [`MAX_EXCERPT_CHARS`]; it may hold secrets, as the line itself may.
    pub excerpt: String,
}

/// Why something could not be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Over [`MAX_LINE_BYTES`], [`MAX_OPENERS`], [`MAX_CODE_DEPTH`] or [`MAX_LISTED`].
    TooLarge,
    /// Nothing but blanks or a comment.
    Empty,
    /// Not UTF-8, or a character outside printable ASCII, tab and newline.
    OddBytes,
    /// The parser does not accept it.
    Syntax,
    /// The program's name is computed.
    ComputedProgram,
    /// An argument is computed from values as they are: variables, globs, braces, tilde, sums of numbers, input of `xargs`.
    ComputedWord,
    /// Contains a command substitution, or an expansion that may run those in a variable's value: `$((x))`, `${a[x]}`, `${x@P}`, `${x:=…}`.
    Substitution,
    /// Shells disagree about it.
    Dialect,
    /// Loops and conditions: which commands run is not known.
    ControlFlow,
    /// Defines a function.
    Function,
    /// A here-document: its text is input of a command.
    HereDocument,
    /// Sets environment variables, which can redirect any program (`LD_PRELOAD`, `PATH`, `GIT_SSH`).
    Environment,
    /// Changes the shell's own state: aliases, traps, options, variables.
    ShellState,
    /// A file is run as code.
    Script,
    /// An interpreter reads its code from its input.
    CodeFromInput,
    /// Code in a language that is not analysed.
    ForeignCode,
    /// The program starts other programs by its own rules.
    Launcher,
    /// Options of a wrapper that are not known exactly.
    WrapperGrammar,
    /// Runs on another host.
    Remote,
    /// A redirection to the network or to a computed file.
    Redirection,
    /// A shell is started that reads commands, or start-up files.
    Shell,
    /// The server takes its file names from the wire instead of its arguments (`rsync -s`).
    HiddenArguments,
    /// A server that takes requests over the channel, in a form that is not recognised as a [`ServerCommand`].
    Server,
}

impl Analysis {
    /// Analyses the bytes of an `exec` request. Never fails: what is not understood is in `unresolved`.
    pub fn of(line: &[u8]) -> Self {
        explain::analyse(line)
    }

    /// Whether `commands` and `files` are all that the line does.
    pub fn resolved(&self) -> bool {
        self.unresolved.is_empty()
    }

    /// Names of all programs (last path component) that are known to be in the line.
    pub fn names(&self) -> BTreeSet<String> {
        self.commands.iter().filter_map(Command::name).map(str::to_owned).collect()
    }

    /// Programs as written.
    pub fn programs(&self) -> BTreeSet<String> {
        self.commands.iter().filter_map(Command::program).map(str::to_owned).collect()
    }

    /// Paths that redirections write.
    pub fn writes(&self) -> BTreeSet<String> {
        self.paths(|mode| mode != FileMode::Read)
    }

    /// Paths that redirections read.
    pub fn reads(&self) -> BTreeSet<String> {
        self.paths(|mode| matches!(mode, FileMode::Read | FileMode::ReadWrite))
    }

    /// The reasons in `unresolved`, each once.
    pub fn reasons(&self) -> BTreeSet<Reason> {
        self.unresolved.iter().map(|u| u.reason).collect()
    }

    /// The facts for policy: `exact`, `resolved` (Bool); `programs`, `program_paths`, `writes`, `reads`, `risks`, `unresolved`
    /// (Set of String); `server` (String, empty if none); `server_paths` (Set of
    /// String, what it is started on, as written).
    pub fn facts(&self) -> Facts {
        let mut facts = Facts::new();
        facts.insert("exact".into(), self.argv.is_some().into());
        facts.insert("resolved".into(), self.resolved().into());
        facts.insert("programs".into(), Fact::Set(self.names()));
        facts.insert("program_paths".into(), Fact::Set(self.programs()));
        facts.insert("writes".into(), Fact::Set(self.writes()));
        facts.insert("reads".into(), Fact::Set(self.reads()));
        facts.insert("risks".into(), self.risks.iter().map(|r| r.as_str().to_owned()).collect());
        facts.insert("unresolved".into(), self.reasons().iter().map(|r| r.as_str().to_owned()).collect());
        facts.insert("server".into(), self.server.as_ref().map_or("", ServerCommand::name).into());
        let paths = self.server.as_ref().map(ServerCommand::paths).unwrap_or_default();
        facts.insert("server_paths".into(), paths.into_iter().map(str::to_owned).collect());
        facts
    }

    fn paths(&self, wanted: impl Fn(FileMode) -> bool) -> BTreeSet<String> {
        self.files.iter().filter(|f| wanted(f.mode)).map(|f| f.path.clone()).collect()
    }
}

/// The name serde gives a variant, so that facts and records agree.
macro_rules! names {
    ($type:ident: $($variant:ident $name:literal),+ $(,)?) => {
        impl $type {
            /// All values.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its name in facts and records.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

names!(Risk:
    Environment "environment", Background "background", Arithmetic "arithmetic", ControlFlow "control_flow",
    Detached "detached", Dialect "dialect", Deletes "deletes", Function "function", Glob "glob",
    HereDocument "here_document", Interpreter "interpreter", List "list", Network "network", OddBytes "odd_bytes",
    Pipeline "pipeline", Privilege "privilege", RunsCode "runs_code", ShellEscape "shell_escape",
    ShellState "shell_state", Subshell "subshell", Substitution "substitution", Variable "variable",
    Wrapper "wrapper", WritesFile "writes_file",
);
names!(Reason:
    TooLarge "too_large", Empty "empty", OddBytes "odd_bytes", Syntax "syntax", ComputedProgram "computed_program",
    ComputedWord "computed_word", Substitution "substitution", Dialect "dialect", ControlFlow "control_flow",
    Function "function", HereDocument "here_document", Environment "environment", ShellState "shell_state",
    Script "script", CodeFromInput "code_from_input", ForeignCode "foreign_code", Launcher "launcher",
    WrapperGrammar "wrapper_grammar", Remote "remote", Redirection "redirection", Shell "shell",
    HiddenArguments "hidden_arguments", Server "server",
);

/// Whether a command goes on in the next line: a quote, bracket, here-document or compound command is open, or the line end is quoted.
pub(crate) fn is_unfinished(text: &str) -> bool {
    parse::is_unfinished(text)
}

/// Cuts text for an excerpt.
fn excerpt(text: &str) -> String {
    text.chars().take(MAX_EXCERPT_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_facts_are_those_of_serde() {
        for risk in Risk::ALL {
            assert_eq!(serde_json::to_value(risk).unwrap(), risk.as_str());
        }
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}
