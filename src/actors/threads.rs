//! Serving threads: those of the host that lends them, those of this Serve, and one for each dedicated replica.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use actix::Addr;
use tokio::sync::mpsc;

use crate::{
    actors::{build::Start, lane::Stop, router::Router},
    meta::thread_token,
    routing::directory::Directory,
};

/// Starts waiting for one thread; more than any change starts at once on one thread.
const STARTS_MAX: usize = 16_384;

/// One thread that owns replicas.
pub(crate) struct ServingThread {
    token: u64,
    starts: mpsc::Sender<Start>,
    router: Addr<Router>,
    router_stop: Arc<dyn Stop>,
    /// Replicas placed here.
    pub(crate) replicas: AtomicUsize,
    /// A replica here did not answer, and since then nothing has.
    silent: AtomicBool,
}

impl ServingThread {
    /// Runs `start` on the thread; dropped when the thread has ended, which the start itself reports.
    pub(crate) fn run(&self, start: Start) {
        drop(self.starts.try_send(start));
    }

    /// A replica here did not answer: others come here only if there is nowhere else, until the thread gets to what
    /// it is given.
    pub(crate) fn note_silence(self: &Arc<Self>) {
        if !self.silent.swap(true, Ordering::Relaxed) {
            let this = Arc::clone(self);
            self.run(Box::new(move || this.silent.store(false, Ordering::Relaxed)));
        }
    }

    /// What speaks against one more replica here, the weightiest first.
    fn burden(&self) -> (bool, usize) {
        (self.silent.load(Ordering::Relaxed), self.replicas.load(Ordering::Relaxed))
    }

    fn alive(&self) -> bool {
        !self.starts.is_closed()
    }
}

/// The serving threads of one Serve.
#[derive(Default)]
pub(crate) struct Threads(Mutex<Vec<Arc<ServingThread>>>);

impl Threads {
    /// Makes the calling thread a serving thread for as long as its runtime runs. Called again on the same
    /// thread it changes nothing.
    pub(crate) fn lend_current(&self, directory: &Arc<Directory>) {
        let token = thread_token();
        let mut threads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if threads.iter().any(|thread| thread.token == token && thread.alive()) {
            return;
        }
        let (starts, mut inbox) = mpsc::channel::<Start>(STARTS_MAX);
        let (router, router_stop) = Router::new(Arc::clone(directory)).start();
        drop(tokio::task::spawn_local(async move {
            while let Some(start) = inbox.recv().await {
                start();
            }
        }));
        let (replicas, silent) = (AtomicUsize::new(0), AtomicBool::new(false));
        threads.push(Arc::new(ServingThread { token, starts, router, router_stop, replicas, silent }));
    }

    /// The thread with the fewest replicas, of those that answer.
    pub(crate) fn emptiest(&self) -> Option<Arc<ServingThread>> {
        let mut threads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|thread| thread.alive());
        threads.iter().min_by_key(|thread| thread.burden()).cloned()
    }

    /// The router of this thread, or of some serving thread.
    pub(crate) fn router(&self) -> Option<Addr<Router>> {
        let threads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = threads.iter().find(|thread| thread.token == thread_token() && thread.alive());
        own.or_else(|| threads.iter().find(|thread| thread.alive())).map(|thread| thread.router.clone())
    }

    /// Ends the routers and loops of all threads: no replica starts any more.
    pub(crate) fn clear(&self) {
        let threads = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        threads.iter().for_each(|thread| thread.router_stop.stop());
    }

    pub(crate) fn count(&self) -> usize {
        let mut threads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|thread| thread.alive());
        threads.len()
    }
}
