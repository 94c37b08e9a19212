//! Walks a syntax tree: lists what it would run and writes its canonical form.
//!
//! Every method gives the canonical text of its part, or `None` after noting why there is none.

use brush_parser::ast;

use super::explain::{Findings, Scope, render};
use super::word::Parts;
use super::{FileMode, Place, Reason, Risk, Word, excerpt, invocation, parse, simple};

/// A walk over one piece of code.
pub(super) struct Walk<'a> {
    findings: &'a mut Findings,
    scope: Scope,
}

impl<'a> Walk<'a> {
    pub(super) const fn new(findings: &'a mut Findings, scope: Scope) -> Self {
        Self { findings, scope }
    }

    /// A whole piece of code.
    pub(super) fn program(&mut self, program: &ast::Program) -> Option<String> {
        if program.complete_commands.len() > 1 {
            self.findings.risk(Risk::List);
        }
        let parts: Vec<_> = program.complete_commands.iter().map(|list| self.list(list)).collect();
        let parts: Option<Vec<String>> = parts.into_iter().collect();
        let mut out = String::new();
        for part in parts? {
            separate(&mut out);
            out.push_str(&part);
        }
        (!out.is_empty()).then_some(out)
    }

    fn list(&mut self, list: &ast::CompoundList) -> Option<String> {
        if list.0.len() > 1 {
            self.findings.risk(Risk::List);
        }
        let mut out = Some(String::new());
        for ast::CompoundListItem(and_or, separator) in &list.0 {
            let part = self.and_or(and_or);
            out = out.zip(part).map(|(mut out, part)| {
                separate(&mut out);
                out + &part
            });
            if matches!(separator, ast::SeparatorOperator::Async) {
                self.findings.risk(Risk::Background);
                out = out.map(|out| out + " &");
            }
        }
        out
    }

    fn and_or(&mut self, list: &ast::AndOrList) -> Option<String> {
        let mut out = self.pipeline(&list.first);
        for next in &list.additional {
            self.findings.risk(Risk::List);
            let (operator, pipeline) = match next {
                ast::AndOr::And(pipeline) => (" && ", pipeline),
                ast::AndOr::Or(pipeline) => (" || ", pipeline),
            };
            let part = self.pipeline(pipeline);
            out = out.zip(part).map(|(out, part)| out + operator + &part);
        }
        out
    }

    fn pipeline(&mut self, pipeline: &ast::Pipeline) -> Option<String> {
        let mut out = Some(if pipeline.bang { "! ".to_owned() } else { String::new() });
        if pipeline.timed.is_some() {
            out = self.doubt(Reason::Dialect, Some(Risk::Dialect), "time");
        }
        if pipeline.seq.len() > 1 {
            self.findings.risk(Risk::Pipeline);
        }
        for (index, command) in pipeline.seq.iter().enumerate() {
            let part = self.command(command);
            let pipe = if index > 0 { " | " } else { "" };
            out = out.zip(part).map(|(out, part)| out + pipe + &part);
        }
        out.filter(|out| !out.trim_end().is_empty() && out != "! ")
    }

    fn command(&mut self, command: &ast::Command) -> Option<String> {
        match command {
            ast::Command::Simple(simple) => self.simple(simple),
            ast::Command::Compound(compound, redirects) => {
                let body = self.compound(compound);
                let redirects = self.redirects(redirects.as_ref());
                body.zip(redirects).map(|(body, redirects)| body + &redirects)
            }
            ast::Command::Function(function) => self.function(function),
            ast::Command::ExtendedTest(test, redirects) => {
                self.test(&test.expr);
                self.redirects(redirects.as_ref());
                self.doubt(Reason::Dialect, Some(Risk::Dialect), "[[")
            }
        }
    }

