//! Closures that have a device to themselves: alone, at their turn, charged for all of it, whatever becomes of them.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::channel,
    },
    thread,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use greenroom::gpu::{
    DeviceOptions, DeviceSource, ExclusiveDevice, GpuDevice, GpuError, GpuLease, Order, ShareOptions,
    SimulatedDevice, wgpu,
};

use super::{lease, noop, simulated, vulkan};

fn open_noop(options: DeviceOptions) -> GpuDevice {
    let source = DeviceSource::Noop;
    GpuDevice::open(DeviceOptions { source, memory_bytes: Some(1 << 20), ..options }).wait().unwrap()
}

fn halves(device: &GpuDevice) -> [GpuLease; 2] {
    [(); 2].map(|()| lease(device, 0.5, 4096))
}

/// Takes this long.
fn lasting(time: Duration) {
    let end = Instant::now() + time;
    while let Some(rest) = end.checked_duration_since(Instant::now()) {
        thread::park_timeout(rest);
    }
}

/// A turn whose closure runs until it is told to end, on a thread of its own.
fn running(lease: &GpuLease) -> (std::sync::mpsc::Sender<()>, thread::JoinHandle<Result<(), GpuError>>) {
    let (lease, (end, told), (began, begin)) = (lease.clone(), channel::<()>(), channel());
    let closure = move |_: &ExclusiveDevice| {
        began.send(()).unwrap();
        let _ = told.recv();
    };
    let thread = thread::spawn(move || lease.exclusive(closure).wait());
    begin.recv().unwrap();
    (end, thread)
}

#[test]
fn a_closure_runs_where_it_is_waited_for_and_is_charged_for_its_time() {
    let device = noop();
    let lease = lease(&device, 0.5, 4096);
    let own = thread::current().id();
    let ran_on = lease.exclusive(|lent| {
        let encoder = lent.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        lent.queue().submit([encoder.finish()]);
        lasting(Duration::from_millis(30));
        thread::current().id()
    });
    assert_eq!(ran_on.wait().unwrap(), own);
    let status = lease.status();
    assert_eq!((status.jobs, status.slices), (1, 1));
    assert!(status.device_time >= Duration::from_millis(30), "{status:?}");
    assert!(device.busy() >= status.device_time);
}

#[test]
fn nothing_else_runs_while_a_closure_has_the_device() {
    let device = noop();
    let [one, other] = halves(&device);
    let buffer = other.create_buffer(64).wait().unwrap();
    let (end, thread) = running(&one);
    // Both have several outstanding: two slices at once would be fine.
    let later = one.exclusive(|_| ());
    let mut job = other.write(&buffer, 0, vec![1; 64]);
    let mut turn = other.exclusive(|_| ());
    // Requests that need no turn are answered meanwhile.
    other.create_buffer(64).wait().unwrap();
    lasting(Duration::from_millis(50));
    assert!((&mut job).now_or_never().is_none() && (&mut turn).now_or_never().is_none());
    drop(later);
    end.send(()).unwrap();
    thread.join().unwrap().unwrap();
    job.wait().unwrap();
    turn.wait().unwrap();
}

/// The share of the first of two leases, a quarter with closures four times as long as those of the other.
fn first_s_share(order: Order) -> f64 {
    let sharing = ShareOptions { order, ..Default::default() };
    let device = open_noop(DeviceOptions { sharing, ..Default::default() });
    let leases = [(0.25, 8), (0.75, 2)].map(|(value, ms)| (lease(&device, value, 4096), ms));
    let (inside, together) = (AtomicUsize::new(0), AtomicBool::new(false));
    let end = Instant::now() + Duration::from_millis(1500);
    thread::scope(|scope| {
        for (lease, ms) in leases.iter().flat_map(|lease| [lease; 2]) {
            let (inside, together) = (&inside, &together);
            scope.spawn(move || {
                while Instant::now() < end {
                    let closure = |_: &ExclusiveDevice| {
                        together.fetch_or(inside.fetch_add(1, Ordering::SeqCst) > 0, Ordering::SeqCst);
                        lasting(Duration::from_millis(*ms));
                        inside.fetch_sub(1, Ordering::SeqCst);
                    };
                    lease.exclusive(closure).wait().unwrap();
                }
            });
        }
    });
    assert!(!together.into_inner(), "two at once");
    let [one, other] = leases.map(|(lease, _)| lease.status().device_time.as_secs_f64());
    one / (one + other)
}

