//! Who a replica is and what of its Serve it can reach.

use std::sync::Arc;

use crate::{ids::ReplicaId, routing::directory::Directory};

/// Who a replica is and what of its Serve it can reach.
pub(crate) struct Identity {
    pub(crate) replica: ReplicaId,
    pub(crate) num_threads: usize,
    pub(crate) directory: Arc<Directory>,
}
