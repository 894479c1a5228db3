//! Kernels are compiled on a thread beside the device's, so that slices go on meanwhile: one at a time, the leases in
//! turn, the same text once for all.

use std::{
    collections::{BTreeMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use super::{ABANDONED_LOOK, ABANDONED_MAX, Compiled, Core};
use crate::gpu::{
    device::{Compile, DeviceOps},
    error::GpuError,
    kernel::{GpuKernel, KernelHandle, KernelSpec, WGSL_BYTES_MAX},
    link::{Answer, COMMANDS_MAX, Link, Of, deliver},
    slices::Cost,
};

/// A kernel that a lease waits for.
struct Task {
    spec: KernelSpec,
    of: Of,
    answer: Answer<GpuKernel>,
}

impl Task {
    /// Its place is free before the answer is there, so that the next request finds it.
    fn answer(self, with: Result<GpuKernel, GpuError>) {
        let Self { of, answer, .. } = self;
        drop(of);
        deliver(answer, with);
    }
}

/// The thread that compiles, which ends with this, and what waits for it.
pub(super) struct Compiling<D: DeviceOps> {
    tasks: SyncSender<(D::Compiler, KernelSpec)>,
    outcomes: Receiver<Result<D::Kernel, GpuError>>,
    thread: JoinHandle<()>,
    /// By lease, each in order.
    waiting: BTreeMap<u64, VecDeque<Task>>,
    /// Whose turn it was last.
    last: u64,
    /// Whether the thread is at one.
    busy: bool,
    /// What it is at, unless that was answered before: then what comes of it is of no use.
    current: Option<Task>,
}

impl<D: DeviceOps> Compiling<D> {
    pub(super) fn start(link: &Arc<Link>) -> Result<Self, GpuError> {
        let (tasks, todo) = sync_channel::<(D::Compiler, KernelSpec)>(1);
        let (done, outcomes) = sync_channel(1);
        // Not the link itself, or the device's thread would be kept by one that it keeps.
        let link = Arc::downgrade(link);
        let run = move || {
            while let Ok((compiler, spec)) = todo.recv() {
                let compiled = catch_unwind(AssertUnwindSafe(|| compiler.compile(&spec)));
                let kernel = compiled.unwrap_or_else(|_| Err(GpuError::invalid("the compiler panicked")));
                // It is of a device that may go.
                drop(compiler);
                if done.send(kernel).is_err() {
                    return;
                }
                link.upgrade().into_iter().for_each(|link| link.wake());
            }
        };
        let spawned = thread::Builder::new().name("greenroom-gpu-compile".into()).spawn(run);
        let thread = spawned.map_err(|error| GpuError::NoDevice { why: error.to_string().into() })?;
        let waiting = BTreeMap::new();
        Ok(Self { tasks, outcomes, thread, waiting, last: 0, busy: false, current: None })
    }

    /// The next task, of the next lease that has one.
    fn next(&mut self) -> Option<Task> {
        let mut others = self.waiting.range(self.last.saturating_add(1)..);
        let lease = *others.next().or_else(|| self.waiting.first_key_value())?.0;
        self.last = lease;
        let tasks = self.waiting.get_mut(&lease)?;
        let task = tasks.pop_front();
        if tasks.is_empty() {
            self.waiting.remove(&lease);
        }
        task
    }

    /// Nobody waits any more for the kernels of an ended lease.
    pub(super) fn refuse(&mut self, lease: u64, why: &GpuError) {
        let current = self.current.take_if(|task| task.of.lease == lease);
        let tasks = current.into_iter().chain(self.waiting.remove(&lease).into_iter().flatten());
        tasks.for_each(|task| task.answer(Err(why.clone())));
    }

    /// Nobody waits any more for any.
    pub(super) fn refuse_all(&mut self, why: &GpuError) {
        let waiting = std::mem::take(&mut self.waiting);
        let tasks = self.current.take().into_iter().chain(waiting.into_values().flatten());
        tasks.for_each(|task| task.answer(Err(why.clone())));
    }

    /// Ends the thread and waits for it a while: what it compiles keeps the driver busy.
    pub(super) fn end(mut self) {
        self.refuse_all(&GpuError::Closed);
        let Self { tasks, outcomes, thread, .. } = self;
        drop((tasks, outcomes));
        let began = Instant::now();
        while !thread.is_finished() && began.elapsed() < ABANDONED_MAX {
            thread::park_timeout(ABANDONED_LOOK);
        }
        if thread.is_finished() {
            // A panic was caught before.
            let _ = thread.join();
        }
    }
}

impl<D: DeviceOps> Core<D> {
    pub(super) fn compile(&mut self, of: Of, spec: KernelSpec, answer: Answer<GpuKernel>) {
        let task = Task { spec, of, answer };
        let checked = self.tenant(&task.of).map(drop).and_then(|()| self.check_spec(&task.spec));
        if let Err(error) = checked {
            return task.answer(Err(error));
        }
        if self.compiling.waiting.values().map(VecDeque::len).sum::<usize>() >= COMMANDS_MAX {
            return task.answer(Err(GpuError::QueueFull { limit: COMMANDS_MAX }));
        }
        self.compiling.waiting.entry(task.of.lease).or_default().push_back(task);
        self.compile_next();
    }

    /// Answers who waits for the kernel that is compiled, and goes on with the next.
    pub(super) fn take_compiled(&mut self) {
        if let Ok(kernel) = self.compiling.outcomes.try_recv() {
            self.compiling.busy = false;
            if let Some(task) = self.compiling.current.take() {
                let good = self.tenant(&task.of).map(drop).and(kernel);
                let kernel = good.map(|kernel| self.keep(kernel, task.spec.clone(), &task.of));
                task.answer(kernel);
            }
        }
        self.compile_next();
    }

    fn compile_next(&mut self) {
        while !self.compiling.busy
            && let Some(task) = self.compiling.next()
        {
            if task.answer.is_closed() {
                continue;
            }
            if let Err(error) = self.tenant(&task.of) {
                task.answer(Err(error));
                continue;
            }
            // Replicas of one backend ask for the same at the same time, above all when a device was lost.
            let same = self.kernels.values().find(|compiled| compiled.spec.same_code(&task.spec));
            if let Some(kernel) = same.map(|compiled| compiled.kernel.clone()) {
                let kernel = self.keep(kernel, task.spec.clone(), &task.of);
                task.answer(Ok(kernel));
                continue;
            }
            if self.compiling.tasks.try_send((self.device.compiler(), task.spec.clone())).is_err() {
                task.answer(Err(GpuError::Closed));
                continue;
            }
            self.compiling.busy = true;
            self.compiling.current = Some(task);
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use crate::{
        gpu::{
            DeviceOptions, DeviceSource, GpuDevice, GpuError, GpuLease, KernelSpec, LeaseRequest, Pending,
            SimulatedDevice,
        },
        resources::Fraction,
    };

    /// A device with two leases whose kernels take this long each.
    fn slow(compile: Duration) -> (GpuDevice, [GpuLease; 2]) {
        let source = DeviceSource::Simulated(SimulatedDevice { compile, ..Default::default() });
        let device = GpuDevice::open(DeviceOptions { source, ..Default::default() }).wait().unwrap();
        let half = Fraction::parse(0.5).unwrap().unwrap();
        let leases = [half; 2].map(|half| device.lease(LeaseRequest::new(half)).wait().unwrap());
        (device, leases)
    }

    fn asked(lease: &GpuLease, kernels: usize) -> Vec<Pending<crate::gpu::GpuKernel>> {
        (0..kernels).map(|n| lease.create_kernel(KernelSpec::new(format!("{} {n}", lease.id())))).collect()
    }

    fn all(pending: Vec<Pending<crate::gpu::GpuKernel>>, told: impl Fn(&GpuError) -> bool) {
        for answer in pending {
            let answer = answer.wait();
            assert!(answer.as_ref().is_err_and(&told), "{answer:?}");
        }
    }

    #[test]
    fn one_lease_with_many_kernels_does_not_hold_up_those_of_another() {
        let (_device, [many, few]) = slow(Duration::from_millis(100));
        let (kernels, began) = (asked(&many, 40), Instant::now());
        few.create_kernel(KernelSpec::new("one")).wait().unwrap();
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        drop(kernels);
    }

    #[test]
    fn kernels_of_a_lease_that_ends_or_of_a_lost_device_are_answered_at_once_and_not_compiled() {
        let (device, [released, lost]) = slow(Duration::from_millis(400));
        let (first, second) = (asked(&released, 20), asked(&lost, 20));
        let began = Instant::now();
        released.release().wait().unwrap();
        all(first, |error| *error == GpuError::Released);
        device.lose().unwrap();
        all(second, |error| matches!(error, GpuError::DeviceLost { .. }));
        let renewed = lost.renew().wait().unwrap();
        renewed.create_kernel(KernelSpec::new("again")).wait().unwrap();
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }

    #[test]
    fn a_device_that_closes_does_not_wait_for_all_that_is_to_be_compiled() {
        let (device, [lease, _other]) = slow(Duration::from_secs(20));
        let (kernels, began) = (asked(&lease, 3), Instant::now());
        device.close().wait().unwrap();
        all(kernels, |error| *error == GpuError::Closed);
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }

    #[test]
    fn a_text_that_several_ask_for_is_compiled_once() {
        let (_device, leases) = slow(Duration::from_millis(300));
        let began = Instant::now();
        let pending: Vec<_> = (0..20).map(|n| leases[n % 2].create_kernel(KernelSpec::new("same"))).collect();
        pending.into_iter().for_each(|kernel| drop(kernel.wait().unwrap()));
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
}
