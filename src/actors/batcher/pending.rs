//! The callers of a batch that runs: answered together, each with its own result.

use std::{sync::Arc, task::Context, time::Instant};

use crate::{
    actors::{batcher::Bench, lane_port::turn_away},
    backend::Batch,
    call::{Call, Permit, Reply, Request},
    error::ServeError,
    guard::{drop_guarded, guarded},
    metrics::cells::ReplicaCells,
};

/// The callers of a batch that runs.
pub(super) struct Pending<R: Send + 'static> {
    pub(super) replies: Vec<(Reply<R>, Permit)>,
    pub(super) begun: Instant,
    pub(super) cells: Arc<ReplicaCells>,
}

impl<R: Send + 'static> Drop for Pending<R> {
    /// Still some here: the replica stops while the batch runs.
    fn drop(&mut self) {
        for (reply, permit) in self.take().0 {
            drop(permit);
            reply.send(Err(ServeError::Stopped));
        }
    }
}

impl<R: Send + 'static> Pending<R> {
    /// The callers; their requests run no longer.
    pub(super) fn take(&mut self) -> (Vec<(Reply<R>, Permit)>, Instant) {
        self.cells.ended(self.replies.len());
        (std::mem::take(&mut self.replies), self.begun)
    }

    /// Whether every caller has left; if not, the task is woken when one does.
    pub(super) fn all_left(&mut self, cx: &mut Context<'_>) -> bool {
        self.replies.iter_mut().fold(true, |all, (reply, _)| reply.poll_closed(cx).is_ready() && all)
    }

    pub(super) fn distribute<M>(
        mut self,
        bench: &Bench<M>,
        result: Result<Vec<Result<R, ServeError>>, ServeError>,
    ) where
        M: Request<Response = R>,
    {
        let (size, took) = (self.replies.len(), self.begun.elapsed());
        let replies = self.take().0;
        let results = result.and_then(|results| match results.len() {
            returned if returned == size => Ok(results),
            returned => {
                drop_guarded(results);
                Err(ServeError::BatchLength { expected: size, returned })
            }
        });
        let answer = |(reply, permit): (Reply<R>, Permit), result: Result<R, ServeError>| {
            bench.cells.answered(took, result.is_err());
            drop(permit);
            reply.send(result);
        };
        match results {
            Ok(results) => replies.into_iter().zip(results).for_each(|(r, result)| answer(r, result)),
            Err(error) => {
                let error = match error {
                    ServeError::Panicked { message } => ServeError::BatchPanicked { size, message },
                    other => other,
                };
                replies.into_iter().for_each(|reply| answer(reply, Err(error.clone())));
            }
        }
    }
}

impl<R: Send + 'static> Pending<R> {
    /// The replica took no more: the calls never began and go elsewhere.
    pub(super) fn turn_away<M: Request<Response = R>>(
        mut self,
        bench: &Bench<M>,
        batch: Batch<M>,
        why: &ServeError,
    ) {
        let metas = batch.metas().to_vec();
        for ((msg, meta), (reply, permit)) in batch.into_iter().zip(metas).zip(self.take().0) {
            drop(permit);
            let _ = guarded(|| turn_away(Call { msg, meta, reply }, Some(&*bench.home), why.clone()));
        }
    }
}
