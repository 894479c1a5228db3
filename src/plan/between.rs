//! The steps between two configurations.

use std::collections::BTreeMap;

use super::{
    Plan, drift,
    fields::{self, changes, endpoint_changes},
    step::{PlanAction, PlanReason, PlanStep, Work},
};
use crate::{
    config::{BackendDecl, EndpointDecl, ServeConfig},
    ids::{BackendName, EndpointName},
};

/// Options that only a new replica can follow, by key; what is below one of them too.
const ROLLED: [&str; 6] = ["version", "placement", "num_threads", "idempotent", "resources", "restart"];

/// What tells code apart: a change of one of these says why it is not the same.
const CODE: [&str; 3] = ["onnx", "registered", "version"];

impl Plan {
    /// The steps from `now` to `wanted`; `declared` is what was last deployed as a whole. Whether the code of a
    /// backend that is there in both is the same is for `same_code` to say.
    pub(crate) fn between(
        now: &ServeConfig,
        declared: Option<&ServeConfig>,
        wanted: &ServeConfig,
        same_code: impl Fn(&BackendName) -> bool,
    ) -> Self {
        let drift = declared.map(|declared| drift::overwritten(declared, now, wanted)).unwrap_or_default();
        let (there, then) = (Declared::of(now), Declared::of(wanted));
        let mut steps = Vec::new();
        let mut later = Vec::new();
        for decl in &wanted.backends {
            let Some(step) = backend_step(there.backends.get(&decl.name).copied(), decl, &same_code) else {
                continue;
            };
            // What others will need is given back first.
            let fewer = there.backends.get(&decl.name).is_some_and(|old| {
                step.action == PlanAction::Scale && old.config.num_replicas > decl.config.num_replicas
            });
            if fewer { &mut steps } else { &mut later }.push(step);
        }
        steps.append(&mut later);
        for decl in &wanted.endpoints {
            endpoint_steps(there.endpoints.get(&decl.name).copied(), decl, &mut steps);
        }
        let gone = || vec![PlanReason::text("absent in the new config")];
        let endpoints = now.endpoints.iter().filter(|decl| !then.endpoints.contains_key(&decl.name));
        steps.extend(
            endpoints.map(|decl| {
                PlanStep::new(PlanAction::Delete, Work::DeleteEndpoint(decl.name.clone()), gone())
            }),
        );
        let backends = now.backends.iter().filter(|decl| !then.backends.contains_key(&decl.name));
        steps.extend(
            backends.map(|decl| {
                PlanStep::new(PlanAction::Delete, Work::DeleteBackend(decl.name.clone()), gone())
            }),
        );
        Self { steps, drift }
    }
}

/// What is declared, by name.
pub(super) struct Declared<'a> {
    pub(super) backends: BTreeMap<&'a BackendName, &'a BackendDecl>,
    pub(super) endpoints: BTreeMap<&'a EndpointName, &'a EndpointDecl>,
}

impl<'a> Declared<'a> {
    pub(super) fn of(config: &'a ServeConfig) -> Self {
        Self {
            backends: config.backends.iter().map(|decl| (&decl.name, decl)).collect(),
            endpoints: config.endpoints.iter().map(|decl| (&decl.name, decl)).collect(),
        }
    }
}

fn backend_step(
    old: Option<&BackendDecl>,
    new: &BackendDecl,
    same_code: &impl Fn(&BackendName) -> bool,
) -> Option<PlanStep> {
    let work = || Work::Backend(Box::new(new.clone()));
    let Some(old) = old else {
        return Some(PlanStep::new(PlanAction::Create, work(), vec![PlanReason::text("not there yet")]));
    };
    let mut why = changes(&fields::of_backend(old), &fields::of_backend(new));
    let mut action = why.iter().map(action).max_by_key(|action| strength(*action));
    if !same_code(&new.name) {
        if !why.iter().any(|why| why.field.as_deref().is_some_and(|field| CODE.contains(&field))) {
            why.push(PlanReason::text("its code has changed"));
        }
        action = Some(PlanAction::Roll);
    }
    Some(PlanStep::new(action?, work(), why))
}

/// What a changed option asks for.
fn action(change: &PlanReason) -> PlanAction {
    let key = change.field.as_deref().unwrap_or_default();
    let null = |value: &Option<serde_json::Value>| value.as_ref().is_none_or(serde_json::Value::is_null);
    match key.split('.').next().unwrap_or_default() {
        "max_batch_size" if null(&change.from) != null(&change.to) => PlanAction::Roll,
        option if ROLLED.contains(&option) => PlanAction::Roll,
        "user_config" => PlanAction::Reconfigure,
        "num_replicas" => PlanAction::Scale,
        _ => PlanAction::Update,
    }
}

/// Of several things to do to one backend the strongest gives the step its name; it does the others too.
fn strength(action: PlanAction) -> u8 {
    match action {
        PlanAction::Roll => 3,
        PlanAction::Reconfigure => 2,
        PlanAction::Scale => 1,
        _ => 0,
    }
}

fn endpoint_steps(old: Option<&EndpointDecl>, new: &EndpointDecl, steps: &mut Vec<PlanStep>) {
    let mut step = |action, why| steps.push(PlanStep::new(action, Work::Endpoint(new.clone()), why));
    let Some(old) = old else {
        return step(PlanAction::Create, vec![PlanReason::text("not there yet")]);
    };
    let why = endpoint_changes(old, new);
    let about =
        |why: &PlanReason, fields: &[&str]| why.field.as_deref().is_some_and(|field| fields.contains(&field));
    if why.iter().any(|why| about(why, &["route", "methods", "affinity"])) {
        return step(PlanAction::Replace, why);
    }
    for why in why {
        let action = if about(&why, &["traffic"]) { PlanAction::SetTraffic } else { PlanAction::SetShadow };
        step(action, vec![why]);
    }
}
