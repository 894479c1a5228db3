//! The loss of a device: everybody is told, and it comes back in another epoch.

use std::time::{Duration, Instant};

use greenroom::gpu::{DeviceOptions, GpuError, Job, KernelSpec, SimulatedDevice};

use super::{bytes, floats, kernels, lease, open_simulated, simulated, vulkan};

#[test]
fn every_job_of_a_lost_device_is_answered_and_leases_are_renewed() {
    let slow = SimulatedDevice { workgroup: Duration::from_millis(50), ..Default::default() };
    let device = simulated(slow);
    let lease = lease(&device, 0.5, 1 << 20);
    let buffer = lease.create_buffer(64).wait().unwrap();
    let kernel = lease.create_kernel(KernelSpec::new("")).wait().unwrap();
    let jobs: Vec<_> = (0..8).map(|_| lease.submit(Job::new().dispatch(&kernel, &[], [1, 1, 1]))).collect();
    device.lose().unwrap();
    for job in jobs {
        let lost = job.wait().unwrap_err();
        assert!(matches!(lost, GpuError::DeviceLost { epoch: 1, .. }) && lost.retryable(), "{lost}");
    }
    assert_eq!(lease.create_buffer(4).wait().unwrap_err(), GpuError::OtherEpoch { own: 1, current: 2 });
    assert_eq!(device.free().ten_thousandths, 5_000, "the share is still the lease's");
    let renewed = lease.renew().wait().unwrap();
    assert_eq!((renewed.epoch(), renewed.share()), (2, lease.share()));
    assert_eq!(renewed.read(&buffer, 0, 4).wait().unwrap_err(), GpuError::OtherEpoch { own: 1, current: 2 });
    renewed.create_buffer(64).wait().unwrap();
    let again = renewed.renew().wait().unwrap();
    assert_eq!(again.id(), renewed.id(), "nothing was lost meanwhile");
    drop((lease, again, renewed));
    let status = device.status().wait().unwrap();
    assert_eq!((status.lost, status.epoch, status.free.ten_thousandths), (1, 2, 10_000));
    assert!(status.recovery.is_some());
}

#[test]
fn a_job_that_never_ends_costs_its_own_lease_a_watchdog_and_the_others_the_device() {
    let options = DeviceOptions {
        suspect_after: Duration::from_millis(10),
        give_up_after: Duration::from_millis(50),
        ..Default::default()
    };
    let endless = SimulatedDevice { workgroup: Duration::from_secs(1000), ..Default::default() };
    let device = open_simulated(endless, options);
    let (guilty, other) = (lease(&device, 0.5, 4096), lease(&device, 0.5, 4096));
    let kernel = guilty.create_kernel(KernelSpec::new("")).wait().unwrap();
    let buffer = other.create_buffer(64).wait().unwrap();
    let never = guilty.submit(Job::new().dispatch(&kernel, &[], [1, 1, 1]));
    let behind = other.write(&buffer, 0, vec![0; 64]);
    assert_eq!(never.wait().unwrap_err(), GpuError::Watchdog { after: Duration::from_millis(50) });
    assert!(matches!(behind.wait(), Err(GpuError::DeviceLost { epoch: 1, .. })));
    let other = other.renew().wait().unwrap();
    let buffer = other.create_buffer(64).wait().unwrap();
    other.write(&buffer, 0, vec![0; 64]).wait().unwrap();
}

#[test]
fn a_job_of_many_slices_may_run_longer_than_one_slice_may() {
    let give_up_after = Duration::from_millis(150);
    let spec = SimulatedDevice { workgroup: Duration::from_millis(40), ..Default::default() };
    let device = open_simulated(spec, DeviceOptions { give_up_after, ..Default::default() });
    let lease = lease(&device, 0.5, 4096);
    let kernel = lease.create_kernel(KernelSpec::new("")).wait().unwrap();
    let long = (0..8).fold(Job::new(), |job, _| job.dispatch(&kernel, &[], [1, 1, 1]));
    let done = lease.submit(long).wait().unwrap();
    assert!(done.slices > 1 && done.device_time > 2 * give_up_after, "{done:?}");
    assert_eq!(device.losses(), 0);
}