#[test]
fn closures_share_the_device_as_jobs_do() {
    let by_share = first_s_share(Order::Shares);
    assert!((by_share / 0.25 - 1.0).abs() < 0.15, "{by_share}");
    let by_arrival = first_s_share(Order::Arrival);
    assert!(by_arrival / 0.25 - 1.0 > 0.5, "the control: {by_arrival}");
}

#[test]
fn a_closure_that_panics_ends_its_turn_and_panics_where_it_was_waited_for() {
    let device = noop();
    let [one, other] = halves(&device);
    let wait = || one.exclusive(|_| panic!("wrong")).wait();
    let caught = catch_unwind(AssertUnwindSafe(wait));
    assert_eq!(*caught.unwrap_err().downcast::<&str>().unwrap(), "wrong");
    other.exclusive(|_| ()).wait().unwrap();
    one.exclusive(|_| ()).wait().unwrap();
    assert_eq!(one.status().slices, 2, "charged as any other");
}

#[test]
fn what_a_closure_does_wrong_is_told_to_it_and_to_nobody_else() {
    let device = noop();
    let [one, other] = halves(&device);
    let descriptor = wgpu::BufferDescriptor {
        label: None,
        size: 1 << 60,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    };
    let wrong = one.exclusive(|lent| drop(lent.device().create_buffer(&descriptor))).wait();
    assert!(matches!(wrong, Err(GpuError::Invalid { .. })), "{wrong:?}");
    let buffer = other.create_buffer(64).wait().unwrap();
    other.write(&buffer, 0, vec![0; 64]).wait().unwrap();
    one.exclusive(|_| ()).wait().unwrap();
}

#[test]
fn a_device_lost_under_a_closure_is_a_typed_error_for_it_and_for_who_waits() {
    let device = noop();
    let [one, other] = halves(&device);
    let (end, thread) = running(&one);
    let waits = other.exclusive(|_| ());
    device.lose().unwrap();
    assert!(matches!(waits.wait(), Err(GpuError::DeviceLost { epoch: 1, .. })));
    // The old closure goes on, with a device that is gone, beside what runs on the new one.
    other.renew().wait().unwrap().exclusive(|_| ()).wait().unwrap();
    end.send(()).unwrap();
    assert!(matches!(thread.join().unwrap(), Err(GpuError::DeviceLost { epoch: 1, .. })));
    assert_eq!(one.exclusive(|_| ()).wait(), Err(GpuError::OtherEpoch { own: 1, current: 2 }));
}

#[test]
fn a_loss_is_noticed_though_a_framework_has_itself_told_of_it() {
    let device = noop();
    let [one, other] = halves(&device);
    let lost = one.exclusive(|lent| {
        lent.device().on_uncaptured_error(std::sync::Arc::new(|_| {}));
        lent.device().set_device_lost_callback(|_, _| {});
        lent.device().destroy();
    });
    let began = Instant::now();
    let lost = lost.wait();
    assert!(matches!(lost, Err(GpuError::DeviceLost { epoch: 1, .. })), "{lost:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "at once, not by the watchdog");
    other.renew().wait().unwrap().exclusive(|_| ()).wait().unwrap();
}

#[test]
fn a_closure_that_does_not_end_costs_its_lease_a_watchdog_and_the_others_the_device() {
    let after = Duration::from_millis(100);
    let device = open_noop(DeviceOptions { give_up_after: after, ..Default::default() });
    let [one, other] = halves(&device);
    let (end, thread) = running(&one);
    let waits = other.exclusive(|_| ()).wait();
    assert!(matches!(waits, Err(GpuError::DeviceLost { epoch: 1, .. })), "{waits:?}");
    other.renew().wait().unwrap().exclusive(|_| ()).wait().unwrap();
    end.send(()).unwrap();
    assert_eq!(thread.join().unwrap(), Err(GpuError::Watchdog { after }));
}

#[test]
fn a_released_lease_fails_who_waits_and_lets_the_running_closure_end() {
    let device = noop();
    let [one, other] = halves(&device);
    let (end, thread) = running(&one);
    let waits = one.exclusive(|_| ());
    let behind = other.exclusive(|_| ());
    let released = one.clone().release();
    assert_eq!(waits.wait(), Err(GpuError::Released));
    end.send(()).unwrap();
    assert_eq!(thread.join().unwrap(), Ok(()));
    released.wait().unwrap();
    behind.wait().unwrap();
    assert_eq!(one.exclusive(|_| ()).wait(), Err(GpuError::Released));
}

#[test]
fn closing_waits_for_the_closure_that_runs_and_fails_those_that_wait() {
    let device = noop();
    let [one, other] = halves(&device);
    let (end, thread) = running(&one);
    let waits = other.exclusive(|_| ());
    let mut closed = device.close();
    lasting(Duration::from_millis(30));
    assert!((&mut closed).now_or_never().is_none());
    end.send(()).unwrap();
    assert_eq!(thread.join().unwrap(), Ok(()));
    assert_eq!(waits.wait(), Err(GpuError::Closed));
    closed.wait().unwrap();
    assert_eq!(device.close().wait(), Err(GpuError::Closed));
}

#[test]
fn a_closure_whose_caller_leaves_is_not_run() {
    let device = noop();
    let [one, other] = halves(&device);
    let ran = AtomicBool::new(false);
    let (end, thread) = running(&one);
    drop(one.exclusive(|_| ran.store(true, Ordering::SeqCst)));
    end.send(()).unwrap();
    thread.join().unwrap().unwrap();
    // Had its turn, and nobody came for it.
    let given = one.exclusive(|_| ran.store(true, Ordering::SeqCst));
    device.status().wait().unwrap();
    let waits = other.exclusive(|_| ());
    drop(given);
    waits.wait().unwrap();
    assert!(!ran.into_inner());
}

#[test]
fn a_turn_that_is_not_taken_goes_to_the_next() {
    let device = noop();
    let [one, other] = halves(&device);
    let ran = AtomicBool::new(false);
    let late = one.exclusive(|_| ran.store(true, Ordering::SeqCst));
    device.status().wait().unwrap();
    let began = Instant::now();
    other.exclusive(|_| ()).wait().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(400), "the device was held for it");
    let missed = late.wait().unwrap_err();
    assert!(matches!(missed, GpuError::TurnMissed { .. }) && missed.retryable(), "{missed}");
    assert!(!ran.into_inner());
    assert!(one.status().device_time >= Duration::from_millis(400), "and charged for it");
    one.exclusive(|_| ()).wait().unwrap();
}

