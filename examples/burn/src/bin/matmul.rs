//! Burn's product of matrices beside the kernel of the transformer example, in turn on one device.
//!
//! `cargo run --release --manifest-path examples/burn/Cargo.toml --bin matmul`; `SIZES` (of square matrices, `"64 256"`),
//! `ROUNDS` (both in turn in each) and `JOB_MS` (how long a job lasts at least, by repeating it). Ours is timed by the
//! device, Burn's from the first product asked for to the end of the last: what a caller has to wait for.

#[path = "../lent.rs"]
mod lent;
#[path = "../../../gpu_transformer/matmul.rs"]
#[allow(dead_code, reason = "each user of it takes its part")]
mod matmul;

use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use greenroom::{
    BoxError,
    gpu::{
        Axis, DeviceOptions, Fraction, GpuBuffer, GpuDevice, GpuKernel, GpuLease, Job, KernelSpec,
        LeaseRequest, ShareOptions,
    },
};
use matmul::{Epilogue, Kernel, Shape, immediates};

/// Most repetitions in a job.
const REPEATS_MAX: usize = 256;

/// The same product on both sides.
struct Contest {
    lease: GpuLease,
    shape: Shape,
    kernel: GpuKernel,
    grid: [u32; 3],
    /// Both factors and the product.
    buffers: [GpuBuffer; 3],
    burn: Device,
    factors: [Tensor<2>; 2],
}

impl Contest {
    fn new(lease: &GpuLease, burn: &Device, n: u32) -> Result<Self, BoxError> {
        let shape = Shape { rows: n, inputs: n, outputs: n };
        let count = (n * n) as usize;
        // Whole numbers of a few bits: every order of additions gives the same sum.
        let factors = [7, 5].map(|step| (0..count).map(|i| (i * step % 9) as f32 - 4.0).collect::<Vec<_>>());
        let buffer = || lease.create_buffer(4 * count as u64).wait();
        let buffers = [buffer()?, buffer()?, buffer()?];
        for (buffer, values) in buffers.iter().zip(&factors) {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            lease.write(buffer, 0, bytes).wait()?;
        }
        let kernel = Kernel::of(shape);
        let spec = KernelSpec::new(kernel.wgsl()).split(Axis::X, 0);
        let size = [n as usize, n as usize];
        let tensor = |values: &Vec<f32>| Tensor::from_data(TensorData::new(values.clone(), size), burn);
        let factors = lease.exclusive(|_| [tensor(&factors[0]), tensor(&factors[1])]).wait()?;
        let (grid, kernel, lease) = (kernel.grid(shape), lease.create_kernel(spec).wait()?, lease.clone());
        Ok(Self { lease, shape, kernel, grid, buffers, burn: burn.clone(), factors })
    }

    /// Seconds of one product by our kernel.
    fn ours(&self, repeats: usize) -> Result<f64, BoxError> {
        let [x, w, y] = &self.buffers;
        let immediates = immediates(self.shape, Epilogue::Nothing);
        let again = |job: Job, _| job.dispatch_with(&self.kernel, &[x, w, w, y], self.grid, &immediates);
        let done = self.lease.submit((0..repeats).fold(Job::new(), again)).wait()?;
        Ok(done.device_time.as_secs_f64() / repeats as f64)
    }

    /// Seconds of one product by Burn.
    fn theirs(&self, repeats: usize) -> Result<f64, BoxError> {
        let turn = self.lease.exclusive(|_| {
            let began = Instant::now();
            let [x, w] = &self.factors;
            let products: Vec<_> = (0..repeats).map(|_| x.clone().matmul(w.clone())).collect();
            self.burn.sync()?;
            drop(products);
            Ok::<_, BoxError>(began.elapsed().as_secs_f64() / repeats as f64)
        });
        turn.wait()?
    }

    /// Whether both have the same product.
    fn agree(&self) -> Result<bool, BoxError> {
        let [x, w] = &self.factors;
        let theirs = self.lease.exclusive(|_| x.clone().matmul(w.clone()).try_into_data()).wait()??;
        let y = &self.buffers[2];
        let ours = self.lease.read(y, 0, y.bytes()).wait()?.reads.swap_remove(0);
        let ours = ours.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]));
        Ok(ours.eq(theirs.iter::<f32>()))
    }
}

/// Repetitions that fill a job.
fn repeats(once: f64) -> usize {
    ((number("JOB_MS", 50) as f64 / 1e3 / once).ceil() as usize).clamp(1, REPEATS_MAX)
}

fn number(name: &str, usual: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), BoxError> {
    // Nobody shares the device, so nothing has to be cut; and Burn tries many kernels in its first turn.
    let long = std::time::Duration::from_secs(600);
    let sharing = ShareOptions { slice_max: long, ..Default::default() };
    let device =
        GpuDevice::open(DeviceOptions { sharing, give_up_after: long, ..Default::default() }).wait()?;
    let (name, software) = (device.facts().name.clone(), device.facts().software);
    println!("{name}{}", if software { ", a software device: its figures say nothing of GPUs" } else { "" });
    let whole = Fraction::parse(1.0)?.ok_or("a share of 0")?;
    let lease = device.lease(LeaseRequest::new(whole)).wait()?;
    let burn = lease.exclusive(lent::runtime).wait()??;
    let usual = if software { "64 128 256" } else { "64 128 256 512 1024" };
    let sizes = std::env::var("SIZES").unwrap_or_else(|_| usual.to_owned());
    println!("{:>6} {:>14} {:>14} {:>10}", "size", "ours GFLOP/s", "Burn GFLOP/s", "ours/Burn");
    let mut all = Vec::new();
    for size in sizes.split_whitespace() {
        let n: u32 = size.parse()?;
        let contest = Contest::new(&lease, &burn, n)?;
        // Both are warm then, and Burn has chosen.
        contest.ours(1)?;
        contest.theirs(1)?;
        let agree = contest.agree()?;
        let (own, other) = (repeats(contest.ours(1)?), repeats(contest.theirs(1)?));
        let gflops = |seconds: f64| 2.0 * f64::from(n).powi(3) / seconds / 1e9;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..number("ROUNDS", 7).max(1) {
            ours.push(gflops(contest.ours(own)?));
            theirs.push(gflops(contest.theirs(other)?));
        }
        let ratio = median(ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect());
        let (ours, theirs) = (median(ours), median(theirs));
        let note = if agree { "" } else { "  THE PRODUCTS DIFFER" };
        println!("{n:6} {ours:14.2} {theirs:14.2} {ratio:10.2}{note}");
        all.push(serde_json::json!({
            "n": n, "ours_gflops": ours, "burn_gflops": theirs, "ratio": ratio, "agree": agree,
        }));
    }
    println!("{}", serde_json::json!({"burn_matmul": {"device": name, "software": software, "sizes": all}}));
    drop(lease);
    device.close().wait()?;
    Ok(())
}
