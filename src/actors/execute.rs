//! One call from its message to its answer: decode, handle under guard, drive what is asynchronous.

use std::{
    any::Any,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use actix::{
    Actor, Handler,
    dev::{MessageResponse, ResponseFuture},
};
use tokio::{
    sync::oneshot,
    task::coop::unconstrained,
    time::{Sleep, sleep_until},
};

use crate::{
    actors::{
        context::{Desk, Mark, ReplicaContext},
        lane_port::turn_away,
    },
    call::{Call, Permit, Reply, Request},
    error::ServeError,
    meta::Meta,
    metrics::clock::Tick,
    port::Home,
};

/// How a message from outside becomes the one that the actor handles, and its result the answer outside.
pub(crate) trait Form: 'static {
    /// What arrives.
    type Outer: Request;
    /// What the actor handles.
    type Inner: Request;
    /// Makes the inner message.
    fn open(outer: Self::Outer) -> Result<Self::Inner, ServeError>;
    /// Makes the outer answer.
    fn close(
        result: <Self::Inner as Request>::Response,
    ) -> Result<<Self::Outer as Request>::Response, ServeError>;
    /// The reply for the inner message.
    fn inner_reply(
        reply: Reply<<Self::Outer as Request>::Response>,
    ) -> Reply<<Self::Inner as Request>::Response> {
        reply.map(|result: Result<_, ServeError>| result.and_then(Self::close))
    }
    /// A call that never began goes to a sibling of its replica; without one its caller is told `why`.
    fn turn_away(call: Call<Self::Outer>, home: Option<&dyn Home>, why: ServeError) {
        turn_away(call, home, why);
    }
    /// Whether each call counts as a request; batches do not, their items do.
    const COUNTS: bool = true;
}

/// The message as it is.
pub(crate) struct Plain<M, const COUNTS: bool = true>(std::marker::PhantomData<M>);

impl<M: Request, const COUNTS: bool> Form for Plain<M, COUNTS> {
    type Outer = M;
    type Inner = M;
    fn open(outer: M) -> Result<M, ServeError> {
        Ok(outer)
    }
    fn close(result: M::Response) -> Result<M::Response, ServeError> {
        Ok(result)
    }
    fn inner_reply(reply: Reply<M::Response>) -> Reply<M::Response> {
        reply
    }
    const COUNTS: bool = COUNTS;
}

/// How far a call got when its handler returned: `S` is the answer outside, `R` the one inside.
pub(crate) enum Step<S, R> {
    /// It is answered.
    Done(Result<S, ServeError>),
    /// It goes on as a future.
    Going(Going<R>),
}

/// The asynchronous rest of a call.
pub(crate) enum Going<R> {
    /// A `ResponseFuture`: it needs no actor.
    Alone(ResponseFuture<Result<R, ServeError>>, Meta),
    /// `ResponseActFuture`, `AtomicResponse` and other responses: futures of the context answer here.
    WithActor(oneshot::Receiver<Result<R, ServeError>>, Rc<Mark>),
}

impl<R: 'static> Going<R> {
    /// Goes on; a panic puts the state in doubt and becomes the answer.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, desk: &Desk) -> Poll<Result<R, ServeError>> {
        match self {
            Going::Alone(future, meta) => match desk.guard(|| meta.scope(|| future.as_mut().poll(cx))) {
                Ok(poll) => poll,
                Err(message) => {
                    desk.note_panic();
                    Poll::Ready(Err(ServeError::Panicked { message }))
                }
            },
            Going::WithActor(rx, mark) => Pin::new(&mut unconstrained(rx)).poll(cx).map(|got| {
                got.unwrap_or_else(|_| {
                    Err(match mark.panicked.take() {
                        Some(message) => ServeError::Panicked { message },
                        None => ServeError::NoAnswer,
                    })
                })
            }),
        }
    }

    /// The text of the panic that ended it, where that is known before it is polled again.
    pub(crate) fn panicked(&self) -> Option<Box<str>> {
        match self {
            Going::Alone(..) => None,
            Going::WithActor(_, mark) => mark.panicked.borrow().clone(),
        }
    }

    /// Whether the time is over that the backend itself gives it.
    fn timed_out(&self) -> bool {
        match self {
            Going::Alone(_, meta) => meta.timed_out(),
            Going::WithActor(_, mark) => mark.meta.borrow().as_ref().is_some_and(Meta::timed_out),
        }
    }

    /// Drops what is left of the handler; its drop may panic.
    pub(crate) fn discard(self, desk: &Desk) {
        if let Going::WithActor(_, mark) = &self {
            mark.left.set(true);
        }
        if desk.guard(|| drop(self)).is_err() {
            desk.note_panic();
        }
    }
}

