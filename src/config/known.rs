//! `Known`: the names and routes that a configuration has declared so far.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    backend_decl::{BackendDecl, Source},
    endpoint_decl::EndpointDecl,
    item::Item,
    node::shown,
};
use crate::{
    ids::{BackendName, EndpointName},
    route::RoutePattern,
    traffic::ShadowRule,
};

/// Most backends that a refusal lists.
const LISTED_MAX: usize = 20;

/// The names and routes read so far, each with its place.
#[derive(Debug, Default)]
pub(crate) struct Known {
    backends: BTreeMap<BackendName, Backend>,
    endpoints: BTreeMap<EndpointName, String>,
    routes: BTreeMap<String, String>,
    /// A backend's name could not be read, so that one that is missing may be that.
    incomplete: bool,
    /// The backends are those of a running service, not of the same text.
    running: bool,
    /// Shadow rules that may rest.
    resting: Resting,
}

/// Which shadow rules may be for the backend that serves all of their endpoint: so one rests after a change of the
/// traffic. Nobody declares one.
#[derive(Debug, Default)]
enum Resting {
    #[default]
    None,
    /// Those that are there already.
    There(BTreeSet<(EndpointName, BackendName)>),
    /// What is read was in force when it was written.
    Any,
}

#[derive(Debug)]
struct Backend {
    place: String,
    onnx: bool,
}

impl Known {
    /// The backends of a running service.
    pub(crate) fn served(backends: &[BackendDecl]) -> Self {
        let known = |decl: &BackendDecl| {
            let onnx = matches!(decl.source, Source::Onnx { .. });
            (decl.name.clone(), Backend { place: "the service".into(), onnx })
        };
        Self { backends: backends.iter().map(known).collect(), running: true, ..Self::default() }
    }

    /// For what was in force when it was written.
    pub(crate) fn kept() -> Self {
        Self { resting: Resting::Any, ..Self::default() }
    }

    /// For what takes the place of a running configuration.
    pub(crate) fn instead_of(running: &[EndpointDecl]) -> Self {
        let rules = |decl: &EndpointDecl| {
            let rule = |rule: &ShadowRule| (decl.name.clone(), rule.backend().clone());
            decl.shadow.iter().map(rule).collect::<Vec<_>>()
        };
        Self { resting: Resting::There(running.iter().flat_map(rules).collect()), ..Self::default() }
    }

    /// Whether a rule of this endpoint may be for this backend, although that serves all of it.
    pub(crate) fn may_rest(&self, endpoint: Option<&EndpointName>, backend: &BackendName) -> bool {
        match &self.resting {
            Resting::None => false,
            Resting::There(rules) => {
                endpoint.is_some_and(|endpoint| rules.contains(&(endpoint.clone(), backend.clone())))
            }
            Resting::Any => true,
        }
    }

    /// Some backend's name could not be read.
    pub(crate) fn incomplete<T>(&mut self) -> Option<T> {
        self.incomplete = true;
        None
    }

    /// Notes a backend; a second one of its name is a problem.
    pub(crate) fn backend(&mut self, name: &BackendName, onnx: bool, item: &Item<'_>) {
        match self.backends.get(name) {
            Some(first) => item.problem(format!("backend {name} is there twice, first at {}", first.place)),
            None => drop(self.backends.insert(name.clone(), Backend { place: item.place(), onnx })),
        }
    }

    /// Notes an endpoint; a second one of its name is a problem.
    pub(crate) fn endpoint(&mut self, name: &EndpointName, item: &Item<'_>) {
        match self.endpoints.get(name) {
            Some(first) => item.problem(format!("endpoint {name} is there twice, first at {first}")),
            None => drop(self.endpoints.insert(name.clone(), item.place())),
        }
    }

    /// Notes a route; a second one that matches the same paths is a problem.
    pub(crate) fn route(&mut self, route: &RoutePattern, item: &Item<'_>) {
        let shape: Vec<&str> = route.shape().map(|segment| segment.unwrap_or("{}")).collect();
        let shape = shape.join("/");
        match self.routes.get(&shape) {
            Some(first) => {
                item.problem(format!("the route {route} matches the same paths as the one at {first}"));
            }
            None => drop(self.routes.insert(shape, item.place())),
        }
    }

    /// Whether the backend is an ONNX model.
    pub(crate) fn is_onnx(&self, name: &BackendName) -> bool {
        self.backends.get(name).is_some_and(|backend| backend.onnx)
    }

    /// A backend that is not declared is a problem.
    pub(crate) fn find(&self, name: &BackendName, item: &Item<'_>) {
        if self.incomplete || self.backends.contains_key(name) {
            return;
        }
        let mut names: Vec<String> =
            self.backends.keys().take(LISTED_MAX).map(|name| shown(name.as_str())).collect();
        if self.backends.len() > LISTED_MAX {
            names.push("...".into());
        }
        let there = if names.is_empty() { "none".into() } else { names.join(", ") };
        let listed = if self.running { "there are" } else { "declared here" };
        item.problem(format!("there is no backend {name}; {listed}: {there}"));
    }
}
