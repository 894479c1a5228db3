//! Products of matrices by device time: the kernels of the transformer example, and tiles of 16 by 16 as the control.
//!
//! `cargo bench --features gpu --bench gpu_matmul`; `SHAPES` (`512` or `rows x inputs x outputs`, as in
//! `"512 16x4096x4096"`), `ROUNDS` (7, all kernels in turn in each) and `JOB_US` (how long a job of one kernel lasts at
//! least, by repeating it). It takes the first GPU, or a software device when there is none, whose figures say nothing
//! of GPUs.

#[path = "../../examples/gpu_transformer/matmul.rs"]
#[allow(dead_code, reason = "each user of it takes its part")]
mod matmul;
#[path = "../measure/mod.rs"]
mod measure;
mod operands;

use std::time::Duration;

use greenroom::gpu::{
    Axis, DeviceOptions, Fraction, GpuDevice, GpuKernel, GpuLease, Job, KernelSpec, LeaseRequest,
    ShareOptions,
};
use matmul::{Access, Epilogue, Kernel, Shape, Tile, immediates};
use measure::{Table, env, median};
use operands::Operands;

/// Most repetitions in a job: what one slice takes.
const REPEATS_MAX: usize = 64;

/// A kernel ready for one shape.
struct Contender {
    name: String,
    kernel: GpuKernel,
    grid: [u32; 3],
    repeats: usize,
    /// Billions of multiplications and additions a second, one number a round.
    gflops: Vec<f64>,
}

impl Contender {
    /// Compiled, warmed up, its results looked at, and with as many repetitions as fill a job.
    fn ready(lease: &GpuLease, operands: &Operands, name: String, text: String, grid: [u32; 3]) -> Self {
        let kernel =
            lease.create_kernel(KernelSpec::new(text).split(Axis::X, 0)).wait().expect("it compiles");
        let mut own = Self { name, kernel, grid, repeats: 1, gflops: Vec::new() };
        operands.forget_result(lease);
        own.run(lease, operands);
        let wrong = operands.wrong_numbers(lease);
        assert!(
            wrong == 0,
            "{}, {:?}: {wrong} numbers of those looked at are wrong",
            own.name,
            operands.shape
        );
        let once = (0..3).map(|_| own.run(lease, operands)).fold(f64::MAX, f64::min);
        let job = Duration::from_micros(env("JOB_US", 5_000) as u64).as_secs_f64();
        own.repeats = ((job / once).ceil() as usize).clamp(1, REPEATS_MAX);
        own.run(lease, operands);
        own
    }

    /// Seconds of the device for one product.
    fn run(&self, lease: &GpuLease, operands: &Operands) -> f64 {
        let immediates = immediates(operands.shape, Epilogue::Nothing);
        let again =
            |job: Job, _| job.dispatch_with(&self.kernel, &operands.buffers(), self.grid, &immediates);
        let job = (0..self.repeats).fold(Job::new(), again);
        let done = lease.submit(job).wait().expect("it runs");
        done.device_time.as_secs_f64() / self.repeats as f64
    }

    fn measure(&mut self, lease: &GpuLease, operands: &Operands) {
        self.gflops.push(operands.operations() / self.run(lease, operands) / 1e9);
    }

    fn median(&self) -> f64 {
        median(self.gflops.clone())
    }
}

/// The control first, then every tile.
fn contenders(lease: &GpuLease, operands: &Operands) -> Vec<Contender> {
    let shape = operands.shape;
    let plain = include_str!("plain.wgsl").to_owned();
    let grid = [shape.outputs.div_ceil(16), shape.rows.div_ceil(16), 1];
    let control = Contender::ready(lease, operands, "control".to_owned(), plain, grid);
    let tiles = Tile::ALL.into_iter().map(|tile| {
        let kernel = Kernel { tile, access: Access::of(shape) };
        Contender::ready(lease, operands, format!("{tile:?}"), kernel.wgsl(), kernel.grid(shape))
    });
    [control].into_iter().chain(tiles).collect()
}

fn shapes(software: bool) -> Vec<Shape> {
    let usual = if software {
        "64 128 129 16x256x768"
    } else {
        "256 512 1024 2048 4096 1023 16x4096x4096 128x4096x4096 8192x1024x64"
    };
    let asked = std::env::var("SHAPES").unwrap_or_else(|_| usual.to_owned());
    let shape = |text: &str| {
        let sizes: Vec<u32> = text.split('x').map(|size| size.parse().expect("a number of SHAPES")).collect();
        match sizes[..] {
            [n] => Shape { rows: n, inputs: n, outputs: n },
            [rows, inputs, outputs] => Shape { rows, inputs, outputs },
            _ => panic!("{text} of SHAPES is neither one number nor three"),
        }
    };
    asked.split_whitespace().map(shape).collect()
}

fn main() {
    // Nobody shares the device, so nothing has to be cut.
    let sharing = ShareOptions { slice_max: Duration::from_secs(60), ..Default::default() };
    // A software device compiles a kernel while it runs it first.
    let give_up_after = Duration::from_secs(60);
    let device = match GpuDevice::open(DeviceOptions { sharing, give_up_after, ..Default::default() }).wait()
    {
        Ok(device) => device,
        Err(error) => return println!("SKIPPED: {error}"),
    };
    let facts = device.facts().clone();
    let whole = Fraction::parse(1.0).expect("a share").expect("not 0");
    let lease = device.lease(LeaseRequest::new(whole)).wait().expect("a lease");
    let load = || std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned();
    println!("{} ({}), load average {}", facts.name, facts.driver, load());
    let mut table =
        Table::new(["rows x inputs x outputs", "tile", "GFLOP/s", "over control", "control", "all tiles"]);
    let mut all = Vec::new();
    for shape in shapes(facts.software) {
        let operands = Operands::drawn(&lease, shape);
        let mut contenders = contenders(&lease, &operands);
        for _ in 0..env("ROUNDS", 7).max(1) {
            contenders.iter_mut().for_each(|contender| contender.measure(&lease, &operands));
        }
        let (control, tiles) = contenders.split_first().expect("the control is there");
        let picked = format!("{:?}", Tile::of(shape));
        let ours = tiles.iter().find(|contender| contender.name == picked).expect("all tiles are there");
        let ratio = median(ours.gflops.iter().zip(&control.gflops).map(|(ours, control)| ours / control));
        let name = format!("{}x{}x{}", shape.rows, shape.inputs, shape.outputs);
        let each = |contender: &Contender| format!("{} {:.2}", contender.name, contender.median());
        table.row([
            name.clone(),
            picked.clone(),
            format!("{:.2}", ours.median()),
            format!("{ratio:.2}"),
            format!("{:.2}", control.median()),
            tiles.iter().map(each).collect::<Vec<_>>().join(", "),
        ]);
        let by_tile: serde_json::Map<_, _> = tiles
            .iter()
            .map(|contender| (contender.name.to_lowercase(), contender.median().into()))
            .collect();
        all.push(serde_json::json!({
            "shape": name, "tile": picked.to_lowercase(), "gflops": ours.median(),
            "control_gflops": control.median(), "control_ratio": ratio, "tiles": by_tile,
        }));
    }
    table.print();
    println!("load average {}", load());
    let (name, software) = (&facts.name, facts.software);
    println!("{}", serde_json::json!({"gpu_matmul": {"device": name, "software": software, "shapes": all}}));
    drop(lease);
    device.close().wait().expect("it is open");
}
