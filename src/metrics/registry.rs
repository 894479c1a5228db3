//! What of one Serve is counted, by backend and slot, by endpoint, by route.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use actix_web::http::{Method, StatusCode};

use crate::{
    http_call::ENDPOINT_METHODS,
    ids::{BackendName, EndpointName},
    metrics::{
        cells::{Reading, ReplicaCells},
        comparison::{ComparisonCounts, Comparisons},
        shadow::{ShadowCopies, ShadowCounts},
        spread::Spread,
    },
};

/// The counters of one backend. Those of replicas that are gone stay in the sum of their slot.
#[derive(Debug, Default)]
pub(crate) struct BackendMetrics {
    slots: Mutex<Slots>,
    ejections: AtomicU64,
    pub(crate) outside: Outside,
    /// What its replicas have of GPUs.
    #[cfg(feature = "gpu")]
    pub(crate) leases: super::gpu::LeaseTable,
}

/// What is counted of a backend's calls by their callers, whatever its replicas do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outside {
    /// Calls refused because the backend admits no more.
    pub(crate) refused: Arc<Spread>,
    /// Callers that left at their deadline without an answer.
    pub(crate) missed: Arc<AtomicU64>,
}

/// The sums of one backend over all its slots.
#[derive(Debug, Default)]
pub(crate) struct BackendTotals {
    pub(crate) sums: SlotReading,
    pub(crate) refused: u64,
    pub(crate) ejections: u64,
    missed: u64,
}

impl BackendTotals {
    /// Calls that ended, as [`BackendReading::requests`].
    pub(crate) fn requests(&self) -> u64 {
        self.sums.processing.count() + self.sums.expired + self.missed
    }

    /// Those of them that ended with an error, as [`BackendReading::errors`].
    pub(crate) fn errors(&self) -> u64 {
        self.sums.errors + self.sums.expired + self.missed
    }
}

/// The sums of one backend.
pub(crate) struct BackendReading {
    pub(crate) name: BackendName,
    pub(crate) slots: BTreeMap<u32, SlotReading>,
    pub(crate) refused: u64,
    pub(crate) ejections: u64,
    missed: u64,
}

impl BackendReading {
    fn total(&self, read: impl Fn(&SlotReading) -> u64) -> u64 {
        self.slots.values().map(read).sum::<u64>() + self.missed
    }

    /// Calls that ended: answered, or at their deadline. Each counts once, whoever saw the deadline pass.
    pub(crate) fn requests(&self) -> u64 {
        self.total(|slot| slot.processing.count() + slot.expired)
    }

    /// Those of them that ended with an error, which a deadline is.
    pub(crate) fn errors(&self) -> u64 {
        self.total(|slot| slot.errors + slot.expired)
    }
}

#[derive(Debug, Default)]
struct Slots {
    live: Vec<(u32, u64, Arc<ReplicaCells>)>,
    past: BTreeMap<u32, SlotReading>,
}

/// The sums of one slot.
#[derive(Clone, Debug, Default)]
pub(crate) struct SlotReading {
    pub(crate) queuing: Reading<16>,
    pub(crate) processing: Reading<16>,
    pub(crate) batches: Reading<10>,
    pub(crate) errors: u64,
    pub(crate) expired: u64,
    pub(crate) restarts: u64,
    pub(crate) starts: u64,
    pub(crate) running: usize,
    pub(crate) queued: usize,
}

impl SlotReading {
    fn add(&mut self, cells: &ReplicaCells) {
        cells.queuing.read_into(&mut self.queuing);
        cells.processing.read_into(&mut self.processing);
        cells.batches.read_into(&mut self.batches);
        self.errors += cells.errors.get();
        self.expired += cells.expired.get();
        self.restarts += cells.restarts.get();
        self.starts += cells.starts.get();
        let running = cells.running.load(Relaxed);
        self.running += running;
        self.queued += cells.gate.get().map_or(0, |gate| gate.load().saturating_sub(running));
    }

