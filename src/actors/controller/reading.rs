//! Code whose fingerprint has to be taken first: a file is read, on a thread of its own, as that may take long.

use std::{sync::Arc, thread};

use actix::{AsyncContext, Handler, Message, ResponseFuture};
use tokio::sync::oneshot;

use crate::{
    actors::{
        build::Code,
        context::ReplicaContext,
        controller::{Controller, Outcome, wait},
    },
    error::ServeError,
};

/// Has `code` read, then does what `message` says.
pub(super) fn first<M>(
    code: Arc<dyn Code>,
    message: M,
    ctx: &mut ReplicaContext<Controller>,
) -> ResponseFuture<Outcome>
where
    M: Message<Result = Outcome> + Send + 'static,
    Controller: Handler<M, Result = ResponseFuture<Outcome>>,
{
    let (tx, rx) = oneshot::channel();
    let read = move || {
        let _ = tx.send(code.read());
    };
    // It ends when the file does, and with the process.
    let reader = thread::Builder::new().name("greenroom-read".into()).spawn(read);
    let controller = ctx.address();
    Box::pin(async move {
        reader.map_err(|error| ServeError::Internal(format!("a thread was not started: {error}").into()))?;
        wait(rx).await?;
        controller.send(message).await.unwrap_or(Err(ServeError::ShuttingDown))
    })
}
