//! A batch on its way to its replica, which can be given back item by item as long as it has not begun.

use std::sync::Arc;

use actix::Message;

use crate::{
    actors::{
        batcher::pending::{Seat, Seats},
        execute::Form,
        lane_port::turn_away,
    },
    backend::Batch,
    call::{Call, Request},
    error::ServeError,
    guard::guarded,
    port::Home,
};

/// A batch, and whose calls are in it.
pub(crate) struct SentBatch<M: Request> {
    pub(super) batch: Batch<M>,
    pub(super) seats: Arc<Seats<M::Response>>,
}

impl<M: Request> Message for SentBatch<M> {
    type Result = <Batch<M> as Message>::Result;
}

impl<M: Request> SentBatch<M> {
    /// It never began: each of its calls goes to a sibling, or is told `why`. From any thread: its own may hang.
    pub(super) fn turn_away(self, home: Option<&dyn Home>, why: &ServeError) {
        let (msgs, metas) = self.batch.into_parts();
        let mut seats = self.seats.take().into_iter();
        for (msg, meta) in msgs.into_iter().zip(metas) {
            let seat = seats.next().flatten();
            // A message whose drop panics must not take its neighbours along.
            let _ = guarded(|| {
                let Some(Seat { reply, permit, .. }) = seat else { return drop(msg) };
                drop(permit);
                turn_away(Call { msg, meta, reply }, home, why.clone());
            });
        }
    }
}

/// A batch as a whole; its items count as requests, it does not.
pub(crate) struct Whole<M>(std::marker::PhantomData<M>);

impl<M: Request> Form for Whole<M> {
    type Outer = SentBatch<M>;
    type Inner = Batch<M>;
    fn open(outer: SentBatch<M>) -> Result<Batch<M>, ServeError> {
        Ok(outer.batch)
    }
    fn close(result: <Batch<M> as Request>::Response) -> Result<<Batch<M> as Request>::Response, ServeError> {
        Ok(result)
    }
    fn turn_away(call: Call<SentBatch<M>>, home: Option<&dyn Home>, why: ServeError) {
        call.msg.turn_away(home, &why);
        // Nobody waits for the whole any more.
        call.reply.send(Err(why));
    }
    const COUNTS: bool = false;
}
