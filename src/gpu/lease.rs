//! A lease: a share of one device and a quota of its memory, with which buffers, kernels and jobs are made.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use bytes::Bytes;

use super::{
    buffer::GpuBuffer,
    counts::LeaseCounts,
    device::DeviceFacts,
    error::GpuError,
    gpu_device::GpuDevice,
    job::{Job, JobDone},
    kernel::{GpuKernel, KernelSpec},
    link::{Command, Dropped, Of, Place},
    memory::MemoryAccount,
    pending::Pending,
    shares::SharePolicy,
    status::LeaseStatus,
    ticket::CapacityTicket,
};
use crate::resources::Fraction;

/// What a lease asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeaseRequest {
    pub(crate) share: Fraction,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) policy: SharePolicy,
}

impl LeaseRequest {
    /// A share of a device's time, with the same share of its memory, that may use what others leave of the time.
    pub fn new(share: Fraction) -> Self {
        Self { share, memory_bytes: None, policy: SharePolicy::default() }
    }

    /// Another quota of memory, in bytes; staging for reads and writes counts too.
    #[must_use]
    pub fn memory_bytes(self, bytes: u64) -> Self {
        Self { memory_bytes: Some(bytes), ..self }
    }

    /// What it gets when nobody else wants the device.
    #[must_use]
    pub fn policy(self, policy: SharePolicy) -> Self {
        Self { policy, ..self }
    }
}

/// A share of a device. Clones are the same lease; it is released with the last of them, or by
/// [`GpuLease::release`]. It belongs to one epoch of its device: when the device is lost, everything made with it is
/// void, and [`GpuLease::renew`] gives a lease of the same share on the device that was opened instead.
#[derive(Clone, Debug)]
pub struct GpuLease(Arc<LeaseHandle>);

#[derive(Debug)]
struct LeaseHandle {
    id: u64,
    epoch: u64,
    released: AtomicBool,
    places: Arc<AtomicUsize>,
    account: Arc<MemoryAccount>,
    counts: Arc<LeaseCounts>,
    policy: SharePolicy,
    ticket: Arc<CapacityTicket>,
    device: GpuDevice,
}

/// Looks at a lease without holding it.
#[derive(Clone, Debug)]
pub(crate) struct LeaseGauge {
    id: u64,
    share: Fraction,
    account: Arc<MemoryAccount>,
    counts: Arc<LeaseCounts>,
    lease: Weak<LeaseHandle>,
}

/// A lease that does not keep its place.
#[derive(Debug)]
pub(crate) struct WeakLease(Weak<LeaseHandle>);

impl WeakLease {
    pub(crate) fn upgrade(&self) -> Option<GpuLease> {
        self.0.upgrade().map(GpuLease)
    }
}

impl LeaseHandle {
    /// Whether it was neither released nor taken back.
    fn check(&self) -> Result<(), GpuError> {
        if self.released.load(Ordering::Acquire) {
            return Err(GpuError::Released);
        }
        self.ticket.check()
    }
}

impl LeaseGauge {
    /// Whether anybody holds the lease, and it is good.
    pub(crate) fn is_live(&self) -> bool {
        self.lease.upgrade().is_some_and(|lease| lease.check().is_ok())
    }

    /// Whether both look at one lease.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.counts, &other.counts)
    }

    /// What the lease has and did.
    pub(crate) fn read(&self) -> LeaseStatus {
        let outstanding = self.lease.upgrade().map_or(0, |lease| lease.places.load(Ordering::Relaxed));
        LeaseStatus { outstanding, ..self.counts.read(self.id, self.share, &self.account) }
    }
}

impl GpuLease {
    pub(crate) fn new(
        id: u64,
        account: Arc<MemoryAccount>,
        counts: Arc<LeaseCounts>,
        policy: SharePolicy,
        ticket: Arc<CapacityTicket>,
        device: GpuDevice,
    ) -> Self {
        let (epoch, released, places) = (device.epoch(), AtomicBool::new(false), Arc::default());
        Self(Arc::new(LeaseHandle { id, epoch, released, places, account, counts, policy, ticket, device }))
    }

