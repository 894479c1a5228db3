//! Two matrices on the device with room for their product, and a look at some of its numbers.

use greenroom::gpu::{GpuBuffer, GpuLease};

use crate::matmul::Shape;

/// Numbers of the first and of the last row that are looked at.
const LOOKED_AT: usize = 64;

pub struct Operands {
    pub shape: Shape,
    x: Vec<f32>,
    w: Vec<f32>,
    on_device: [GpuBuffer; 3],
}

impl Operands {
    /// Numbers from -1 to 1.
    pub fn drawn(lease: &GpuLease, shape: Shape) -> Self {
        let mut state = 1_u64;
        let mut draw = |count: usize| -> Vec<f32> {
            let one = |_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
            };
            (0..count).map(one).collect()
        };
        let [rows, inputs, outputs] = [shape.rows, shape.inputs, shape.outputs].map(|n| n as usize);
        let (x, w) = (draw(rows * inputs), draw(inputs * outputs));
        let buffer =
            |numbers: usize| lease.create_buffer(4 * numbers.max(4) as u64).wait().expect("a buffer");
        let on_device = [buffer(x.len()), buffer(w.len()), buffer(rows * outputs)];
        for (buffer, values) in on_device.iter().zip([&x, &w]) {
            lease.write(buffer, 0, bytes(values)).wait().expect("it is written");
        }
        Self { shape, x, w, on_device }
    }

    /// In the order of the kernels; there is no bias, so `w` is bound in its place.
    pub fn buffers(&self) -> [&GpuBuffer; 4] {
        let [x, w, y] = &self.on_device;
        [x, w, w, y]
    }

    /// Of one product.
    pub fn operations(&self) -> f64 {
        2.0 * [self.shape.rows, self.shape.inputs, self.shape.outputs]
            .into_iter()
            .map(f64::from)
            .product::<f64>()
    }

    /// Nothing of an earlier kernel is left where [`Operands::wrong_numbers`] looks.
    pub fn forget_result(&self, lease: &GpuLease) {
        for (offset, count) in self.places() {
            let nothing = bytes(&vec![f32::NAN; count]);
            lease.write(&self.on_device[2], 4 * offset as u64, nothing).wait().expect("it is written");
        }
    }

    /// How many of some numbers of the result are further from those of double precision than rounding allows.
    pub fn wrong_numbers(&self, lease: &GpuLease) -> usize {
        let [inputs, outputs] = [self.shape.inputs, self.shape.outputs].map(|n| n as usize);
        let wrong = |at: usize, got: f64| {
            let (row, column) = (at / outputs, at % outputs);
            let product =
                |n: usize| f64::from(self.x[row * inputs + n]) * f64::from(self.w[n * outputs + column]);
            let want: f64 = (0..inputs).map(product).sum();
            let size: f64 = (0..inputs).map(|n| product(n).abs()).sum();
            let off = (got - want).abs();
            off.is_nan() || off > inputs as f64 * f64::from(f32::EPSILON) * size
        };
        let in_place = |(offset, count): (usize, usize)| {
            let read = lease.read(&self.on_device[2], 4 * offset as u64, 4 * count as u64).wait();
            let bytes = read.expect("it is read").reads.swap_remove(0);
            let numbers =
                bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
            numbers.enumerate().filter(|(n, got)| wrong(offset + n, *got)).count()
        };
        self.places().into_iter().map(in_place).sum()
    }

    /// Offset and count of the numbers looked at: the first of all and the last.
    fn places(&self) -> [(usize, usize); 2] {
        let all = self.shape.rows as usize * self.shape.outputs as usize;
        let count = all.min(LOOKED_AT);
        [(0, count), (all - count, count)]
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
