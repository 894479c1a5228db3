//! The end of a Serve: in order when it is shut down, at once when it is dropped.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use actix_web::dev::ServerHandle;
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use crate::{
    actors::controller::DrainAll,
    error::ServeError,
    serve::{
        Inner, Serve,
        system::SystemThread,
        takeover::{Gate, KEEP_ALIVE, Served},
    },
};

/// How often it is looked whether anything still runs.
const LOOK: Duration = Duration::from_millis(2);
/// How long callers with open connections may ask once more at least: each answer tells them to close, so that
/// none has its connection cut while its next request is on the way.
const LINGER: Duration = Duration::from_millis(100);
/// The same where another process goes on with the sockets: longer than a thread that has been told to accept no
/// more may take to hear of it.
const LINGER_REPLACED: Duration = Duration::from_millis(500);
/// How long connections without a request are left open then: no shorter than without a restart, so that it cuts off
/// nobody who begins a request on one of them.
const LINGER_REPLACED_MAX: Duration = KEEP_ALIVE.saturating_add(Duration::from_secs(2));
/// How long requests whose bodies are still coming are waited for, when nothing else is left to do.
const UPLOADS: Duration = Duration::from_secs(5);
/// What draining and the servers may take at least, however late it is.
const LEAST: Duration = Duration::from_secs(1);

impl Serve {
    /// Ends in order: no new work, what runs is finished, replicas drain, servers and threads end. Calls made
    /// afterwards are refused with [`ServeError::ShuttingDown`]. Called again, also meanwhile, it changes nothing
    /// and answers as the first does.
    ///
    /// # Errors
    /// [`ServeError::TimedOut`] when something still ran after the shutdown time-out; it was cut off.
    /// [`ServeError::Internal`] when it ended because it could not take over from the running process.
    pub async fn shutdown(&self) -> Result<(), ServeError> {
        // Whoever gives up waiting lets the next one take it up.
        self.0.ended.get_or_init(|| self.end()).await.clone()
    }

    /// Waits until somebody has begun to shut this Serve down: a [`shutdown`](Self::shutdown) elsewhere in the
    /// program, or `POST /api/serve/shutdown`. Whoever serves until then calls `shutdown` next, which waits for the end.
    pub async fn ending(&self) {
        // The sender is ours, so it is there.
        let _ = self.0.ending.subscribe().wait_for(|ending| *ending).await;
    }

