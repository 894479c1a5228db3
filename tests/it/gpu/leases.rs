//! Leases, quotas and requests, on devices that need no driver.

use std::time::Duration;

use greenroom::gpu::{
    DeviceOptions, GpuError, Job, KernelSpec, LeaseRequest, ShareOptions, SharePolicy, SimulatedDevice,
};

use super::{kernels, lease, noop, open_simulated, share, simulated};

#[test]
fn shares_and_memory_above_the_device_are_refused_and_a_release_makes_room() {
    let device = noop();
    let most = device.lease(LeaseRequest::new(share(0.7))).wait().unwrap();
    let refused = device.lease(LeaseRequest::new(share(0.4))).wait().unwrap_err();
    assert!(matches!(&refused, GpuError::Unplaceable { free, .. } if free.contains("0.3")), "{refused}");
    let greedy = LeaseRequest::new(share(0.1)).memory_bytes(1 << 20);
    assert!(matches!(device.lease(greedy).wait(), Err(GpuError::Unplaceable { .. })), "5 % are kept back");
    most.release().wait().unwrap();
    device.lease(LeaseRequest::new(share(1.0))).wait().unwrap();
}

#[test]
fn a_lease_never_holds_more_than_its_quota_and_gets_room_back_on_drop() {
    let device = noop();
    let lease = lease(&device, 0.5, 4096);
    let first = lease.create_buffer(3000).wait().unwrap();
    assert_eq!((first.bytes(), lease.memory_used_bytes()), (3000, 3072));
    let refused = lease.create_buffer(1028).wait().unwrap_err();
    let told = GpuError::QuotaExceeded { requested_bytes: 1280, used_bytes: 3072, quota_bytes: 4096 };
    assert_eq!(refused, told);
    let full = lease.create_buffer(1024).wait().unwrap();
    let staging = lease.write(&first, 0, vec![0; 8]).wait().unwrap_err();
    assert!(matches!(staging, GpuError::QuotaExceeded { .. }), "staging counts: {staging}");
    drop(full);
    lease.write(&first, 0, vec![0; 8]).wait().unwrap();
    drop(first);
    lease.create_buffer(4096).wait().unwrap();
}

#[test]
fn a_transfer_larger_than_the_room_left_goes_in_smaller_pieces() {
    let device = simulated(SimulatedDevice { memory_bytes: 16 << 20, ..Default::default() });
    let lease = lease(&device, 1.0, (1 << 20) + (64 << 10));
    let buffer = lease.create_buffer(1 << 20).wait().unwrap();
    let data: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
    let kernel = lease.create_kernel(kernels::double()).wait().unwrap();
    let job = Job::new().write(&buffer, 0, data.clone()).dispatch(&kernel, &[&buffer], [1, 1, 1]).read(
        &buffer,
        0,
        1 << 20,
    );
    let done = lease.submit(job).wait().unwrap();
    assert!(done.reads == [data], "all of it arrives");
    assert!(done.slices >= 32, "{}", done.slices);
    assert_eq!(device.status().wait().unwrap().leases[0].peak_bytes, (1 << 20) + (64 << 10));
}

#[test]
fn the_driver_s_own_lack_of_memory_is_an_error_of_the_request() {
    let device = simulated(SimulatedDevice { driver_bytes: 4096, ..Default::default() });
    let lease = lease(&device, 0.5, 1 << 20);
    let _some = lease.create_buffer(4096).wait().unwrap();
    assert_eq!(lease.create_buffer(4).wait().unwrap_err(), GpuError::DeviceOutOfMemory);
    assert_eq!(lease.memory_used_bytes(), 4096, "what was not made is not charged");
}

