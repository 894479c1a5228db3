//! The Serve API: backends and endpoints made, read, changed, listed and deleted, and every refusal.

mod calls;
mod life;
mod refusals;
mod scaling;
mod starting;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use actix::{Actor, Handler, Message};
use greenroom::{Backend, Batch, Problem, ReplicaContext, Serve, ServeError, ServeOptions};
use serde::Deserialize;

/// Adds one.
#[derive(Message, Clone, Deserialize)]
#[rtype(result = "Result<u64, ServeError>")]
pub struct Next(pub u64);

/// Something that nobody takes.
#[derive(Message)]
#[rtype(result = "Result<u64, ServeError>")]
pub struct Stranger;

/// Takes [`Next`], alone and in batches; counts how many of it live.
pub struct Adder(Arc<AtomicUsize>);

impl Actor for Adder {
    type Context = ReplicaContext<Self>;
}

impl Drop for Adder {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Handler<Next> for Adder {
    type Result = Result<u64, ServeError>;
    fn handle(&mut self, Next(n): Next, _: &mut Self::Context) -> Self::Result {
        Ok(n + 1)
    }
}

impl Handler<Batch<Next>> for Adder {
    type Result = Result<Vec<Result<u64, ServeError>>, ServeError>;
    fn handle(&mut self, batch: Batch<Next>, _: &mut Self::Context) -> Self::Result {
        Ok(batch.into_iter().map(|Next(n)| Ok(n + 1)).collect())
    }
}

/// A backend without HTTP form and the number of its states that live.
pub fn adder() -> (Backend<Adder>, Arc<AtomicUsize>) {
    let living = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&living);
    let make = move |_: &mut ReplicaContext<Adder>| {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(Adder(Arc::clone(&count)))
    };
    (Backend::new(make).handles::<Next>(), living)
}

/// A Serve on the test's thread, whose time may be paused.
pub async fn here() -> Serve {
    Serve::start(ServeOptions::default().current_thread()).await.unwrap()
}

/// The problems of a refusal, and nothing else.
pub fn problems(error: ServeError) -> Vec<Problem> {
    match error {
        ServeError::InvalidConfig(problems) => problems,
        other => panic!("another error: {other:?}"),
    }
}
