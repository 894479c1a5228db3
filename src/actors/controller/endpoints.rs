//! Endpoints are made, changed and deleted.

use std::sync::Arc;

use actix::{Handler, Message};
use tokio::time::Instant;

use crate::{
    actors::{
        controller::{Controller, Office, Outcome},
        fleet::{EndpointEntry, Fleet, Seen},
    },
    comparison::Comparison,
    endpoint::Checked,
    error::ServeError,
    http_call::HttpCall,
    ids::{BackendName, EndpointName},
    routing::{
        backend_routes::BackendRoutes,
        endpoint::{EndpointState, Routed},
        shadows::Shadow,
    },
    traffic::{ShadowRule, TrafficPolicy, window::Window},
};

/// What a declared endpoint means now, once all of it is found to be possible.
fn state(
    office: &Office,
    fleet: &Fleet,
    name: &EndpointName,
    declared: &Checked,
) -> Result<EndpointState, ServeError> {
    let routes = |backend: &BackendName| -> Result<Arc<BackendRoutes>, ServeError> {
        let entry = fleet.backends.get(backend).filter(|entry| !entry.deleting);
        let entry = entry.ok_or_else(|| ServeError::UnknownBackend(backend.clone()))?;
        Ok(Arc::clone(&entry.routes))
    };
    let mut backends = Vec::new();
    for (backend, _) in declared.traffic.iter() {
        let requests = office.metrics.registry.routed(name, backend);
        backends.push(Routed { routes: routes(backend)?, requests });
    }
    let mut shadows = Vec::new();
    let before = fleet.endpoints.get(name).map(|entry| entry.slot.meaning());
    let before = before.as_deref().and_then(|state| state.as_deref());
    for rule in &declared.shadows {
        let counts = office.metrics.registry.shadow(name, rule.backend());
        // A rule that stays as it is goes on comparing where it was.
        let known = before.and_then(|state| state.shadows.iter().find(|shadow| shadow.rule == *rule));
        let comparison = rule.compared().map(|compare| {
            let known = known.and_then(|shadow| shadow.comparison.clone());
            known.unwrap_or_else(|| {
                let total = office.metrics.registry.comparison(name, rule.backend());
                Arc::new(Comparison::new(compare.clone(), &office.comparer, total))
            })
        });
        shadows.push(Shadow { rule: rule.clone(), routes: routes(rule.backend())?, counts, comparison });
    }
    let (policy, affinity) = (declared.traffic.clone(), declared.affinity);
    let state = EndpointState { policy, affinity, backends, shadows };
    let has_route = declared.route.is_some();
    if has_route {
        state.check::<HttpCall>()?;
    }
    state.check_shadows(has_route)?;
    if state.shadows.iter().any(|shadow| shadow.comparison.is_some()) {
        office.comparer.start()?;
    }
    Ok(state)
}

/// Refuses a rule whose copies would all go to where the requests themselves go.
fn not_itself(name: &EndpointName, declared: &Checked, rule: &ShadowRule) -> Outcome {
    if declared.traffic.serves_all(rule.backend()) {
        return Err(ServeError::OwnShadow { backend: rule.backend().clone(), endpoint: name.clone() });
    }
    Ok(())
}

impl Controller {
    /// Changes an endpoint as a whole, or not at all.
    fn change(&self, name: EndpointName, change: impl FnOnce(&mut Checked) -> Outcome) -> Outcome {
        let mut fleet = self.office.fleet();
        let entry = fleet.endpoints.get(&name).ok_or_else(|| ServeError::UnknownEndpoint(name.clone()))?;
        let mut declared = entry.declared.clone();
        change(&mut declared)?;
        let state = state(&self.office, &fleet, &name, &declared)?;
        if let Some(entry) = fleet.endpoints.get_mut(&name) {
            watch(&mut entry.seen, &state);
            entry.declared = declared;
            entry.slot.publish(Some(state));
        }
        Ok(())
    }
}