#[test]
fn a_lease_that_was_released_is_of_no_use_and_neither_is_what_it_made() {
    let device = noop();
    let lease = lease(&device, 0.5, 4096);
    let buffer = lease.create_buffer(64).wait().unwrap();
    let other = lease.clone();
    lease.release().wait().unwrap();
    assert_eq!(other.create_buffer(64).wait().unwrap_err(), GpuError::Released);
    assert_eq!(other.read(&buffer, 0, 64).wait().unwrap_err(), GpuError::Released);
    assert_eq!(other.renew().wait().unwrap_err(), GpuError::Released);
    assert_eq!(device.free().ten_thousandths, 10_000, "whatever clones there are");
    other.release().wait().unwrap();
    assert_eq!(device.free().ten_thousandths, 10_000, "and once");
}

#[test]
fn a_lease_dropped_with_jobs_waiting_fails_them_and_gives_all_of_it_back() {
    let device = simulated(SimulatedDevice { workgroup: Duration::from_millis(20), ..Default::default() });
    let lease = lease(&device, 0.5, 1 << 20);
    let _buffer = lease.create_buffer(1024).wait().unwrap();
    let kernel = lease.create_kernel(KernelSpec::new("")).wait().unwrap();
    let jobs: Vec<_> = (0..8).map(|_| lease.submit(Job::new().dispatch(&kernel, &[], [1, 1, 1]))).collect();
    lease.release().wait().unwrap();
    let ends: Vec<_> = jobs.into_iter().map(|job| job.wait().err()).collect();
    assert!(ends.contains(&Some(GpuError::Released)), "{ends:?}");
    let status = device.status().wait().unwrap();
    assert!(status.leases.is_empty());
    assert_eq!((status.leased_bytes, status.counted_bytes), (0, Some(0)));
}

#[test]
fn buffers_of_another_lease_are_refused() {
    let device = noop();
    let (mine, yours) = (lease(&device, 0.5, 4096), lease(&device, 0.5, 4096));
    let buffer = yours.create_buffer(64).wait().unwrap();
    let refused = mine.read(&buffer, 0, 64).wait().unwrap_err();
    assert!(matches!(&refused, GpuError::Invalid { what } if what.contains("another lease")), "{refused}");
}

#[test]
fn ranges_outside_a_buffer_and_jobs_without_steps_are_refused() {
    let device = noop();
    let lease = lease(&device, 0.5, 4096);
    let buffer = lease.create_buffer(64).wait().unwrap();
    for (offset, bytes) in [(0, 68), (64, 4), (2, 4), (0, 6), (0, 0), (u64::MAX, 4)] {
        let refused = lease.read(&buffer, offset, bytes).wait();
        assert!(matches!(refused, Err(GpuError::Invalid { .. })), "{offset} {bytes}: {refused:?}");
    }
    assert!(matches!(lease.submit(Job::new()).wait(), Err(GpuError::Invalid { .. })));
    assert!(matches!(lease.create_buffer(0).wait(), Err(GpuError::Invalid { .. })));
}

#[test]
fn a_lease_with_too_many_jobs_is_refused_and_others_are_not() {
    let options = DeviceOptions { jobs_max: 4, ..Default::default() };
    let slow = SimulatedDevice { workgroup: Duration::from_millis(20), ..Default::default() };
    let device = open_simulated(slow, options);
    let (busy, other) = (lease(&device, 0.5, 4096), lease(&device, 0.5, 4096));
    let kernel = busy.create_kernel(KernelSpec::new("")).wait().unwrap();
    let job = || busy.submit(Job::new().dispatch(&kernel, &[], [1, 1, 1]));
    let fine: Vec<_> = (0..4).map(|_| job()).collect();
    assert_eq!(job().wait().unwrap_err(), GpuError::QueueFull { limit: 4 });
    other.create_buffer(64).wait().unwrap();
    fine.into_iter().for_each(|job| assert!(job.wait().is_ok()));
    job().wait().unwrap();
}

