//! A device of wgpu: opened, lost and opened again; buffers and kernels with typed errors.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use futures_util::FutureExt;

use super::{
    DeviceClock, DeviceFacts, DeviceOps, DeviceSource, Done, MemorySource, Piece, adapter,
    compile::Compiler,
    encode::{Flight, Timer},
    memory_size, wording,
};
use crate::gpu::{error::GpuError, exclusive::ExclusiveDevice};

/// How long the driver's tool may take to tell the size of the memory.
const TOOL_PATIENCE: Duration = Duration::from_secs(5);

/// What wgpu reports from wherever it happens; read after each call by the thread that made it.
#[derive(Debug, Default)]
pub(super) struct News {
    error: Mutex<Option<wgpu::Error>>,
    /// Of calls that others than the device's own thread made.
    foreign: Mutex<Option<wgpu::Error>>,
    lost: Mutex<Option<Box<str>>>,
}

/// One opening of the device.
pub(super) struct Open {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) news: Arc<News>,
    pub(super) timer: Option<Timer>,
    pub(super) flights: VecDeque<Flight>,
    /// When the last slice ended: by the device's clock, and by the host's.
    pub(super) ended_ns: u64,
    pub(super) ended_at: Instant,
    /// Buffer memory that is there before any lease has made one.
    own_bytes: u64,
}

/// A device of wgpu.
pub(crate) struct WgpuDevice {
    source: DeviceSource,
    instance: wgpu::Instance,
    adapter: wgpu::Adapter,
    clock: DeviceClock,
    facts: DeviceFacts,
    pub(super) open: Open,
    pub(super) tickets: u64,
    /// Cloned by each thread that drops a device.
    abandoned: Arc<()>,
}

/// A kernel with its buffers.
pub(crate) struct Bound {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) group: Option<wgpu::BindGroup>,
}

impl WgpuDevice {
    /// Opens a device. Takes tens of milliseconds.
    pub(crate) fn new(
        source: DeviceSource,
        memory_bytes: Option<u64>,
        clock: DeviceClock,
    ) -> Result<Self, GpuError> {
        let (instance, adapter) = adapter::pick(&source)?;
        let open = open(&adapter, clock)?;
        let (info, limits) = (adapter.get_info(), open.device.limits());
        let software = adapter::is_software(&info);
        let (memory_bytes, memory_source) = match memory_bytes {
            Some(bytes) => (bytes, MemorySource::Told),
            None if software => (memory_size::SOFTWARE_BYTES, MemorySource::Assumed),
            None => memory_size::of_adapter(&info, TOOL_PATIENCE)
                .map_or((memory_size::ASSUMED_BYTES, MemorySource::Assumed), |bytes| {
                    (bytes, MemorySource::Driver)
                }),
        };
        let facts = DeviceFacts {
            name: info.name,
            driver: format!("{} {}", info.driver, info.driver_info),
            software,
            timestamps: open.timer.is_some(),
            buffer_bytes_max: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
            immediate_bytes_max: limits.max_immediate_size,
            grid_max: limits.max_compute_workgroups_per_dimension,
            memory_bytes,
            memory_source,
        };
        Ok(Self { source, instance, adapter, clock, facts, open, tickets: 0, abandoned: Arc::default() })
    }

    /// Whether what was just called went well.
    pub(super) fn check(&self) -> Result<(), GpuError> {
        let error = self.open.news.error.lock().unwrap_or_else(PoisonError::into_inner).take();
        match error {
            None => Ok(()),
            Some(error) => Err(typed(error)),
        }
    }
}

/// What wgpu says, as we say it.
pub(super) fn typed(error: wgpu::Error) -> GpuError {
    match error {
        wgpu::Error::OutOfMemory { .. } => GpuError::DeviceOutOfMemory,
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            GpuError::invalid(wording::one_line(&description))
        }
    }
}

fn open(adapter: &wgpu::Adapter, clock: DeviceClock) -> Result<Open, GpuError> {
    let info = adapter.get_info();
    let own_clock = match clock {
        DeviceClock::Auto => !adapter::is_software(&info),
        DeviceClock::Device => true,
        DeviceClock::Host => false,
    };
    let own_clock = own_clock && info.backend != wgpu::Backend::Noop;
    let features = adapter.features() - wgpu::Features::all_experimental_mask();
    // The device that does nothing would allow more of everything than wgpu has room for.
    let usual = wgpu::Limits { max_immediate_size: 128, ..wgpu::Limits::default() };
    let limits = if info.backend == wgpu::Backend::Noop { usual } else { adapter.limits() };
    let descriptor = wgpu::DeviceDescriptor {
        // All of them: frameworks on a lease choose by what the adapter has.
        required_features: features,
        required_limits: limits,
        // Leases are small; blocks reserved ahead would be nobody's.
        memory_hints: wgpu::MemoryHints::MemoryUsage,
        ..Default::default()
    };
    let asked = adapter.request_device(&descriptor).now_or_never();
    let (device, queue) = asked
        .ok_or("the device was not ready")
        .and_then(|asked| asked.map_err(|_| "the driver refused to open the device"))
        .map_err(|why| GpuError::NoDevice { why: why.into() })?;
    let news = Arc::new(News::default());
    listen(&device, &news);
    let timed = wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS;
    let timer = (own_clock && features.contains(timed)).then(|| Timer::new(&device, &queue));
    // What wgpu prepares for its first submission goes with it.
    queue.submit([]);
    let first = wgpu::PollType::Wait { submission_index: None, timeout: Some(Duration::from_secs(5)) };
    device.poll(first).map_err(|error| GpuError::NoDevice { why: error.to_string().into() })?;
    let own_bytes = buffer_bytes(&device);
    Ok(Open {
        device,
        queue,
        news,
        timer,
        flights: VecDeque::new(),
        ended_ns: 0,
        ended_at: Instant::now(),
        own_bytes,
    })
}

