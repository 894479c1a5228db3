//! `shutdown`: the end of everything, in order, after the answer.

use serde::Serialize;

use super::{
    answer::{Answered, document},
    ask::Ask,
};

#[derive(Serialize)]
struct Ended {
    changed: &'static [Ending],
}

#[derive(Serialize)]
struct Ending {
    action: &'static str,
    subject: &'static str,
}

pub(super) fn post(mut ask: Ask) -> Answered {
    ask.query.finish()?;
    ask.nothing()?;
    let ending: &[Ending] = &[Ending { action: "shutdown", subject: "service" }];
    Ok(document(&Ended { changed: if ask.serve.begin_shutdown()? { ending } else { &[] } }))
}
