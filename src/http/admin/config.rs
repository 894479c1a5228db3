//! `config`: everything that is wanted, read and replaced as a whole.

use std::{future::Future, sync::PoisonError};

use super::{
    answer::{self, Answered, Outcome, document},
    ask::{Ask, base_dir},
};
use crate::{
    config::ServeConfig,
    error::ServeError,
    plan::Plan,
    serve::{DeployOptions, Deployed, Serve},
};

pub(super) fn get(mut ask: Ask) -> Answered {
    ask.query.finish()?;
    Ok(document(&ask.serve.config()))
}

pub(super) async fn put(mut ask: Ask) -> Answered {
    let dry_run = ask.query.flag("dry_run", false);
    let how = How::read(&mut ask, "deploy");
    ask.query.finish()?;
    let wanted = ServeConfig::instead_of(&ask.serve.config(), ask.json()?, &base_dir()?)?;
    if dry_run {
        return Ok(document(&planned(&ask.serve, wanted).await?));
    }
    let target = wanted.clone();
    how.run(ask, |_| Ok(target), |serve, how| async move { serve.deploy(wanted, how).await }).await
}

/// What a deploy would do. Models are read to know them, on a thread that may wait for their files.
async fn planned(serve: &Serve, wanted: ServeConfig) -> Result<Plan, ServeError> {
    let serve = serve.clone();
    let planned = tokio::task::spawn_blocking(move || serve.plan(&wanted)).await;
    planned.unwrap_or_else(|error| Err(ServeError::Internal(error.to_string().into())))
}

/// How a deploy or rollback is run.
pub(super) struct How {
    options: DeployOptions,
    waits: bool,
}

impl How {
    pub(super) fn read(ask: &mut Ask, by: &str) -> Self {
        let waits = ask.query.flag("wait", true);
        let options = DeployOptions::default().timeout(ask.query.timeout("timeout_s")).by(by);
        let patient = ask.query.flag("wait_for_resources", false);
        Self { options: if patient { options.wait_for_resources() } else { options }, waits }
    }

    /// Runs it to its end, or begins it and says what it will do.
    pub(super) async fn run<F>(
        self,
        ask: Ask,
        target: impl FnOnce(&Serve) -> Result<ServeConfig, ServeError>,
        deploy: impl FnOnce(Serve, DeployOptions) -> F,
    ) -> Answered
    where
        F: Future<Output = Result<Deployed, ServeError>> + 'static,
    {
        let Ask { serve, desk, .. } = ask;
        let by = self.options.by.clone();
        let running = deploy(serve.clone(), self.options);
        let run = async move {
            let result = running.await;
            *desk.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Outcome::new(by, &result));
            result
        };
        if self.waits {
            return run.await.map(|deployed| answer::applied(&deployed));
        }
        // What can be refused at once is.
        if serve.progress().is_some() {
            return Err(ServeError::DeployInProgress);
        }
        let steps = planned(&serve, target(&serve)?).await?.steps;
        drop(actix_web::rt::spawn(run));
        Ok(answer::accepted(&steps))
    }
}
