//! What the device's thread does, step by step: requests in, slices to the device, answers out.

mod compiling;
mod exclusive;
mod leases;
mod loss;
mod report;
mod second;
mod slicing;
mod tenant;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use smallvec::SmallVec;

use super::{
    buffer::{BufferHandle, GpuBuffer},
    capacity::Capacity,
    device::{DeviceOps, Done, FLIGHTS_MAX},
    error::GpuError,
    gpu_device::DeviceOptions,
    job::Job,
    kernel::KernelSpec,
    link::{Answer, Command, Dropped, Link, Of, deliver, discard},
    memory::{Charge, rounded},
    shares::{Next, Shares},
    slices::Cost,
};
use compiling::Compiling;
use exclusive::Alone;
use loss::Losses;
use second::Second;
pub(crate) use tenant::Used;
use tenant::{Running, Tenant};

/// How long a device that is closed waits for those that were lost before and are not gone yet.
const ABANDONED_MAX: Duration = Duration::from_secs(2);
const ABANDONED_LOOK: Duration = Duration::from_millis(2);

/// The longest slice that may be asked for: as good as never cutting, and no sum of such overflows.
const SLICE_MAX: Duration = Duration::from_secs(3600);

/// A buffer on the device with the memory it is charged.
struct Held<B> {
    lease: u64,
    bytes: u64,
    buffer: B,
    _charge: Charge,
}

/// A kernel on the device and what its work costs.
struct Compiled<K> {
    lease: u64,
    spec: KernelSpec,
    kernel: K,
    cost: Cost,
}

/// What a part of a slice is, for learning its cost.
#[derive(Clone, Copy, Debug)]
enum What {
    Kernel(u64),
    Write,
    Read,
}

/// A slice on the device.
struct Flight {
    ticket: u64,
    lease: u64,
    estimate: Duration,
    /// Each part with its units and what it was thought to take.
    parts: SmallVec<[(What, u64, Duration); 4]>,
    /// Which of the job's reads its reads belong to.
    reads: SmallVec<[usize; 2]>,
    /// Memory that the host and the device exchange through.
    staging: SmallVec<[Charge; 2]>,
}

/// All state of a device's thread.
pub(crate) struct Core<D: DeviceOps> {
    device: D,
    link: Arc<Link>,
    capacity: Arc<Capacity>,
    options: DeviceOptions,
    shares: Shares,
    tenants: BTreeMap<u64, Tenant<D::Bound>>,
    buffers: HashMap<u64, Held<D::Buffer>>,
    kernels: HashMap<u64, Compiled<D::Kernel>>,
    /// In the order of their end.
    flights: VecDeque<Flight>,
    ids: u64,
    writing: Cost,
    reading: Cost,
    /// When a slice last ended, or the first of several was started.
    progress_at: Duration,
    losses: Losses,
    busy: Duration,
    second: Second,
    done: Vec<Done>,
    dropped: Vec<Dropped>,
    /// Jobs that have ended and are to be answered when the device has its next slice: waking their callers takes
    /// longer than starting one.
    ended: Vec<Running<D::Bound>>,
    closing: Option<Answer<()>>,
    /// A closure that has the device, or has just had it.
    alone: Option<Alone>,
    compiling: Compiling<D>,
}

impl<D: DeviceOps> Core<D> {
    pub(crate) fn new(
        device: D,
        link: Arc<Link>,
        capacity: Arc<Capacity>,
        mut options: DeviceOptions,
    ) -> Result<Self, GpuError> {
        // Whoever asks for more asks for as much as there can be.
        options.sharing.depth_max = options.sharing.depth_max.min(FLIGHTS_MAX);
        options.sharing.slice_max = options.sharing.slice_max.min(SLICE_MAX);
        let compiling = Compiling::start(&link)?;
        Ok(Self {
            device,
            link,
            capacity,
            shares: Shares::new(options.sharing),
            options,
            tenants: BTreeMap::new(),
            buffers: HashMap::new(),
            kernels: HashMap::new(),
            flights: VecDeque::new(),
            ids: 0,
            // A gigabyte a second, until it is measured.
            writing: Cost::assumed(1.0),
            reading: Cost::assumed(1.0),
            progress_at: Duration::ZERO,
            losses: Losses::default(),
            busy: Duration::ZERO,
            second: Second::default(),
            done: Vec::new(),
            dropped: Vec::new(),
            ended: Vec::new(),
            closing: None,
            alone: None,
            compiling,
        })
    }

    pub(crate) fn is_busy(&self) -> bool {
        !self.flights.is_empty()
    }

    /// Whether a job that came now could start at once.
    pub(crate) fn is_full(&self) -> bool {
        self.flights.len() >= self.shares.options().depth_max
    }

    /// Whether it is to end; a closure that has the device is waited for.
    pub(crate) fn is_closed(&self) -> bool {
        (self.closing.is_some() || self.link.is_closing()) && self.alone.is_none()
    }

    /// Does what is asked.
    pub(crate) fn handle(&mut self, command: Command, now: Duration) {
        // What was dropped before makes room for what is asked now.
        self.free_dropped();
        match command {
            Command::Acquire { policy, ticket, device, answer } => {
                // Whoever asked may have left: the lease then goes as it would from them.
                deliver(answer, self.acquire(policy, ticket, device, now));
            }
            Command::CreateBuffer { of, bytes, answer } => {
                let made = self.create_buffer(&of, bytes);
                drop(of);
                deliver(answer, made);
            }
            Command::CreateKernel { of, spec, answer } => self.compile(of, spec, answer),
            Command::Submit { of, job, answer } => self.queue(of, job, answer, now),
            Command::Exclusive { of, give, answer } => self.queue_closure(of, give, answer, now),
            Command::Status { answer } => {
                let status = self.status(now);
                deliver(answer, Ok(status));
            }
            Command::Release { lease, ticket, answer } => self.release_for(lease, &ticket, answer),
            Command::Lose => {
                self.device.lose();
                self.notice_loss(now);
            }
            Command::Wake => {}
            Command::Close { answer } if self.closing.is_none() => self.closing = Some(answer),
            // Closed before, and so hears who asks again.
            Command::Close { answer } => discard(answer),
        }
        self.notice_loss(now);
    }

