//! `Affinity`: what a shard key chooses.

use serde::Serialize;

/// What stays the same for requests with the same shard key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Affinity {
    /// The backend; its replicas share the load as they do that of any request.
    #[default]
    Backend,
    /// The backend and the replica, for replicas that keep something of a session in memory. A replica that is
    /// full or away sends its keys to others; a change of `num_replicas` moves as few keys as it can.
    Replica,
}
