//! Health checks: a backend that says itself when it is not well, and replicas that are replaced then.
//!
//! `cargo run --example health_check`

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use actix::{Actor, Handler, Message};
use greenroom::{
    Backend, BackendConfig, CheckHealth, Endpoint, ReplicaContext, Serve, ServeError, ServeOptions,
};
use serde::Deserialize;

/// Asks what to offer.
#[derive(Message, Deserialize)]
#[rtype(result = "Result<String, ServeError>")]
pub struct Offer;

/// Stands for a database: those who are connected do not notice when it closes their connections.
#[derive(Clone, Default)]
pub struct Database(Arc<Mutex<Vec<Arc<()>>>>);

impl Database {
    fn connect(&self) -> Weak<()> {
        let connection = Arc::new(());
        let theirs = Arc::downgrade(&connection);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        theirs
    }

    /// Closes every connection there is now.
    pub fn restart(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

struct Shop {
    connection: Weak<()>,
}

impl Actor for Shop {
    type Context = ReplicaContext<Self>;
}

/// Once before a replica's first call, and then in every period.
impl Handler<CheckHealth> for Shop {
    type Result = Result<(), ServeError>;

    fn handle(&mut self, _: CheckHealth, _: &mut Self::Context) -> Self::Result {
        match self.connection.upgrade() {
            Some(_) => Ok(()),
            None => Err(ServeError::backend(503, "disconnected", "the connection to the database is closed")),
        }
    }
}

impl Handler<Offer> for Shop {
    type Result = Result<String, ServeError>;

    fn handle(&mut self, _: Offer, ctx: &mut Self::Context) -> Self::Result {
        let id = ctx.replica_id();
        Ok(format!("a book, says replica {} (number {} of its backend)", id.slot, id.generation))
    }
}

/// Two replicas, each with a connection of its own, asked ten times a second.
pub async fn deploy(serve: &Serve, database: &Database) -> Result<(), ServeError> {
    let database = database.clone();
    let shop = Backend::new(move |_| Ok(Shop { connection: database.connect() }));
    let config = BackendConfig::default().num_replicas(2).health_check_period(Duration::from_millis(100));
    serve.create_backend("shop", shop.json::<Offer>().health_check(), config).await?;
    serve.create_endpoint("shop", Endpoint::new("shop").route("/offer")).await
}

#[actix_web::main]
async fn main() -> Result<(), ServeError> {
    let serve = Serve::start(ServeOptions::default()).await?;
    let database = Database::default();
    deploy(&serve, &database).await?;
    let offer = serve.handle::<Offer>("shop")?;
    println!("{}", offer.call(Offer).await?);
    database.restart();
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!("{}", offer.call(Offer).await?);
    println!("{}", serve.status().backends[0].last_error.as_deref().unwrap_or("nothing failed"));
    serve.shutdown().await
}
