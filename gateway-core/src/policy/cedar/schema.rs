//! One schema out of core's fragment and those that adapters ship.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cedar_policy::{Entities, EntityId, EntityTypeName, EntityUid, Schema, SchemaFragment};
use serde_json::{Map, Value};

use super::diagnostics::{Diagnostic, LoadError, Place, nearest};

/// Core's own fragment: principals, targets, data classes and the context common to all actions.
pub const CORE_SCHEMA: &str = include_str!("core.cedarschema");

/// A fragment longer than this is a mistake, not a schema: bytes.
const MAX_FRAGMENT: usize = 1 << 20;
/// The common type of core's fragment whose attributes every context gets.
const COMMON: &str = "Common";

/// The merged schema and what the engine needs to know of it at every question.
#[derive(Debug)]
pub(super) struct GatewaySchema {
    pub(super) schema: Schema,
    /// The actions as entities, with their groups as ancestors.
    pub(super) action_entities: Entities,
    /// All of it in Cedar's schema syntax.
    pub(super) text: String,
    actions: HashMap<String, ActionShape>,
    kinds: HashMap<String, EntityTypeName>,
    attributes: HashMap<String, BTreeSet<String>>,
}

/// One action that can be asked for.
#[derive(Debug)]
pub(super) struct ActionShape {
    pub(super) uid: EntityUid,
    /// The facts its context declares, without the common ones.
    facts: BTreeSet<String>,
}

impl ActionShape {
    pub(super) fn declares(&self, fact: &str) -> bool {
        self.facts.contains(fact)
    }

    pub(super) fn nearest_fact(&self, fact: &str) -> Option<&str> {
        nearest(fact, self.facts.iter().map(String::as_str))
    }
}

impl GatewaySchema {
    /// Merges `fragments` (name, text), core's first.
    pub(super) fn merge(fragments: &[(String, String)]) -> Result<Self, LoadError> {
        let mut merged = Merged::default();
        for (name, text) in fragments {
            merged.add(name, text).map_err(LoadError::of)?;
        }
        merged.finish().map_err(LoadError::of)
    }

    /// The action called `name`; a name in a namespace is written `Namespace::name`.
    pub(super) fn action(&self, name: &str) -> Option<&ActionShape> {
        self.actions.get(name)
    }

    /// The action whose name is nearest to `name`, for messages.
    pub(super) fn nearest_action(&self, name: &str) -> Option<&str> {
        nearest(name, self.actions.keys().map(String::as_str))
    }

    /// The entity type of a step of a resource path.
    pub(super) fn kind(&self, kind: &str) -> Option<&EntityTypeName> {
        self.kinds.get(kind)
    }

    /// Whether the entity type `kind` has the attribute `name`.
    pub(super) fn has_attribute(&self, kind: &str, name: &str) -> bool {
        self.attributes.get(kind).is_some_and(|names| names.contains(name))
    }
}

/// The fragments as one JSON schema, and which fragment declared what.
#[derive(Default)]
struct Merged {
    namespaces: BTreeMap<String, BTreeMap<&'static str, Map<String, Value>>>,
    owners: HashMap<(String, &'static str, String), String>,
    own_facts: HashMap<(String, String), BTreeSet<String>>,
}

impl Merged {
    fn add(&mut self, fragment: &str, text: &str) -> Result<(), Diagnostic> {
        let place = Place::whole(fragment);
        if text.len() > MAX_FRAGMENT {
            return Err(Diagnostic::error(&place, format!("the schema is longer than {MAX_FRAGMENT} bytes")));
        }
        let (parsed, _) =
            SchemaFragment::from_cedarschema_str(text).map_err(|e| unreadable(fragment, text, &e))?;
        let json = parsed.to_json_value().map_err(|e| Diagnostic::error(&place, e.to_string()))?;
        let Value::Object(namespaces) = json else {
            return Err(Diagnostic::error(&place, "the schema has no declarations"));
        };
        namespaces
            .into_iter()
            .try_for_each(|(namespace, body)| self.add_namespace(fragment, &namespace, body))
    }

    fn add_namespace(&mut self, fragment: &str, namespace: &str, mut body: Value) -> Result<(), Diagnostic> {
        for section in ["commonTypes", "entityTypes", "actions"] {
            let Some(Value::Object(items)) = body.get_mut(section).map(Value::take) else { continue };
            for (name, item) in items {
                self.add_item(fragment, namespace, section, name, item)?;
            }
        }
        Ok(())
    }

    fn add_item(
        &mut self,
        fragment: &str,
        namespace: &str,
        section: &'static str,
        name: String,
        item: Value,
    ) -> Result<(), Diagnostic> {
        let key = (namespace.to_owned(), section, name.clone());
        let items = self.namespaces.entry(namespace.to_owned()).or_default().entry(section).or_default();
        if let Some(owner) = self.owners.get(&key) {
            let existing = items.get_mut(&name).filter(|_| extends_core(namespace, section, &name));
            return existing.map_or_else(
                || Err(collision(fragment, owner, &name)),
                |existing| extend_action(fragment, &name, existing, &item),
            );
        }
        items.insert(name, item);
        self.owners.insert(key, fragment.to_owned());
        Ok(())
    }

