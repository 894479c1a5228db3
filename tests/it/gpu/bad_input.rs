//! What a lease refuses: jobs that do not fit, what belongs to others, odd sizes. Each time to the caller alone, and
//! everybody goes on.

use std::time::Duration;

use greenroom::gpu::{
    Axis, DeviceOptions, DeviceSource, GpuDevice, GpuError, GpuLease, JOB_STEPS_MAX, Job, KernelSpec,
    LeaseRequest, SharePolicy, SimulatedDevice,
};

use super::{bytes, floats, kernels, lease, noop, share, simulated, vulkan};

/// On wgpu's device that checks everything and computes nothing, and on a driver's where there is one.
pub fn on_each(test: impl Fn(&GpuDevice)) {
    let options =
        DeviceOptions { source: DeviceSource::Noop, memory_bytes: Some(64 << 20), ..Default::default() };
    test(&GpuDevice::open(options).wait().unwrap());
    if let Some(device) = vulkan(DeviceOptions::default()) {
        test(&device);
    }
}

/// What an error says is wrong.
pub fn invalid<T: std::fmt::Debug>(answer: Result<T, GpuError>, case: &str) -> String {
    match answer {
        Err(GpuError::Invalid { what }) => {
            assert!(!what.contains('\n'), "{case}: {what}");
            what.into()
        }
        other => panic!("{case}: {other:?}"),
    }
}

/// Whether a lease still computes, on the device that it was had on.
pub fn computes(lease: &GpuLease) {
    let buffer = lease.create_buffer(256).wait().unwrap();
    let kernel = lease.create_kernel(kernels::double()).wait().unwrap();
    let job = Job::new()
        .write(&buffer, 0, bytes(&[1.5; 64]))
        .dispatch(&kernel, &[&buffer], [1, 1, 1])
        .read(&buffer, 0, 256);
    let read = floats(&lease.submit(job).wait().unwrap().reads[0]);
    let expected = if lease.facts().name.starts_with("noop") { [1.5; 64] } else { [3.0; 64] };
    assert_eq!(read, expected);
    assert_eq!((lease.device().epoch(), lease.device().losses()), (1, 0), "nothing was lost");
}

pub const MAIN: &str = "@compute @workgroup_size(1) fn main()";

#[test]
fn a_kernel_whose_bindings_are_not_the_job_s_buffers_fails_that_job_alone() {
    on_each(|device| {
        let lease = lease(device, 1.0, 1 << 20);
        let buffer = lease.create_buffer(256).wait().unwrap();
        let large = lease.create_buffer(128 << 10).wait().unwrap();
        let read_write = "var<storage, read_write> a: array<u32>;";
        for (case, declared, used, buffers) in [
            ("none is bound", format!("@group(0) @binding(0) {read_write}"), "a[0] = 1u;", vec![]),
            ("one too many", format!("@group(0) @binding(0) {read_write}"), "a[0] = 1u;", vec![&buffer; 2]),
            ("a gap", format!("@group(0) @binding(1) {read_write}"), "a[0] = 1u;", vec![&buffer]),
            ("another group", format!("@group(1) @binding(0) {read_write}"), "a[0] = 1u;", vec![&buffer]),
            (
                "too short",
                "@group(0) @binding(0) var<storage, read_write> a: array<u32, 100>;".into(),
                "a[0] = 1u;",
                vec![&buffer],
            ),
            (
                "a texture",
                "@group(0) @binding(0) var a: texture_2d<f32>;".into(),
                "_ = textureDimensions(a);",
                vec![&buffer],
            ),
            (
                "too long for a uniform",
                "@group(0) @binding(0) var<uniform> a: array<vec4u, 8192>;".into(),
                "_ = a[0];",
                vec![&large],
            ),
            (
                "written and read at once",
                format!(
                    "@group(0) @binding(0) {read_write} @group(0) @binding(1) var<storage> b: array<u32>;"
                ),
                "a[0] = b[0];",
                vec![&buffer; 2],
            ),
        ] {
            let text = format!("{declared}\n{MAIN} {{ {used} }}");
            let kernel = match lease.create_kernel(KernelSpec::new(text)).wait() {
                Ok(kernel) => kernel,
                // Some devices know before.
                Err(refused) => {
                    assert!(matches!(refused, GpuError::Invalid { .. }), "{case}: {refused:?}");
                    continue;
                }
            };
            let job = Job::new().dispatch(&kernel, &buffers, [1, 1, 1]);
            let what = invalid(lease.submit(job).wait(), case);
            println!("{case}: {what}");
        }
        computes(&lease);
    });
}

