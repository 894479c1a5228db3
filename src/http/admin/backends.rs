//! `backends`: as they are declared, one by one.

use serde::Serialize;

use super::{
    answer::{Answered, changed, document},
    ask::{Ask, base_dir},
};
use crate::{
    config::{BackendDecl, BackendUpdate, ServeConfig},
    error::ServeError,
    ids::BackendName,
    plan::{PlanAction, PlanReason, PlanStep, Work},
    serve::steps,
};

#[derive(Serialize)]
struct Backends {
    backends: Vec<BackendDecl>,
}

pub(super) fn list(mut ask: Ask) -> Answered {
    ask.query.finish()?;
    Ok(document(&Backends { backends: ask.serve.config().backends }))
}

pub(super) fn get(mut ask: Ask) -> Answered {
    ask.query.finish()?;
    let name = ask.backend_name()?;
    Ok(document(find(&mut ask.serve.config(), &name)?))
}

pub(super) async fn put(mut ask: Ask) -> Answered {
    ask.query.finish()?;
    let name = ask.backend_name()?;
    let wanted = BackendDecl::from_json(&name, ask.json()?, &base_dir()?)?;
    Ok(changed(&ask.serve.set_backend(wanted).await?))
}

pub(super) async fn patch(mut ask: Ask) -> Answered {
    ask.query.finish()?;
    let name = ask.backend_name()?;
    let update = BackendUpdate::from_json(ask.json()?)?;
    let now = ask.serve.config();
    let mut wanted = now.clone();
    let known = find(&mut wanted, &name)?;
    known.config = known.config.updated(&update)?;
    // Also when it is so already: then this waits for whoever is at it.
    ask.serve.update_backend_config(&name, update).await?;
    Ok(changed(&steps(&now, &wanted)))
}

pub(super) async fn delete(mut ask: Ask) -> Answered {
    let force = ask.query.flag("force", false);
    ask.query.finish()?;
    let name = ask.backend_name()?;
    match ask.serve.delete_backend(&name, force).await {
        Ok(()) => Ok(changed(&[deleted(Work::DeleteBackend(name))])),
        Err(ServeError::UnknownBackend(_)) => Ok(changed(&[])),
        Err(error) => Err(error),
    }
}

/// Something was taken away.
pub(super) fn deleted(what: Work) -> PlanStep {
    PlanStep::new(PlanAction::Delete, what, vec![PlanReason::text("asked for")])
}

fn find<'a>(config: &'a mut ServeConfig, name: &BackendName) -> Result<&'a mut BackendDecl, ServeError> {
    let found = config.backends.iter_mut().find(|decl| decl.name == *name);
    found.ok_or_else(|| ServeError::UnknownBackend(name.clone()))
}
