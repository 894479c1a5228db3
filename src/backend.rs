//! What users implement: an actor, the messages it takes, and optionally batches of them.

pub(crate) mod fingerprint;
mod health;
mod reconfigure;

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    future::Future,
    marker::PhantomData,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use actix::{Actor, Handler, Message, ResponseFuture};
use serde::Serialize;

use crate::{
    actors::build::Build,
    actors::{
        batcher::{BatchPort, CopyBatch},
        configure::Takes,
        context::ReplicaContext,
        execute::{Form, Plain},
        health::Check,
        lane_port::LanePort,
        replica::Factory,
    },
    call::Request,
    comparison::answer::Kept,
    config::{BackendConfig, Placement},
    error::{BoxError, ServeError},
    http_call::WantedHeaders,
    ids::BackendName,
    meta::Meta,
    metrics::registry::Outside,
    oip::ModelMetadata,
    port::Port,
    routing::{
        backend_port::{AnyBackendPort, Shared},
        backend_routes::Copiers,
        shadows::Copying,
    },
};

use fingerprint::{Fingerprint, Fingerprinted};
pub use health::CheckHealth;
pub use reconfigure::Reconfigure;

/// One to `max_batch_size` requests handed to a replica in one call; its answer has one result for each,
/// in the same order.
///
/// ```
/// use actix::Handler;
/// use greenroom::{Batch, ReplicaContext, ServeError};
///
/// #[derive(actix::Message)]
/// #[rtype(result = "Result<u64, ServeError>")]
/// struct Double(u64);
///
/// struct Doubler;
/// impl actix::Actor for Doubler {
///     type Context = ReplicaContext<Self>;
/// }
/// impl Handler<Batch<Double>> for Doubler {
///     type Result = Result<Vec<Result<u64, ServeError>>, ServeError>;
///     fn handle(&mut self, batch: Batch<Double>, _: &mut ReplicaContext<Self>) -> Self::Result {
///         Ok(batch.into_iter().map(|Double(n)| Ok(2 * n)).collect())
///     }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Batch<M> {
    items: Vec<M>,
    metas: Vec<Meta>,
}

impl<M> Batch<M> {
    pub(crate) fn new(items: Vec<M>, metas: Vec<Meta>) -> Self {
        Self { items, metas }
    }

    /// Requests in it; at least one.
    #[expect(clippy::len_without_is_empty, reason = "a batch has at least one request")]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// The requests.
    pub fn items(&self) -> &[M] {
        &self.items
    }

    /// What travels with each request, in the order of [`items`](Self::items).
    pub fn metas(&self) -> &[Meta] {
        &self.metas
    }

    /// The requests, and what travels with each: with [`Handle::meta`](crate::Handle::meta) a call made for one
    /// of them carries its id and its deadline.
    pub fn into_parts(self) -> (Vec<M>, Vec<Meta>) {
        (self.items, self.metas)
    }
}

