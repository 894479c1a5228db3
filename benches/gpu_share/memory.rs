//! Random buffers against quotas, counted by the device itself, and the time from a loss to the next result.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use greenroom::gpu::{GpuDevice, GpuError, Job, KernelSpec, Order, SharePolicy};

use crate::{
    Scale,
    load::{KERNEL, Work, lease},
};

/// How often a quota was passed in this many random makes, drops, writes and reads of two leases.
pub fn violations(scale: Scale, operations: usize) -> u64 {
    let device = GpuDevice::open(scale.options(Order::Shares)).wait().expect("it opened before");
    let leases = [0.5, 0.5].map(|share| lease(&device, share, SharePolicy::WorkConserving));
    let (violations, refused, ended) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let check = || {
        let status = device.status().wait().expect("it is open");
        let quotas: u64 = status.leases.iter().map(|lease| lease.quota_bytes).sum();
        let above = status.leases.iter().any(|lease| lease.peak_bytes > lease.quota_bytes);
        if above || status.counted_bytes.is_some_and(|bytes| bytes > quotas) {
            violations.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = leases
            .iter()
            .zip(1_u64..)
            .map(|(lease, seed)| {
                let (violations, refused) = (&violations, &refused);
                scope.spawn(move || {
                    let mut draw = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    let mut held = Vec::new();
                    for _ in 0..operations / 2 {
                        draw ^= draw << 13;
                        draw ^= draw >> 7;
                        draw ^= draw << 17;
                        let size = 4 + (draw >> 20) % (2 << 20);
                        match (draw >> 10) % 64 {
                            0 => drop(held.last().map(|buffer| lease.read(buffer, 0, 4).wait())),
                            1 => drop(held.last().map(|buffer| lease.write(buffer, 0, vec![1; 4]).wait())),
                            2..=36 => match lease.create_buffer(size).wait() {
                                Ok(buffer) => held.push(buffer),
                                Err(GpuError::QuotaExceeded { .. }) => {
                                    refused.fetch_add(1, Ordering::Relaxed);
                                }
                                Err(error) => panic!("{error}"),
                            },
                            _ if held.is_empty() => {}
                            _ => drop(held.swap_remove(size as usize % held.len())),
                        }
                        if lease.memory_used_bytes() > lease.memory_quota_bytes() {
                            violations.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                check();
                thread::park_timeout(Duration::from_millis(5));
            }
        });
        workers.into_iter().for_each(|worker| worker.join().expect("a worker"));
        ended.store(true, Ordering::Relaxed);
    });
    let status = device.status().wait().expect("it is open");
    println!(
        "{operations} operations, {} refused; afterwards {:?} bytes by the device's count, {} by ours",
        refused.into_inner(),
        status.counted_bytes,
        status.leased_bytes
    );
    device.close().wait().expect("it is open");
    violations.into_inner()
}

/// From the loss of a device under load to the first result on the one opened instead.
pub fn recovery(scale: Scale) -> Duration {
    let device = GpuDevice::open(scale.options(Order::Shares)).wait().expect("it opened before");
    let work = Work { groups: 16, rounds: 100 };
    let mut lease = lease(&device, 1.0, SharePolicy::WorkConserving);
    let mut lost_at: Option<Instant> = None;
    loop {
        let buffer = lease.create_buffer(u64::from(work.groups) * 256).wait().expect("a buffer");
        let kernel = lease.create_kernel(KernelSpec::new(KERNEL)).wait().expect("a kernel");
        let job = Job::new().dispatch_with(&kernel, &[&buffer], [work.groups, 1, 1], &work.immediates());
        lease.submit(job.clone()).wait().expect("a job");
        if let Some(at) = lost_at {
            let took = at.elapsed();
            device.close().wait().expect("it is open");
            return took;
        }
        let jobs: Vec<_> = (0..32).map(|_| lease.submit(job.clone())).collect();
        lost_at = Some(Instant::now());
        device.lose().expect("it is open");
        let lost = jobs.into_iter().filter_map(|job| job.wait().err());
        assert!(lost.into_iter().all(|error| matches!(error, GpuError::DeviceLost { .. })));
        lease = lease.renew().wait().expect("it opens again");
    }
}
