//! Drift: what was changed by hand since it was declared.

use serde::Serialize;

use super::{
    between::Declared,
    fields::{self, Fields, changes, endpoint_changes},
    step::{PlanReason, Subject},
};
use crate::config::{BackendDecl, EndpointDecl, ServeConfig};

/// Something that was changed by hand since it was declared, and would be overwritten.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Drift {
    /// What kind of thing.
    pub subject: Subject,
    /// Its name.
    pub name: String,
    /// What was done: `num_replicas: 2 -> 5`, from what was declared to what is there now.
    pub what: Vec<PlanReason>,
}

/// Everything in which `now` is neither as it was declared nor as it is wanted.
pub(super) fn overwritten(declared: &ServeConfig, now: &ServeConfig, wanted: &ServeConfig) -> Vec<Drift> {
    let [before, there, then] = [declared, now, wanted].map(Declared::of);
    let mut found = Vec::new();
    let mut note = |subject, name: &str, what: Vec<PlanReason>| {
        if !what.is_empty() {
            found.push(Drift { subject, name: name.into(), what });
        }
    };
    for (name, old) in &before.backends {
        let what = match (there.backends.get(name), then.backends.get(name)) {
            (None, Some(_)) => vec![PlanReason::text("deleted")],
            (Some(is), then) => changed_backend(old, is, then.copied()),
            (None, None) => Vec::new(),
        };
        note(Subject::Backend, name.as_str(), what);
    }
    let made = |there: bool, then: bool| !there && !then;
    for name in there.backends.keys() {
        if made(before.backends.contains_key(name), then.backends.contains_key(name)) {
            note(Subject::Backend, name.as_str(), vec![PlanReason::text("created")]);
        }
    }
    for (name, old) in &before.endpoints {
        let what = match (there.endpoints.get(name), then.endpoints.get(name)) {
            (None, Some(_)) => vec![PlanReason::text("deleted")],
            (Some(is), then) => changed_endpoint(old, is, then.copied()),
            (None, None) => Vec::new(),
        };
        note(Subject::Endpoint, name.as_str(), what);
    }
    for name in there.endpoints.keys() {
        if made(before.endpoints.contains_key(name), then.endpoints.contains_key(name)) {
            note(Subject::Endpoint, name.as_str(), vec![PlanReason::text("created")]);
        }
    }
    found
}

fn changed_backend(old: &BackendDecl, is: &BackendDecl, then: Option<&BackendDecl>) -> Vec<PlanReason> {
    let [old, is] = [old, is].map(fields::of_backend);
    let then: Option<Fields> = then.map(fields::of_backend);
    kept_from(changes(&old, &is), then.map(|then| changes(&is, &then)))
}

fn changed_endpoint(old: &EndpointDecl, is: &EndpointDecl, then: Option<&EndpointDecl>) -> Vec<PlanReason> {
    kept_from(endpoint_changes(old, is), then.map(|then| endpoint_changes(is, then)))
}

/// Of what was changed by hand what the plan changes too, which is all when the whole goes.
fn kept_from(by_hand: Vec<PlanReason>, planned: Option<Vec<PlanReason>>) -> Vec<PlanReason> {
    let Some(planned) = planned else { return by_hand };
    by_hand.into_iter().filter(|hand| planned.iter().any(|plan| plan.field == hand.field)).collect()
}