    fn finish(mut self) -> Result<GatewaySchema, Diagnostic> {
        let common = self.common_attributes().ok_or_else(|| {
            Diagnostic::error(&Place::whole("core"), format!("core's schema has no record type `{COMMON}`"))
        })?;
        self.give_contexts(&common)?;
        let json = serde_json::to_value(&self.namespaces)
            .map_err(|e| Diagnostic::error(&Place::whole("schema"), e.to_string()))?;
        build(json, &self.own_facts)
    }

    fn common_attributes(&self) -> Option<Map<String, Value>> {
        let common = self.namespaces.get("")?.get("commonTypes")?.get(COMMON)?;
        common.get("attributes")?.as_object().cloned()
    }

    /// Adds the common attributes to the context of every action.
    fn give_contexts(&mut self, common: &Map<String, Value>) -> Result<(), Diagnostic> {
        for (namespace, sections) in &mut self.namespaces {
            let types = sections.get("commonTypes").cloned().unwrap_or_default();
            for (name, action) in sections.get_mut("actions").into_iter().flatten() {
                let Some(applies) = action.get_mut("appliesTo").and_then(Value::as_object_mut) else {
                    continue;
                };
                let owner = self.owners.get(&(namespace.clone(), "actions", name.clone()));
                let place = Place::whole(owner.map_or("schema", String::as_str));
                let mut context = own_context(applies.get("context"), &types).ok_or_else(|| {
                    Diagnostic::error(&place, format!("the context of action `{name}` is not a record"))
                        .with_help("write a record, or the name of a record type of the same fragment")
                })?;
                let own = context.keys().cloned().collect();
                self.own_facts.insert((namespace.clone(), name.clone()), own);
                for (attribute, shape) in common {
                    if context.insert(attribute.clone(), shape.clone()).is_some() {
                        return Err(reserved(&place, name, attribute));
                    }
                }
                applies.insert("context".to_owned(), record(&context));
            }
        }
        Ok(())
    }
}

/// `connect` and `reveal` belong to core; a fragment may name further resources for them.
fn extends_core(namespace: &str, section: &str, name: &str) -> bool {
    namespace.is_empty() && section == "actions" && matches!(name, "connect" | "reveal")
}

fn extend_action(fragment: &str, name: &str, existing: &mut Value, item: &Value) -> Result<(), Diagnostic> {
    let more = item.pointer("/appliesTo/resourceTypes").and_then(Value::as_array);
    let known = existing.pointer_mut("/appliesTo/resourceTypes").and_then(Value::as_array_mut);
    let bare = item.get("memberOf").is_none_or(|groups| groups.as_array().is_none_or(Vec::is_empty))
        && item
            .pointer("/appliesTo/context/attributes")
            .is_none_or(|a| a.as_object().is_some_and(Map::is_empty));
    match (more, known) {
        (Some(more), Some(known)) if bare => {
            known.extend(more.iter().filter(|kind| !known.contains(kind)).cloned().collect::<Vec<_>>());
            Ok(())
        }
        _ => Err(Diagnostic::error(
            &Place::whole(fragment),
            format!("`{name}` may only be extended by resource types"),
        )
        .with_help(format!(
            "write `action {name} appliesTo {{ principal: [Principal], resource: [...], context: {{}} }}`"
        ))),
    }
}

fn own_context(context: Option<&Value>, types: &Map<String, Value>) -> Option<Map<String, Value>> {
    let Some(mut context) = context else { return Some(Map::new()) };
    // A chain of type names cannot be longer than there are names.
    for _ in 0..=types.len() {
        if let Some(attributes) = context.get("attributes") {
            return attributes.as_object().cloned();
        }
        let name = context.get("name").or_else(|| context.get("type")).and_then(Value::as_str)?;
        context = types.get(name)?;
    }
    None
}

fn record(attributes: &Map<String, Value>) -> Value {
    serde_json::json!({ "type": "Record", "attributes": attributes })
}

fn build(
    json: Value,
    own_facts: &HashMap<(String, String), BTreeSet<String>>,
) -> Result<GatewaySchema, Diagnostic> {
    let wrong = |e: &dyn std::fmt::Display| {
        Diagnostic::error(&Place::whole("schema"), format!("the merged schema is wrong: {e}"))
    };
    let attributes = entity_attributes(&json);
    let fragment = SchemaFragment::from_json_value(json).map_err(|e| wrong(&e))?;
    let text = fragment.to_cedarschema().map_err(|e| wrong(&e))?;
    let schema = Schema::from_schema_fragments([fragment]).map_err(|e| wrong(&e))?;
    let action_entities = schema.action_entities().map_err(|e| wrong(&e))?;
    let kinds = schema.entity_types().map(|kind| (kind.to_string(), kind.clone())).collect();
    let mut actions = HashMap::new();
    for ((namespace, name), facts) in own_facts {
        let uid = action_uid(namespace, name).map_err(|e| wrong(&e))?;
        actions.insert(qualified(namespace, name), ActionShape { uid, facts: facts.clone() });
    }
    Ok(GatewaySchema { schema, action_entities, text, actions, kinds, attributes })
}

fn entity_attributes(json: &Value) -> HashMap<String, BTreeSet<String>> {
    let mut all = HashMap::new();
    for (namespace, sections) in json.as_object().into_iter().flatten() {
        for (name, entity) in sections.get("entityTypes").and_then(Value::as_object).into_iter().flatten() {
            let attributes = entity.pointer("/shape/attributes").and_then(Value::as_object);
            let names = attributes.into_iter().flat_map(|a| a.keys().cloned()).collect();
            all.insert(qualified(namespace, name), names);
        }
    }
    all
}

fn qualified(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}::{name}") }
}

