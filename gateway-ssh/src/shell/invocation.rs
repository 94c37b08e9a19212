//! What one command with its arguments does: wrappers opened, code followed, risks named.

use super::explain::{Findings, Scope};
use super::programs::{self, Class};
use super::scripts;
use super::server;
use super::wrappers::{self, Inner};
use super::{FileMode, Place, Reason, Risk, Word, forms, options, parse, simple};

/// Most wrappers in front of one command that are opened.
const MAX_WRAPPERS: usize = 16;

/// Lists a command and what it runs in turn. Gives the words to send: shell code among them is replaced by its canonical form, so
/// that the inner shell, too, runs what was judged.
pub(super) fn judge(findings: &mut Findings, words: Vec<Word>, scope: &Scope) -> Vec<Word> {
    if !findings.command(words.clone(), scope) {
        return words;
    }
    let mut invocation = Invocation { findings, scope, words };
    invocation.classify();
    invocation.words
}

struct Invocation<'a> {
    findings: &'a mut Findings,
    scope: &'a Scope,
    words: Vec<Word>,
}

impl Invocation<'_> {
    fn classify(&mut self) {
        let Some(program) = self.text(0).map(str::to_owned) else {
            return self.doubt(Reason::ComputedProgram);
        };
        let name = programs::basename(&program);
        self.traits(name);
        match programs::classify(name) {
            Class::Shell => self.shell(),
            Class::OtherShell => self.other_shell(),
            Class::Interpreter => self.interpreter(name),
            Class::Awk => self.awk(),
            Class::Sed => self.sed(),
            Class::Find => self.find(),
            Class::Xargs => self.xargs(name),
            Class::Tar => self.tar(),
            Class::Git => self.git(),
            Class::Rsync => self.rsync(),
            Class::Eval => self.eval(name),
            Class::Source => self.doubt_and(Reason::Script, Risk::RunsCode),
            Class::State => self.doubt_and(Reason::ShellState, Risk::ShellState),
            Class::Launcher => self.doubt_and(Reason::Launcher, Risk::RunsCode),
            Class::Remote => self.doubt_and(Reason::Remote, Risk::Network),
            Class::Server => self.doubt(Reason::Server),
            Class::Pager => self.findings.risk(Risk::ShellEscape),
            Class::Manager => self.manager(name),
            Class::Wrapper => self.wrapper(name),
            Class::Plain => {}
        }
    }

    /// Facts that hold whatever the arguments are, and options that hand over a command.
    fn traits(&mut self, name: &str) {
        for (holds, risk) in [
            (programs::is_detaching(name), Risk::Detached),
            (programs::is_privileged(name), Risk::Privilege),
            (programs::is_network(name), Risk::Network),
        ] {
            if holds {
                self.findings.risk(risk);
            }
        }
        if self.words.iter().skip(1).filter_map(Word::text).any(|word| options::is_command_option(name, word))
        {
            self.doubt_and(Reason::ForeignCode, Risk::RunsCode);
        }
        if programs::evaluates(name, &self.texts()) {
            self.doubt_and(Reason::ShellState, Risk::RunsCode);
        }
    }

    fn manager(&mut self, name: &str) {
        // Most show what they find in a pager.
        if name != "ip" {
            self.findings.risk(Risk::ShellEscape);
        }
        if !forms::starts_nothing(name, &self.texts()) {
            self.doubt_and(Reason::Launcher, Risk::RunsCode);
        }
    }

    /// `sh [options] [-c text | script]`, XCU `sh`.
    fn shell(&mut self) {
        self.findings.risk(Risk::Interpreter);
        let mut code = false;
        let mut at = 1;
        loop {
            match self.words.get(at) {
                None if code => return self.doubt(Reason::Shell),
                None => return self.doubt_and(Reason::CodeFromInput, Risk::RunsCode),
                Some(Word::Computed(_)) => return self.doubt_and(Reason::Shell, Risk::RunsCode),
                Some(Word::Static(word)) => match shell_option(word) {
                    ShellOption::Operand => break,
                    ShellOption::End => {
                        at += 1;
                        break;
                    }
                    ShellOption::Flags { has_code } => code |= has_code,
                    ShellOption::Prints => return,
                    ShellOption::Other => return self.doubt_and(Reason::Shell, Risk::RunsCode),
                },
            }
            at += 1;
        }
        if code { self.code_at(at) } else { self.doubt_and(Reason::Script, Risk::RunsCode) }
    }

    /// Follows the shell code in a word, and puts its canonical form there.
    fn code_at(&mut self, at: usize) {
        self.findings.risk(Risk::RunsCode);
        let Some(text) = self.text(at).map(str::to_owned) else {
            return self.doubt(Reason::Shell);
        };
        if let Some(canonical) = self.code(&text)
            && let Some(word) = self.words.get_mut(at)
        {
            *word = Word::Static(canonical);
        }
    }

    /// Follows shell code; `None` also if anything in it could not be told: then the text stays as it is.
    fn code(&mut self, text: &str) -> Option<String> {
        let before = self.findings.doubts();
        let canonical = parse::code(self.findings, text, &self.scope.code(Place::Code));
        if canonical.is_none() && self.findings.doubts() == before {
            self.findings.unresolved(Reason::Syntax, text);
        }
        canonical
    }

    fn other_shell(&mut self) {
        self.findings.risk(Risk::Interpreter);
        self.findings.risk(Risk::Dialect);
        self.doubt_and(Reason::ForeignCode, Risk::RunsCode);
    }

    fn interpreter(&mut self, name: &str) {
        self.findings.risk(Risk::Interpreter);
        let reason = match self.words.get(1) {
            None => Reason::CodeFromInput,
            Some(Word::Static(word)) if self.words.len() == 2 && programs::only_tells(name, word) => return,
            Some(Word::Static(word)) if word == "-" => Reason::CodeFromInput,
            Some(Word::Static(word)) if !word.starts_with('-') => Reason::Script,
            Some(_) => Reason::ForeignCode,
        };
        self.doubt_and(reason, Risk::RunsCode);
    }

    fn awk(&mut self) {
        self.findings.risk(Risk::Interpreter);
        if !scripts::awk_is_plain(&self.texts()) {
            self.doubt_and(Reason::ForeignCode, Risk::RunsCode);
        }
    }

    fn sed(&mut self) {
        let (plain, in_place) = scripts::sed(&self.texts());
        if in_place {
            self.findings.risk(Risk::WritesFile);
        }
        if !plain {
            self.doubt_and(Reason::ForeignCode, Risk::RunsCode);
        }
    }

    /// `find … -exec command ;`, `-delete`, `-fprint file`.
    fn find(&mut self) {
        let words = self.words.clone();
        let mut rest = words.get(1..).unwrap_or_default();
        while let Some((word, after)) = rest.split_first() {
            rest = after;
            match word.text() {
                Some("-exec" | "-execdir" | "-ok" | "-okdir") => {
                    let end =
                        rest.iter().position(|w| matches!(w.text(), Some(";" | "+"))).unwrap_or(rest.len());
                    let (inner, after) = rest.split_at_checked(end).unwrap_or((rest, &[]));
                    self.launched(inner, "find");
                    rest = after;
                }
                Some("-delete") => self.findings.risk(Risk::Deletes),
                Some("-fprint" | "-fprint0" | "-fprintf" | "-fls") => {
                    if let Some(path) = rest.first().and_then(Word::text) {
                        self.findings.file(path, FileMode::Write);
                    }
                }
                _ => {}
            }
        }
    }

    /// `xargs [options] command`: more arguments come from its input.
    fn xargs(&mut self, name: &str) {
        self.findings.risk(Risk::Wrapper);
        match wrappers::inner(name, &self.texts()) {
            Inner::Command { at, .. } if at < self.words.len() => {
                let mut inner = self.words.get(at..).unwrap_or_default().to_vec();
                inner.push(Word::Computed("{}".to_owned()));
                self.launched(&inner, name);
            }
            Inner::Command { .. } => self.doubt(Reason::ComputedWord),
            _ => self.doubt(Reason::WrapperGrammar),
        }
    }

    /// A command another program starts with file names of its own in place of `{}`.
    fn launched(&mut self, words: &[Word], by: &str) {
        self.findings.risk(Risk::RunsCode);
        self.doubt(Reason::ComputedWord);
        let words: Vec<Word> = words.iter().map(fill).collect();
        if !words.is_empty() && self.may_open() {
            judge(self.findings, words, &self.scope.behind(by).at(Place::Launched));
        }
    }

    fn tar(&mut self) {
        let mut code = false;
        let mut remote = false;
        for (at, word) in self.words.iter().enumerate().skip(1) {
            let Some(word) = word.text() else { continue };
            let cluster = at == 1 || (word.starts_with('-') && !word.starts_with("--"));
            code |= (cluster && word.contains(['I', 'F'])) || options::is_command_option("tar", word);
            remote |= word.contains(':');
        }
        if code {
            self.doubt_and(Reason::ForeignCode, Risk::RunsCode);
        }
        if remote {
            self.doubt_and(Reason::Remote, Risk::Network);
        }
    }

    fn git(&mut self) {
        let texts = self.texts();
        match scripts::git(&texts) {
            scripts::Git::Reads => {}
            scripts::Git::Connects => self.doubt_and(Reason::Remote, Risk::Network),
            scripts::Git::RunsCode => self.doubt_and(Reason::ForeignCode, Risk::RunsCode),
            scripts::Git::Other => self.doubt_and(Reason::Launcher, Risk::RunsCode),
        }
    }

    fn rsync(&mut self) {
        let texts: Vec<&str> = self.words.iter().skip(1).filter_map(Word::text).collect();
        let code = texts.iter().any(|w| w.starts_with('-') && !w.starts_with("--") && w.contains('e'));
        let long = texts.iter().any(|w| options::is_command_option("rsync", w));
        let remote = texts.iter().any(|w| w.contains(':') || *w == "--daemon" || *w == "--server");
        if texts.contains(&"--server") && texts.iter().any(|w| server::has_hidden_arguments(w)) {
            self.doubt(Reason::HiddenArguments);
        } else if code || long {
            self.doubt_and(Reason::ForeignCode, Risk::RunsCode);
        }
        if remote {
            self.doubt_and(Reason::Remote, Risk::Network);
        }
    }

    /// `eval words…` and `trap text signal…`.
    fn eval(&mut self, name: &str) {
        self.findings.risk(Risk::ShellState);
        if name == "eval" {
            return self.joined_code(1);
        }
        match self.text(1) {
            None if self.words.len() < 2 => {}
            Some("" | "-" | "-l" | "-p") => {}
            _ => self.code_at(1),
        }
        self.doubt(Reason::ShellState);
    }

    /// Words from `at` on, joined by blanks, are code.
    fn joined_code(&mut self, at: usize) {
        self.findings.risk(Risk::RunsCode);
        let words: Option<Vec<&str>> = self.words.iter().skip(at).map(Word::text).collect();
        let Some(text) = words.map(|words| words.join(" ")) else {
            return self.doubt(Reason::Shell);
        };
        if let Some(canonical) = self.code(&text) {
            self.words.truncate(at);
            self.words.push(Word::Static(canonical));
        }
    }

    fn wrapper(&mut self, name: &str) {
        self.findings.risk(Risk::Wrapper);
        let found = wrappers::inner(name, &self.texts());
        match found {
            Inner::Command { at, environment } => {
                if environment {
                    self.doubt_and(Reason::Environment, Risk::Environment);
                }
                if name == "chroot" {
                    self.doubt(if at < self.words.len() { Reason::Launcher } else { Reason::Shell });
                }
                self.wrapped(name, at);
            }
            Inner::Code(at) => self.code_at(at),
            Inner::JoinedCode(at) => self.joined_code(at),
            Inner::Nothing => {}
            Inner::Shell => self.doubt_and(Reason::Shell, Risk::RunsCode),
            Inner::Unknown => self.doubt(Reason::WrapperGrammar),
        }
    }

    /// Judges the command behind a wrapper; its words replace those here.
    fn wrapped(&mut self, name: &str, at: usize) {
        if at >= self.words.len() || !self.may_open() {
            return;
        }
        // No program is called so: the wrapper reads the word as an option or a variable that its grammar here does not
        // know, and runs something behind it (`nice +5 ls` of csh).
        if self.text(at).is_some_and(|word| !simple::is_program(word)) {
            return self.doubt(Reason::WrapperGrammar);
        }
        if matches!(name, "busybox" | "toybox") && self.text(at).is_some_and(is_unknown_applet) {
            self.doubt_and(Reason::Launcher, Risk::RunsCode);
        }
        let inner = self.words.split_off(at);
        let inner = judge(self.findings, inner, &self.scope.behind(name));
        self.words.extend(inner);
    }

    fn may_open(&mut self) -> bool {
        let few = self.scope.behind.len() < MAX_WRAPPERS;
        if !few {
            self.doubt(Reason::TooLarge);
        }
        few
    }

    fn text(&self, at: usize) -> Option<&str> {
        self.words.get(at).and_then(Word::text)
    }

    fn texts(&self) -> Vec<Option<&str>> {
        self.words.iter().map(Word::text).collect()
    }

    fn doubt(&mut self, reason: Reason) {
        let text: Vec<&str> = self.words.iter().map(source).collect();
        self.findings.unresolved(reason, &text.join(" "));
    }

    fn doubt_and(&mut self, reason: Reason, risk: Risk) {
        self.findings.risk(risk);
        self.doubt(reason);
    }
}

