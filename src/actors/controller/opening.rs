//! What asks for a GPU waits until the GPUs are open, which they are not before somebody asks.

use std::sync::Arc;

use actix::{AsyncContext, Handler, Message, ResponseFuture};

use crate::{
    actors::{
        context::ReplicaContext,
        controller::{Controller, Outcome},
    },
    error::ServeError,
};

impl Controller {
    /// Opens the GPUs, then does what `message` says.
    pub(super) fn open_first<M>(&self, message: M, ctx: &mut ReplicaContext<Self>) -> ResponseFuture<Outcome>
    where
        M: Message<Result = Outcome> + Send + 'static,
        Self: Handler<M, Result = ResponseFuture<Outcome>>,
    {
        let (office, controller) = (Arc::clone(&self.office), ctx.address());
        Box::pin(async move {
            office.open_gpus().await?;
            controller.send(message).await.unwrap_or(Err(ServeError::ShuttingDown))
        })
    }
}