impl<M> IntoIterator for Batch<M> {
    type Item = M;
    type IntoIter = std::vec::IntoIter<M>;
    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

impl<M: Request> Message for Batch<M> {
    type Result = Result<Vec<M::Result>, ServeError>;
}

/// Makes the port of one replica for one message type.
pub(crate) type MakePort<A> = dyn Fn(&mut Build<'_, A>) -> Box<dyn Any + Send + Sync> + Send + Sync;

/// Joins the ports of several forms of one outer message; each has the name that callers choose it by.
pub(crate) type JoinPorts = fn(Vec<(Box<str>, Box<dyn Any + Send + Sync>)>) -> Box<dyn Any + Send + Sync>;

/// One message type that a backend takes.
pub(crate) struct PortSpec<A: Actor<Context = ReplicaContext<A>>> {
    pub(crate) outer: TypeId,
    pub(crate) label: Box<str>,
    pub(crate) make: Box<MakePort<A>>,
    pub(crate) join: JoinPorts,
    pub(crate) shared: fn(BackendName, Outside) -> Box<dyn AnyBackendPort>,
}

/// Named code with its abilities: made with a factory, then told which messages its actor takes.
///
/// Each ability is a method whose bounds ask for the handler it needs, so a backend without the handler does
/// not compile.
///
/// ```
/// use actix::{Actor, Handler};
/// use greenroom::{Backend, ReplicaContext, ServeError};
///
/// #[derive(actix::Message)]
/// #[rtype(result = "Result<u64, ServeError>")]
/// struct Next;
///
/// struct Counter(u64);
/// impl Actor for Counter {
///     type Context = ReplicaContext<Self>;
/// }
/// impl Handler<Next> for Counter {
///     type Result = Result<u64, ServeError>;
///     fn handle(&mut self, _: Next, _: &mut ReplicaContext<Self>) -> Self::Result {
///         self.0 += 1;
///         Ok(self.0)
///     }
/// }
///
/// let backend = Backend::new(|_ctx| Ok(Counter(0))).handles::<Next>();
/// ```
///
/// A message that the actor has no handler for:
///
/// ```compile_fail
/// # use actix::Actor;
/// # use greenroom::{Backend, ReplicaContext, ServeError};
/// # #[derive(actix::Message)]
/// # #[rtype(result = "Result<u64, ServeError>")]
/// # struct Next;
/// # struct Counter(u64);
/// # impl Actor for Counter {
/// #     type Context = ReplicaContext<Self>;
/// # }
/// let backend = Backend::new(|_ctx| Ok(Counter(0))).handles::<Next>();
/// ```
#[must_use = "a backend does nothing until it is created in a Serve"]
pub struct Backend<A: Actor<Context = ReplicaContext<A>>> {
    pub(crate) factory: Arc<Factory<A>>,
    pub(crate) specs: Vec<PortSpec<A>>,
    /// By message type: makes or finds the Batcher's port parts (`MakeBatcher<A, M>`).
    pub(crate) batchers: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    pub(crate) copies: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    /// What copies a message for shadow traffic.
    pub(crate) copiers: Copiers,
    pub(crate) placement: Placement,
    /// Why it can do nothing with a share of a GPU, if so.
    pub(crate) no_gpu: Option<&'static str>,
    /// What takes a `user_config`.
    pub(crate) takes: Option<Arc<dyn Takes<A>>>,
    /// What says whether a replica is well.
    pub(crate) health_check: Option<Check<A>>,
    /// Headers that it asks for in an HTTP request.
    pub(crate) wanted_headers: WantedHeaders,
    /// Set for inference models: what is known of the model once it is loaded.
    pub(crate) model: Option<Arc<OnceLock<ModelMetadata>>>,
    /// What tells it apart where no version is given; none: it is always something new.
    pub(crate) fingerprint: Option<Fingerprinted>,
}

/// Makes the Batcher of one replica for one message type, once, and its port for the form `F`.
pub(crate) struct MakeBatcher<A: Actor<Context = ReplicaContext<A>>, M: Request>(
    pub(crate) fn(&mut Build<'_, A>) -> Arc<crate::actors::lane::Lane<crate::actors::batcher::Batcher<M>>>,
);

impl<A: Actor<Context = ReplicaContext<A>>> Backend<A> {
    /// A backend whose replicas are made by `factory`, at first and after each failure. An error or a panic in
    /// it is retried with a growing pause; a [`ServeError::Invalid`](crate::ServeError::Invalid) says that this
    /// is useless (a missing file, a bad setting), and the replica gives up at once.
    pub fn new<F>(factory: F) -> Self
    where
        F: Fn(&mut ReplicaContext<A>) -> Result<A, BoxError> + Send + Sync + 'static,
    {
        Self {
            factory: Arc::new(factory),
            specs: Vec::new(),
            batchers: HashMap::new(),
            copies: HashMap::new(),
            copiers: Copiers::default(),
            placement: Placement::Worker,
            no_gpu: None,
            takes: None,
            health_check: None,
            wanted_headers: WantedHeaders::None,
            model: None,
            fingerprint: None,
        }
    }

    /// A backend whose replicas share a heavy part, such as a model: `prepare` makes it once, `factory` uses it
    /// for each replica and each rebuild.
    pub fn with_shared<S, P, F>(prepare: P, factory: F) -> Self
    where
        S: Send + Sync + 'static,
        P: Fn() -> Result<S, BoxError> + Send + Sync + 'static,
        F: Fn(&Arc<S>, &mut ReplicaContext<A>) -> Result<A, BoxError> + Send + Sync + 'static,
    {
        let shared: Mutex<Option<Arc<S>>> = Mutex::new(None);
        Self::new(move |ctx| {
            let part = {
                // A panic in `prepare` leaves nothing half made.
                let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
                match &*shared {
                    Some(part) => Arc::clone(part),
                    None => Arc::clone(shared.insert(Arc::new(prepare()?))),
                }
            };
            factory(&part, ctx)
        })
    }

    /// It takes `M` through handles; no HTTP form.
    pub fn handles<M: Request>(self) -> Self
    where
        A: Handler<M>,
    {
        self.form::<Plain<M>>("", first)
    }

    /// It takes many `M` in one call, up to `max_batch_size`. Without that option a batch has one request, or
    /// `M` goes to the actor's own handler for it, if [`handles`](Self::handles) was called before this.
    pub fn batched<M: Request>(mut self) -> Self
    where
        A: Handler<Batch<M>>,
    {
        let make = MakeBatcher::<A, M>(|build| build.batcher::<M>());
        self.batchers.insert(TypeId::of::<M>(), Box::new(make));
        if !self.specs.iter().any(|spec| spec.outer == TypeId::of::<M>()) {
            self = self.batch_form::<Plain<M>>("", first);
        }
        self
    }

    /// With the option `idempotent`, a batch of `M` that panicked is run again in halves, so that one poison
    /// request fails alone.
    pub fn retries_batches<M: Request + Clone>(mut self) -> Self
    where
        A: Handler<Batch<M>>,
    {
        let copy: CopyBatch<M> = |batch| batch.to_vec();
        self.copies.insert(TypeId::of::<M>(), Box::new(copy));
        self
    }

    /// It can be a shadow for `M` sent through handles, as a message must be copied for that. HTTP requests, and
    /// the requests of ONNX models, can be copied anyway.
    pub fn shadows<M: Request + Clone>(self) -> Self {
        self.copied(Copying::<M> { message: M::clone, answer: None })
    }

    /// As a shadow its answers to `M`, sent through handles, can be compared with those that callers got
    /// ([`ShadowRule::compare`](crate::ShadowRule::compare)): by their JSON form, in which NaN and infinities of
    /// plain numbers are all `null`. Implies [`shadows`](Self::shadows). Answers over HTTP, and those of ONNX
    /// models, can be compared anyway.
    ///
    /// How large such an answer is in memory is not known, so it is limited by number: at most 4,096 of one Serve are
    /// held until they have been compared, each for as long as its shadow takes.
    pub fn compares<M: Request + Clone>(self) -> Self
    where
        M::Response: Clone + Serialize,
    {
        self.copied(Copying::<M> { message: M::clone, answer: Some(Kept::typed) })
    }

    pub(crate) fn copied<M: Request>(mut self, copying: Copying<M>) -> Self {
        self.copiers.add(copying);
        self
    }

    /// What this code is made from (a file's bytes, a commit, a prompt): deployed again with the same bytes, and
    /// without a [`version`](field@crate::BackendConfig::version), it is the same code, and its replicas stay.
    /// Without either, whatever is deployed is something new.
    ///
    /// ```
    /// # use greenroom::{Backend, ServeError};
    /// # #[derive(actix::Message)]
    /// # #[rtype(result = "Result<u64, ServeError>")]
    /// # struct Double(u64);
    /// let double = Backend::from_fn(|Double(n): Double| async move { Ok(2 * n) });
    /// // A new build is something new, the same build is not.
    /// let double = double.fingerprint(env!("CARGO_PKG_VERSION"));
    /// ```
    pub fn fingerprint(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.fingerprint = Some(Fingerprinted::known(Fingerprint::of(bytes.as_ref())));
        self
    }

    /// Its handlers compute: unless the options say otherwise, each replica gets a thread of its own.
    pub fn compute(mut self) -> Self {
        self.placement = Placement::Dedicated;
        self
    }

    /// Whether it can do something with the share of a GPU that the options ask for.
    pub(crate) fn check_gpus(&self, config: &BackendConfig) -> Result<(), ServeError> {
        match self.no_gpu.filter(|_| config.resources.num_gpus.is_some()) {
            Some(why) => Err(ServeError::invalid("resources.num_gpus", why)),
            None => Ok(()),
        }
    }

    /// Adds a form of a message that the actor handles one by one, or in batches where it can.
    pub(crate) fn form<F: Form>(self, label: &str, join: JoinPorts) -> Self
    where
        A: Handler<F::Inner>,
    {
        self.spec::<F>(label, join, |build| match build.batcher_for::<F::Inner>() {
            Some(lane) => {
                Arc::new(BatchPort::<F>::new(build.backend().clone(), lane, build.gate(), build.settings()))
                    as Arc<dyn Port<F::Outer>>
            }
            None => Arc::new(LanePort::<A, F>::new(build.backend().clone(), Arc::clone(&build.lane))),
        })
    }

    /// Adds a form of a message that the actor handles only in batches.
    pub(crate) fn batch_form<F: Form>(self, label: &str, join: JoinPorts) -> Self
    where
        A: Handler<Batch<F::Inner>>,
    {
        self.spec::<F>(label, join, |build| {
            let lane = build.batcher::<F::Inner>();
            Arc::new(BatchPort::<F>::new(build.backend().clone(), lane, build.gate(), build.settings()))
        })
    }

    fn spec<F: Form>(
        mut self,
        label: &str,
        join: JoinPorts,
        make: fn(&mut Build<'_, A>) -> Arc<dyn Port<F::Outer>>,
    ) -> Self {
        self.specs.push(PortSpec {
            outer: TypeId::of::<F::Outer>(),
            label: label.into(),
            make: Box::new(move |build| Box::new(make(build))),
            join,
            shared: |name, outside| Box::new(Shared::<F::Outer>::new(name, outside)),
        });
        self
    }
}

/// The only form there is.
fn first(mut ports: Vec<(Box<str>, Box<dyn Any + Send + Sync>)>) -> Box<dyn Any + Send + Sync> {
    ports.swap_remove(0).1
}

/// A function or async closure as a backend; made by [`Backend::from_fn`].
pub struct FnBackend<M, F> {
    function: F,
    message: PhantomData<fn(M)>,
}

impl<M: 'static, F: Unpin + 'static> Actor for FnBackend<M, F> {
    type Context = ReplicaContext<Self>;
}

impl<M, F, Fut> Handler<M> for FnBackend<M, F>
where
    M: Request,
    F: Fn(M) -> Fut + Unpin + 'static,
    Fut: Future<Output = M::Result> + 'static,
{
    type Result = ResponseFuture<M::Result>;
    fn handle(&mut self, msg: M, _: &mut ReplicaContext<Self>) -> Self::Result {
        Box::pin((self.function)(msg))
    }
}

impl<M, F, Fut> Backend<FnBackend<M, F>>
where
    M: Request,
    F: Fn(M) -> Fut + Clone + Send + Sync + Unpin + 'static,
    Fut: Future<Output = M::Result> + 'static,
{
    /// An async function or closure as a backend for messages `M`.
    ///
    /// ```
    /// # use greenroom::{Backend, ServeError};
    /// #[derive(actix::Message)]
    /// #[rtype(result = "Result<u64, ServeError>")]
    /// struct Double(u64);
    ///
    /// let backend = Backend::from_fn(|Double(n): Double| async move { Ok(2 * n) });
    /// ```
    pub fn from_fn(function: F) -> Self {
        Self::new(move |_| Ok(FnBackend { function: function.clone(), message: PhantomData })).handles::<M>()
    }
}
