//! What a Serve says of itself: its backends, replicas and endpoints, and whether they can be served.

use serde::Serialize;

use super::counts::{BackendCounts, ReplicaCounts, Rows};
#[cfg(feature = "gpu")]
use super::gpu_status::GpuStatus;
use crate::{
    actors::{
        backend_state::BackendState,
        controller::Office,
        fleet::{BackendEntry, EndpointEntry, ReplicaEntry, Seen},
        reconcile::ReplicaState,
    },
    comparison::ComparisonReport,
    config::BackendConfig,
    error::ServeError,
    ids::{BackendName, EndpointName, ReplicaId},
    metrics::{registry::BackendTotals, shadow::ShadowCopies},
    resources::{Capacity, FreeCapacity},
    routing::shadows::Shadow,
    serve::Serve,
    traffic::{Affinity, TrafficPolicy},
};

/// What is said of a restored backend unless there is more to say.
const AWAITS_CODE: &str = "it was restored and awaits its code: the program makes it again under its name";

impl Serve {
    /// What there is and how it is.
    pub fn status(&self) -> Status {
        self.status_with(Rows::Each)
    }

    pub(crate) fn status_with(&self, rows: Rows) -> Status {
        let unsaved = self.0.office.memory().unsaved().map(str::to_owned);
        let totals = self.0.office.metrics.registry.read_totals();
        let nothing = BackendTotals::default();
        let counts =
            |name: &BackendName, waiting| BackendCounts::new(totals.get(name).unwrap_or(&nothing), waiting);
        let fleet = self.0.office.fleet();
        let replicas = |entry: &BackendEntry| match rows {
            Rows::Each => entry.replicas.iter().map(replica).collect(),
            Rows::Counted => Vec::new(),
        };
        let backends = fleet.backends.iter().map(|(name, entry)| BackendStatus {
            name: name.clone(),
            state: entry.state,
            reason: entry.reason(),
            for_s: entry.since.elapsed().as_secs_f64(),
            release: entry.release,
            config: entry.config.clone(),
            replica_counts: ReplicaCounts::of(&entry.replicas),
            replicas: replicas(entry),
            counts: counts(name, entry.routes.waiting()),
            last_error: entry.last_error.as_deref().map(str::to_owned),
        });
        let awaiting = fleet.awaiting.iter().map(|(name, awaiting)| BackendStatus {
            name: name.clone(),
            state: match awaiting.code {
                Some(_) => BackendState::Pending,
                None => BackendState::AwaitingCode,
            },
            reason: Some(awaiting.reason.as_deref().unwrap_or(AWAITS_CODE).to_owned()),
            for_s: awaiting.since.elapsed().as_secs_f64(),
            release: 0,
            config: awaiting.decl.config.clone(),
            replica_counts: ReplicaCounts::default(),
            replicas: Vec::new(),
            counts: counts(name, 0),
            last_error: awaiting.reason.as_deref().map(str::to_owned),
        });
        let shadow = |shadow: &Shadow| ShadowStatus {
            backend: shadow.rule.backend().clone(),
            proportion: shadow.rule.proportion(),
            copies: shadow.counts.read(),
            compare: shadow.comparison.as_ref().map(|comparison| comparison.report()),
        };
        let shadows = |entry: &EndpointEntry| match &*entry.slot.meaning() {
            Some(state) => state.shadows.iter().map(shadow).collect(),
            None => Vec::new(),
        };
        let endpoints = fleet.endpoints.iter().map(|(name, entry)| EndpointStatus {
            name: name.clone(),
            route: entry.declared.route.as_ref().map(|route| route.as_str().to_owned()),
            methods: entry.declared.methods.clone(),
            traffic: entry.declared.traffic.clone(),
            affinity: entry.declared.affinity,
            shadow: shadows(entry),
            requests: entry.seen.iter().map(|seen| seen.requests.total()).sum(),
            last_minute: seen(&entry.seen),
        });
        let capacity = CapacityStatus { total: fleet.pool.total().clone(), free: fleet.pool.free() };
        let mut backends: Vec<_> = backends.chain(awaiting).collect();
        backends.sort_by(|a, b| a.name.cmp(&b.name));
        Status {
            capacity,
            backends,
            endpoints: endpoints.collect(),
            unsaved,
            #[cfg(feature = "gpu")]
            gpus: super::gpu_status::read(&self.0.office),
        }
    }

