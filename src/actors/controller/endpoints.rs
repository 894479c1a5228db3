//! Endpoints are made and deleted.

use std::sync::Arc;

use actix::{Handler, Message};

use crate::{
    actors::{
        controller::{Controller, Outcome},
        fleet::EndpointEntry,
    },
    endpoint::Checked,
    error::ServeError,
    ids::EndpointName,
    routing::endpoint::EndpointState,
};

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
        let mut backends = Vec::new();
        for (backend, _) in endpoint.traffic.iter() {
            let entry = fleet.backends.get(backend).filter(|entry| !entry.deleting);
            let entry = entry.ok_or_else(|| ServeError::UnknownBackend(backend.clone()))?;
            backends.push((Arc::clone(&entry.routes), self.office.metrics.registry.routed(&name, backend)));
        }
        let state = EndpointState::new(endpoint.traffic.clone(), backends);
        let slot = self.office.directory.slot(&name);
        self.office.routes.add(&slot, &endpoint, &state)?;
        slot.publish(Some(state));
        fleet.endpoints.insert(name, EndpointEntry { declared: endpoint, slot });
        Ok(())
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