#[test]
fn a_turn_inside_a_turn_is_refused() {
    let device = noop();
    let lease = lease(&device, 0.5, 4096);
    let inner = lease.exclusive(|_| lease.exclusive(|_| ()).wait()).wait().unwrap();
    assert!(matches!(inner, Err(GpuError::Invalid { .. })), "{inner:?}");
    lease.exclusive(|_| ()).wait().unwrap();
}

#[test]
fn a_simulated_device_has_nothing_to_lend() {
    let device = simulated(SimulatedDevice::default());
    let lease = lease(&device, 0.5, 4096);
    assert!(matches!(lease.exclusive(|_| ()).wait(), Err(GpuError::Invalid { .. })));
    lease.create_buffer(64).wait().unwrap();
}

#[actix_web::test]
async fn several_of_one_thread_take_turns_as_futures() {
    let device = noop();
    let [one, other] = halves(&device);
    let turns = [&one, &other, &one, &one].map(|lease| lease.exclusive(|_| thread::current().id()));
    for ran_on in futures_util::future::join_all(turns).await {
        assert_eq!(ran_on.unwrap(), thread::current().id());
    }
}

#[test]
fn a_callback_that_a_closure_left_and_that_panics_is_its_own_caller_s() {
    let device = noop();
    let [one, other] = halves(&device);
    let turn = one.exclusive(|lent| {
        lent.queue().submit([]);
        lent.queue().on_submitted_work_done(|| panic!("told to"));
    });
    assert!(catch_unwind(AssertUnwindSafe(|| turn.wait())).is_err(), "it panics where it was left");
    other.exclusive(|_| ()).wait().unwrap();
    assert_eq!((device.epoch(), device.losses()), (1, 0));
}

#[test]
fn a_loss_is_noticed_while_a_closure_has_the_device() {
    let Some(device) = vulkan(DeviceOptions::default()) else { return };
    let lease = lease(&device, 1.0, 1 << 20);
    let mut took = Duration::MAX;
    let noticed = lease.exclusive(|lent| {
        lent.device().destroy();
        let wait = wgpu::PollType::Wait { submission_index: None, timeout: Some(Duration::from_secs(1)) };
        let _ = lent.device().poll(wait);
        lent.queue().submit([]);
        let began = Instant::now();
        while device.epoch() == 1 && began.elapsed() < Duration::from_secs(5) {
            let _ = lent.device().poll(wgpu::PollType::Poll);
            thread::park_timeout(Duration::from_millis(5));
        }
        took = began.elapsed();
    });
    // Its closure has ended, and its answer is the loss.
    assert!(matches!(noticed.wait(), Err(GpuError::DeviceLost { epoch: 1, .. })));
    assert_eq!((device.epoch(), device.losses()), (2, 1));
    assert!(took < Duration::from_secs(5), "not before it ended");
}
