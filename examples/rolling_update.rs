//! A rolling update: a new version takes the place of the old one while requests keep coming, and one that does not start is taken back.
//!
//! `cargo run --example rolling_update`

use std::{cell::Cell, rc::Rc};

use actix::{Actor, Handler, Message};
use greenroom::{
    Backend, BackendConfig, Endpoint, ReplicaContext, Resources, Serve, ServeError, ServeOptions,
};
use serde::Deserialize;

/// Asks for a greeting.
#[derive(Message, Deserialize)]
#[rtype(result = "Result<String, ServeError>")]
pub struct Greet;

struct Greeter {
    word: &'static str,
}

impl Actor for Greeter {
    type Context = ReplicaContext<Self>;
}

impl Handler<Greet> for Greeter {
    type Result = Result<String, ServeError>;

    fn handle(&mut self, _: Greet, _: &mut Self::Context) -> Self::Result {
        Ok(format!("{}, world", self.word))
    }
}

/// Three replicas that greet with this word; one without a word cannot be made.
pub async fn deploy(serve: &Serve, version: &str, word: &'static str) -> Result<(), ServeError> {
    let greeter = Backend::new(move |_| match word {
        "" => Err(ServeError::invalid("word", "a greeter needs one").into()),
        word => Ok(Greeter { word }),
    });
    let config = BackendConfig::default().version(version).num_replicas(3).resources(Resources::none());
    serve.deploy_backend("greeter", greeter.json::<Greet>(), config).await
}

/// The first version and its endpoint.
pub async fn open(serve: &Serve) -> Result<(), ServeError> {
    deploy(serve, "1", "hello").await?;
    serve.create_endpoint("greet", Endpoint::new("greeter").route("/greet")).await
}

/// Calls one after the other until told to end; how many were answered with each greeting.
pub async fn call_until(serve: Serve, ends: Rc<Cell<bool>>) -> Result<Vec<(String, usize)>, ServeError> {
    let handle = serve.handle::<Greet>("greet")?;
    let mut seen: Vec<(String, usize)> = Vec::new();
    while !ends.get() {
        let greeting = handle.call(Greet).await?;
        match seen.iter_mut().find(|(known, _)| *known == greeting) {
            Some((_, calls)) => *calls += 1,
            None => seen.push((greeting, 1)),
        }
        tokio::task::yield_now().await;
    }
    Ok(seen)
}

#[actix_web::main]
async fn main() -> Result<(), ServeError> {
    let serve = Serve::start(ServeOptions::default()).await?;
    open(&serve).await?;
    let ends = Rc::new(Cell::new(false));
    let calls = actix_web::rt::spawn(call_until(serve.clone(), Rc::clone(&ends)));
    // Each new replica takes calls before an old one stops.
    deploy(&serve, "2", "good morning").await?;
    if let Err(refused) = deploy(&serve, "3", "").await {
        println!("{refused}");
    }
    // The version that is there: nothing is done.
    deploy(&serve, "2", "good morning").await?;
    ends.set(true);
    for (greeting, calls) in calls.await.map_err(ServeError::from_user)?? {
        println!("{calls} calls were answered with {greeting:?}");
    }
    serve.shutdown().await
}
