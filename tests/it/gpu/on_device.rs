//! What a real driver does: results, errors with their place, slices, counted memory.

use std::time::{Duration, Instant};

use greenroom::gpu::{DeviceClock, DeviceOptions, GpuError, Job, KernelSpec, ShareOptions};

use super::{bytes, floats, kernels, lease, vulkan};

#[test]
fn a_job_writes_computes_and_reads_in_one_round_trip() {
    let Some(device) = vulkan(DeviceOptions::default()) else { return };
    let lease = lease(&device, 0.5, 1 << 20);
    let buffer = lease.create_buffer(4 * 100).wait().unwrap();
    let kernel = lease.create_kernel(kernels::double()).wait().unwrap();
    let input: Vec<f32> = (0..100).map(|n| n as f32).collect();
    let job = Job::new()
        .write(&buffer, 0, bytes(&input))
        .dispatch(&kernel, &[&buffer], [2, 1, 1])
        .read(&buffer, 0, 400);
    let done = lease.submit(job).wait().unwrap();
    assert_eq!(floats(&done.reads[0]), input.iter().map(|x| 2.0 * x).collect::<Vec<_>>());
    assert!(done.device_time > Duration::ZERO);
}

#[test]
fn a_kernel_that_does_not_compile_fails_with_its_place_for_its_caller_alone() {
    let Some(device) = vulkan(DeviceOptions::default()) else { return };
    let (good, bad) = (lease(&device, 0.5, 1 << 20), lease(&device, 0.5, 1 << 20));
    let buffer = good.create_buffer(256).wait().unwrap();
    let kernel = good.create_kernel(kernels::double()).wait().unwrap();
    let wrong = "@compute @workgroup_size(1)\nfn main() {\n    let x: u32 = 1.5;\n}";
    let running = good.submit(Job::new().dispatch(&kernel, &[&buffer], [1, 1, 1]));
    match bad.create_kernel(KernelSpec::new(wrong)).wait() {
        Err(GpuError::Wgsl { line: 3, column, message }) => assert!(column > 1, "{message}"),
        other => panic!("{other:?}"),
    }
    let missing = bad.create_kernel(KernelSpec::new("@compute @workgroup_size(1) fn other() {}")).wait();
    assert!(matches!(missing, Err(GpuError::Invalid { .. })), "{missing:?}");
    running.wait().unwrap();
}

#[test]
fn leases_with_the_same_text_compute_each_with_its_own_kernel_and_another_entry_point_is_another() {
    let Some(device) = vulkan(DeviceOptions::default()) else { return };
    let leases: Vec<_> = (0..4).map(|_| lease(&device, 0.25, 1 << 20)).collect();
    let text = "@group(0) @binding(0) var<storage, read_write> data: array<f32>;
        @compute @workgroup_size(64) fn main(@builtin(local_invocation_index) i: u32) { data[i] *= 2.0; }
        @compute @workgroup_size(64) fn triple(@builtin(local_invocation_index) i: u32) { data[i] *= 3.0; }";
    // Asked for at once, and once more when all are there.
    let at_once: Vec<_> = leases
        .iter()
        .enumerate()
        .map(|(n, lease)| {
            let spec = KernelSpec::new(text);
            lease.create_kernel(if n == 3 { spec.entry("triple") } else { spec })
        })
        .collect();
    let mut kernels: Vec<_> = at_once.into_iter().map(|kernel| kernel.wait().unwrap()).collect();
    kernels.extend(leases.iter().map(|lease| lease.create_kernel(KernelSpec::new(text)).wait().unwrap()));
    let run = |n: usize| {
        let lease = &leases[n % 4];
        let buffer = lease.create_buffer(256).wait()?;
        let job = Job::new().write(&buffer, 0, bytes(&[1.0; 64]));
        let job = job.dispatch(&kernels[n], &[&buffer], [1, 1, 1]).read(&buffer, 0, 256);
        lease.submit(job).wait().map(|done| floats(&done.reads[0])[0])
    };
    let got: Vec<_> = (0..8).map(|n| run(n).unwrap()).collect();
    assert_eq!(got, [2.0, 2.0, 2.0, 3.0, 2.0, 2.0, 2.0, 2.0]);
    leases[0].clone().release().wait().unwrap();
    assert_eq!(run(0), Err(GpuError::Released));
    assert_eq!((run(1), run(7)), (Ok(2.0), Ok(2.0)), "who goes takes nobody else's kernel along");
}

