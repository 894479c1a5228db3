//! A device that is open: its thread, and the handle through which leases on it are had.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    capacity::{Capacity, Free},
    core::Core,
    counts::DeviceHealth,
    device::{DeviceClock, DeviceFacts, DeviceOps, DeviceSource, Simulated, WgpuDevice},
    error::GpuError,
    lease::{GpuLease, LeaseRequest},
    link::{Answer, COMMANDS_MAX, Command, Dropped, IDLE_LOOK, Link},
    pending::Pending,
    shares::{ShareOptions, SharePolicy},
    status::DeviceStatus,
    ticket::{CapacityTicket, Ended},
};

/// How long the thread waits for the device before it looks at its requests again: when a job could start, and when
/// the device has all it may have.
const LOOK: Duration = Duration::from_micros(200);
const LOOK_FULL: Duration = Duration::from_millis(1);
/// And how often it looks whether the device was lost while a closure has it; the closure's end wakes it.
const LOOK_LENT: Duration = Duration::from_millis(20);

/// How a device is opened and shared.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceOptions {
    /// Which device.
    pub source: DeviceSource,
    /// The memory it has, in bytes; absent: what the driver tells.
    pub memory_bytes: Option<u64>,
    /// How its time is shared.
    pub sharing: ShareOptions,
    /// Whose clock its time is measured by.
    pub clock: DeviceClock,
    /// Requests that one lease may have waiting or running.
    pub jobs_max: usize,
    /// After this long without the end of a slice the device is suspect: the status says so.
    pub suspect_after: Duration,
    /// After this long without the end of a slice the device is given up and opened again.
    pub give_up_after: Duration,
}

impl Default for DeviceOptions {
    fn default() -> Self {
        Self {
            source: DeviceSource::First,
            memory_bytes: None,
            sharing: ShareOptions::default(),
            clock: DeviceClock::default(),
            jobs_max: 64,
            suspect_after: Duration::from_secs(2),
            give_up_after: Duration::from_secs(10),
        }
    }
}

/// A device that is open. Clones are the same device; it is closed with the last of them and the last lease.
///
/// ```
/// use greenroom::gpu::{DeviceOptions, DeviceSource, Fraction, GpuDevice, LeaseRequest};
/// let options = DeviceOptions { source: DeviceSource::Noop, ..DeviceOptions::default() };
/// let device = GpuDevice::open(options).wait()?;
/// let half = Fraction::parse(0.5)?.expect("not 0");
/// let lease = device.lease(LeaseRequest::new(half).memory_bytes(1 << 20)).wait()?;
/// let buffer = lease.create_buffer(16).wait()?;
/// lease.write(&buffer, 0, vec![7; 16]).wait()?;
/// assert_eq!(lease.read(&buffer, 4, 8).wait()?.reads, [[7; 8]]);
/// # Ok::<(), greenroom::gpu::GpuError>(())
/// ```
#[derive(Clone, Debug)]
pub struct GpuDevice(Arc<DeviceHandle>);

#[derive(Debug)]
struct DeviceHandle {
    link: Arc<Link>,
    facts: DeviceFacts,
    capacity: Arc<Capacity>,
    jobs_max: usize,
}

impl GpuDevice {
    /// Opens a device on a thread of its own.
    ///
    /// # Errors
    /// [`GpuError::NoDevice`] with what was found.
    pub fn open(options: DeviceOptions) -> Pending<Self> {
        Pending::ask(|answer| {
            let run = move || match &options.source {
                DeviceSource::Simulated(spec) => {
                    let device = Simulated::new(spec.clone(), options.memory_bytes);
                    serve(Ok(device), options, answer);
                }
                source => {
                    let device = WgpuDevice::new(source.clone(), options.memory_bytes, options.clock);
                    serve(device, options, answer);
                }
            };
            let spawned = thread::Builder::new().name("greenroom-gpu".into()).spawn(run);
            spawned.map(drop).map_err(|error| GpuError::NoDevice { why: error.to_string().into() })
        })
    }

    /// What it is.
    pub fn facts(&self) -> &DeviceFacts {
        &self.0.facts
    }

    /// What no lease has.
    pub fn free(&self) -> Free {
        self.0.capacity.free()
    }

    /// What it has for leases when none is given.
    pub(crate) fn all(&self) -> Free {
        self.0.capacity.all()
    }

    /// How often it was opened.
    pub fn epoch(&self) -> u64 {
        self.0.link.epoch()
    }

    /// How often it was lost.
    pub fn losses(&self) -> u64 {
        self.0.link.seen.lost()
    }

    /// Device time of all slices that have ended.
    pub fn busy(&self) -> Duration {
        self.0.link.seen.busy()
    }

    /// How it is, as its thread last wrote it.
    pub(crate) fn health(&self) -> DeviceHealth {
        self.0.link.seen.health()
    }

    /// Takes a share of it.
    ///
    /// # Errors
    /// [`GpuError::Unplaceable`] when it has not enough left, [`GpuError::NoDevice`] when it could not be opened
    /// again after a loss.
    pub fn lease(&self, request: LeaseRequest) -> Pending<GpuLease> {
        match self.reserve(&request) {
            Ok(ticket) => self.lease_on(ticket, request.policy),
            Err(error) => Pending::refused(error),
        }
    }

    /// Takes the place of a lease.
    pub(crate) fn reserve(&self, request: &LeaseRequest) -> Result<Arc<CapacityTicket>, GpuError> {
        self.0.capacity.take(request.share, request.memory_bytes).map(Arc::new)
    }

    /// The lease on a place that was taken.
    pub(crate) fn lease_on(&self, ticket: Arc<CapacityTicket>, policy: SharePolicy) -> Pending<GpuLease> {
        let device = self.clone();
        Pending::ask(|answer| self.0.link.send(Command::Acquire { policy, ticket, device, answer }))
    }

