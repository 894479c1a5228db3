//! One backend or endpoint by itself, changed by hand in the form that a file has, and what a change does.

use crate::{
    actors::controller::{DeployBackend, SetEndpoints},
    config::{BackendDecl, EndpointDecl, ServeConfig},
    error::ServeError,
    plan::{Plan, PlanStep},
    serve::{Serve, deploy::same_code},
    store::{checked, straight_source},
};

impl Serve {
    /// Makes the backend, or makes it into this, and waits until it is so; what that took.
    ///
    /// # Errors
    /// A source without code, options that are not allowed or do not fit, replicas that do not start; then it is as it
    /// was.
    pub(crate) async fn set_backend(&self, mut decl: BackendDecl) -> Result<Vec<PlanStep>, ServeError> {
        straight_source(&mut decl.source).map_err(|error| ServeError::invalid("onnx", error.to_string()))?;
        let asked = decl.clone();
        // A model's file is read, on a thread that may wait for it.
        let check = move |serve: &Serve| {
            let code = serve.0.sources.code(&asked.source)?;
            code.check(&asked.config)?;
            code.read().map(|()| code)
        };
        let code = self.looking(check).await?;
        let now = self.config();
        let mut wanted = now.clone();
        match wanted.backends.iter_mut().find(|known| known.name == decl.name) {
            Some(known) => *known = decl.clone(),
            None => wanted.backends.push(decl.clone()),
        }
        let same = {
            let fleet = self.0.office.fleet();
            let new = (&code, &decl.config);
            fleet.backends.get(&decl.name).is_some_and(|old| same_code((&old.code, &old.config), new))
        };
        let steps = Plan::between(&now, None, &wanted, |name| *name != decl.name || same).steps;
        // Also when it is so already: then this waits for whoever is at it, and is refused while a deploy is.
        let BackendDecl { name, source, config } = decl;
        self.ask(DeployBackend { name, source, code, config, by_program: false }).await?;
        Ok(steps)
    }

    /// Makes the endpoint, or puts this in its place, at once; what that took.
    ///
    /// # Errors
    /// Backends that are not there or cannot take its requests, a route that is taken; then it is as it was.
    pub(crate) async fn set_endpoint(&self, decl: EndpointDecl) -> Result<Vec<PlanStep>, ServeError> {
        let endpoint = checked(&decl)?;
        let name = decl.name.clone();
        let now = self.config();
        let mut wanted = now.clone();
        match wanted.endpoints.iter_mut().find(|known| known.name == decl.name) {
            Some(known) => *known = decl,
            None => wanted.endpoints.push(decl),
        }
        let steps = steps(&now, &wanted);
        // What is so already stays untouched, with its counts; but a deploy that is under way may change it.
        let set = if steps.is_empty() { Vec::new() } else { vec![(name, endpoint)] };
        self.ask(SetEndpoints { set, gone: Vec::new() }).await?;
        Ok(steps)
    }
}

/// What leads from the one to the other while all code stays as it is.
pub(crate) fn steps(now: &ServeConfig, wanted: &ServeConfig) -> Vec<PlanStep> {
    Plan::between(now, None, wanted, |_| true).steps
}
