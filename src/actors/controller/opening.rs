//! What asks for a GPU waits until the GPUs are open, which they are not before somebody asks.

use std::{future::Future, sync::Arc, time::Duration};

use actix::{AsyncContext, Handler, Message, ResponseFuture};

use crate::{
    actors::{
        context::ReplicaContext,
        controller::{Controller, Office, Outcome},
    },
    config::BackendConfig,
    error::ServeError,
};

impl Controller {
    /// Opens the GPUs, within the time that the backend's start may take, then does what `message` says.
    pub(super) fn open_first<M>(
        &self,
        message: M,
        config: &BackendConfig,
        ctx: &mut ReplicaContext<Self>,
    ) -> ResponseFuture<Outcome>
    where
        M: Message<Result = Outcome> + Send + 'static,
        Self: Handler<M, Result = ResponseFuture<Outcome>>,
    {
        let (office, controller, limit) = (Arc::clone(&self.office), ctx.address(), config.startup_timeout);
        Box::pin(async move {
            office.gpus_within(limit).await?;
            controller.send(message).await.unwrap_or(Err(ServeError::ShuttingDown))
        })
    }
}

impl Office {
    /// Opens the GPUs, if that takes no longer.
    pub(crate) async fn gpus_within(&self, limit: Duration) -> Outcome {
        within(limit, self.open_gpus()).await
    }
}

/// Waits for the GPUs, but not for ever: a driver may hang.
async fn within(limit: Duration, opening: impl Future<Output = Outcome>) -> Outcome {
    let late = |_| Err(ServeError::TimedOut { what: "opening the GPUs".into(), after: limit });
    tokio::time::timeout(limit, opening).await.unwrap_or_else(late)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_web::test]
    async fn a_driver_that_hangs_is_told_as_a_timeout() {
        tokio::time::pause();
        let limit = Duration::from_secs(60);
        let late = within(limit, std::future::pending()).await.unwrap_err();
        assert_eq!(
            (late.code(), late.to_string()),
            ("timed_out", "opening the GPUs took longer than 60 s".into())
        );
    }
}
