//! From a job to a slice on the device: the plan, room for staging, what is bound, what is submitted, what it taught.

use std::time::Duration;

use smallvec::SmallVec;

use super::{Core, Flight, Held, What};
use crate::gpu::{
    buffer::GpuBuffer,
    device::{DeviceOps, Piece},
    error::GpuError,
    job::Step,
    memory::{Charge, MemoryAccount, Reservation},
    shares::Part,
    slices::{Cost, Remaining, Slice, plan},
};

/// A unit of a transfer.
const TRANSFER_UNIT: u64 = 64 << 10;

/// Most units of a transfer in one slice, which bounds its staging to 4 MiB.
const TRANSFER_UNITS_MAX: u32 = 64;

type Staging = SmallVec<[Charge; 2]>;

/// The range of a transfer that some units of it are: offset and length within it.
fn transfer_range(all: u64, from: u32, units: u32) -> (u64, u64) {
    let start = u64::from(from) * TRANSFER_UNIT;
    (start, (u64::from(units) * TRANSFER_UNIT).min(all.saturating_sub(start)))
}

/// The units of a transfer.
pub(super) fn units_of(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(TRANSFER_UNIT)).unwrap_or(u32::MAX)
}

fn transfer(all: u64, done: u32, cost: Cost) -> Remaining {
    let all_units = units_of(all);
    let weight = all.min(TRANSFER_UNIT);
    Remaining { units: all_units - done, all_units, weight, cost, units_max: TRANSFER_UNITS_MAX }
}

impl<D: DeviceOps> Core<D> {
    /// Starts the next slice of a lease; false when the device has no room for it now.
    pub(super) fn start(&mut self, lease: u64, now: Duration) -> bool {
        if self.is_taken() {
            return false;
        }
        let Some(tenant) = self.tenants.get_mut(&lease) else { return false };
        let Some(job) = tenant.next_job() else { return false };
        if job.is_abandoned() {
            self.stop_job(lease, GpuError::Released, now);
            return true;
        }
        if job.give.is_some() {
            return self.give(lease, now);
        }
        let (first, done) = (job.step, job.units);
        let (kernels, writing, reading) = (&self.kernels, self.writing, self.reading);
        let left = job.steps[first..].iter().enumerate().map(|(at, step)| {
            let done = if at == 0 { done } else { 0 };
            match step {
                Step::Dispatch { kernel, grid, .. } => {
                    let cost = kernels.get(&kernel.0.id).map_or_else(Cost::default, |kernel| kernel.cost);
                    let groups: u64 = grid.iter().map(|n| u64::from(*n)).product();
                    let all_units = kernel.0.split.map_or(1, |split| grid[split.axis.index()]);
                    let weight = groups / u64::from(all_units);
                    Remaining { units: all_units - done, all_units, weight, cost, units_max: u32::MAX }
                }
                Step::Write { bytes, .. } => transfer(bytes.len() as u64, done, writing),
                Step::Read { bytes, .. } => transfer(*bytes, done, reading),
            }
        });
        let mut slice = plan(left, self.shares.options().slice_max);
        if !self.shares.has_room(slice.estimate) {
            return false;
        }
        if let Err(error) = self.submit(lease, &mut slice, now) {
            let staging = |flight: &Flight| flight.lease == lease && !flight.staging.is_empty();
            if matches!(error, GpuError::QuotaExceeded { .. }) && self.flights.iter().any(staging) {
                // Its own slices on the device have the room; they give it back.
                return false;
            }
            if self.device.lost().is_some() {
                self.notice_loss(now);
            } else {
                self.stop_job(lease, error, now);
            }
        }
        true
    }

    /// The lease's next job is not run any further.
    pub(super) fn stop_job(&mut self, lease: u64, error: GpuError, now: Duration) {
        if let Some(tenant) = self.tenants.get_mut(&lease) {
            tenant.next_job_failed(error);
            self.shares.withdrawn(lease);
            self.end_front(lease, now);
        }
    }