    /// The share of the device's time.
    pub fn share(&self) -> Fraction {
        self.0.ticket.share
    }

    /// The most memory it may hold, in bytes.
    pub fn memory_quota_bytes(&self) -> u64 {
        self.0.account.quota()
    }

    /// The memory it holds, in bytes, staging included.
    pub fn memory_used_bytes(&self) -> u64 {
        self.0.account.used()
    }

    /// The device it is on.
    pub fn device(&self) -> &GpuDevice {
        &self.0.device
    }

    /// The device's name and limits.
    pub fn facts(&self) -> &DeviceFacts {
        self.0.device.facts()
    }

    /// Which opening of the device it belongs to.
    pub fn epoch(&self) -> u64 {
        self.0.epoch
    }

    /// Its number among the leases of the device, as in the status.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// What it has and did, as of its last slice; nothing is waited for. Its requests that are on the way to the
    /// device count as outstanding.
    pub fn status(&self) -> LeaseStatus {
        self.gauge().read()
    }

    pub(crate) fn gauge(&self) -> LeaseGauge {
        LeaseGauge {
            id: self.0.id,
            share: self.share(),
            account: Arc::clone(&self.0.account),
            counts: Arc::clone(&self.0.counts),
            lease: Arc::downgrade(&self.0),
        }
    }

    /// Whether its device was lost since it was given, or it has ended for its memory: then it is of no use until it is renewed.
    pub fn is_lost(&self) -> bool {
        self.0.epoch != self.0.device.epoch() || self.0.counts.over_quota().is_some()
    }

