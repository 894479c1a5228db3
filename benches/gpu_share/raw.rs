//! The same jobs on a queue of wgpu that nobody schedules: two submissions in flight, no timestamps.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use futures_util::FutureExt;

use crate::load::{KERNEL, Work};

/// Jobs a second that the device does by itself.
pub fn jobs_per_second(work: Work, time: Duration) -> f64 {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::VULKAN;
    descriptor.flags = wgpu::InstanceFlags::empty();
    let instance = wgpu::Instance::new(descriptor);
    let options = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..Default::default()
    };
    let adapter = instance.request_adapter(&options).now_or_never().expect("ready").expect("an adapter");
    let (device, queue) = adapter
        .request_device(&wgpu::DeviceDescriptor {
            required_features: adapter.features() - wgpu::Features::all_experimental_mask(),
            required_limits: adapter.limits(),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        })
        .now_or_never()
        .expect("ready")
        .expect("a device");
    let source = wgpu::ShaderSource::Wgsl(KERNEL.into());
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    let buffer = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: u64::from(work.groups) * 256,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[wgpu::BindGroupEntry { binding: 0, resource: buffer.as_entire_binding() }],
    });
    let submit = || {
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.set_immediates(0, &work.immediates());
            pass.dispatch_workgroups(work.groups, 1, 1);
        }
        queue.submit([encoder.finish()])
    };
    let wait = |index| {
        let poll = wgpu::PollType::Wait { submission_index: Some(index), timeout: None };
        device.poll(poll).expect("the device works");
    };
    (0..20).for_each(|_| wait(submit()));
    let (start, mut jobs, mut flights) = (Instant::now(), 0_u32, VecDeque::new());
    while start.elapsed() < time {
        while flights.len() < 2 {
            flights.push_back(submit());
        }
        flights.pop_front().into_iter().for_each(wait);
        jobs += 1;
    }
    let rate = f64::from(jobs) / start.elapsed().as_secs_f64();
    flights.into_iter().for_each(wait);
    rate
}
