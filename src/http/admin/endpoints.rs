//! `endpoints`: as they are declared, one by one.

use serde::Serialize;

use super::{
    answer::{Answered, changed, document},
    ask::Ask,
    backends::deleted,
};
use crate::{
    config::{EndpointDecl, ServeConfig},
    error::ServeError,
    ids::EndpointName,
    plan::Work,
};

#[derive(Serialize)]
struct Endpoints {
    endpoints: Vec<EndpointDecl>,
}

pub(super) fn list(mut ask: Ask) -> Answered {
    ask.query.finish()?;
    Ok(document(&Endpoints { endpoints: ask.serve.config().endpoints }))
}

pub(super) fn get(mut ask: Ask) -> Answered {
    ask.query.finish()?;
    let name = ask.endpoint_name()?;
    Ok(document(find(&mut ask.serve.config(), &name)?))
}

pub(super) async fn put(mut ask: Ask) -> Answered {
    ask.query.finish()?;
    let name = ask.endpoint_name()?;
    let wanted = EndpointDecl::from_json(&name, ask.json()?, &ask.serve.config().backends)?;
    Ok(changed(&ask.serve.set_endpoint(wanted).await?))
}

pub(super) async fn delete(mut ask: Ask) -> Answered {
    ask.query.finish()?;
    let name = ask.endpoint_name()?;
    match ask.serve.delete_endpoint(&name).await {
        Ok(()) => Ok(changed(&[deleted(Work::DeleteEndpoint(name))])),
        Err(ServeError::UnknownEndpoint(_)) => Ok(changed(&[])),
        Err(error) => Err(error),
    }
}

pub(super) fn find<'a>(
    config: &'a mut ServeConfig,
    name: &EndpointName,
) -> Result<&'a mut EndpointDecl, ServeError> {
    let found = config.endpoints.iter_mut().find(|decl| decl.name == *name);
    found.ok_or_else(|| ServeError::UnknownEndpoint(name.clone()))
}