    /// Ends when its device is lost or it ends for its memory. Holds neither the lease nor the device.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let (link, epoch) = (Arc::clone(self.0.device.link()), self.0.epoch);
        let counts = Arc::clone(&self.0.counts);
        async move { link.until(|link| link.epoch() != epoch || counts.over_quota().is_some()).await }
    }

    /// Makes a buffer of zeros. Its size is rounded up to a multiple of 4.
    ///
    /// # Errors
    /// [`GpuError::QuotaExceeded`], [`GpuError::BufferTooLarge`], [`GpuError::DeviceOutOfMemory`], and what every
    /// use of a lease may meet: [`GpuError::Released`], [`GpuError::Revoked`], [`GpuError::OtherEpoch`],
    /// [`GpuError::QueueFull`], [`GpuError::DeviceLost`], [`GpuError::Closed`].
    pub fn create_buffer(&self, bytes: u64) -> Pending<GpuBuffer> {
        self.ask(|of, answer| {
            let max_bytes = self.facts().buffer_bytes_max;
            if bytes > max_bytes {
                return Err(GpuError::BufferTooLarge { requested_bytes: bytes, max_bytes });
            }
            if bytes == 0 {
                return Err(GpuError::invalid("a buffer of 0 bytes"));
            }
            Ok(Command::CreateBuffer { of, bytes: bytes.next_multiple_of(4), answer })
        })
    }

    /// Compiles a kernel.
    ///
    /// # Errors
    /// [`GpuError::Wgsl`] with the place in the text, [`GpuError::Invalid`] for what the device does not take, and
    /// what every use of a lease may meet.
    pub fn create_kernel(&self, spec: KernelSpec) -> Pending<GpuKernel> {
        self.ask(|of, answer| Ok(Command::CreateKernel { of, spec, answer }))
    }

    /// Runs a job: at its turn among the leases of the device, after the jobs that this lease sent before.
    ///
    /// # Errors
    /// [`GpuError::Invalid`] for steps that do not fit, [`GpuError::QuotaExceeded`] when there is no room for
    /// staging, [`GpuError::DeviceLost`], [`GpuError::Watchdog`], and what every use of a lease may meet.
    pub fn submit(&self, job: Job) -> Pending<JobDone> {
        self.ask(|of, answer| {
            job.check(self.0.id, self.0.epoch, &self.0.device)?;
            Ok(Command::Submit { of, job, answer })
        })
    }

    /// Writes bytes into a buffer: a job of one step.
    ///
    /// # Errors
    /// As [`GpuLease::submit`].
    pub fn write(&self, buffer: &GpuBuffer, offset: u64, bytes: impl Into<Bytes>) -> Pending<JobDone> {
        self.submit(Job::new().write(buffer, offset, bytes))
    }

    /// Reads bytes of a buffer: a job of one step.
    ///
    /// # Errors
    /// As [`GpuLease::submit`].
    pub fn read(&self, buffer: &GpuBuffer, offset: u64, bytes: u64) -> Pending<JobDone> {
        self.submit(Job::new().read(buffer, offset, bytes))
    }

    /// The same share after the device was lost, or the lease came to hold more than its quota: a lease of its present
    /// epoch, in which buffers and kernels are to be made again. This lease itself when nothing was lost, and one and
    /// the same for all that ask after a loss.
    ///
    /// # Errors
    /// [`GpuError::Released`], [`GpuError::Revoked`], [`GpuError::NoDevice`] when the device could not be opened again.
    pub fn renew(&self) -> Pending<Self> {
        Pending::ask(|answer| {
            self.0.check()?;
            if !self.is_lost() {
                // Whoever asked is still there: it holds the other end.
                let _ = answer.send(Ok(self.clone()));
                return Ok(());
            }
            let (ticket, device) = (Arc::clone(&self.0.ticket), self.0.device.clone());
            let link = Arc::clone(device.link());
            link.send(Command::Acquire { policy: self.0.policy, ticket, device, answer })
        })
    }

    /// Gives the share and the memory back, whatever clones there are. Jobs that wait fail with
    /// [`GpuError::Released`], as does every later use; the answer comes when what was running has ended.
    ///
    /// # Errors
    /// [`GpuError::Invalid`] for a replica's lease, which ends with the replica; [`GpuError::Closed`];
    /// [`GpuError::QueueFull`] when the device has no room for requests: then it is given back with the last clone, and
    /// nobody tells when.
    pub fn release(self) -> Pending<()> {
        Pending::ask(|answer| {
            if self.0.ticket.is_kept() {
                return Err(GpuError::invalid("the lease is a replica's: it ends with the replica"));
            }
            let released = self.0.released.swap(true, Ordering::AcqRel);
            let (lease, ticket) = (self.0.id, Arc::clone(&self.0.ticket));
            let sent = self.0.device.link().send(Command::Release { lease, ticket, answer });
            if sent.is_err() {
                // Its drop has to do it.
                self.0.released.store(released, Ordering::Release);
            }
            sent
        })
    }

    pub(crate) fn downgrade(&self) -> WeakLease {
        WeakLease(Arc::downgrade(&self.0))
    }

    /// Takes a place among the requests of this lease and sends one, if the lease is good.
    pub(super) fn ask<T>(
        &self,
        command: impl FnOnce(Of, super::link::Answer<T>) -> Result<Command, GpuError>,
    ) -> Pending<T> {
        Pending::ask(|answer| {
            self.0.check()?;
            let (own, current) = (self.0.epoch, self.0.device.epoch());
            if own != current {
                return Err(GpuError::OtherEpoch { own, current });
            }
            if let Some(why) = self.0.counts.over_quota() {
                return Err(why.clone());
            }
            let place = Place::take(&self.0.places, self.0.device.jobs_max())?;
            let of = Of { lease: self.0.id, epoch: own, place };
            self.0.device.link().send(command(of, answer)?)
        })
    }
}

impl Drop for LeaseHandle {
    fn drop(&mut self) {
        if !self.released.load(Ordering::Acquire) {
            self.device.link().dropped(Dropped::Lease(self.id));
        }
    }
}