/// Has what wgpu reports put into `news`. Called by the device's own thread.
fn listen(device: &wgpu::Device, news: &Arc<News>) {
    let (told, own) = (Arc::clone(news), thread::current().id());
    device.on_uncaptured_error(Arc::new(move |error| {
        let place = if thread::current().id() == own { &told.error } else { &told.foreign };
        // The first says what is wrong; those behind it only follow.
        place.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }));
    let told = Arc::clone(news);
    device.set_device_lost_callback(move |reason, text| {
        let text = wording::one_line(&format!("{reason:?}: {text}"));
        *told.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.into());
    });
}

fn buffer_bytes(device: &wgpu::Device) -> u64 {
    u64::try_from(device.get_internal_counters().hal.buffer_memory.read()).unwrap_or(0)
}

impl DeviceOps for WgpuDevice {
    type Buffer = wgpu::Buffer;
    type Kernel = wgpu::ComputePipeline;
    type Compiler = Compiler;
    type Bound = Bound;

    fn facts(&self) -> &DeviceFacts {
        &self.facts
    }

    fn create_buffer(&mut self, bytes: u64) -> Result<wgpu::Buffer, GpuError> {
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::UNIFORM
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        let descriptor =
            wgpu::BufferDescriptor { label: None, size: bytes, usage, mapped_at_creation: false };
        let buffer = self.open.device.create_buffer(&descriptor);
        self.check().map(|()| buffer)
    }

    fn compiler(&self) -> Compiler {
        Compiler(self.open.device.clone())
    }

    fn bind(
        &mut self,
        pipeline: &wgpu::ComputePipeline,
        buffers: &[(&wgpu::Buffer, u64)],
    ) -> Result<Bound, GpuError> {
        let pipeline = pipeline.clone();
        if buffers.is_empty() {
            return Ok(Bound { pipeline, group: None });
        }
        let entries: Vec<_> = (0..)
            .zip(buffers)
            .map(|(binding, (buffer, bytes))| wgpu::BindGroupEntry {
                binding,
                // Not all of it: a kernel asks how long it is, and buffers are rounded up.
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer,
                    offset: 0,
                    size: wgpu::BufferSize::new(*bytes),
                }),
            })
            .collect();
        let group = self.open.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        self.check().map(|()| Bound { pipeline, group: Some(group) })
    }

    fn submit(&mut self, pieces: &[Piece<'_, Self>], _: Duration) -> Result<u64, GpuError> {
        self.encode_and_submit(pieces)
    }

    fn collect(&mut self, wait: Duration, _: Duration, done: &mut Vec<Done>) {
        self.collect_ended(wait, done);
    }

    fn lend(&self) -> Option<ExclusiveDevice> {
        let (instance, adapter) = (self.instance.clone(), self.adapter.clone());
        Some(ExclusiveDevice {
            instance,
            adapter,
            device: self.open.device.clone(),
            queue: self.open.queue.clone(),
        })
    }

    fn take_back(&mut self) -> Option<GpuError> {
        // Frameworks have themselves told of errors and losses.
        listen(&self.open.device, &self.open.news);
        // A loss that nobody has told us of is told again with this.
        let _ = self.open.device.poll(wgpu::PollType::Poll);
        let mut foreign = self.open.news.foreign.lock().unwrap_or_else(PoisonError::into_inner);
        foreign.take().map(typed)
    }

    fn lost(&self) -> Option<Box<str>> {
        self.open.news.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lose(&mut self) {
        self.open.device.destroy();
        // The callback comes with a wait, and only after what was in flight.
        let wait = wgpu::PollType::Wait { submission_index: None, timeout: Some(Duration::from_secs(1)) };
        let _ = self.open.device.poll(wait);
        let lost = &mut *self.open.news.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.get_or_insert_with(|| "destroyed".into());
    }

    fn reopen(&mut self) -> Result<(), GpuError> {
        let open = open(&self.adapter, self.clock).or_else(|_| {
            (self.instance, self.adapter) = adapter::pick(&self.source)?;
            open(&self.adapter, self.clock)
        })?;
        let old = std::mem::replace(&mut self.open, open);
        // A device that hangs may hang whoever drops it.
        let abandoned = Arc::clone(&self.abandoned);
        let dropping = thread::Builder::new().name("greenroom-gpu-lost".into()).spawn(move || {
            old.device.destroy();
            drop(old);
            drop(abandoned);
        });
        dropping.map(drop).map_err(|error| GpuError::NoDevice { why: error.to_string().into() })
    }

    fn abandoned(&self) -> usize {
        Arc::strong_count(&self.abandoned) - 1
    }

    fn counted_bytes(&self) -> Option<u64> {
        let counts = self.source != DeviceSource::Noop;
        counts.then(|| buffer_bytes(&self.open.device).saturating_sub(self.open.own_bytes))
    }
}