fn source(word: &Word) -> &str {
    match word {
        Word::Static(text) | Word::Computed(text) => text,
    }
}

/// An argument of `find -exec` or `xargs`: computed where the name is put in.
fn fill(word: &Word) -> Word {
    match word {
        Word::Static(text) if text.contains("{}") => Word::Computed(text.clone()),
        other => other.clone(),
    }
}

/// What a box of many programs runs by a name that is known neither here nor as harmless.
fn is_unknown_applet(applet: &str) -> bool {
    let name = programs::basename(applet);
    programs::classify(name) == Class::Plain && !forms::is_plain_applet(name)
}

/// What a word before a shell's code or script is.
enum ShellOption {
    Flags { has_code: bool },
    Operand,
    End,
    Prints,
    Other,
}

fn shell_option(word: &str) -> ShellOption {
    match word {
        "--" | "-" => ShellOption::End,
        "--version" | "--help" => ShellOption::Prints,
        "--norc" | "--noprofile" | "--posix" => ShellOption::Flags { has_code: false },
        _ => {
            let Some(letters) = word.strip_prefix(['-', '+']) else { return ShellOption::Operand };
            // Not here: `i`, `l`, `s`, `o`, `O`, `D`, `r`, which read files or input, or take a value.
            if letters.bytes().all(|b| b"abcefhkmnptuvxBCEHPT".contains(&b)) {
                ShellOption::Flags { has_code: word.starts_with('-') && letters.contains('c') }
            } else {
                ShellOption::Other
            }
        }
    }
}