    /// The replicas of a backend, those that take no calls first, then by slot.
    pub(crate) fn replicas(&self, name: &BackendName, max: usize) -> Result<SomeReplicas, ServeError> {
        let fleet = self.0.office.fleet();
        let Some(entry) = fleet.backends.get(name) else {
            return match fleet.awaiting.contains_key(name) {
                true => Ok(SomeReplicas { total: 0, replicas: Vec::new() }),
                false => Err(ServeError::UnknownBackend(name.clone())),
            };
        };
        let mut all: Vec<_> = entry.replicas.iter().collect();
        all.sort_by_key(|r| (r.state == ReplicaState::Running, r.id.slot, r.id.generation));
        let replicas = all.iter().take(max).map(|entry| replica(entry)).collect();
        Ok(SomeReplicas { total: all.len(), replicas })
    }

    /// Whether every endpoint can be served now; otherwise those that cannot. While the only replica of a backend is
    /// replaced, its calls wait for the next: they are served.
    ///
    /// # Errors
    /// The endpoints behind which some backend has no replica ready, and none that is replaced.
    pub fn ready(&self) -> Result<(), Vec<EndpointName>> {
        ready(&self.0.office)
    }

    /// Everything that shall be served has been made; see
    /// [`ServeOptions::announces_ready`](crate::ServeOptions::announces_ready). With
    /// [`ServeOptions::takeover`](crate::ServeOptions::takeover) this process then takes over.
    pub fn announce_ready(&self) {
        self.0.office.directory.set_preparing(false);
        self.take_over();
    }
}

fn replica(entry: &ReplicaEntry) -> ReplicaStatus {
    ReplicaStatus {
        id: entry.id.clone(),
        release: entry.release,
        version: entry.version.clone(),
        state: entry.state,
        reason: entry.reason.as_deref().map(str::to_owned),
        for_s: entry.since.elapsed().as_secs_f64(),
        load: entry.control.load(),
        failed_checks: entry.record.failures(),
    }
}

/// The shares of the requests that were really routed to each backend in the last minute.
fn seen(backends: &[Seen]) -> Vec<SeenShare> {
    let now = tokio::time::Instant::now();
    let lately = |seen: &Seen| seen.window.growth(now, seen.requests.total()).0;
    let all = backends.iter().map(lately).sum::<u64>();
    let share = |requests: u64| if all == 0 { 0.0 } else { requests as f64 / all as f64 };
    let seen = backends.iter().map(|seen| (seen.backend.clone(), lately(seen)));
    seen.map(|(backend, requests)| SeenShare { backend, requests, share: share(requests) }).collect()
}

/// Whether every endpoint can be served now; otherwise those that cannot. While the only replica of a backend is
/// replaced, its calls wait for the next: they are served.
pub(crate) fn ready(office: &Office) -> Result<(), Vec<EndpointName>> {
    served(office, |entry| entry.holding && entry.state.made() || running(entry))
}

/// Whether every endpoint can be served now with replicas that run; otherwise those that cannot.
pub(crate) fn all_running(office: &Office) -> Result<(), Vec<EndpointName>> {
    served(office, running)
}

fn running(entry: &BackendEntry) -> bool {
    entry.replicas.iter().any(|replica| replica.state == ReplicaState::Running)
}

fn served(office: &Office, by: impl Fn(&BackendEntry) -> bool) -> Result<(), Vec<EndpointName>> {
    let fleet = office.fleet();
    let serves = |name: &BackendName| fleet.backends.get(name).is_some_and(&by);
    let waiting: Vec<_> = fleet
        .endpoints
        .iter()
        .filter(|(_, e)| !e.declared.traffic.iter().all(|(backend, share)| share == 0.0 || serves(backend)))
        .map(|(name, _)| name.clone())
        .collect();
    if waiting.is_empty() { Ok(()) } else { Err(waiting) }
}

