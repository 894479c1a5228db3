//! The GPUs of a Serve, opened when they are first asked for, and the leases on them that a replica has.

mod places;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, join_all, select_all},
};
use tokio::sync::OnceCell;

use crate::{
    actors::controller::Office,
    config::{BackendConfig, GpuShare},
    error::{GpuFailure, ServeError},
    gpu::{DetectGpus, GpuDevice, GpuError, GpuLease, GpuManager, LeaseRequest, SharePolicy},
    metrics::{Aside, Metrics, registry::BackendMetrics},
    resources::{Capacity, Fraction, Resources},
};

use places::Places;
pub(crate) use places::Tenure;

/// How long a capped lease may save up its share while it is not used.
const CAP_BURST: Duration = Duration::from_millis(100);

/// Whose GPUs they are.
#[derive(Clone, Debug)]
pub(crate) enum GpuSource {
    /// Those of this machine; closed with the Serve.
    Detected(DetectGpus),
    /// Open already; whoever gave them closes them.
    Given(GpuManager),
    /// None: shares are only counted.
    Counted,
}

impl Default for GpuSource {
    fn default() -> Self {
        Self::Detected(DetectGpus::default())
    }
}

/// The GPUs of a Serve.
pub(crate) struct Gpus {
    source: GpuSource,
    /// How many of them count.
    set: Option<u32>,
    open: OnceCell<Vec<GpuDevice>>,
    /// Their opening, which goes on when whoever waits for it gives up: no thread is added to one that hangs.
    opening: Mutex<Option<Opening>>,
}

type Opening = Shared<BoxFuture<'static, Result<GpuManager, GpuError>>>;

impl Gpus {
    /// None is opened.
    pub(crate) fn new(source: GpuSource, capacity: &Capacity) -> Self {
        Self { source, set: capacity.gpus_set(), open: OnceCell::new(), opening: Mutex::default() }
    }

    /// Whether they have to be opened before replicas that ask for this are admitted.
    pub(crate) fn are_missing_for(&self, resources: &Resources) -> bool {
        let counted = matches!(self.source, GpuSource::Counted);
        resources.num_gpus.is_some() && !counted && !self.open.initialized()
    }

    /// Those that are open.
    pub(crate) fn devices(&self) -> &[GpuDevice] {
        self.open.get().map_or(&[], Vec::as_slice)
    }

    /// Those that count, and how many there are; none where nobody has looked.
    async fn opened(&self) -> Result<(Vec<GpuDevice>, Option<u32>), ServeError> {
        let looked = matches!(self.source, GpuSource::Given(_)) || self.set != Some(0);
        let mut devices = match &self.source {
            GpuSource::Given(manager) => manager.devices().to_vec(),
            GpuSource::Detected(detect) if self.set != Some(0) => {
                self.detected(detect).await?.devices().to_vec()
            }
            GpuSource::Detected(_) | GpuSource::Counted => Vec::new(),
        };
        let (there, set) = (devices.len(), self.set.map_or(devices.len(), |set| set as usize));
        if set > there {
            self.close_all(&devices).await;
            // There may be more the next time.
            self.opening().take();
            let there = if there == 1 { "is 1 device".into() } else { format!("are {there} devices") };
            let why = format!("capacity.num_gpus is {set}, and there {there}");
            return Err(ServeError::Gpu { failure: GpuFailure::Unavailable, why: why.into() });
        }
        // Nobody gets those that do not count.
        self.close_all(&devices.split_off(set)).await;
        Ok((devices, looked.then(|| u32::try_from(there).unwrap_or(u32::MAX))))
    }

    async fn detected(&self, detect: &DetectGpus) -> Result<GpuManager, GpuError> {
        let ends = self.opening().get_or_insert_with(|| detect.open().boxed().shared()).clone();
        let detected = ends.await;
        if detected.is_err() {
            // The next one may do better. Those that are open are known from here when they are to be closed.
            self.opening().take();
        }
        detected
    }

    fn opening(&self) -> MutexGuard<'_, Option<Opening>> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes devices that this Serve has opened.
    async fn close_all(&self, devices: &[GpuDevice]) {
        if matches!(self.source, GpuSource::Detected(_)) {
            join_all(devices.iter().map(GpuDevice::close)).await;
        }
    }

