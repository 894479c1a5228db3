//! A lease on the device's thread: its jobs in order, what it used, and its end.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::{Flight, exclusive::Foreign};
use crate::gpu::{
    counts::LeaseCounts,
    device::Done,
    error::GpuError,
    exclusive::Turn,
    job::{Job, JobDone, Step},
    link::{Answer, Place, deliver, discard},
    memory::MemoryAccount,
    ticket::CapacityTicket,
};

/// A lease and its jobs.
pub(super) struct Tenant<B> {
    pub(super) account: Arc<MemoryAccount>,
    pub(super) counts: Arc<LeaseCounts>,
    pub(super) ticket: Arc<CapacityTicket>,
    /// In order; the first `started` have no slice left to start.
    pub(super) jobs: VecDeque<Running<B>>,
    started: usize,
    end: End,
    pub(super) used: Used,
    pub(super) foreign: Foreign,
}

/// How a lease ends.
#[derive(Default)]
enum End {
    #[default]
    Open,
    /// Released, with who waits for it.
    Released(SmallVec<[Answer<()>; 1]>),
}

/// What a lease has had.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    pub(crate) device_time: Duration,
    pub(crate) this_second: Duration,
    pub(crate) last_second: Duration,
    pub(crate) jobs: u64,
    pub(crate) failed: u64,
    pub(crate) slices: u64,
    pub(crate) queue_wait: Duration,
}

impl Used {
    /// So many jobs came to nothing.
    pub(super) fn fail(&mut self, jobs: u64) {
        self.jobs += jobs;
        self.failed += jobs;
    }
}

/// A job that waits or runs.
pub(super) struct Running<B> {
    pub(super) steps: Vec<Step>,
    /// Buffers bound, for the steps that slices were made of.
    pub(super) bounds: Vec<Option<B>>,
    /// The next step, and the units of it that were started.
    pub(super) step: usize,
    pub(super) units: u32,
    /// Whom the device is lent to as a whole, until it is: then there are no steps.
    pub(super) give: Option<oneshot::Sender<Turn>>,
    answer: Answer<JobDone>,
    place: Place,
    queued_at: Duration,
    began_at: Option<Duration>,
    in_flight: u32,
    done: JobDone,
    failed: Option<GpuError>,
}

impl<B> Tenant<B> {
    pub(super) fn new(
        account: Arc<MemoryAccount>,
        counts: Arc<LeaseCounts>,
        ticket: Arc<CapacityTicket>,
    ) -> Self {
        let (jobs, used) = (VecDeque::new(), Used::default());
        let foreign = Foreign::default();
        Self { account, counts, ticket, jobs, started: 0, end: End::Open, used, foreign }
    }

    pub(super) fn is_released(&self) -> bool {
        matches!(self.end, End::Released(_))
    }

    /// The job whose slice is next.
    pub(super) fn next_job(&mut self) -> Option<&mut Running<B>> {
        self.jobs.get_mut(self.started)
    }

    /// A slice of the next job went to the device.
    pub(super) fn slice_started(&mut self, now: Duration) {
        let Some(job) = self.jobs.get_mut(self.started) else { return };
        job.in_flight += 1;
        if job.began_at.is_none() {
            job.began_at = Some(now);
            job.done.queue_wait = now.saturating_sub(job.queued_at);
            self.used.queue_wait += job.done.queue_wait;
        }
        if job.step == job.steps.len() {
            self.started += 1;
        }
    }

    /// The next job is not to be run any further.
    pub(super) fn next_job_failed(&mut self, error: GpuError) {
        if let Some(job) = self.jobs.get_mut(self.started) {
            job.failed = Some(error);
            self.started += 1;
        }
    }

    /// The job that runs ends badly.
    pub(super) fn running_failed(&mut self, error: GpuError) {
        if let Some(job) = self.jobs.front_mut() {
            job.failed = Some(error);
        }
    }

    /// A slice ended; it is of the first job, since the device keeps the order.
    pub(super) fn slice_ended(&mut self, flight: &Flight, ended: Done) {
        self.used.device_time += ended.device_time;
        self.used.slices += 1;
        let Some(job) = self.jobs.front_mut() else { return };
        job.in_flight = job.in_flight.saturating_sub(1);
        job.done.device_time += ended.device_time;
        job.done.slices += 1;
        for (read, bytes) in flight.reads.iter().zip(ended.reads) {
            match job.done.reads.get_mut(*read) {
                Some(so_far) if so_far.is_empty() => *so_far = bytes,
                Some(so_far) => so_far.extend(bytes),
                None => {}
            }
        }
    }

    /// The first job, if all of it has ended.
    pub(super) fn pop_ended(&mut self) -> Option<Running<B>> {
        if self.started == 0 || self.jobs.front().is_none_or(|job| job.in_flight > 0) {
            return None;
        }
        self.started -= 1;
        self.used.jobs += 1;
        self.jobs.pop_front()
    }

