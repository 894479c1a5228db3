//! `Handover`: the sockets of this process, from the one before it and for the one after it.

use std::{
    fs::File,
    io,
    net::{TcpListener, ToSocketAddrs},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{oneshot, watch};

use super::{
    Gate, Role, Sockets,
    claim::Claim,
    offer::Offer,
    wire::{self, ITEMS_MAX},
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
    /// Whether another process has what this one holds, and is getting ready or has taken over.
    claimed: AtomicBool,
    /// Whether another process has taken over from this one.
    replaced: watch::Sender<bool>,
    /// Those that clients have open.
    pub(crate) connections: Arc<InFlight>,
}

struct State {
    /// On the sockets of the process that still runs, until this one is ready.
    claim: Option<Claim>,
    /// Whether any of its sockets was taken.
    taken: bool,
    /// What this process holds.
    own: Vec<Item>,
}

/// What is handed over: a listening socket with its declared address, whose port may be 0, or a lock with its path.
pub(super) struct Item {
    pub(super) role: Role,
    pub(super) name: String,
    pub(super) fd: OwnedFd,
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
            state: Mutex::new(State { claim, taken: false, own: Vec::new() }),
            gate: watch::Sender::new(false),
            claimed: AtomicBool::new(false),
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
        state.taken |= !inherited.is_empty();
        let inherited: Vec<_> = inherited.into_iter().map(TcpListener::from).collect();
        let (listeners, gate) = if inherited.is_empty() {
            (bind(host, port)?, Gate(watch::Sender::new(true).subscribe()))
        } else {
            (inherited, Gate(self.gate.subscribe()))
        };
        for listener in &listeners {
            state.keep(role, &address, listener.try_clone()?.into())?;
        }
        Ok(Sockets { listeners, gate })
    }

    /// The locked file of the process before, when it keeps the lock at `path`. Both hold the same lock from then on,
    /// and it is free when both have let go of it.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for the state directory, whose process before still runs")
    )]
    pub(crate) fn inherit_lock(&self, path: &Path) -> Option<File> {
        let mut state = self.state();
        state.claim.as_mut()?.take(Role::Lock, &path.to_string_lossy()).pop().map(File::from)
    }

    /// Hands the lock at `path` to the next process.
    ///
    /// # Errors
    /// The system's, or when there is too much to hand over.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for the state directory, whose process before still runs")
    )]
    pub(crate) fn keep_lock(&self, path: &Path, lock: &File) -> io::Result<()> {
        let fd = lock.try_clone()?.into();
        self.state().keep(Role::Lock, &path.to_string_lossy(), fd)
    }

    /// Whether another process has what this one holds: it would not hear of a change any more.
    pub(crate) fn is_claimed(&self) -> bool {
        self.claimed.load(Ordering::SeqCst)
    }

    /// Whether sockets of the process before wait for this one to be ready.
    pub(crate) fn is_waiting(&self) -> bool {
        !*self.gate.borrow() && self.state().taken
    }

    /// Accepts from now on, ends the process before, and offers the sockets to the next one until it has come.
    pub(super) async fn succeed(self: Arc<Self>) {
        if self.gate.send_replace(true) {
            return;
        }
        let (claim, taken) = {
            let mut state = self.state();
            (state.claim.take(), state.taken)
        };
        if let Some(claim) = claim {
            if !taken {
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
                loop {
                    let claimant = offer.next().await;
                    // Before it hears what there is, so that it misses no change.
                    self.claimed.store(true, Ordering::SeqCst);
                    let greeted = wire::greet(&claimant, Some(&self.state().own));
                    if greeted.is_ok() && offer.awaited(&claimant).await {
                        // First, so that the other process can make its own.
                        drop(offer);
                        let _ = claimant.try_write(wire::YOURS);
                        break;
                    }
                    self.claimed.store(false, Ordering::SeqCst);
                }
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

impl State {
    fn keep(&mut self, role: Role, name: &str, fd: OwnedFd) -> io::Result<()> {
        if self.own.len() == ITEMS_MAX {
            return Err(io::Error::other(format!(
                "at most {ITEMS_MAX} sockets and locks can be handed over"
            )));
        }
        self.own.push(Item { role, name: name.to_owned(), fd });
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_web::test]
    async fn a_lock_goes_with_the_handover_and_is_never_free_in_between() {
        let folder = std::env::temp_dir().join(format!("greenroom-{}-handover", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (path, at) = (folder.join("lock"), folder.join("takeover.sock"));
        let free = || File::open(&path).unwrap().try_lock().is_ok();
        let old = Arc::new(Handover::begin(at.clone()).await.unwrap());
        {
            let lock = File::create(&path).unwrap();
            lock.try_lock().unwrap();
            old.keep_lock(&path, &lock).unwrap();
        }
        drop(tokio::task::spawn_local(Arc::clone(&old).succeed()));
        while !at.exists() {
            tokio::task::yield_now().await;
        }
        let new = Handover::begin(at.clone()).await.unwrap();
        assert!(old.is_claimed() && !free());
        assert!(new.inherit_lock(&folder.join("other")).is_none());
        let lock = new.inherit_lock(&path).unwrap();
        assert!(new.inherit_lock(&path).is_none(), "there is one");
        old.close();
        assert!(!free(), "the new one holds it too");
        drop(lock);
        assert!(free());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
