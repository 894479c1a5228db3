//! A device without a driver: buffers are kept, kernels take their time and compute nothing, failures come on demand.

use std::{
    collections::VecDeque,
    thread,
    time::{Duration, Instant},
};

use super::{Compile, DeviceFacts, DeviceOps, Done, MemorySource, Piece};
use crate::gpu::{error::GpuError, exclusive::ExclusiveDevice, kernel::KernelSpec};

/// How a simulated device behaves. For tests of what stands on leases, without a driver.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulatedDevice {
    /// Device time of one workgroup.
    pub workgroup: Duration,
    /// Device time of every slice besides.
    pub slice: Duration,
    /// Bytes written or read in a microsecond.
    pub bytes_per_us: u64,
    /// Its memory.
    pub memory_bytes: u64,
    /// What its driver really has: a buffer beyond that fails, whatever the quotas say.
    pub driver_bytes: u64,
    /// Largest buffer.
    pub buffer_bytes_max: u64,
    /// How long a kernel takes to compile.
    pub compile: Duration,
    /// How often it can be opened, the first time included.
    pub openings_max: u32,
}

impl Default for SimulatedDevice {
    fn default() -> Self {
        Self {
            workgroup: Duration::from_micros(1),
            slice: Duration::from_micros(5),
            bytes_per_us: 10_000,
            memory_bytes: 1 << 30,
            driver_bytes: u64::MAX,
            buffer_bytes_max: 128 << 20,
            compile: Duration::ZERO,
            openings_max: u32::MAX,
        }
    }
}

struct Flight {
    ticket: u64,
    took: Duration,
    ends: Duration,
    reads: Vec<Vec<u8>>,
}

/// The simulated device. Its clock is the caller's.
pub(crate) struct Simulated {
    spec: SimulatedDevice,
    facts: DeviceFacts,
    /// Contents by buffer; a buffer that was dropped is noticed when the next is made.
    contents: Vec<Memory>,
    flights: VecDeque<Flight>,
    free_at: Duration,
    tickets: u64,
    openings: u32,
    lost: Option<Box<str>>,
}

type Memory = std::sync::Weak<std::sync::Mutex<Vec<u8>>>;

/// A buffer of the simulated device.
pub(crate) type Contents = std::sync::Arc<std::sync::Mutex<Vec<u8>>>;

impl Simulated {
    pub(crate) fn new(spec: SimulatedDevice, memory_bytes: Option<u64>) -> Self {
        let facts = DeviceFacts {
            name: "simulated".into(),
            driver: "none".into(),
            software: true,
            timestamps: true,
            buffer_bytes_max: spec.buffer_bytes_max,
            immediate_bytes_max: 128,
            grid_max: 65_535,
            memory_bytes: memory_bytes.unwrap_or(spec.memory_bytes),
            memory_source: MemorySource::Told,
        };
        Self {
            spec,
            facts,
            contents: Vec::new(),
            flights: VecDeque::new(),
            free_at: Duration::ZERO,
            tickets: 0,
            openings: 1,
            lost: None,
        }
    }

    fn held(&mut self) -> u64 {
        self.contents.retain(|memory| memory.strong_count() > 0);
        self.contents.iter().filter_map(Memory::upgrade).map(|contents| lock(&contents).len() as u64).sum()
    }
}

fn lock(contents: &Contents) -> std::sync::MutexGuard<'_, Vec<u8>> {
    contents.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The bytes of a range that was checked before.
fn range(offset: u64, bytes: u64) -> std::ops::Range<usize> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    start..start.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// Takes every text for a kernel, after this time.
pub(crate) struct NoCompiler(Duration);

impl Compile for NoCompiler {
    type Kernel = ();

    fn compile(&self, _: &KernelSpec) -> Result<(), GpuError> {
        let until = Instant::now() + self.0;
        while let Some(rest) = until.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero()) {
            thread::park_timeout(rest);
        }
        Ok(())
    }
}

impl DeviceOps for Simulated {
    type Buffer = Contents;
    type Kernel = ();
    type Compiler = NoCompiler;
    type Bound = ();

    fn facts(&self) -> &DeviceFacts {
        &self.facts
    }

    fn create_buffer(&mut self, bytes: u64) -> Result<Contents, GpuError> {
        if self.held().saturating_add(bytes) > self.spec.driver_bytes {
            return Err(GpuError::DeviceOutOfMemory);
        }
        let contents = Contents::new(std::sync::Mutex::new(vec![0; range(0, bytes).end]));
        self.contents.push(std::sync::Arc::downgrade(&contents));
        Ok(contents)
    }

    fn compiler(&self) -> NoCompiler {
        NoCompiler(self.spec.compile)
    }

    fn bind(&mut self, (): &(), _: &[(&Contents, u64)]) -> Result<(), GpuError> {
        Ok(())
    }

    fn submit(&mut self, pieces: &[Piece<'_, Self>], now: Duration) -> Result<u64, GpuError> {
        let (mut took, mut reads) = (self.spec.slice, Vec::new());
        for piece in pieces {
            match piece {
                Piece::Dispatch { grid, .. } => {
                    let groups: u64 = grid.iter().map(|n| u64::from(*n)).product();
                    let ns = self.spec.workgroup.as_nanos() * u128::from(groups);
                    took += Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX));
                }
                Piece::Write { buffer, offset, bytes } => {
                    if let Some(to) = lock(buffer).get_mut(range(*offset, bytes.len() as u64)) {
                        to.copy_from_slice(bytes);
                    }
                    took += Duration::from_micros(bytes.len() as u64 / self.spec.bytes_per_us.max(1));
                }
                Piece::Read { buffer, offset, bytes } => {
                    reads.push(lock(buffer).get(range(*offset, *bytes)).unwrap_or_default().to_vec());
                    took += Duration::from_micros(bytes / self.spec.bytes_per_us.max(1));
                }
            }
        }
        self.free_at = self.free_at.max(now) + took;
        let ticket = self.tickets;
        self.tickets += 1;
        self.flights.push_back(Flight { ticket, took, ends: self.free_at, reads });
        Ok(ticket)
    }

    fn collect(&mut self, wait: Duration, now: Duration, done: &mut Vec<Done>) {
        let Some(first) = self.flights.front() else { return };
        let rest = first.ends.saturating_sub(now).min(wait);
        if !rest.is_zero() {
            thread::park_timeout(rest);
        }
        while let Some(flight) = self.flights.pop_front_if(|flight| flight.ends <= now + rest) {
            done.push(Done { ticket: flight.ticket, device_time: flight.took, reads: flight.reads });
        }
    }

    fn lend(&self) -> Option<ExclusiveDevice> {
        None
    }

    fn take_back(&mut self) -> Option<GpuError> {
        None
    }

    fn lost(&self) -> Option<Box<str>> {
        self.lost.clone()
    }

    fn lose(&mut self) {
        self.lost = Some("lost on demand".into());
    }

    fn reopen(&mut self) -> Result<(), GpuError> {
        if self.openings >= self.spec.openings_max {
            return Err(GpuError::NoDevice { why: "the simulated device opens no more".into() });
        }
        self.openings += 1;
        self.lost = None;
        self.flights.clear();
        self.free_at = Duration::ZERO;
        Ok(())
    }

    fn abandoned(&self) -> usize {
        0
    }

    fn counted_bytes(&self) -> Option<u64> {
        let held = self.contents.iter().filter_map(Memory::upgrade);
        Some(held.map(|contents| lock(&contents).len() as u64).sum())
    }
}
