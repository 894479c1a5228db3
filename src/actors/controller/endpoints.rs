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
    guard::drop_guarded,
    http_call::HttpCall,
    ids::{BackendName, EndpointName},
    routing::{
        backend_routes::BackendRoutes,
        endpoint::{EndpointState, Routed},
        shadows::{self, Shadow},
    },
    traffic::{ShadowRule, TrafficPolicy, window::Window},
};

/// The backends that a declared endpoint names, in its order, once all of it is found to be possible.
struct Resolved {
    served: Vec<Arc<BackendRoutes>>,
    shadows: Vec<Arc<BackendRoutes>>,
}

impl Resolved {
    fn new(office: &Office, fleet: &Fleet, declared: &Checked) -> Result<Self, ServeError> {
        let routes = |backend: &BackendName| -> Result<Arc<BackendRoutes>, ServeError> {
            let entry = fleet.backends.get(backend).filter(|entry| !entry.deleting());
            let entry = entry.ok_or_else(|| ServeError::UnknownBackend(backend.clone()))?;
            if !entry.created() {
                return Err(ServeError::invalid(
                    backend.as_str(),
                    "it is still being created; use it afterwards",
                ));
            }
            Ok(Arc::clone(&entry.routes))
        };
        let served =
            declared.traffic.iter().map(|(backend, _)| routes(backend)).collect::<Result<Vec<_>, _>>()?;
        let shadows: Vec<_> =
            declared.shadows.iter().map(|rule| routes(rule.backend())).collect::<Result<_, _>>()?;
        let has_route = declared.route.is_some();
        if has_route {
            served.iter().try_for_each(|routes| routes.port_of::<HttpCall>().map(drop))?;
        }
        for (rule, shadow) in declared.shadows.iter().zip(&shadows) {
            shadows::check(shadow, rule.compared().is_some(), &served, has_route)?;
        }
        if declared.shadows.iter().any(|rule| rule.compared().is_some()) {
            office.comparer.start()?;
        }
        Ok(Self { served, shadows })
    }

    /// What the endpoint means now. Its counters are made here, when nothing can be refused any more.
    fn state(self, office: &Office, fleet: &Fleet, name: &EndpointName, declared: &Checked) -> EndpointState {
        let registry = &office.metrics.registry;
        let routed =
            |routes: Arc<BackendRoutes>| Routed { requests: registry.routed(name, &routes.name), routes };
        let before = fleet.endpoints.get(name).map(|entry| entry.slot.meaning());
        let before = before.as_deref().and_then(|state| state.as_deref());
        let shadow = |(rule, routes): (&ShadowRule, Arc<BackendRoutes>)| {
            let counts = registry.shadow(name, rule.backend());
            // A rule that stays as it is goes on comparing where it was.
            let known = before.and_then(|state| state.shadows.iter().find(|shadow| shadow.rule == *rule));
            let comparison = rule.compared().map(|compare| {
                let known = known.and_then(|shadow| shadow.comparison.clone());
                known.unwrap_or_else(|| {
                    let total = registry.comparison(name, rule.backend());
                    Arc::new(Comparison::new(compare.clone(), &office.comparer, total))
                })
            });
            Shadow { rule: rule.clone(), routes, counts, comparison }
        };
        EndpointState {
            policy: declared.traffic.clone(),
            affinity: declared.affinity,
            backends: self.served.into_iter().map(routed).collect(),
            shadows: declared.shadows.iter().zip(self.shadows).map(shadow).collect(),
        }
    }
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
        let resolved = Resolved::new(&self.office, &fleet, &declared)?;
        let state = resolved.state(&self.office, &fleet, &name, &declared);
        let replaced = fleet.endpoints.get_mut(&name).map(|entry| {
            watch(&mut entry.seen, &state);
            (std::mem::replace(&mut entry.declared, declared), entry.slot.publish(Some(state)))
        });
        // Functions of the user's may go with it: not under the lock.
        drop(fleet);
        drop_guarded(replaced);
        Ok(())
    }
}

/// Counts lately routed requests for the backends of a new state too.
fn watch(seen: &mut Vec<Seen>, state: &EndpointState) {
    for Routed { routes, requests } in &state.backends {
        // A backend that was deleted and made again has a counter of its own.
        seen.retain(|seen| seen.backend != routes.name || Arc::ptr_eq(&seen.requests, requests));
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
        let resolved = Resolved::new(&self.office, &fleet, &endpoint)?;
        let slot = self.office.directory.slot(&name);
        self.office.routes.add(&slot, &endpoint)?;
        let state = resolved.state(&self.office, &fleet, &name, &endpoint);
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
        let removed = self.office.fleet().endpoints.remove(&name);
        let Some(entry) = removed else {
            return Err(ServeError::UnknownEndpoint(name));
        };
        self.office.routes.remove(&name);
        let meant = entry.slot.publish(None);
        let route = entry.declared.route.as_ref().map(|route| route.as_str());
        self.office.metrics.registry.forget_endpoint(&name, route);
        drop_guarded((entry, meant));
        Ok(())
    }
}
