//! Closures that have a device to themselves: for code that brings its own calls of wgpu, as frameworks do.

use std::{
    cell::Cell,
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    error::GpuError,
    job::JobDone,
    lease::GpuLease,
    link::{Command, Link},
    pending::{Pending, block_on},
};

/// A device that is lent as a whole while a closure runs: wgpu's own handles to it, of one epoch.
///
/// Handles can be cloned, and frameworks do; nothing stops them from being used outside of closures, and then neither
/// shares nor anybody's waiting times hold. It is a matter of trust, as `docs/gpu.md` says.
#[derive(Clone, Debug)]
pub struct ExclusiveDevice {
    pub(crate) instance: wgpu::Instance,
    pub(crate) adapter: wgpu::Adapter,
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
}

impl ExclusiveDevice {
    /// Where the adapter is from.
    pub fn instance(&self) -> &wgpu::Instance {
        &self.instance
    }

    /// Where the device is from. The device has all features of it that are not experimental.
    pub fn adapter(&self) -> &wgpu::Adapter {
        &self.adapter
    }

    /// The device that all leases share.
    pub fn device(&self) -> &wgpu::Device {
        &self.device
    }

    /// Its only queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.queue
    }
}

/// How far a turn is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// Given; the closure has not begun.
    Given,
    /// The closure runs.
    Begun,
    /// The closure has returned, or never will.
    Ended,
    /// It did not begin in time.
    TakenBack,
}

/// How long what a closure left running is waited for on its own thread.
const SETTLE_WITHIN: Duration = Duration::from_secs(10);

/// How far a turn is, for both sides.
#[derive(Debug, Default)]
pub(crate) struct TurnStage(AtomicU8);

impl TurnStage {
    pub(crate) fn get(&self) -> Stage {
        match self.0.load(Ordering::Acquire) {
            0 => Stage::Given,
            1 => Stage::Begun,
            2 => Stage::Ended,
            _ => Stage::TakenBack,
        }
    }

    fn leave_given(&self, to: Stage) -> bool {
        let change =
            self.0.compare_exchange(Stage::Given as u8, to as u8, Ordering::AcqRel, Ordering::Acquire);
        change.is_ok()
    }

    /// Whether it was taken back: a closure that has begun goes on.
    pub(crate) fn take_back(&self) -> bool {
        self.leave_given(Stage::TakenBack)
    }
}

/// A lent device that nobody has unpacked. Not the device itself: whether that may go to another thread is a question
/// through all of wgpu's types, too long for the compiler where it is asked of a lease.
pub(crate) type Lent = Box<dyn FnOnce() -> ExclusiveDevice + Send>;

/// A turn that was given to a closure; it ends on drop, however that comes about.
pub(crate) struct Turn {
    pub(crate) device: Option<Lent>,
    pub(crate) stage: Arc<TurnStage>,
    pub(crate) link: Arc<Link>,
}

impl Turn {
    /// Runs the closure, unless it is too late.
    fn run<R>(mut self, run: impl FnOnce(&ExclusiveDevice) -> R) -> Option<R> {
        if !self.stage.leave_given(Stage::Begun) {
            return None;
        }
        let _inside = Inside::enter();
        // Gone before the turn is: the device's thread may be about to close it.
        let device = self.device.take()?();
        let result = run(&device);
        // Callbacks that it left are run here, and not by the device's thread, which everybody needs.
        let settled = wgpu::PollType::Wait { submission_index: None, timeout: Some(SETTLE_WITHIN) };
        // A time-out is for the watchdog; a loss comes by the callback.
        let _ = device.device.poll(settled);
        Some(result)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.device = None;
        if self.stage.get() != Stage::TakenBack {
            self.stage.0.store(Stage::Ended as u8, Ordering::Release);
        }
        self.link.wake();
    }
}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Marks that a closure runs on this thread.
struct Inside;

impl Inside {
    fn enter() -> Self {
        INSIDE.set(true);
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(false);
    }
}

