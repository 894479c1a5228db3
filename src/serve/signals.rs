//! The signals that end a process: SIGTERM and Ctrl-C.

use std::io;

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{error::ServeError, serve::Serve};

/// SIGTERM and Ctrl-C, heard from the moment this is made: from then on they do not end the process by themselves.
#[derive(Debug)]
pub struct EndSignals {
    #[cfg(unix)]
    terminate: Signal,
    #[cfg(unix)]
    interrupt: Signal,
}

impl EndSignals {
    /// Begins to listen, on a thread with a tokio runtime.
    ///
    /// # Errors
    /// The system's own, when it refuses.
    #[cfg(unix)]
    pub fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Begins to listen, on a thread with a tokio runtime.
    ///
    /// # Errors
    /// None on this system.
    #[cfg(not(unix))]
    pub fn listen() -> io::Result<Self> {
        Ok(Self {})
    }

    /// The next signal, also one that came since this listens.
    #[cfg(unix)]
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// The next signal.
    #[cfg(not(unix))]
    pub async fn received(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}

impl Serve {
    /// Serves until the process is told to end (SIGTERM or Ctrl-C) or another one has taken over from it
    /// ([`replaced`](Serve::replaced)), then shuts down in order. A signal counts from the first poll on; [`EndSignals`] hears those that come earlier too.
    ///
    /// # Errors
    /// As [`shutdown`](Serve::shutdown), or [`ServeError::Internal`] when signals cannot be listened for.
    pub async fn run_until_signal(&self) -> Result<(), ServeError> {
        let unheard = |error| ServeError::Internal(format!("signals cannot be listened for: {error}").into());
        let mut signals = EndSignals::listen().map_err(unheard)?;
        tokio::select! {
            () = signals.received() => {}
            () = self.replaced() => {}
        }
        self.shutdown().await
    }
}
