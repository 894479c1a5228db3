//! What asks for a GPU waits until the GPUs are open, which they are not before somebody asks.

use std::sync::Arc;

use actix::{AsyncContext, Handler, Message, ResponseFuture, dev::ToEnvelope};

use crate::{
    actors::{
        context::ReplicaContext,
        controller::{Controller, Outcome},
    },
    error::ServeError,
    resources::Resources,
};

impl Controller {
    /// Gives `msg` back when it can be done now; else it is sent again once the GPUs that `resources` ask for are
    /// open, and what comes back is its answer.
    pub(super) fn once_open<M>(
        &self,
        resources: &Resources,
        msg: M,
        ctx: &mut ReplicaContext<Self>,
    ) -> Result<M, ResponseFuture<Outcome>>
    where
        M: Message<Result = Outcome> + Send + 'static,
        Self: Handler<M>,
        ReplicaContext<Self>: ToEnvelope<Self, M>,
    {
        let gpus = &self.office.gpus;
        if !gpus.are_missing_for(resources) {
            return Ok(msg);
        }
        let (office, controller) = (Arc::clone(&self.office), ctx.address());
        Err(Box::pin(async move {
            office.open_gpus().await?;
            controller.send(msg).await.unwrap_or_else(|_| {
                Err(ServeError::Internal("the controller restarted while GPUs were opened; ask again".into()))
            })
        }))
    }
}
