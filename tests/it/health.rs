//! Health: replicas are asked whether they are well, and those that are not are replaced.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use actix::{
    Actor, AtomicResponse, Handler, Message, ResponseActFuture, ResponseFuture, WrapFuture,
    fut::ActorFutureExt,
};
use greenroom::{
    Backend, BackendConfig, BackendUpdate, CheckHealth, Endpoint, Handle, Reconfigure, ReplicaContext,
    ReplicaId, ReplicaStatus, RestartPolicy, Serve, ServeError, testing::Stage,
};
use tokio::time::sleep;

use crate::support::{Barrier, MEANT, metric, quiet_panics, until};

mod batches;
mod ejection;
mod first;
mod periodic;
mod rebuilt;
mod replaced;
mod threads;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What a check says.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Well,
    Ill,
    /// Well, after this time.
    Later(Duration),
    /// Ill, after this time.
    IllLater(Duration),
    Panics,
    PanicsLater(Duration),
    Hangs,
}

/// One check: of which replica, which state of it, and how many this state has had before.
#[derive(Clone, Copy, Debug)]
struct Visit {
    slot: u32,
    generation: u64,
    state: u64,
    before: u64,
}

type Says = dyn Fn(Visit) -> Verdict + Send;

/// What the replicas of one backend have in common.
#[derive(Clone)]
struct Ward {
    says: Arc<Mutex<Box<Says>>>,
    checks: Arc<AtomicU64>,
    states: Arc<AtomicU64>,
    calls: Barrier,
    log: Arc<Mutex<Vec<String>>>,
}

impl Ward {
    fn new() -> Self {
        quiet_panics();
        Self {
            says: Arc::new(Mutex::new(Box::new(|_| Verdict::Well))),
            checks: Arc::default(),
            states: Arc::default(),
            calls: Barrier::new(),
            log: Arc::default(),
        }
    }

    /// From now on checks say this.
    fn says(&self, says: impl Fn(Visit) -> Verdict + Send + 'static) {
        *self.says.lock().unwrap() = Box::new(says);
    }

    /// Checks begun so far.
    fn checks(&self) -> u64 {
        self.checks.load(SeqCst)
    }

    /// States made so far.
    fn states(&self) -> u64 {
        self.states.load(SeqCst)
    }

    fn note(&self, what: impl Into<String>) {
        self.log.lock().unwrap().push(what.into());
    }

    fn visit(&self, visit: Visit) -> Verdict {
        self.checks.fetch_add(1, SeqCst);
        self.note("check");
        (self.says.lock().unwrap())(visit)
    }

    fn backend(&self) -> Backend<Patient> {
        let ward = self.clone();
        let patient = Backend::new(move |ctx| Ok(Patient::new(&ward, ctx.replica_id())));
        let patient = patient.handles::<Ping>().handles::<Hold>().handles::<Alone>().handles::<Fall>();
        patient.reconfigure::<String>().health_check()
    }
}

struct Patient {
    ward: Ward,
    next: Visit,
}

impl Patient {
    fn new(ward: &Ward, id: &ReplicaId) -> Self {
        let state = ward.states.fetch_add(1, SeqCst) + 1;
        let next = Visit { slot: id.slot, generation: id.generation, state, before: 0 };
        Self { ward: ward.clone(), next }
    }

    fn examine(&mut self) -> Verdict {
        let visit = self.next;
        self.next.before += 1;
        self.ward.visit(visit)
    }
}

impl Actor for Patient {
    type Context = ReplicaContext<Self>;
}

fn ill() -> Result<(), ServeError> {
    Err(ServeError::backend(503, "ill", "it feels ill"))
}

/// What `verdict` takes; those without time say it at once.
async fn pronounce(verdict: Verdict) -> Result<(), ServeError> {
    match verdict {
        Verdict::Well => Ok(()),
        Verdict::Ill => ill(),
        Verdict::Later(after) => {
            sleep(after).await;
            Ok(())
        }
        Verdict::IllLater(after) => {
            sleep(after).await;
            ill()
        }
        Verdict::Panics => panic!("{MEANT}"),
        Verdict::PanicsLater(after) => {
            sleep(after).await;
            panic!("{MEANT}")
        }
        Verdict::Hangs => std::future::pending().await,
    }
}

