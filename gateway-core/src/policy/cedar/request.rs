//! A question in Cedar's terms: entities, context, request. Everything is checked against the schema here, so that an
//! adapter that names what its fragment does not declare is told, and denied.

use std::collections::BTreeSet;

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression as Value,
};

use super::load::Loaded;
use super::slices::Asked;
use crate::clock::Timestamp;
use crate::identity::Principal;
use crate::operation::{Access, Action, Fact, Facts, Resource};
use crate::policy::{PolicyError, PolicyInput};

const DAYS: [&str; 7] = ["thursday", "friday", "saturday", "sunday", "monday", "tuesday", "wednesday"];
const SECONDS_PER_DAY: i64 = 24 * 60 * 60;

/// All that the accesses of one operation have in common.
#[derive(Debug)]
pub(super) struct Question<'a> {
    pub(super) loaded: &'a Loaded,
    pub(super) input: &'a PolicyInput<'a>,
    /// The principal, then its groups.
    principal: Vec<EntityUid>,
    entity: Entity,
}

/// One access, ready to be evaluated.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) request: Request,
    pub(super) entities: Entities,
    action: EntityUid,
    path: Vec<EntityUid>,
}

impl Prepared {
    pub(super) fn asked<'a>(&'a self, question: &'a Question<'_>) -> Asked<'a> {
        Asked { action: &self.action, principal: &question.principal, resource: &self.path }
    }
}

impl<'a> Question<'a> {
    pub(super) fn new(loaded: &'a Loaded, input: &'a PolicyInput<'a>) -> Result<Self, PolicyError> {
        let principal = &*input.session.principal;
        let own = uid(loaded, "Principal", &principal_id(principal))?;
        let groups: Result<Vec<_>, _> =
            principal.groups.iter().map(|group| uid(loaded, "Group", group)).collect();
        let groups = groups?;
        let entity = Entity::new_with_tags(
            own.clone(),
            principal_attributes(loaded, principal)?,
            groups.iter().cloned(),
            principal.claims.iter().map(|(name, value)| (name.clone(), Value::new_string(value.clone()))),
        )
        .map_err(|e| PolicyError(e.to_string()))?;
        Ok(Self { loaded, input, principal: std::iter::once(own).chain(groups).collect(), entity })
    }

    /// One access of the operation, with these approvals given.
    pub(super) fn access(
        &self,
        access: &Access,
        approvals: &BTreeSet<String>,
    ) -> Result<Prepared, PolicyError> {
        self.prepare(&access.action, &access.resource, &self.input.operation.facts, approvals)
    }

    /// May the principal see this label's values? Facts of the statement do not matter.
    pub(super) fn reveal(&self, label: &Resource) -> Result<Prepared, PolicyError> {
        self.prepare(&Action::REVEAL, label, &Facts::new(), self.input.approvals)
    }

    fn prepare(
        &self,
        action: &Action,
        resource: &Resource,
        facts: &Facts,
        approvals: &BTreeSet<String>,
    ) -> Result<Prepared, PolicyError> {
        let schema = &self.loaded.schema;
        let shape = schema.action(action.as_str()).ok_or_else(|| {
            let near = schema.nearest_action(action.as_str());
            let near = near.map(|near| format!(" (or is it `{near}`?)")).unwrap_or_default();
            PolicyError(format!(
                "the schema has no action `{action}`; add it to the adapter's fragment{near}"
            ))
        })?;
        if let Some(unknown) = facts.keys().find(|name| !shape.declares(name)) {
            let near = shape
                .nearest_fact(unknown)
                .map(|near| format!("; did you mean `{near}`?"))
                .unwrap_or_default();
            return Err(PolicyError(format!(
                "the schema declares no fact `{unknown}` for action `{action}`{near}"
            )));
        }
        let (path, mut entities) = steps(self.loaded, resource)?;
        entities.push(self.entity.clone());
        let entities = schema
            .action_entities
            .clone()
            .add_entities(entities, Some(&schema.schema))
            .map_err(|e| PolicyError(format!("the entities of `{action}` do not fit the schema: {e}")))?;
        let last = path.last().cloned().ok_or_else(|| PolicyError("a resource has no steps".to_owned()))?;
        let request = Request::new(
            self.principal.first().cloned().unwrap_or_else(|| self.entity.uid()),
            shape.uid.clone(),
            last,
            self.context(facts, approvals)?,
            Some(&schema.schema),
        )
        // Without Cedar's own words: they would print the facts.
        .map_err(|_| {
            PolicyError(format!(
                "the facts given for action `{action}` on `{}` are not those that the schema declares",
                resource.kind()
            ))
        })?;
        Ok(Prepared { request, entities, action: shape.uid.clone(), path })
    }

