//! An actor that panics wherever it is told to, in each kind of handler, and counts what became of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use actix::{
    Actor, ActorFutureExt, AsyncContext, AtomicResponse, Handler, Message, ResponseActFuture, ResponseFuture,
    fut::wrap_future,
};
use greenroom::{Backend, ReplicaContext, ServeError};

use crate::support::{Barrier, MEANT};

/// What a handler does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Do {
    /// Answers at once.
    Answer,
    /// Answers after another task had its turn.
    Yield,
    /// Waits at the barrier, then answers.
    Wait,
    /// Panics in the handler itself.
    Panic,
    /// Panics after the first await.
    PanicLater,
}

/// Dropped while nothing else panics, it panics.
#[derive(Default)]
pub struct Brittle;

impl Drop for Brittle {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("{MEANT}: drop");
        }
    }
}

type Answer = Result<u64, ServeError>;

macro_rules! messages {
    ($($name:ident)+) => { $(
        #[derive(Message, Debug)]
        #[rtype(result = "Answer")]
        pub struct $name(pub Do);
    )+ };
}
messages!(Sync Future ActFuture Atomic);

/// A message whose drop panics; the handler keeps it for as long as it lives.
#[derive(Message)]
#[rtype(result = "Answer")]
pub struct WithBrittle(pub Do, pub Brittle);

/// What outlives the states of one backend.
#[derive(Clone)]
pub struct Watch {
    /// States made.
    pub births: Arc<AtomicUsize>,
    /// Ticks of the 10 ms timer of all states together.
    pub ticks: Arc<AtomicUsize>,
    /// The next tick panics.
    pub tick_panics: Arc<AtomicBool>,
    /// So many of the next states fail to be made, by turns with an error and a panic.
    pub fail_factory: Arc<AtomicUsize>,
    /// So many of the next states panic in `started`.
    pub fail_started: Arc<AtomicUsize>,
    /// The next state that is dropped panics.
    pub drop_panics: Arc<AtomicBool>,
    pub barrier: Barrier,
}

impl Watch {
    pub fn new() -> Self {
        Self {
            births: Arc::default(),
            ticks: Arc::default(),
            tick_panics: Arc::default(),
            fail_factory: Arc::default(),
            fail_started: Arc::default(),
            drop_panics: Arc::default(),
            barrier: Barrier::new(),
        }
    }

    /// A backend that takes every message of this file.
    pub fn backend(&self) -> Backend<Frail> {
        let watch = self.clone();
        Backend::new(move |_| {
            let left = watch.fail_factory.load(SeqCst);
            if left > 0 {
                watch.fail_factory.fetch_sub(1, SeqCst);
                if left.is_multiple_of(2) {
                    panic!("{MEANT}: factory");
                }
                return Err("the factory failed".into());
            }
            watch.births.fetch_add(1, SeqCst);
            Ok(Frail { calls: 0, watch: watch.clone() })
        })
        .handles::<Sync>()
        .handles::<Future>()
        .handles::<ActFuture>()
        .handles::<Atomic>()
        .handles::<WithBrittle>()
    }
}

/// Answers how many calls its state has seen.
pub struct Frail {
    calls: u64,
    watch: Watch,
}

impl Actor for Frail {
    type Context = ReplicaContext<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if self.watch.fail_started.load(SeqCst) > 0 {
            self.watch.fail_started.fetch_sub(1, SeqCst);
            panic!("{MEANT}: started");
        }
        ctx.run_interval(Duration::from_millis(10), |frail, _| {
            frail.watch.ticks.fetch_add(1, SeqCst);
            if frail.watch.tick_panics.swap(false, SeqCst) {
                panic!("{MEANT}: tick");
            }
        });
    }
}

impl Drop for Frail {
    fn drop(&mut self) {
        if self.watch.drop_panics.swap(false, SeqCst) {
            panic!("{MEANT}: state");
        }
    }
}

impl Frail {
    fn begin(&mut self, what: Do) -> u64 {
        self.calls += 1;
        if what == Do::Panic {
            panic!("{MEANT}: handler");
        }
        self.calls
    }

    fn go_on(&self, what: Do) -> impl std::future::Future<Output = ()> + use<> {
        let pass = (what == Do::Wait).then(|| self.watch.barrier.pass());
        async move {
            match (what, pass) {
                (_, Some(pass)) => pass.await,
                (Do::Yield, _) => tokio::task::yield_now().await,
                (Do::PanicLater, _) => {
                    tokio::task::yield_now().await;
                    panic!("{MEANT}: after an await");
                }
                _ => {}
            }
        }
    }
}

impl Handler<Sync> for Frail {
    type Result = Answer;
    fn handle(&mut self, Sync(what): Sync, _: &mut Self::Context) -> Answer {
        let calls = self.begin(what);
        assert_ne!(what, Do::PanicLater, "{MEANT}: a sync handler has no later");
        Ok(calls)
    }
}

impl Handler<Future> for Frail {
    type Result = ResponseFuture<Answer>;
    fn handle(&mut self, Future(what): Future, _: &mut Self::Context) -> Self::Result {
        let (calls, rest) = (self.begin(what), self.go_on(what));
        Box::pin(async move {
            rest.await;
            Ok(calls)
        })
    }
}

impl Handler<ActFuture> for Frail {
    type Result = ResponseActFuture<Self, Answer>;
    fn handle(&mut self, ActFuture(what): ActFuture, _: &mut Self::Context) -> Self::Result {
        self.begin(what);
        // The state that it ends with, which may be a younger one.
        Box::pin(wrap_future::<_, Self>(self.go_on(what)).map(|_, frail, _| Ok(frail.calls)))
    }
}

impl Handler<Atomic> for Frail {
    type Result = AtomicResponse<Self, Answer>;
    fn handle(&mut self, Atomic(what): Atomic, _: &mut Self::Context) -> Self::Result {
        self.begin(what);
        AtomicResponse::new(Box::pin(
            wrap_future::<_, Self>(self.go_on(what)).map(|_, frail, _| Ok(frail.calls)),
        ))
    }
}

impl Handler<WithBrittle> for Frail {
    type Result = ResponseFuture<Answer>;
    fn handle(&mut self, WithBrittle(what, brittle): WithBrittle, _: &mut Self::Context) -> Self::Result {
        let (calls, rest) = (self.begin(what), self.go_on(what));
        Box::pin(async move {
            rest.await;
            std::mem::forget(brittle);
            Ok(calls)
        })
    }
}