    fn submit(&mut self, lease: u64, slice: &mut Slice, now: Duration) -> Result<(), GpuError> {
        let Some(tenant) = self.tenants.get_mut(&lease) else { return Err(GpuError::Released) };
        let account = tenant.account.clone();
        let Some(job) = tenant.next_job() else { return Err(GpuError::Released) };
        let (first, done) = (job.step, job.units);
        let mut staging = Staging::new();
        let mut cut = None;
        for (at, units) in slice.units.iter_mut().enumerate() {
            let from = if at == 0 { done } else { 0 };
            let all = match &job.steps[first + at] {
                Step::Dispatch { kernel, buffers, .. } => {
                    let bound = &mut job.bounds[first + at];
                    if bound.is_none() {
                        let compiled = self.kernels.get(&kernel.0.id).ok_or(GpuError::Released)?;
                        let held = buffers.iter().map(|buffer| find(&self.buffers, buffer));
                        let held: Result<SmallVec<[_; 4]>, _> =
                            held.map(|held| held.map(|held| (&held.buffer, held.bytes))).collect();
                        *bound = Some(self.device.bind(&compiled.kernel, &held?)?);
                    }
                    continue;
                }
                Step::Write { bytes, .. } => bytes.len() as u64,
                Step::Read { bytes, .. } => *bytes,
            };
            let planned = *units;
            staging.push(reserve(&account, all, from, units)?.commit());
            if *units < planned {
                cut = Some(at + 1);
                break;
            }
        }
        // What comes behind has to wait for the rest of it.
        slice.units.truncate(cut.unwrap_or(usize::MAX));
        let mut flight = Flight {
            ticket: 0,
            lease,
            estimate: slice.estimate,
            parts: SmallVec::new(),
            reads: SmallVec::new(),
            staging,
        };
        let mut immediates: SmallVec<[SmallVec<[u8; 32]>; 4]> = SmallVec::new();
        for (at, units) in slice.units.iter().enumerate() {
            let from = if at == 0 { done } else { 0 };
            immediates.push(job.immediates(first + at, from));
            let part = match &job.steps[first + at] {
                Step::Dispatch { kernel, grid, .. } => {
                    let all: u64 = grid.iter().map(|n| u64::from(*n)).product();
                    let axis = kernel.0.split.map_or(1, |split| grid[split.axis.index()]);
                    let cost =
                        self.kernels.get(&kernel.0.id).map_or_else(Cost::default, |kernel| kernel.cost);
                    (What::Kernel(kernel.0.id), u64::from(*units) * (all / u64::from(axis)), cost)
                }
                Step::Write { bytes, .. } => {
                    (What::Write, transfer_range(bytes.len() as u64, from, *units).1, self.writing)
                }
                Step::Read { bytes, .. } => {
                    flight.reads.push(job.read_number(first + at));
                    (What::Read, transfer_range(*bytes, from, *units).1, self.reading)
                }
            };
            flight.parts.push((part.0, part.1, part.2.of(part.1).unwrap_or(slice.estimate)));
        }
        let mut pieces: SmallVec<[Piece<'_, D>; 8]> = SmallVec::new();
        for (at, units) in slice.units.iter().enumerate() {
            let from = if at == 0 { done } else { 0 };
            pieces.push(match &job.steps[first + at] {
                Step::Dispatch { kernel, grid, .. } => {
                    let mut grid = *grid;
                    if let Some(split) = kernel.0.split {
                        grid[split.axis.index()] = *units;
                    }
                    let Some(bound) = &job.bounds[first + at] else { return Err(GpuError::Released) };
                    Piece::Dispatch { bound, immediates: &immediates[at], grid }
                }
                Step::Write { buffer, offset, bytes } => {
                    let (start, length) = transfer_range(bytes.len() as u64, from, *units);
                    let buffer = &find(&self.buffers, buffer)?.buffer;
                    let range = start as usize..(start + length) as usize;
                    Piece::Write { buffer, offset: offset + start, bytes: &bytes[range] }
                }
                Step::Read { buffer, offset, bytes } => {
                    let (start, length) = transfer_range(*bytes, from, *units);
                    let buffer = &find(&self.buffers, buffer)?.buffer;
                    Piece::Read { buffer, offset: offset + start, bytes: length }
                }
            });
        }
        flight.ticket = self.device.submit(&pieces, now)?;
        drop(pieces);
        job.advance(slice);
        let part = if job.step == job.steps.len() { Part::Last } else { Part::More };
        tenant.slice_started(now);
        if self.flights.is_empty() {
            self.progress_at = now;
        }
        self.shares.started(lease, flight.estimate, part, now);
        self.flights.push_back(flight);
        Ok(())
    }

    /// What a slice taught of what its parts cost: each is off by as much as the whole.
    pub(super) fn learn(&mut self, flight: &Flight, took: Duration) {
        let thought: Duration = flight.parts.iter().map(|(_, _, thought)| *thought).sum();
        let factor = took.as_secs_f64() / thought.as_secs_f64().max(1e-9);
        for (what, units, thought) in &flight.parts {
            let took = if flight.parts.len() == 1 { took } else { thought.mul_f64(factor.min(1e3)) };
            match what {
                What::Kernel(id) => {
                    if let Some(compiled) = self.kernels.get_mut(id) {
                        compiled.cost.learn(*units, took);
                    }
                }
                What::Write => self.writing.learn(*units, took),
                What::Read => self.reading.learn(*units, took),
            }
        }
    }
}

fn find<'a, B>(
    held: &'a std::collections::HashMap<u64, Held<B>>,
    buffer: &GpuBuffer,
) -> Result<&'a Held<B>, GpuError> {
    held.get(&buffer.0.id).ok_or(GpuError::Released)
}

/// Room for the staging of a transfer, in smaller pieces when the quota has not enough for the planned one.
fn reserve(
    account: &std::sync::Arc<MemoryAccount>,
    all: u64,
    from: u32,
    units: &mut u32,
) -> Result<Reservation, GpuError> {
    loop {
        match account.reserve(transfer_range(all, from, *units).1) {
            Err(GpuError::QuotaExceeded { .. }) if *units > 1 => *units /= 2,
            other => return other,
        }
    }
}
