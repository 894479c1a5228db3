//! Composition: backends that call other backends, typed, with nothing serialised in between.
//!
//! `cargo run --example composition` shows three: a gateway that calls A and then B, an ensemble that asks its
//! members in parallel and does without those that fail or are late, and a model used only if another one says so.

use std::time::Duration;

use actix::{Actor, Handler, Message, ResponseFuture};
use greenroom::{
    Backend, BackendConfig, Capacity, Endpoint, Handle, ReplicaContext, Serve, ServeError, ServeOptions,
};
use rand::RngExt;
use serde::{Deserialize, Serialize};

#[derive(Message, Clone, Deserialize)]
#[rtype(result = "Result<f64, ServeError>")]
pub struct Predict {
    pub x: f64,
}

async fn create<A>(serve: &Serve, name: &str, backend: Backend<A>) -> Result<(), ServeError>
where
    A: Actor<Context = ReplicaContext<A>>,
{
    serve.create_backend(name, backend, BackendConfig::default()).await?;
    serve.create_endpoint(name, Endpoint::new(name)).await
}

/// Sends its input through A, and what A says through B.
struct Gateway {
    a: Handle<Predict>,
    b: Handle<Predict>,
}

impl Actor for Gateway {
    type Context = ReplicaContext<Self>;
}

impl Handler<Predict> for Gateway {
    type Result = ResponseFuture<Result<f64, ServeError>>;

    fn handle(&mut self, input: Predict, _: &mut Self::Context) -> Self::Result {
        let (a, b) = (self.a.clone(), self.b.clone());
        Box::pin(async move {
            let x = a.call(input).await?;
            b.call(Predict { x }).await
        })
    }
}

/// Gateway -> A -> B. The gateway may come first: its handles resolve when A and B appear.
pub async fn pipeline(serve: &Serve) -> Result<Handle<Predict>, ServeError> {
    let gateway = Backend::new(|ctx| Ok(Gateway { a: ctx.handle("a")?, b: ctx.handle("b")? }));
    create(serve, "gateway", gateway.json::<Predict>()).await?;
    create(serve, "a", Backend::from_fn(|Predict { x }| async move { Ok(x + 1.0) })).await?;
    create(serve, "b", Backend::from_fn(|Predict { x }| async move { Ok(x * 2.0) })).await?;
    serve.handle("gateway")
}

/// Longest time that a member of the ensemble is waited for.
pub const PATIENCE: Duration = Duration::from_millis(50);

#[derive(Message)]
#[rtype(result = "Result<Verdict, ServeError>")]
pub struct Ask(pub Predict);

/// What the ensemble says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Mean of the members that answered.
    pub mean: f64,
    /// Members without an answer, each with the code of its error.
    pub missing: Vec<(String, String)>,
}

/// Asks all its members at once.
struct Ensemble {
    members: Vec<Handle<Predict>>,
}

impl Actor for Ensemble {
    type Context = ReplicaContext<Self>;
}

impl Handler<Ask> for Ensemble {
    type Result = ResponseFuture<Result<Verdict, ServeError>>;

    fn handle(&mut self, Ask(input): Ask, _: &mut Self::Context) -> Self::Result {
        // `call` sends at once: all members work while the first is waited for.
        let calls = self.members.iter().map(|m| (m.endpoint().to_string(), m.call(input.clone())));
        let calls: Vec<_> = calls.collect();
        Box::pin(async move {
            let (mut said, mut missing) = (Vec::new(), Vec::new());
            for (member, call) in calls {
                match call.await {
                    Ok(x) => said.push(x),
                    Err(error) => missing.push((member, error.code().to_owned())),
                }
            }
            if said.is_empty() {
                return Err(ServeError::backend(503, "no_member", "no member of the ensemble answered"));
            }
            Ok(Verdict { mean: said.iter().sum::<f64>() / said.len() as f64, missing })
        })
    }
}

