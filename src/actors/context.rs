//! `ReplicaContext`: the actix context of every actor here, whose panics cost one call and nothing else.
//!
//! This file holds all that reaches into `actix::dev`. What it takes for granted has a test in
//! `tests/it/actix_assumptions.rs`.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    sync::Arc,
};

use actix::{
    Actor, ActorContext, ActorFuture, ActorState, Addr, AsyncContext, Handler, Message, SpawnHandle,
    dev::{Envelope, EnvelopeProxy, MessageResponse, OneshotSender, ToEnvelope},
};
use futures_util::future::LocalBoxFuture;

use crate::{
    actors::{gpus::Leases, identity::Identity},
    error::ServeError,
    guard::guarded,
    handle::Handle,
    ids::{BackendName, ReplicaId},
    meta::Meta,
    metrics::cells::ReplicaCells,
};

/// Messages of the actix mailbox handled before calls and futures get their turn.
const MAILBOX_BUDGET: u32 = 64;

/// The execution context of a backend's actor: `type Context = ReplicaContext<Self>;`.
///
/// It does what [`actix::Context`] does. Beside that it takes calls through a bounded lane of its own, and when
/// user code panics it rebuilds the actor's state in place: the call that panicked gets a typed error, every
/// other call, waiting or running, goes on.
///
/// Futures belong either to a request (those that a handler answers with: they survive a rebuild and end with
/// their call) or to the state (`spawn`, `wait`, `notify`, `run_interval` and streams, wherever they are started:
/// they end with the state, so that timers do not multiply).
pub struct ReplicaContext<A: Actor> {
    addr: Addr<A>,
    pub(crate) desk: Rc<Desk>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) leases: Leases,
    pub(crate) items: Vec<Item<A>>,
    pub(crate) waits: Vec<Item<A>>,
    pub(crate) cancelled: Vec<SpawnHandle>,
    pub(crate) state: ActorState,
    pub(crate) stop_asked: bool,
    pub(crate) mailbox_left: Cell<u32>,
    /// The call whose response is being turned into futures, which belong to it.
    pub(crate) serving: Option<Rc<Mark>>,
    last_handle: SpawnHandle,
}

impl<A: Actor> ReplicaContext<A> {
    pub(crate) fn new(addr: Addr<A>, desk: Rc<Desk>, identity: Arc<Identity>, leases: Leases) -> Self {
        Self {
            addr,
            desk,
            identity,
            leases,
            items: Vec::new(),
            waits: Vec::new(),
            cancelled: Vec::new(),
            state: ActorState::Started,
            stop_asked: false,
            mailbox_left: Cell::new(MAILBOX_BUDGET),
            serving: None,
            last_handle: SpawnHandle::default(),
        }
    }

    /// Which replica this is.
    pub fn replica_id(&self) -> &ReplicaId {
        &self.identity.replica
    }

    /// The backend it is an instance of.
    pub fn backend_name(&self) -> &BackendName {
        &self.identity.replica.backend
    }

    /// Threads that this replica's computations may use.
    pub fn num_threads(&self) -> usize {
        self.identity.num_threads
    }

    /// Most requests that are handed to this replica in one call, as its options said when it was started; 1
    /// without batching.
    pub fn max_batch_size(&self) -> usize {
        self.identity.batch_size_max
    }

    /// A handle to another endpoint of the same Serve. The endpoint may appear later: until then calls fail
    /// with [`ServeError::UnknownEndpoint`], so backends that call each other start in any order.
    ///
    /// # Errors
    /// [`ServeError::Invalid`] when `endpoint` is no valid name.
    pub fn handle<M: crate::call::Request>(&self, endpoint: &str) -> Result<Handle<M>, ServeError> {
        Handle::later(endpoint, &self.identity.directory)
    }

    /// What travels with the call being handled; carry it by hand into a bare `tokio::spawn`.
    pub fn request_meta(&self) -> Option<Meta> {
        Meta::current()
    }

    /// Whether futures or the end of the state keep calls waiting.
    pub(crate) fn held(&self) -> bool {
        !self.waits.is_empty() || self.stop_asked || self.desk.has_panicked()
    }

    fn item(&mut self, future: Pin<Box<dyn ActorFuture<A, Output = ()>>>) -> Item<A> {
        self.last_handle = self.last_handle.next();
        Item { handle: self.last_handle, future, owner: self.serving.clone() }
    }

    pub(crate) fn refill_mailbox_budget(&self) {
        self.mailbox_left.set(MAILBOX_BUDGET);
    }
}

/// A future that needs the actor, and whom it belongs to.
pub(crate) struct Item<A: Actor> {
    pub(crate) handle: SpawnHandle,
    pub(crate) future: Pin<Box<dyn ActorFuture<A, Output = ()>>>,
    /// The call it works for; none: it belongs to the state and ends with it.
    pub(crate) owner: Option<Rc<Mark>>,
}

/// What a call and the actor futures that work for it tell each other.
#[derive(Default)]
pub(crate) struct Mark {
    /// The caller has left: the futures end.
    pub(crate) left: Cell<bool>,
    /// The text of the panic that ended one of them.
    pub(crate) panicked: RefCell<Option<Box<str>>>,
    /// Current while they are polled.
    pub(crate) meta: RefCell<Option<Meta>>,
}

