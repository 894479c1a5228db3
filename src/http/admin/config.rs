//! `config`: everything that is wanted, read and replaced as a whole.

use std::sync::PoisonError;

use super::{
    answer::{self, Answered, Outcome, document},
    ask::{Ask, base_dir},
};
use crate::{
    config::ServeConfig,
    error::ServeError,
    plan::Plan,
    serve::{DeployOptions, Serve},
};

/// The sections that say where to listen.
const SERVERS: [&str; 2] = ["http", "admin"];

/// Everything that is wanted, as a file has it; without what no file has said of servers.
pub(super) fn get(mut ask: Ask) -> Answered {
    ask.query.finish()?;
    let config = serde_json::to_value(ask.serve.config());
    let mut config = config.map_err(|error| ServeError::Internal(error.to_string().into()))?;
    if let Some(config) = config.as_object_mut().filter(|_| !ask.serve.declares_servers()) {
        // What would be told is where a file without them has servers, and not where these are.
        SERVERS.iter().for_each(|section| drop(config.remove(*section)));
    }
    Ok(document(&config))
}

pub(super) async fn put(mut ask: Ask) -> Answered {
    let dry_run = ask.query.flag("dry_run", false);
    let how = How::read(&mut ask, "deploy");
    ask.query.finish()?;
    let wanted = ServeConfig::instead_of(&ask.serve.config(), ask.json()?, &base_dir()?)?;
    if dry_run {
        return Ok(document(&planned(&ask.serve, wanted).await?));
    }
    how.run(ask, wanted).await
}

/// What a deploy would do. Models are read to know them.
async fn planned(serve: &Serve, wanted: ServeConfig) -> Result<Plan, ServeError> {
    serve.looking(move |serve| serve.plan(&wanted)).await
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

    /// Who or what asks for it.
    pub(super) fn by(self, by: String) -> Self {
        Self { options: self.options.by(by), ..self }
    }

    /// Runs it to its end, or begins it and says what it will do.
    pub(super) async fn run(self, ask: Ask, wanted: ServeConfig) -> Answered {
        let Ask { serve, desk, .. } = ask;
        let by = self.options.by.clone();
        let mut steps = None;
        if !self.waits {
            // What can be refused at once is.
            if serve.progress().is_some() {
                return Err(ServeError::DeployInProgress);
            }
            steps = Some(planned(&serve, wanted.clone()).await?.steps);
        }
        let begun = serve.begin(wanted, self.options)?;
        let number = begun.number();
        // Whoever asked may leave: what has come of it is noted all the same.
        let end = actix_web::rt::spawn(async move {
            let result = begun.end().await;
            let outcome = Outcome::new(number, by, &result);
            *desk.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
            result
        });
        match steps {
            Some(steps) => Ok(answer::accepted(number, &steps)),
            None => {
                let result = end.await.unwrap_or(Err(ServeError::ShuttingDown));
                result.map(|deployed| answer::applied(&deployed))
            }
        }
    }
}
