//! Takeover: a new process of the same service goes on with the sockets of the running one, which then ends.
//!
//! Both hold the same listening socket, handed over a Unix socket, so that there is one queue of connections
//! that have not been accepted yet. With a socket each (`SO_REUSEPORT`) there would be two, and the system
//! resets what waits in the queue of the one that closes.

#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "no process comes"))]
mod changes;
#[cfg(target_os = "linux")]
mod claim;
#[cfg_attr(not(target_os = "linux"), path = "takeover/absent.rs")]
mod handover;
#[cfg(target_os = "linux")]
mod offer;
#[cfg(target_os = "linux")]
mod wire;

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, Weak},
    time::Duration,
};

use actix_web::dev::ServerHandle;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    actors::controller::Office,
    error::ServeError,
    serve::{Serve, all_running},
};
use changes::Changes;
pub(crate) use handover::{Handover, Kept};

/// How long a server of ours keeps a connection without a request open.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// How long the running process waits for a new one to get ready, unless the options say otherwise.
pub(crate) const CLAIM_MAX: Duration = Duration::from_mins(10);

/// How often it is looked whether every endpoint can be served.
const LOOK: Duration = Duration::from_millis(5);
/// After how long it is told that some cannot.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Requests.
    Http,
    /// The service's own routes.
    Admin,
    /// The lock of a state directory.
    Lock,
}

/// Where a server accepts, and from when on.
pub(crate) struct Sockets {
    pub(crate) listeners: Vec<TcpListener>,
    /// The same for the next process, from when somebody accepts from them.
    pub(crate) kept: Kept,
    pub(crate) gate: Gate,
}

/// What a server waits for before it accepts its first connection.
#[derive(Clone, Debug)]
pub(crate) struct Gate(watch::Receiver<bool>);

/// The gate is open.
#[derive(Debug)]
pub(crate) struct Opened;

/// The gate will never open.
#[derive(Debug)]
pub(crate) struct Abandoned;

impl Gate {
    /// Returns when the server may accept.
    pub(crate) async fn opened(mut self) -> Result<Opened, Abandoned> {
        self.0.wait_for(|open| *open).await.map(|_| Opened).map_err(|_| Abandoned)
    }

    pub(crate) fn is_open(&self) -> bool {
        *self.0.borrow()
    }
}

/// An HTTP server of ours.
pub(crate) struct Served {
    pub(crate) role: Role,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    pub(crate) handle: ServerHandle,
    /// What it waits for before it accepts, if anything.
    pub(crate) gate: Option<Gate>,
}

/// Whether what is wanted is this process's to change and to keep, and no other's that goes on with it.
pub(super) fn is_ours(handover: &Handover) -> Result<(), ServeError> {
    if handover.is_given() {
        return Err(ServeError::BeingReplaced);
    }
    if handover.is_over() {
        let why = "the process before this one has waited for it for as long as it may, and goes on";
        return Err(ServeError::StateNotSaved { why: why.into() });
    }
    Ok(())
}

impl Serve {
    /// Refuses what another process, which is taking over, would not know of.
    pub(super) fn not_replaced(&self) -> Result<(), ServeError> {
        match &self.0.handover {
            Some(handover) if handover.is_claimed() => Err(ServeError::BeingReplaced),
            _ => Ok(()),
        }
    }

    /// Returns when another process has taken over from this one, which then has to
    /// [shut down](Self::shutdown), as [`run_until_signal`](Self::run_until_signal) does. Without
    /// [`ServeOptions::takeover`](crate::ServeOptions::takeover) it never returns.
    pub async fn replaced(&self) {
        match &self.0.handover {
            Some(handover) => handover.replaced().await,
            None => std::future::pending().await,
        }
    }

    /// Goes on for the process that ran until now, and offers the same to the next one.
    pub(super) fn take_over(&self) {
        if let (Some(handover), Some(arbiter)) = (&self.0.handover, self.arbiter())
            && !self.0.office.directory.closing()
        {
            let (handover, office) = (Arc::clone(handover), Arc::clone(&self.0.office));
            let (changes, limit) = (Changes::of(self), self.0.options.takeover_timeout);
            let serve = Arc::downgrade(&self.0);
            let take_over = async move {
                if prepared(&office, &handover).await && handover.succeed(changes, limit).await.is_err() {
                    // What it waited for never comes; the shutdown tells why.
                    if let Some(serve) = Weak::upgrade(&serve) {
                        let _ = Self(serve).begin_shutdown();
                    }
                }
            };
            arbiter.spawn_fn(move || drop(tokio::task::spawn_local(take_over)));
        }
    }
}

/// Waits until every endpoint can be served, or nobody waits for that any more; false when the service ends before.
async fn prepared(office: &Office, handover: &Handover) -> bool {
    let begun = tokio::time::Instant::now();
    let mut told = false;
    while !office.directory.closing() {
        let Err(waiting) = all_running(office) else { return true };
        if handover.is_over() {
            return true;
        }
        if !told && begun.elapsed() > PATIENCE {
            let names: Vec<_> = waiting.iter().map(|name| name.as_str()).collect();
            eprintln!("greenroom: not taking over yet: no replica is ready behind: {}", names.join(", "));
            told = true;
        }
        tokio::time::sleep(LOOK).await;
    }
    false
}
