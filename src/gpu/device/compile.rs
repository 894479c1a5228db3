//! WGSL to kernels of wgpu, with the place of what is wrong.

use futures_util::FutureExt;

use super::{Compile, wgpu_device::typed};
use crate::gpu::{error::GpuError, kernel::KernelSpec};

/// Compiles for one opening of a device, from a thread of its own.
pub(crate) struct Compiler(pub(super) wgpu::Device);

impl Compile for Compiler {
    type Kernel = wgpu::ComputePipeline;

    fn compile(&self, spec: &KernelSpec) -> Result<wgpu::ComputePipeline, GpuError> {
        let source = wgpu::ShaderSource::Wgsl(spec.wgsl.as_ref().into());
        let module = self.scoped(|device| {
            device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source })
        });
        let module = module.map_err(|(module, error)| located(&module, error))?;
        let pipeline = self.scoped(|device| {
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: None,
                layout: None,
                module: &module,
                entry_point: Some(&spec.entry),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache: None,
            })
        });
        pipeline.map_err(|(_, error)| error)
    }
}

impl Compiler {
    /// Runs `make` with its errors told to it alone: scopes belong to the thread.
    fn scoped<T>(&self, make: impl FnOnce(&wgpu::Device) -> T) -> Result<T, (T, GpuError)> {
        let filters =
            [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation];
        let scopes = filters.map(|filter| self.0.push_error_scope(filter));
        let made = make(&self.0);
        // They end in the order opposite to their beginning; all are ready at once.
        let errors = scopes.into_iter().rev().filter_map(|scope| scope.pop().now_or_never().flatten());
        match errors.collect::<Vec<_>>().into_iter().next() {
            None => Ok(made),
            Some(error) => Err((made, typed(error))),
        }
    }
}

/// The error of a module with its place in the text.
fn located(module: &wgpu::ShaderModule, error: GpuError) -> GpuError {
    let info = module.get_compilation_info().now_or_never();
    let place = info.into_iter().flat_map(|info| info.messages).find_map(|message| {
        let place = message.location?;
        let (line, column) = (place.line_number, place.line_position);
        Some(GpuError::Wgsl { line, column, message: message.message.into() })
    });
    place.unwrap_or(error)
}