#[test]
fn a_lost_lease_that_is_renewed_twice_is_one_share_and_one_quota() {
    let device = simulated(SimulatedDevice::default());
    let lease = lease(&device, 1.0, 4096);
    device.lose().unwrap();
    device.status().wait().unwrap();
    let (one, other) = (lease.renew().wait().unwrap(), lease.clone().renew().wait().unwrap());
    assert_eq!(one.id(), other.id());
    let _half = one.create_buffer(2048).wait().unwrap();
    assert!(matches!(other.create_buffer(4096).wait(), Err(GpuError::QuotaExceeded { .. })));
    assert_eq!(device.status().wait().unwrap().leases.len(), 1);
    one.release().wait().unwrap();
    assert_eq!(lease.renew().wait().unwrap_err(), GpuError::Released, "its place is somebody else's now");
    assert_eq!(device.free().ten_thousandths, 10_000);
}

#[test]
fn a_device_that_does_not_open_is_lost_once_however_often_it_is_asked() {
    let device = simulated(SimulatedDevice { openings_max: 1, ..Default::default() });
    device.lose().unwrap();
    for _ in 0..3 {
        let status = device.status().wait().unwrap();
        assert_eq!((status.lost, status.epoch, device.losses()), (1, 2, 1));
    }
}

#[test]
fn a_device_that_does_not_open_again_refuses_leases_with_the_reason() {
    let device = simulated(SimulatedDevice { openings_max: 1, ..Default::default() });
    let lease = lease(&device, 0.5, 4096);
    device.lose().unwrap();
    device.status().wait().unwrap();
    assert!(matches!(lease.renew().wait(), Err(GpuError::NoDevice { .. })));
}

#[test]
fn a_driver_s_device_is_lost_and_computes_again_after_a_while() {
    let Some(device) = vulkan(DeviceOptions::default()) else { return };
    let lease = lease(&device, 0.5, 1 << 20);
    let buffer = lease.create_buffer(4 * 64 * 64).wait().unwrap();
    let kernel = lease.create_kernel(kernels::spin()).wait().unwrap();
    let job = Job::new().dispatch_with(&kernel, &[&buffer], [64, 1, 1], &kernels::rounds(50));
    let jobs: Vec<_> = (0..8).map(|_| lease.submit(job.clone())).collect();
    device.lose().unwrap();
    let began = Instant::now();
    let lost = jobs.into_iter().filter_map(|job| job.wait().err()).collect::<Vec<_>>();
    assert!(!lost.is_empty());
    assert!(lost.iter().all(|error| matches!(error, GpuError::DeviceLost { epoch: 1, .. })), "{lost:?}");
    let lease = lease.renew().wait().unwrap();
    let buffer = lease.create_buffer(256).wait().unwrap();
    let kernel = lease.create_kernel(kernels::double()).wait().unwrap();
    let job = Job::new()
        .write(&buffer, 0, bytes(&[1.5; 64]))
        .dispatch(&kernel, &[&buffer], [1, 1, 1])
        .read(&buffer, 0, 256);
    assert_eq!(floats(&lease.submit(job).wait().unwrap().reads[0]), [3.0; 64]);
    println!("recovered after {:?}", began.elapsed());
}

#[test]
fn a_kernel_of_seconds_trips_the_watchdog_of_a_driver_s_device() {
    let options = DeviceOptions { give_up_after: Duration::from_millis(200), ..Default::default() };
    let Some(device) = vulkan(options) else { return };
    let lease = lease(&device, 0.5, 1 << 20);
    let buffer = lease.create_buffer(4 * 64 * 1000).wait().unwrap();
    // It cannot be cut, and ends by itself after some seconds.
    let kernel = lease.create_kernel(KernelSpec::new(kernels::SPIN)).wait().unwrap();
    let long = Job::new().dispatch_with(&kernel, &[&buffer], [1000, 1, 1], &kernels::rounds(20_000));
    let stopped = lease.submit(long).wait();
    if stopped.is_ok() && !device.facts().software {
        return eprintln!("SKIPPED the rest: {} is faster than this test is patient", device.facts().name);
    }
    assert_eq!(stopped.unwrap_err(), GpuError::Watchdog { after: Duration::from_millis(200) });
    let lease = lease.renew().wait().unwrap();
    let buffer = lease.create_buffer(256).wait().unwrap();
    lease.write(&buffer, 0, vec![0; 256]).wait().unwrap();
}
