//! The way from leases, buffers and jobs to the thread of their device: a bounded channel, and a list of what was dropped.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{SyncSender, TrySendError},
    },
    task::{Context, Wake, Waker},
    time::Duration,
};

use tokio::sync::{Notify, oneshot};

use super::{
    buffer::GpuBuffer,
    counts::DeviceCounts,
    error::GpuError,
    exclusive::Turn,
    gpu_device::GpuDevice,
    job::{Job, JobDone},
    kernel::{GpuKernel, KernelSpec},
    lease::GpuLease,
    shares::SharePolicy,
    status::DeviceStatus,
    ticket::CapacityTicket,
};

/// Requests on their way to the device's thread, of all leases together.
pub(crate) const COMMANDS_MAX: usize = 4096;

pub(crate) type Answer<T> = oneshot::Sender<Result<T, GpuError>>;

/// Answers from the device's thread; false when whoever asked has left. Wakers are the caller's: one that panics is no
/// failure of the device.
pub(crate) fn deliver<T>(to: oneshot::Sender<T>, what: T) -> bool {
    catch_unwind(AssertUnwindSafe(|| to.send(what).is_ok())).unwrap_or(true)
}

/// Drops on the device's thread what is the caller's, or wakes it.
pub(crate) fn discard<T>(what: T) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(what)));
}

/// A caller's waker that one thread wakes with others: no panic of it keeps them waiting.
struct Guarded(Waker);

impl Wake for Guarded {
    fn wake(self: Arc<Self>) {
        let _ = catch_unwind(AssertUnwindSafe(|| self.0.wake_by_ref()));
        discard(self);
    }
}

/// What the device's thread is asked for.
pub(crate) enum Command {
    Acquire { policy: SharePolicy, ticket: Arc<CapacityTicket>, device: GpuDevice, answer: Answer<GpuLease> },
    CreateBuffer { of: Of, bytes: u64, answer: Answer<GpuBuffer> },
    CreateKernel { of: Of, spec: KernelSpec, answer: Answer<GpuKernel> },
    Submit { of: Of, job: Job, answer: Answer<JobDone> },
    Exclusive { of: Of, give: oneshot::Sender<Turn>, answer: Answer<JobDone> },
    Status { answer: Answer<DeviceStatus> },
    Release { lease: u64, ticket: Arc<CapacityTicket>, answer: Answer<()> },
    Lose,
    Wake,
    Close { answer: Answer<()> },
}

/// Whose request it is, and its place among the requests that the lease may have at once.
pub(crate) struct Of {
    pub(crate) lease: u64,
    pub(crate) epoch: u64,
    pub(crate) place: Place,
}

/// What was dropped or taken back elsewhere and is to be freed by the device's thread.
#[derive(Debug)]
pub(crate) enum Dropped {
    Buffer(u64),
    Kernel(u64),
    Lease(u64),
    /// A place that has ended, whoever has its lease.
    Place(Arc<CapacityTicket>),
}

/// What the holders of leases and buffers share with the device's thread.
#[derive(Debug)]
pub(crate) struct Link {
    commands: SyncSender<Command>,
    epoch: AtomicU64,
    /// Told when the epoch has changed, or a lease has ended for its memory.
    news: Notify,
    pub(crate) seen: DeviceCounts,
    /// As long as there are things to drop, which quotas and leases bound.
    dropped: Mutex<Vec<Dropped>>,
    closing: AtomicBool,
    /// Whether a request to look around is on its way: one is enough, however much is dropped.
    woken: AtomicBool,
}

impl Link {
    pub(crate) fn new(commands: SyncSender<Command>) -> Self {
        Self {
            commands,
            epoch: AtomicU64::new(1),
            news: Notify::new(),
            seen: DeviceCounts::default(),
            dropped: Mutex::default(),
            closing: AtomicBool::new(false),
            woken: AtomicBool::new(false),
        }
    }