/// What there is and how it is.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// What there is of what replicas ask for.
    pub capacity: CapacityStatus,
    /// Every backend.
    pub backends: Vec<BackendStatus>,
    /// Every endpoint.
    pub endpoints: Vec<EndpointStatus>,
    /// Why the state directory does not hold what is wanted now: a change failed, and could not be written down as
    /// undone. The next change writes all of it. None, as it should be: it holds all, or there is no such directory.
    pub unsaved: Option<String>,
    /// Every GPU that is open.
    #[cfg(feature = "gpu")]
    pub gpus: Vec<GpuStatus>,
}

/// What there is of what replicas ask for, and what of it nobody has. What a replica has is in
/// [`BackendConfig::resources`]; it has it until it is gone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CapacityStatus {
    /// All.
    pub total: Capacity,
    /// What no replica has.
    pub free: FreeCapacity,
}

/// One backend as it is.
#[derive(Clone, Debug, Serialize)]
pub struct BackendStatus {
    /// Its name.
    pub name: BackendName,
    /// Where it is in its life.
    pub state: BackendState,
    /// Why, where there is something to tell.
    pub reason: Option<String>,
    /// Since how many seconds.
    pub for_s: f64,
    /// The number of what its replicas are to be made from: its code and the options that only a new replica can
    /// follow. It goes up with each change of these; 0 while its code is not there.
    pub release: u64,
    /// Its options.
    pub config: BackendConfig,
    /// How many replicas it has.
    pub replica_counts: ReplicaCounts,
    /// Its replicas.
    pub replicas: Vec<ReplicaStatus>,
    /// What it has done, and what it has to do.
    pub counts: BackendCounts,
    /// The last failure of one of them, if any.
    pub last_error: Option<String>,
}

/// The first of a backend's replicas.
#[derive(Serialize)]
pub(crate) struct SomeReplicas {
    total: usize,
    replicas: Vec<ReplicaStatus>,
}

/// One replica as it is.
#[derive(Clone, Debug, Serialize)]
pub struct ReplicaStatus {
    /// Which one.
    pub id: ReplicaId,
    /// The release that it was made from.
    pub release: u64,
    /// The version that it had, if any.
    pub version: Option<String>,
    /// Where it is in its life.
    pub state: ReplicaState,
    /// Why, where there is something to tell: the last failed start, what it has to go for.
    pub reason: Option<String>,
    /// Since how many seconds.
    pub for_s: f64,
    /// Calls that run or wait there.
    pub load: usize,
    /// Health checks in a row that have failed.
    pub failed_checks: u32,
}

/// One endpoint as it is.
#[derive(Clone, Debug, Serialize)]
pub struct EndpointStatus {
    /// Its name.
    pub name: EndpointName,
    /// Its HTTP route, if any.
    pub route: Option<String>,
    /// Its HTTP methods.
    pub methods: Vec<&'static str>,
    /// Its traffic policy.
    pub traffic: TrafficPolicy,
    /// What stays the same for requests with the same shard key.
    pub affinity: Affinity,
    /// Which backends get copies of its requests.
    pub shadow: Vec<ShadowStatus>,
    /// Requests that went to the backends of `last_minute`, since it was made.
    pub requests: u64,
    /// Where its requests really went in the last minute.
    pub last_minute: Vec<SeenShare>,
}

/// One shadow rule and what became of its copies.
#[derive(Clone, Debug, Serialize)]
pub struct ShadowStatus {
    /// The backend that gets copies.
    pub backend: BackendName,
    /// The share of requests that are copied.
    pub proportion: f64,
    /// What became of the copies.
    pub copies: ShadowCopies,
    /// What came of comparing their answers, if the rule says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compare: Option<ComparisonReport>,
}

/// How many requests of an endpoint really went to one backend in the last minute.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SeenShare {
    /// The backend.
    pub backend: BackendName,
    /// Requests routed to it.
    pub requests: u64,
    /// Its share of all, 0 to 1.
    pub share: f64,
}
