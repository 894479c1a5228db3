//! The port of one replica: answers on the caller's stack when it can, else queues in the replica's lane.

use std::{any::TypeId, marker::PhantomData, sync::Arc, time::Duration};

use actix::{Actor, Handler};
use tokio::time::Instant;

use crate::{
    actors::{
        context::ReplicaContext,
        execute::{Form, RequestFuture, Running, Step, execute},
        lane::{Job, Lane},
        register,
        replica::{Cell, Core},
    },
    call::{Answer, Call, Gate, Permit, Refusal, Reply, Request},
    error::ServeError,
    ids::BackendName,
    meta::{Meta, thread_token},
    metrics::{cells::ReplicaCells, clock::Tick},
    port::{Home, Port},
};

/// Delivers calls for `F::Outer` to one actor `A`.
pub(crate) struct LanePort<A: Actor<Context = ReplicaContext<A>>, F> {
    backend: BackendName,
    lane: Arc<Lane<A>>,
    /// Whether calls pass the replica's gate; batches do not, their items have.
    gated: bool,
    form: PhantomData<fn() -> F>,
}

impl<A: Actor<Context = ReplicaContext<A>>, F> LanePort<A, F> {
    pub(crate) fn new(backend: BackendName, lane: Arc<Lane<A>>) -> Self {
        Self { backend, lane, gated: true, form: PhantomData }
    }

    /// The port of the replica's own Batcher, whose calls have passed the gate.
    pub(crate) fn ungated(self) -> Self {
        Self { gated: false, ..self }
    }
}

impl<A, F> LanePort<A, F>
where
    A: Actor<Context = ReplicaContext<A>> + Handler<F::Inner>,
    F: Form,
{
    /// Handles the call on this stack: the caller is on the replica's thread and nothing is before it.
    fn direct(&self, core: &Core<A>, cell: &mut Cell<A>, msg: F::Outer, meta: Meta) -> Answer<F::Outer> {
        let Some(actor) = cell.actor.as_mut() else { return self.queue(msg, meta) };
        if self.gated && !self.lane.gate.enter() {
            return Answer::Refused(Refusal {
                msg,
                meta,
                reply: None,
                why: overloaded(&self.lane.gate, &self.backend),
            });
        }
        let begun = Tick::now();
        if F::COUNTS {
            core.desk.cells.queuing.latency(Duration::ZERO);
        }
        core.desk.begin(F::COUNTS);
        let mark = cell.ctx.mark();
        let step = register::deeper(|| execute::<A, F>(actor, &mut cell.ctx, msg, meta));
        core.desk.end(F::COUNTS);
        let answer = match step {
            Step::Done(result) => {
                if F::COUNTS {
                    core.desk.cells.answered(begun.elapsed(), result.as_ref().err());
                }
                if self.gated {
                    self.lane.gate.leave();
                }
                Answer::Now(result)
            }
            Step::Going(going) => {
                let (reply, waiting) = Reply::channel();
                let running =
                    Running::begin::<F>(&core.desk, begun, self.gated.then(|| self.lane.gate.entered()));
                let future = RequestFuture::new(going, reply, running, F::close);
                core.desk.incoming.borrow_mut().push(Box::pin(future));
                Answer::Waiting(waiting)
            }
        };
        core.settle_direct(cell, mark);
        answer
    }

    fn queue(&self, msg: F::Outer, meta: Meta) -> Answer<F::Outer> {
        let (reply, waiting) = Reply::channel();
        match self.deliver(Call { msg, meta, reply }, false) {
            Ok(()) => Answer::Waiting(waiting),
            Err(refusal) => Answer::Refused(Refusal { reply: None, ..refusal }),
        }
    }
}

impl<A, F> Port<F::Outer> for LanePort<A, F>
where
    A: Actor<Context = ReplicaContext<A>> + Handler<F::Inner>,
    F: Form,
{
    fn deliver(&self, call: Call<F::Outer>, admitted: bool) -> Result<(), Refusal<F::Outer>> {
        let (call, permit) = if self.gated {
            let sweep = || self.lane.sweep();
            let (call, permit) = admit(&self.lane.gate, &self.backend, call, admitted, sweep)?;
            (call, Some(permit))
        } else {
            (call, None)
        };
        let job = CallJob::<F> { call, permit, queued: Tick::now() };
        self.lane
            .push::<CallJob<F>>(Box::new(job))
            .map_err(|job| Refusal::of(job.call, ServeError::never_began(&self.backend)))
    }

    fn call(&self, msg: F::Outer, meta: Meta) -> Answer<F::Outer> {
        if let Some((thread, place)) = self.lane.place()
            && thread == thread_token()
            && register::shallow()
            && let Some(core) = register::get::<Core<A>>(place)
            && let Ok(mut cell) = core.cell.try_borrow_mut()
            && core.takes_direct(&cell)
        {
            return self.direct(&core, &mut cell, msg, meta);
        }
        self.queue(msg, meta)
    }

    fn load(&self) -> usize {
        self.lane.gate.burden()
    }

    fn concurrency(&self) -> usize {
        self.lane.concurrency()
    }

    fn thread(&self) -> u64 {
        self.lane.place().map_or(0, |(thread, _)| thread)
    }
}

