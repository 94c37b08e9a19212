//! What content is masked, and labels of columns.

use gateway_core::masking::{DataClass, FieldRule, Rule, RuleSet, Scanner, Transform};
use gateway_core::operation::Resource;
use gateway_core::pipeline::Label;
use toml::Spanned;

use crate::config::{self, ConfigFile, Problem, Problems, nearest};

pub(super) fn scanner(file: &ConfigFile) -> Result<Scanner, Problems> {
    let masking = &file.config.masking;
    let known = known_classes(file)?;
    let mut rules = RuleSet::builtin();
    for name in &masking.disabled {
        rules = rules.without(known_class(file, name, "masking.disabled", &known)?);
    }
    for (name, transform) in &masking.transforms {
        let class = known_class(file, name, "masking.transforms", &known)?;
        if matches!(transform.0, Transform::Hash | Transform::Token) {
            let message = format!("class `{class}`: hash and token in free text would answer guesses");
            let help =
                "use `redact`, `partial` or `same_length` here; hash and token are for labels of columns";
            return Err(file.problem(name.span(), "masking.transforms", message, help).into());
        }
        rules = rules.with_transform(class, transform.0);
    }
    for rule in &masking.rules {
        rules = rules.with_rule(custom_rule(file, rule)?);
    }
    let at = masking.rules.first().map_or(0..0, Spanned::span);
    let help = "correct the `[masking]` section";
    Scanner::new(rules).map_err(|e| file.problem(at, "masking", e.to_string(), help).into())
}

/// The built-in classes and those of the deployer's own rules.
fn known_classes(file: &ConfigFile) -> Result<Vec<DataClass>, Problem> {
    let mut classes = DataClass::BUILT_IN.to_vec();
    for rule in &file.config.masking.rules {
        classes.push(class(file, rule.span(), "masking.rule.class", &rule.get_ref().class)?);
    }
    Ok(classes)
}

/// A class that a switch or transform is for: one that nothing finds would silently do nothing.
fn known_class(
    file: &ConfigFile,
    name: &Spanned<String>,
    key: &str,
    known: &[DataClass],
) -> Result<DataClass, Problem> {
    let found = known.iter().find(|class| class.name() == name.get_ref());
    found.cloned().ok_or_else(|| {
        let names = || known.iter().map(DataClass::name);
        let help = match nearest(name.get_ref(), names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the classes are {}", names().collect::<Vec<_>>().join(", ")),
        };
        file.problem(name.span(), key, format!("no rule finds the class `{}`", name.get_ref()), help)
    })
}

fn custom_rule(file: &ConfigFile, written: &Spanned<config::MaskingRule>) -> Result<Rule, Problem> {
    let from = written.get_ref();
    let class = class(file, written.span(), "masking.rule.class", &from.class)?;
    let mut rule = Rule::new(&from.name, &from.pattern, class);
    if let Some(validator) = from.validator {
        rule = rule.validated_by(validator.0);
    }
    if let Some(keyword) = &from.keyword {
        rule = rule.after_keyword(keyword);
    }
    // By itself first, so that the message points here.
    Scanner::new(RuleSet::empty().with_rule(rule.clone()))
        .map_err(|e| file.problem(written.span(), "masking.rule", e.to_string(), "correct this rule"))?;
    Ok(rule)
}

fn class(file: &ConfigFile, at: std::ops::Range<usize>, key: &str, name: &str) -> Result<DataClass, Problem> {
    let help = "choose a name like `payment_card` or `employee_number`";
    DataClass::new(name).map_err(|e| file.problem(at, key, e.to_string(), help))
}

/// A labelled column of a target.
pub(super) fn label(file: &ConfigFile, target: &str, from: &config::Label) -> Result<Label, Problem> {
    let class = class(file, from.class.span(), "target.labels.class", from.class.get_ref())?;
    let path = from.column.get_ref();
    let resource = Resource::target(target)
        .child("Database", &path.database)
        .child("Schema", &path.schema)
        .child("Table", &path.table)
        .child("Column", &path.column);
    let mut rule = FieldRule::new(class);
    if let Some(transform) = from.transform {
        rule.transform = transform.0;
    }
    Ok(Label { resource, rule })
}