impl Handler<CheckHealth> for Patient {
    type Result = ResponseFuture<Result<(), ServeError>>;
    fn handle(&mut self, _: CheckHealth, _: &mut Self::Context) -> Self::Result {
        Box::pin(pronounce(self.examine()))
    }
}

impl Handler<Reconfigure<String>> for Patient {
    type Result = Result<(), ServeError>;
    fn handle(&mut self, Reconfigure(config): Reconfigure<String>, _: &mut Self::Context) -> Self::Result {
        self.ward.note(config);
        Ok(())
    }
}

/// Answers the slot and the generation.
#[derive(Message)]
#[rtype(result = "Result<(u32, u64), ServeError>")]
struct Ping;

impl Handler<Ping> for Patient {
    type Result = Result<(u32, u64), ServeError>;
    fn handle(&mut self, _: Ping, ctx: &mut Self::Context) -> Self::Result {
        self.ward.note("call");
        Ok((ctx.replica_id().slot, ctx.replica_id().generation))
    }
}

/// Waits at the barrier.
#[derive(Message)]
#[rtype(result = "Result<u64, ServeError>")]
struct Hold;

impl Handler<Hold> for Patient {
    type Result = ResponseFuture<Result<u64, ServeError>>;
    fn handle(&mut self, _: Hold, ctx: &mut Self::Context) -> Self::Result {
        let (passed, generation) = (self.ward.calls.pass(), ctx.replica_id().generation);
        Box::pin(async move {
            passed.await;
            Ok(generation)
        })
    }
}

/// Has the actor to itself for this long.
#[derive(Message)]
#[rtype(result = "Result<(), ServeError>")]
struct Alone(Duration);

impl Handler<Alone> for Patient {
    type Result = AtomicResponse<Self, Result<(), ServeError>>;
    fn handle(&mut self, Alone(time): Alone, _: &mut Self::Context) -> Self::Result {
        AtomicResponse::new(Box::pin(sleep(time).into_actor(self).map(|(), _, _| Ok(()))))
    }
}

#[derive(Message)]
#[rtype(result = "Result<(), ServeError>")]
struct Fall;

impl Handler<Fall> for Patient {
    type Result = Result<(), ServeError>;
    fn handle(&mut self, _: Fall, _: &mut Self::Context) -> Self::Result {
        panic!("{MEANT}");
    }
}

/// Lets time stand still on this thread, also when it does already.
fn freeze() {
    thread_local!(static FROZEN: std::cell::Cell<bool> = const { std::cell::Cell::new(false) });
    if !FROZEN.replace(true) {
        tokio::time::pause();
    }
}

/// A stage on which time stands still, with a backend called `ward`.
async fn stage(ward: &Ward, config: BackendConfig) -> (Stage, Handle<Ping>) {
    freeze();
    let stage = Stage::new().await.unwrap();
    let ping = stage.replicas("ward", ward.backend(), config).await.unwrap();
    (stage, ping)
}

fn config() -> BackendConfig {
    BackendConfig::default()
}

/// The replicas, by slot.
fn replicas(serve: &Serve) -> Vec<ReplicaStatus> {
    let mut replicas = serve.status().backends.swap_remove(0).replicas;
    replicas.sort_by_key(|replica| (replica.id.slot, replica.id.generation));
    replicas
}

fn generations(serve: &Serve) -> Vec<u64> {
    replicas(serve).iter().map(|replica| replica.id.generation).collect()
}

fn last_error(serve: &Serve) -> String {
    serve.status().backends.swap_remove(0).last_error.unwrap_or_default()
}

/// Restarts counted for the replicas in this slot.
fn restarts(serve: &Serve, slot: u32) -> u64 {
    metric(serve, "serve_replica_restarts_total", &format!("backend=\"ward\",replica=\"{slot}\""))
}
