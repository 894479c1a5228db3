//! Kernels are compiled on a thread beside the device's, so that slices go on meanwhile; the same text once for all.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
};

use super::{Compiled, Core};
use crate::gpu::{
    device::{Compile, DeviceOps},
    error::GpuError,
    kernel::{GpuKernel, KernelHandle, KernelSpec, WGSL_BYTES_MAX},
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

/// What was compiled last.
struct Made<K> {
    epoch: u64,
    spec: KernelSpec,
    kernel: K,
}

/// The next task. While there is none nothing is kept of what was compiled: it is of a device that may go.
fn next<C, K>(todo: &Receiver<Task<C>>, last: &mut Option<Made<K>>) -> Option<Task<C>> {
    match todo.try_recv() {
        Err(TryRecvError::Empty) => {
            *last = None;
            todo.recv().ok()
        }
        task => task.ok(),
    }
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
            // Replicas of one backend ask for the same at the same time, above all when a device was lost.
            let mut last: Option<Made<D::Kernel>> = None;
            while let Some(Task { compiler, spec, of, answer }) = next(&todo, &mut last) {
                if answer.is_closed() {
                    continue;
                }
                let same = last.as_ref().filter(|made| made.epoch == of.epoch && made.spec.same_code(&spec));
                let kernel = if let Some(made) = same {
                    Ok(made.kernel.clone())
                } else {
                    let compiled = catch_unwind(AssertUnwindSafe(|| compiler.compile(&spec)));
                    compiled.unwrap_or_else(|_| Err(GpuError::invalid("the compiler panicked")))
                };
                let made =
                    |kernel: &D::Kernel| Made { epoch: of.epoch, spec: spec.clone(), kernel: kernel.clone() };
                last = kernel.as_ref().ok().map(made);
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
        let checked = self.tenant(&of).map(drop).and_then(|()| self.check_spec(&spec));
        if let Err(error) = checked {
            drop(of);
            // Whoever asked may have left.
            let _ = answer.send(Err(error));
            return;
        }
        let held = self.kernels.values().find(|compiled| compiled.spec.same_code(&spec));
        if let Some(kernel) = held.map(|compiled| compiled.kernel.clone()) {
            let kernel = self.keep(kernel, spec, &of);
            drop(of);
            let _ = answer.send(Ok(kernel));
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
            let good = self.tenant(&of).map(drop).and(kernel);
            let kernel = good.map(|kernel| self.keep(kernel, spec, &of));
            drop(of);
            let _ = answer.send(kernel);
        }
    }

    /// A kernel of a lease. What it costs is learned for each, as their jobs differ.
    fn keep(&mut self, kernel: D::Kernel, spec: KernelSpec, of: &Of) -> GpuKernel {
        let (id, lease, epoch, split) = (self.id(), of.lease, of.epoch, spec.split);
        self.kernels.insert(id, Compiled { lease, spec, kernel, cost: Cost::default() });
        GpuKernel(Arc::new(KernelHandle { id, lease, epoch, split, link: Arc::clone(&self.link) }))
    }

    fn check_spec(&self, spec: &KernelSpec) -> Result<(), GpuError> {
        let bytes = spec.wgsl.len();
        if bytes > WGSL_BYTES_MAX {
            let what = format!("a kernel's text of {bytes} bytes; allowed: up to {WGSL_BYTES_MAX}");
            return Err(GpuError::invalid(what));
        }
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
