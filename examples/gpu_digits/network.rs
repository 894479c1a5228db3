//! The digits network on a share of a GPU: weights uploaded once, activations reused by one batch after the other.

use greenroom::gpu::{Axis, GpuBuffer, GpuError, GpuKernel, GpuLease, Job, JobDone, KernelSpec, Pending};

use super::weights::{DIGITS, HIDDEN, PIXELS, Weights};

/// The network of one replica.
pub struct Network {
    lease: GpuLease,
    dense: GpuKernel,
    largest: GpuKernel,
    /// Weights and bias of each layer.
    layers: [(GpuBuffer, GpuBuffer); 2],
    pixels: GpuBuffer,
    hidden: GpuBuffer,
    logits: GpuBuffer,
    digits: GpuBuffer,
    /// Images that the buffers have room for.
    rows_max: usize,
}

impl Network {
    /// Waits for the device: for a factory, whose replica has a thread of its own.
    pub fn load(lease: &GpuLease, weights: &Weights, rows_max: usize) -> Result<Self, GpuError> {
        let numbers = |count: usize| lease.create_buffer(4 * count as u64).wait();
        let filled = |values: &[f32]| {
            let buffer = numbers(values.len())?;
            lease.write(&buffer, 0, bytes(values)).wait()?;
            Ok::<_, GpuError>(buffer)
        };
        let kernel = |text: &str| lease.create_kernel(KernelSpec::new(text).split(Axis::X, 0)).wait();
        Ok(Self {
            dense: kernel(include_str!("dense.wgsl"))?,
            largest: kernel(include_str!("largest.wgsl"))?,
            layers: [
                (filled(&weights.w1)?, filled(&weights.b1)?),
                (filled(&weights.w2)?, filled(&weights.b2)?),
            ],
            pixels: numbers(rows_max * PIXELS)?,
            hidden: numbers(rows_max * HIDDEN)?,
            logits: numbers(rows_max * DIGITS)?,
            digits: numbers(rows_max)?,
            rows_max,
            lease: lease.clone(),
        })
    }

    /// What digits are on these images: one job, one answer, for as many as the buffers have room for. Jobs of a
    /// lease run one after the other, so the next may be sent before this one has ended.
    pub fn classify(&self, images: &[Vec<f32>]) -> Vec<Pending<JobDone>> {
        images.chunks(self.rows_max).map(|images| self.lease.submit(self.job(images))).collect()
    }

    fn job(&self, images: &[Vec<f32>]) -> Job {
        let rows = images.len();
        let layer = |inputs: usize, outputs: usize, scale: f32, cut: u32| {
            let counts = [0, rows as u32, inputs as u32, outputs as u32];
            [words(&counts), scale.to_le_bytes().to_vec(), words(&[cut])].concat()
        };
        let groups = |threads: usize| [threads.div_ceil(64) as u32, 1, 1];
        let [(w1, b1), (w2, b2)] = &self.layers;
        Job::new()
            .write(&self.pixels, 0, bytes(&images.concat()))
            .dispatch_with(
                &self.dense,
                &[&self.pixels, w1, b1, &self.hidden],
                groups(rows * HIDDEN),
                // Pixels are 0 to 16.
                &layer(PIXELS, HIDDEN, 1.0 / 16.0, 1),
            )
            .dispatch_with(
                &self.dense,
                &[&self.hidden, w2, b2, &self.logits],
                groups(rows * DIGITS),
                &layer(HIDDEN, DIGITS, 1.0, 0),
            )
            .dispatch_with(
                &self.largest,
                &[&self.logits, &self.digits],
                groups(rows),
                &words(&[0, rows as u32, DIGITS as u32]),
            )
            .read(&self.digits, 0, 4 * rows as u64)
    }
}

/// What a job of [`Network::classify`] found.
pub fn digits(done: &JobDone) -> impl Iterator<Item = u32> {
    let words = done.reads[0].chunks_exact(4);
    words.map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
