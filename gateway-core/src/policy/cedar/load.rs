//! From texts to a checked, indexed set of policies. All or nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use cedar_policy::{
    Effect, EntityUid, Policy, PolicyId, PolicySet, ValidationError, ValidationMode, ValidationWarning,
    Validator,
};

use super::annotations::{Annotations, Approval, Problem};
use super::diagnostics::{Diagnostic, LoadError, Place, Severity, nearest};
use super::reads::Reads;
use super::schema::GatewaySchema;
use super::slices::{Scope, Sets, Slices};
use super::verdicts::Verdicts;
use crate::policy::Revision;

/// One policy file may not be longer: bytes. A rule is a few hundred.
const MAX_FILE: usize = 4 << 20;
/// One policy may not be longer: bytes. Bounds how deep its conditions can be, and with that the stack below.
const MAX_POLICY: usize = 32 << 10;
/// A condition may not be deeper: operators within operators. What is loaded is dropped and evaluated recursively on any
/// thread, and this needs about a tenth of what a thread usually has.
const MAX_DEPTH: usize = 500;
/// Cedar walks a condition recursively when it is turned into other forms; a chain of `&&` as long as a policy may be
/// needs more than a usual thread has: bytes, of which only what is used is ever taken.
const STACK: usize = 512 << 20;
/// One set may not hold more policies. Checks at load compare some of them pairwise.
const MAX_POLICIES: usize = 20_000;
/// Pairs of contradicting rewrites reported before the rest is left out: a warning list is for reading.
const MAX_CONFLICTS: usize = 20;

/// A policy text and the name it is reported under, usually its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFile {
    /// The name in diagnostics and rule ids.
    pub name: String,
    /// The policies, in Cedar's syntax.
    pub text: String,
}

impl PolicyFile {
    /// A text under a name.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }
}

/// One loaded policy.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) id: String,
    pub(super) place: Place,
    pub(super) source: String,
    pub(super) policy: Policy,
    pub(super) annotations: Annotations,
    pub(super) reads_time: bool,
}

/// A set of policies in force. Immutable; a reload makes another.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) schema: Arc<GatewaySchema>,
    pub(super) revision: Revision,
    pub(super) rules: Vec<Rule>,
    pub(super) positions: HashMap<PolicyId, usize>,
    pub(super) slices: Slices,
    pub(super) sets: Sets,
    /// What any policy reads.
    pub(super) reads: Reads,
    /// A rule on `reveal` reads the time.
    pub(super) reveal_reads_time: bool,
    pub(super) verdicts: Verdicts,
}

/// Checks and loads `files`; the diagnostics come in any case, and hold an error exactly if there is no set.
///
/// Works on a thread of its own, for its stack, and waits for it.
pub(super) fn load(schema: &Arc<GatewaySchema>, files: &[PolicyFile]) -> (Option<Loaded>, Vec<Diagnostic>) {
    let work = || load_here(schema, files);
    let name = "policy-load".to_owned();
    let finished = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name).stack_size(STACK).spawn_scoped(scope, work);
        thread.ok().and_then(|thread| thread.join().ok())
    });
    finished.unwrap_or_else(|| {
        let failed = Diagnostic::error(&Place::whole("policies"), "the thread that checks policies failed");
        (None, vec![failed.with_help("see the log; if memory is short, free some and load again")])
    })
}

fn load_here(schema: &Arc<GatewaySchema>, files: &[PolicyFile]) -> (Option<Loaded>, Vec<Diagnostic>) {
    let mut loader =
        Loader { schema, diagnostics: Vec::new(), rules: Vec::new(), scopes: Vec::new(), reads: Vec::new() };
    loader.read_files(files);
    if !loader.failed() {
        loader.check();
    }
    loader.diagnostics.sort_by(|a, b| (a.severity, &a.file, a.line).cmp(&(b.severity, &b.file, b.line)));
    if loader.failed() { (None, loader.diagnostics) } else { loader.finish(files) }
}