/// Two members that answer, one that is always late, one that always fails.
pub async fn ensemble(serve: &Serve) -> Result<Handle<Ask>, ServeError> {
    create(serve, "low", Backend::from_fn(|Predict { x }| async move { Ok(x) })).await?;
    create(serve, "high", Backend::from_fn(|Predict { x }| async move { Ok(x + 2.0) })).await?;
    let late = |Predict { x }| async move {
        tokio::time::sleep(100 * PATIENCE).await;
        Ok(x)
    };
    create(serve, "late", Backend::from_fn(late)).await?;
    let failing = |_: Predict| async { Err(ServeError::backend(500, "out_of_ideas", "I do not know")) };
    create(serve, "failing", Backend::from_fn(failing)).await?;
    let ensemble = Backend::new(|ctx| {
        let members = ["low", "high", "late", "failing"];
        let members = members.map(|name| ctx.handle(name).map(|m: Handle<Predict>| m.timeout(PATIENCE)));
        Ok(Ensemble { members: members.into_iter().collect::<Result<_, _>>()? })
    });
    create(serve, "ensemble", ensemble.handles::<Ask>()).await?;
    serve.handle("ensemble")
}

/// Data on its way through the two models.
#[derive(Message, Clone, Deserialize)]
#[rtype(result = "Result<Used, ServeError>")]
pub struct Query {
    pub data: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Used {
    pub model_used: u8,
    pub score: f64,
}

/// Asks for a score between 0 and 1.
#[derive(Message, Clone)]
#[rtype(result = "Result<f64, ServeError>")]
pub struct Score(pub String);

/// Hands the data on.
#[derive(Message, Clone)]
#[rtype(result = "Result<String, ServeError>")]
pub struct Repeat(pub String);

/// Sends data to model two only when model one gives it a score above 0.5.
pub struct Composed {
    model_one: Handle<Score>,
    model_two: Handle<Repeat>,
}

impl Actor for Composed {
    type Context = ReplicaContext<Self>;
}

impl Handler<Query> for Composed {
    type Result = ResponseFuture<Result<Used, ServeError>>;

    fn handle(&mut self, Query { data }: Query, _: &mut Self::Context) -> Self::Result {
        let (one, two) = (self.model_one.clone(), self.model_two.clone());
        Box::pin(async move {
            let score = one.call(Score(data.clone())).await?;
            if score > 0.5 {
                two.call(Repeat(data)).await?;
                return Ok(Used { model_used: 2, score });
            }
            Ok(Used { model_used: 1, score })
        })
    }
}

/// The composed model; `model_one` and `model_two` are endpoints.
pub fn composed() -> Backend<Composed> {
    Backend::new(|ctx| {
        Ok(Composed { model_one: ctx.handle("model_one")?, model_two: ctx.handle("model_two")? })
    })
    .json::<Query>()
}

/// The composed model over a model that scores at random and one that repeats what it gets.
pub async fn random_models(serve: &Serve) -> Result<Handle<Query>, ServeError> {
    let one = |Score(_)| async { Ok(rand::rng().random::<f64>()) };
    create(serve, "model_one", Backend::from_fn(one)).await?;
    create(serve, "model_two", Backend::from_fn(|Repeat(data)| async move { Ok(data) })).await?;
    let config = BackendConfig::default().max_concurrent_queries(10);
    serve.create_backend("composed", composed(), config).await?;
    serve.create_endpoint("composed", Endpoint::new("composed").route("/composed")).await?;
    serve.handle("composed")
}

#[actix_web::main]
async fn main() -> Result<(), ServeError> {
    // Small as they are, its replicas need no core each.
    let serve = Serve::start(ServeOptions::default().capacity(Capacity::unlimited())).await?;
    println!("gateway(3) = {}", pipeline(&serve).await?.call(Predict { x: 3.0 }).await?);
    println!("ensemble(3) = {:?}", ensemble(&serve).await?.call(Ask(Predict { x: 3.0 })).await?);
    let composed = random_models(&serve).await?;
    for _ in 0..5 {
        println!("{:?}", composed.call(Query { data: "hey!".into() }).await?);
    }
    serve.shutdown().await
}