    /// Sends without ever waiting.
    pub(crate) fn send(&self, command: Command) -> Result<(), GpuError> {
        self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => GpuError::QueueFull { limit: COMMANDS_MAX },
            TrySendError::Disconnected(_) => GpuError::Closed,
        })
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(crate) fn next_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.tell();
    }

    /// Has those look who wait for the end of a lease.
    pub(crate) fn tell(&self) {
        self.news.notify_waiters();
    }

    /// Ends when there is news and `over` with it.
    pub(crate) async fn until(&self, over: impl Fn(&Self) -> bool) {
        loop {
            // Made before the look, so that no news between the two is missed.
            let news = self.news.notified();
            if over(self) {
                return;
            }
            let mut news = pin!(news);
            poll_fn(|cx| {
                let waker = Arc::new(Guarded(cx.waker().clone())).into();
                news.as_mut().poll(&mut Context::from_waker(&waker))
            })
            .await;
        }
    }

    /// Nobody is left who could ask for anything.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.wake();
    }

    /// Has the device's thread look around.
    pub(crate) fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            // When the channel is full it is awake anyway.
            let _ = self.commands.try_send(Command::Wake);
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(crate) fn dropped(&self, what: Dropped) {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner).push(what);
        self.wake();
    }

    pub(crate) fn take_dropped(&self, into: &mut Vec<Dropped>) {
        // Before the list is taken: what comes after it wakes again.
        self.woken.store(false, Ordering::Release);
        into.append(&mut self.dropped.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// One of the places that a lease has for its requests; given back on drop.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Place {
    pub(crate) fn take(taken: &Arc<AtomicUsize>, limit: usize) -> Result<Self, GpuError> {
        let room = |n: usize| (n < limit).then_some(n + 1);
        match taken.fetch_update(Ordering::AcqRel, Ordering::Relaxed, room) {
            Ok(_) => Ok(Self(Arc::clone(taken))),
            Err(_) => Err(GpuError::QueueFull { limit }),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// How often a device's thread looks at what is due when nothing is.
pub(crate) const IDLE_LOOK: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures_util::FutureExt;

    use super::*;
    use crate::gpu::{DeviceOptions, DeviceSource, Fraction, KernelSpec, LeaseRequest};

    /// Something of a caller's that panics.
    struct Bad(Arc<AtomicUsize>);

    impl Wake for Bad {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::AcqRel);
            panic!("a waker that panics");
        }
    }

    struct BadBytes(Arc<AtomicUsize>);

    impl AsRef<[u8]> for BadBytes {
        fn as_ref(&self) -> &[u8] {
            &[0; 4]
        }
    }

    impl Drop for BadBytes {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::AcqRel);
            panic!("bytes that panic");
        }
    }

    /// Polls once with a waker that panics, has the device go on, and takes the answer.
    fn badly<F: Future + Unpin>(mut future: F, go_on: impl FnOnce()) -> F::Output {
        let woken = Arc::<AtomicUsize>::default();
        let waker = Arc::new(Bad(Arc::clone(&woken))).into();
        let polled = future.poll_unpin(&mut Context::from_waker(&waker));
        go_on();
        let Poll::Pending = polled else { panic!("it was to be pending") };
        while woken.load(Ordering::Acquire) == 0 {
            std::thread::yield_now();
        }
        crate::gpu::pending::block_on(future)
    }

    #[test]
    fn wakers_and_bytes_that_panic_cost_nobody_the_device() {
        let options = DeviceOptions { source: DeviceSource::Noop, ..DeviceOptions::default() };
        let device = GpuDevice::open(options).wait().unwrap();
        let half = Fraction::parse(0.5).unwrap().unwrap();
        let lease = device.lease(LeaseRequest::new(half)).wait().unwrap();
        let other = device.lease(LeaseRequest::new(half)).wait().unwrap();
        // One may be answered before it is polled: then nobody is woken.
        let woken = |_| {
            let spec = KernelSpec::new("fn main( {");
            let woken =
                [once(device.status()), once(lease.create_buffer(4)), once(lease.create_kernel(spec))];
            woken.into_iter().filter(|woken| *woken).count()
        };
        assert!((0..20).map(woken).sum::<usize>() > 0);
        // Who waits for a turn is woken for sure.
        let (began, begun) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let holder = other.clone();
        let holds = std::thread::spawn(move || {
            holder
                .exclusive(|_| {
                    began.send(()).unwrap();
                    ended.recv().unwrap();
                })
                .wait()
        });
        begun.recv().unwrap();
        let turn = lease.exclusive(|_| 7);
        assert_eq!(badly(turn, || end.send(()).unwrap()).unwrap(), 7);
        holds.join().unwrap().unwrap();
        // Bytes of a job that is refused on the device's thread, as its lease has just ended there.
        let dropped = Arc::<AtomicUsize>::default();
        let buffer = lease.create_buffer(4).wait().unwrap();
        device.link().dropped(Dropped::Lease(lease.id()));
        let bytes = bytes::Bytes::from_owner(BadBytes(Arc::clone(&dropped)));
        assert_eq!(lease.write(&buffer, 0, bytes).wait().unwrap_err(), GpuError::Released);
        assert_eq!(dropped.load(Ordering::Acquire), 1);
        assert_eq!((device.losses(), device.epoch()), (0, 1), "the device is as it was");
        // The news of a loss reaches all, whoever's waker panics.
        let heard = other.lost().boxed();
        let (woken, waits) = (Arc::<AtomicUsize>::default(), other.lost());
        let waker = Arc::new(Bad(Arc::clone(&woken))).into();
        let mut bad = other.lost().boxed();
        assert!(bad.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
        let hears = std::thread::spawn(move || crate::gpu::pending::block_on(std::pin::pin!(waits)));
        device.lose().unwrap();
        crate::gpu::pending::block_on(heard);
        hears.join().unwrap();
        let renewed = other.renew().wait().unwrap();
        renewed.create_buffer(4).wait().unwrap();
        assert_eq!((device.losses(), device.epoch(), woken.load(Ordering::Acquire)), (1, 2, 1));
    }

    /// Whether it was polled before its answer was there; its waker panics.
    fn once<F: Future + Unpin>(mut future: F) -> bool {
        let woken = Arc::<AtomicUsize>::default();
        let waker = Arc::new(Bad(Arc::clone(&woken))).into();
        let pending = future.poll_unpin(&mut Context::from_waker(&waker)).is_pending();
        if pending {
            let _ = crate::gpu::pending::block_on(future);
        }
        pending
    }
}
