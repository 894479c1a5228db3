//! A transformer block on a share of a GPU: weights uploaded once, activations reused, one job for a whole batch.

use greenroom::gpu::{Axis, GpuBuffer, GpuError, GpuKernel, GpuLease, Job, JobDone, KernelSpec, Pending};

use super::weights::{HEADS, INNER, TOKENS, WIDTH, Weights};

/// Outputs of a workgroup of `project.wgsl`, along both axes.
const TILE: usize = 8;

/// A projection: its weights, its bias, and how many numbers go in and come out.
struct Projection {
    weights: GpuBuffer,
    bias: GpuBuffer,
    inputs: usize,
    outputs: usize,
}

/// What a projection does with what it has computed.
#[derive(Clone, Copy)]
enum Then {
    Write,
    CutAndWrite,
    Add,
}

/// The block of one replica.
pub struct Block {
    lease: GpuLease,
    layer_norm: GpuKernel,
    project: GpuKernel,
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
        let kernel = |text: &str, axis| lease.create_kernel(KernelSpec::new(text).split(axis, 0)).wait();
        Ok(Self {
            layer_norm: kernel(include_str!("layer_norm.wgsl"), Axis::X)?,
            project: kernel(include_str!("project.wgsl"), Axis::Y)?,
            attention: kernel(include_str!("attention.wgsl"), Axis::X)?,
            norms: [
                (filled(&weights.gain1)?, filled(&weights.bias1)?),
                (filled(&weights.gain2)?, filled(&weights.bias2)?),
            ],
            qkv: projection(&weights.qkv, &weights.qkv_bias)?,
            out: projection(&weights.out, &weights.out_bias)?,
            up: projection(&weights.up, &weights.up_bias)?,
            down: projection(&weights.down, &weights.down_bias)?,
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
        let job = self.project(job, &self.qkv, [&self.normed, &self.heads], rows, Then::Write);
        let groups = [(rows * HEADS) as u32, 1, 1];
        let job = job.dispatch_with(&self.attention, &[&self.heads, &self.mixed], groups, &attend);
        let job = self.project(job, &self.out, [&self.mixed, &self.tokens], rows, Then::Add);
        let job = self.norm(job, 1, rows);
        let job = self.project(job, &self.up, [&self.normed, &self.inner], rows, Then::CutAndWrite);
        let job = self.project(job, &self.down, [&self.inner, &self.tokens], rows, Then::Add);
        job.read(&self.tokens, 0, 4 * tokens.len() as u64)
    }

    fn norm(&self, job: Job, which: usize, rows: usize) -> Job {
        let (gain, bias) = &self.norms[which];
        let buffers = [&self.tokens, gain, bias, &self.normed];
        job.dispatch_with(&self.layer_norm, &buffers, [rows as u32, 1, 1], &words(&[0, WIDTH as u32]))
    }

    fn project(&self, job: Job, by: &Projection, [x, y]: [&GpuBuffer; 2], rows: usize, then: Then) -> Job {
        let (cut, add) = match then {
            Then::Write => (0, 0),
            Then::CutAndWrite => (1, 0),
            Then::Add => (0, 1),
        };
        let grid = [by.outputs.div_ceil(TILE) as u32, rows.div_ceil(TILE) as u32, 1];
        let layer = words(&[0, rows as u32, by.inputs as u32, by.outputs as u32, cut, add]);
        job.dispatch_with(&self.project, &[x, &by.weights, &by.bias, y], grid, &layer)
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
