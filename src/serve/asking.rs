//! Asking the Controller for changes: by hand, or as steps of a deploy.

use actix::{Handler, Message, dev::ToEnvelope};

use crate::{
    actors::{context::ReplicaContext, controller::Controller},
    error::ServeError,
    serve::Serve,
};

impl Serve {
    /// Asks the Controller for a change by hand; not while a configuration is deployed.
    pub(super) async fn ask<M>(&self, msg: M) -> Result<(), ServeError>
    where
        M: Message<Result = Result<(), ServeError>> + Send + 'static,
        Controller: Handler<M>,
        ReplicaContext<Controller>: ToEnvelope<Controller, M>,
    {
        self.not_replaced()?;
        let _by_hand = self.0.deploys.by_hand()?;
        self.tell(msg).await
    }

    /// Asks the Controller; while it restarts the message waits, and only one that it died of is lost.
    pub(super) async fn tell<M>(&self, msg: M) -> Result<(), ServeError>
    where
        M: Message<Result = Result<(), ServeError>> + Send + 'static,
        Controller: Handler<M>,
        ReplicaContext<Controller>: ToEnvelope<Controller, M>,
    {
        if self.0.office.directory.closing() {
            return Err(ServeError::ShuttingDown);
        }
        if self.0.handover.as_ref().is_some_and(|handover| handover.is_given()) {
            return Err(ServeError::BeingReplaced);
        }
        self.0.controller.send(msg).await.unwrap_or_else(|_| {
            Err(ServeError::Internal(
                "the controller restarted while it made this change; look at the status and ask again".into(),
            ))
        })
    }
}
