//! Turns of closures: the device lent as a whole, taken back when it is done, and the memory that was left in use.

use std::{sync::Arc, time::Duration};

use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::{
    Core, Flight,
    tenant::{Running, Tenant},
};
use crate::gpu::{
    device::{DeviceOps, Done},
    error::GpuError,
    exclusive::{Lent, Stage, Turn, TurnStage},
    job::{Job, JobDone},
    link::{Answer, Of, deliver, discard},
    memory::Charge,
    shares::Part,
};

/// How long a closure may take to begin once it has its turn. Its thread may be busy with something else, and meanwhile
/// the device stands idle.
const BEGIN_WITHIN: Duration = Duration::from_millis(500);

/// The ticket of a turn whose closure runs; the device never gives one of that number.
const LENT: u64 = u64::MAX;

/// The turn of a closure.
pub(super) struct Alone {
    lease: u64,
    given_at: Duration,
    stage: Arc<TurnStage>,
    /// Whether its closure has ended: then the device is waited for.
    ended: bool,
    /// Bytes that the device counts and no lease made through us, when the turn began.
    unaccounted: i64,
    /// What wgpu reported of it.
    error: Option<GpuError>,
}

/// Memory that closures of a lease left in use, which the lease is charged for.
#[derive(Default)]
pub(super) struct Foreign {
    bytes: u64,
    charge: Option<Charge>,
}

impl Foreign {
    fn charged(&self) -> u64 {
        self.charge.as_ref().map_or(0, Charge::bytes)
    }
}

impl<B> Tenant<B> {
    /// Charges what a closure left in use, or gives back what it freed.
    fn count_foreign(&mut self, grown: i64) -> Result<(), GpuError> {
        let bytes = self.foreign.bytes.saturating_add_signed(grown);
        self.foreign = Foreign { bytes, charge: None };
        match self.account.reserve(bytes) {
            Ok(reserved) => self.foreign.charge = Some(reserved.commit()),
            Err(GpuError::QuotaExceeded { requested_bytes, used_bytes, quota_bytes }) => {
                let used_bytes = used_bytes.saturating_add(requested_bytes);
                return Err(GpuError::OverQuota { used_bytes, quota_bytes });
            }
            Err(other) => return Err(other),
        }
        Ok(())
    }
}

impl<D: DeviceOps> Core<D> {
    /// Whether a closure has the device.
    pub(crate) fn is_lent(&self) -> bool {
        self.alone.as_ref().is_some_and(|alone| !alone.ended)
    }

    /// Whether nothing may be started.
    pub(super) fn is_taken(&self) -> bool {
        self.alone.is_some() || self.closing.is_some()
    }

    pub(super) fn queue_closure(
        &mut self,
        of: Of,
        give: oneshot::Sender<Turn>,
        answer: Answer<JobDone>,
        now: Duration,
    ) {
        let (lease, lends) = (of.lease, self.device.lend().is_some());
        let refused = || GpuError::invalid("this device is none of wgpu's: there is nothing to lend");
        match self.tenant(&of).and_then(|tenant| lends.then_some(tenant).ok_or_else(refused)) {
            Ok(tenant) => {
                let mut job = Running::new(Job::new(), answer, of.place, now);
                job.give = Some(give);
                tenant.jobs.push_back(job);
                self.shares.arrived(lease, now);
            }
            Err(error) => {
                drop(of);
                discard(give);
                deliver(answer, Err(error));
            }
        }
    }

