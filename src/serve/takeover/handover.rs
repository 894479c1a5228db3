//! `Handover`: the sockets of this process, from the one before it and for the one after it.

use std::{
    io,
    net::{TcpListener, ToSocketAddrs},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{oneshot, watch};

use super::{
    Gate, Role, Sockets,
    claim::Claim,
    offer::Offer,
    wire::{self, SOCKETS_MAX},
};
use crate::{error::ServeError, metrics::in_flight::InFlight};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// The sockets of this process, from the one before it and for the one after it.
pub(crate) struct Handover {
    path: PathBuf,
    state: Mutex<State>,
    /// Opens for the sockets of the process before when this one is ready.
    gate: watch::Sender<bool>,
    /// Whether another process has taken over from this one.
    replaced: watch::Sender<bool>,
    /// Those that clients have open.
    pub(crate) connections: Arc<InFlight>,
}

struct State {
    /// On the sockets of the process that still runs, until this one is ready.
    claim: Option<Claim>,
    /// What this process listens on.
    own: Vec<Socket>,
}

/// A listening socket and what it is for; `address` is the declared one, whose port may be 0.
pub(super) struct Socket {
    pub(super) role: Role,
    pub(super) address: String,
    pub(super) listener: TcpListener,
}

impl Handover {
    /// Asks the process that runs, if there is one, for its sockets.
    pub(crate) async fn begin(path: PathBuf) -> Result<Self, ServeError> {
        let failed = |why: String| {
            ServeError::Internal(format!("cannot take over through {}: {why}", path.display()).into())
        };
        let (tx, rx) = oneshot::channel();
        let at = path.clone();
        // It blocks, and whoever starts a Serve need not have a runtime that drives sockets.
        let asking = std::thread::Builder::new().name("greenroom-takeover".into());
        asking.spawn(move || tx.send(Claim::stake(&at))).map_err(|error| failed(error.to_string()))?;
        let claim = rx.await.map_err(|_| failed("its thread has ended".into()))?;
        let claim = claim.map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            path,
            state: Mutex::new(State { claim, own: Vec::new() }),
            gate: watch::Sender::new(false),
            replaced: watch::Sender::new(false),
            connections: Arc::default(),
        })
    }

    /// The sockets for an address: those of the process before where it had the same one for the same role, which
    /// are accepted from when this process is ready; otherwise new ones.
    pub(crate) fn listen(&self, role: Role, host: &str, port: u16) -> io::Result<Sockets> {
        let address = format!("{host}:{port}");
        let mut state = self.state();
        let inherited = state.claim.as_mut().map_or_else(Vec::new, |claim| claim.take(role, &address));
        let (listeners, gate) = if inherited.is_empty() {
            (bind(host, port)?, Gate(watch::Sender::new(true).subscribe()))
        } else {
            (inherited, Gate(self.gate.subscribe()))
        };
        if state.own.len() + listeners.len() > SOCKETS_MAX {
            return Err(io::Error::other(format!("at most {SOCKETS_MAX} sockets can be handed over")));
        }
        for listener in &listeners {
            state.own.push(Socket { role, address: address.clone(), listener: listener.try_clone()? });
        }
        Ok(Sockets { listeners, gate })
    }

    /// Whether sockets of the process before wait for this one to be ready.
    pub(crate) fn is_waiting(&self) -> bool {
        !*self.gate.borrow() && self.state().claim.as_ref().is_some_and(Claim::is_taken)
    }

    /// Accepts from now on, ends the process before, and offers the sockets to the next one until it has come.
    pub(super) async fn succeed(self: Arc<Self>) {
        if self.gate.send_replace(true) {
            return;
        }
        let claim = self.state().claim.take();
        if let Some(claim) = claim {
            if !claim.is_taken() {
                eprintln!(
                    "greenroom: the process {} behind {} serves none of the addresses of this one; it is left alone",
                    claim.pid,
                    self.path.display()
                );
                return;
            }
            // The sockets are ours whatever it answers: they go on when it has gone.
            let _ = tokio::task::spawn_blocking(move || claim.complete()).await;
        }
        match Offer::bind(&self.path) {
            Ok(offer) => {
                offer.taken(|stream| wire::greet(stream, Some(&self.state().own))).await;
                self.replaced.send_replace(true);
            }
            Err(error) => {
                eprintln!("greenroom: no process can take over through {}: {error}", self.path.display());
            }
        }
    }

    pub(crate) fn is_replaced(&self) -> bool {
        *self.replaced.borrow()
    }

    pub(super) async fn replaced(&self) {
        // The sender is here.
        let _ = self.replaced.subscribe().wait_for(|replaced| *replaced).await;
    }

    /// Lets go of the sockets.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        (state.claim, state.own) = (None, Vec::new());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One socket for each address that the host has.
fn bind(host: &str, port: u16) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    let mut failed = None;
    for address in (host, port).to_socket_addrs()? {
        match TcpListener::bind(address) {
            Ok(listener) => {
                rustix::net::listen(&listener, BACKLOG)?;
                listeners.push(listener);
            }
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if listeners.is_empty() => Err(error),
        _ if listeners.is_empty() => Err(io::Error::other("the host has no address")),
        _ => Ok(listeners),
    }
}
