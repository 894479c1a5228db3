//! How it ends: in order, and to prove that nothing is lost, by a panic.

use actix::{Handler, Message, ResponseFuture};
use tokio::sync::oneshot;

use crate::{actors::controller::Controller, error::ServeError};

/// Drain everything and forget it.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct DrainAll;

impl Handler<DrainAll> for Controller {
    type Result = ResponseFuture<()>;
    fn handle(&mut self, _: DrainAll, ctx: &mut Self::Context) -> Self::Result {
        let mut waits = Vec::new();
        let names: Vec<_> = {
            let mut fleet = self.office.fleet();
            for entry in fleet.backends.values_mut() {
                let (tx, rx) = oneshot::channel();
                entry.delete(ServeError::ShuttingDown, tx);
                waits.push(rx);
            }
            fleet.backends.keys().cloned().collect()
        };
        names.iter().for_each(|name| self.reconcile(name, ctx));
        Box::pin(async move {
            for wait in waits {
                let _ = wait.await;
            }
        })
    }
}

/// Panic, to prove that a restart loses nothing.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Crash;

impl Handler<Crash> for Controller {
    type Result = ();
    fn handle(&mut self, _: Crash, _: &mut Self::Context) {
        panic!("told to crash");
    }
}