    fn compound(&mut self, compound: &ast::CompoundCommand) -> Option<String> {
        use ast::CompoundCommand as C;
        match compound {
            C::BraceGroup(group) => {
                let list = self.list(&group.list)?;
                let end = if list.ends_with('&') { " }" } else { "; }" };
                Some(format!("{{ {list}{end}"))
            }
            C::Subshell(subshell) => {
                self.findings.risk(Risk::Subshell);
                self.list(&subshell.list).map(|list| format!("( {list} )"))
            }
            C::Arithmetic(arithmetic) => self.arithmetic(&arithmetic.expr),
            C::Coprocess(coprocess) => {
                self.command(&coprocess.body);
                self.doubt(Reason::Dialect, Some(Risk::Dialect), "coproc")
            }
            other => {
                self.control_flow(other);
                self.doubt(Reason::ControlFlow, Some(Risk::ControlFlow), "")
            }
        }
    }

    fn control_flow(&mut self, compound: &ast::CompoundCommand) {
        use ast::CompoundCommand as C;
        match compound {
            C::ForClause(clause) => {
                self.words(clause.values.iter().flatten());
                self.list(&clause.body.list);
            }
            C::CaseClause(clause) => self.case(clause),
            C::IfClause(clause) => self.condition(clause),
            C::WhileClause(ast::WhileOrUntilClauseCommand(condition, body, _))
            | C::UntilClause(ast::WhileOrUntilClauseCommand(condition, body, _)) => {
                self.list(condition);
                self.list(&body.list);
            }
            C::ArithmeticForClause(clause) => {
                for part in [&clause.initializer, &clause.condition, &clause.updater].into_iter().flatten() {
                    self.arithmetic(part);
                }
                self.list(&clause.body.list);
            }
            C::BraceGroup(_) | C::Subshell(_) | C::Arithmetic(_) | C::Coprocess(_) => {}
        }
    }

    fn case(&mut self, clause: &ast::CaseClauseCommand) {
        self.word(&clause.value);
        for item in &clause.cases {
            self.words(&item.patterns);
            if let Some(body) = &item.cmd {
                self.list(body);
            }
        }
    }

    fn condition(&mut self, clause: &ast::IfClauseCommand) {
        self.list(&clause.condition);
        self.list(&clause.then);
        for part in clause.elses.iter().flatten() {
            if let Some(condition) = &part.condition {
                self.list(condition);
            }
            self.list(&part.body);
        }
    }

    fn function(&mut self, function: &ast::FunctionDefinition) -> Option<String> {
        let scope = self.scope.at(Place::Function);
        let mut inside = Walk::new(self.findings, scope);
        inside.compound(&function.body.0);
        inside.redirects(function.body.1.as_ref());
        self.doubt(Reason::Function, Some(Risk::Function), &function.fname.value)
    }

    fn test(&mut self, expression: &ast::ExtendedTestExpr) {
        use ast::ExtendedTestExpr as E;
        match expression {
            E::And(left, right) | E::Or(left, right) => {
                self.test(left);
                self.test(right);
            }
            E::Not(inside) | E::Parenthesized(inside) => self.test(inside),
            E::UnaryTest(_, word) => drop(self.word(word)),
            E::BinaryTest(_, left, right) => self.words([left, right]),
        }
    }

    fn arithmetic(&mut self, expression: &ast::UnexpandedArithmeticExpr) -> Option<String> {
        self.parts(Parts::of_here_document(&expression.value), &expression.value);
        self.doubt(Reason::Dialect, Some(Risk::Arithmetic), &expression.value)
    }