    /// Starts what may start now. Answers when to look again at the latest, unless something happens before.
    pub(crate) fn advance(&mut self, now: Duration) -> Option<Duration> {
        self.free_dropped();
        self.take_compiled();
        self.roll(now);
        self.look_at_turn(now);
        self.watch(now);
        let due = loop {
            match self.shares.next(now) {
                Next::Start(lease) => {
                    if !self.start(lease, now) {
                        break None;
                    }
                }
                Next::Until(then) => break Some(then),
                Next::Full | Next::Idle => break None,
            }
        };
        self.answer();
        let watch =
            (!self.flights.is_empty()).then(|| self.progress_at.saturating_add(self.options.give_up_after));
        due.into_iter().chain(watch).min()
    }

    /// Waits up to `wait` for slices to end.
    pub(crate) fn collect(&mut self, wait: Duration, now: Duration) {
        self.device.collect(wait, now, &mut self.done);
    }

    /// Takes account of the slices that have ended, and answers jobs.
    pub(crate) fn settle(&mut self, now: Duration) {
        if self.device.lost().is_some() {
            // What a lost device says of its slices is worth nothing.
            return self.notice_loss(now);
        }
        let mut done = std::mem::take(&mut self.done);
        for ended in done.drain(..) {
            // While it is still seen to run: what it had of the seconds that are over.
            self.roll(now);
            let Some(flight) = self.flights.pop_front_if(|flight| flight.ticket == ended.ticket) else {
                continue;
            };
            self.progress_at = now;
            let ended = if self.alone.is_some() { self.close_turn(ended, now) } else { ended };
            self.learn(&flight, ended.device_time);
            self.busy += ended.device_time;
            self.link.seen.set_busy(self.busy);
            self.shares.settled(flight.lease, flight.estimate, ended.device_time);
            let of_second = self.second.ended(ended.device_time, now);
            if let Some(tenant) = self.tenants.get_mut(&flight.lease) {
                tenant.used.this_second += of_second;
                tenant.slice_ended(&flight, ended);
            }
            self.end_front(flight.lease, now);
        }
        self.done = done;
    }

    /// Answers the jobs that have ended.
    fn answer(&mut self) {
        self.ended.drain(..).for_each(Running::answer);
    }

    fn id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    fn create_buffer(&mut self, of: &Of, bytes: u64) -> Result<GpuBuffer, GpuError> {
        let reserved = self.tenant(of)?.account.reserve(bytes)?;
        let buffer = self.device.create_buffer(rounded(bytes))?;
        let (id, lease, charge) = (self.id(), of.lease, reserved.commit());
        self.buffers.insert(id, Held { lease, bytes, buffer, _charge: charge });
        let link = Arc::clone(&self.link);
        Ok(GpuBuffer(Arc::new(BufferHandle { id, lease, epoch: of.epoch, bytes, link })))
    }

    fn queue(&mut self, of: Of, job: Job, answer: Answer<super::JobDone>, now: Duration) {
        let lease = of.lease;
        match self.tenant(&of) {
            Ok(tenant) => {
                tenant.jobs.push_back(Running::new(job, answer, of.place, now));
                self.shares.arrived(lease, now);
            }
            Err(error) => {
                drop(of);
                discard(job);
                deliver(answer, Err(error));
            }
        }
    }

    fn free_dropped(&mut self) {
        let mut dropped = std::mem::take(&mut self.dropped);
        self.link.take_dropped(&mut dropped);
        for what in dropped.drain(..) {
            match what {
                Dropped::Buffer(id) => drop(self.buffers.remove(&id)),
                Dropped::Kernel(id) => drop(self.kernels.remove(&id)),
                Dropped::Lease(id) => self.release(id, None),
                Dropped::Place(ticket) => self.take_back(&ticket),
            }
        }
        self.dropped = dropped;
    }

    /// Takes the jobs that have ended from the head of a lease's queue.
    fn end_front(&mut self, lease: u64, now: Duration) {
        let Some(tenant) = self.tenants.get_mut(&lease) else { return };
        while let Some(job) = tenant.pop_ended() {
            tenant.used.failed += u64::from(job.has_failed());
            self.shares.answered(lease, now);
            self.ended.push(job);
        }
        tenant.counts.write(&tenant.used);
        self.forget_if_ended(lease);
    }

    /// The thread ends: nobody waits for an answer that never comes.
    pub(crate) fn end(mut self) {
        self.answer();
        for tenant in std::mem::take(&mut self.tenants).into_values() {
            tenant.fail(&GpuError::Closed, &GpuError::Closed);
        }
        self.compiling.refuse_all(&GpuError::Closed);
        let closing = self.closing.take();
        let began = Instant::now();
        while self.device.abandoned() > 0 && began.elapsed() < ABANDONED_MAX {
            thread::park_timeout(ABANDONED_LOOK);
        }
        // The device too, before anybody hears of it: drivers do not like to be left running when a process ends.
        let Self { device, compiling, buffers, kernels, ended, .. } = self;
        drop((device, buffers, kernels, ended));
        compiling.end();
        if let Some(answer) = closing {
            deliver(answer, Ok(()));
        }
    }
}