/// Counts lately routed requests for the backends of a new state too.
fn watch(seen: &mut Vec<Seen>, state: &EndpointState) {
    for Routed { routes, requests } in &state.backends {
        if !seen.iter().any(|seen| seen.backend == routes.name) {
            let mut window = Window::default();
            window.sample(Instant::now(), requests.total());
            seen.push(Seen { backend: routes.name.clone(), requests: Arc::clone(requests), window });
        }
    }
}

/// Make an endpoint.
#[derive(Message)]
#[rtype(result = "Outcome")]
pub(crate) struct CreateEndpoint {
    pub(crate) name: EndpointName,
    pub(crate) endpoint: Checked,
}

impl Handler<CreateEndpoint> for Controller {
    type Result = Outcome;
    fn handle(
        &mut self,
        CreateEndpoint { name, endpoint }: CreateEndpoint,
        _: &mut Self::Context,
    ) -> Outcome {
        let mut fleet = self.office.fleet();
        if fleet.endpoints.contains_key(&name) {
            return Err(ServeError::AlreadyExists { what: "endpoint", name: name.as_str().into() });
        }
        endpoint.shadows.iter().try_for_each(|rule| not_itself(&name, &endpoint, rule))?;
        let state = state(&self.office, &fleet, &name, &endpoint)?;
        let slot = self.office.directory.slot(&name);
        self.office.routes.add(&slot, &endpoint)?;
        let mut seen = Vec::new();
        watch(&mut seen, &state);
        slot.publish(Some(state));
        fleet.endpoints.insert(name, EndpointEntry { declared: endpoint, slot, seen });
        Ok(())
    }
}

/// Send an endpoint's requests elsewhere; its shadow rules stay.
#[derive(Message)]
#[rtype(result = "Outcome")]
pub(crate) struct SetTraffic {
    pub(crate) endpoint: EndpointName,
    pub(crate) policy: TrafficPolicy,
}

impl Handler<SetTraffic> for Controller {
    type Result = Outcome;
    fn handle(&mut self, SetTraffic { endpoint, policy }: SetTraffic, _: &mut Self::Context) -> Outcome {
        self.change(endpoint, |declared| {
            declared.traffic = policy;
            Ok(())
        })
    }
}

/// Send copies of a share of an endpoint's requests to a backend, or no longer.
#[derive(Message)]
#[rtype(result = "Outcome")]
pub(crate) struct SetShadow {
    pub(crate) endpoint: EndpointName,
    pub(crate) rule: ShadowRule,
}

impl Handler<SetShadow> for Controller {
    type Result = Outcome;
    fn handle(&mut self, SetShadow { endpoint, rule }: SetShadow, _: &mut Self::Context) -> Outcome {
        if !self.office.fleet().backends.contains_key(rule.backend()) {
            return Err(ServeError::UnknownBackend(rule.backend().clone()));
        }
        self.change(endpoint.clone(), |declared| {
            declared.shadows.retain(|known| known.backend() != rule.backend());
            if rule.proportion() > 0.0 {
                not_itself(&endpoint, declared, &rule)?;
                declared.shadows.push(rule);
            }
            Ok(())
        })
    }
}

/// Take an endpoint away; its backends stay.
#[derive(Message)]
#[rtype(result = "Outcome")]
pub(crate) struct DeleteEndpoint(pub(crate) EndpointName);

impl Handler<DeleteEndpoint> for Controller {
    type Result = Outcome;
    fn handle(&mut self, DeleteEndpoint(name): DeleteEndpoint, _: &mut Self::Context) -> Outcome {
        let mut fleet = self.office.fleet();
        let Some(entry) = fleet.endpoints.remove(&name) else {
            return Err(ServeError::UnknownEndpoint(name));
        };
        self.office.routes.remove(&name);
        entry.slot.publish(None);
        let route = entry.declared.route.as_ref().map(|route| route.as_str());
        self.office.metrics.registry.forget_endpoint(&name, route);
        Ok(())
    }
}
