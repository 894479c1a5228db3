//! The digits network as a Burn module, on a device that is lent.

use burn::{
    module::{Module, Param},
    nn::Linear,
    tensor::{Device, ExecutionError, Int, Tensor, TensorData, activation, wgpu::WgpuInitError},
};
use greenroom::gpu::ExclusiveDevice;

use crate::{
    lent,
    weights::{DIGITS, HIDDEN, PIXELS, Weights},
};

/// Two layers, as they were trained elsewhere.
#[derive(Module, Debug)]
struct Layers {
    hidden: Linear,
    output: Linear,
}

impl Layers {
    fn new(weights: &Weights, device: &Device) -> Self {
        let linear = |w: &[f32], b: &[f32], inputs: usize, outputs: usize| Linear {
            weight: Param::from_data(TensorData::new(w.to_vec(), [inputs, outputs]), device),
            bias: Some(Param::from_data(TensorData::new(b.to_vec(), [outputs]), device)),
        };
        Self {
            hidden: linear(&weights.w1, &weights.b1, PIXELS, HIDDEN),
            output: linear(&weights.w2, &weights.b2, HIDDEN, DIGITS),
        }
    }

    /// The most probable digit of each row.
    fn forward(&self, pixels: Tensor<2>) -> Tensor<2, Int> {
        // Pixels are 0 to 16.
        let hidden = activation::relu(self.hidden.forward(pixels / 16.0));
        self.output.forward(hidden).argmax(1)
    }
}

/// The network of one replica, with a Burn runtime of its own on the device that all share.
pub struct Network {
    device: Device,
    layers: Layers,
}

impl Network {
    /// To be called in a turn, as all of this.
    pub fn load(lent: &ExclusiveDevice, weights: &Weights) -> Result<Self, WgpuInitError> {
        let device = lent::runtime(lent)?;
        let layers = Layers::new(weights, &device);
        Ok(Self { device, layers })
    }

    /// What digits are on these images, `rows` of them at a time. Returns when the device has done all of it.
    pub fn classify(&self, images: &[Vec<f32>], rows: usize) -> Result<Vec<i64>, ExecutionError> {
        let batch = |images: &[Vec<f32>]| {
            let pixels = TensorData::new(images.concat(), [images.len(), PIXELS]);
            self.layers.forward(Tensor::from_data(pixels, &self.device))
        };
        let batches: Vec<_> = images.chunks(rows).map(batch).collect();
        let mut digits = Vec::new();
        for batch in batches {
            digits.extend(batch.try_into_data()?.iter::<i64>());
        }
        self.device.sync()?;
        Ok(digits)
    }
}
