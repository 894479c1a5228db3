//! Replicas are replaced by those of a new release: never too few at once, no call lost, and back when one does not start.

mod batched;
mod bounds;
mod decided;
mod failing;
mod joined;
mod over_http;
mod threadless;
mod waiting;

use std::{cell::Cell, rc::Rc, time::Duration};

use actix::{Actor, Handler, Message, ResponseFuture};
use actix_web::rt::{spawn, task::JoinHandle};
use greenroom::{
    Backend, BackendConfig, BackendState, BackendStatus, Capacity, Endpoint, Reconfigure, ReplicaContext,
    ReplicaState, RestartPolicy, Serve, ServeError, ServeOptions,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// How long a call runs.
const WORK: Duration = Duration::from_millis(3);

/// Asks who handles it.
#[derive(Clone, Debug, Message, Deserialize)]
#[rtype(result = "Result<Seen, ServeError>")]
struct Work;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Seen {
    made_as: &'static str,
    generation: u64,
    threads: usize,
}

/// How a replica opens.
#[derive(Deserialize)]
struct Opening {
    /// How long it takes.
    ms: u64,
    /// What comes of it, for replicas made as this.
    #[serde(default)]
    fails_for: String,
}

struct Counter {
    seen: Seen,
}

impl Actor for Counter {
    type Context = ReplicaContext<Self>;
}

impl Handler<Reconfigure<Opening>> for Counter {
    type Result = ResponseFuture<Result<(), ServeError>>;
    fn handle(&mut self, Reconfigure(opening): Reconfigure<Opening>, _: &mut Self::Context) -> Self::Result {
        let fails = opening.fails_for == self.seen.made_as;
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(opening.ms)).await;
            if fails { Err(ServeError::backend(422, "closed", "this one stays closed")) } else { Ok(()) }
        })
    }
}

impl Handler<Work> for Counter {
    type Result = ResponseFuture<Result<Seen, ServeError>>;
    fn handle(&mut self, _: Work, _: &mut Self::Context) -> Self::Result {
        let seen = self.seen.clone();
        Box::pin(async move {
            tokio::time::sleep(WORK).await;
            Ok(seen)
        })
    }
}

/// A backend whose replicas say that they were made as this; "broken" ones cannot be made.
fn counter(made_as: &'static str) -> Backend<Counter> {
    let counter = Backend::new(move |ctx: &mut ReplicaContext<Counter>| {
        if made_as == "broken" {
            return Err("there is no counter".into());
        }
        let (generation, threads) = (ctx.replica_id().generation, ctx.num_threads());
        Ok(Counter { seen: Seen { made_as, generation, threads } })
    });
    counter.json::<Work>().reconfigure::<Opening>()
}

/// So many replicas of a version, each of which takes a while to open.
fn config(version: &str, replicas: u32) -> BackendConfig {
    let few = RestartPolicy { max_restarts: 2, backoff: Duration::from_millis(10), ..Default::default() };
    BackendConfig::default()
        .version(version)
        .num_replicas(replicas)
        .user_config(json!({"ms": 20}))
        .startup_timeout(Duration::from_secs(2))
        .restart(few)
}

/// Room for so many replicas, and when they are replaced for more of them.
async fn with_cpus_for(replicas: u32) -> Serve {
    serve_with(Capacity::default().num_cpus(f64::from(replicas))).await
}

async fn serve_with(capacity: Capacity) -> Serve {
    Serve::start(ServeOptions::default().current_thread().capacity(capacity)).await.unwrap()
}

/// The backend with an endpoint of the same name.
async fn open(serve: &Serve, backend: Backend<Counter>, config: BackendConfig) {
    serve.create_backend("counter", backend, config).await.unwrap();
    serve.create_endpoint("counter", Endpoint::new("counter").route("/work")).await.unwrap();
}

fn status(serve: &Serve) -> BackendStatus {
    serve.status().backends.swap_remove(0)
}

fn generations(serve: &Serve) -> Vec<u64> {
    let mut all: Vec<_> = status(serve).replicas.iter().map(|r| r.id.generation).collect();
    all.sort_unstable();
    all
}

/// A deployment under way.
fn deploying(
    serve: &Serve,
    backend: Backend<Counter>,
    config: BackendConfig,
) -> JoinHandle<Result<(), ServeError>> {
    let serve = serve.clone();
    spawn(async move { serve.deploy_backend("counter", backend, config).await })
}

/// Callers that call one after the other, until told.
struct Load {
    ends: Rc<Cell<bool>>,
    callers: Vec<JoinHandle<Result<u64, ServeError>>>,
    watch: JoinHandle<Watched>,
}

/// What was seen of the replicas meanwhile.
#[derive(Debug)]
struct Watched {
    /// Fewest that took calls.
    least: usize,
    /// Most that were there.
    most: usize,
}

impl Load {
    fn of(serve: &Serve, callers: usize) -> Self {
        let ends = Rc::new(Cell::new(false));
        let callers = (0..callers).map(|_| {
            let (handle, ends) = (serve.handle::<Work>("counter").unwrap(), Rc::clone(&ends));
            spawn(async move {
                let mut calls = 0;
                while !ends.get() {
                    handle.call(Work).await?;
                    calls += 1;
                }
                Ok(calls)
            })
        });
        let callers = callers.collect();
        let watch = {
            let (serve, ends) = (serve.clone(), Rc::clone(&ends));
            spawn(async move {
                let mut watched = Watched { least: usize::MAX, most: 0 };
                while !ends.get() {
                    let replicas = status(&serve).replicas;
                    let running = replicas.iter().filter(|r| r.state == ReplicaState::Running).count();
                    watched.least = watched.least.min(running);
                    watched.most = watched.most.max(replicas.len());
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                watched
            })
        };
        Self { ends, callers, watch }
    }

    /// None has failed; how many calls there were, and what was seen.
    async fn end(self) -> (u64, Watched) {
        self.ends.set(true);
        let mut calls = 0;
        for caller in self.callers {
            calls += caller.await.unwrap().unwrap();
        }
        (calls, self.watch.await.unwrap())
    }
}

/// All of the replicas take calls and are made as this.
async fn assert_all(serve: &Serve, made_as: &str, replicas: u32) {
    let status = status(serve);
    assert_eq!((status.state, status.reason), (BackendState::Running, None));
    assert_eq!(status.replicas.len(), replicas as usize);
    assert!(status.replicas.iter().all(|r| r.state == ReplicaState::Running && r.release == status.release));
    let slots: std::collections::BTreeSet<_> = status.replicas.iter().map(|r| r.id.slot).collect();
    assert_eq!(slots, (0..replicas).collect());
    let handle = serve.handle::<Work>("counter").unwrap();
    for _ in 0..3 * replicas {
        assert_eq!(handle.call(Work).await.unwrap().made_as, made_as);
    }
}
