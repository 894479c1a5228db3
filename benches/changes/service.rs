//! The service that is changed: a backend under load by HTTP and handles, and an endpoint that changes it.

use std::{
    num::NonZeroUsize,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use actix::{Actor, Handler, Message};
use greenroom::{
    Backend, BackendConfig, BackendUpdate, Capacity, Endpoint, Listen, Reconfigure, ReplicaContext, Serve,
    ServeError, ServeOptions,
};
use serde::{Deserialize, Serialize};

/// Replicas unless they are scaled.
const REPLICAS: u32 = 4;
/// Callers by handle.
const HANDLES: usize = 4;

#[derive(Message, Serialize, Deserialize)]
#[rtype(result = "Result<Work, ServeError>")]
struct Work {
    id: u64,
    text: String,
}

struct Worker {
    factor: u64,
}

impl Actor for Worker {
    type Context = ReplicaContext<Self>;
}

impl Handler<Work> for Worker {
    type Result = Result<Work, ServeError>;
    fn handle(&mut self, work: Work, _: &mut Self::Context) -> Self::Result {
        Ok(Work { id: work.id % self.factor.max(1), ..work })
    }
}

#[derive(Clone, Deserialize)]
struct Factor {
    factor: u64,
}

impl Handler<Reconfigure<Factor>> for Worker {
    type Result = Result<(), ServeError>;
    fn handle(&mut self, Reconfigure(config): Reconfigure<Factor>, _: &mut Self::Context) -> Self::Result {
        self.factor = config.factor;
        Ok(())
    }
}

#[derive(Message, Deserialize)]
#[rtype(result = "Result<serde_json::Value, ServeError>")]
struct Change {
    what: String,
}

/// What the callers by handle saw since it was asked for last.
static TOOK_NS: Mutex<Vec<u32>> = Mutex::new(Vec::new());
static FAILED: AtomicUsize = AtomicUsize::new(0);
static VERSION: AtomicUsize = AtomicUsize::new(1);

pub async fn run() -> Result<(), ServeError> {
    // Those of the Controller are asked for.
    std::panic::set_hook(Box::new(|_| {}));
    let serve = Serve::start(ServeOptions::default().capacity(Capacity::unlimited()).lent_threads()).await?;
    let threads = NonZeroUsize::MIN.saturating_add(1);
    let address = serve.listen(Listen::default().threads(threads)).await?;
    deploy(&serve, 1).await?;
    serve.create_endpoint("work", Endpoint::new("model").route("/work").methods(["POST"])).await?;
    let changed = serve.clone();
    let changes =
        Backend::from_fn(move |Change { what }: Change| change(changed.clone(), what)).json::<Change>();
    serve.create_backend("change", changes, BackendConfig::default()).await?;
    serve.create_endpoint("change", Endpoint::new("change").route("/change")).await?;
    for _ in 0..HANDLES {
        actix::spawn(caller(serve.clone()));
    }
    println!("{}", address.port());
    serve.run_until_signal().await
}

async fn deploy(serve: &Serve, version: usize) -> Result<(), ServeError> {
    let config = BackendConfig::default()
        .num_replicas(REPLICAS)
        .version(version.to_string())
        .user_config(serde_json::json!({ "factor": 1000 }));
    let model = Backend::new(|_| Ok(Worker { factor: 1 })).json::<Work>().reconfigure::<Factor>();
    serve.deploy_backend("model", model, config).await
}

async fn change(serve: Serve, what: String) -> Result<serde_json::Value, ServeError> {
    let version = || VERSION.load(Ordering::Relaxed);
    let scale = |n| BackendUpdate::default().num_replicas(n);
    match what.as_str() {
        "base" => serve.update_backend_config("model", scale(REPLICAS)).await?,
        "roll" => deploy(&serve, VERSION.fetch_add(1, Ordering::Relaxed) + 1).await?,
        "rollback" => deploy(&serve, version() - 1).await?,
        "reconfigure" => {
            let factor = 1000 + VERSION.fetch_add(1, Ordering::Relaxed);
            let update = BackendUpdate::default().user_config(serde_json::json!({ "factor": factor }));
            serve.update_backend_config("model", update).await?;
        }
        "scale-1" => serve.update_backend_config("model", scale(1)).await?,
        "scale-8" => serve.update_backend_config("model", scale(8)).await?,
        "scale-2" => serve.update_backend_config("model", scale(2)).await?,
        "crash" => serve.crash_controller().await,
        "clear" => drop(report()),
        "report" => return Ok(report()),
        other => return Err(ServeError::BadRequest { detail: other.into() }),
    }
    Ok(serde_json::json!({ "done": what }))
}

fn report() -> serde_json::Value {
    let took = std::mem::take(&mut *TOOK_NS.lock().unwrap_or_else(PoisonError::into_inner));
    let seen = crate::clients::Seen::of(took, FAILED.swap(0, Ordering::Relaxed));
    serde_json::json!({ "answered": seen.answered, "failed": seen.failed, "p99_us": seen.p99_us })
}

/// Calls one after the other, as fast as they are answered.
async fn caller(serve: Serve) {
    let handle = serve.handle::<Work>("work").expect("the endpoint");
    loop {
        let start = Instant::now();
        match handle.call(Work { id: 1, text: "x".repeat(32) }).await {
            Ok(_) => {
                let took = u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX);
                TOOK_NS.lock().unwrap_or_else(PoisonError::into_inner).push(took);
            }
            Err(ServeError::ShuttingDown) => return,
            Err(error) => {
                eprintln!("by handle: {error}");
                FAILED.fetch_add(1, Ordering::Relaxed);
            }
        }
        // Beside HTTP, not instead of it.
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}