    fn simple(&mut self, command: &ast::SimpleCommand) -> Option<String> {
        let mut words = Vec::new();
        let mut redirects = Some(String::new());
        for item in command.prefix.iter().flat_map(|prefix| &prefix.0) {
            match item {
                ast::CommandPrefixOrSuffixItem::AssignmentWord(assignment, word) => {
                    redirects = self.assignment(assignment, word, command.word_or_name.is_some());
                }
                other => self.item(other, &mut words, &mut redirects),
            }
        }
        words.extend(command.word_or_name.as_ref().map(|word| self.word(word)));
        for item in command.suffix.iter().flat_map(|suffix| &suffix.0) {
            self.item(item, &mut words, &mut redirects);
        }
        let words =
            if words.is_empty() { words } else { invocation::judge(self.findings, words, &self.scope) };
        let line = self.line(&words)?;
        let line = line + &redirects?;
        (!line.is_empty()).then(|| line.trim_start().to_owned())
    }

    /// The words in canonical form; a first word that is no program in some shell has none.
    fn line(&mut self, words: &[Word]) -> Option<String> {
        let first = words.first().and_then(Word::text);
        if first.is_some_and(|first| !simple::is_program(first)) {
            return self.doubt(Reason::Dialect, Some(Risk::Dialect), first.unwrap_or_default());
        }
        render(words)
    }

    fn item(
        &mut self,
        item: &ast::CommandPrefixOrSuffixItem,
        words: &mut Vec<Word>,
        redirects: &mut Option<String>,
    ) {
        use ast::CommandPrefixOrSuffixItem as I;
        match item {
            I::IoRedirect(redirect) => {
                let part = self.redirect(redirect);
                *redirects = redirects.take().zip(part).map(|(before, part)| before + &part);
            }
            I::Word(word) => words.push(self.word(word)),
            I::AssignmentWord(_, word) => words.push(self.word(word)),
            I::ProcessSubstitution(_, subshell) => {
                self.process_substitution(subshell);
                words.push(Word::Computed("<(…)".to_owned()));
            }
        }
    }

    fn assignment(
        &mut self,
        assignment: &ast::Assignment,
        word: &ast::Word,
        for_command: bool,
    ) -> Option<String> {
        self.word(word);
        if matches!(assignment.value, ast::AssignmentValue::Array(_)) || assignment.append {
            self.doubt(Reason::Dialect, Some(Risk::Dialect), &word.value);
        }
        if for_command {
            self.doubt(Reason::Environment, Some(Risk::Environment), &word.value)
        } else {
            self.doubt(Reason::ShellState, Some(Risk::ShellState), &word.value)
        }
    }

    fn process_substitution(&mut self, subshell: &ast::SubshellCommand) {
        let scope = self.scope.at(Place::Substitution);
        Walk::new(self.findings, scope).list(&subshell.list);
        self.findings.risk(Risk::Substitution);
        self.doubt(Reason::Dialect, Some(Risk::Dialect), "<(…)");
    }

    fn redirects(&mut self, redirects: Option<&ast::RedirectList>) -> Option<String> {
        let parts: Vec<_> = redirects.iter().flat_map(|list| &list.0).map(|r| self.redirect(r)).collect();
        parts.into_iter().collect()
    }

    fn redirect(&mut self, redirect: &ast::IoRedirect) -> Option<String> {
        match redirect {
            ast::IoRedirect::File(fd, kind, target) => self.file(*fd, kind, target),
            ast::IoRedirect::HereDocument(_, document) => {
                if document.requires_expansion {
                    self.parts(Parts::of_here_document(&document.doc.value), &document.doc.value);
                }
                self.doubt(Reason::HereDocument, Some(Risk::HereDocument), &document.doc.value)
            }
            ast::IoRedirect::HereString(_, word) => {
                self.word(word);
                self.doubt(Reason::Dialect, Some(Risk::HereDocument), "<<<")
            }
            ast::IoRedirect::OutputAndError(word, append) => {
                self.opened(word, if *append { FileMode::Append } else { FileMode::Write });
                self.doubt(Reason::Dialect, Some(Risk::Dialect), "&>")
            }
        }
    }

