//! Where calls wait while the last replica of a backend is being replaced: bounded, and handed on by who comes next.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

use crate::call::{Call, Request};

/// Calls for one backend that wait for its next replica; mostly closed.
pub(super) struct WaitingRoom<M: Request>(Mutex<Room<M>>);

struct Room<M: Request> {
    /// Calls that may wait; none: it is closed.
    seats: Option<usize>,
    /// Closed for good.
    ended: bool,
    calls: VecDeque<Call<M>>,
}

/// Why a call may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TurnedAway {
    /// Nobody is waited for: there are replicas, or there will be none.
    Closed,
    /// As many as may wait already.
    Full { seats: usize },
}

impl<M: Request> Default for WaitingRoom<M> {
    fn default() -> Self {
        Self(Mutex::new(Room { seats: None, ended: false, calls: VecDeque::new() }))
    }
}

impl<M: Request> WaitingRoom<M> {
    fn lock(&self) -> MutexGuard<'_, Room<M>> {
        // Nothing that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on so many calls may wait, unless it is closed for good.
    pub(super) fn open(&self, seats: usize) {
        let mut room = self.lock();
        room.seats = Some(seats).filter(|_| !room.ended);
    }

    /// From now on none may wait, whoever opens it. Those that did are still to be taken out.
    pub(super) fn end(&self) {
        let mut room = self.lock();
        (room.seats, room.ended) = (None, true);
    }

    /// From now on none may wait; those that did are given back in their order.
    pub(super) fn close(&self) -> VecDeque<Call<M>> {
        let mut room = self.lock();
        room.seats = None;
        std::mem::take(&mut room.calls)
    }

    /// Lets a call wait; one that was let in before is not too many, and copies leave half of the room.
    pub(super) fn enter(&self, call: Call<M>, admitted: bool) -> Result<(), (Call<M>, TurnedAway)> {
        let mut room = self.lock();
        let Some(seats) = room.seats else { return Err((call, TurnedAway::Closed)) };
        let open = if call.meta.copy { seats / 2 } else { seats };
        if !admitted && room.calls.len() >= open {
            return Err((call, TurnedAway::Full { seats }));
        }
        room.calls.push_back(call);
        Ok(())
    }

    /// Takes out those that have to be ended by now, and those whose callers have left.
    pub(super) fn overdue(&self, now: Instant) -> VecDeque<Call<M>> {
        let mut room = self.lock();
        let ended = |call: &Call<M>| call.reply.is_closed() || call.ends_at().is_some_and(|at| at <= now);
        let (gone, kept) = std::mem::take(&mut room.calls).into_iter().partition(ended);
        room.calls = kept;
        gone
    }

    /// Calls that wait.
    pub(super) fn waiting(&self) -> usize {
        self.lock().calls.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        call::{Reply, Waiting},
        error::ServeError,
        meta::Meta,
    };

    #[derive(actix::Message)]
    #[rtype(result = "Result<(), ServeError>")]
    struct Ask(u8);

    fn call(n: u8) -> (Call<Ask>, Waiting<()>) {
        let (reply, waiting) = Reply::channel();
        (Call { msg: Ask(n), meta: Meta::new(), reply }, waiting)
    }

    fn names(calls: VecDeque<Call<Ask>>) -> Vec<u8> {
        calls.into_iter().map(|call| call.msg.0).collect()
    }

    #[test]
    fn calls_wait_in_their_order_while_it_is_open_and_no_more_than_may() {
        let room = WaitingRoom::default();
        let turned_away =
            |n, admitted| room.enter(call(n).0, admitted).err().map(|(call, why)| (call.msg.0, why));
        assert_eq!(turned_away(0, true), Some((0, TurnedAway::Closed)));
        room.open(2);
        assert_eq!((turned_away(1, false), turned_away(2, false)), (None, None));
        assert_eq!(turned_away(3, false), Some((3, TurnedAway::Full { seats: 2 })));
        assert_eq!(turned_away(4, true), None, "it was let in before");
        assert_eq!(room.waiting(), 3);
        assert_eq!(names(room.close()), [1, 2, 4]);
        assert_eq!(turned_away(5, false), Some((5, TurnedAway::Closed)));
    }

    #[test]
    fn once_it_is_closed_for_good_nobody_opens_it_and_those_inside_are_given_back() {
        let room = WaitingRoom::default();
        room.open(9);
        assert!(room.enter(call(1).0, false).is_ok());
        room.end();
        room.open(9);
        let turned_away = room.enter(call(2).0, true).err().map(|(_, why)| why);
        assert_eq!(turned_away, Some(TurnedAway::Closed));
        assert_eq!(names(room.close()), [1]);
    }

    #[test]
    fn copies_leave_half_of_the_room() {
        let room = WaitingRoom::default();
        room.open(3);
        let copy = |n| {
            let (mut call, _) = call(n);
            call.meta = call.meta.for_copy();
            room.enter(call, false).is_ok()
        };
        assert_eq!([copy(0), copy(1)], [true, false]);
    }

    #[test]
    fn those_that_left_or_must_be_ended_are_taken_out() {
        let room = WaitingRoom::default();
        room.open(9);
        let now = Instant::now();
        let mut kept = Vec::new();
        for n in 0..4 {
            let (mut call, waiting) = call(n);
            match n {
                0 => drop(waiting),
                // Whoever waits here minds the deadline.
                1 => {
                    call.meta.tighten(now);
                    kept.push(waiting);
                }
                2 => {
                    call.meta.tighten(now);
                    call.reply = Reply::nobody();
                }
                _ => kept.push(waiting),
            }
            assert!(room.enter(call, false).is_ok());
        }
        assert_eq!(names(room.overdue(now)), [0, 2]);
        assert_eq!(names(room.close()), [1, 3]);
    }
}