#[test]
fn immediates_of_another_length_than_the_kernel_s_fail_that_job_alone() {
    on_each(|device| {
        let lease = lease(device, 1.0, 1 << 20);
        let buffer = lease.create_buffer(256).wait().unwrap();
        let kernel = lease.create_kernel(KernelSpec::new(kernels::SPIN)).wait().unwrap();
        let most = lease.facts().immediate_bytes_max as usize;
        let with = |length: usize| {
            let job = Job::new().dispatch_with(&kernel, &[&buffer], [1, 1, 1], &vec![0; length]);
            lease.submit(job).wait()
        };
        for length in [0, 4, 6, 12, most + 4, 4096] {
            println!("{length}: {}", invalid(with(length), &length.to_string()));
        }
        with(8).unwrap();
        let none =
            format!("@group(0) @binding(0) var<storage, read_write> a: array<u32>; {MAIN} {{ a[0] = 1u; }}");
        let without = lease.create_kernel(KernelSpec::new(none.as_str())).wait().unwrap();
        let job = Job::new().dispatch_with(&without, &[&buffer], [1, 1, 1], &[0; 4]);
        invalid(lease.submit(job).wait(), "a kernel without any");
        computes(&lease);
    });
}

#[test]
fn a_split_axis_that_the_kernel_has_no_immediates_for_is_refused() {
    on_each(|device| {
        let lease = lease(device, 1.0, 1 << 20);
        let most = lease.facts().immediate_bytes_max;
        for offset in [1, 2, 6, most, most - 2, u32::MAX, u32::MAX - 3] {
            let spec = KernelSpec::new(kernels::DOUBLE).split(Axis::Y, offset);
            let what = invalid(lease.create_kernel(spec).wait(), &offset.to_string());
            assert!(what.contains("the split axis at byte"), "{what}");
        }
        let none =
            format!("@group(0) @binding(0) var<storage, read_write> a: array<u32>; {MAIN} {{ a[0] = 1u; }}");
        for (text, offset) in [(none.as_str(), 0), (kernels::DOUBLE, 4), (kernels::DOUBLE, most - 4)] {
            // That the same text was compiled before without it makes no difference.
            let whole = lease.create_kernel(KernelSpec::new(text)).wait().unwrap();
            let spec = KernelSpec::new(text).split(Axis::X, offset);
            let what = invalid(lease.create_kernel(spec).wait(), "immediates that are not there");
            let there = if text == none { 0 } else { 4 };
            let told = format!(
                "the split axis at byte {offset} of the immediates; the kernel's text has {there} bytes of them"
            );
            assert_eq!(what, told);
            drop(whole);
        }
        computes(&lease);
    });
}

#[test]
fn a_grid_of_nothing_or_above_the_limit_is_refused_with_what_is_allowed() {
    on_each(|device| {
        let lease = lease(device, 1.0, 1 << 20);
        let buffer = lease.create_buffer(256).wait().unwrap();
        let most = lease.facts().grid_max;
        for spec in [kernels::double(), KernelSpec::new(kernels::DOUBLE)] {
            let kernel = lease.create_kernel(spec).wait().unwrap();
            for wrong in [0, most + 1, u32::MAX] {
                for axis in 0..3 {
                    let mut grid = [1; 3];
                    grid[axis] = wrong;
                    let job = Job::new().dispatch_with(&kernel, &[&buffer], grid, &[0; 4]);
                    let what = invalid(lease.submit(job).wait(), &format!("{grid:?}"));
                    assert!(what.contains(&format!("allowed: 1 to {most} an axis")), "{what}");
                }
            }
        }
        computes(&lease);
    });
}

