//! A server for side-by-side benchmarks: echo, a batched model, a composition, a small network, sleeping replicas.
//!
//! | route | body, answer | backend |
//! |---|---|---|
//! | `/echo` | JSON, the same | `REPLICAS` replicas on the HTTP threads |
//! | `/batch` | `{"x": n}`, `{"y": 2n}` | one dedicated replica; a call blocks it 2 ms + 0.05 ms an item; batches of 32, wait 2 ms |
//! | `/compose` | `{"x": n}`, `{"y": (n + 1) * 2}` | a gateway that calls A, then B |
//! | `/digits` | `{"x": [64 pixels]}`, `{"label": k}` | the network in `MODEL_FILE`: `{"w": layers of [in][out], "b": layers}` |
//! | `/sleep` | `{"x": n}`, `{"y": n}` | `REPLICAS` dedicated replicas; a call blocks its replica 5 ms |
//!
//! Environment: `PORT` 8000, `REPLICAS` 1, `HTTP_WORKERS` 2, `MODEL_FILE`, and `WORKLOAD`, the one backend to
//! make (`echo`, `batch`, ...); without it all are made, `digits` when there is a `MODEL_FILE`.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, thread, time::Duration};

use actix::{Actor, Handler, Message, ResponseFuture};
use greenroom::{
    Backend, BackendConfig, Batch, BoxError, Capacity, Endpoint, Handle, Listen, ReplicaContext, Serve,
    ServeError, ServeOptions,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Says that an actor lives in a `ReplicaContext`.
macro_rules! actors {
    ($($actor:ty),+) => { $(impl Actor for $actor { type Context = ReplicaContext<Self>; })+ };
}
actors!(Echo, Model, Gateway, Add, Multiply, Digits, Sleeper);

#[derive(Message, Deserialize)]
#[serde(transparent)]
#[rtype(result = "Result<Value, ServeError>")]
struct Any(Value);

#[derive(Message, Deserialize)]
#[rtype(result = "Result<Y, ServeError>")]
struct X {
    x: f64,
}

#[derive(Serialize)]
struct Y {
    y: f64,
}

struct Echo;

impl Handler<Any> for Echo {
    type Result = Result<Value, ServeError>;
    fn handle(&mut self, Any(value): Any, _: &mut Self::Context) -> Self::Result {
        Ok(value)
    }
}

/// Stands for a computation: blocks the replica's own thread.
#[expect(clippy::disallowed_methods, reason = "whoever calls this has a thread for itself")]
fn busy(time: Duration) {
    thread::sleep(time);
}

struct Model;

impl Handler<Batch<X>> for Model {
    type Result = Result<Vec<Result<Y, ServeError>>, ServeError>;
    fn handle(&mut self, batch: Batch<X>, _: &mut Self::Context) -> Self::Result {
        busy(Duration::from_micros(2000 + 50 * batch.len() as u64));
        Ok(batch.into_iter().map(|X { x }| Ok(Y { y: 2.0 * x })).collect())
    }
}

#[derive(Message)]
#[rtype(result = "Result<f64, ServeError>")]
struct Number(f64);

struct Add;

impl Handler<Number> for Add {
    type Result = Result<f64, ServeError>;
    fn handle(&mut self, Number(n): Number, _: &mut Self::Context) -> Self::Result {
        Ok(n + 1.0)
    }
}

struct Multiply;

impl Handler<Number> for Multiply {
    type Result = Result<f64, ServeError>;
    fn handle(&mut self, Number(n): Number, _: &mut Self::Context) -> Self::Result {
        Ok(n * 2.0)
    }
}

struct Gateway {
    add: Handle<Number>,
    multiply: Handle<Number>,
}

impl Handler<X> for Gateway {
    type Result = ResponseFuture<Result<Y, ServeError>>;
    fn handle(&mut self, X { x }: X, _: &mut Self::Context) -> Self::Result {
        let (sum, multiply) = (self.add.call(Number(x)), self.multiply.clone());
        Box::pin(async move { Ok(Y { y: multiply.call(Number(sum.await?)).await? }) })
    }
}

#[derive(Message, Deserialize)]
#[rtype(result = "Result<Label, ServeError>")]
struct Image {
    x: Vec<f32>,
}

#[derive(Serialize)]
struct Label {
    label: usize,
}

/// A network of fully connected layers with ReLU between them.
#[derive(Deserialize)]
struct Network {
    w: Vec<Vec<Vec<f32>>>,
    b: Vec<Vec<f32>>,
}

impl Network {
    fn load(path: &PathBuf) -> Result<Self, BoxError> {
        let text = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let network: Self = serde_json::from_slice(&text)?;
        let fits = |(w, b): (&Vec<Vec<f32>>, &Vec<f32>)| w.iter().all(|row| row.len() == b.len());
        let layers = network.w.len() == network.b.len() && network.w.iter().zip(&network.b).all(fits);
        if layers { Ok(network) } else { Err("the layers of the model do not fit together".into()) }
    }

    fn label(&self, pixels: &[f32]) -> usize {
        let mut signal: Vec<f32> = pixels.iter().map(|pixel| pixel / 16.0).collect();
        for (layer, (weights, bias)) in self.w.iter().zip(&self.b).enumerate() {
            let mut out = bias.clone();
            for (s, row) in signal.iter().zip(weights) {
                out.iter_mut().zip(row).for_each(|(o, w)| *o += s * w);
            }
            if layer + 1 < self.w.len() {
                out.iter_mut().for_each(|o| *o = o.max(0.0));
            }
            signal = out;
        }
        (0..signal.len()).max_by(|&a, &b| signal[a].total_cmp(&signal[b])).unwrap_or(0)
    }
}

/// One for each replica: the weights stay in the cache of its thread.
struct Digits(Network);

impl Handler<Image> for Digits {
    type Result = Result<Label, ServeError>;
    fn handle(&mut self, Image { x }: Image, _: &mut Self::Context) -> Self::Result {
        let expected = self.0.w.first().map_or(0, Vec::len);
        if x.len() != expected {
            let detail = format!("{expected} pixels are needed, {} were given", x.len());
            return Err(ServeError::backend(422, "not_an_image", detail));
        }
        Ok(Label { label: self.0.label(&x) })
    }
}

struct Sleeper;

impl Handler<X> for Sleeper {
    type Result = Result<Y, ServeError>;
    fn handle(&mut self, X { x }: X, _: &mut Self::Context) -> Self::Result {
        busy(Duration::from_millis(5));
        Ok(Y { y: x })
    }
}

/// What the environment asks for.
pub struct Options {
    pub port: u16,
    pub workload: Option<String>,
    pub replicas: u32,
    pub http_workers: NonZeroUsize,
    pub model_file: Option<PathBuf>,
}

impl Options {
    fn from_env() -> Result<Self, BoxError> {
        fn read<T: std::str::FromStr>(name: &str, default: T) -> Result<T, BoxError> {
            match std::env::var(name) {
                Err(_) => Ok(default),
                Ok(text) => text.parse().map_err(|_| format!("{name}={text} cannot be read").into()),
            }
        }
        Ok(Self {
            port: read("PORT", 8000)?,
            workload: std::env::var("WORKLOAD").ok().filter(|name| !name.is_empty()),
            replicas: read("REPLICAS", 1)?,
            http_workers: read("HTTP_WORKERS", NonZeroUsize::MIN.saturating_add(1))?,
            model_file: std::env::var_os("MODEL_FILE").map(PathBuf::from),
        })
    }
}

/// Starts the server and makes the backends that `options` asks for.
pub async fn start(options: &Options) -> Result<(Serve, SocketAddr), ServeError> {
    // Small as they are, its replicas need no core each.
    let serve = Serve::start(ServeOptions::default().capacity(Capacity::unlimited()).lent_threads()).await?;
    let listen = Listen::on("127.0.0.1", options.port).threads(options.http_workers);
    let address = serve.listen(listen).await?;
    let wanted = |name: &str| options.workload.as_deref().is_none_or(|only| only == name);
    let replicas = || BackendConfig::default().num_replicas(options.replicas);
    if wanted("echo") {
        create(&serve, "echo", Backend::new(|_| Ok(Echo)).json::<Any>(), replicas()).await?;
    }
    if wanted("batch") {
        let batches =
            BackendConfig::default().max_batch_size(32).batch_wait_timeout(Duration::from_millis(2));
        let model = Backend::new(|_| Ok(Model)).json_batched::<X>().compute();
        create(&serve, "batch", model, batches).await?;
    }
    if wanted("compose") {
        compose(&serve).await?;
    }
    if let Some(path) = options.model_file.clone().filter(|_| wanted("digits")) {
        let digits = Backend::new(move |_| Ok(Digits(Network::load(&path)?))).json::<Image>();
        create(&serve, "digits", digits, replicas()).await?;
    }
    if wanted("sleep") {
        create(&serve, "sleep", Backend::new(|_| Ok(Sleeper)).json::<X>().compute(), replicas()).await?;
    }
    Ok((serve, address))
}

async fn compose(serve: &Serve) -> Result<(), ServeError> {
    let add = Backend::new(|_| Ok(Add)).handles::<Number>();
    serve.create_backend("add", add, BackendConfig::default()).await?;
    serve.create_endpoint("add", Endpoint::new("add")).await?;
    let multiply = Backend::new(|_| Ok(Multiply)).handles::<Number>();
    serve.create_backend("multiply", multiply, BackendConfig::default()).await?;
    serve.create_endpoint("multiply", Endpoint::new("multiply")).await?;
    let gateway =
        Backend::new(|ctx| Ok(Gateway { add: ctx.handle("add")?, multiply: ctx.handle("multiply")? }));
    create(serve, "compose", gateway.json::<X>(), BackendConfig::default()).await
}

async fn create<A: Actor<Context = ReplicaContext<A>>>(
    serve: &Serve,
    name: &str,
    backend: Backend<A>,
    config: BackendConfig,
) -> Result<(), ServeError> {
    serve.create_backend(name, backend, config).await?;
    serve.create_endpoint(name, Endpoint::new(name).route(format!("/{name}")).methods(["POST"])).await
}

#[actix_web::main]
async fn main() -> Result<(), BoxError> {
    let (serve, address) = start(&Options::from_env()?).await?;
    println!("http://{address}");
    Ok(serve.run_until_signal().await?)
}
