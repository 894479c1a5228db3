//! A Batcher that panics loses nothing.

use std::{
    any::{Any, TypeId},
    rc::Rc,
};

use actix::{Handler, Message};

use super::*;
use crate::{
    actors::{
        context::Desk,
        execute::Plain,
        identity::Identity,
        lane::{Lane, Patience},
        replica::{Parts, ReplicaTask},
        timer::TimerKind,
    },
    call::{Gate, Refusal},
    ids::BackendName,
    metrics::cells::ReplicaCells,
    port::{Home, Port},
    routing::directory::Directory,
};

#[derive(Message)]
#[rtype(result = "Result<u64, ServeError>")]
struct Nth(u64);

#[derive(Message)]
#[rtype(result = "()")]
struct Crash;

impl<M: Request> Handler<Crash> for Batcher<M> {
    type Result = ();
    fn handle(&mut self, _: Crash, _: &mut Self::Context) {
        panic!("told to crash");
    }
}

/// A replica that answers each item of a batch with its number.
struct Target;

impl Port<SentBatch<Nth>> for Target {
    fn deliver(&self, call: Call<SentBatch<Nth>>, _: bool) -> Result<(), Refusal<SentBatch<Nth>>> {
        call.reply.send(Ok(call.msg.batch.into_iter().map(|Nth(n)| Ok(n)).collect()));
        Ok(())
    }
    fn load(&self) -> usize {
        0
    }
    fn concurrency(&self) -> usize {
        usize::MAX
    }
    fn thread(&self) -> u64 {
        0
    }
}

struct Alone;

impl Home for Alone {
    fn port(&self, _: TypeId) -> Option<&(dyn Any + Send + Sync)> {
        None
    }
    fn gone(&self) -> ServeError {
        ServeError::Stopped
    }
}

#[actix_web::test]
async fn a_restart_is_counted_and_loses_no_call_that_waits() {
    let (own, gate) = (Arc::new(ReplicaCells::default()), Arc::new(Gate::new(100)));
    let settings = Arc::new(BatchSettings::default());
    settings.set(3, std::time::Duration::from_secs(1000), 100);
    let bench = Arc::new(Bench::<Nth> {
        target: Arc::new(Target),
        home: Arc::new(Alone),
        settings: Arc::clone(&settings),
        cells: Arc::default(),
        timer: TimerKind::Tokio,
        copy: None,
        queue: Default::default(),
        running: Default::default(),
    });
    let lane = Arc::new(Lane::new(Arc::new(Gate::new(usize::MAX)), usize::MAX, None));
    let (task, batcher) = ReplicaTask::new(Parts {
        factory: Arc::new({
            let bench = Arc::clone(&bench);
            move |_: &mut ReplicaContext<_>| Ok(Batcher::new(Arc::clone(&bench)))
        }),
        lane: Arc::clone(&lane),
        identity: Arc::new(Identity::own("batcher", Arc::<Directory>::default())),
        desk: Rc::new(Desk::new(Arc::clone(&own), None)),
        user: Default::default(),
        leases: Default::default(),
        health: Default::default(),
        patience: Patience::ENDLESS,
        on_event: Box::new(drop),
    });
    drop(actix_web::rt::spawn(task));
    let name = BackendName::new("b").unwrap();
    let port = BatchPort::<Plain<Nth>>::new(name, lane, Arc::clone(&gate), settings);
    let call = |n| match port.call(Nth(n), Meta::new()) {
        Answer::Waiting(waiting) => waiting,
        _ => panic!("it did not wait"),
    };
    let (first, second) = (call(1), call(2));
    while bench.state().0.queued < 2 {
        tokio::task::yield_now().await;
    }
    assert!(batcher.send(Crash).await.is_err(), "it panicked");
    while own.restarts.get() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((own.restarts.get(), bench.state().0.queued, gate.load()), (1, 2, 2));
    let third = call(3);
    assert_eq!((first.await, second.await, third.await), (Ok(1), Ok(2), Ok(3)));
    assert_eq!((gate.load(), bench.running.load(Relaxed)), (0, 0));
}
