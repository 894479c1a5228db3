//! A backend whose replicas run the Burn network in turns on their share of a GPU.

use std::{rc::Rc, sync::Arc};

use actix::{Actor, Handler, Message, ResponseFuture};
use greenroom::{Backend, BoxError, ReplicaContext, ServeError, gpu::GpuLease};

use crate::{network::Network, weights::Weights};

/// Images that go through the network together.
pub const ROWS: usize = 36;

/// Which digits are on these images of 8x8 pixels, 0 to 16? One turn on the device, however many they are.
#[derive(Message, Clone)]
#[rtype(result = "Result<Vec<i64>, ServeError>")]
pub struct Classify(pub Arc<[Vec<f32>]>);

/// One replica.
pub struct Digits {
    lease: GpuLease,
    network: Rc<Network>,
}

impl Digits {
    fn load(weights: &Weights, ctx: &ReplicaContext<Self>) -> Result<Self, BoxError> {
        let lease = ctx.gpu()?.clone();
        // Burn looks for its fastest kernels when it first sees a shape: before anybody waits for an answer.
        let first = lease.exclusive(|lent| {
            let network = Network::load(lent, weights)?;
            network.classify(&vec![vec![0.0; 64]; ROWS], ROWS)?;
            Ok::<_, BoxError>(network)
        });
        Ok(Self { network: Rc::new(first.wait()??), lease })
    }
}

impl Actor for Digits {
    type Context = ReplicaContext<Self>;
}

impl Handler<Classify> for Digits {
    type Result = ResponseFuture<Result<Vec<i64>, ServeError>>;
    fn handle(&mut self, Classify(images): Classify, _: &mut Self::Context) -> Self::Result {
        let network = Rc::clone(&self.network);
        // The replica is free while the turn is waited for; the closure then runs on its thread.
        let turn = self.lease.exclusive(move |_| network.classify(&images, ROWS));
        Box::pin(async move { turn.await?.map_err(ServeError::from_user) })
    }
}

/// The network as a backend.
pub fn digits() -> Backend<Digits> {
    let load = || Ok(Weights::load(crate::MODEL)?);
    Backend::with_shared(load, |weights, ctx| Digits::load(weights, ctx)).handles::<Classify>()
}
