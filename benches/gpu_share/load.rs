//! Clients that keep a device busy for a while, and what each of them got of it.

use std::{
    collections::VecDeque,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use greenroom::gpu::{
    Axis, DeviceOptions, DeviceStatus, Fraction, GpuBuffer, GpuDevice, GpuKernel, GpuLease, Job, KernelSpec,
    LeaseRequest, Order, SharePolicy,
};

use crate::{Scale, measure::median};

/// Arithmetic on each number of a buffer, as long as asked; cut along its axis.
pub const KERNEL: &str = "
struct P { first: u32, rounds: u32 }
var<immediate> p: P;
@group(0) @binding(0) var<storage, read_write> data: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) i: u32) {
    let at = (group.x + p.first) * 64u + i;
    if at >= arrayLength(&data) { return; }
    var x = data[at];
    for (var n = 0u; n < p.rounds; n++) { x = fract(x * 1.7 + 0.3); }
    data[at] = x;
}";

/// Time before anything is counted: kernels are compiled, costs learned.
const WARM_UP: Duration = Duration::from_millis(500);

/// Most workgroups of a dispatch.
const GROUPS_MAX: u32 = 60_000;

/// A dispatch that takes about as long as was asked.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    pub groups: u32,
    pub rounds: u32,
}

impl Work {
    /// Finds one by trying, on a device of its own.
    pub fn measured(scale: Scale, length: Duration) -> Self {
        let device = GpuDevice::open(scale.options(Order::Arrival)).wait().expect("it opened before");
        let lease = lease(&device, 1.0, SharePolicy::WorkConserving);
        let mut rounds = if scale.software { 100 } else { 20_000 };
        let tried = if scale.software { 32 } else { 30_000 };
        let buffer = lease.create_buffer(u64::from(GROUPS_MAX) * 256).wait().expect("a buffer");
        let kernel = lease.create_kernel(KernelSpec::new(KERNEL)).wait().expect("a kernel");
        loop {
            let one = Self { groups: tried, rounds };
            let times = (0..9).map(|_| {
                let done = lease.submit(one.job(&kernel, &buffer)).wait().expect("a job");
                done.device_time.as_secs_f64()
            });
            let times: Vec<f64> = times.collect();
            let groups = length.as_secs_f64() / median(times[2..].to_vec()) * f64::from(tried);
            if groups < f64::from(GROUPS_MAX) {
                device.close().wait().expect("it is open");
                return Self { groups: (groups.round() as u32).max(1), rounds };
            }
            rounds *= 4;
        }
    }

    fn job(self, kernel: &GpuKernel, buffer: &GpuBuffer) -> Job {
        Job::new().dispatch_with(kernel, &[buffer], [self.groups, 1, 1], &self.immediates())
    }

    pub fn immediates(self) -> [u8; 8] {
        let mut immediates = [0; 8];
        immediates[4..].copy_from_slice(&self.rounds.to_le_bytes());
        immediates
    }
}

/// How a client sends.
#[derive(Clone, Copy)]
pub enum Sends {
    Outstanding(usize),
    Poisson(Duration),
}

#[derive(Clone, Copy)]
pub struct Client {
    share: f64,
    length: Duration,
    work: Option<Work>,
    sends: Sends,
    policy: SharePolicy,
    splits: bool,
}

impl Client {
    /// Keeps four jobs of this length outstanding.
    pub fn new(share: f64, length: Duration) -> Self {
        let (sends, policy) = (Sends::Outstanding(4), SharePolicy::WorkConserving);
        Self { share, length, work: None, sends, policy, splits: true }
    }

    pub fn sends(self, sends: Sends) -> Self {
        Self { sends, ..self }
    }

    pub fn policy(self, policy: SharePolicy) -> Self {
        Self { policy, ..self }
    }

    pub fn work(self, work: Work) -> Self {
        Self { work: Some(work), ..self }
    }

    pub fn whole(self) -> Self {
        Self { splits: false, ..self }
    }
}

/// What a run saw after its warm-up.
pub struct Run {
    /// The device at the start and after each second.
    seconds: Vec<DeviceStatus>,
    latencies: Vec<Vec<f64>>,
}

impl Run {
    fn used(&self, from: usize, to: usize, client: usize) -> f64 {
        let time = |at: usize| self.seconds[at].leases[client].device_time;
        (time(to) - time(from)).as_secs_f64()
    }

    fn shares(&self, from: usize, to: usize, client: usize) -> f64 {
        let all: f64 = (0..self.latencies.len()).map(|c| self.used(from, to, c)).sum();
        self.used(from, to, client) / all
    }

    fn last(&self) -> usize {
        self.seconds.len() - 1
    }

    fn wall(&self) -> f64 {
        (self.seconds[self.last()].uptime - self.seconds[0].uptime).as_secs_f64()
    }

    /// Part of all device time.
    pub fn share(&self, client: usize) -> f64 {
        self.shares(0, self.last(), client)
    }

