//! `status` and `progress`: how everything is, and how far the deploy under way has come.

use std::sync::PoisonError;

use serde::Serialize;

use super::{
    answer::{Answered, Outcome, document},
    ask::Ask,
};
use crate::serve::{Progress, Status};

#[derive(Serialize)]
struct Now {
    #[serde(flatten)]
    status: Status,
    #[serde(flatten)]
    deploys: Deploys,
}

#[derive(Serialize)]
struct Deploys {
    /// The deploy under way.
    deploy: Option<Progress>,
    /// What came of the one that ended last.
    last_deploy: Option<Outcome>,
}

pub(super) fn status(mut ask: Ask) -> Answered {
    ask.query.finish()?;
    Ok(document(&Now { status: ask.serve.status(), deploys: deploys(&ask) }))
}

pub(super) fn progress(mut ask: Ask) -> Answered {
    ask.query.finish()?;
    Ok(document(&deploys(&ask)))
}

fn deploys(ask: &Ask) -> Deploys {
    let last_deploy = ask.desk.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Deploys { deploy: ask.serve.progress(), last_deploy }
}
