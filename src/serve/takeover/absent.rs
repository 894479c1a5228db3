//! `Handover` where sockets are not handed over: it cannot be made.

use std::{
    convert::Infallible,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{Changes, Role, Sockets};
use crate::{error::ServeError, metrics::in_flight::InFlight};

/// What the next process is handed: nothing on this system.
pub(crate) type Kept = Infallible;

/// The sockets of this process, from the one before it and for the one after it; never made on this system.
pub(crate) struct Handover {
    pub(crate) connections: Arc<InFlight>,
    never: Infallible,
}

impl Handover {
    #[expect(clippy::unused_async, reason = "the same shape as where it can be made")]
    pub(crate) async fn begin(_: PathBuf) -> Result<Self, ServeError> {
        Err(ServeError::invalid("takeover", "a process can take over from another on Linux only"))
    }

    pub(crate) fn listen(&self, _: Role, _: &str, _: u16) -> io::Result<Sockets> {
        match self.never {}
    }

    pub(crate) fn inherit_lock(&self, _: &Path) -> Option<File> {
        match self.never {}
    }

    pub(crate) fn keep_lock(&self, _: &Path, _: &File) -> io::Result<()> {
        match self.never {}
    }

    pub(crate) fn is_claimed(&self) -> bool {
        match self.never {}
    }

    pub(crate) fn keep(&self, never: Kept) {
        match never {}
    }

    pub(crate) fn is_given(&self) -> bool {
        match self.never {}
    }

    pub(crate) fn is_over(&self) -> bool {
        match self.never {}
    }

    pub(crate) fn lost(&self) -> Option<ServeError> {
        match self.never {}
    }

    #[expect(clippy::unused_async, reason = "the same shape as where it can be made")]
    pub(super) async fn succeed(self: Arc<Self>, _: Changes, _: Duration) -> Result<(), ServeError> {
        match self.never {}
    }

    pub(crate) fn is_replaced(&self) -> bool {
        match self.never {}
    }

    #[expect(clippy::unused_async, reason = "the same shape as where it can be made")]
    pub(super) async fn replaced(&self) {
        match self.never {}
    }

    pub(crate) fn close(&self) {
        match self.never {}
    }
}
