//! `Server`: the process that answers: its version, how long it is up, where it listens, whether all can be served.

use std::{net::SocketAddr, sync::PoisonError};

use serde::Serialize;

use crate::{
    http::service,
    serve::{
        Serve,
        takeover::{Role, Served},
    },
};

#[derive(Serialize)]
pub(super) struct Server {
    version: &'static str,
    /// Its number among the processes of the machine: another one has taken over when it changes.
    pid: u32,
    uptime_s: f64,
    /// Whether every endpoint can be served, as `/-/readyz` says.
    ready: bool,
    /// Why not.
    not_ready: Option<String>,
    /// Where requests come in; none in a program whose own servers take them.
    http: Vec<SocketAddr>,
    admin: Vec<SocketAddr>,
}

impl Server {
    pub(super) fn read(serve: &Serve) -> Self {
        let not_ready = service::ready(&serve.0.office).err();
        let servers = serve.0.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |role| {
            let listen = servers.iter().filter(|served: &&Served| served.role == role);
            listen.map(|served| served.address).collect()
        };
        Self {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            uptime_s: serve.0.began.elapsed().as_secs_f64(),
            ready: not_ready.is_none(),
            not_ready,
            http: of(Role::Http),
            admin: of(Role::Admin),
        }
    }
}
