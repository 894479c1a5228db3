//! One slice as one submission of wgpu: copies, passes, timestamps around them, and its end.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use smallvec::SmallVec;

use super::{
    Done, FLIGHTS_MAX, Piece,
    wgpu_device::{Bound, WgpuDevice},
};
use crate::gpu::{error::GpuError, memory::rounded};

/// Submissions whose timestamps are on their way at once; more are not in flight.
const TIMED_MAX: usize = FLIGHTS_MAX;

/// Bytes between the results of two submissions, as the copy asks for.
const RESOLVE_STEP: u64 = 256;

/// Two timestamps.
const STAMP_BYTES: u64 = 16;

/// Timestamps around each submission, in a ring.
pub(super) struct Timer {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    stamps: Vec<wgpu::Buffer>,
    ns_per_tick: f64,
}

/// A submission whose end is awaited.
pub(super) struct Flight {
    ticket: u64,
    index: wgpu::SubmissionIndex,
    submitted: Instant,
    /// When that was seen, set by wgpu's own news of it.
    ended: Arc<OnceLock<Instant>>,
    /// With each the bytes that were read.
    reads: SmallVec<[(wgpu::Buffer, u64); 2]>,
}

impl Timer {
    pub(super) fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Self {
        let count = u32::try_from(2 * TIMED_MAX).unwrap_or(u32::MAX);
        let buffer = |size, usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        let read = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        Self {
            queries: device.create_query_set(&wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count,
            }),
            resolved: buffer(
                RESOLVE_STEP * TIMED_MAX as u64,
                wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            ),
            stamps: (0..TIMED_MAX).map(|_| buffer(STAMP_BYTES, read)).collect(),
            ns_per_tick: f64::from(queue.get_timestamp_period()),
        }
    }
}

/// The place of a ticket in the ring.
fn place(ticket: u64) -> usize {
    (ticket % TIMED_MAX as u64) as usize
}

impl WgpuDevice {
    pub(super) fn encode_and_submit(&mut self, pieces: &[Piece<'_, Self>]) -> Result<u64, GpuError> {
        let ticket = self.tickets;
        let device = &self.open.device;
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let first = 2 * place(ticket) as u32;
        if let Some(timer) = &self.open.timer {
            encoder.write_timestamp(&timer.queries, first);
        }
        let ended = Arc::new(OnceLock::new());
        let mut reads = SmallVec::new();
        let mut rest = pieces;
        while let Some(piece) = rest.first() {
            match piece {
                Piece::Dispatch { .. } => {
                    let count =
                        rest.iter().take_while(|piece| matches!(piece, Piece::Dispatch { .. })).count();
                    self.encode_pass(&mut encoder, &rest[..count]);
                    rest = &rest[count..];
                    continue;
                }
                Piece::Write { buffer, offset, bytes } => {
                    // Mappable by itself, or wgpu would make a second buffer and copy it before our first timestamp.
                    let staging = self.staging(
                        bytes.len() as u64,
                        wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC,
                    )?;
                    match staging.slice(..bytes.len() as u64).get_mapped_range_mut() {
                        Ok(mut range) => range.copy_from_slice(bytes),
                        Err(error) => return Err(GpuError::invalid(error.to_string())),
                    }
                    staging.unmap();
                    encoder.copy_buffer_to_buffer(&staging, 0, buffer, *offset, bytes.len() as u64);
                }
                Piece::Read { buffer, offset, bytes } => {
                    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
                    let staging = self.staging(*bytes, usage)?;
                    encoder.copy_buffer_to_buffer(buffer, *offset, &staging, 0, *bytes);
                    encoder.map_buffer_on_submit(&staging, wgpu::MapMode::Read, 0..*bytes, |_| {});
                    reads.push((staging, *bytes));
                }
            }
            rest = &rest[1..];
        }
        if let Some(timer) = &self.open.timer {
            encoder.write_timestamp(&timer.queries, first + 1);
            let (offset, stamps) = (RESOLVE_STEP * place(ticket) as u64, &timer.stamps[place(ticket)]);
            encoder.resolve_query_set(&timer.queries, first..first + 2, &timer.resolved, offset);
            encoder.copy_buffer_to_buffer(&timer.resolved, offset, stamps, 0, STAMP_BYTES);
            encoder.map_buffer_on_submit(stamps, wgpu::MapMode::Read, 0..STAMP_BYTES, |_| {});
        }
        let told = Arc::clone(&ended);
        // Runs after the maps of the same submission.
        encoder.on_submitted_work_done(move || {
            let _ = told.set(Instant::now());
        });
        let commands = encoder.finish();
        // What is wrong with the slice is known before it is given to the device.
        self.check()?;
        let submitted = Instant::now();
        let index = self.open.queue.submit([commands]);
        self.check()?;
        self.tickets += 1;
        self.open.flights.push_back(Flight { ticket, index, submitted, ended, reads });
        Ok(ticket)
    }

    fn encode_pass(&self, encoder: &mut wgpu::CommandEncoder, pieces: &[Piece<'_, Self>]) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for piece in pieces {
            let Piece::Dispatch { bound, immediates, grid } = piece else { continue };
            let Bound { pipeline, group } = bound;
            pass.set_pipeline(pipeline);
            if let Some(group) = group {
                pass.set_bind_group(0, group, &[]);
            }
            if !immediates.is_empty() {
                pass.set_immediates(0, immediates);
            }
            pass.dispatch_workgroups(grid[0], grid[1], grid[2]);
        }
    }

    fn staging(&self, bytes: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer, GpuError> {
        let buffer = self.open.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: rounded(bytes),
            usage,
            mapped_at_creation: !usage.contains(wgpu::BufferUsages::MAP_READ),
        });
        self.check().map(|()| buffer)
    }