    /// The leases of a replica that has a claim to these of them.
    pub(crate) fn leases(
        &self,
        config: &BackendConfig,
        places: &[usize],
        slot: u32,
        metrics: &Arc<BackendMetrics>,
    ) -> Leases {
        let Some(share) = config.resources.num_gpus else { return Leases::default() };
        let device = |place: &usize| self.devices().get(*place).map(|device| (*place, device.clone()));
        let devices: Vec<_> = places.iter().filter_map(device).collect();
        if devices.is_empty() {
            return Leases {
                why_none: Some("num_gpus is only counted in this Serve".into()),
                ..Leases::default()
            };
        }
        let mut request = LeaseRequest::new(share.min(Fraction::ONE));
        if config.resources.gpu_memory_bytes > 0 {
            request = request.memory_bytes(config.resources.gpu_memory_bytes);
        }
        if config.gpu_share == GpuShare::HardCap {
            request = request.policy(SharePolicy::HardCap { burst: CAP_BURST });
        }
        let (metrics, patience) = (Arc::clone(metrics), config.startup_timeout);
        let places = Places::default();
        let seat = Seat { devices, request, slot, metrics, patience, places };
        Leases { seat: Some(seat), ..Leases::default() }
    }

    /// All metrics as Prometheus text.
    pub(crate) fn render(&self, metrics: &Metrics, aside: &Aside) -> String {
        metrics.render(aside, self.devices())
    }

    /// Closes those that this Serve has opened or opens just now, and waits until their drivers are done with them: some
    /// crash when a process ends before.
    pub(crate) async fn close(&self) {
        let opening = self.opening().clone();
        if let Some(Ok(detected)) = futures_util::future::OptionFuture::from(opening).await {
            self.close_all(detected.devices()).await;
        }
    }
}

/// What a replica has a claim to.
struct Seat {
    /// With their places among the devices of the Serve.
    devices: Vec<(usize, GpuDevice)>,
    request: LeaseRequest,
    slot: u32,
    metrics: Arc<BackendMetrics>,
    /// Longest time that getting the leases may take.
    patience: Duration,
    places: Places,
}

/// The leases of one replica: had before its state is made, renewed when a device was lost.
#[derive(Default)]
pub(crate) struct Leases {
    /// None: it asks for no GPU, or there is none to lease.
    seat: Option<Seat>,
    why_none: Option<Box<str>>,
    held: Vec<GpuLease>,
    getting: Option<BoxFuture<'static, Result<Vec<GpuLease>, GpuError>>>,
    loss: Option<BoxFuture<'static, ()>>,
}

impl Leases {
    /// What holds their places for the replica.
    pub(crate) fn tenure(&self) -> Tenure {
        self.seat.as_ref().map_or_else(Tenure::default, |seat| Tenure::new(&seat.places))
    }

    /// Those that are held, one for each device.
    pub(crate) fn held(&self) -> &[GpuLease] {
        &self.held
    }

    /// Why there are none.
    pub(crate) fn none(&self) -> GpuError {
        let unasked = || "this backend asks for none; set `resources.num_gpus`".into();
        GpuError::NoLease { why: self.why_none.clone().unwrap_or_else(unasked) }
    }

    /// Whether all are there and good.
    pub(crate) fn are_ready(&self) -> bool {
        let wanted = self.seat.as_ref().map_or(0, |seat| seat.devices.len());
        self.held.len() == wanted && !self.held.iter().any(GpuLease::is_lost)
    }

    /// Gets them, or gets them again after a loss.
    pub(crate) fn poll_get(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), GpuError>> {
        let Some(seat) = &self.seat else { return Poll::Ready(Ok(())) };
        let held = &mut self.held;
        let getting = self.getting.get_or_insert_with(|| seat.get(std::mem::take(held)).boxed());
        let Poll::Ready(got) = getting.poll_unpin(cx) else { return Poll::Pending };
        self.getting = None;
        self.loss = None;
        self.held = match got {
            Ok(held) => held,
            Err(why) => return Poll::Ready(Err(why)),
        };
        for ((place, _), lease) in seat.devices.iter().zip(&self.held) {
            seat.metrics.leases.enter(seat.slot, *place, lease.gauge());
        }
        let losses: Vec<_> = self.held.iter().map(|lease| lease.lost().boxed()).collect();
        self.loss = (!losses.is_empty()).then(|| select_all(losses).map(drop).boxed());
        Poll::Ready(Ok(()))
    }

    /// Whether a device was lost since its lease was had; told once, and the task is woken for it.
    pub(crate) fn poll_lost(&mut self, cx: &mut Context<'_>) -> bool {
        let lost = self.loss.as_mut().is_some_and(|loss| loss.poll_unpin(cx).is_ready());
        if lost {
            self.loss = None;
        }
        lost
    }

    /// Gives them back.
    pub(crate) fn give_back(&mut self) {
        (self.getting, self.loss) = (None, None);
        self.held.clear();
    }
}

