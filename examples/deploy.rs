//! Deploying a configuration as a whole: planned first, then applied together, and taken back.
//!
//! `cargo run --example deploy`

use std::path::Path;

use actix::{Actor, Handler, Message};
use greenroom::{
    Backend, Capacity, DeployOptions, Deployed, Reconfigure, ReplicaContext, Serve, ServeConfig, ServeError,
    ServeOptions,
};
use serde::Deserialize;

/// Asks for a greeting.
#[derive(Message, Deserialize)]
#[rtype(result = "Result<String, ServeError>")]
pub struct Greet {
    pub name: String,
}

/// Imagine a model; what it says is its `user_config`.
struct Greeter {
    word: String,
}

impl Actor for Greeter {
    type Context = ReplicaContext<Self>;
}

impl Handler<Greet> for Greeter {
    type Result = Result<String, ServeError>;

    fn handle(&mut self, Greet { name }: Greet, _: &mut Self::Context) -> Self::Result {
        Ok(format!("{}, {name}", self.word))
    }
}

impl Handler<Reconfigure<String>> for Greeter {
    type Result = Result<(), ServeError>;

    fn handle(&mut self, Reconfigure(word): Reconfigure<String>, _: &mut Self::Context) -> Self::Result {
        self.word = word;
        Ok(())
    }
}

/// What is declared: usually a file.
pub const FIRST: &str = "
backends:
  - { name: greeter, registered: greeter, version: v1, num_replicas: 2, user_config: Hello }
endpoints:
  - { name: greet, route: /greet, backend: greeter }
";

/// A new version beside the old one, which gets a tenth of the requests.
pub const SECOND: &str = "
backends:
  - { name: greeter, registered: greeter, version: v1, num_replicas: 3, user_config: Hello }
  - { name: greeter-next, registered: greeter, version: v2, user_config: Good day }
endpoints:
  - { name: greet, route: /greet, traffic: { greeter: 0.9, greeter-next: 0.1 } }
";

/// Gives the code that the configurations name.
pub fn register(serve: &Serve) -> Result<(), ServeError> {
    let greeter = Backend::new(|_| Ok(Greeter { word: "Hi".into() }));
    serve.register("greeter", greeter.json::<Greet>().reconfigure::<String>())
}

/// What deploying a configuration would do, as a table.
pub fn plan(serve: &Serve, text: &str) -> Result<String, ServeError> {
    let wanted = ServeConfig::from_yaml(text, Path::new("."))?;
    Ok(serve.plan(&wanted)?.to_string())
}

/// All of it, or nothing: a step that fails takes back those before it.
pub async fn deploy(serve: &Serve, text: &str) -> Result<Deployed, ServeError> {
    let wanted = ServeConfig::from_yaml(text, Path::new("."))?;
    serve.deploy(wanted, DeployOptions::default()).await
}

/// Back to what was deployed before the present configuration.
pub async fn roll_back(serve: &Serve) -> Result<Deployed, ServeError> {
    serve.rollback(None, DeployOptions::default()).await
}

#[actix_web::main]
async fn main() -> Result<(), ServeError> {
    let serve = Serve::start(ServeOptions::default().capacity(Capacity::default().num_cpus(4.0))).await?;
    register(&serve)?;
    deploy(&serve, FIRST).await?;
    println!("{}", plan(&serve, SECOND)?);
    deploy(&serve, SECOND).await?;
    let greet = serve.handle::<Greet>("greet")?;
    for name in ["Ada", "Grace", "Alan"] {
        println!("{}", greet.call(Greet { name: name.into() }).await?);
    }
    let back = roll_back(&serve).await?;
    println!("back, as entry {} of the history:\n{}", back.id, back.plan);
    serve.shutdown().await
}
