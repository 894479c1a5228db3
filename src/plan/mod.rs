//! What leads from one configuration to another: the steps, in order and with why, and what would be lost by them.

mod between;
mod drift;
mod fields;
mod show;
mod step;
#[cfg(test)]
mod tests;

use serde::Serialize;

pub use drift::Drift;
pub(crate) use step::Work;
pub use step::{PlanAction, PlanReason, PlanStep, Subject};

/// The steps from what is wanted now to another configuration, in the order in which they are taken: backends are
/// made and changed first, then all endpoints change together, then what is gone is deleted.
///
/// For people it is a table (`Display`), for machines `{"steps": [{"action", "subject", "name", "why"}], "drift"}`.
///
/// ```
/// use std::path::Path;
/// use greenroom::{Backend, PlanAction, Serve, ServeConfig, ServeError, ServeOptions};
/// # #[derive(actix::Message)]
/// # #[rtype(result = "Result<u64, ServeError>")]
/// # struct Ask;
/// # #[actix_web::main]
/// # async fn main() -> Result<(), ServeError> {
/// let serve = Serve::start(ServeOptions::default().current_thread()).await?;
/// serve.register("model", Backend::from_fn(|_: Ask| async { Ok(1) }))?;
/// let text = "
/// backends: [{ name: a, registered: model, num_replicas: 2 }]
/// endpoints: [{ name: a, backend: a }]
/// ";
/// let plan = serve.plan(&ServeConfig::from_yaml(text, Path::new("."))?)?;
/// let actions: Vec<_> = plan.steps.iter().map(|step| (step.action, step.name.as_str())).collect();
/// assert_eq!(actions, [(PlanAction::Create, "a"), (PlanAction::Create, "a")]);
/// # serve.shutdown().await
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Plan {
    /// What is done, in order; nothing when all is as it should be.
    pub steps: Vec<PlanStep>,
    /// What was changed by hand since the last configuration was deployed as a whole, and would be overwritten.
    pub drift: Vec<Drift>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}
