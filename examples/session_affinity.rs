//! Session affinity: requests with the same shard key go to the same backend, or even to the same replica.
//!
//! `cargo run --example session_affinity`, then for some names
//! `curl -H 'x-serve-shard-key: ada' 'http://127.0.0.1:8000/api'`. `PORT` names another port.

use std::{collections::HashMap, sync::Arc};

use actix::{Actor, Handler, Message};
use greenroom::{
    Affinity, Backend, BackendConfig, Capacity, Endpoint, Listen, Meta, ReplicaContext, Serve, ServeError,
    ServeOptions, TrafficPolicy,
};
use serde::{Deserialize, Serialize};

/// One more request of a session.
#[derive(Message, Deserialize)]
#[rtype(result = "Result<Visit, ServeError>")]
pub struct Enter;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Visit {
    /// Who was asked.
    pub backend: String,
    /// Which of its replicas.
    pub replica: u32,
    /// How many requests of this session that replica has seen.
    pub visits: u32,
}

/// Keeps its sessions in memory; a real one would let go of old ones.
#[derive(Default)]
struct Sessions(HashMap<Arc<str>, u32>);

impl Actor for Sessions {
    type Context = ReplicaContext<Self>;
}

impl Handler<Enter> for Sessions {
    type Result = Result<Visit, ServeError>;

    fn handle(&mut self, _: Enter, ctx: &mut Self::Context) -> Self::Result {
        let key = ctx.request_meta().and_then(|meta: Meta| meta.shard_key);
        let key = key.ok_or_else(|| ServeError::bad_request("say which session: X-SERVE-SHARD-KEY"))?;
        let visits = self.0.entry(key.as_str().into()).or_insert(0);
        *visits += 1;
        Ok(Visit { backend: ctx.backend_name().to_string(), replica: ctx.replica_id().slot, visits: *visits })
    }
}

/// Two backends of four replicas each behind `/api`; `affinity` says what a session stays with.
pub async fn deploy(serve: &Serve, affinity: Affinity) -> Result<(), ServeError> {
    for name in ["a", "b"] {
        let sessions = Backend::new(|_| Ok(Sessions::default())).json::<Enter>();
        serve.create_backend(name, sessions, BackendConfig::default().num_replicas(4)).await?;
    }
    let policy = TrafficPolicy::new([("a", 0.5), ("b", 0.5)])?;
    let endpoint = Endpoint::split(policy).affinity(affinity).route("/api");
    serve.create_endpoint("api_endpoint", endpoint).await
}

/// One request of a session, by a handle. Over HTTP the header `X-SERVE-SHARD-KEY` says the same.
pub async fn enter(serve: &Serve, session: &str) -> Result<Visit, ServeError> {
    let handle = serve.handle::<Enter>("api_endpoint")?;
    handle.options().shard_key(session).call(Enter).await
}

/// The sessions among `sessions` that a change of weights moves to another backend.
pub async fn moved(
    serve: &Serve,
    sessions: &[String],
    weights: [(&str, f64); 2],
) -> Result<usize, ServeError> {
    let mut before = Vec::new();
    for session in sessions {
        before.push(enter(serve, session).await?.backend);
    }
    serve.set_traffic("api_endpoint", weights).await?;
    let mut moved = 0;
    for (session, before) in sessions.iter().zip(before) {
        moved += usize::from(enter(serve, session).await?.backend != before);
    }
    Ok(moved)
}

#[actix_web::main]
async fn main() -> Result<(), ServeError> {
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8000);
    // Small as they are, its replicas need no core each.
    let serve = Serve::start(ServeOptions::default().capacity(Capacity::unlimited()).lent_threads()).await?;
    let address = serve.listen(Listen::on("127.0.0.1", port)).await?;
    deploy(&serve, Affinity::Replica).await?;
    for session in ["ada", "bob", "ada", "cy", "ada", "bob"] {
        println!("{session}: {:?}", enter(&serve, session).await?);
    }
    let sessions: Vec<_> = (0..1000).map(|n| format!("session-{n}")).collect();
    let moved = moved(&serve, &sessions, [("a", 0.6), ("b", 0.4)]).await?;
    println!("of 1000 sessions {moved} went from b to a as a's weight grew from 0.5 to 0.6");
    println!("http://{address}/api");
    serve.run_until_signal().await
}