/// A closure on its way to its turn; a future for any executor, or waited for by a plain thread. The closure runs where
/// this is polled or waited for, once, and blocks that thread. Dropping it withdraws a closure that has not begun.
#[must_use = "dropping it withdraws the closure"]
pub struct PendingTurn<R, F> {
    lease: GpuLease,
    run: Option<F>,
    result: Option<R>,
    turn: oneshot::Receiver<Turn>,
    done: Pending<JobDone>,
}

impl<R, F> fmt::Debug for PendingTurn<R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingTurn").field("begun", &self.run.is_none()).finish_non_exhaustive()
    }
}

impl<R, F: FnOnce(&ExclusiveDevice) -> R> PendingTurn<R, F> {
    /// Blocks this thread until the closure has run and the device is done with what it left: for plain threads.
    ///
    /// # Errors
    /// As the future.
    pub fn wait(self) -> Result<R, GpuError> {
        block_on(self)
    }
}

// Nothing in it is ever pinned.
impl<R, F> Unpin for PendingTurn<R, F> {}

impl<R, F: FnOnce(&ExclusiveDevice) -> R> Future for PendingTurn<R, F> {
    type Output = Result<R, GpuError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.run.is_some() {
            if INSIDE.get() {
                this.run = None;
                return Poll::Ready(Err(GpuError::invalid("a turn inside a turn: it would wait for itself")));
            }
            match Pin::new(&mut this.turn).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(turn) => {
                    let run = this.run.take();
                    // A device that was lost meanwhile is none to run on; the answer below says so.
                    if let (Ok(turn), Some(run)) = (turn, run)
                        && !this.lease.is_lost()
                    {
                        this.result = turn.run(run);
                    }
                }
            }
        }
        // Whoever has an answer has had a turn, unless its closure panicked.
        Pin::new(&mut this.done)
            .poll(cx)
            .map(|done| done.and_then(|_| this.result.take().ok_or(GpuError::Closed)))
    }
}

impl GpuLease {
    /// Runs a closure that has the device to itself, at the turn of this lease: after the jobs that it sent before, and
    /// when its share says so. Nothing else runs on the device meanwhile, so the lease is charged for all of it: the
    /// time by the host's clock from the moment the device was free for it until the device was done with all that the
    /// closure gave it. It is one slice, however long it is.
    ///
    /// The closure runs on the thread that polls the future or waits for it. It should wait for its own results, as
    /// what it leaves running is waited for before anybody else's turn. It must not ask for another turn, nor wait for
    /// a job: neither can come before it ends.
    ///
    /// ```
    /// use greenroom::gpu::{DeviceOptions, DeviceSource, Fraction, GpuDevice, LeaseRequest, wgpu};
    /// let options = DeviceOptions { source: DeviceSource::Noop, ..DeviceOptions::default() };
    /// let device = GpuDevice::open(options).wait()?;
    /// let half = Fraction::parse(0.5)?.expect("not 0");
    /// let lease = device.lease(LeaseRequest::new(half)).wait()?;
    /// let submitted = lease.exclusive(|lent| {
    ///     let encoder = lent.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    ///     lent.queue().submit([encoder.finish()])
    /// });
    /// submitted.wait()?;
    /// # Ok::<(), greenroom::gpu::GpuError>(())
    /// ```
    ///
    /// # Errors
    /// [`GpuError::OverQuota`] when more memory was left in use than the lease may have, and from then on;
    /// [`GpuError::TurnMissed`] when the closure did not begin in time; [`GpuError::Invalid`] and
    /// [`GpuError::DeviceOutOfMemory`] for what wgpu reported of the closure and nobody caught; [`GpuError::Watchdog`] when
    /// it took too long, [`GpuError::DeviceLost`], and what every use of a lease may meet. [`GpuError::Invalid`] also on a
    /// simulated device, which has nothing to lend. Where the closure has run, what it returned is dropped.
    pub fn exclusive<R, F>(&self, run: F) -> PendingTurn<R, F>
    where
        F: FnOnce(&ExclusiveDevice) -> R,
    {
        let (give, turn) = oneshot::channel();
        let done = self.ask(|of, answer| Ok(Command::Exclusive { of, give, answer }));
        PendingTurn { lease: self.clone(), run: Some(run), result: None, turn, done }
    }
}
