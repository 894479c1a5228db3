//! What a Serve says of its GPUs: each device, and what the replicas have of it.

use serde::Serialize;

use crate::{actors::controller::Office, gpu::GpuDevice, ids::BackendName, metrics::gpu::LeaseReading};

/// One GPU as it is.
#[derive(Clone, Debug, Serialize)]
pub struct GpuStatus {
    /// Its place among the devices of this Serve, as in the label `device` of metrics.
    pub device: usize,
    /// As its driver names it.
    pub name: String,
    /// The driver and its version.
    pub driver: String,
    /// Whether a processor pretends to be a GPU.
    pub software: bool,
    /// How often it was opened.
    pub epoch: u64,
    /// How often it was lost.
    pub lost: u64,
    /// How it is.
    pub health: GpuHealth,
    /// Time that it has run slices, in seconds.
    pub busy_s: f64,
    /// The part of the last whole second in which it ran slices of the leases below.
    pub busy_share: f64,
    /// The part of its time that no lease has.
    pub free_share: f64,
    /// Its memory, in bytes; a part of it is kept back for what is not in buffers.
    pub memory_bytes: u64,
    /// The memory that the leases below hold, in bytes.
    pub memory_used_bytes: u64,
    /// The memory that no lease has, in bytes.
    pub free_memory_bytes: u64,
    /// What replicas have of it.
    pub leases: Vec<ReplicaGpuStatus>,
}

/// How one GPU is: what its own thread saw within the last second.
#[derive(Clone, Debug, Serialize)]
pub struct GpuHealth {
    /// Whether it is open: not while it was lost and does not open again.
    pub open: bool,
    /// Whether what it runs takes longer than it should, or its driver holds its thread up.
    pub suspect: bool,
    /// How often it was given up because a job did not end; these count as lost too.
    pub watchdog: u64,
    /// How long it took last to open it again after a loss, in seconds.
    pub recovery_s: Option<f64>,
    /// Devices that were lost and are not gone yet: their drivers hang.
    pub abandoned: usize,
    /// The memory that leases hold, in bytes, as it is charged.
    pub memory_leased_bytes: u64,
    /// The memory in buffers by the device's own count, where it counts.
    pub memory_counted_bytes: Option<u64>,
}

impl GpuHealth {
    fn of(device: &GpuDevice) -> Self {
        let health = device.health();
        Self {
            open: health.open,
            suspect: health.suspect,
            watchdog: health.watchdog,
            recovery_s: health.recovery.map(|took| took.as_secs_f64()),
            abandoned: health.abandoned,
            memory_leased_bytes: health.leased_bytes,
            memory_counted_bytes: health.counted_bytes,
        }
    }
}

/// What one replica has of a GPU. Sums go on when the lease is renewed or the replica is replaced.
#[derive(Clone, Debug, Serialize)]
pub struct ReplicaGpuStatus {
    /// Its backend.
    pub backend: BackendName,
    /// Its slot, as in the label `replica` of metrics.
    pub replica: u32,
    /// The share of the device's time that it was promised.
    pub share_asked: f64,
    /// The part of the last whole second that it had.
    pub share_got: f64,
    /// The part of all its time that it had, since this slot first had a share.
    pub share_overall: f64,
    /// The time that it has had, in seconds.
    pub device_time_s: f64,
    /// How long its jobs waited for their first slice, all together, in seconds.
    pub queue_wait_s: f64,
    /// Jobs that ended, well or not.
    pub jobs: u64,
    /// How many of them failed, or had no caller any more.
    pub jobs_failed: u64,
    /// Slices that ended.
    pub slices: u64,
    /// Requests that wait or run.
    pub outstanding: usize,
    /// The memory that it holds, in bytes.
    pub memory_used_bytes: u64,
    /// The most that it may hold, in bytes.
    pub memory_quota_bytes: u64,
}

/// Every GPU that is open.
pub(super) fn read(office: &Office) -> Vec<GpuStatus> {
    let leases = office.metrics.registry.read_leases();
    let of = |device: usize| -> Vec<_> {
        let rows = leases.iter().flat_map(|(backend, rows)| rows.iter().map(move |row| (backend, row)));
        rows.filter(|(_, row)| row.live && row.device == device).map(replica).collect()
    };
    let devices = office.gpus.devices().iter().enumerate();
    let status = devices.map(|(place, device)| {
        let (facts, free, leases) = (device.facts(), device.free(), of(place));
        // Not more than all, though a second is read from each lease at another moment.
        let busy_share = leases.iter().map(|lease| lease.share_got).sum::<f64>().min(1.0);
        GpuStatus {
            device: place,
            name: facts.name.clone(),
            driver: facts.driver.clone(),
            software: facts.software,
            epoch: device.epoch(),
            lost: device.losses(),
            health: GpuHealth::of(device),
            busy_s: device.busy().as_secs_f64(),
            busy_share,
            free_share: f64::from(free.ten_thousandths) / 1e4,
            memory_bytes: facts.memory_bytes,
            memory_used_bytes: leases.iter().map(|lease| lease.memory_used_bytes).sum(),
            free_memory_bytes: free.memory_bytes,
            leases,
        }
    });
    status.collect()
}

fn replica(
    (backend, LeaseReading { slot, lease, since, .. }): (&BackendName, &LeaseReading),
) -> ReplicaGpuStatus {
    let all = since.elapsed().as_secs_f64();
    ReplicaGpuStatus {
        backend: backend.clone(),
        replica: *slot,
        share_asked: lease.share.as_f64(),
        share_got: lease.last_second.as_secs_f64(),
        share_overall: if all > 0.0 { lease.device_time.as_secs_f64() / all } else { 0.0 },
        device_time_s: lease.device_time.as_secs_f64(),
        queue_wait_s: lease.queue_wait.as_secs_f64(),
        jobs: lease.jobs,
        jobs_failed: lease.jobs_failed,
        slices: lease.slices,
        outstanding: lease.outstanding,
        memory_used_bytes: lease.used_bytes,
        memory_quota_bytes: lease.quota_bytes,
    }
}
