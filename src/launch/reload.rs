//! The file read again on SIGHUP: what has changed in it is deployed, and a bad one changes nothing.

use std::{io, path::Path};

use greenroom::{Serve, ServeConfig};
#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{deploy, read, tell};

/// SIGHUP, heard from the moment this is made: from then on it does not end the process.
pub(super) struct Reloads {
    #[cfg(unix)]
    hangup: Signal,
}

impl Reloads {
    #[cfg(unix)]
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { hangup: signal(SignalKind::hangup())? })
    }

    #[cfg(not(unix))]
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {})
    }

    /// The next time that somebody asks for it; those who ask meanwhile are one.
    #[cfg(unix)]
    pub(super) async fn asked(&mut self) {
        if self.hangup.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    #[cfg(not(unix))]
    pub(super) async fn asked(&mut self) {
        std::future::pending::<()>().await;
    }
}

/// Deploys the file if it says something else than the last time, which it took the place of then.
pub(super) async fn reload(serve: &Serve, file: &Path, last: &mut ServeConfig) {
    let config = match read(file) {
        Ok(config) if config == *last => {
            return tell("unchanged: the file says what it said before, so nothing was done");
        }
        Ok(config) => config,
        Err(error) => return complain(&error),
    };
    match deploy(serve, config.clone()).await {
        Ok(deployed) => {
            deployed.plan.to_string().lines().for_each(tell);
            *last = config;
            tell("reloaded");
        }
        Err(error) => complain(&format_args!("{}: {error}", file.display())),
    }
}

fn complain(error: &dyn std::fmt::Display) {
    eprintln!("greenroom: not reloaded, what was served before is served on: {error}");
}
