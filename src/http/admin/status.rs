//! `status`, `replicas` and `progress`: how everything is, and how far the deploy under way has come.

use std::sync::PoisonError;

use serde::Serialize;

use super::{
    answer::{Answered, Outcome, document},
    ask::Ask,
    server::Server,
};
use crate::serve::{Progress, Rows, Status};

/// Most replicas told of one backend, and how many unless it is said.
const REPLICAS_MAX: u64 = 10_000;
const REPLICAS_DEFAULT: u64 = 100;

#[derive(Serialize)]
struct Now {
    server: Server,
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
    let rows = if ask.query.flag("replicas", true) { Rows::Each } else { Rows::Counted };
    ask.query.finish()?;
    let server = Server::read(&ask.serve);
    Ok(document(&Now { server, status: ask.serve.status_with(rows), deploys: deploys(&ask) }))
}

pub(super) fn replicas(mut ask: Ask) -> Answered {
    let max = ask.query.number("max", 1..=REPLICAS_MAX, REPLICAS_DEFAULT);
    ask.query.finish()?;
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    Ok(document(&ask.serve.replicas(&ask.backend_name()?, max)?))
}

pub(super) fn progress(mut ask: Ask) -> Answered {
    ask.query.finish()?;
    Ok(document(&deploys(&ask)))
}

fn deploys(ask: &Ask) -> Deploys {
    let last_deploy = ask.desk.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Deploys { deploy: ask.serve.progress(), last_deploy }
}
