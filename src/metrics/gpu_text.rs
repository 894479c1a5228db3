//! What is known of GPUs as Prometheus text.

use std::fmt::Display;

use super::{
    gpu::LeaseReading,
    registry::Registry,
    text::{escape, family},
};
use crate::gpu::{DeviceHealth, GpuDevice};

/// The leases of all replicas, then the devices.
pub(super) fn render(out: &mut String, registry: &Registry, devices: &[GpuDevice]) {
    let leases = registry.read_leases();
    let rows = |live_only: bool, read: fn(&LeaseReading) -> f64| {
        let row = |(backend, leases): &(_, Vec<LeaseReading>)| {
            let shown = leases.iter().filter(|reading| reading.live || !live_only);
            let labels = |r: &LeaseReading| labels(backend, r);
            shown.map(|reading| (labels(reading), read(reading))).collect::<Vec<_>>()
        };
        leases.iter().flat_map(row).collect::<Vec<_>>()
    };
    let mut gauge = |name: &str, help: &str, read| family(out, name, "gauge", help, rows(true, read));
    gauge("serve_gpu_share_asked", "The share of a device's time that a replica was promised.", |r| {
        r.lease.share.as_f64()
    });
    gauge("serve_gpu_share_got", "The part of the last whole second that a replica had of a device.", |r| {
        r.lease.last_second.as_secs_f64()
    });
    gauge("serve_gpu_memory_used_bytes", "Memory that a replica holds on a device, staging included.", |r| {
        r.lease.used_bytes as f64
    });
    gauge("serve_gpu_memory_quota_bytes", "The most memory that a replica may hold on a device.", |r| {
        r.lease.quota_bytes as f64
    });
    gauge("serve_gpu_outstanding_jobs", "Requests of a replica that wait or run at a device.", |r| {
        r.lease.outstanding as f64
    });
    let mut counter = |name: &str, help: &str, read| family(out, name, "counter", help, rows(false, read));
    counter("serve_gpu_device_seconds_total", "Time that a replica has had of a device.", |r| {
        r.lease.device_time.as_secs_f64()
    });
    counter(
        "serve_gpu_queue_wait_seconds_total",
        "How long jobs waited for their first slice, all together.",
        |r| r.lease.queue_wait.as_secs_f64(),
    );
    counter("serve_gpu_jobs_total", "Jobs that ended, well or not.", |r| r.lease.jobs as f64);
    counter("serve_gpu_jobs_failed_total", "Jobs that failed, or whose callers had left.", |r| {
        r.lease.jobs_failed as f64
    });
    counter("serve_gpu_slices_total", "Slices that ended.", |r| r.lease.slices as f64);
    let each = |read: fn(&GpuDevice) -> f64| {
        devices.iter().enumerate().map(|(i, device)| (format!("device=\"{i}\""), read(device))).collect()
    };
    family(
        out,
        "serve_gpu_device_busy_seconds_total",
        "counter",
        "Time that a device has run slices.",
        each(|device| device.busy().as_secs_f64()),
    );
    family(
        out,
        "serve_gpu_devices_lost_total",
        "counter",
        "How often a device was lost.",
        each(|device| device.losses() as f64),
    );
    render_health(out, devices);
    let info = devices.iter().enumerate().map(|(i, device)| {
        let facts = device.facts();
        let (name, driver, software) = (escape(&facts.name), escape(&facts.driver), facts.software);
        (format!("device=\"{i}\",name=\"{name}\",driver=\"{driver}\",software=\"{software}\""), 1)
    });
    family(out, "serve_gpu_info", "gauge", "The devices.", info.collect());
}

/// How the devices are, as their threads last wrote it: within a second.
fn render_health(out: &mut String, devices: &[GpuDevice]) {
    let health: Vec<_> = devices.iter().map(GpuDevice::health).collect();
    let each = |read: &dyn Fn(usize, &DeviceHealth) -> Option<f64>| {
        let row = |(i, health)| read(i, health).map(|value| (format!("device=\"{i}\""), value));
        health.iter().enumerate().filter_map(row).collect::<Vec<_>>()
    };
    let mut counter = |name: &str, help: &str, rows| family(out, name, "counter", help, rows);
    counter(
        "serve_gpu_device_watchdog_total",
        "How often a device was given up because a job did not end.",
        each(&|_, health| Some(health.watchdog as f64)),
    );
    let mut gauge = |name: &str, help: &str, rows| family(out, name, "gauge", help, rows);
    gauge(
        "serve_gpu_device_open",
        "0 while a device was lost and does not open again.",
        each(&|_, health| Some(f64::from(u8::from(health.open)))),
    );
    gauge(
        "serve_gpu_device_suspect",
        "1 while what a device runs takes longer than it should.",
        each(&|_, health| Some(f64::from(u8::from(health.suspect)))),
    );
    gauge(
        "serve_gpu_device_recovery_seconds",
        "How long it took last to open a device again.",
        each(&|_, health| health.recovery.map(|took| took.as_secs_f64())),
    );
    gauge(
        "serve_gpu_device_abandoned",
        "Lost devices that are not gone yet: their drivers hang.",
        each(&|_, health| Some(health.abandoned as f64)),
    );
    gauge(
        "serve_gpu_device_memory_bytes",
        "A device's memory.",
        each(&|i, _| devices.get(i).map(|device| device.facts().memory_bytes as f64)),
    );
    gauge(
        "serve_gpu_device_memory_leased_bytes",
        "Memory that leases hold on a device, as it is charged.",
        each(&|_, health| Some(health.leased_bytes as f64)),
    );
    gauge(
        "serve_gpu_device_memory_counted_bytes",
        "Memory in buffers by the device's own count: more than is charged for longer than a moment is a leak.",
        each(&|_, health| health.counted_bytes.map(|bytes| bytes as f64)),
    );
}

fn labels(backend: impl Display, reading: &LeaseReading) -> String {
    let LeaseReading { slot, device, .. } = reading;
    format!("backend=\"{backend}\",replica=\"{slot}\",device=\"{device}\"")
}
