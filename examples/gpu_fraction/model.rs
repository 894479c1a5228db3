//! A stack of dense layers on a share of a GPU: one job a request.

use actix::{Actor, Handler, Message, ResponseFuture};
use greenroom::{
    Backend, BoxError, ReplicaContext, ServeError,
    gpu::{Axis, GpuBuffer, GpuKernel, GpuLease, Job, KernelSpec},
};

/// Numbers in a row, before and after each layer.
const WIDTH: u32 = 64;
/// Rows of a request.
const ROWS: u32 = 32;

/// Runs some rows through all layers; the answer is the sum of what comes out.
#[derive(Message, Clone)]
#[rtype(result = "Result<f32, ServeError>")]
pub struct Forward(pub f32);

/// One replica.
pub struct Stack {
    lease: GpuLease,
    dense: GpuKernel,
    layers: Vec<(GpuBuffer, GpuBuffer)>,
    /// What goes into a layer and what comes out take turns.
    rows: [GpuBuffer; 2],
}

impl Stack {
    fn load(ctx: &mut ReplicaContext<Self>, layers: u32) -> Result<Self, BoxError> {
        let lease = ctx.gpu()?.clone();
        let filled = |values: Vec<f32>| {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let buffer = lease.create_buffer(bytes.len() as u64).wait()?;
            lease.write(&buffer, 0, bytes).wait()?;
            Ok::<_, BoxError>(buffer)
        };
        let square = (WIDTH * WIDTH) as usize;
        // Any weights do: those of a permutation keep all numbers.
        let weight = |n: usize| {
            if n % WIDTH as usize == (n / WIDTH as usize + 1) % WIDTH as usize { 1.0 } else { 0.0 }
        };
        let made = (0..layers)
            .map(|_| Ok((filled((0..square).map(weight).collect())?, filled(vec![0.0; WIDTH as usize])?)));
        Ok(Self {
            layers: made.collect::<Result<_, BoxError>>()?,
            rows: [filled(vec![0.0; (ROWS * WIDTH) as usize])?, filled(vec![0.0; (ROWS * WIDTH) as usize])?],
            dense: lease
                .create_kernel(KernelSpec::new(include_str!("../gpu_digits/dense.wgsl")).split(Axis::X, 0))
                .wait()?,
            lease,
        })
    }
}

impl Actor for Stack {
    type Context = ReplicaContext<Self>;
}

impl Handler<Forward> for Stack {
    type Result = ResponseFuture<Result<f32, ServeError>>;
    fn handle(&mut self, Forward(value): Forward, _: &mut Self::Context) -> Self::Result {
        let input: Vec<u8> = (0..ROWS * WIDTH).flat_map(|_| value.to_le_bytes()).collect();
        let bytes = input.len() as u64;
        let mut job = Job::new().write(&self.rows[0], 0, input);
        let mut immediates = Vec::new();
        for word in [0, ROWS, WIDTH, WIDTH, 1.0_f32.to_bits(), 1] {
            immediates.extend(word.to_le_bytes());
        }
        for (place, (weights, bias)) in self.layers.iter().enumerate() {
            let [from, to] = [&self.rows[place % 2], &self.rows[(place + 1) % 2]];
            let grid = [(ROWS * WIDTH).div_ceil(64), 1, 1];
            job = job.dispatch_with(&self.dense, &[from, weights, bias, to], grid, &immediates);
        }
        let done = self.lease.submit(job.read(&self.rows[self.layers.len() % 2], 0, bytes));
        Box::pin(async move {
            let read = done.await?.reads.swap_remove(0);
            Ok(read
                .chunks_exact(4)
                .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
                .sum())
        })
    }
}

/// A model of so many layers.
pub fn stack(layers: u32) -> Backend<Stack> {
    Backend::new(move |ctx| Stack::load(ctx, layers)).handles::<Forward>()
}
