//! `Handle`: the only way in. Typed, cheap to clone; sends at once, the future is only the answer.

use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    call::{Answer, Call, Refusal, Reply, Request, Waiting},
    error::ServeError,
    ids::EndpointName,
    meta::{Explain, Explanation, Meta, RequestId, ShardKey},
    routing::{
        directory::{Alarm, Directory},
        endpoint::EndpointSlot,
    },
};

/// A typed sender to an endpoint: cheap to clone, usable from any thread and any async runtime.
///
/// ```
/// # use greenroom::{Backend, BackendConfig, Endpoint, Serve, ServeError, ServeOptions};
/// #[derive(actix::Message)]
/// #[rtype(result = "Result<u64, ServeError>")]
/// struct Double(u64);
///
/// # #[actix_web::main]
/// # async fn main() -> Result<(), ServeError> {
/// let serve = Serve::start(ServeOptions::default()).await?;
/// serve.create_backend("double", Backend::from_fn(|Double(n): Double| async move { Ok(2 * n) }), BackendConfig::default()).await?;
/// serve.create_endpoint("double", Endpoint::new("double")).await?;
/// let handle = serve.handle::<Double>("double")?;
/// assert_eq!(handle.call(Double(21)).await?, 42);
/// # serve.shutdown().await
/// # }
/// ```
pub struct Handle<M> {
    slot: Arc<EndpointSlot>,
    directory: Arc<Directory>,
    options: CallOptions,
    message: PhantomData<fn(M)>,
}

#[derive(Clone, Default)]
struct CallOptions {
    shard_key: Option<ShardKey>,
    timeout: Option<Duration>,
    deadline: Option<Instant>,
    request_id: Option<RequestId>,
    meta: Option<Meta>,
}

impl<M> Clone for Handle<M> {
    fn clone(&self) -> Self {
        Self {
            slot: Arc::clone(&self.slot),
            directory: Arc::clone(&self.directory),
            options: self.options.clone(),
            message: PhantomData,
        }
    }
}

impl<M> fmt::Debug for Handle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle<{}>({})", std::any::type_name::<M>(), self.slot.name)
    }
}

impl<M: Request> Handle<M> {
    fn new(slot: Arc<EndpointSlot>, directory: &Arc<Directory>) -> Self {
        let directory = Arc::clone(directory);
        Self { slot, directory, options: CallOptions::default(), message: PhantomData }
    }

    /// A handle to an endpoint that exists and takes `M`.
    pub(crate) fn to(endpoint: &str, directory: &Arc<Directory>) -> Result<Self, ServeError> {
        let name = EndpointName::new(endpoint)?;
        let slot = directory.find(&name).ok_or(ServeError::UnknownEndpoint(name))?;
        slot.check::<M>()?;
        Ok(Self::new(slot, directory))
    }

    /// A handle to an endpoint that may appear later.
    pub(crate) fn later(endpoint: &str, directory: &Arc<Directory>) -> Result<Self, ServeError> {
        let slot = directory.slot(&EndpointName::new(endpoint)?);
        if slot.exists() {
            slot.check::<M>()?;
        }
        Ok(Self::new(slot, directory))
    }

    /// The endpoint it sends to.
    pub fn endpoint(&self) -> &EndpointName {
        &self.slot.name
    }

    /// A handle like this one, to set options on; this one stays as it is.
    #[must_use]
    pub fn options(&self) -> Self {
        self.clone()
    }

    /// Requests with the same key go to the same backend of the policy.
    #[must_use]
    pub fn shard_key(mut self, key: impl AsRef<str>) -> Self {
        self.options.shard_key = Some(ShardKey::new(key));
        self
    }

    /// Each call ends at most this long after it was made.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Calls end at this instant at the latest.
    #[must_use]
    pub fn deadline(mut self, at: Instant) -> Self {
        self.options.deadline = Some(at);
        self
    }

    /// Calls carry this request id.
    #[must_use]
    pub fn request_id(mut self, id: RequestId) -> Self {
        self.options.request_id = Some(id);
        self
    }

    /// Calls are made on behalf of the request that `meta` belongs to: they have its id, trace and shard key,
    /// and end at its deadline at the latest. Inside a handler this happens by itself; it is for work that a
    /// handler gives to others, a bare `tokio::spawn` or a thread, and for the requests of a
    /// [`Batch`](crate::Batch), of which each has its own. What is set beside it goes before it, and of several
    /// deadlines the tightest holds.
    ///
    /// ```
    /// use actix::{Actor, Handler, ResponseFuture};
    /// use greenroom::{Handle, ReplicaContext, ServeError};
    ///
    /// #[derive(actix::Message)]
    /// #[rtype(result = "Result<u64, ServeError>")]
    /// struct Price(u64);
    ///
    /// struct Shop { tax: Handle<Price> }
    /// impl Actor for Shop {
    ///     type Context = ReplicaContext<Self>;
    /// }
    /// impl Handler<Price> for Shop {
    ///     type Result = ResponseFuture<Result<u64, ServeError>>;
    ///     fn handle(&mut self, Price(net): Price, ctx: &mut ReplicaContext<Self>) -> Self::Result {
    ///         let mut tax = self.tax.options();
    ///         if let Some(meta) = ctx.request_meta() {
    ///             tax = tax.meta(meta);
    ///         }
    ///         Box::pin(async move {
    ///             let tax = tokio::spawn(async move { tax.call(Price(net)).await });
    ///             Ok(net + tax.await.map_err(|_| ServeError::NoAnswer)??)
    ///         })
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn meta(mut self, meta: Meta) -> Self {
        self.options.meta = Some(meta);
        self
    }

