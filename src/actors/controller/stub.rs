//! Stands in for the change of a backend as a whole until that is there.

use std::sync::Arc;

use actix::{Handler, Message, ResponseFuture};

use super::{Controller, CreateBackend, Outcome, UpdateBackend};
use crate::{
    actors::build::Code,
    config::{BackendConfig, BackendUpdate, Source},
    ids::BackendName,
};

/// Make a backend, or change it into this.
#[derive(Clone, Message)]
#[rtype(result = "Outcome")]
pub(crate) struct DeployBackend {
    pub(crate) name: BackendName,
    pub(crate) source: Source,
    pub(crate) code: Arc<dyn Code>,
    pub(crate) config: BackendConfig,
}

impl Handler<DeployBackend> for Controller {
    type Result = ResponseFuture<Outcome>;
    fn handle(&mut self, msg: DeployBackend, ctx: &mut Self::Context) -> Self::Result {
        let DeployBackend { name, source: _, code, config } = msg;
        let there = self.office.fleet().backends.contains_key(&name);
        if there {
            let update = BackendUpdate::default().num_replicas(config.num_replicas);
            return self.handle(UpdateBackend { name, update }, ctx);
        }
        self.handle(CreateBackend { name, code, config }, ctx)
    }
}