/// As [`load`], with the errors as an error.
pub(super) fn load_all(
    schema: &Arc<GatewaySchema>,
    files: &[PolicyFile],
) -> Result<(Loaded, Vec<Diagnostic>), LoadError> {
    match load(schema, files) {
        (Some(loaded), diagnostics) => Ok((loaded, diagnostics)),
        (None, diagnostics) => Err(LoadError { diagnostics }),
    }
}

struct Loader<'a> {
    schema: &'a Arc<GatewaySchema>,
    diagnostics: Vec<Diagnostic>,
    rules: Vec<Rule>,
    scopes: Vec<Scope>,
    reads: Vec<Reads>,
}

impl Loader<'_> {
    fn failed(&self) -> bool {
        self.diagnostics.iter().any(|d| d.severity == Severity::Error)
    }

    fn error(&mut self, place: &Place, problem: Problem) {
        self.diagnostics.push(Diagnostic::error(place, problem.message).with_help(problem.help));
    }

    fn warn(&mut self, place: &Place, message: String, help: &str) {
        self.diagnostics.push(Diagnostic::warning(place, message).with_help(help));
    }

    fn read_files(&mut self, files: &[PolicyFile]) {
        let mut names = BTreeSet::new();
        for file in files {
            let place = Place::whole(&file.name);
            if !names.insert(file.name.as_str()) {
                self.error(
                    &place,
                    Problem::new("two files have this name", "give each file a name of its own"),
                );
            } else if file.text.len() > MAX_FILE {
                let message = format!("the file is longer than {MAX_FILE} bytes");
                self.error(&place, Problem::new(message, "split it into several files"));
            } else {
                self.read_file(file);
            }
        }
        if self.rules.len() > MAX_POLICIES {
            let message = format!("there are more than {MAX_POLICIES} policies");
            self.error(
                &Place::whole("policies"),
                Problem::new(message, "say the same with groups and fewer rules"),
            );
        }
    }

    fn read_file(&mut self, file: &PolicyFile) {
        let set: PolicySet = match file.text.parse() {
            Ok(set) => set,
            Err(errors) => {
                let errors: &cedar_policy::ParseErrors = &errors;
                self.diagnostics.extend(errors.iter().map(|error| unreadable(file, error)));
                return;
            }
        };
        for template in set.templates() {
            let place = Place::at(&file.name, &file.text, start_of(template.as_ref().loc()));
            let help = "write the principal or resource out instead of `?principal` or `?resource`";
            self.error(&place, Problem::new("templates are not supported", help));
        }
        let mut policies: Vec<_> = set.policies().map(|p| (start_of(p.as_ref().loc()), p)).collect();
        policies.sort_by_key(|(start, _)| *start);
        // A file that is being written, or was cut short, must not take its forbids out of force.
        if policies.is_empty() {
            let help = "restore it, or take it out of the list; to change a file, rename a complete one into its place";
            self.error(&Place::whole(&file.name), Problem::new("there is no policy in this file", help));
        }
        for (start, policy) in policies {
            self.add(Place::at(&file.name, &file.text, start), policy);
        }
    }

    fn add(&mut self, place: Place, policy: &Policy) {
        let id = self.id_of(&place, policy);
        let place = place.of_rule(&id);
        let (annotations, problems) = Annotations::read(policy);
        problems.into_iter().for_each(|problem| self.error(&place, problem));
        // The text as written: measured before anything walks the tree.
        let source = policy.to_cedar().unwrap_or_default();
        if source.len() > MAX_POLICY {
            let message = format!("the policy is longer than {MAX_POLICY} bytes");
            return self
                .error(&place, Problem::new(message, "split it, or use groups instead of long lists"));
        }
        let reads = match policy.to_pst() {
            Ok(tree) => Reads::of(&tree),
            Err(e) => return self.error(&place, Problem::new(e.to_string(), "simplify the rule")),
        };
        let policy = policy.new_id(PolicyId::new(&id));
        if reads.depth > MAX_DEPTH {
            let message = format!("a condition is more than {MAX_DEPTH} operators deep");
            return self.error(&place, Problem::new(message, "split the rule, or use a set and `.contains`"));
        }
        self.scopes.push(Scope::of(&policy, &self.schema.action_entities));
        self.rules.push(Rule { id, place, source, policy, annotations, reads_time: reads.time() });
        self.reads.push(reads);
    }

    // `@id`, or the file and line; with the column where two unnamed rules share a line.
    fn id_of(&self, place: &Place, policy: &Policy) -> String {
        if let Some(id) = policy.annotation("id") {
            return id.to_owned();
        }
        let short = format!("{}:{}", place.file, place.line);
        let taken = self
            .rules
            .last()
            .is_some_and(|rule| rule.place.file == place.file && rule.place.line == place.line);
        if taken { format!("{short}:{}", place.column) } else { short }
    }

    fn check(&mut self) {
        self.check_ids();
        if self.failed() {
            return;
        }
        self.check_schema();
        for index in 0..self.rules.len() {
            self.check_approval(index);
            self.check_duties(index);
        }
        self.check_approval_names();
        self.check_rewrites();
    }

    fn check_ids(&mut self) {
        let mut first: BTreeMap<&str, &Place> = BTreeMap::new();
        let mut found = Vec::new();
        for rule in &self.rules {
            if let Some(other) = first.insert(&rule.id, &rule.place) {
                let message =
                    format!("the id `{}` is already used at {}:{}", rule.id, other.file, other.line);
                found.push(
                    Diagnostic::error(&rule.place, message).with_help("give each rule an `@id` of its own"),
                );
            }
        }
        self.diagnostics.extend(found);
    }

    fn check_schema(&mut self) {
        let set = match policy_set(self.rules.iter()) {
            Ok(set) => set,
            Err(e) => return self.error(&Place::whole("policies"), Problem::new(e, "check the ids")),
        };
        let result = Validator::new(self.schema.schema.clone()).validate(&set, ValidationMode::Strict);
        for error in result.validation_errors() {
            self.report(Severity::Error, error.policy_id(), error, remedy(error));
        }
        for warning in result.validation_warnings() {
            let (severity, help) = weigh(warning);
            self.report(severity, warning.policy_id(), warning, Some(help));
        }
    }

    fn report(
        &mut self,
        severity: Severity,
        id: &PolicyId,
        found: &dyn miette::Diagnostic,
        help: Option<&str>,
    ) {
        let id: &str = id.as_ref();
        let rule_place = self.rules.iter().find(|rule| rule.id == id).map(|rule| &rule.place);
        let fallback = Place::whole("policies");
        let rule_place = rule_place.unwrap_or(&fallback);
        let place = located(rule_place, found).of_rule(id);
        let message = found.to_string();
        let message = message.strip_prefix(&format!("for policy `{id}`, ")).unwrap_or(&message).to_owned();
        let mut diagnostic = match severity {
            Severity::Error => Diagnostic::error(&place, message),
            Severity::Warning => Diagnostic::warning(&place, message),
        };
        diagnostic.help = found.help().map(|h| h.to_string()).or_else(|| help.map(str::to_owned));
        self.diagnostics.push(diagnostic);
    }

    fn check_approval(&mut self, index: usize) {
        let (Some(rule), Some(scope), Some(reads)) =
            (self.rules.get(index), self.scopes.get(index), self.reads.get(index))
        else {
            return;
        };
        let Some(approval) = &rule.annotations.approval else { return };
        let mut problems = Vec::new();
        if scope.actions.iter().any(is_reveal) {
            problems.push(Problem::new(
                "`@approval` cannot stand on a rule that covers `reveal`: results cannot wait for a person",
                "name the actions in the scope, for example `action in [Action::\"write\"]`",
            ));
        }
        if !reads.unless_approvals.contains(&approval.name) {
            problems.push(Problem::new(
                format!("nothing lifts this rule once `{}` has approved", approval.name),
                format!("add `unless {{ context.approvals.contains(\"{}\") }}`", approval.name),
            ));
        }
        let place = rule.place.clone();
        problems.into_iter().for_each(|problem| self.error(&place, problem));
    }

    fn check_duties(&mut self, index: usize) {
        let (Some(rule), Some(scope)) = (self.rules.get(index), self.scopes.get(index)) else { return };
        let duties = [
            ("rewrite", rule.annotations.rewrite.is_some()),
            ("limit_rows", rule.annotations.limit_rows.is_some()),
            ("limit_bytes", rule.annotations.limit_bytes.is_some()),
            ("budget", rule.annotations.budget.is_some()),
            ("record", rule.annotations.record.is_some()),
            ("max_rows_affected", rule.annotations.max_rows_affected.is_some()),
        ];
        if scope.actions.iter().any(|action| !is_reveal(action)) {
            return;
        }
        let place = rule.place.clone();
        for (name, _) in duties.iter().filter(|(_, given)| *given) {
            let message = format!("`@{name}` does nothing on a rule that covers only `reveal`");
            self.error(&place, Problem::new(message, "put it on the permit of the statement"));
        }
    }

    fn check_approval_names(&mut self) {
        let mut known: BTreeMap<String, (Approval, Place)> = BTreeMap::new();
        let mut errors = Vec::new();
        for rule in &self.rules {
            let Some(approval) = &rule.annotations.approval else { continue };
            let entry =
                known.entry(approval.name.clone()).or_insert_with(|| (approval.clone(), rule.place.clone()));
            if entry.0 != *approval {
                let message = format!(
                    "the approval `{}` has other parameters at {}:{}",
                    approval.name, entry.1.file, entry.1.line
                );
                errors.push((rule.place.clone(), message));
            }
        }
        for (place, message) in errors {
            self.error(&place, Problem::new(message, "make them equal, or give one a `name=` of its own"));
        }
        self.warn_of_unknown_approvals(&known);
    }

    fn warn_of_unknown_approvals(&mut self, known: &BTreeMap<String, (Approval, Place)>) {
        let mut found = Vec::new();
        for (rule, reads) in self.rules.iter().zip(&self.reads) {
            for name in reads.approvals.iter().filter(|name| !known.contains_key(*name)) {
                let near = nearest(name, known.keys().map(String::as_str));
                let help = near.map_or_else(
                    || "add `@approval` to the rule that people may lift".to_owned(),
                    |near| format!("did you mean `{near}`?"),
                );
                found.push((rule.place.clone(), format!("no rule asks for the approval `{name}`"), help));
            }
        }
        for (place, message, help) in found {
            self.warn(&place, message, &help);
        }
    }

    // Two permits that can decide together must not ask for rewrites that exclude each other.
    fn check_rewrites(&mut self) {
        let rewriting: Vec<_> = self
            .rules
            .iter()
            .zip(&self.scopes)
            .filter_map(|(rule, scope)| {
                rule.annotations.rewrite.as_deref().map(|rewrite| (rule, scope, rewrite))
            })
            .collect();
        let mut found = Vec::new();
        for (i, (rule, scope, rewrite)) in rewriting.iter().enumerate() {
            let later = rewriting.iter().skip(i + 1);
            found.extend(
                later
                    .filter(|(_, other_scope, other)| {
                        super::duties::contradict(rewrite, other)
                            && scope.actions.iter().any(|action| other_scope.actions.contains(action))
                    })
                    .map(|(other, _, _)| (rule.place.clone(), other.id.clone()))
                    .take(MAX_CONFLICTS),
            );
            if found.len() >= MAX_CONFLICTS {
                break;
            }
        }
        for (place, other) in found.into_iter().take(MAX_CONFLICTS) {
            let message =
                format!("its rewrite excludes that of `{other}`: where both permit, the operation is denied");
            self.warn(&place, message, "make the rewrites equal, or the rules exclude each other");
        }
    }

    fn finish(self, files: &[PolicyFile]) -> (Option<Loaded>, Vec<Diagnostic>) {
        let mut reads = Reads::default();
        self.reads.iter().for_each(|own| reads.add(own));
        let positions = self.rules.iter().enumerate().map(|(i, rule)| (PolicyId::new(&rule.id), i)).collect();
        let mut clocked = self.rules.iter().zip(&self.scopes).filter(|(rule, _)| rule.reads_time);
        let loaded = Loaded {
            reveal_reads_time: clocked.any(|(_, scope)| scope.actions.iter().any(is_reveal)),
            schema: Arc::clone(self.schema),
            revision: revision(&self.schema.text, files),
            rules: self.rules,
            positions,
            slices: Slices::new(self.scopes),
            sets: Sets::default(),
            reads,
            verdicts: Verdicts::default(),
        };
        (Some(loaded), self.diagnostics)
    }
}

