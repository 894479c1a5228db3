//! `Handover`: the sockets of this process, from the one before it and for the one after it.

use std::{
    fs::File,
    io,
    net::{TcpListener, ToSocketAddrs},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::UnixStream,
    sync::{oneshot, watch},
    time::timeout,
};

use super::{
    Changes, Gate, Role, Sockets,
    claim::{Claim, Ending},
    offer::Offer,
    wire::{self, ITEMS_MAX},
};
use crate::{error::ServeError, metrics::in_flight::InFlight};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// How long a new process waits while a change is under way: shorter than it waits for an answer.
const REST_MAX: Duration = Duration::from_secs(4);

/// The sockets of this process, from the one before it and for the one after it.
pub(crate) struct Handover {
    path: PathBuf,
    state: Mutex<State>,
    /// Opens for the sockets of the process before when this one is ready.
    gate: watch::Sender<bool>,
    /// Whether this process has begun to go on for the one before.
    begun: AtomicBool,
    /// Whether another process has asked for what this one holds, and is getting ready or has taken over.
    claimed: AtomicBool,
    /// Whether it has that. Set while nothing is being saved.
    given: AtomicBool,
    /// Why this process cannot go on for the one before.
    lost: OnceLock<ServeError>,
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
    /// Whether its lock was.
    locked: bool,
    /// What this process holds.
    own: Vec<Item>,
}

/// What is handed over: a listening socket with its declared address, whose port may be 0, or a lock with its path.
pub(super) struct Item {
    pub(super) role: Role,
    pub(super) name: String,
    pub(super) fd: OwnedFd,
}