fn action_uid(namespace: &str, name: &str) -> Result<EntityUid, Box<cedar_policy::ParseErrors>> {
    let kind = qualified(namespace, "Action").parse().map_err(Box::new)?;
    Ok(EntityUid::from_type_name_and_id(kind, EntityId::new(name)))
}

fn collision(fragment: &str, owner: &str, name: &str) -> Diagnostic {
    Diagnostic::error(&Place::whole(fragment), format!("`{name}` is already declared by schema `{owner}`"))
        .with_help("put the fragment into a namespace of its own")
}

fn reserved(place: &Place, action: &str, attribute: &str) -> Diagnostic {
    Diagnostic::error(
        place,
        format!("the context of action `{action}` declares `{attribute}`, which every context has"),
    )
    .with_help("choose another name for the fact")
}

fn unreadable(fragment: &str, text: &str, error: &dyn miette::Diagnostic) -> Diagnostic {
    let place = error
        .labels()
        .and_then(|mut labels| labels.next())
        .map_or_else(|| Place::whole(fragment), |label| Place::at(fragment, text, label.offset()));
    let found = Diagnostic::error(&place, format!("the schema cannot be read: {error}"));
    match error.help() {
        Some(help) => found.with_help(help.to_string()),
        None => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merge(fragments: &[(&str, &str)]) -> Result<GatewaySchema, LoadError> {
        let mut all = vec![("core".to_owned(), CORE_SCHEMA.to_owned())];
        all.extend(fragments.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())));
        GatewaySchema::merge(&all)
    }

    fn refusal(fragments: &[(&str, &str)]) -> String {
        merge(fragments).unwrap_err().to_string()
    }

    const ACTION: &str = "appliesTo { principal: [Principal], resource: [Target], context: { size: Long } };";

    #[test]
    fn every_context_has_the_common_facts_and_its_own() {
        let schema = merge(&[("x", &format!("action go in [Action::\"read\"] {ACTION}"))]).unwrap();
        assert!(schema.text.contains("approvals") && schema.text.contains("size"));
        let go = schema.action("go").unwrap();
        assert!(go.declares("size") && !go.declares("approvals"));
        assert_eq!(go.nearest_fact("sise"), Some("size"));
    }

    #[test]
    fn actions_in_namespaces_stand_under_their_qualified_name() {
        let schema = merge(&[(
            "x",
            "namespace N { entity Pod in [Target] { name: String };
             action go appliesTo { principal: [Principal], resource: [Pod], context: {} }; }",
        )])
        .unwrap();
        assert_eq!(schema.action("N::go").map(|a| a.uid.to_string()).as_deref(), Some("N::Action::\"go\""));
        assert!(schema.kind("N::Pod").is_some() && schema.has_attribute("N::Pod", "name"));
    }

    #[test]
    fn fragments_that_collide_name_each_other() {
        let text = format!("action go {ACTION}");
        let refusal = refusal(&[("one", &text), ("two", &text)]);
        assert!(refusal.contains("error: two: `go` is already declared by schema `one`"), "{refusal}");
    }

    #[test]
    fn common_facts_cannot_be_redeclared() {
        let text =
            "action go appliesTo { principal: [Principal], resource: [Target], context: { peer: String } };";
        assert!(refusal(&[("x", text)]).contains("declares `peer`, which every context has"));
    }

    #[test]
    fn reveal_may_be_extended_by_resources_only() {
        let good = "entity Cell in [Target] { name: String };
             action reveal appliesTo { principal: [Principal], resource: [Cell], context: {} };";
        assert!(merge(&[("x", good)]).is_ok());
        let bad =
            "action reveal appliesTo { principal: [Principal], resource: [Target], context: { x: Long } };";
        assert!(refusal(&[("x", bad)]).contains("may only be extended by resource types"));
    }

    #[test]
    fn a_broken_fragment_is_located() {
        let refusal = refusal(&[("x.cedarschema", "entity A;\nentity { }")]);
        assert!(refusal.contains("error: x.cedarschema:2:"), "{refusal}");
    }
}