    /// Mean and worst relative error of a share over the seconds.
    pub fn window_error(&self, client: usize, share: f64) -> (f64, f64) {
        let errors: Vec<f64> =
            (0..self.last()).map(|at| (self.shares(at, at + 1, client) - share).abs() / share).collect();
        (errors.iter().sum::<f64>() / errors.len() as f64, errors.iter().copied().fold(0.0, f64::max))
    }

    /// Part of the time that the device worked for these clients.
    pub fn busy(&self) -> f64 {
        (0..self.latencies.len()).map(|c| self.used(0, self.last(), c)).sum::<f64>() / self.wall()
    }

    pub fn jobs_per_second(&self) -> f64 {
        let jobs = |at: usize| self.seconds[at].leases.iter().map(|lease| lease.jobs).sum::<u64>();
        (jobs(self.last()) - jobs(0)) as f64 / self.wall()
    }

    /// This quantile of a client's latencies, in seconds.
    pub fn latency(&self, client: usize, quantile: f64) -> f64 {
        let mut all = self.latencies[client].clone();
        all.sort_by(f64::total_cmp);
        all.get(((all.len().max(1) - 1) as f64 * quantile) as usize).copied().unwrap_or(f64::NAN)
    }
}

pub fn lease(device: &GpuDevice, share: f64, policy: SharePolicy) -> GpuLease {
    let share = Fraction::parse(share).expect("a share").expect("not 0");
    let request = LeaseRequest::new(share).memory_bytes(32 << 20).policy(policy);
    device.lease(request).wait().expect("there is room")
}

/// Runs clients side by side on a device of their own.
pub fn run(scale: Scale, options: DeviceOptions, clients: &[Client]) -> Run {
    let works =
        clients.iter().map(|client| client.work.unwrap_or_else(|| Work::measured(scale, client.length)));
    let works: Vec<Work> = works.collect();
    let device = GpuDevice::open(options).wait().expect("it opened before");
    let leases: Vec<GpuLease> =
        clients.iter().map(|client| lease(&device, client.share, client.policy)).collect();
    let ready = Barrier::new(clients.len() + 1);
    let begin = Instant::now() + WARM_UP;
    let end = begin + scale.run;
    let seen = thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter()
            .zip(&works)
            .zip(&leases)
            .map(|((client, work), lease)| {
                let ready = &ready;
                scope.spawn(move || {
                    let spec = KernelSpec::new(KERNEL);
                    let spec = if client.splits { spec.split(Axis::X, 0) } else { spec };
                    let kernel = lease.create_kernel(spec).wait().expect("a kernel");
                    let buffer = lease.create_buffer(u64::from(work.groups) * 256).wait().expect("a buffer");
                    let job = work.job(&kernel, &buffer);
                    ready.wait();
                    match client.sends {
                        Sends::Outstanding(n) => closed(lease, &job, n, begin, end),
                        Sends::Poisson(every) => poisson(lease, &job, every, begin, end),
                    }
                })
            })
            .collect();
        ready.wait();
        let mut seconds = Vec::new();
        let mut at = begin;
        while at <= end {
            until(at);
            seconds.push(device.status().wait().expect("it is open"));
            at += Duration::from_secs(1);
        }
        let latencies = threads.into_iter().map(|thread| thread.join().expect("a client")).collect();
        Run { seconds, latencies }
    });
    device.close().wait().expect("it is open");
    seen
}

/// An answer that was waited for before may end a pause early.
fn until(at: Instant) {
    while let Some(rest) = at.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero()) {
        thread::park_timeout(rest);
    }
}

fn closed(lease: &GpuLease, job: &Job, outstanding: usize, begin: Instant, end: Instant) -> Vec<f64> {
    let (mut pending, mut latencies) = (VecDeque::new(), Vec::new());
    while Instant::now() < end {
        while pending.len() < outstanding {
            pending.push_back((Instant::now(), lease.submit(job.clone())));
        }
        let Some((sent, first)) = pending.pop_front() else { continue };
        first.wait().expect("a job");
        if sent > begin {
            latencies.push(sent.elapsed().as_secs_f64());
        }
    }
    latencies
}

fn poisson(lease: &GpuLease, job: &Job, every: Duration, begin: Instant, end: Instant) -> Vec<f64> {
    let mut draw = 0x9e37_79b9_7f4a_7c15_u64;
    let (mut at, mut latencies) = (Instant::now(), Vec::new());
    while at < end {
        draw ^= draw << 13;
        draw ^= draw >> 7;
        draw ^= draw << 17;
        let uniform = (draw >> 11) as f64 / (1_u64 << 53) as f64;
        at += every.mul_f64(-(1.0 - uniform).ln());
        until(at);
        let sent = Instant::now();
        lease.submit(job.clone()).wait().expect("a job");
        if sent > begin {
            latencies.push(sent.elapsed().as_secs_f64());
        }
    }
    latencies
}
