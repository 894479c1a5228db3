//! A transformer block on a share of a GPU: weights uploaded once, activations reused, one job for a whole batch.

use std::collections::{HashMap, hash_map::Entry};

use greenroom::gpu::{Axis, GpuBuffer, GpuError, GpuKernel, GpuLease, Job, JobDone, KernelSpec, Pending};

use super::{
    matmul::{Epilogue, Kernel, Shape, immediates},
    weights::{HEADS, INNER, TOKENS, WIDTH, Weights},
};

/// A projection: its weights, its bias, and how many numbers go in and come out.
struct Projection {
    weights: GpuBuffer,
    bias: GpuBuffer,
    inputs: usize,
    outputs: usize,
}

impl Projection {
    fn shape(&self, rows: usize) -> Shape {
        Shape { rows: rows as u32, inputs: self.inputs as u32, outputs: self.outputs as u32 }
    }
}

/// The block of one replica.
pub struct Block {
    lease: GpuLease,
    layer_norm: GpuKernel,
    /// Those for each size of a batch.
    products: HashMap<Kernel, GpuKernel>,
    attention: GpuKernel,
    norms: [(GpuBuffer, GpuBuffer); 2],
    qkv: Projection,
    out: Projection,
    up: Projection,
    down: Projection,
    /// The tokens, to which each half of the block adds.
    tokens: GpuBuffer,
    normed: GpuBuffer,
    heads: GpuBuffer,
    mixed: GpuBuffer,
    inner: GpuBuffer,
    sequences_max: usize,
}

impl Block {
    /// Waits for the device: for a factory, whose replica has a thread of its own.
    pub fn load(lease: &GpuLease, weights: &Weights, sequences_max: usize) -> Result<Self, GpuError> {
        let rows = sequences_max * TOKENS;
        let numbers = |count: usize| lease.create_buffer(4 * count as u64).wait();
        let filled = |values: &[f32]| {
            let buffer = numbers(values.len())?;
            lease.write(&buffer, 0, bytes(values)).wait()?;
            Ok::<_, GpuError>(buffer)
        };
        let projection = |weights: &[f32], bias: &[f32]| {
            let (outputs, inputs) = (bias.len(), weights.len() / bias.len());
            Ok::<_, GpuError>(Projection { weights: filled(weights)?, bias: filled(bias)?, inputs, outputs })
        };
        let kernel = |text: &str| lease.create_kernel(KernelSpec::new(text).split(Axis::X, 0)).wait();
        let qkv = projection(&weights.qkv, &weights.qkv_bias)?;
        let out = projection(&weights.out, &weights.out_bias)?;
        let up = projection(&weights.up, &weights.up_bias)?;
        let down = projection(&weights.down, &weights.down_bias)?;
        let mut products = HashMap::new();
        for by in [&qkv, &out, &up, &down] {
            for sequences in 1..=sequences_max {
                if let Entry::Vacant(vacant) = products.entry(Kernel::of(by.shape(sequences * TOKENS))) {
                    let made = kernel(&vacant.key().wgsl())?;
                    vacant.insert(made);
                }
            }
        }
        Ok(Self {
            layer_norm: kernel(include_str!("layer_norm.wgsl"))?,
            products,
            attention: kernel(include_str!("attention.wgsl"))?,
            norms: [
                (filled(&weights.gain1)?, filled(&weights.bias1)?),
                (filled(&weights.gain2)?, filled(&weights.bias2)?),
            ],
            qkv,
            out,
            up,
            down,
            tokens: numbers(rows * WIDTH)?,
            normed: numbers(rows * WIDTH)?,
            heads: numbers(rows * 3 * WIDTH)?,
            mixed: numbers(rows * WIDTH)?,
            inner: numbers(rows * INNER)?,
            sequences_max,
            lease: lease.clone(),
        })
    }

    /// Encodes these sequences: one job for as many as the buffers have room for.
    pub fn encode(&self, sequences: &[Vec<f32>]) -> Vec<Pending<JobDone>> {
        let jobs = sequences.chunks(self.sequences_max);
        jobs.map(|sequences| self.lease.submit(self.job(&sequences.concat()))).collect()
    }

    fn job(&self, tokens: &[f32]) -> Job {
        let rows = tokens.len() / WIDTH;
        let attend = words(&[0, TOKENS as u32, HEADS as u32, (WIDTH / HEADS) as u32]);
        let job = Job::new().write(&self.tokens, 0, bytes(tokens));
        let job = self.norm(job, 0, rows);
        let job = self.project(job, &self.qkv, [&self.normed, &self.heads], rows, Epilogue::Bias);
        let groups = [(rows * HEADS) as u32, 1, 1];
        let job = job.dispatch_with(&self.attention, &[&self.heads, &self.mixed], groups, &attend);
        let job = self.project(job, &self.out, [&self.mixed, &self.tokens], rows, Epilogue::BiasAdd);
        let job = self.norm(job, 1, rows);
        let job = self.project(job, &self.up, [&self.normed, &self.inner], rows, Epilogue::BiasRelu);
        let job = self.project(job, &self.down, [&self.inner, &self.tokens], rows, Epilogue::BiasAdd);
        job.read(&self.tokens, 0, 4 * tokens.len() as u64)
    }

    fn norm(&self, job: Job, which: usize, rows: usize) -> Job {
        let (gain, bias) = &self.norms[which];
        let buffers = [&self.tokens, gain, bias, &self.normed];
        job.dispatch_with(&self.layer_norm, &buffers, [rows as u32, 1, 1], &words(&[0, WIDTH as u32]))
    }

    fn project(
        &self,
        job: Job,
        by: &Projection,
        [x, y]: [&GpuBuffer; 2],
        rows: usize,
        epilogue: Epilogue,
    ) -> Job {
        let shape = by.shape(rows);
        let kernel = Kernel::of(shape);
        let buffers = [x, &by.weights, &by.bias, y];
        job.dispatch_with(&self.products[&kernel], &buffers, kernel.grid(shape), &immediates(shape, epilogue))
    }
}

/// The sequences that a job of [`Block::encode`] made.
pub fn sequences(done: &JobDone) -> Vec<Vec<f32>> {
    let one = |bytes: &[u8]| {
        let numbers = bytes.chunks_exact(4);
        numbers.map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
    };
    done.reads[0].chunks_exact(4 * TOKENS * WIDTH).map(one).collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