impl Seat {
    fn get(
        &self,
        held: Vec<GpuLease>,
    ) -> impl Future<Output = Result<Vec<GpuLease>, GpuError>> + Send + use<> {
        let devices: Vec<_> = self.devices.iter().map(|(_, device)| device.clone()).collect();
        let (request, patience, places) = (self.request, self.patience, self.places.clone());
        async move {
            let get = async {
                let mut leases = Vec::new();
                if held.is_empty() {
                    for device in devices {
                        leases.push(places.acquire(&device, request).await?);
                    }
                } else {
                    for lease in &held {
                        leases.push(lease.renew().await?);
                    }
                }
                Ok(leases)
            };
            let late = || GpuError::NoDevice { why: format!("no answer within {patience:?}").into() };
            tokio::time::timeout(patience, get).await.unwrap_or_else(|_| Err(late()))
        }
    }
}

impl Office {
    /// Opens the GPUs, if they are not open yet; from then on replicas can be given shares of them.
    ///
    /// # Errors
    /// Why there is none, or fewer than the capacity counts; it is looked again the next time.
    pub(crate) async fn open_gpus(&self) -> Result<(), ServeError> {
        let open = async || {
            let (devices, there) = self.gpus.opened().await?;
            // Before anybody sees that they are open.
            self.fleet().pool.found_gpus(devices.iter().map(|device| device.all().memory_bytes), there);
            Ok(devices)
        };
        self.gpus.open.get_or_try_init(open).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{DeviceOptions, DeviceSource};

    #[actix_web::test]
    async fn a_driver_that_hangs_is_asked_once_whoever_gives_up() {
        tokio::time::pause();
        let gpus = Gpus::new(GpuSource::default(), &Capacity::default());
        let asked = std::future::pending().boxed().shared();
        *gpus.opening.lock().unwrap() = Some(asked.clone());
        for _ in 0..2 {
            assert!(tokio::time::timeout(Duration::from_secs(2), gpus.opened()).await.is_err());
            assert!(gpus.opening.lock().unwrap().as_ref().is_some_and(|opening| opening.ptr_eq(&asked)));
        }
    }

    fn noop() -> GpuDevice {
        let options = DeviceOptions { source: DeviceSource::Noop, ..Default::default() };
        GpuDevice::open(options).wait().unwrap()
    }

    #[actix_web::test]
    async fn devices_that_are_still_opening_are_closed_when_they_are_open() {
        let gpus = Gpus::new(GpuSource::default(), &Capacity::default());
        let (tx, opens) = tokio::sync::oneshot::channel();
        let opens = opens.map(|opened| opened.unwrap()).boxed().shared();
        *gpus.opening.lock().unwrap() = Some(opens);
        // Whoever wanted them has left.
        assert!(gpus.opened().now_or_never().is_none());
        let close = gpus.close();
        let mut close = std::pin::pin!(close);
        assert!(close.as_mut().now_or_never().is_none(), "they are waited for");
        let devices = [noop(), noop()];
        tx.send(Ok(GpuManager::new(devices.to_vec()))).unwrap();
        close.await;
        for device in devices {
            assert_eq!(device.status().await.unwrap_err(), GpuError::Closed);
        }
    }

    #[actix_web::test]
    async fn devices_beyond_those_that_count_are_closed_at_once_and_the_others_in_the_end() {
        let gpus = Gpus::new(GpuSource::default(), &Capacity::default().num_gpus(1));
        let devices = [noop(), noop()];
        let opened = std::future::ready(Ok(GpuManager::new(devices.to_vec())));
        *gpus.opening.lock().unwrap() = Some(opened.boxed().shared());
        let (counting, there) = gpus.opened().await.unwrap();
        assert_eq!((counting.len(), there), (1, Some(2)));
        devices[0].status().await.unwrap();
        assert_eq!(devices[1].status().await.unwrap_err(), GpuError::Closed);
        gpus.close().await;
        assert_eq!(devices[0].status().await.unwrap_err(), GpuError::Closed);
    }

    #[actix_web::test]
    async fn too_few_devices_are_closed_and_looked_for_again() {
        let gpus = Gpus::new(GpuSource::default(), &Capacity::default().num_gpus(2));
        let device = noop();
        let opened = std::future::ready(Ok(GpuManager::new(vec![device.clone()])));
        *gpus.opening.lock().unwrap() = Some(opened.boxed().shared());
        let why = gpus.opened().await.unwrap_err().to_string();
        assert!(why.ends_with("capacity.num_gpus is 2, and there is 1 device"), "{why}");
        assert_eq!(device.status().await.unwrap_err(), GpuError::Closed);
        assert!(gpus.opening.lock().unwrap().is_none());
    }
}
