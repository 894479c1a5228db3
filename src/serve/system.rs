//! The thread of the Controller, whose runtime owns the serving threads and the servers of a Serve.

use std::{sync::Arc, thread::JoinHandle, time::Duration};

use actix::{Arbiter, System};
use tokio::sync::oneshot;

use crate::{
    actors::{
        controller::{self, Controller, Office},
        router::OwnActor,
    },
    error::ServeError,
};

/// How often users' histograms are folded.
const UPKEEP: Duration = Duration::from_secs(5);

/// The thread that the Controller lives on, and the runtime that owns our other threads.
pub(super) struct SystemThread {
    pub(super) system: System,
    pub(super) thread: JoinHandle<()>,
}

/// Starts the thread of the Controller, and from there `serving` serving threads.
pub(super) async fn start(
    office: Arc<Office>,
    serving: usize,
) -> Result<(OwnActor<Controller>, Option<SystemThread>), ServeError> {
    let (tx, rx) = oneshot::channel();
    let run = move || {
        let runner = System::new();
        crate::metrics::clock::calibrate();
        let started = runner.block_on(async {
            office.directory.set_timers(tokio::runtime::Handle::current());
            let controller = controller::start(Arc::clone(&office));
            let mut lent = Vec::new();
            for _ in 0..serving {
                let (done, lending) = oneshot::channel();
                let (threads, directory) = (Arc::clone(&office.threads), Arc::clone(&office.directory));
                // It ends with the system.
                Arbiter::new().spawn_fn(move || {
                    threads.lend_current(&directory);
                    let _ = done.send(());
                });
                lent.push(lending);
            }
            for lending in lent {
                let _ = lending.await;
            }
            let metrics = Arc::clone(&office.metrics);
            drop(tokio::task::spawn_local(async move {
                loop {
                    tokio::time::sleep(UPKEEP).await;
                    metrics.upkeep();
                }
            }));
            (controller, System::current())
        });
        let _ = tx.send(started);
        if let Err(error) = runner.run() {
            eprintln!("greenroom: the system thread ended with an error: {error}");
        }
    };
    let internal = |why: String| ServeError::Internal(why.into());
    let thread = std::thread::Builder::new()
        .name("greenroom".into())
        .spawn(run)
        .map_err(|e| internal(format!("the system thread did not start: {e}")))?;
    let (controller, system) = rx.await.map_err(|_| internal("the system thread did not start".into()))?;
    Ok((controller, Some(SystemThread { system, thread })))
}
