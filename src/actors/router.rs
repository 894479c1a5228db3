//! The Router: one actor a serving thread, for whoever sends messages rather than holds a handle.

use std::{rc::Rc, sync::Arc};

use actix::{
    Actor, Addr, Handler, Message,
    dev::{MessageResponse, OneshotSender},
};

use crate::{
    actors::{
        configure::Configured,
        context::{Desk, ReplicaContext},
        gpus::Leases,
        health::Checked,
        identity::Identity,
        lane::{Lane, Patience, Stop},
        replica::{Parts, ReplicaTask},
    },
    call::{Call, Gate, Reply, Request},
    error::ServeError,
    ids::EndpointName,
    meta::Meta,
    routing::directory::Directory,
};

/// A message for whatever stands behind an endpoint; send it to a [`Router`].
///
/// Its reply is handed on to the replica that answers, never relayed.
pub struct Route<M> {
    /// The endpoint.
    pub endpoint: EndpointName,
    /// What to send there.
    pub msg: M,
}

impl<M: Request> Message for Route<M> {
    type Result = M::Result;
}

/// Routes messages by the live endpoints. Calls through a [`Handle`](crate::Handle) take the same decision
/// inline, without a message.
pub struct Router {
    directory: Arc<Directory>,
}

impl Router {
    pub(crate) fn new(directory: Arc<Directory>) -> Self {
        Self { directory }
    }

    /// Starts it on this thread, in a context that rebuilds it when it panics.
    pub(crate) fn start(self) -> OwnActor<Self> {
        let directory = self.directory;
        supervise("router", Arc::clone(&directory), move |_| Router { directory: Arc::clone(&directory) })
    }
}

impl Actor for Router {
    type Context = ReplicaContext<Self>;
}

/// A call on its way; answering it delivers it.
pub struct Routed<M> {
    directory: Arc<Directory>,
    route: Route<M>,
}

impl<M: Request> Handler<Route<M>> for Router {
    type Result = Routed<M>;
    fn handle(&mut self, route: Route<M>, _: &mut ReplicaContext<Self>) -> Self::Result {
        Routed { directory: Arc::clone(&self.directory), route }
    }
}

impl<M: Request> MessageResponse<Router, Route<M>> for Routed<M> {
    fn handle(self, _: &mut ReplicaContext<Router>, tx: Option<OneshotSender<M::Result>>) {
        let reply = Reply::from_sender(tx);
        if self.directory.closing() {
            reply.send(Err(ServeError::ShuttingDown));
            return;
        }
        let Route { endpoint, msg } = self.route;
        match self.directory.find(&endpoint) {
            Some(slot) => slot.deliver(Call { msg, meta: Meta::inherit(), reply }),
            None => {
                reply.send(Err(ServeError::UnknownEndpoint(endpoint)));
            }
        }
    }
}

/// The address of one of our own actors, and what ends it.
pub(crate) type OwnActor<A> = (Addr<A>, Arc<dyn Stop>);

/// Starts one of our own actors on this thread in a context that rebuilds it when it panics.
pub(crate) fn supervise<A: Actor<Context = ReplicaContext<A>>>(
    name: &'static str,
    directory: Arc<Directory>,
    make: impl Fn(&mut ReplicaContext<A>) -> A + Send + Sync + 'static,
) -> OwnActor<A> {
    let cells = directory.own_actors(name);
    let lane = Arc::new(Lane::new(Arc::new(Gate::new(usize::MAX)), usize::MAX, None));
    let (task, addr) = ReplicaTask::new(Parts {
        factory: Arc::new(move |ctx: &mut ReplicaContext<A>| Ok(make(ctx))),
        lane: Arc::clone(&lane),
        identity: Arc::new(Identity::own(name, directory)),
        desk: Rc::new(Desk::new(cells, None)),
        user: Configured::default(),
        leases: Leases::default(),
        health: Checked::default(),
        patience: Patience::ENDLESS,
        on_event: Box::new(drop),
    });
    drop(tokio::task::spawn_local(task));
    (addr, lane)
}