#[test]
fn a_job_that_does_not_fit_its_kernel_fails_alone() {
    let Some(device) = vulkan(DeviceOptions::default()) else { return };
    let lease = lease(&device, 1.0, 1 << 20);
    let buffer = lease.create_buffer(256).wait().unwrap();
    let kernel = lease.create_kernel(kernels::double()).wait().unwrap();
    let none = lease.submit(Job::new().dispatch(&kernel, &[], [1, 1, 1]));
    let two = lease.submit(Job::new().dispatch(&kernel, &[&buffer, &buffer], [1, 1, 1]));
    let fine = lease.submit(Job::new().dispatch(&kernel, &[&buffer], [1, 1, 1]));
    let wide = lease.submit(Job::new().dispatch(&kernel, &[&buffer], [70_000, 1, 1]));
    let loud = lease.submit(Job::new().dispatch_with(&kernel, &[&buffer], [1, 1, 1], &[0; 4096]));
    for failed in [none, two, wide, loud] {
        let failed = failed.wait();
        assert!(matches!(failed, Err(GpuError::Invalid { .. })), "{failed:?}");
    }
    fine.wait().unwrap();
}

#[test]
fn a_buffer_above_the_device_s_limit_is_refused_with_the_limit() {
    let Some(device) = vulkan(DeviceOptions { memory_bytes: Some(64 << 30), ..Default::default() }) else {
        return;
    };
    let lease = lease(&device, 1.0, 32 << 30);
    let max_bytes = device.facts().buffer_bytes_max;
    let refused = lease.create_buffer(max_bytes + 4).wait().unwrap_err();
    assert_eq!(refused, GpuError::BufferTooLarge { requested_bytes: max_bytes + 4, max_bytes });
}

#[test]
fn a_dispatch_in_many_slices_has_the_same_bits_as_one_in_one() {
    let sharing = |slice_max| DeviceOptions {
        sharing: ShareOptions { slice_max, ..Default::default() },
        ..Default::default()
    };
    let run = |slice_max| {
        let device = vulkan(sharing(slice_max))?;
        let lease = lease(&device, 1.0, 1 << 20);
        let input: Vec<f32> = (0..64 * 64).map(|n| (n as f32 * 0.37).fract()).collect();
        let buffer = lease.create_buffer(4 * input.len() as u64).wait().unwrap();
        let kernel = lease.create_kernel(kernels::spin()).wait().unwrap();
        lease.write(&buffer, 0, bytes(&input)).wait().unwrap();
        let mut slices = 0;
        for _ in 0..3 {
            let job = Job::new().dispatch_with(&kernel, &[&buffer], [64, 1, 1], &kernels::rounds(20));
            slices = lease.submit(job).wait().unwrap().slices;
        }
        Some((slices, lease.read(&buffer, 0, 4 * input.len() as u64).wait().unwrap().reads))
    };
    let (Some((one, whole)), Some((many, cut))) =
        (run(Duration::from_secs(60)), run(Duration::from_micros(300)))
    else {
        return;
    };
    assert_eq!(one, 1);
    assert!(many > 3, "{many}");
    assert!(whole == cut, "the results differ");
}