    /// Jobs that have not begun fail; slices on the device end first.
    pub(super) fn release(&mut self, answer: Option<Answer<()>>) {
        if let End::Open = self.end {
            self.end = End::Released(SmallVec::new());
        }
        if let End::Released(waiting) = &mut self.end {
            waiting.extend(answer);
        }
        let why = self.ticket.check().err().unwrap_or(GpuError::Released);
        self.end(&why);
    }

    /// Takes no more, and fails what waits with `why`.
    pub(super) fn end(&mut self, why: &GpuError) {
        if let End::Open = self.end {
            self.end = End::Released(SmallVec::new());
        }
        // Between two that run there may be one that failed before it began.
        let running = self.jobs.iter().rposition(|job| job.in_flight > 0).map_or(0, |last| last + 1);
        self.used.fail((self.jobs.len() - running) as u64);
        for job in self.jobs.drain(running..) {
            job.fail(why.clone());
        }
        for job in self.jobs.iter_mut().skip(self.started) {
            job.failed = Some(why.clone());
        }
        self.started = self.jobs.len();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.is_released() && self.jobs.is_empty()
    }

    /// Everything of it is gone: tells who waits.
    pub(super) fn forget(self) {
        let Self { end, ticket, account, .. } = self;
        drop((ticket, account));
        if let End::Released(waiting) = end {
            for answer in waiting {
                deliver(answer, Ok(()));
            }
        }
    }

    /// All its jobs fail: the first with `first`, the others with `rest`.
    pub(super) fn fail(mut self, first: &GpuError, rest: &GpuError) {
        for (place, job) in self.jobs.drain(..).enumerate() {
            job.fail(if place == 0 { first.clone() } else { rest.clone() });
        }
        self.forget();
    }
}

impl<B> Running<B> {
    pub(super) fn new(job: Job, answer: Answer<JobDone>, place: Place, now: Duration) -> Self {
        let steps = job.steps;
        let reads = steps.iter().filter(|step| matches!(step, Step::Read { .. })).count();
        let (device_time, queue_wait) = (Duration::ZERO, Duration::ZERO);
        Self {
            bounds: steps.iter().map(|_| None).collect(),
            steps,
            step: 0,
            units: 0,
            give: None,
            answer,
            place,
            queued_at: now,
            began_at: None,
            in_flight: 0,
            done: JobDone { reads: vec![Vec::new(); reads], device_time, queue_wait, slices: 0 },
            failed: None,
        }
    }

    /// Whether the caller has left.
    pub(super) fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Which of the job's reads the step is.
    pub(super) fn read_number(&self, step: usize) -> usize {
        self.steps[..step].iter().filter(|step| matches!(step, Step::Read { .. })).count()
    }

    /// Tells the caller how it ended. Its place is free before, so that the next request finds it.
    pub(super) fn answer(self) {
        let Self { steps, bounds, place, give, answer, failed, done, .. } = self;
        drop(place);
        // The buffers go before the answer too: whoever gets it may count.
        discard((steps, bounds));
        discard(give);
        deliver(answer, failed.map_or(Ok(done), Err));
    }

    pub(super) fn fail(mut self, error: GpuError) {
        self.failed.get_or_insert(error);
        self.answer();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::{gpu::capacity::Capacity, resources::Fraction};

    #[test]
    fn slices_on_the_device_end_before_a_released_lease_also_behind_a_job_that_failed() {
        let ticket = Arc::new(Arc::new(Capacity::new(1 << 20)).take(Fraction::ONE, None).unwrap());
        let account = MemoryAccount::new(ticket.memory_bytes);
        let mut tenant = Tenant::<()>::new(account, Arc::default(), ticket);
        let places = Arc::<AtomicUsize>::default();
        let mut answers: Vec<_> = (0..4)
            .map(|_| {
                let (answer, receiver) = oneshot::channel();
                let place = Place::take(&places, 4).unwrap();
                tenant.jobs.push_back(Running::new(Job::new(), answer, place, Duration::ZERO));
                receiver
            })
            .collect();
        tenant.slice_started(Duration::ZERO);
        tenant.next_job_failed(GpuError::DeviceOutOfMemory);
        tenant.slice_started(Duration::ZERO);
        tenant.release(None);
        assert_eq!(answers[3].try_recv().unwrap().unwrap_err(), GpuError::Released, "it had not begun");
        assert!(!tenant.has_ended() && answers[2].try_recv().is_err(), "it runs still");
        tenant.jobs.iter_mut().for_each(|job| job.in_flight = 0);
        while let Some(job) = tenant.pop_ended() {
            job.answer();
        }
        assert!(tenant.has_ended());
        let ends = [0, 1, 2].map(|at| answers[at].try_recv().unwrap().err());
        assert_eq!(ends, [None, Some(GpuError::DeviceOutOfMemory), None]);
    }
}
