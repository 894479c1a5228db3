//! Kernels are compiled on a thread beside the device's, so that slices go on meanwhile.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
};

use super::{Compiled, Core};
use crate::gpu::{
    device::{Compile, DeviceOps},
    error::GpuError,
    kernel::{GpuKernel, KernelHandle, KernelSpec},
    link::{Answer, COMMANDS_MAX, Link, Of},
    slices::Cost,
};

/// A kernel to compile, and with what.
pub(super) struct Task<C> {
    compiler: C,
    spec: KernelSpec,
    of: Of,
    answer: Answer<GpuKernel>,
}

/// A kernel that was compiled, or not.
pub(super) struct Outcome<K> {
    kernel: Result<K, GpuError>,
    spec: KernelSpec,
    of: Of,
    answer: Answer<GpuKernel>,
}

/// The thread that compiles; it ends with this.
pub(super) struct Compiling<D: DeviceOps> {
    tasks: SyncSender<Task<D::Compiler>>,
    outcomes: Receiver<Outcome<D::Kernel>>,
    thread: JoinHandle<()>,
}

impl<D: DeviceOps> Compiling<D> {
    pub(super) fn start(link: &Arc<Link>) -> Result<Self, GpuError> {
        let (tasks, todo) = sync_channel::<Task<D::Compiler>>(COMMANDS_MAX);
        let (done, outcomes) = sync_channel(COMMANDS_MAX);
        // Not the link itself, or the device's thread would be kept by one that it keeps.
        let link = Arc::downgrade(link);
        let run = move || {
            for Task { compiler, spec, of, answer } in todo {
                if answer.is_closed() {
                    continue;
                }
                let compiled = catch_unwind(AssertUnwindSafe(|| compiler.compile(&spec)));
                let kernel = compiled.unwrap_or_else(|_| Err(GpuError::invalid("the compiler panicked")));
                if done.send(Outcome { kernel, spec, of, answer }).is_err() {
                    return;
                }
                link.upgrade().into_iter().for_each(|link| link.wake());
            }
        };
        let spawned = thread::Builder::new().name("greenroom-gpu-compile".into()).spawn(run);
        spawned
            .map(|thread| Self { tasks, outcomes, thread })
            .map_err(|error| GpuError::NoDevice { why: error.to_string().into() })
    }

    /// Ends the thread and waits for it: what it compiles keeps the driver busy.
    pub(super) fn end(self) {
        // Nobody takes what it is at, so that it begins nothing else.
        drop((self.outcomes, self.tasks));
        // A panic was caught before.
        let _ = self.thread.join();
    }
}

impl<D: DeviceOps> Core<D> {
    pub(super) fn compile(&mut self, of: Of, spec: KernelSpec, answer: Answer<GpuKernel>) {
        let checked = self.tenant(&of).map(drop).and_then(|()| self.check_split(&spec));
        if let Err(error) = checked {
            drop(of);
            // Whoever asked may have left.
            let _ = answer.send(Err(error));
            return;
        }
        let task = Task { compiler: self.device.compiler(), spec, of, answer };
        if let Err(TrySendError::Full(task) | TrySendError::Disconnected(task)) =
            self.compiling.tasks.try_send(task)
        {
            drop(task.of);
            let _ = task.answer.send(Err(GpuError::QueueFull { limit: COMMANDS_MAX }));
        }
    }

    /// Answers who waits for kernels that are compiled.
    pub(super) fn take_compiled(&mut self) {
        while let Ok(Outcome { kernel, spec, of, answer }) = self.compiling.outcomes.try_recv() {
            // The lease may be gone, or the device another.
            let kernel = self.tenant(&of).map(drop).and(kernel).map(|kernel| {
                let (id, lease, link) = (self.id(), of.lease, Arc::clone(&self.link));
                self.kernels.insert(id, Compiled { lease, kernel, cost: Cost::default() });
                GpuKernel(Arc::new(KernelHandle { id, lease, epoch: of.epoch, split: spec.split, link }))
            });
            drop(of);
            let _ = answer.send(kernel);
        }
    }

    fn check_split(&self, spec: &KernelSpec) -> Result<(), GpuError> {
        let most = self.device.facts().immediate_bytes_max;
        let wrong = |offset: u32| !offset.is_multiple_of(4) || offset.saturating_add(4) > most;
        match spec.split {
            Some(split) if wrong(split.immediate_offset) => Err(GpuError::invalid(format!(
                "the split axis at byte {} of the immediates; allowed: multiples of 4 below {most}",
                split.immediate_offset
            ))),
            _ => Ok(()),
        }
    }
}
