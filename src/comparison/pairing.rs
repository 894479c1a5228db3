//! Two answers to one request on their way to each other: whichever comes second brings both to the comparer.

use std::sync::{Arc, Mutex, PoisonError};

use smallvec::SmallVec;
use tokio::time::Instant;

use super::{
    COMPARED_BYTES_MAX, Comparison,
    answer::{KeepAnswer, Kept},
    judge::{End, Pair, Side},
};
use crate::{
    error::ServeError,
    guard::{drop_guarded, guarded},
    ids::BackendName,
    meta::RequestId,
    metrics::comparison::{Against, Outcome},
};

/// Two answers on their way to each other.
struct Pairing {
    comparison: Arc<Comparison>,
    against: Against,
    request_id: RequestId,
    served_by: BackendName,
    meeting: Mutex<Meeting>,
}

enum Meeting {
    /// Nobody is there yet.
    Open,
    /// One is there.
    One(Side),
    /// Both were there, or one will never come.
    Over,
}

/// Where one of the two answers is brought; dropped, it never comes.
pub(crate) struct Half {
    /// Gone once the answer was brought.
    pairing: Option<Arc<Pairing>>,
    role: Role,
    /// The backend that it is the answer of.
    backend: BackendName,
    since: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Primary,
    Other,
}

/// The two halves of a comparison of the request that was sent at `since` to the first of two backends.
pub(crate) fn pairing(
    comparison: &Arc<Comparison>,
    against: Against,
    request_id: &RequestId,
    [served_by, other]: [&BackendName; 2],
    since: Instant,
) -> (Half, Half) {
    let pairing = Arc::new(Pairing {
        comparison: Arc::clone(comparison),
        against,
        request_id: request_id.clone(),
        served_by: served_by.clone(),
        meeting: Mutex::new(Meeting::Open),
    });
    let half = |role, backend: &BackendName| {
        let pairing = Some(Arc::clone(&pairing));
        Half { pairing, role, backend: backend.clone(), since }
    };
    (half(Role::Primary, served_by), half(Role::Other, other))
}

impl Pairing {
    fn swap(&self, meeting: Meeting) -> Meeting {
        std::mem::replace(&mut *self.meeting.lock().unwrap_or_else(PoisonError::into_inner), meeting)
    }

    fn is_over(&self) -> bool {
        matches!(*self.meeting.lock().unwrap_or_else(PoisonError::into_inner), Meeting::Over)
    }

    /// Ends it without a comparison, and counts that unless it was over before.
    fn end(&self, outcome: Outcome) {
        let was = self.swap(Meeting::Over);
        if !matches!(was, Meeting::Over) {
            self.comparison.count(self.against, outcome);
        }
        drop_guarded(was);
    }

    /// What is kept of an answer, or how the comparison ends for want of it.
    fn side<R>(
        &self,
        result: &Result<R, ServeError>,
        keep: KeepAnswer<R>,
        half: &Half,
    ) -> Result<Side, Outcome> {
        let took = half.since.elapsed();
        let end = match result {
            // Its backend was full, away, taken away or late: that says nothing about what it would have answered.
            Err(ServeError::Stopped | ServeError::DeadlineExceeded) => return Err(Outcome::Unpaired),
            Err(why) if why.refused_by(&half.backend) => return Err(Outcome::Unpaired),
            Err(why) => End::Failed { code: why.code().into(), text: why.to_string() },
            Ok(answer) => End::Answered(guarded(|| keep(answer)).map_err(|why| {
                self.comparison.failed(why.into());
                Outcome::Failed
            })?),
        };
        let bytes = match &end {
            End::Answered(Kept { bytes, .. }) => *bytes,
            End::Failed { text, .. } => text.len(),
        };
        let room = if bytes > COMPARED_BYTES_MAX { None } else { self.comparison.comparer.hold(bytes) };
        match room {
            Some(held) => Ok(Side { end, took, held }),
            None => {
                drop_guarded(end);
                Err(Outcome::Skipped)
            }
        }
    }

    fn bring(self: &Arc<Self>, role: Role, side: Side) {
        let mut meeting = self.meeting.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *meeting, Meeting::Over) {
            Meeting::Open => *meeting = Meeting::One(side),
            Meeting::One(first) => {
                drop(meeting);
                let (primary, other) = if role == Role::Primary { (side, first) } else { (first, side) };
                let pair = Pair {
                    comparison: Arc::clone(&self.comparison),
                    against: self.against,
                    request_id: self.request_id.clone(),
                    served_by: self.served_by.clone(),
                    primary,
                    other,
                };
                if let Err(pair) = self.comparison.comparer.push(pair) {
                    self.comparison.count(self.against, Outcome::Skipped);
                    drop_guarded(pair);
                }
            }
            Meeting::Over => {
                drop(meeting);
                drop_guarded(side);
            }
        }
    }
}

impl Half {
    /// From now on it takes time.
    pub(crate) fn sent(&mut self) {
        self.since = Instant::now();
    }

    /// Brings the answer. Never waits, never panics; runs the user's `clone`, if anything.
    pub(crate) fn bring<R>(mut self, result: &Result<R, ServeError>, keep: KeepAnswer<R>) {
        let Some(pairing) = self.pairing.take() else { return };
        if !pairing.is_over() {
            match pairing.side(result, keep, &self) {
                Ok(side) => pairing.bring(self.role, side),
                Err(outcome) => pairing.end(outcome),
            }
        }
        drop_guarded(pairing);
    }

    /// There was no request after all: nothing is counted.
    pub(crate) fn cancel(mut self) {
        if let Some(pairing) = self.pairing.take() {
            drop_guarded(pairing.swap(Meeting::Over));
            drop_guarded(pairing);
        }
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        if let Some(pairing) = self.pairing.take() {
            pairing.end(Outcome::Unpaired);
            drop_guarded(pairing);
        }
    }
}

/// The primary's halves of all comparisons of one call.
pub(crate) struct Watch<R>(pub(crate) SmallVec<[(Half, KeepAnswer<R>); 2]>);

impl<R> Watch<R> {
    /// Brings the answer that the caller gets.
    pub(crate) fn see(self, result: &Result<R, ServeError>) {
        for (half, keep) in self.0 {
            half.bring(result, keep);
        }
    }
}
