//! Puts an [`Analysis`] together.

use super::server::ServerCommand;
use super::{
    Analysis, Command, FileMode, FileUse, MAX_LISTED, Place, Reason, Risk, Unresolved, Word, excerpt,
    invocation, parse, simple,
};

/// What is gathered while a line is read.
#[derive(Debug, Default)]
pub(super) struct Findings(Analysis);

/// Where in the line the reader is.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    /// Of commands found here.
    pub(super) place: Place,
    /// Wrappers around them, outermost first.
    pub(super) behind: Vec<String>,
    /// Levels of code within code.
    pub(super) depth: usize,
}

impl Scope {
    const LINE: Self = Self { place: Place::Line, behind: Vec::new(), depth: 0 };

    /// The same wrappers, one level of code further in.
    pub(super) fn code(&self, place: Place) -> Self {
        Self { place, behind: self.behind.clone(), depth: self.depth + 1 }
    }

    /// The same level, another place.
    pub(super) fn at(&self, place: Place) -> Self {
        Self { place, ..self.clone() }
    }

    /// Behind one more wrapper.
    pub(super) fn behind(&self, wrapper: &str) -> Self {
        let mut behind = self.behind.clone();
        behind.push(wrapper.to_owned());
        Self { behind, ..self.clone() }
    }
}

/// See [`Analysis::of`].
pub(super) fn analyse(line: &[u8]) -> Analysis {
    let mut findings = Findings::default();
    let canonical = match simple::parse(line) {
        Some(argv) => exact(&mut findings, argv),
        None => parse::line(&mut findings, line, &Scope::LINE),
    };
    let mut analysis = findings.0;
    if canonical.is_none() && analysis.unresolved.is_empty() {
        let excerpt = excerpt(&String::from_utf8_lossy(line));
        analysis.unresolved.push(Unresolved { reason: Reason::Syntax, excerpt });
    }
    analysis.canonical = canonical;
    analysis
}

/// A line of the strict grammar.
fn exact(findings: &mut Findings, argv: Vec<String>) -> Option<String> {
    findings.0.argv = Some(argv.clone());
    findings.0.server = ServerCommand::of(&argv);
    if findings.0.server.as_ref().is_some_and(ServerCommand::writes) {
        findings.risk(Risk::WritesFile);
    }
    let words: Vec<Word> = argv.into_iter().map(Word::Static).collect();
    let words = match findings.0.server {
        // Its arguments are understood as a whole; the class of the program (`scp` connects elsewhere) does not apply.
        Some(_) => {
            findings.command(words.clone(), &Scope::LINE);
            words
        }
        None => invocation::judge(findings, words, &Scope::LINE),
    };
    render(&words)
}

/// The words in canonical form; `None` if one is computed or cannot be quoted.
pub(super) fn render(words: &[Word]) -> Option<String> {
    let argv: Option<Vec<String>> = words.iter().map(|word| word.text().map(str::to_owned)).collect();
    simple::canonical(&argv?)
}

impl Findings {
    /// Lists a command. False if there are too many: then look no further into it.
    pub(super) fn command(&mut self, argv: Vec<Word>, scope: &Scope) -> bool {
        let few = self.0.commands.len() < MAX_LISTED;
        if few {
            self.0.commands.push(Command { argv, behind: scope.behind.clone(), place: scope.place });
        } else {
            self.unresolved(Reason::TooLarge, "");
        }
        few
    }

    /// Lists a file.
    pub(super) fn file(&mut self, path: &str, mode: FileMode) {
        if mode != FileMode::Read {
            self.risk(Risk::WritesFile);
        }
        if self.0.files.len() < MAX_LISTED {
            self.0.files.push(FileUse { path: path.to_owned(), mode });
        } else {
            self.unresolved(Reason::TooLarge, "");
        }
    }

    /// Notes a risk.
    pub(super) fn risk(&mut self, risk: Risk) {
        self.0.risks.insert(risk);
    }

    /// Notes that something could not be told. Over the limit the earlier reasons stand; the analysis stays unresolved.
    pub(super) fn unresolved(&mut self, reason: Reason, text: &str) {
        let entry = Unresolved { reason, excerpt: excerpt(text) };
        if self.0.unresolved.len() < MAX_LISTED && !self.0.unresolved.contains(&entry) {
            self.0.unresolved.push(entry);
        }
    }

    /// How many things could not be told so far.
    pub(super) fn doubts(&self) -> usize {
        self.0.unresolved.len()
    }
}
