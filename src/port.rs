//! Where a call for message `M` can be delivered: a replica here, a batcher before it, later another process.

use std::any::{Any, TypeId};

use crate::call::{Answer, Call, Refusal, Reply, Request};
use crate::error::ServeError;
use crate::meta::Meta;

/// A place that takes calls for `M`.
pub trait Port<M: Request>: Send + Sync {
    /// Takes the call. `admitted` calls were let in elsewhere and are not
    /// refused for being too many.
    ///
    /// # Errors
    /// The call, whole, and why it was not taken.
    fn deliver(&self, call: Call<M>, admitted: bool) -> Result<(), Refusal<M>>;

    /// Answers on the spot where it can, else takes the call as [`deliver`](Self::deliver) does.
    fn call(&self, msg: M, meta: Meta) -> Answer<M> {
        let (reply, waiting) = Reply::channel();
        match self.deliver(Call { msg, meta, reply }, false) {
            Ok(()) => Answer::Waiting(waiting),
            Err(refusal) => Answer::Refused(refusal),
        }
    }

    /// Calls that run or wait there now; `usize::MAX` while it works none off.
    fn load(&self) -> usize;

    /// Calls it runs at once; one more would wait.
    fn concurrency(&self) -> usize;

    /// Token of the thread that serves it, so that a caller on that thread can prefer it.
    fn thread(&self) -> u64;
}

/// Where calls that never began find the siblings of their replica.
pub(crate) trait Home: Send + Sync {
    /// The `Arc<dyn Port<M>>` over all replicas for the message type `M`.
    fn port(&self, message: TypeId) -> Option<&(dyn Any + Send + Sync)>;

    /// What a call is told that never began and has no sibling to go to.
    fn gone(&self) -> ServeError;
}