/// Hands `outer` to the actor and polls what it returns once.
pub(crate) fn execute<A, F>(
    actor: &mut A,
    ctx: &mut ReplicaContext<A>,
    outer: F::Outer,
    meta: Meta,
) -> Step<<F::Outer as Request>::Response, <F::Inner as Request>::Response>
where
    A: Actor<Context = ReplicaContext<A>> + Handler<F::Inner>,
    F: Form,
{
    let desk = Rc::clone(&ctx.desk);
    let entered = meta.enter();
    match desk.guard(|| handle::<A, F>(actor, ctx, outer)) {
        Ok(Handled::Done(result)) => Step::Done(result),
        Ok(Handled::Alone(future)) => Step::Going(Going::Alone(future, entered.leave().unwrap_or_default())),
        Ok(Handled::WithActor(rx, mark)) => {
            mark.meta.replace(entered.leave());
            Step::Going(Going::WithActor(rx, mark))
        }
        Err(message) => {
            ctx.serving = None;
            desk.note_panic();
            Step::Done(Err(ServeError::Panicked { message }))
        }
    }
}

/// What a handler returned, recognised.
enum Handled<S, R> {
    Done(Result<S, ServeError>),
    Alone(ResponseFuture<Result<R, ServeError>>),
    WithActor(oneshot::Receiver<Result<R, ServeError>>, Rc<Mark>),
}

fn handle<A, F>(
    actor: &mut A,
    ctx: &mut ReplicaContext<A>,
    outer: F::Outer,
) -> Handled<<F::Outer as Request>::Response, <F::Inner as Request>::Response>
where
    A: Actor<Context = ReplicaContext<A>> + Handler<F::Inner>,
    F: Form,
{
    let msg = match F::open(outer) {
        Ok(msg) => msg,
        Err(error) => return Handled::Done(Err(error)),
    };
    let mut response = Some(actor.handle(msg, ctx));
    let any: &mut dyn Any = &mut response;
    if let Some(result) = any.downcast_mut::<Option<ResultOf<F>>>().and_then(Option::take) {
        return Handled::Done(result.and_then(F::close));
    }
    if let Some(mut future) = any.downcast_mut::<Option<ResponseFuture<ResultOf<F>>>>().and_then(Option::take)
    {
        // Futures of light handlers are often ready at once; the others are polled again by the replica's
        // loop, with its waker.
        return match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Handled::Done(result.and_then(F::close)),
            Poll::Pending => Handled::Alone(future),
        };
    }
    let (tx, mut rx) = oneshot::channel();
    let mark = Rc::new(Mark::default());
    let before = ctx.serving.replace(Rc::clone(&mark));
    if let Some(response) = response.take() {
        response.handle(ctx, Some(tx));
    }
    ctx.serving = before;
    match rx.try_recv() {
        Ok(result) => Handled::Done(result.and_then(F::close)),
        Err(_) => Handled::WithActor(rx, mark),
    }
}

type ResultOf<F> = Result<<<F as Form>::Inner as Request>::Response, ServeError>;

/// Counts a call from its begin to its end, however it ends.
pub(crate) struct Running {
    desk: Rc<Desk>,
    begun: Tick,
    counts: bool,
    _permit: Option<Permit>,
}