    fn context(&self, facts: &Facts, approvals: &BTreeSet<String>) -> Result<Context, PolicyError> {
        let session = self.input.session;
        let common = [
            ("approvals", strings(approvals.iter())),
            ("patterns", strings(self.input.patterns.iter())),
            ("protocol", string(session.protocol)),
            ("target", string(&session.target)),
            ("peer", string(&session.peer)),
            ("time", time(self.input.now)?),
        ];
        let scope = session.scope.iter().map(|scope| ("scope", string(scope)));
        let own = facts.iter().map(|(name, fact)| (name.as_ref(), value(fact)));
        let pairs = common.into_iter().chain(scope).chain(own).map(|(name, value)| (name.to_owned(), value));
        Context::from_pairs(pairs).map_err(|e| PolicyError(e.to_string()))
    }
}

/// `issuer|subject`; a `|` inside the issuer is escaped, so no two principals share an id.
fn principal_id(principal: &Principal) -> String {
    let issuer = principal.actor.issuer.replace('\\', "\\\\").replace('|', "\\|");
    format!("{issuer}|{}", principal.actor.subject)
}

fn principal_attributes(loaded: &Loaded, principal: &Principal) -> Result<Vec<(String, Value)>, PolicyError> {
    let named = |kind, name| uid(loaded, kind, name).map(Value::new_entity_uid);
    let required = [
        ("kind", named("Kind", principal.kind.as_str())?),
        ("phase", named("Phase", principal.phase.as_str())?),
        ("issuer", string(&principal.actor.issuer)),
        ("subject", string(&principal.actor.subject)),
        ("chain", Value::new_set(principal.actor_chain.iter().map(|actor| string(&actor.to_string())))),
    ];
    let optional = [("task", &principal.task), ("plan", &principal.plan), ("workload", &principal.workload)];
    let given =
        optional.into_iter().filter_map(|(name, value)| value.as_ref().map(|value| (name, string(value))));
    Ok(required.into_iter().chain(given).map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Each step of the path as an entity, the previous one its parent.
fn steps(loaded: &Loaded, resource: &Resource) -> Result<(Vec<EntityUid>, Vec<Entity>), PolicyError> {
    let mut uids: Vec<EntityUid> = Vec::with_capacity(resource.path().len());
    let mut entities = Vec::with_capacity(resource.path().len() + 1);
    let depth = resource.path().len();
    for (index, (kind, name)) in resource.path().iter().enumerate() {
        let own = uid(loaded, kind, &resource.id_at(index + 1))?;
        let mut attributes = vec![];
        if loaded.schema.has_attribute(kind, "name") {
            attributes.push(("name".to_owned(), string(name)));
        }
        if index + 1 == depth {
            attributes.extend(resource.attributes.iter().map(|(name, fact)| (name.to_string(), value(fact))));
        }
        let entity = Entity::new_with_tags(own.clone(), attributes, uids.last().cloned(), []);
        entities.push(entity.map_err(|e| PolicyError(e.to_string()))?);
        uids.push(own);
    }
    Ok((uids, entities))
}

fn uid(loaded: &Loaded, kind: &str, id: &str) -> Result<EntityUid, PolicyError> {
    let kind: &EntityTypeName = loaded.schema.kind(kind).ok_or_else(|| {
        PolicyError(format!("the schema has no entity type `{kind}`; add it to the adapter's fragment"))
    })?;
    Ok(EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id)))
}

fn value(fact: &Fact) -> Value {
    match fact {
        Fact::Bool(value) => Value::new_bool(*value),
        Fact::Long(value) => Value::new_long(*value),
        Fact::String(value) => string(value),
        Fact::Set(values) => strings(values.iter()),
    }
}

fn string(text: &str) -> Value {
    Value::new_string(text.to_owned())
}

fn strings<'a>(items: impl Iterator<Item = &'a String>) -> Value {
    Value::new_set(items.map(|item| string(item)))
}

fn time(now: Timestamp) -> Result<Value, PolicyError> {
    let seconds = now.as_seconds();
    let day = usize::try_from(seconds.div_euclid(SECONDS_PER_DAY).rem_euclid(7)).unwrap_or(0);
    let fields = [
        ("unix", Value::new_long(seconds)),
        ("hour", Value::new_long(seconds.rem_euclid(SECONDS_PER_DAY) / 3600)),
        ("weekday", string(DAYS.get(day).copied().unwrap_or_default())),
    ];
    Value::new_record(fields.map(|(name, value)| (name.to_owned(), value)))
        .map_err(|e| PolicyError(e.to_string()))
}