/// Lets a call in, unless it is one too many (a copy for a shadow: unless half of the room is taken); a full gate is asked once more when `sweep` may have made room.
pub(crate) fn admit<M: Request>(
    gate: &Arc<Gate>,
    backend: &BackendName,
    call: Call<M>,
    admitted: bool,
    sweep: impl FnOnce() -> bool,
) -> Result<(Call<M>, Permit), Refusal<M>> {
    if call.meta.copy && !admitted && gate.load() >= gate.limit().div_ceil(2) {
        return Err(Refusal::of(call, overloaded(gate, backend)));
    }
    let permit = if admitted { Some(gate.permit_anyway()) } else { gate.permit() };
    match permit.or_else(|| sweep().then(|| gate.permit())?) {
        Some(permit) => Ok((call, permit)),
        None => Err(Refusal::of(call, overloaded(gate, backend))),
    }
}

fn overloaded(gate: &Gate, backend: &BackendName) -> ServeError {
    ServeError::Overloaded { backend: backend.clone(), limit: gate.limit() }
}

/// A call waiting in a lane.
struct CallJob<F: Form> {
    call: Call<F::Outer>,
    permit: Option<Permit>,
    queued: Tick,
}

impl<A, F> Job<A> for CallJob<F>
where
    A: Actor<Context = ReplicaContext<A>> + Handler<F::Inner>,
    F: Form,
{
    fn abandoned(&self) -> bool {
        self.call.reply.is_closed()
    }

    fn run(self: Box<Self>, actor: &mut A, ctx: &mut ReplicaContext<A>) {
        if self.call.meta.expired() {
            return Job::<A>::expire(self, &ctx.desk.cells);
        }
        let Self { call: Call { msg, meta, reply }, permit, queued } = *self;
        let begun = Tick::now();
        if F::COUNTS {
            ctx.desk.cells.queuing.latency(begun.since(queued));
        }
        let until = meta.deadline.filter(|_| !reply.minds_deadline());
        let limit = meta.own_limit();
        ctx.desk.begin(F::COUNTS);
        let step = execute::<A, F>(actor, ctx, msg, meta);
        ctx.desk.end(F::COUNTS);
        match step {
            Step::Done(result) => {
                // Who left at the deadline meanwhile has counted that.
                if F::COUNTS && !reply.is_closed() {
                    ctx.desk.cells.answered(begun.elapsed(), result.as_ref().err());
                } else if F::COUNTS && limit.is_some_and(|at| at <= Instant::now()) {
                    ctx.desk.cells.time_out();
                }
                drop(permit);
                reply.send(result);
            }
            Step::Going(going) => {
                let running = Running::begin::<F>(&ctx.desk, begun, permit);
                let future = RequestFuture::new(going, reply, running, F::close).until(until);
                ctx.desk.incoming.borrow_mut().push(Box::pin(future));
            }
        }
    }

    fn ends_at(&self) -> Option<Instant> {
        self.call.ends_at()
    }

    fn expire(self: Box<Self>, cells: &ReplicaCells) {
        let Self { call, permit, .. } = *self;
        drop(permit);
        if call.expire() && F::COUNTS {
            cells.expired.add(1);
        }
    }

    fn turn_away(self: Box<Self>, home: Option<&dyn Home>, why: ServeError) {
        let Self { call, permit, .. } = *self;
        drop(permit);
        F::turn_away(call, home, why);
    }
}

/// A call that never began goes to a sibling of its replica; without one its caller is told `why`.
pub(crate) fn turn_away<M: Request>(call: Call<M>, home: Option<&dyn Home>, why: ServeError) {
    let sibling = home
        .and_then(|home| home.port(TypeId::of::<M>()))
        .and_then(|port| port.downcast_ref::<Arc<dyn Port<M>>>());
    match sibling {
        None => {
            call.reply.send(Err(why));
        }
        Some(port) => {
            if let Err(refusal) = port.deliver(call, true)
                && let Some(reply) = refusal.reply
            {
                reply.send(Err(refusal.why));
            }
        }
    }
}