    /// Sends `msg` now; the future is only its answer. Dropping the future tells the handler that its caller
    /// has left: what has not begun never will, what is asynchronous is dropped.
    ///
    /// Inside a handler the call inherits the request's id, trace, deadline and shard key.
    ///
    /// # Errors
    /// The future's: the backend's own error, or what [`ServeError`] says of refusals, panics and deadlines.
    pub fn call(&self, msg: M) -> Calling<M::Response> {
        match self.outgoing() {
            Ok(meta) => Calling::new(self.slot.call(msg, meta), &self.directory),
            Err(why) => Calling(State::Now(Some(Err(why)))),
        }
    }

    /// Sends `msg` as [`call`](Self::call) does; its answer comes with which way the call went.
    ///
    /// # Errors
    /// Those of [`call`](Self::call), inside the pair: refused and failed calls are explained too.
    pub fn call_explained(
        &self,
        msg: M,
    ) -> impl Future<Output = (Result<M::Response, ServeError>, Explanation)> + use<M> {
        let explain = Explain::default();
        let answer = match self.outgoing() {
            Ok(meta) => {
                let meta = Meta { explain: Some(explain.clone()), ..meta };
                Calling::new(self.slot.call(msg, meta), &self.directory)
            }
            Err(why) => Calling(State::Now(Some(Err(why)))),
        };
        async move { (answer.await, explain.read()) }
    }

    /// Sends `msg` although nobody waits for the answer. Nobody can leave, so the handler runs to its end,
    /// unless the call has a deadline (of its own, of the call being handled, or by the backend's
    /// `request_timeout`): at that it ends like any other.
    ///
    /// # Errors
    /// [`ServeError::ShuttingDown`]. That it was refused or lost for another reason, say by a backend that
    /// admits no more, nobody is told; refusals are in the metrics.
    pub fn tell(&self, msg: M) -> Result<(), ServeError> {
        let meta = self.outgoing()?;
        self.slot.deliver(Call { msg, meta, reply: Reply::nobody() });
        Ok(())
    }

    /// What travels with a call made now.
    fn outgoing(&self) -> Result<Meta, ServeError> {
        let CallOptions { shard_key, timeout, deadline, request_id, meta: given } = &self.options;
        let current = Meta::current();
        // What runs may finish and call others; new work is refused.
        if current.is_none() && given.is_none() && self.directory.closing() {
            return Err(ServeError::ShuttingDown);
        }
        let mut meta = match (given, current) {
            (None, current) => current.unwrap_or_default(),
            (Some(given), current) => {
                let mut meta = given.for_child();
                if let Some(at) = current.and_then(|current| current.deadline) {
                    meta.tighten(at);
                }
                meta
            }
        };
        if let Some(key) = shard_key {
            meta.shard_key = Some(key.clone());
        }
        if let Some(id) = request_id {
            meta.request_id = id.clone();
        }
        if let Some(timeout) = timeout {
            meta.tighten(Instant::now() + *timeout);
        }
        if let Some(at) = deadline {
            meta.tighten(*at);
        }
        Ok(meta)
    }
}

/// The answer to a call that has been sent.
#[must_use = "dropping the answer tells the handler that its caller has left"]
pub struct Calling<R>(State<R>);

// Nothing in it is pinned in place: receivers and boxed alarms move freely.
impl<R> Unpin for Calling<R> {}

enum State<R> {
    Now(Option<Result<R, ServeError>>),
    Waiting(Waiting<R>),
    Until(Waiting<R>, Alarm),
}

impl<R: Send + 'static> Calling<R> {
    pub(crate) fn new<M: Request<Response = R>>(answer: Answer<M>, directory: &Directory) -> Self {
        Self(match answer {
            Answer::Now(result) => State::Now(Some(result)),
            // Its replicas have gone because everything goes.
            Answer::Refused(Refusal { why: ServeError::NoReplica { .. }, .. }) if directory.closing() => {
                State::Now(Some(Err(ServeError::ShuttingDown)))
            }
            Answer::Refused(refusal) => State::Now(Some(Err(refusal.why))),
            Answer::Waiting(waiting) => match &waiting.deadline {
                None => State::Waiting(waiting),
                Some(deadline) => {
                    let alarm = directory.alarm(deadline.at);
                    State::Until(waiting, alarm)
                }
            },
        })
    }
}

impl<R> Future for Calling<R> {
    type Output = Result<R, ServeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Now(result) => {
                // An answer that is there at once must still let timers and others have their turn.
                let coop = ready!(tokio::task::coop::poll_proceed(cx));
                coop.made_progress();
                Poll::Ready(result.take().unwrap_or(Err(ServeError::NoAnswer)))
            }
            State::Waiting(waiting) => Pin::new(waiting).poll(cx),
            State::Until(waiting, alarm) => {
                if let Poll::Ready(result) = Pin::new(&mut *waiting).poll(cx) {
                    return Poll::Ready(result);
                }
                let result = ready!(alarm.poll(cx)).and_then(|()| waiting.overdue());
                // The caller leaves: an asynchronous handler is dropped now.
                self.0 = State::Now(None);
                Poll::Ready(result)
            }
        }
    }
}