#[test]
fn what_the_device_counts_in_buffers_is_what_leases_are_charged() {
    let Some(device) = vulkan(DeviceOptions::default()) else { return };
    let lease = lease(&device, 0.5, 8 << 20);
    let audit = |what: &str| {
        let status = device.status().wait().unwrap();
        assert_eq!(status.counted_bytes, Some(status.leased_bytes), "{what}");
        status.leased_bytes
    };
    assert_eq!(audit("nothing"), 0);
    let buffers: Vec<_> = (1..50).map(|n| lease.create_buffer(n * 100).wait().unwrap()).collect();
    let full = audit("buffers");
    assert_eq!(full, lease.memory_used_bytes());
    for buffer in &buffers {
        lease.write(buffer, 0, vec![1; buffer.bytes() as usize]).wait().unwrap();
        lease.read(buffer, 0, buffer.bytes()).wait().unwrap();
    }
    assert_eq!(audit("after staging"), full);
    drop(buffers);
    assert_eq!(audit("all dropped"), 0);
}

#[test]
fn the_device_s_own_clock_and_the_host_s_measure_jobs_that_follow_each_other_as_what_passed() {
    for clock in [DeviceClock::Host, DeviceClock::Device] {
        let Some(device) = vulkan(DeviceOptions { clock, ..Default::default() }) else { return };
        assert_eq!(device.facts().timestamps, clock == DeviceClock::Device);
        let lease = lease(&device, 1.0, 1 << 20);
        let buffer = lease.create_buffer(4 * 64 * 64).wait().unwrap();
        let kernel = lease.create_kernel(kernels::spin()).wait().unwrap();
        let job = Job::new().dispatch_with(&kernel, &[&buffer], [64, 1, 1], &kernels::rounds(40));
        lease.submit(job.clone()).wait().unwrap();
        let began = Instant::now();
        let pending: Vec<_> = (0..20).map(|_| lease.submit(job.clone())).collect();
        let taken: Duration = pending.into_iter().map(|job| job.wait().unwrap().device_time).sum();
        let passed = began.elapsed();
        println!("{clock:?}: {taken:?} of {passed:?}");
        assert!(taken <= passed && taken > passed / 4, "{clock:?}: {taken:?} of {passed:?}");
        // What goes by without a job is nobody's.
        let idle = Duration::from_millis(500);
        std::thread::park_timeout(idle);
        let late = lease.submit(job.clone()).wait().unwrap().device_time;
        assert!(late < idle / 2, "{clock:?}: {late:?}");
    }
}

#[test]
fn writes_never_hold_more_of_the_device_than_their_lease_is_charged() {
    let Some(device) = vulkan(DeviceOptions::default()) else { return };
    let lease = lease(&device, 1.0, 128 << 20);
    let buffer = lease.create_buffer(32 << 20).wait().unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let write = |_| lease.write(&buffer, 0, vec![0; 32 << 20]);
            (0..4).map(write).collect::<Vec<_>>().into_iter().for_each(|write| drop(write.wait().unwrap()));
        });
        let mut most = 0;
        while !writer.is_finished() || most == 0 {
            let status = device.status().wait().unwrap();
            assert!(status.counted_bytes <= Some(status.leased_bytes), "{status:?}");
            most = most.max(status.leased_bytes);
        }
        assert!(most > 32 << 20, "staging was never seen");
    });
}

#[test]
fn options_beyond_all_sense_are_as_much_as_there_can_be() {
    for clock in [DeviceClock::Host, DeviceClock::Device] {
        let sharing = ShareOptions {
            depth_max: 1000,
            slice_max: Duration::MAX,
            anticipation: Duration::MAX,
            ..Default::default()
        };
        let options = DeviceOptions { sharing, clock, give_up_after: Duration::MAX, ..Default::default() };
        let Some(device) = vulkan(options) else { return };
        let lease = lease(&device, 1.0, 1 << 20);
        let buffer = lease.create_buffer(4 * 64 * 64).wait().unwrap();
        let kernel = lease.create_kernel(kernels::spin()).wait().unwrap();
        let job = Job::new().dispatch_with(&kernel, &[&buffer], [64, 1, 1], &kernels::rounds(1));
        let pending: Vec<_> = (0..60).map(|_| lease.submit(job.clone())).collect();
        pending.into_iter().for_each(|job| drop(job.wait().unwrap()));
        assert_eq!(device.losses(), 0);
    }
}