impl Running {
    pub(crate) fn begin<F: Form>(desk: &Rc<Desk>, begun: Tick, permit: Option<Permit>) -> Self {
        desk.begin(F::COUNTS);
        Self { desk: Rc::clone(desk), begun, counts: F::COUNTS, _permit: permit }
    }

    /// Counts the answer.
    pub(crate) fn finish<R>(self, result: &Result<R, ServeError>) {
        if self.counts {
            self.desk.cells.answered(self.begun.elapsed(), result.as_ref().err());
        }
    }

    /// Counts that the backend's own time for it was not enough.
    fn time_out(&self) {
        if self.counts {
            self.desk.cells.time_out();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.desk.end(self.counts);
    }
}

/// A call that goes on after its handler returned; the replica's loop owns and polls it.
pub(crate) struct RequestFuture<R, S: Send + 'static> {
    going: Option<Going<R>>,
    reply: Option<Reply<S>>,
    running: Option<Running>,
    /// When it ends, for callers that do not mind their deadline themselves.
    alarm: Option<Pin<Box<Sleep>>>,
    close: fn(R) -> Result<S, ServeError>,
}

impl<R: 'static, S: Send + 'static> RequestFuture<R, S> {
    pub(crate) fn new(
        going: Going<R>,
        reply: Reply<S>,
        running: Running,
        close: fn(R) -> Result<S, ServeError>,
    ) -> Self {
        Self { going: Some(going), reply: Some(reply), running: Some(running), alarm: None, close }
    }

    /// Ends it at the deadline.
    pub(crate) fn until(mut self, deadline: Option<tokio::time::Instant>) -> Self {
        self.alarm = deadline.map(|at| Box::pin(sleep_until(at)));
        self
    }

    /// Drops what is left of the handler; its drop may panic.
    fn discard(&mut self) {
        if let (Some(going), Some(running)) = (self.going.take(), &self.running) {
            going.discard(&running.desk);
        }
    }

    fn note_timeout(&self) {
        if let (Some(going), Some(running)) = (&self.going, &self.running)
            && going.timed_out()
        {
            running.time_out();
        }
    }

    /// The caller has left; if that was at its deadline it has counted it.
    fn leave(&mut self) -> Poll<()> {
        self.note_timeout();
        self.discard();
        self.running.take();
        Poll::Ready(())
    }
}

impl<R: 'static, S: Send + 'static> Future for RequestFuture<R, S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if let Some(reply) = &mut this.reply
            && reply.poll_closed(cx).is_ready()
        {
            return this.leave();
        }
        let Some(desk) = this.running.as_ref().map(|r| Rc::clone(&r.desk)) else { return Poll::Ready(()) };
        let mut polled = match &mut this.going {
            Some(going) => going.poll(cx, &desk),
            None => Poll::Ready(Err(ServeError::NoAnswer)),
        };
        if polled.is_pending()
            && let Some(alarm) = &mut this.alarm
        {
            polled = alarm.as_mut().poll(cx).map(|()| Err(ServeError::DeadlineExceeded));
            if polled.is_ready() {
                this.note_timeout();
            }
        }
        let result = ready!(polled);
        // Left while the handler was polled, which may take long.
        if this.reply.as_ref().is_some_and(Reply::is_closed) {
            return this.leave();
        }
        this.discard();
        let result = result.and_then(|inner| {
            desk.guard(|| (this.close)(inner)).unwrap_or_else(|message| Err(ServeError::Panicked { message }))
        });
        if let Some(running) = this.running.take() {
            running.finish(&result);
        }
        if let Some(reply) = this.reply.take() {
            reply.send(result);
        }
        Poll::Ready(())
    }
}

impl<R, S: Send + 'static> Drop for RequestFuture<R, S> {
    fn drop(&mut self) {
        // Still here: the replica stops while the call runs.
        if let Some(running) = self.running.take() {
            if let Some(Going::WithActor(_, mark)) = &self.going {
                mark.left.set(true);
            }
            let going = self.going.take();
            let _ = running.desk.guard(|| drop(going));
        }
        if let Some(reply) = self.reply.take() {
            reply.send(Err(ServeError::Stopped));
        }
    }
}
