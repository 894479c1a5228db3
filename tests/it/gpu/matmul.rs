//! The matrix products of the example against numbers of double precision, whole and in pieces.

use std::time::Duration;

use greenroom::gpu::{Axis, DeviceOptions, GpuBuffer, GpuLease, Job, KernelSpec, ShareOptions};

use super::{
    bytes, floats, lease,
    transformer::gpu_transformer::{
        matmul::{Access, Epilogue, Kernel, Shape, Tile, immediates},
        weights::numbers,
    },
    vulkan,
};

/// Numbers behind a result, which nobody may touch.
const BEHIND: usize = 64;

/// What is there before.
const UNTOUCHED: f32 = 7.5;

const fn shape(rows: u32, inputs: u32, outputs: u32) -> Shape {
    Shape { rows, inputs, outputs }
}

/// A product with numbers to multiply.
struct Case {
    shape: Shape,
    epilogue: Epilogue,
    x: Vec<f32>,
    w: Vec<f32>,
    bias: Vec<f32>,
    before: Vec<f32>,
}

impl Case {
    fn drawn(shape: Shape, epilogue: Epilogue) -> Self {
        let mut draw = numbers(u64::from(shape.rows * 7 + shape.inputs * 3 + shape.outputs));
        let mut drawn = |rows: u32, columns: u32| (0..rows * columns).map(|_| draw()).collect();
        Self {
            shape,
            epilogue,
            x: drawn(shape.rows, shape.inputs),
            w: drawn(shape.inputs, shape.outputs),
            bias: drawn(1, shape.outputs),
            before: drawn(shape.rows, shape.outputs),
        }
    }

    /// Buffers of a lease with its numbers: `x`, `w`, the bias, and one for the result.
    fn upload(&self, lease: &GpuLease) -> [GpuBuffer; 4] {
        // A bias of three numbers is too short to be bound where none is read.
        let bias: Vec<f32> = self.bias.iter().copied().chain([0.0; 4]).collect();
        let y = [self.before.as_slice(), &[UNTOUCHED; BEHIND]].concat();
        [&self.x, &self.w, &bias, &y].map(|values| {
            let buffer = lease.create_buffer(4 * values.len() as u64).wait().unwrap();
            lease.write(&buffer, 0, bytes(values)).wait().unwrap();
            buffer
        })
    }

    /// Each output, and how far from it one may be: it is rounded once for its product and once for each sum that follows,
    /// `inputs + 2` times at most, each time by no more than 2^-24 of the sum of all sizes, in whatever order.
    fn reference(&self) -> Vec<(f64, f64)> {
        let Shape { inputs, outputs, .. } = self.shape;
        let (inputs, outputs) = (inputs as usize, outputs as usize);
        let one = |at: usize| {
            let (row, column) = (at / outputs, at % outputs);
            let products = (0..inputs)
                .map(|n| f64::from(self.x[row * inputs + n]) * f64::from(self.w[n * outputs + column]));
            let (mut sum, mut size) = (0.0, 0.0);
            products.for_each(|product| (sum, size) = (sum + product, size + product.abs()));
            let mut plus = |value: f32| (sum, size) = (sum + f64::from(value), size + f64::from(value).abs());
            if self.epilogue != Epilogue::Nothing {
                plus(self.bias[column]);
            }
            if self.epilogue == Epilogue::BiasAdd {
                plus(self.before[at]);
            }
            if self.epilogue == Epilogue::BiasRelu {
                sum = sum.max(0.0);
            }
            (sum, (inputs + 2) as f64 * f64::from(f32::EPSILON) / 2.0 * size)
        };
        (0..self.before.len()).map(one).collect()
    }
}

/// A software device compiles a kernel while it runs it first, which takes it long on a busy machine.
fn patient() -> DeviceOptions {
    DeviceOptions { give_up_after: Duration::from_secs(60), ..Default::default() }
}

/// Numbers are multiplied with this kernel and are what they should be, edges and epilogues among them.
fn agrees(tile: Tile, access: Access) {
    let Some(device) = vulkan(patient()) else { return };
    let lease = lease(&device, 1.0, 64 << 20);
    let kernel = Kernel { tile, access };
    let made = lease.create_kernel(KernelSpec::new(kernel.wgsl()).split(Axis::X, 0)).wait().unwrap();
    let cases = [
        (shape(1, 1, 1), Epilogue::Nothing),
        (shape(17, 33, 65), Epilogue::Bias),
        (shape(128, 128, 128), Epilogue::BiasAdd),
        (shape(130, 127, 129), Epilogue::BiasRelu),
        (shape(300, 5, 3), Epilogue::BiasAdd),
        (shape(2, 100, 260), Epilogue::BiasRelu),
        (shape(33, 12, 4), Epilogue::Nothing),
        (shape(131, 68, 132), Epilogue::Bias),
    ];
    let mut worst = 0.0_f64;
    for (shape, epilogue) in cases {
        if access == Access::Quads && Access::of(shape) == Access::Any {
            continue;
        }
        let case = Case::drawn(shape, epilogue);
        let [x, w, bias, y] = case.upload(&lease);
        let job = Job::new()
            .dispatch_with(&made, &[&x, &w, &bias, &y], kernel.grid(shape), &immediates(shape, epilogue))
            .read(&y, 0, y.bytes());
        let got = floats(&lease.submit(job).wait().unwrap().reads[0]);
        let (got, behind) = got.split_at(case.before.len());
        assert_eq!(behind, [UNTOUCHED; BEHIND], "{shape:?}: what is behind the result was written to");
        for (at, (got, (want, bound))) in got.iter().zip(case.reference()).enumerate() {
            let off = (f64::from(*got) - want).abs();
            assert!(off <= bound, "{shape:?}, {epilogue:?}, number {at}: {got}, not {want}, bound {bound:e}");
            worst = worst.max(off / bound);
        }
    }
    println!("{kernel:?}: within {worst:.2} of the bound");
}

