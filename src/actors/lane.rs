//! The bounded queue of calls that a replica polls beside its mailbox, and the commands that overtake them.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix::Actor;
use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use crate::{
    actors::{
        configure::{Change, Manner},
        context::ReplicaContext,
    },
    call::Gate,
    config::BackendConfig,
    error::ServeError,
    guard::{drop_guarded, guarded},
    metrics::{cells::ReplicaCells, clock::Tick},
    port::Home,
};

/// How often callers that were refused make a full lane look for those who have left.
const SWEEP: Duration = Duration::from_millis(1);

/// One call, its message type erased, waiting in the lane of an actor `A`.
pub(crate) trait Job<A: Actor>: Send {
    /// Whether its caller has left, so that it need not run.
    fn abandoned(&self) -> bool;
    /// Runs it. User code is guarded inside: this does not unwind.
    fn run(self: Box<Self>, actor: &mut A, ctx: &mut ReplicaContext<A>)
    where
        A: Actor<Context = ReplicaContext<A>>;
    /// When it must be ended although it has not begun; none: its caller leaves by itself.
    fn ends_at(&self) -> Option<Instant>;
    /// Ends it at its deadline. Does not unwind.
    fn expire(self: Box<Self>, cells: &ReplicaCells);
    /// It never began: gives it to a sibling, or answers `why`.
    fn turn_away(self: Box<Self>, home: Option<&dyn Home>, why: ServeError);
}

/// What overtakes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Finish what runs and waits, then stop.
    Drain,
    /// Stop now: waiting calls go elsewhere, running ones are answered with [`ServeError::Stopped`].
    Stop,
}

/// The queue between callers on any thread and one actor on its own.
pub(crate) struct Lane<A: Actor> {
    queue: Mutex<Queue<A>>,
    waiting: AtomicUsize,
    /// Whether there is a command, a change or a check.
    commanded: AtomicBool,
    waker: AtomicWaker,
    concurrency: AtomicUsize,
    /// Thread token and place in that thread's register, once the actor lives there.
    place: OnceLock<(u64, usize)>,
    pub(crate) gate: Arc<Gate>,
    home: Option<Arc<dyn Home>>,
}

struct Queue<A: Actor> {
    jobs: VecDeque<Box<dyn Job<A>>>,
    command: Option<Command>,
    change: Option<Change>,
    /// The number of the health check that is asked for.
    check: Option<u64>,
    open: bool,
    swept: Option<Tick>,
    /// No job has to be ended before this; none: none has to be at all.
    ends: Option<Instant>,
}

impl<A: Actor> Queue<A> {
    fn disturbed(&self) -> bool {
        self.command.is_some() || self.change.is_some() || self.check.is_some()
    }
}

