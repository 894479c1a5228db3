//! What `src/actors/context.rs` and `execute.rs` take for granted about actix, one test each.

use std::{any::Any, sync::Arc, task::Context as TaskContext, task::Waker};

use actix::{
    Actor, ActorContext, ActorState, Addr, AsyncContext, AtomicResponse, Context, Handler, Message,
    MessageResult, ResponseActFuture, ResponseFuture, SpawnHandle,
    dev::{Envelope, EnvelopeProxy, Mailbox, MessageResponse, OneshotSender, channel::channel},
};
use tokio::sync::oneshot;

type Answer = Result<u64, String>;

#[derive(Message)]
#[rtype(result = "Answer")]
struct Ask;

/// Counts what it handles.
#[derive(Default)]
struct Counter {
    handled: usize,
}
impl Actor for Counter {
    type Context = Context<Self>;
}
impl Handler<Ask> for Counter {
    type Result = Answer;
    fn handle(&mut self, _: Ask, _: &mut Self::Context) -> Answer {
        self.handled += 1;
        Ok(1)
    }
}

#[test]
fn a_result_is_recognised_and_taken_out() {
    let mut response = Some(Answer::Ok(7));
    let any: &mut dyn Any = &mut response;
    assert_eq!(any.downcast_mut::<Option<Answer>>().and_then(Option::take), Some(Ok(7)));
}

#[test]
fn a_response_future_is_recognised_and_no_other_response_is_taken_for_one() {
    fn recognised(response: impl Any) -> (bool, bool) {
        let mut response = Some(response);
        let any: &mut dyn Any = &mut response;
        (any.is::<Option<ResponseFuture<Answer>>>(), any.is::<Option<Answer>>())
    }
    let future: ResponseFuture<Answer> = Box::pin(async { Ok(1) });
    assert_eq!(recognised(future), (true, false));
    let with_actor: ResponseActFuture<Counter, Answer> = Box::pin(actix::fut::ready(Ok(1)));
    assert_eq!(recognised(with_actor), (false, false));
    assert_eq!(
        recognised(AtomicResponse::<Counter, Answer>::new(Box::pin(actix::fut::ready(Ok(1))))),
        (false, false)
    );
    assert_eq!(recognised(MessageResult::<Ask>(Ok(1))), (false, false));
}

#[test]
fn handles_of_futures_are_distinct() {
    let mut handle = SpawnHandle::default();
    let handles: std::collections::HashSet<_> = (0..1000)
        .map(|_| {
            handle = handle.next();
            handle
        })
        .collect();
    assert_eq!(handles.len(), 1000);
    assert!(!handles.contains(&SpawnHandle::default()));
}

/// A context of our own: says that it waits once `left` messages were handled.
struct Own {
    addr: Addr<Stopper>,
    left: usize,
    futures: usize,
}
impl ActorContext for Own {
    fn stop(&mut self) {}
    fn terminate(&mut self) {}
    fn state(&self) -> ActorState {
        ActorState::Running
    }
}
impl AsyncContext<Stopper> for Own {
    fn address(&self) -> Addr<Stopper> {
        self.addr.clone()
    }
    fn spawn<F: actix::ActorFuture<Stopper, Output = ()> + 'static>(&mut self, _: F) -> SpawnHandle {
        self.futures += 1;
        SpawnHandle::default()
    }
    fn wait<F: actix::ActorFuture<Stopper, Output = ()> + 'static>(&mut self, _: F) {
        self.futures += 100;
    }
    fn waiting(&self) -> bool {
        self.left == 0
    }
    fn cancel_future(&mut self, _: SpawnHandle) -> bool {
        true
    }
}

struct Stopper;
impl Actor for Stopper {
    type Context = Own;
}

/// An envelope of our own, which is told when it is handled.
struct Proxy(Arc<std::sync::atomic::AtomicUsize>);
impl EnvelopeProxy<Stopper> for Proxy {
    fn handle(&mut self, _: &mut Stopper, ctx: &mut Own) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        ctx.left -= 1;
    }
}

/// Packs every message for our context into our envelope.
impl<M> actix::dev::ToEnvelope<Stopper, M> for Own
where
    Stopper: Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn pack(_: M, _: Option<OneshotSender<M::Result>>) -> Envelope<Stopper> {
        Envelope::with_proxy(Box::new(Proxy(HANDLED.with(Arc::clone))))
    }
}
thread_local! {
    static HANDLED: Arc<std::sync::atomic::AtomicUsize> = Arc::default();
}

impl Handler<Ask> for Stopper {
    type Result = Answer;
    fn handle(&mut self, _: Ask, _: &mut Own) -> Answer {
        Ok(0)
    }
}

fn own(left: usize) -> (Own, Mailbox<Stopper>) {
    let (tx, rx) = channel(0);
    (Own { addr: Addr::new(tx), left, futures: 0 }, Mailbox::new(rx))
}

#[test]
fn a_mailbox_hands_over_our_envelopes_and_stops_when_the_context_waits() {
    let (mut ctx, mut mailbox) = own(3);
    (0..5).for_each(|_| ctx.addr.do_send(Ask));
    let mut cx = TaskContext::from_waker(Waker::noop());
    mailbox.poll(&mut Stopper, &mut ctx, &mut cx);
    let handled = || HANDLED.with(|handled| handled.load(std::sync::atomic::Ordering::SeqCst));
    assert_eq!(handled(), 3, "the context said that it waits");
    ctx.left = 10;
    mailbox.poll(&mut Stopper, &mut ctx, &mut cx);
    assert_eq!(handled(), 5, "what was left is kept, and an empty mailbox returns");
}

#[test]
fn responses_with_an_actor_go_to_spawn_and_wait_of_the_context_and_no_further() {
    let (mut ctx, _mailbox) = own(1);
    let (tx, mut rx) = oneshot::channel();
    let response: ResponseActFuture<Stopper, Answer> = Box::pin(actix::fut::ready(Ok(1)));
    MessageResponse::<Stopper, Ask>::handle(response, &mut ctx, Some(tx));
    assert_eq!(ctx.futures, 1);
    assert_eq!(rx.try_recv(), Err(oneshot::error::TryRecvError::Closed), "the sender went with the future");
    let (tx, _rx) = oneshot::channel();
    let response = AtomicResponse::<Stopper, Answer>::new(Box::pin(actix::fut::ready(Ok(1))));
    MessageResponse::<Stopper, Ask>::handle(response, &mut ctx, Some(tx));
    assert_eq!(ctx.futures, 101);
    let (tx, mut rx) = oneshot::channel();
    MessageResponse::<Stopper, Ask>::handle(MessageResult::<Ask>(Ok(2)), &mut ctx, Some(tx));
    assert_eq!(rx.try_recv(), Ok(Ok(2)), "an answer that is there is sent at once");
}

#[test]
fn an_envelope_skips_a_caller_that_has_left() {
    let (tx, rx) = oneshot::channel::<Answer>();
    let mut ctx = Context::<Counter>::new();
    let mut counter = Counter::default();
    let mut envelope: Envelope<Counter> = Envelope::new(Ask, Some(tx));
    drop(rx);
    envelope.handle(&mut counter, &mut ctx);
    assert_eq!(counter.handled, 0);
    let mut told: Envelope<Counter> = Envelope::new(Ask, None);
    told.handle(&mut counter, &mut ctx);
    assert_eq!(counter.handled, 1, "one without a caller is handled");
}