#[test]
fn a_range_outside_its_buffer_is_refused_before_any_step_of_the_job_is_run() {
    on_each(|device| {
        let lease = lease(device, 1.0, 1 << 20);
        let buffer = lease.create_buffer(64).wait().unwrap();
        for (offset, length) in
            [(0, 68), (64, 4), (60, 8), (2, 4), (0, 6), (0, 0), (4, 64), (u64::MAX - 3, 4)]
        {
            let job = Job::new().write(&buffer, 0, vec![9; 64]).write(&buffer, offset, vec![9; length]);
            let what = invalid(lease.submit(job).wait(), &format!("write {offset} {length}"));
            assert!(what.contains("in a buffer of 64"), "{what}");
            let job = Job::new().write(&buffer, 0, vec![9; 64]).read(&buffer, offset, length as u64);
            invalid(lease.submit(job).wait(), &format!("read {offset} {length}"));
        }
        assert_eq!(lease.read(&buffer, 0, 64).wait().unwrap().reads, [[0; 64]], "nothing was written");
        let many = (0..=JOB_STEPS_MAX).fold(Job::new(), |job, _| job.read(&buffer, 0, 4));
        assert!(invalid(lease.submit(many).wait(), "steps").contains("1 to 4096 steps, this one 4097"));
    });
}

#[test]
fn a_kernel_that_writes_beyond_the_end_of_its_buffer_reaches_nobody_else_s() {
    let Some(device) = vulkan(DeviceOptions::default()) else { return };
    let (guilty, other) = (lease(&device, 0.5, 1 << 20), lease(&device, 0.5, 1 << 20));
    let theirs: Vec<_> = (0..8).map(|_| other.create_buffer(4096).wait().unwrap()).collect();
    let own = guilty.create_buffer(64).wait().unwrap();
    let more: Vec<_> = (0..8).map(|_| other.create_buffer(4096).wait().unwrap()).collect();
    let text = "@group(0) @binding(0) var<storage, read_write> a: array<u32>;
        @compute @workgroup_size(64)
        fn main(@builtin(global_invocation_id) id: vec3u) { a[id.x] = 7u; a[id.x * 4099u] = 7u; }";
    let kernel = guilty.create_kernel(KernelSpec::new(text)).wait().unwrap();
    guilty.submit(Job::new().dispatch(&kernel, &[&own], [4096, 1, 1])).wait().unwrap();
    for (n, buffer) in theirs.iter().chain(&more).enumerate() {
        let read = other.read(buffer, 0, 4096).wait().unwrap().reads;
        assert!(read[0].iter().all(|byte| *byte == 0), "buffer {n} was written to");
    }
}

#[test]
fn buffers_and_kernels_of_another_lease_or_another_device_are_refused() {
    // Numbered alike, since both devices are new.
    let (here, there) = (noop(), noop());
    let (mine, theirs) = (lease(&here, 0.5, 4096), lease(&there, 0.5, 4096));
    let other = lease(&here, 0.5, 4096);
    let make = |lease: &GpuLease| {
        let buffer = lease.create_buffer(64).wait().unwrap();
        (buffer, lease.create_kernel(kernels::double()).wait().unwrap())
    };
    let own = make(&mine);
    for (lease, told) in [(&theirs, "of another device"), (&other, "of another lease")] {
        let (buffer, kernel) = make(lease);
        let bound = Job::new().dispatch(&own.1, &[&buffer], [1, 1, 1]);
        let with = Job::new().dispatch(&kernel, &[&own.0], [1, 1, 1]);
        let behind = Job::new().read(&own.0, 0, 4).read(&buffer, 0, 4);
        let wrote = Job::new().write(&buffer, 0, vec![1; 4]);
        for job in [bound, with, behind, wrote] {
            let what = invalid(mine.submit(job).wait(), told);
            assert!(what.ends_with(told), "{what}");
        }
        assert_eq!(lease.read(&buffer, 0, 4).wait().unwrap().reads, [[0; 4]]);
    }
}