impl<A: Actor<Context = ReplicaContext<A>>> Lane<A> {
    pub(crate) fn new(gate: Arc<Gate>, concurrency: usize, home: Option<Arc<dyn Home>>) -> Self {
        Self {
            queue: Mutex::new(Queue {
                jobs: VecDeque::new(),
                command: None,
                change: None,
                check: None,
                open: true,
                swept: None,
                ends: None,
            }),
            waiting: AtomicUsize::new(0),
            commanded: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            concurrency: AtomicUsize::new(concurrency),
            place: OnceLock::new(),
            gate,
            home,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<A>> {
        // Nothing that can panic runs under this lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a job and wakes the actor; gives it back when the lane is closed.
    pub(crate) fn push<J: Job<A> + 'static>(&self, job: Box<J>) -> Result<(), Box<J>> {
        {
            let mut queue = self.lock();
            if !queue.open {
                return Err(job);
            }
            if let Some(at) = job.ends_at() {
                queue.ends = Some(queue.ends.map_or(at, |first| first.min(at)));
            }
            queue.jobs.push_back(job);
            self.waiting.store(queue.jobs.len(), Ordering::Release);
        }
        self.waker.wake();
        Ok(())
    }

    /// Lets go of jobs whose callers have left, so that they hold no place against those who come. Looks at
    /// most once in [`SWEEP`]; true when it looked.
    pub(crate) fn sweep(&self) -> bool {
        let gone: VecDeque<_> = {
            let mut queue = self.lock();
            if queue.swept.is_some_and(|at| at.elapsed() < SWEEP) {
                return false;
            }
            queue.swept = Some(Tick::now());
            let (gone, kept) = std::mem::take(&mut queue.jobs).into_iter().partition(|job| job.abandoned());
            queue.jobs = kept;
            self.waiting.store(queue.jobs.len(), Ordering::Release);
            gone
        };
        gone.into_iter().for_each(drop_guarded);
        true
    }

    /// The next job, if any.
    pub(crate) fn pop(&self) -> Option<Box<dyn Job<A>>> {
        if self.waiting() == 0 {
            return None;
        }
        let mut queue = self.lock();
        let job = queue.jobs.pop_front();
        if queue.jobs.is_empty() {
            queue.ends = None;
        }
        self.waiting.store(queue.jobs.len(), Ordering::Release);
        job
    }

    /// When one of the jobs that wait must be ended, at the earliest.
    pub(crate) fn ends_at(&self) -> Option<Instant> {
        if self.waiting() == 0 { None } else { self.lock().ends }
    }

    /// Takes out the jobs that must be ended by now.
    pub(crate) fn overdue(&self) -> VecDeque<Box<dyn Job<A>>> {
        let now = Instant::now();
        let mut queue = self.lock();
        let jobs = std::mem::take(&mut queue.jobs).into_iter();
        let (gone, kept) = jobs.partition(|job| job.ends_at().is_some_and(|at| at <= now));
        queue.jobs = kept;
        queue.ends = queue.jobs.iter().filter_map(|job| job.ends_at()).min();
        self.waiting.store(queue.jobs.len(), Ordering::Release);
        gone
    }

    /// Jobs in the queue.
    #[inline]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Gives a command; [`Command::Stop`] is never weakened to [`Command::Drain`].
    pub(crate) fn command(&self, command: Command) {
        {
            let mut queue = self.lock();
            if queue.command != Some(Command::Stop) {
                queue.command = Some(command);
            }
            self.commanded.store(true, Ordering::Release);
        }
        self.waker.wake();
    }

    /// The command in force, read once without the lock when there is none.
    pub(crate) fn commanded(&self) -> Option<Command> {
        if self.commanded.load(Ordering::Acquire) { self.lock().command } else { None }
    }

    /// Whether nothing overtakes calls now.
    #[inline]
    pub(crate) fn undisturbed(&self) -> bool {
        !self.commanded.load(Ordering::Acquire)
    }

    /// From now on no call begins, until what runs has ended and the change is made.
    pub(crate) fn change(&self, change: Change) {
        {
            let mut queue = self.lock();
            queue.change = Some(change);
            self.commanded.store(true, Ordering::Release);
        }
        self.waker.wake();
    }

    /// How the change is to be made that waits, if one does.
    pub(crate) fn change_waits(&self) -> Option<Manner> {
        if self.undisturbed() { None } else { self.lock().change.as_ref().map(|change| change.manner) }
    }

    /// Takes the change out, to make it.
    pub(crate) fn take_change(&self) -> Option<Change> {
        let mut queue = self.lock();
        let change = queue.change.take();
        self.commanded.store(queue.disturbed(), Ordering::Release);
        change
    }

    /// Asks for a health check, in place of one that has not begun. It comes before the calls that wait.
    pub(crate) fn check(&self, number: u64) {
        {
            let mut queue = self.lock();
            queue.check = Some(number);
            self.commanded.store(true, Ordering::Release);
        }
        self.waker.wake();
    }

    /// Takes the check out, to make it.
    pub(crate) fn take_check(&self) -> Option<u64> {
        if self.undisturbed() {
            return None;
        }
        let mut queue = self.lock();
        let check = queue.check.take();
        self.commanded.store(queue.disturbed(), Ordering::Release);
        check
    }

    /// Takes the change back; false when it is being made or there is none.
    pub(crate) fn withdraw(&self) -> bool {
        let withdrawn = self.take_change().is_some();
        self.waker.wake();
        withdrawn
    }

    /// Calls run at once.
    #[inline]
    pub(crate) fn concurrency(&self) -> usize {
        self.concurrency.load(Ordering::Relaxed)
    }

    pub(crate) fn set_concurrency(&self, concurrency: usize) {
        self.concurrency.store(concurrency, Ordering::Relaxed);
        self.waker.wake();
    }

    pub(crate) fn waker(&self) -> &AtomicWaker {
        &self.waker
    }

    /// Where the actor lives: thread token and place in that thread's register.
    #[inline]
    pub(crate) fn place(&self) -> Option<(u64, usize)> {
        self.place.get().copied()
    }

    pub(crate) fn settle(&self, thread: u64, index: usize) {
        // An actor is placed once, by its own task.
        let _ = self.place.set((thread, index));
    }

    /// Closes the lane; what waits in it goes to siblings, or is told that it never began.
    pub(crate) fn close(&self) {
        let jobs = {
            let mut queue = self.lock();
            queue.open = false;
            self.waiting.store(0, Ordering::Release);
            std::mem::take(&mut queue.jobs)
        };
        let why = || self.home.as_ref().map_or(ServeError::Stopped, |home| home.gone());
        for job in jobs {
            // A message whose drop panics must not take its neighbours along.
            let _ = guarded(|| job.turn_away(self.home.as_deref(), why()));
        }
    }
}

/// What ends an actor, whatever its type.
pub(crate) trait Stop: Send + Sync {
    /// Stop now.
    fn stop(&self);
}

impl<A: Actor<Context = ReplicaContext<A>>> Stop for Lane<A> {
    fn stop(&self) {
        self.command(Command::Stop);
    }
}

/// What the Controller does with a replica, whatever actor it is.
pub(crate) trait ReplicaControl: Send + Sync {
    /// Finish what runs and waits, then stop.
    fn drain(&self);
    /// Stop now.
    fn stop(&self);
    /// Lets no call begin until what runs has ended and the `user_config` is changed, and tells how that went.
    fn change(&self, change: Change);
    /// Takes the change back that has not begun; false when it has, or there is none.
    fn withdraw(&self) -> bool;
    /// Asks for a health check; it is told how it went.
    fn check(&self, number: u64);
    /// Whether its state is being made again, or takes a `user_config`.
    fn remaking(&self) -> bool;
    /// Turns away what still waits there: its thread hangs in a handler and cannot do it.
    fn close(&self);
    /// Limits and batching from now on, and how many calls are let in.
    fn set_limits(&self, config: &BackendConfig, admitted: usize);
    /// Calls that run or wait there.
    fn load(&self) -> usize;
}

/// How failed starts are retried before a replica gives up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Failed starts in `window` after which it gives up.
    pub(crate) failures_max: u32,
    /// How far back failures count.
    pub(crate) window: Duration,
    /// Pause after the first failure; doubled after each further one.
    pub(crate) backoff: Duration,
}

impl Patience {
    /// Never gives up and never pauses: for our own actors, whose factories cannot fail.
    pub(crate) const ENDLESS: Self =
        Self { failures_max: u32::MAX, window: Duration::ZERO, backoff: Duration::ZERO };
}
