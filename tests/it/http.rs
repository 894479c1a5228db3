//! Requests over HTTP: routes, bodies, errors, headers, connections, the service's own routes, metrics.

mod bodies;
mod connections;
mod errors;
mod headers;
mod metrics;
mod prometheus;
mod raw;
mod routes;
mod service;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix::{Actor, Handler, Message, ResponseFuture};
use greenroom::{Backend, BackendConfig, Endpoint, Meta, ReplicaContext, Serve, ServeError};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::wire::listening;

/// Adds two numbers.
#[derive(Message, Serialize, Deserialize)]
#[rtype(result = "Result<i64, ServeError>")]
pub struct Add {
    pub a: i64,
    #[serde(default)]
    pub b: i64,
}

/// Answers with the same number.
#[derive(Message, Deserialize)]
#[rtype(result = "Result<f64, ServeError>")]
pub struct Same {
    pub x: f64,
}

/// Answers with the same text.
#[derive(Message, Deserialize)]
#[rtype(result = "Result<String, ServeError>")]
pub struct Echo {
    pub text: String,
}

/// Refuses everything.
#[derive(Message, Deserialize)]
#[rtype(result = "Result<(), ServeError>")]
pub struct Refuse;

/// Panics.
#[derive(Message, Deserialize)]
#[rtype(result = "Result<(), ServeError>")]
pub struct Panic;

/// Tells what travels with the call.
#[derive(Message, Deserialize)]
#[rtype(result = "Result<Seen, ServeError>")]
pub struct Look;

#[derive(Serialize)]
pub struct Seen {
    id: String,
    trace: Option<String>,
    key: Option<String>,
}

/// Takes them all.
pub struct Lab;

impl Actor for Lab {
    type Context = ReplicaContext<Self>;
}

impl Handler<Add> for Lab {
    type Result = Result<i64, ServeError>;
    fn handle(&mut self, Add { a, b }: Add, _: &mut Self::Context) -> Self::Result {
        Ok(a + b)
    }
}

impl Handler<Same> for Lab {
    type Result = Result<f64, ServeError>;
    fn handle(&mut self, Same { x }: Same, _: &mut Self::Context) -> Self::Result {
        Ok(x)
    }
}

impl Handler<Echo> for Lab {
    type Result = Result<String, ServeError>;
    fn handle(&mut self, Echo { text }: Echo, _: &mut Self::Context) -> Self::Result {
        Ok(text)
    }
}

impl Handler<Refuse> for Lab {
    type Result = Result<(), ServeError>;
    fn handle(&mut self, _: Refuse, _: &mut Self::Context) -> Self::Result {
        Err(ServeError::backend(422, "not_a_digit", "64 pixels are needed"))
    }
}

impl Handler<Panic> for Lab {
    type Result = Result<(), ServeError>;
    fn handle(&mut self, _: Panic, _: &mut Self::Context) -> Self::Result {
        panic!("a secret of the house");
    }
}

impl Handler<Look> for Lab {
    type Result = Result<Seen, ServeError>;
    fn handle(&mut self, _: Look, ctx: &mut Self::Context) -> Self::Result {
        let Meta { request_id, trace, shard_key, .. } = ctx.request_meta().unwrap();
        Ok(Seen {
            id: request_id.to_string(),
            trace: trace.map(|t| t.to_string()),
            key: shard_key.map(|k| k.as_str().to_owned()),
        })
    }
}

/// The lab behind `/lab`, GET and POST.
pub async fn lab() -> (Serve, SocketAddr) {
    let (serve, address) = listening(1).await;
    let lab = Backend::new(|_| Ok(Lab)).json::<Add>().json::<Same>().json::<Echo>();
    let lab = lab.json::<Refuse>().json::<Panic>().json::<Look>();
    serve.create_backend("lab", lab, BackendConfig::default()).await.unwrap();
    serve.create_endpoint("lab", Endpoint::new("lab").route("/lab").methods(["GET", "POST"])).await.unwrap();
    (serve, address)
}

/// Answers when it is let.
#[derive(Message, Deserialize)]
#[rtype(result = "Result<&'static str, ServeError>")]
pub struct Wait {}

/// What the test shares with the backend that waits.
#[derive(Clone)]
pub struct Door {
    /// One permit lets one call through.
    pub open: Arc<Semaphore>,
    /// Handlers that have begun and not ended.
    pub inside: Arc<AtomicUsize>,
    /// Handlers that have begun.
    pub begun: Arc<AtomicUsize>,
}

impl Door {
    pub fn shut() -> Self {
        Self { open: Arc::new(Semaphore::new(0)), inside: Arc::default(), begun: Arc::default() }
    }

    pub fn inside(&self) -> usize {
        self.inside.load(Ordering::SeqCst)
    }
}

pub struct Porter(Door);

impl Actor for Porter {
    type Context = ReplicaContext<Self>;
}

struct Inside(Arc<AtomicUsize>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Handler<Wait> for Porter {
    type Result = ResponseFuture<Result<&'static str, ServeError>>;
    fn handle(&mut self, _: Wait, _: &mut Self::Context) -> Self::Result {
        let Door { open, inside, begun } = self.0.clone();
        inside.fetch_add(1, Ordering::SeqCst);
        begun.fetch_add(1, Ordering::SeqCst);
        let inside = Inside(inside);
        Box::pin(async move {
            open.acquire().await.unwrap().forget();
            drop(inside);
            Ok("through")
        })
    }
}

/// A backend that answers when the test lets it, behind `/wait`.
pub async fn waiting(serve: &Serve, config: BackendConfig) -> Door {
    let door = Door::shut();
    let (inner, config) = (door.clone(), config.graceful_shutdown_timeout(Duration::from_secs(5)));
    let backend = Backend::new(move |_| Ok(Porter(inner.clone()))).json::<Wait>();
    serve.create_backend("wait", backend, config).await.unwrap();
    serve.create_endpoint("wait", Endpoint::new("wait").route("/wait")).await.unwrap();
    door
}