    /// Takes a place back, whatever the thread of who has its lease does: its jobs fail, every later use too, and it
    /// is free when its last slice has ended.
    pub(crate) fn take_back(&self, ticket: Arc<CapacityTicket>) {
        ticket.end(Ended::Revoked);
        self.0.link.dropped(Dropped::Place(ticket));
    }

    /// Whether more of it will be free soon: the last slices of a lease run.
    pub(crate) fn is_being_left(&self) -> bool {
        self.0.capacity.is_being_left()
    }

    /// The quota that such a lease would get.
    pub(crate) fn quota(&self, request: &LeaseRequest) -> u64 {
        self.0.capacity.quota(request.share, request.memory_bytes)
    }

    /// What it and its leases did.
    ///
    /// # Errors
    /// [`GpuError::Closed`].
    pub fn status(&self) -> Pending<DeviceStatus> {
        Pending::ask(|answer| self.0.link.send(Command::Status { answer }))
    }

    /// Loses the device as a failing driver would, for drills: all its jobs fail, and it is opened again.
    ///
    /// # Errors
    /// [`GpuError::Closed`], [`GpuError::QueueFull`].
    pub fn lose(&self) -> Result<(), GpuError> {
        self.0.link.send(Command::Lose)
    }

    /// Ends its thread. Everything that is asked of it or of its leases from then on fails. The answer comes when the
    /// driver is done with it: wait for it before the process ends, some drivers crash otherwise.
    ///
    /// # Errors
    /// [`GpuError::Closed`] when it was closed before.
    pub fn close(&self) -> Pending<()> {
        Pending::ask(|answer| self.0.link.send(Command::Close { answer }))
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.0.link
    }

    pub(crate) fn jobs_max(&self) -> usize {
        self.0.jobs_max
    }
}

impl Drop for DeviceHandle {
    fn drop(&mut self) {
        self.link.close();
    }
}

/// The device's thread: requests in, slices out, until nobody is left.
fn serve<D: DeviceOps>(device: Result<D, GpuError>, options: DeviceOptions, answer: Answer<GpuDevice>) {
    let device = match device {
        Ok(device) => device,
        // Whoever asked may have left.
        Err(error) => return drop(answer.send(Err(error))),
    };
    let (commands, requests) = sync_channel(COMMANDS_MAX);
    let link = Arc::new(Link::new(commands));
    let facts = device.facts().clone();
    let capacity = Arc::new(Capacity::new(facts.memory_bytes));
    let handle = DeviceHandle {
        link: Arc::clone(&link),
        facts,
        capacity: Arc::clone(&capacity),
        jobs_max: options.jobs_max,
    };
    let mut core = match Core::new(device, link, capacity, options) {
        Ok(core) => core,
        Err(error) => return drop(answer.send(Err(error))),
    };
    let origin = Instant::now();
    if answer.send(Ok(GpuDevice(Arc::new(handle)))).is_err() {
        return;
    }
    while !core.is_closed() {
        // A driver that panics is a driver that failed.
        let turn = catch_unwind(AssertUnwindSafe(|| turn(&mut core, &requests, origin)));
        if turn.is_err() {
            // When it panics here too, the next use of the device tells what it is worth.
            let give_up = || core.give_up("the driver panicked".into(), origin.elapsed());
            let _ = catch_unwind(AssertUnwindSafe(give_up));
        }
    }
    core.end();
}

fn turn<D: DeviceOps>(core: &mut Core<D>, requests: &Receiver<Command>, origin: Instant) {
    for _ in 0..COMMANDS_MAX {
        let Ok(command) = requests.try_recv() else { break };
        core.handle(command, origin.elapsed());
    }
    let due = core.advance(origin.elapsed());
    let now = origin.elapsed();
    let wait = due.map_or(IDLE_LOOK, |due| due.saturating_sub(now).min(IDLE_LOOK));
    if core.is_busy() && !core.is_lent() {
        let look = if core.is_full() { LOOK_FULL } else { LOOK };
        core.collect(wait.min(look), now);
        core.settle(origin.elapsed());
        return;
    }
    match requests.recv_timeout(if core.is_lent() { wait.min(LOOK_LENT) } else { wait }) {
        Ok(command) => core.handle(command, origin.elapsed()),
        // The core holds a sender itself, so there is always one.
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        gpu::{counts::LeaseCounts, memory::MemoryAccount},
        resources::Fraction,
    };

    #[test]
    fn a_lease_released_to_a_thread_that_has_no_room_is_given_back_all_the_same() {
        let (commands, requests) = sync_channel(1);
        let link = Arc::new(Link::new(commands));
        let capacity = Arc::new(Capacity::new(1 << 20));
        let facts = Simulated::new(Default::default(), None).facts().clone();
        let handle = DeviceHandle { link: Arc::clone(&link), facts, capacity, jobs_max: 1 };
        let device = GpuDevice(Arc::new(handle));
        let ticket = device.reserve(&LeaseRequest::new(Fraction::ONE)).unwrap();
        let (account, counts) = (MemoryAccount::new(ticket.memory_bytes), Arc::<LeaseCounts>::default());
        let lease = GpuLease::new(7, account, counts, SharePolicy::default(), ticket, device.clone());
        device.lose().unwrap();
        assert_eq!(lease.release().wait().unwrap_err(), GpuError::QueueFull { limit: COMMANDS_MAX });
        let mut dropped = Vec::new();
        link.take_dropped(&mut dropped);
        assert!(matches!(dropped[..], [Dropped::Lease(7)]), "{dropped:?}");
        drop(requests);
    }
}
