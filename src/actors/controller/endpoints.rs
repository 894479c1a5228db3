//! Endpoints are made, changed and deleted.

use std::sync::Arc;

use actix::{Handler, Message};
use tokio::time::Instant;

use crate::{
    actors::{
        controller::{
            Controller, Office, Outcome,
            resolved::{Resolved, start_comparing},
        },
        fleet::{EndpointEntry, Fleet, Seen},
    },
    config::EndpointDecl,
    endpoint::Checked,
    error::ServeError,
    guard::drop_guarded,
    ids::{BackendName, EndpointName},
    routing::endpoint::{EndpointState, Routed},
    store::{checked, decl_of, with_functions},
    traffic::{ShadowRule, TrafficPolicy, window::Window},
};

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
        let fleet = self.office.fleet();
        let entry = fleet.endpoints.get(&name).ok_or_else(|| ServeError::UnknownEndpoint(name.clone()))?;
        let mut declared = entry.declared.clone();
        change(&mut declared)?;
        let resolved = Resolved::find(&fleet, &declared)?.check(&declared)?;
        start_comparing(&self.office, &declared)?;
        // The Controller alone changes the fleet: what was found stays so while this is written down.
        drop(fleet);
        self.office.remember(|saved| saved.put_endpoint(decl_of(&name, &declared)))?;
        let mut fleet = self.office.fleet();
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
pub(super) fn watch(seen: &mut Vec<Seen>, state: &EndpointState) {
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
        let given = decl_of(&name, &endpoint);
        let restored = match self.office.fleet().endpoints.get(&name) {
            Some(entry) if entry.unclaimed => Some(entry.declared.clone()),
            Some(_) => {
                return Err(ServeError::AlreadyExists { what: "endpoint", name: name.as_str().into() });
            }
            None => None,
        };
        if let Some(kept) = &restored
            && self.office.memory().saved().given.endpoints.get(&name) == Some(&given)
        {
            // The program says what it said before: what was changed by hand since holds.
            let kept = with_functions(kept.clone(), &endpoint);
            return self.claim_endpoint(&name, kept);
        }
        endpoint.shadows.iter().try_for_each(|rule| not_itself(&name, &endpoint, rule))?;
        let fleet = self.office.fleet();
        let resolved = Resolved::find(&fleet, &endpoint)?.check(&endpoint)?;
        self.office.routes.check(&name, &endpoint)?;
        drop(fleet);
        start_comparing(&self.office, &endpoint)?;
        self.office.remember(|saved| {
            saved.put_endpoint(given.clone());
            saved.given.endpoints.insert(name.clone(), given);
        })?;
        let mut fleet = self.office.fleet();
        let replaced = place(&self.office, &mut fleet, name, endpoint, resolved)?;
        drop(fleet);
        drop_guarded(replaced);
        Ok(())
    }
}

impl Controller {
    /// A restored endpoint is the program's again, with the functions that could not be kept.
    fn claim_endpoint(&self, name: &EndpointName, kept: Checked) -> Outcome {
        start_comparing(&self.office, &kept)?;
        let mut fleet = self.office.fleet();
        let state = Resolved::find(&fleet, &kept)?.state(&self.office, &fleet, name, &kept);
        let replaced = fleet.endpoints.get_mut(name).map(|entry| {
            entry.unclaimed = false;
            (std::mem::replace(&mut entry.declared, kept), entry.slot.publish(Some(state)))
        });
        drop(fleet);
        drop_guarded(replaced);
        Ok(())
    }

    /// The code of this backend has come: its endpoints go there from now on.
    pub(super) fn rewire(&self, backend: &BackendName) {
        let fleet = self.office.fleet();
        let mut replaced = Vec::new();
        for (name, entry) in fleet.endpoints.iter().filter(|(_, entry)| entry.names(backend)) {
            // One that cannot be as it is wanted stays as it is, and says so to whoever calls.
            let Ok(resolved) = Resolved::find(&fleet, &entry.declared) else { continue };
            let state = resolved.state(&self.office, &fleet, name, &entry.declared);
            replaced.push(entry.slot.publish(Some(state)));
        }
        drop(fleet);
        drop_guarded(replaced);
    }
}

/// Puts an endpoint in its place, with its route; what was there before is given back.
fn place(
    office: &Office,
    fleet: &mut Fleet,
    name: EndpointName,
    endpoint: Checked,
    resolved: Resolved,
) -> Result<Replaced, ServeError> {
    let slot = office.directory.slot(&name);
    let state = resolved.state(office, fleet, &name, &endpoint);
    let mut seen = Vec::new();
    watch(&mut seen, &state);
    let mut meant = None;
    if fleet.endpoints.contains_key(&name) {
        office.routes.replace(&[], &[(Arc::clone(&slot), &endpoint)], || {
            meant = slot.publish(Some(state));
            Ok(())
        })?;
    } else {
        office.routes.add(&slot, &endpoint)?;
        meant = slot.publish(Some(state));
    }
    let entry = EndpointEntry { declared: endpoint, unclaimed: false, slot, seen };
    Ok((fleet.endpoints.insert(name, entry), meant))
}

/// What an endpoint was before, to be dropped without the lock: functions of the user's may go with it.
type Replaced = (Option<EndpointEntry>, Option<Arc<EndpointState>>);

/// Makes an endpoint again that was there before the process ended, before there is any code behind it.
///
/// # Errors
/// Parts that no endpoint has: the state was changed by other hands.
pub(crate) fn restore_endpoint(office: &Office, decl: &EndpointDecl) -> Outcome {
    let endpoint = checked(decl)?;
    start_comparing(office, &endpoint)?;
    let mut fleet = office.fleet();
    let resolved = Resolved::find(&fleet, &endpoint)?;
    let replaced = place(office, &mut fleet, decl.name.clone(), endpoint, resolved)?;
    if let Some(entry) = fleet.endpoints.get_mut(&decl.name) {
        entry.unclaimed = true;
    }
    drop(fleet);
    drop_guarded(replaced);
    Ok(())
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
        let known = {
            let fleet = self.office.fleet();
            fleet.backends.contains_key(rule.backend()) || fleet.awaiting.contains_key(rule.backend())
        };
        if !known {
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
        if !self.office.fleet().endpoints.contains_key(&name) {
            return Err(ServeError::UnknownEndpoint(name));
        }
        self.office.remember(|saved| saved.remove_endpoint(&name))?;
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