/// Listening sockets that the next process is handed once they are [kept](Handover::keep); dropped before, nobody
/// listens on them.
pub(crate) struct Kept(Vec<Item>);

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
            state: Mutex::new(State { claim, taken: false, locked: false, own: Vec::new() }),
            gate: watch::Sender::new(false),
            begun: AtomicBool::new(false),
            claimed: AtomicBool::new(false),
            given: AtomicBool::new(false),
            lost: OnceLock::new(),
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
        state.room(listeners.len())?;
        let kept = listeners.iter().map(|listener| {
            let fd = listener.try_clone()?.into();
            Ok(Item { role, name: address.clone(), fd })
        });
        let kept = Kept(kept.collect::<io::Result<_>>()?);
        Ok(Sockets { listeners, kept, gate })
    }

    /// Hands these to the next process: somebody accepts from them now.
    pub(crate) fn keep(&self, Kept(items): Kept) {
        self.state().own.extend(items);
    }

    /// The locked file of the process before, when it keeps the lock at `path`. Both hold the same lock from then on,
    /// and it is free when both have let go of it.
    pub(crate) fn inherit_lock(&self, path: &Path) -> Option<File> {
        let mut state = self.state();
        let lock = state.claim.as_mut()?.take(Role::Lock, &path.to_string_lossy()).pop();
        state.locked |= lock.is_some();
        lock.map(File::from)
    }

    /// Hands the lock at `path` to the next process.
    ///
    /// # Errors
    /// The system's, or when there is too much to hand over.
    pub(crate) fn keep_lock(&self, path: &Path, lock: &File) -> io::Result<()> {
        let fd = lock.try_clone()?.into();
        let mut state = self.state();
        state.room(1)?;
        state.own.push(Item { role: Role::Lock, name: path.to_string_lossy().into(), fd });
        Ok(())
    }

    /// Whether another process is taking over: no change begins.
    pub(crate) fn is_claimed(&self) -> bool {
        self.claimed.load(Ordering::SeqCst)
    }

    /// Whether another process has what this one holds: it would not hear of a change any more.
    pub(crate) fn is_given(&self) -> bool {
        self.given.load(Ordering::SeqCst)
    }

    /// Whether the process before waits for this one no longer.
    pub(crate) fn is_over(&self) -> bool {
        self.lost.get().is_some() || self.state().claim.as_ref().is_some_and(Claim::is_over)
    }

    /// Why this process could not go on for the one before.
    pub(crate) fn lost(&self) -> Option<ServeError> {
        self.lost.get().cloned()
    }

    /// Ends the process before, accepts from now on, and offers the sockets to the next one until it has come, which
    /// has to be ready within `limit`.
    ///
    /// # Errors
    /// The process before goes on by itself: this one must not serve beside it.
    pub(super) async fn succeed(
        self: Arc<Self>,
        changes: Changes,
        limit: Duration,
    ) -> Result<(), ServeError> {
        if self.begun.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let (claim, taken, locked) = {
            let mut state = self.state();
            (state.claim.take(), state.taken, state.locked)
        };
        let mut abandoned = false;
        if let Some(claim) = claim {
            let pid = claim.pid;
            if !taken && locked {
                return Err(self.lose(format!(
                    "process {pid} has the same state directory, but none of the addresses of this one"
                )));
            }
            if !taken {
                self.gate.send_replace(true);
                eprintln!(
                    "greenroom: the process {pid} behind {} serves none of the addresses of this one; it is left alone",
                    self.path.display()
                );
                return Ok(());
            }
            match tokio::task::spawn_blocking(move || claim.complete()).await {
                Ok(Ending::Over) => {
                    return Err(self.lose(format!(
                        "process {pid} has waited for this one for as long as it may, and serves on"
                    )));
                }
                Ok(Ending::Hangs) => abandoned = true,
                // The sockets are ours: they go on when it has gone.
                Ok(Ending::Yours | Ending::Gone) | Err(_) => {}
            }
        }
        self.gate.send_replace(true);
        match Offer::bind(&self.path, abandoned).await {
            Ok(offer) => {
                let claimant = loop {
                    let claimant = offer.next().await;
                    if self.given_to(&claimant, &offer, &changes, limit).await {
                        break claimant;
                    }
                    if self.is_given() {
                        changes.resume(|| self.given.store(false, Ordering::SeqCst));
                    }
                    self.claimed.store(false, Ordering::SeqCst);
                };
                // First, so that the other process can make its own.
                drop(offer);
                let _ = claimant.try_write(&wire::YOURS);
                self.replaced.send_replace(true);
            }
            Err(error) => {
                eprintln!("greenroom: no process can take over through {}: {error}", self.path.display());
            }
        }
        Ok(())
    }

    /// Hands over what there is once no change is under way; whether the new process becomes ready in time.
    async fn given_to(
        &self,
        claimant: &UnixStream,
        offer: &Offer,
        changes: &Changes,
        limit: Duration,
    ) -> bool {
        self.claimed.store(true, Ordering::SeqCst);
        let Ok(at_rest) = timeout(REST_MAX.min(limit), changes.at_rest()).await else {
            let _ = wire::greet(claimant, Err(wire::Refusal::Changing));
            return false;
        };
        // Before it hears what there is, so that it misses no change.
        changes.between_saves(|| self.given.store(true, Ordering::SeqCst));
        drop(at_rest);
        if wire::greet(claimant, Ok(&self.state().own)).is_err() {
            return false;
        }
        let ready = timeout(limit, offer.awaited(claimant)).await;
        if ready.is_err() {
            let _ = claimant.try_write(&wire::OVER);
            eprintln!(
                "greenroom: a new process was not ready within {} s; this one goes on and takes changes again",
                limit.as_secs_f64()
            );
        }
        ready.unwrap_or(false)
    }

    fn lose(&self, why: String) -> ServeError {
        let why = format!("cannot take over through {}: {why}", self.path.display());
        self.lost.get_or_init(|| ServeError::Internal(why.into())).clone()
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
    /// Whether so many more can be handed over.
    fn room(&self, items: usize) -> io::Result<()> {
        if self.own.len() + items > ITEMS_MAX {
            return Err(io::Error::other(format!(
                "at most {ITEMS_MAX} sockets and locks can be handed over"
            )));
        }
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
    use crate::{
        ServeOptions,
        serve::{Serve, takeover::CLAIM_MAX},
    };

    #[actix_web::test]
    async fn a_lock_goes_with_the_handover_and_is_never_free_in_between() {
        let folder = std::env::temp_dir().join(format!("greenroom-{}-handover", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (path, at) = (folder.join("lock"), folder.join("takeover.sock"));
        let free = || File::open(&path).unwrap().try_lock().is_ok();
        let serve = Serve::start(ServeOptions::default().current_thread()).await.unwrap();
        let old = Arc::new(Handover::begin(at.clone()).await.unwrap());
        {
            let lock = File::create(&path).unwrap();
            lock.try_lock().unwrap();
            old.keep_lock(&path, &lock).unwrap();
        }
        drop(tokio::task::spawn_local(Arc::clone(&old).succeed(Changes::of(&serve), CLAIM_MAX)));
        while !at.exists() {
            tokio::task::yield_now().await;
        }
        let new = Handover::begin(at.clone()).await.unwrap();
        assert!(old.is_given() && !free());
        assert!(new.inherit_lock(&folder.join("other")).is_none());
        let lock = new.inherit_lock(&path).unwrap();
        assert!(new.inherit_lock(&path).is_none(), "there is one");
        old.close();
        assert!(!free(), "the new one holds it too");
        drop(lock);
        assert!(free());
        serve.shutdown().await.unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
    }

    fn path(test: &str) -> PathBuf {
        std::env::temp_dir().join(format!("greenroom-{}-{test}.sock", std::process::id()))
    }

    #[actix_web::test]
    async fn nobody_listens_any_more_where_a_server_did_not_come_to_be() {
        let handover = Handover::begin(path("unkept")).await.unwrap();
        let sockets = handover.listen(Role::Http, "127.0.0.1", 0).unwrap();
        let address = sockets.listeners[0].local_addr().unwrap();
        drop(sockets);
        let refused = std::net::TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(handover.state().own.is_empty(), "the next process would be handed it");
    }

    #[actix_web::test]
    async fn the_offer_of_a_process_that_lives_is_not_taken_from_it() {
        let at = path("lives");
        let first = Offer::bind(&at, false).await.unwrap();
        let second = Offer::bind(&at, false).await.err().unwrap();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        let (_, reached) = tokio::join!(UnixStream::connect(&at), first.next());
        drop((reached, first));
        assert!(!at.exists());
        drop(std::os::unix::net::UnixListener::bind(&at).unwrap());
        let left_behind = Offer::bind(&at, false).await.unwrap();
        // That of a process that was taken over from, and hangs.
        let third = Offer::bind(&at, true).await.unwrap();
        drop(left_behind);
        assert!(at.exists(), "it is the third one's");
        drop(third);
    }

    #[actix_web::test]
    async fn one_that_has_hung_hears_that_it_was_taken_over_from_when_it_goes_on() {
        let at = path("hangs");
        let offer = Offer::bind(&at, false).await.unwrap();
        let greet = async {
            let hung = offer.next().await;
            wire::greet(&hung, Ok(&[])).unwrap();
            hung
        };
        let (new, hung) = tokio::join!(Handover::begin(at.clone()), greet);
        let claim = new.unwrap().state().claim.take().unwrap();
        let ending = tokio::task::spawn_blocking(move || claim.complete()).await.unwrap();
        assert!(matches!(ending, Ending::Hangs));
        let late = timeout(Duration::ZERO, offer.awaited(&hung)).await;
        assert_eq!(late, Ok(true), "its limit is over as well");
    }
}
