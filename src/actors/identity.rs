//! Who a replica is and what of its Serve it can reach.

use std::sync::Arc;

use crate::{
    ids::{BackendName, ReplicaId},
    routing::directory::Directory,
};

/// Who a replica is and what of its Serve it can reach.
pub(crate) struct Identity {
    pub(crate) replica: ReplicaId,
    pub(crate) num_threads: usize,
    /// Most requests handed to it in one call when it was started.
    pub(crate) batch_size_max: usize,
    pub(crate) directory: Arc<Directory>,
}

impl Identity {
    /// One of our own actors.
    pub(crate) fn own(name: &'static str, directory: Arc<Directory>) -> Self {
        let replica = ReplicaId { backend: BackendName::own(name), slot: 0, generation: 0 };
        Self { replica, num_threads: 1, batch_size_max: 1, directory }
    }
}