    fn merge(&mut self, other: &Self) {
        self.queuing.merge(&other.queuing);
        self.processing.merge(&other.processing);
        self.batches.merge(&other.batches);
        self.errors += other.errors;
        self.expired += other.expired;
        self.restarts += other.restarts;
        self.starts += other.starts;
        self.running += other.running;
        self.queued += other.queued;
    }
}

impl BackendMetrics {
    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cells for a new replica.
    pub(crate) fn enter(&self, slot: u32, generation: u64) -> Arc<ReplicaCells> {
        let cells = Arc::new(ReplicaCells::default());
        self.lock().live.push((slot, generation, Arc::clone(&cells)));
        cells
    }

    /// Folds the cells of a replica that is gone into its slot. One that failed is replaced, which is a
    /// restart of its slot.
    pub(crate) fn retire(&self, generation: u64) {
        let mut slots = self.lock();
        let Some(i) = slots.live.iter().position(|(_, g, _)| *g == generation) else { return };
        let (slot, _, cells) = slots.live.swap_remove(i);
        let past = slots.past.entry(slot).or_default();
        past.add(&cells);
        (past.running, past.queued) = (0, 0);
    }

    /// Counts the replacement of a failed replica as a restart of its slot.
    pub(crate) fn replaced(&self, slot: u32) {
        self.lock().past.entry(slot).or_default().restarts += 1;
    }

    /// Counts an ejection, which is a replacement too.
    pub(crate) fn ejected(&self, slot: u32) {
        self.ejections.fetch_add(1, Relaxed);
        self.replaced(slot);
    }

    /// The sums of each slot.
    pub(crate) fn read(&self) -> BTreeMap<u32, SlotReading> {
        let slots = self.lock();
        let mut sums = slots.past.clone();
        for (slot, _, cells) in &slots.live {
            sums.entry(*slot).or_default().add(cells);
        }
        sums
    }

    /// The sums over all slots. Makes nothing for each of them: there may be 10,000.
    fn total(&self) -> BackendTotals {
        let slots = self.lock();
        let mut sums = SlotReading::default();
        slots.past.values().for_each(|past| sums.merge(past));
        slots.live.iter().for_each(|(_, _, cells)| sums.add(cells));
        BackendTotals {
            sums,
            refused: self.outside.refused.total(),
            ejections: self.ejections.load(Relaxed),
            missed: self.outside.missed.load(Relaxed),
        }
    }
}

/// Key of the HTTP request counter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HttpKey {
    pub(crate) route: Arc<str>,
    pub(crate) method: &'static str,
    pub(crate) status: u16,
}

impl HttpKey {
    pub(crate) fn new(route: &Arc<str>, method: &Method, status: StatusCode) -> Self {
        // Methods that nobody serves share one label.
        let method =
            ENDPOINT_METHODS.iter().find(|known| **known == method.as_str()).copied().unwrap_or("OTHER");
        Self { route: Arc::clone(route), method, status: status.as_u16() }
    }
}