#[test]
fn products_of_small_tiles_in_quads_agree_with_double_precision() {
    agrees(Tile::Small, Access::Quads);
}

#[test]
fn products_of_medium_tiles_in_quads_agree_with_double_precision() {
    agrees(Tile::Medium, Access::Quads);
}

#[test]
fn products_of_large_tiles_in_quads_agree_with_double_precision() {
    agrees(Tile::Large, Access::Quads);
}

#[test]
fn products_of_small_tiles_of_any_size_agree_with_double_precision() {
    agrees(Tile::Small, Access::Any);
}

#[test]
fn products_of_medium_tiles_of_any_size_agree_with_double_precision() {
    agrees(Tile::Medium, Access::Any);
}

#[test]
fn products_of_large_tiles_of_any_size_agree_with_double_precision() {
    agrees(Tile::Large, Access::Any);
}

#[test]
fn a_product_in_slices_has_the_same_bits_as_in_one_and_so_has_one_on_a_grid_of_two_axes() {
    let sharing = ShareOptions { slice_max: Duration::from_micros(1), ..Default::default() };
    let Some(device) = vulkan(DeviceOptions { sharing, ..patient() }) else { return };
    let lease = lease(&device, 1.0, 64 << 20);
    let shape = shape(100, 43, 201);
    let case = Case::drawn(shape, Epilogue::BiasAdd);
    let [x, w, bias, y] = case.upload(&lease);
    let kernel = Kernel { tile: Tile::Small, access: Access::Any };
    let spec = KernelSpec::new(kernel.wgsl());
    let made = [spec.clone(), spec.split(Axis::X, 0)].map(|spec| lease.create_kernel(spec).wait().unwrap());
    let run = |made, grid| {
        let job = Job::new().write(&y, 0, bytes(&case.before)).dispatch_with(
            made,
            &[&x, &w, &bias, &y],
            grid,
            &immediates(shape, case.epilogue),
        );
        let slices = lease.submit(job).wait().unwrap().slices;
        (slices, lease.read(&y, 0, y.bytes()).wait().unwrap().reads)
    };
    let [whole, cut] = &made;
    assert_eq!(kernel.grid(shape), [28, 1, 1]);
    let (few, wanted) = run(whole, [28, 1, 1]);
    let (many, got) = run(cut, [28, 1, 1]);
    assert!(few <= 3 && many > 20, "{few}, {many}");
    assert!(got == wanted, "in slices");
    let (many, got) = run(cut, [10, 3, 1]);
    assert!(many > 5, "{many}");
    assert!(got == wanted, "on two axes, of which the last workgroups have nothing to do");
}

#[test]
fn large_matrices_get_large_tiles_and_narrow_or_few_ones_small() {
    let tile = |rows, outputs| Tile::of(shape(rows, 64, outputs));
    assert_eq!(tile(4096, 4096), Tile::Large);
    assert_eq!(tile(1024, 1024), Tile::Medium, "128 by 128 would leave half of a large GPU idle");
    assert_eq!(tile(512, 512), Tile::Small);
    assert_eq!(tile(1, 1), Tile::Small);
    assert_eq!(tile(16, 1_000_000), Tile::Small, "a larger one would be mostly empty");
    assert_eq!(tile(1_000_000, 64), Tile::Medium);
    assert_eq!(Access::of(shape(3, 4, 8)), Access::Quads);
    assert_eq!(Access::of(shape(4, 3, 8)), Access::Any);
    assert_eq!(Access::of(shape(4, 4, 9)), Access::Any);
}

#[test]
fn a_grid_covers_its_matrix_within_the_limit_of_each_axis() {
    for (rows, outputs) in
        [(1, 1), (33, 32), (130, 129), (10_000_000, 1), (1, 4_000_000_000), (70_000, 60_000)]
    {
        for tile in Tile::ALL {
            let kernel = Kernel { tile, access: Access::Any };
            let [along, deep, one] = kernel.grid(shape(rows, 1, outputs)).map(u64::from);
            let side = u64::from(tile.side());
            let tiles = u64::from(rows).div_ceil(side) * u64::from(outputs).div_ceil(side);
            assert!(along * deep >= tiles && along * deep < tiles + deep, "{tile:?}, {rows}, {outputs}");
            assert!(along <= 65_535 && deep <= 65_535 && one == 1, "{tile:?}, {rows}, {outputs}");
        }
    }
}