#[test]
fn every_use_of_a_lease_that_was_released_or_is_of_another_epoch_is_refused_as_that() {
    let device = simulated(SimulatedDevice::default());
    let uses = |lease: &GpuLease, with: &GpuLease, told: &GpuError| {
        let buffer = with.create_buffer(64).wait().unwrap();
        let kernel = with.create_kernel(KernelSpec::new("")).wait().unwrap();
        // The lease ends in between.
        let ended = |told: &GpuError| match told {
            GpuError::Released => with.clone().release().wait().unwrap(),
            _ => {
                device.lose().unwrap();
                device.status().wait().unwrap();
            }
        };
        ended(told);
        let job = Job::new().dispatch(&kernel, &[&buffer], [1, 1, 1]);
        assert_eq!(&lease.create_buffer(64).wait().unwrap_err(), told);
        assert_eq!(&lease.create_kernel(KernelSpec::new("")).wait().unwrap_err(), told);
        assert_eq!(&lease.submit(job.clone()).wait().unwrap_err(), told);
        assert_eq!(&lease.write(&buffer, 0, vec![0; 4]).wait().unwrap_err(), told);
        assert_eq!(&lease.read(&buffer, 0, 4).wait().unwrap_err(), told);
        job
    };
    let first = lease(&device, 0.5, 4096);
    uses(&first, &first, &GpuError::Released);
    assert_eq!(first.renew().wait().unwrap_err(), GpuError::Released);
    first.clone().release().wait().unwrap();
    let second = lease(&device, 0.5, 4096);
    let told = GpuError::OtherEpoch { own: 1, current: 2 };
    let old = uses(&second, &second, &told);
    let renewed = second.renew().wait().unwrap();
    assert_eq!(renewed.submit(old).wait().unwrap_err(), told, "what was made before is void");
    renewed.create_buffer(64).wait().unwrap();
}

#[test]
fn buffers_of_nothing_above_the_limit_and_above_the_quota_are_refused_each_as_what_it_is() {
    let spec = SimulatedDevice { buffer_bytes_max: 8192, ..Default::default() };
    let lease = lease(&simulated(spec), 1.0, 4096);
    for bytes in [8196, u64::MAX, u64::MAX - 1] {
        let told = GpuError::BufferTooLarge { requested_bytes: bytes, max_bytes: 8192 };
        assert_eq!(lease.create_buffer(bytes).wait().unwrap_err(), told);
    }
    let told = GpuError::QuotaExceeded { requested_bytes: 4352, used_bytes: 0, quota_bytes: 4096 };
    assert_eq!(lease.create_buffer(4097).wait().unwrap_err(), told);
    invalid(lease.create_buffer(0).wait(), "nothing");
    assert_eq!(lease.create_buffer(1).wait().unwrap().bytes(), 4);
    on_each(|device| {
        let whole = device.lease(LeaseRequest::new(share(1.0))).wait().unwrap();
        let max_bytes = device.facts().buffer_bytes_max;
        let told = GpuError::BufferTooLarge { requested_bytes: max_bytes + 1, max_bytes };
        assert_eq!(whole.create_buffer(max_bytes + 1).wait().unwrap_err(), told);
    });
}

#[test]
fn leases_of_odd_sizes_are_refused_or_of_use_and_take_no_more_than_they_say() {
    let device = noop();
    let ask =
        |parts: f64, bytes: u64| device.lease(LeaseRequest::new(share(parts)).memory_bytes(bytes)).wait();
    assert!(matches!(ask(2.0, 4096), Err(GpuError::Unplaceable { .. })), "one device is not two");
    assert!(matches!(ask(0.5, u64::MAX), Err(GpuError::Unplaceable { .. })));
    let none = ask(0.5, 0).unwrap();
    assert!(matches!(none.create_buffer(4).wait(), Err(GpuError::QuotaExceeded { quota_bytes: 0, .. })));
    drop(none);
    device.status().wait().unwrap();
    let thirds: Vec<_> = (0..3).map(|_| ask(0.3333, 4096).unwrap()).collect();
    let _least = ask(0.0001, 4096).unwrap();
    assert!(matches!(ask(0.0001, 4096), Err(GpuError::Unplaceable { .. })), "their sum is 1, exactly");
    drop(thirds);
    device.status().wait().unwrap();
    for burst in [Duration::ZERO, Duration::MAX] {
        let capped = LeaseRequest::new(share(0.25)).memory_bytes(4096).policy(SharePolicy::HardCap { burst });
        computes(&device.lease(capped).wait().unwrap());
    }
}
