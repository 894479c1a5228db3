//! `history` and `rollback`: what was applied as a whole, and back to it.

use super::{
    answer::{Answered, document},
    ask::Ask,
    config::How,
};
use crate::{config::RollbackTo, store::Applied};

#[derive(serde::Serialize)]
struct History {
    /// Oldest first.
    history: Vec<Applied>,
}

pub(super) fn get(mut ask: Ask) -> Answered {
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
    let (id, config) = ask.serve.earlier(to)?;
    how.by(format!("rollback to {id}")).run(ask, config).await
}
