//! WGSL to kernels of wgpu, with the place of what is wrong.

use std::thread;

use futures_util::FutureExt;

use super::{Compile, wgpu_device::typed, wording};
use crate::gpu::{
    error::GpuError,
    kernel::{KernelSpec, Split},
};

/// Stack for what compiling a text takes. The compiler goes into expressions, `else if` and types by recursion, without
/// looking at how deep it is: a sum of some hundred terms ends a thread with the usual 2 MiB, and the process with it.
/// Each byte of text is at most one level. What is not used costs no memory.
const STACK_BYTES: usize = 8 << 20;
const STACK_BYTES_PER_BYTE: usize = 16 << 10;

/// Compiles for one opening of a device, from a thread of its own.
pub(crate) struct Compiler(pub(super) wgpu::Device);

impl Compile for Compiler {
    type Kernel = wgpu::ComputePipeline;

    fn compile(&self, spec: &KernelSpec) -> Result<wgpu::ComputePipeline, GpuError> {
        let stack = STACK_BYTES + spec.wgsl.len() * STACK_BYTES_PER_BYTE;
        let thread = thread::Builder::new().name("greenroom-gpu-wgsl".into()).stack_size(stack);
        thread::scope(|scope| match thread.spawn_scoped(scope, || self.compile_here(spec)) {
            Ok(compiling) => {
                compiling.join().unwrap_or_else(|_| Err(GpuError::invalid("the compiler panicked")))
            }
            Err(error) => Err(GpuError::NoDevice { why: format!("no thread to compile on: {error}").into() }),
        })
    }
}

impl Compiler {
    fn compile_here(&self, spec: &KernelSpec) -> Result<wgpu::ComputePipeline, GpuError> {
        let source = wgpu::ShaderSource::Wgsl(spec.wgsl.as_ref().into());
        let module = self.scoped(|device| {
            device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source })
        });
        let module = module.map_err(|(module, error)| located(&module, error))?;
        spec.split.map_or(Ok(()), |split| check_split(split, &spec.wgsl))?;
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

/// Whether a text that compiles has immediates where the first workgroup of a piece is to be written. The driver is asked
/// for as many as the text has, and knows of none that are missing until the first dispatch.
fn check_split(split: Split, wgsl: &str) -> Result<(), GpuError> {
    // It was read before; if not by these rules, the dispatch tells.
    let Ok(module) = wgpu::naga::front::wgsl::parse_str(wgsl) else { return Ok(()) };
    let bytes = wgpu::naga::valid::ImmediateSlots::size_for_module(&module);
    let at = split.immediate_offset;
    if at.saturating_add(4) <= bytes {
        return Ok(());
    }
    let what =
        format!("the split axis at byte {at} of the immediates; the kernel's text has {bytes} bytes of them");
    Err(GpuError::invalid(what))
}

/// The error of a module with its place in the text.
fn located(module: &wgpu::ShaderModule, error: GpuError) -> GpuError {
    let info = module.get_compilation_info().now_or_never();
    let place = info.into_iter().flat_map(|info| info.messages).find_map(|message| {
        let place = message.location?;
        let (line, column) = (place.line_number, place.line_position);
        Some(GpuError::Wgsl { line, column, message: wording::of_wgsl(&message.message).into() })
    });
    place.unwrap_or(error)
}