    pub(super) fn collect_ended(&mut self, wait: Duration, done: &mut Vec<Done>) {
        let Some(first) = self.open.flights.front() else { return };
        let poll = if wait.is_zero() {
            wgpu::PollType::Poll
        } else {
            wgpu::PollType::Wait { submission_index: Some(first.index.clone()), timeout: Some(wait) }
        };
        // A time-out is an answer too; a loss comes by the callback.
        let _ = self.open.device.poll(poll);
        while let Some(flight) = self.open.flights.front() {
            let Some(now) = flight.ended.get().copied() else { break };
            let Some(flight) = self.open.flights.pop_front() else { break };
            let device_time = self.device_time(&flight, now);
            self.open.ended_at = now;
            let read = |(buffer, bytes): &(wgpu::Buffer, u64)| {
                let view = buffer.slice(..*bytes).get_mapped_range();
                let bytes = view.map(|view| view.to_vec()).unwrap_or_default();
                buffer.unmap();
                bytes
            };
            let reads = flight.reads.iter().map(read).collect();
            done.push(Done { ticket: flight.ticket, device_time, reads });
        }
    }

    /// What the device did for this slice after the one before had ended.
    fn device_time(&mut self, flight: &Flight, now: Instant) -> Duration {
        let by_host = now.saturating_duration_since(flight.submitted.max(self.open.ended_at));
        let Some(timer) = &self.open.timer else { return by_host };
        let stamps = &timer.stamps[place(flight.ticket)];
        let ticks = stamps.slice(..).get_mapped_range().ok().and_then(|view| {
            let begin = view.get(..8)?.try_into().ok().map(u64::from_le_bytes)?;
            let end = view.get(8..16)?.try_into().ok().map(u64::from_le_bytes)?;
            Some((begin, end))
        });
        stamps.unmap();
        let Some((begin, end)) = ticks.filter(|(begin, end)| begin <= end && *end > 0) else {
            return by_host;
        };
        let ns = |ticks: u64| (ticks as f64 * timer.ns_per_tick) as u64;
        let (begin, end) = (ns(begin).max(self.open.ended_ns), ns(end));
        self.open.ended_ns = end;
        Duration::from_nanos(end.saturating_sub(begin))
    }
}