    /// Shuts down on a thread of its own, for whoever may live on one that ends with the rest; false when somebody
    /// did before.
    pub(crate) fn begin_shutdown(&self) -> Result<bool, ServeError> {
        if self.0.ending.send_replace(true) {
            return Ok(false);
        }
        let serve = self.clone();
        let failed = |error: std::io::Error| {
            self.0.ending.send_replace(false);
            ServeError::Internal(format!("no thread for the shutdown: {error}").into())
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let run = move || {
            let ended = runtime.block_on(serve.shutdown());
            // A takeover that failed is told by whoever waits for the end.
            let lost = serve.0.handover.as_ref().and_then(|handover| handover.lost());
            if let (Err(error), None) = (ended, lost) {
                eprintln!("greenroom: {error}");
            }
        };
        std::thread::Builder::new().name("greenroom-end".into()).spawn(run).map_err(failed)?;
        Ok(true)
    }

    async fn end(&self) -> Result<(), ServeError> {
        self.0.ending.send_replace(true);
        let (office, allowed) = (&self.0.office, self.0.options.shutdown_timeout);
        // The clock of whoever waits, so that paused time is followed.
        let begun = tokio::time::Instant::now();
        let left = || allowed.saturating_sub(begun.elapsed());
        let servers = self.0.serving();
        // No new connections; those there are go on, and each answer tells its caller to close.
        join_all(servers.iter().map(|server| server.pause())).await;
        office.directory.close();
        if !servers.is_empty() {
            self.0.linger(allowed).await;
        }
        while self.0.busy() && !left().is_zero() {
            office.directory.timed(|| sleep(LOOK)).await;
        }
        let in_time = !self.0.busy();
        let uploads = tokio::time::Instant::now() + UPLOADS.min(left());
        while !office.exchanges.is_empty() && tokio::time::Instant::now() < uploads {
            office.directory.timed(|| sleep(LOOK)).await;
        }
        // Replicas first: the servers' workers are the threads that they live on.
        let drain = office.directory.timed(|| timeout(left().max(LEAST), self.0.controller.send(DrainAll)));
        let drained = drain.await.is_ok();
        let stop = join_all(servers.iter().map(|server| server.stop(in_time)));
        // A caller that sends its request byte by byte is not waited for any longer.
        let _ = office.directory.timed(|| timeout(left().max(LEAST), stop)).await;
        self.0.let_go();
        // Nobody is left who could use them. A driver that hangs is not waited for.
        let close = office.directory.timed(|| timeout(left().max(LEAST), office.gpus.close()));
        let _ = close.await;
        let system = self.0.system.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(SystemThread { system, thread }) = system {
            system.stop();
            if tokio::runtime::Handle::try_current().is_ok() {
                let _ = tokio::task::spawn_blocking(move || thread.join()).await;
            } else {
                let _ = thread.join();
            }
        }
        if let Some(handover) = &self.0.handover {
            handover.close();
        }
        if let Some(lost) = self.0.handover.as_ref().and_then(|handover| handover.lost()) {
            Err(lost)
        } else if in_time && drained {
            Ok(())
        } else {
            Err(ServeError::TimedOut { what: "shutdown".into(), after: allowed })
        }
    }
}

impl Inner {
    /// The servers that have begun to accept. Those that wait for their gate cannot be spoken to, and end with their
    /// threads.
    fn serving(&self) -> Vec<ServerHandle> {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let accepts = |server: &&Served| server.gate.as_ref().is_none_or(Gate::is_open);
        servers.iter().filter(accepts).map(|server| server.handle.clone()).collect()
    }

    /// Leaves connections open for a while, so that their clients hear that they close.
    async fn linger(&self, allowed: Duration) {
        let (begun, directory) = (tokio::time::Instant::now(), &self.office.directory);
        let Some(handover) = self.handover.as_ref().filter(|handover| handover.is_replaced()) else {
            return directory.timed(|| sleep(LINGER.min(allowed))).await;
        };
        directory.timed(|| sleep(LINGER_REPLACED.min(allowed))).await;
        while !handover.connections.is_empty() && begun.elapsed() < LINGER_REPLACED_MAX.min(allowed) {
            directory.timed(|| sleep(LOOK)).await;
        }
    }

    /// Whether any call runs or waits at a replica.
    fn busy(&self) -> bool {
        let fleet = self.office.fleet();
        let mut replicas = fleet.backends.values().flat_map(|backend| &backend.replicas);
        replicas.any(|replica| replica.control.load() > 0)
            || fleet.backends.values().any(|backend| backend.routes.waiting() > 0)
    }

    /// Ends whatever of ours lives on a thread that is not ours.
    fn let_go(&self) {
        let mut routes = Vec::new();
        for backend in self.office.fleet().backends.values() {
            backend.routes.close();
            for replica in &backend.replicas {
                replica.control.stop();
                // Its thread may hang, and whoever gave a device has others to give it to.
                replica.tenure.end();
            }
            routes.push(Arc::clone(&backend.routes));
        }
        // Messages are dropped with the fleet at rest.
        routes.iter().for_each(|routes| routes.let_go());
        self.office.comparer.close();
        self.office.threads.clear();
        self.controller_stop.stop();
        self.office.memory().close();
    }
}

impl Drop for Inner {
    /// Without a shutdown: everything ends now.
    fn drop(&mut self) {
        self.office.directory.close();
        self.let_go();
        let system = self.system.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        // With the system its arbiters end, and the servers on them close their listeners.
        if let Some(SystemThread { system, .. }) = system {
            system.stop();
        }
    }
}