impl Mark {
    /// Runs `f` with the call's meta current.
    pub(crate) fn scope<T>(&self, f: impl FnOnce() -> T) -> T {
        let taken = self.meta.take();
        match taken {
            Some(mut meta) => {
                let out = meta.scope(f);
                self.meta.replace(Some(meta));
                out
            }
            None => f(),
        }
    }
}

/// What a replica's own loop, its context and the futures of its requests share on their thread.
pub(crate) struct Desk {
    /// Futures of requests that began since the loop last looked.
    pub(crate) incoming: RefCell<Vec<LocalBoxFuture<'static, ()>>>,
    running: Cell<usize>,
    panicked: Cell<bool>,
    pub(crate) cells: Arc<ReplicaCells>,
    recorder: Option<Arc<dyn metrics::Recorder + Send + Sync>>,
}

impl Desk {
    pub(crate) fn new(
        cells: Arc<ReplicaCells>,
        recorder: Option<Arc<dyn metrics::Recorder + Send + Sync>>,
    ) -> Self {
        Self {
            incoming: RefCell::default(),
            running: Cell::new(0),
            panicked: Cell::new(false),
            cells,
            recorder,
        }
    }

    /// Runs user code: its metrics go to this Serve's recorder, its panic becomes a text.
    pub(crate) fn guard<T>(&self, f: impl FnOnce() -> T) -> Result<T, Box<str>> {
        match &self.recorder {
            Some(recorder) => metrics::with_local_recorder(&**recorder, || guarded(f)),
            None => guarded(f),
        }
    }

    /// The state is in doubt: the loop rebuilds it before anything else.
    pub(crate) fn note_panic(&self) {
        self.panicked.set(true);
    }

    pub(crate) fn has_panicked(&self) -> bool {
        self.panicked.get()
    }

    pub(crate) fn take_panic(&self) -> bool {
        self.panicked.replace(false)
    }

    /// Calls that began and have not ended.
    pub(crate) fn running(&self) -> usize {
        self.running.get()
    }

    /// A call begins; `counts`: it is shown as one running request.
    #[inline]
    pub(crate) fn begin(&self, counts: bool) {
        self.running.set(self.running.get() + 1);
        if counts {
            self.cells.begun(1);
        }
    }

    /// A call has ended.
    #[inline]
    pub(crate) fn end(&self, counts: bool) {
        self.running.set(self.running.get().saturating_sub(1));
        if counts {
            self.cells.ended(1);
        }
    }
}

impl<A: Actor<Context = Self>> ActorContext for ReplicaContext<A> {
    /// Ends this state; the replica is rebuilt from its factory, which counts as a restart.
    fn stop(&mut self) {
        if self.state == ActorState::Running || self.state == ActorState::Started {
            self.state = ActorState::Stopping;
        }
        self.stop_asked = true;
    }

    /// As [`stop`](Self::stop), without asking `Actor::stopping`.
    fn terminate(&mut self) {
        self.state = ActorState::Stopped;
        self.stop_asked = true;
    }

    fn state(&self) -> ActorState {
        self.state
    }
}

impl<A: Actor<Context = Self>> AsyncContext<A> for ReplicaContext<A> {
    fn address(&self) -> Addr<A> {
        self.addr.clone()
    }

    fn spawn<F>(&mut self, future: F) -> SpawnHandle
    where
        F: ActorFuture<A, Output = ()> + 'static,
    {
        let item = self.item(Box::pin(future));
        let handle = item.handle;
        self.items.push(item);
        handle
    }

    fn wait<F>(&mut self, future: F)
    where
        F: ActorFuture<A, Output = ()> + 'static,
    {
        let item = self.item(Box::pin(future));
        self.waits.push(item);
    }

    fn waiting(&self) -> bool {
        self.held() || self.mailbox_left.get() == 0
    }

    fn cancel_future(&mut self, handle: SpawnHandle) -> bool {
        self.cancelled.push(handle);
        true
    }
}

/// Packs plain actix messages (`Addr::send`, `notify`) so that a panic of their handler is caught too.
impl<A, M> ToEnvelope<A, M> for ReplicaContext<A>
where
    A: Actor<Context = Self> + Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn pack(msg: M, tx: Option<OneshotSender<M::Result>>) -> Envelope<A> {
        Envelope::with_proxy(Box::new(Guarded { msg: Some(msg), tx }))
    }
}

struct Guarded<M: Message> {
    msg: Option<M>,
    tx: Option<OneshotSender<M::Result>>,
}

impl<A, M> EnvelopeProxy<A> for Guarded<M>
where
    A: Actor<Context = ReplicaContext<A>> + Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn handle(&mut self, actor: &mut A, ctx: &mut ReplicaContext<A>) {
        ctx.mailbox_left.set(ctx.mailbox_left.get().saturating_sub(1));
        let tx = self.tx.take();
        if tx.as_ref().is_some_and(OneshotSender::is_closed) {
            return;
        }
        let Some(msg) = self.msg.take() else { return };
        let desk = Rc::clone(&ctx.desk);
        if desk.guard(|| <A as Handler<M>>::handle(actor, msg, ctx).handle(ctx, tx)).is_err() {
            desk.note_panic();
        }
    }
}