/// The policies of `rules` as a set that Cedar can evaluate.
pub(super) fn policy_set<'a>(rules: impl Iterator<Item = &'a Rule>) -> Result<PolicySet, String> {
    PolicySet::from_policies(rules.map(|rule| rule.policy.clone())).map_err(|e| e.to_string())
}

/// A hash of all texts, with their lengths and names, so that no two sets share one.
fn revision(schema: &str, files: &[PolicyFile]) -> Revision {
    let mut hasher = blake3::Hasher::new_derive_key("gateway-core policy revision 1");
    let texts = files.iter().flat_map(|file| [file.name.as_str(), file.text.as_str()]);
    for text in std::iter::once(schema).chain(texts) {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    let hex = hasher.finalize().to_hex();
    Revision(hex.as_str().get(..32).unwrap_or_default().into())
}

fn is_reveal(action: &EntityUid) -> bool {
    action.id().unescaped() == "reveal" && action.type_name().namespace().is_empty()
}

// Cedar tells places by its own type, which is not part of its public interface but whose accessors are stable.
fn start_of(loc: Option<&(impl Clone + Into<miette::SourceSpan>)>) -> usize {
    loc.map_or(0, |loc| loc.clone().into().offset())
}

fn unreadable(file: &PolicyFile, error: &dyn miette::Diagnostic) -> Diagnostic {
    let offset = error.labels().and_then(|mut labels| labels.next()).map(|label| label.offset());
    let place = offset.map_or_else(|| Place::whole(&file.name), |at| Place::at(&file.name, &file.text, at));
    let help =
        error.help().map_or_else(|| "see docs/policy.md for the syntax".to_owned(), |help| help.to_string());
    Diagnostic::error(&place, error.to_string()).with_help(help)
}

fn located(rule: &Place, found: &dyn miette::Diagnostic) -> Place {
    let span = found.labels().and_then(|mut labels| labels.next()).map(|label| *label.inner());
    let contents = span.and_then(|span| found.source_code()?.read_span(&span, 0, 0).ok());
    contents.map_or_else(
        || rule.clone(),
        |at| Place { file: rule.file.clone(), line: at.line() + 1, column: at.column() + 1, rule: None },
    )
}

fn remedy(error: &ValidationError) -> Option<&'static str> {
    Some(match error {
        ValidationError::UnrecognizedEntityType(_) => "use an entity type of the schema; see `policy schema`",
        ValidationError::UnrecognizedActionId(_) => "use an action of the schema; see `policy schema`",
        ValidationError::UnsafeAttributeAccess(_) => {
            "the attribute is not in the schema for every action and resource in the rule's scope; narrow the scope"
        }
        ValidationError::UnexpectedType(_) | ValidationError::IncompatibleTypes(_) => {
            "compare and combine only values of the same type; see `policy schema`"
        }
        ValidationError::EmptySetForbidden(_) => "use `.isEmpty()` instead of comparing with `[]`",
        ValidationError::InvalidEnumEntity(_) => "use one of the names that the schema lists",
        _ => return None,
    })
}

/// A rule that can never fire would be a wall that is not there, and hidden text direction a rule that reads otherwise.
const fn weigh(warning: &ValidationWarning) -> (Severity, &'static str) {
    match warning {
        ValidationWarning::ImpossiblePolicy(_) => (
            Severity::Error,
            "the rule can never fire: its conditions exclude each other or its scope; correct or remove it",
        ),
        ValidationWarning::InvalidActionApplication(_) => (
            Severity::Error,
            "the rule can never fire: the schema has no such action for this principal and resource; correct the scope",
        ),
        ValidationWarning::BidiCharsInString(_) | ValidationWarning::BidiCharsInIdentifier(_) => {
            (Severity::Error, "remove the characters that change the direction of text")
        }
        _ => (Severity::Warning, "check that the characters are those that were meant"),
    }
}

/// Whether a rule is a forbid.
pub(super) fn forbids(rule: &Rule) -> bool {
    rule.policy.effect() == Effect::Forbid
}
