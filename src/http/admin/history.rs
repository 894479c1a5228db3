//! `history` and `rollback`: what was applied as a whole, and back to it.

use super::{
    answer::{Answered, document},
    ask::Ask,
    config::How,
};
use crate::{config::RollbackTo, error::ServeError, plan::Applied};

#[derive(serde::Serialize)]
struct History {
    /// Oldest first.
    history: Vec<Applied>,
}

pub(super) async fn get(mut ask: Ask) -> Answered {
    ask.query.finish()?;
    Ok(document(&History { history: ask.serve.history() }))
}

pub(super) async fn rollback(mut ask: Ask) -> Answered {
    let how = How::read(&mut ask, "rollback");
    ask.query.finish()?;
    let to = match ask.json_if_any() {
        Some(json) => RollbackTo::from_json(json)?.0,
        None => None,
    };
    how.run(
        ask,
        |serve| {
            let history = serve.history();
            let entry = match to {
                Some(id) => history.iter().find(|applied| applied.id == id),
                None => history.iter().rev().nth(1),
            };
            match entry {
                Some(applied) => serve.plan(&applied.config),
                None => Err(ServeError::invalid("to", "nothing was applied under this number")),
            }
        },
        |serve, how| async move { serve.rollback(to, how).await },
    )
    .await
}