    /// Gives the device to the closure that is next of this lease; false while others still use it.
    pub(super) fn give(&mut self, lease: u64, now: Duration) -> bool {
        if !self.flights.is_empty() {
            return false;
        }
        // Nothing of those who have ended is to be counted as the closure's.
        self.answer();
        self.free_dropped();
        // What was reported since the last turn is nobody's of this one.
        drop(self.device.take_back());
        let unaccounted = self.unaccounted();
        let Some(tenant) = self.tenants.get_mut(&lease) else { return true };
        let Some(give) = tenant.next_job().and_then(|job| job.give.take()) else { return false };
        let stage = Arc::<TurnStage>::default();
        let device = self.device.lend().map(|device| Box::new(move || device) as Lent);
        let turn = Turn { device, stage: Arc::clone(&stage), link: Arc::clone(&self.link) };
        if !deliver(give, turn) {
            self.stop_job(lease, GpuError::Released, now);
            return true;
        }
        tenant.slice_started(now);
        self.progress_at = now;
        // What it will take is unknown, and nothing starts beside it: charged when it has ended.
        self.shares.started(lease, Duration::ZERO, Part::Last, now);
        let (parts, reads, staging) = (SmallVec::new(), SmallVec::new(), SmallVec::new());
        self.flights.push_back(Flight {
            ticket: LENT,
            lease,
            estimate: Duration::ZERO,
            parts,
            reads,
            staging,
        });
        self.alone = Some(Alone { lease, given_at: now, stage, ended: false, unaccounted, error: None });
        true
    }

    /// Looks whether the closure that has the device has ended, or never began.
    pub(super) fn look_at_turn(&mut self, now: Duration) {
        if self.is_lent() {
            self.notice_loss(now);
        }
        // Before the watchdog would take it for a job that does not end.
        let begin_within = BEGIN_WITHIN.min(self.options.give_up_after / 2);
        let Some(alone) = self.alone.as_mut().filter(|alone| !alone.ended) else { return };
        let late = now.saturating_sub(alone.given_at) >= begin_within;
        if late && alone.stage.take_back() {
            alone.error = Some(GpuError::TurnMissed { within: begin_within });
        }
        if matches!(alone.stage.get(), Stage::Given | Stage::Begun) {
            return;
        }
        alone.ended = true;
        let reported = self.device.take_back();
        alone.error = alone.error.take().or(reported);
        if self.device.lost().is_some() {
            return self.notice_loss(now);
        }
        // Ends when everything before it has.
        match self.device.submit(&[], now) {
            Ok(ticket) => {
                self.flights.iter_mut().for_each(|flight| flight.ticket = ticket);
            }
            Err(error) => self.give_up(format!("of no use after a closure: {error}").into(), now),
        }
    }

    /// The device is done with a closure: what it took, what went wrong, and the memory that it left in use.
    pub(super) fn close_turn(&mut self, ended: Done, now: Duration) -> Done {
        let Some(alone) = self.alone.take() else { return ended };
        let grown = self.unaccounted() - alone.unaccounted;
        if let Some(tenant) = self.tenants.get_mut(&alone.lease) {
            let counted = tenant.count_foreign(grown);
            let over = counted.as_ref().is_err();
            if let Some(error) = counted.err().or(alone.error) {
                tenant.running_failed(error.clone());
                if over {
                    self.end_over_quota(alone.lease, &error);
                }
            }
        }
        Done { device_time: now.saturating_sub(alone.given_at), ..ended }
    }

    /// Ends a lease whose memory is above its quota: everybody who uses it is told.
    fn end_over_quota(&mut self, lease: u64, why: &GpuError) {
        if let Some(tenant) = self.tenants.get_mut(&lease) {
            tenant.counts.set_over_quota(why.clone());
            tenant.end(why);
            self.compiling.refuse(lease, why);
            self.shares.leave(lease);
            self.link.tell();
        }
    }

    /// Bytes that the device counts and no lease made through us: what closures left in use, whoever is charged for it
    /// now. A lease that goes leaves that behind.
    fn unaccounted(&self) -> i64 {
        let Some(counted) = self.device.counted_bytes() else { return 0 };
        let own = |tenant: &Tenant<D::Bound>| tenant.account.made().saturating_sub(tenant.foreign.charged());
        let charged: u64 = self.tenants.values().map(own).sum();
        counted.cast_signed().wrapping_sub(charged.cast_signed())
    }
}