#[test]
fn a_job_whose_caller_left_is_not_run() {
    let slow = SimulatedDevice { workgroup: Duration::from_millis(10), ..Default::default() };
    let device = simulated(slow);
    let lease = lease(&device, 0.5, 4096);
    let kernel = lease.create_kernel(KernelSpec::new("")).wait().unwrap();
    let job = |groups| lease.submit(Job::new().dispatch(&kernel, &[], [groups, 1, 1]));
    // Long enough that the second cannot begin before its caller has left.
    let first = job(50);
    drop(job(60_000));
    let last = job(2);
    first.wait().unwrap();
    last.wait().unwrap();
    let status = device.status().wait().unwrap();
    assert_eq!((status.leases[0].jobs, status.leases[0].slices), (3, 2));
}

/// Bytes of a caller that does not tidy up well.
struct Untidy([u8; 64]);

impl AsRef<[u8]> for Untidy {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Untidy {
    fn drop(&mut self) {
        panic!("{}", crate::support::MEANT);
    }
}

#[test]
fn bytes_that_panic_when_they_are_dropped_are_no_failure_of_the_device() {
    crate::support::quiet_panics();
    let device = noop();
    let lease = lease(&device, 0.5, 4096);
    let buffer = lease.create_buffer(64).wait().unwrap();
    let untidy = || bytes::Bytes::from_owner(Untidy([7; 64]));
    lease.write(&buffer, 0, untidy()).wait().unwrap();
    assert_eq!(lease.read(&buffer, 0, 64).wait().unwrap().reads, [[7; 64]]);
    assert_eq!((device.epoch(), device.losses()), (1, 0));
}

#[test]
fn an_answer_is_a_future_for_any_executor() {
    let device = noop();
    let lease = lease(&device, 0.5, 4096);
    let answered = futures_util::FutureExt::now_or_never(async {
        let buffer = lease.clone().create_buffer(64);
        drop(buffer);
    });
    assert!(answered.is_some());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let read = runtime.block_on(async {
        let buffer = lease.create_buffer(64).await?;
        lease.write(&buffer, 0, vec![3; 64]).await?;
        lease.read(&buffer, 60, 4).await
    });
    assert_eq!(read.unwrap().reads, [[3; 4]]);
}

#[test]
fn a_closed_device_answers_everybody() {
    let slow = SimulatedDevice { workgroup: Duration::from_secs(1000), ..Default::default() };
    let device = simulated(slow);
    let lease = lease(&device, 0.5, 4096);
    let kernel = lease.create_kernel(KernelSpec::new("")).wait().unwrap();
    let never = lease.submit(Job::new().dispatch(&kernel, &[], [1, 1, 1]));
    device.close().wait().unwrap();
    assert_eq!(never.wait().unwrap_err(), GpuError::Closed);
    assert_eq!(lease.create_buffer(64).wait().unwrap_err(), GpuError::Closed);
    assert_eq!(device.status().wait().unwrap_err(), GpuError::Closed);
}

#[test]
fn a_hard_cap_holds_on_an_idle_device() {
    let sharing = ShareOptions { slice_max: Duration::from_millis(1), ..Default::default() };
    let device = open_simulated(SimulatedDevice::default(), DeviceOptions { sharing, ..Default::default() });
    let burst = Duration::from_millis(20);
    let capped = LeaseRequest::new(share(0.25)).policy(SharePolicy::HardCap { burst }).memory_bytes(4096);
    let lease = device.lease(capped).wait().unwrap();
    let kernel = lease.create_kernel(KernelSpec::new("")).wait().unwrap();
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_millis(600) {
        lease.submit(Job::new().dispatch(&kernel, &[], [500, 1, 1])).wait().unwrap();
    }
    let used = device.status().wait().unwrap().leases[0].device_time;
    let most = (began.elapsed() + burst).mul_f64(0.25) + Duration::from_millis(2);
    assert!(used <= most, "{used:?} of {most:?}");
    assert!(used > Duration::from_millis(75), "{used:?}: it does get something");
}
