//! Shares that leases get of a driver's device, measured over whole runs beside a control that has to fail the check.
//!
//! Device time is what is measured, and on a software device a processor's: what else runs there makes slices longer,
//! and whoever has most time left over is not who is next. So runs are as long as the device worked, and bounds are of
//! whole runs.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use greenroom::gpu::{
    DeviceClock, DeviceOptions, DeviceStatus, GpuDevice, GpuLease, Job, LeaseRequest, Order, ShareOptions,
    SharePolicy,
};

use super::{Opened, kernels, share, vulkan};

/// Device time that is counted, and what goes before: costs are learned, and everybody has something waiting.
const COUNTED: Duration = Duration::from_secs(3);
const BEFORE: Duration = Duration::from_millis(300);

/// What a lease asks of the device: jobs of so many rounds, so many outstanding.
#[derive(Clone, Copy)]
struct Asks {
    share: f64,
    rounds: u32,
    outstanding: usize,
}

/// A quarter with jobs ten times as long as those of the three quarters.
fn unequal(outstanding: [usize; 2]) -> [Asks; 2] {
    [
        Asks { share: 0.25, rounds: 80, outstanding: outstanding[0] },
        Asks { share: 0.75, rounds: 8, outstanding: outstanding[1] },
    ]
}

fn open(sharing: ShareOptions) -> Option<Opened> {
    vulkan(DeviceOptions { sharing, ..Default::default() })
}

/// A lease with a job of so many rounds.
fn client(device: &GpuDevice, asks: Asks, policy: SharePolicy) -> (GpuLease, Job) {
    let request = LeaseRequest::new(share(asks.share)).memory_bytes(1 << 20).policy(policy);
    let lease = device.lease(request).wait().unwrap();
    let buffer = lease.create_buffer(4 * 64 * 64).wait().unwrap();
    let kernel = lease.create_kernel(kernels::spin()).wait().unwrap();
    let job = Job::new().dispatch_with(&kernel, &[&buffer], [64, 1, 1], &kernels::rounds(asks.rounds));
    (lease, job)
}

/// Keeps jobs outstanding until told to end.
fn keep_busy(lease: &GpuLease, job: &Job, outstanding: usize, end: &AtomicBool) {
    let mut pending = VecDeque::new();
    while !end.load(SeqCst) {
        while pending.len() < outstanding {
            pending.push_back(lease.submit(job.clone()));
        }
        pending.pop_front().unwrap().wait().unwrap();
    }
}

/// The device's status as soon as its leases have had this much of it together.
fn when_used(device: &GpuDevice, least: Duration) -> DeviceStatus {
    let late = Instant::now() + Duration::from_secs(100);
    loop {
        let status = device.status().wait().unwrap();
        if status.leases.iter().map(|lease| lease.device_time).sum::<Duration>() >= least {
            return status;
        }
        assert!(Instant::now() < late, "the device does not get on: {status:?}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// By how much the first of two leases misses its share of the device time that both have in a run.
fn error(sharing: ShareOptions, asks: [Asks; 2]) -> Option<f64> {
    error_by(DeviceClock::Auto, sharing, asks)
}

fn error_by(clock: DeviceClock, sharing: ShareOptions, asks: [Asks; 2]) -> Option<f64> {
    let device = vulkan(DeviceOptions { sharing, clock, ..Default::default() })?;
    let clients = asks.map(|asks| client(&device, asks, SharePolicy::WorkConserving));
    let end = AtomicBool::new(false);
    let (before, after) = thread::scope(|scope| {
        for ((lease, job), asks) in clients.iter().zip(asks) {
            let end = &end;
            scope.spawn(move || keep_busy(lease, job, asks.outstanding, end));
        }
        let before = when_used(&device, BEFORE);
        let after = when_used(&device, BEFORE + COUNTED);
        end.store(true, SeqCst);
        (before, after)
    });
    let used = |at: usize| (after.leases[at].device_time - before.leases[at].device_time).as_secs_f64();
    let got = used(0) / (used(0) + used(1));
    let error = (got - asks[0].share).abs() / asks[0].share;
    println!("{:?}, {clock:?}: {} got {got:.4}, error {:.2} %", sharing.order, asks[0].share, error * 100.0);
    for lease in &after.leases {
        println!("  {:?} a job", lease.device_time / u32::try_from(lease.jobs).unwrap());
    }
    Some(error)
}

#[test]
fn shares_of_a_whole_run_are_got_within_3_percent_and_in_order_of_arrival_missed_by_more_than_100() {
    // Enough outstanding that a caller which the processor keeps waiting always has some jobs there.
    let asks = unequal([8, 48]);
    for clock in [DeviceClock::Host, DeviceClock::Device] {
        let Some(got) = error_by(clock, ShareOptions::default(), asks) else { return };
        assert!(got <= 0.03, "{clock:?} {got}");
    }
    let fifo = ShareOptions { order: Order::Arrival, ..Default::default() };
    let control = error(fifo, unequal([8, 8])).unwrap();
    assert!(control > 1.0, "the control has to fail the check: {control}");
}

#[test]
fn shares_of_callers_that_wait_for_each_answer_are_got_by_anticipation_and_missed_without() {
    // Jobs and patience are long beside what the processor keeps a caller waiting, which would be measured otherwise.
    let asks = [
        Asks { share: 0.25, rounds: 400, outstanding: 1 },
        Asks { share: 0.75, rounds: 100, outstanding: 1 },
    ];
    let with = |anticipation| ShareOptions {
        anticipation,
        slice_max: Duration::from_millis(24),
        ..Default::default()
    };
    // Who comes late has used its turn, and a busy processor makes callers late: with five busy programs on two cores one
    // run in eight missed by half. So the least of three counts, and of the control, which then has to fail too.
    let least = |anticipation| {
        let mut least = f64::INFINITY;
        for _ in 0..3 {
            least = least.min(error(with(anticipation), asks)?);
            if least <= 0.05 {
                break;
            }
        }
        Some(least)
    };
    let Some(got) = least(Duration::from_millis(20)) else { return };
    assert!(got <= 0.05, "{got}");
    let control = least(Duration::ZERO).unwrap();
    assert!(control > 0.25, "the control has to fail the check: {control}");
}

#[test]
fn shares_that_are_capped_are_passed_by_less_than_2_percent_on_a_device_that_nobody_else_wants() {
    let Some(device) = open(ShareOptions::default()) else { return };
    let burst = Duration::from_millis(20);
    let asks = Asks { share: 0.25, rounds: 8, outstanding: 4 };
    let began = Instant::now();
    let (lease, job) = client(&device, asks, SharePolicy::HardCap { burst });
    // Those that began at the last look at the cap: the two that the device may have at once.
    let mut last = [Duration::ZERO; 2];
    let (mut used, mut pending) = (Duration::ZERO, VecDeque::new());
    while began.elapsed() < Duration::from_secs(3) {
        while pending.len() < asks.outstanding {
            pending.push_back(lease.submit(job.clone()));
        }
        used += last[0];
        last = [last[1], pending.pop_front().unwrap().wait().unwrap().device_time];
    }
    let got = used.as_secs_f64() / began.elapsed().as_secs_f64() / asks.share;
    println!("a cap of {} was used by {:.2} %", asks.share, got * 100.0);
    assert!(got <= 1.02, "{got}");
    assert!(got > 0.2, "it does get something: {got}");
}
