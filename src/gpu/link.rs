//! The way from leases, buffers and jobs to the thread of their device: a bounded channel, and a list of what was dropped.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{SyncSender, TrySendError},
    },
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

/// What the device's thread is asked for.
pub(crate) enum Command {
    Acquire { policy: SharePolicy, ticket: Arc<CapacityTicket>, device: GpuDevice, answer: Answer<GpuLease> },
    CreateBuffer { of: Of, bytes: u64, answer: Answer<GpuBuffer> },
    CreateKernel { of: Of, spec: KernelSpec, answer: Answer<GpuKernel> },
    Submit { of: Of, job: Job, answer: Answer<JobDone> },
    Exclusive { of: Of, give: oneshot::Sender<Turn>, answer: Answer<JobDone> },
    Status { answer: Answer<DeviceStatus> },
    Release { lease: u64, answer: Answer<()> },
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
            news.await;
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
