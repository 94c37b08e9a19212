//! Which policies can matter to a question.
//!
//! A policy is left out only if its scope (`principal`, `action`, `resource`) is false for the question. Cedar evaluates
//! the scope before the conditions and scopes cannot fail, so what is left out would neither have decided nor failed.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use cedar_policy::{
    ActionConstraint, Entities, EntityUid, Policy, PolicySet, PrincipalConstraint, ResourceConstraint,
};

/// A question, as far as scopes look at it.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) action: &'a EntityUid,
    /// The principal and its groups.
    pub(super) principal: &'a [EntityUid],
    /// The steps of the resource's path, the resource last.
    pub(super) resource: &'a [EntityUid],
}

/// The scope of one policy, with its action constraint spelled out.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    principal: PrincipalConstraint,
    resource: ResourceConstraint,
    /// Every action the policy covers.
    pub(super) actions: Vec<EntityUid>,
}

impl Scope {
    /// The scope of `policy` among the actions of the schema.
    pub(super) fn of(policy: &Policy, actions: &Entities) -> Self {
        let all = actions.iter().map(cedar_policy::Entity::uid);
        let covered: Vec<EntityUid> = match policy.action_constraint() {
            ActionConstraint::Any => all.collect(),
            ActionConstraint::Eq(uid) => vec![uid],
            ActionConstraint::In(groups) => {
                all.filter(|action| groups.iter().any(|g| covers(actions, g, action))).collect()
            }
        };
        Self {
            principal: policy.principal_constraint(),
            resource: policy.resource_constraint(),
            actions: covered,
        }
    }

    fn matches(&self, asked: &Asked<'_>) -> bool {
        self.matches_principal(asked.principal) && self.matches_resource(asked.resource)
    }

    fn matches_principal(&self, principal: &[EntityUid]) -> bool {
        let Some(own) = principal.first() else { return false };
        match &self.principal {
            PrincipalConstraint::Any => true,
            PrincipalConstraint::Eq(uid) => uid == own,
            PrincipalConstraint::In(uid) => principal.contains(uid),
            PrincipalConstraint::Is(kind) => kind == own.type_name(),
            PrincipalConstraint::IsIn(kind, uid) => kind == own.type_name() && principal.contains(uid),
        }
    }

    fn matches_resource(&self, path: &[EntityUid]) -> bool {
        let Some(own) = path.last() else { return false };
        match &self.resource {
            ResourceConstraint::Any => true,
            ResourceConstraint::Eq(uid) => uid == own,
            ResourceConstraint::In(uid) => path.contains(uid),
            ResourceConstraint::Is(kind) => kind == own.type_name(),
            ResourceConstraint::IsIn(kind, uid) => kind == own.type_name() && path.contains(uid),
        }
    }

    /// The one entity that a question must name for the policy to match, if there is one.
    fn resource_anchor(&self) -> Option<&EntityUid> {
        match &self.resource {
            ResourceConstraint::Eq(uid) | ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid) => {
                Some(uid)
            }
            ResourceConstraint::Any | ResourceConstraint::Is(_) => None,
        }
    }

    fn principal_anchor(&self) -> Option<&EntityUid> {
        match &self.principal {
            PrincipalConstraint::Eq(uid)
            | PrincipalConstraint::In(uid)
            | PrincipalConstraint::IsIn(_, uid) => Some(uid),
            PrincipalConstraint::Any | PrincipalConstraint::Is(_) => None,
        }
    }
}

fn covers(actions: &Entities, group: &EntityUid, action: &EntityUid) -> bool {
    group == action || actions.is_ancestor_of(group, action)
}

/// Policies by action, then by the entity their scope is anchored to.
#[derive(Debug, Default)]
pub(super) struct Slices {
    scopes: Vec<Scope>,
    by_action: HashMap<EntityUid, Anchors>,
}

#[derive(Debug, Default)]
struct Anchors {
    by_resource: HashMap<EntityUid, Vec<usize>>,
    by_principal: HashMap<EntityUid, Vec<usize>>,
    rest: Vec<usize>,
}

impl Slices {
    /// Indexes policies by their position.
    pub(super) fn new(scopes: Vec<Scope>) -> Self {
        let mut by_action: HashMap<EntityUid, Anchors> = HashMap::new();
        for (index, scope) in scopes.iter().enumerate() {
            for action in &scope.actions {
                by_action.entry(action.clone()).or_default().add(index, scope);
            }
        }
        Self { scopes, by_action }
    }

    /// The positions of all policies whose scope matches, ascending.
    pub(super) fn candidates(&self, asked: &Asked<'_>) -> Vec<usize> {
        let Some(anchors) = self.by_action.get(asked.action) else { return Vec::new() };
        let resource = asked.resource.iter().filter_map(|step| anchors.by_resource.get(step)).flatten();
        let principal = asked.principal.iter().filter_map(|group| anchors.by_principal.get(group)).flatten();
        let mut found: Vec<usize> = resource
            .chain(principal)
            .chain(&anchors.rest)
            .copied()
            .filter(|index| self.scopes.get(*index).is_some_and(|scope| scope.matches(asked)))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

impl Anchors {
    fn add(&mut self, index: usize, scope: &Scope) {
        let list = match (scope.resource_anchor(), scope.principal_anchor()) {
            (Some(uid), _) => self.by_resource.entry(uid.clone()).or_default(),
            (None, Some(uid)) => self.by_principal.entry(uid.clone()).or_default(),
            (None, None) => &mut self.rest,
        };
        list.push(index);
    }
}

/// Distinct slices kept ready for evaluation; more would be a set of policies with one slice per question.
const MAX_SETS: usize = 1024;

/// Slices as sets that Cedar can evaluate: many questions share one.
#[derive(Debug, Default)]
pub(super) struct Sets(RwLock<HashMap<Box<[usize]>, Arc<PolicySet>>>);

impl Sets {
    /// The set of `candidates`, made by `make` if it is not known yet.
    pub(super) fn of<E>(
        &self,
        candidates: &[usize],
        make: impl FnOnce() -> Result<PolicySet, E>,
    ) -> Result<Arc<PolicySet>, E> {
        if let Some(known) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(candidates) {
            return Ok(Arc::clone(known));
        }
        let made = Arc::new(make()?);
        let mut sets = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if sets.len() >= MAX_SETS {
            sets.clear();
        }
        sets.insert(candidates.into(), Arc::clone(&made));
        Ok(made)
    }
}
