//! Endpoints as a configuration declares them, and as the Controller takes them.

use crate::{
    config::EndpointDecl,
    endpoint::{Checked, Endpoint},
    error::ServeError,
    ids::EndpointName,
};

/// As it is declared.
pub(super) fn declared(name: &EndpointName, endpoint: &Checked) -> EndpointDecl {
    EndpointDecl {
        name: name.clone(),
        route: endpoint.route.clone(),
        methods: endpoint.methods.iter().map(|method| (*method).to_owned()).collect(),
        traffic: endpoint.traffic.clone(),
        shadow: endpoint.shadows.clone(),
        affinity: endpoint.affinity,
    }
}

/// As the Controller takes it.
pub(super) fn checked(decl: &EndpointDecl) -> Result<Checked, ServeError> {
    let endpoint = Endpoint::split(decl.traffic.clone()).methods(&decl.methods).affinity(decl.affinity);
    let endpoint = decl.shadow.iter().cloned().fold(endpoint, Endpoint::shadow);
    match &decl.route {
        Some(route) => endpoint.route(route.as_str()).check(),
        None => endpoint.check(),
    }
}