    fn file(
        &mut self,
        fd: Option<ast::IoFd>,
        kind: &ast::IoFileRedirectKind,
        target: &ast::IoFileRedirectTarget,
    ) -> Option<String> {
        use ast::{IoFileRedirectKind as K, IoFileRedirectTarget as T};
        let (operator, mode) = match kind {
            K::Read => ("<", FileMode::Read),
            K::Write => (">", FileMode::Write),
            K::Append => (">>", FileMode::Append),
            K::ReadAndWrite => ("<>", FileMode::ReadWrite),
            // `>|` is a pipe in fish; the difference is `set -C`, which is never resolved.
            K::Clobber => (">", FileMode::Write),
            K::DuplicateInput => ("<&", FileMode::Read),
            K::DuplicateOutput => (">&", FileMode::Write),
        };
        // dash, zsh, ksh and csh take more digits for an argument (POSIX leaves it open, XCU 2.7).
        if fd.is_some_and(|fd| !(0..=9).contains(&fd)) {
            if let T::Filename(word) = target {
                self.opened(word, mode);
            }
            return self.doubt(Reason::Dialect, Some(Risk::Dialect), "descriptor above 9");
        }
        let fd = fd.map_or_else(String::new, |fd| fd.to_string());
        let target = match target {
            T::Filename(word) => self.opened(word, mode)?,
            T::Duplicate(word) if is_descriptor(&word.value) => word.value.clone(),
            T::Duplicate(word) => {
                self.opened(word, mode);
                return self.doubt(Reason::Dialect, Some(Risk::Dialect), &word.value);
            }
            T::Fd(_) => return self.doubt(Reason::Dialect, Some(Risk::Dialect), "|&"),
            T::ProcessSubstitution(_, subshell) => {
                self.process_substitution(subshell);
                return None;
            }
        };
        Some(format!(" {fd}{operator}{target}"))
    }

    /// The quoted path of a redirection.
    fn opened(&mut self, word: &ast::Word, mode: FileMode) -> Option<String> {
        let target = self.word(word);
        if mode != FileMode::Read {
            self.findings.risk(Risk::WritesFile);
        }
        let Some(path) = target.text() else {
            return self.doubt(Reason::Redirection, None, &word.value);
        };
        // bash connects where these paths are redirected to, quoted or not.
        if path.starts_with("/dev/tcp/") || path.starts_with("/dev/udp/") {
            return self.doubt(Reason::Redirection, Some(Risk::Network), path);
        }
        self.findings.file(path, mode);
        let mut quoted = String::new();
        simple::quote(path, &mut quoted).map(|()| quoted)
    }

    fn words<'w>(&mut self, words: impl IntoIterator<Item = &'w ast::Word>) {
        for word in words {
            self.word(word);
        }
    }

    fn word(&mut self, word: &ast::Word) -> Word {
        self.parts(Parts::of_word(&word.value), &word.value)
    }

    fn parts(&mut self, parts: Parts, source: &str) -> Word {
        for risk in parts.risks {
            self.findings.risk(risk);
        }
        for reason in parts.reasons {
            self.findings.unresolved(reason, source);
        }
        let scope = self.scope.code(Place::Substitution);
        for code in &parts.code {
            parse::code(self.findings, code, &scope);
        }
        if parts.computed { Word::Computed(excerpt(source)) } else { Word::Static(parts.text) }
    }

    fn doubt(&mut self, reason: Reason, risk: Option<Risk>, text: &str) -> Option<String> {
        self.findings.unresolved(reason, text);
        if let Some(risk) = risk {
            self.findings.risk(risk);
        }
        None
    }
}

/// Puts `;` behind a command unless `&` ends it already.
fn separate(out: &mut String) {
    if !out.is_empty() {
        out.push_str(if out.ends_with(" &") { " " } else { "; " });
    }
}

/// A file descriptor number or `-`, as `2>&1` and `2>&-` take.
fn is_descriptor(text: &str) -> bool {
    text == "-" || (text.len() == 1 && text.bytes().all(|b| b.is_ascii_digit()))
}