/// All counters of one Serve.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    backends: Mutex<BTreeMap<BackendName, Arc<BackendMetrics>>>,
    routed: Mutex<BTreeMap<(EndpointName, BackendName), Arc<Spread>>>,
    shadows: Mutex<BTreeMap<(EndpointName, BackendName), Arc<ShadowCounts>>>,
    comparisons: Mutex<BTreeMap<(EndpointName, BackendName), Arc<ComparisonCounts>>>,
    http: Mutex<BTreeMap<HttpKey, Arc<Spread>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// The counters of a backend; they stay when it is deleted and made again.
    pub(crate) fn backend(&self, name: &BackendName) -> Arc<BackendMetrics> {
        Arc::clone(lock(&self.backends).entry(name.clone()).or_default())
    }

    /// The counter of an endpoint's requests to a backend.
    pub(crate) fn routed(&self, endpoint: &EndpointName, backend: &BackendName) -> Arc<Spread> {
        Arc::clone(lock(&self.routed).entry((endpoint.clone(), backend.clone())).or_default())
    }

    /// The counters of the copies of an endpoint's requests at a backend.
    pub(crate) fn shadow(&self, endpoint: &EndpointName, backend: &BackendName) -> Arc<ShadowCounts> {
        Arc::clone(lock(&self.shadows).entry((endpoint.clone(), backend.clone())).or_default())
    }

    /// The counters of comparisons of an endpoint's answers with those of a backend to copies.
    pub(crate) fn comparison(&self, endpoint: &EndpointName, backend: &BackendName) -> Arc<ComparisonCounts> {
        Arc::clone(lock(&self.comparisons).entry((endpoint.clone(), backend.clone())).or_default())
    }

    /// The counter of HTTP answers.
    pub(crate) fn http(&self, key: HttpKey) -> Arc<Spread> {
        Arc::clone(lock(&self.http).entry(key).or_default())
    }

    /// Forgets what was counted for a backend and an endpoint that are gone, so that labels do not pile up.
    pub(crate) fn forget_backend(&self, name: &BackendName) {
        lock(&self.backends).remove(name);
        lock(&self.routed).retain(|(_, backend), _| backend != name);
        lock(&self.shadows).retain(|(_, backend), _| backend != name);
        lock(&self.comparisons).retain(|(_, backend), _| backend != name);
    }

    /// Forgets an endpoint that is gone, and the answers on its route.
    pub(crate) fn forget_endpoint(&self, name: &EndpointName, route: Option<&str>) {
        lock(&self.routed).retain(|(endpoint, _), _| endpoint != name);
        lock(&self.shadows).retain(|(endpoint, _), _| endpoint != name);
        lock(&self.comparisons).retain(|(endpoint, _), _| endpoint != name);
        route.iter().for_each(|route| self.forget_route(route));
    }

    /// Forgets the answers on a route that is gone.
    pub(crate) fn forget_route(&self, route: &str) {
        lock(&self.http).retain(|key, _| &*key.route != route);
    }

    /// The sums of each backend.
    pub(crate) fn read_backends(&self) -> Vec<BackendReading> {
        let backends = lock(&self.backends);
        let read = |(name, metrics): (&BackendName, &Arc<BackendMetrics>)| BackendReading {
            name: name.clone(),
            slots: metrics.read(),
            refused: metrics.outside.refused.total(),
            ejections: metrics.ejections.load(Relaxed),
            missed: metrics.outside.missed.load(Relaxed),
        };
        backends.iter().map(read).collect()
    }

    /// The sums of each backend over all its slots.
    pub(crate) fn read_totals(&self) -> BTreeMap<BackendName, BackendTotals> {
        // Not under the lock: whoever makes a backend waits for it.
        let backends = lock(&self.backends).clone();
        backends.into_iter().map(|(name, metrics)| (name, metrics.total())).collect()
    }

    /// What the replicas of each backend have of GPUs and did there.
    #[cfg(feature = "gpu")]
    pub(crate) fn read_leases(&self) -> Vec<(BackendName, Vec<super::gpu::LeaseReading>)> {
        lock(&self.backends).iter().map(|(name, metrics)| (name.clone(), metrics.leases.read())).collect()
    }

    pub(crate) fn read_routed(&self) -> Vec<((EndpointName, BackendName), u64)> {
        lock(&self.routed).iter().map(|(key, count)| (key.clone(), count.total())).collect()
    }

    pub(crate) fn read_shadows(&self) -> Vec<((EndpointName, BackendName), ShadowCopies)> {
        lock(&self.shadows).iter().map(|(key, counts)| (key.clone(), counts.read())).collect()
    }

    /// Against the shadow, and against itself.
    pub(crate) fn read_comparisons(&self) -> Vec<((EndpointName, BackendName), (Comparisons, Comparisons))> {
        lock(&self.comparisons).iter().map(|(key, counts)| (key.clone(), counts.read())).collect()
    }

    pub(crate) fn read_http(&self) -> Vec<(HttpKey, u64)> {
        lock(&self.http).iter().map(|(key, count)| (key.clone(), count.total())).collect()
    }
}
