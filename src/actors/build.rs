//! Building one replica: its lane, the batchers beside it, its ports, and what starts it on its thread.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    rc::Rc,
    sync::{Arc, OnceLock},
};

use actix::{Actor, Handler};

use crate::{
    actors::{
        batcher::{BatchSettings, Batcher, Bench, CopyBatch, Whole},
        configure::Configured,
        context::{Desk, ReplicaContext},
        control::{BatcherControl, Beside, Control},
        gpus::Leases,
        health::Checked,
        identity::Identity,
        lane::{Lane, Patience, ReplicaControl},
        lane_port::LanePort,
        replica::{Event, Parts, ReplicaTask},
        timer::TimerKind,
    },
    backend::{
        Backend, Batch, MakeBatcher, PortSpec,
        fingerprint::{Fingerprint, Fingerprinted},
    },
    call::{Gate, Request},
    config::{BackendConfig, Placement},
    error::ServeError,
    ids::BackendName,
    metrics::{cells::ReplicaCells, registry::Outside},
    oip::ModelMetadata,
    port::Home,
    routing::{backend_port::ReplicaPorts, backend_routes::BackendRoutes},
};

/// Everything that one replica is made from.
pub(crate) struct Order {
    pub(crate) identity: Arc<Identity>,
    pub(crate) config: BackendConfig,
    pub(crate) leases: Leases,
    /// Calls let in: those it runs at once and its share of the backend's queue.
    pub(crate) admitted: usize,
    pub(crate) home: Arc<BackendRoutes>,
    pub(crate) cells: Arc<ReplicaCells>,
    pub(crate) batcher_cells: Arc<ReplicaCells>,
    pub(crate) recorder: Option<Arc<dyn metrics::Recorder + Send + Sync>>,
    pub(crate) timer: TimerKind,
    pub(crate) on_event: Arc<dyn Fn(Event) + Send + Sync>,
}

/// Run on the thread that will own the replica. One that is dropped instead reports that its replica stopped.
pub(crate) type Start = Box<dyn FnOnce() + Send>;

/// A replica that is built and not yet started.
pub(crate) struct Built {
    pub(crate) control: Arc<dyn ReplicaControl>,
    pub(crate) ports: Arc<ReplicaPorts>,
    pub(crate) start: Start,
}

/// A start that has not run; dropped as such, because its thread has ended, it reports that the replica stopped.
struct Unstarted(Option<Arc<dyn Fn(Event) + Send + Sync>>);

impl Unstarted {
    fn ran(mut self) {
        self.0 = None;
    }
}

impl Drop for Unstarted {
    fn drop(&mut self) {
        if let Some(on_event) = self.0.take() {
            on_event(Event::Stopped);
        }
    }
}

/// A backend whose actor type is erased: what the Controller keeps.
pub(crate) trait Code: Send + Sync {
    /// The ports over all its replicas.
    fn routes(&self, name: BackendName, outside: &Outside) -> BackendRoutes;
    /// Whether it can do what the options ask.
    fn check(&self, config: &BackendConfig) -> Result<(), ServeError>;
    /// Whether its fingerprint is still to be taken, which may take long.
    fn is_unread(&self) -> bool;
    /// Takes its fingerprint: reads a file. Whatever that needs is waited for here.
    fn read(&self) -> Result<(), ServeError>;
    /// What tells it apart where no version is given, once it was taken; a closure has none.
    fn fingerprint(&self) -> Option<Fingerprint>;
    /// Set for inference models: what is known of the model once it is loaded.
    fn model(&self) -> Option<Arc<OnceLock<ModelMetadata>>>;
    /// Where replicas with these options run.
    fn placement(&self, config: &BackendConfig) -> Placement;
    /// Builds one replica.
    fn build(&self, order: Order) -> Built;
}

impl<A: Actor<Context = ReplicaContext<A>>> Code for Backend<A> {
    fn routes(&self, name: BackendName, outside: &Outside) -> BackendRoutes {
        let mut seen = Vec::new();
        let mut ports = Vec::new();
        for spec in &self.specs {
            if !seen.contains(&spec.outer) {
                seen.push(spec.outer);
                ports.push((spec.shared)(name.clone(), outside.clone()));
            }
        }
        BackendRoutes::new(name, self.wanted_headers, self.model.clone(), ports, self.copiers.clone())
    }

    fn check(&self, config: &BackendConfig) -> Result<(), ServeError> {
        config.check()?;
        self.check_gpus(config)?;
        if config.max_batch_size.is_some() && self.batchers.is_empty() {
            return Err(ServeError::invalid(
                "max_batch_size",
                "this backend takes no batches; give it a `Handler<Batch<M>>` and call `.batched::<M>()`",
            ));
        }
        match (&config.user_config, &self.takes) {
            (Some(user_config), Some(takes)) => takes.check(user_config)?,
            (None, _) => {}
            (Some(_), None) => {
                return Err(ServeError::invalid(
                    "user_config",
                    "this backend takes none; give it a `Handler<Reconfigure<C>>` and call `.reconfigure::<C>()`",
                ));
            }
        }
        if config.idempotent && self.batchers.keys().any(|message| !self.copies.contains_key(message)) {
            return Err(ServeError::invalid(
                "idempotent",
                "running a batch again needs copies of its messages; call `.retries_batches::<M>()`",
            ));
        }
        Ok(())
    }

    fn is_unread(&self) -> bool {
        self.fingerprint.as_ref().is_some_and(|fingerprint| fingerprint.get().is_none())
    }

    fn read(&self) -> Result<(), ServeError> {
        self.fingerprint.as_ref().map_or(Ok(()), Fingerprinted::take)
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint.as_ref().and_then(Fingerprinted::get)
    }

    fn model(&self) -> Option<Arc<OnceLock<ModelMetadata>>> {
        self.model.clone()
    }

    fn placement(&self, config: &BackendConfig) -> Placement {
        // Weights are read and kernels compiled before the first call, which takes its time.
        let own = if config.resources.num_gpus.is_some() { Placement::Dedicated } else { self.placement };
        config.placement.unwrap_or(own)
    }

    fn build(&self, order: Order) -> Built {
        let gate = Arc::new(Gate::new(order.admitted));
        // A replica's cells are made for it alone.
        let _ = order.cells.gate.set(Arc::clone(&gate));
        let home = Arc::clone(&order.home) as Arc<dyn Home>;
        let concurrency = order.config.max_concurrent_queries.get();
        let lane = Arc::new(Lane::<A>::new(Arc::clone(&gate), concurrency, Some(home)));
        let mut build = Build {
            lane: Arc::clone(&lane),
            backend: self,
            order,
            settings: Arc::default(),
            batchers: HashMap::new(),
            controls: Vec::new(),
            starts: Vec::new(),
        };
        let ports = self.ports(&mut build);
        let Build { order, settings, controls, starts, .. } = build;
        let control = Arc::new(Control { lane: Arc::clone(&lane), settings, batchers: controls });
        control.set_limits(&order.config, order.admitted);
        let factory = Arc::clone(&self.factory);
        let user = Configured {
            takes: self.takes.clone(),
            config: order.config.user_config.clone(),
            timeout: order.config.startup_timeout,
        };
        let health = Checked { check: self.health_check, timeout: order.config.health_check_timeout };
        let start = {
            let control = Arc::clone(&control);
            let unstarted = Unstarted(Some(Arc::clone(&order.on_event)));
            Box::new(move || {
                unstarted.ran();
                starts.into_iter().for_each(|start| start());
                let restart = order.config.restart;
                let on_event = order.on_event;
                let parts = Parts {
                    factory,
                    lane,
                    identity: order.identity,
                    desk: Rc::new(Desk::new(order.cells, order.recorder)),
                    user,
                    leases: order.leases,
                    health,
                    patience: Patience {
                        failures_max: restart.max_restarts,
                        window: restart.window,
                        backoff: restart.backoff,
                    },
                    on_event: Box::new(move |event| {
                        if matches!(event, Event::GaveUp(_) | Event::Stopped) {
                            control.batchers.iter().for_each(|batcher| batcher.stop());
                        }
                        on_event(event);
                    }),
                };
                drop(tokio::task::spawn_local(ReplicaTask::new(parts).0));
            })
        };
        Built { control, ports: Arc::new(ports), start }
    }
}

impl<A: Actor<Context = ReplicaContext<A>>> Backend<A> {
    /// One port for each message type; several forms of one are joined.
    fn ports(&self, build: &mut Build<'_, A>) -> ReplicaPorts {
        let mut grouped: Vec<(TypeId, &PortSpec<A>, Vec<(Box<str>, Box<dyn Any + Send + Sync>)>)> =
            Vec::new();
        for spec in &self.specs {
            let port = (spec.label.clone(), (spec.make)(build));
            match grouped.iter_mut().find(|(outer, ..)| *outer == spec.outer) {
                Some((_, _, ports)) => ports.push(port),
                None => grouped.push((spec.outer, spec, vec![port])),
            }
        }
        grouped.into_iter().map(|(outer, spec, ports)| (outer, (spec.join)(ports))).collect()
    }
}

/// A replica while it is built.
pub(crate) struct Build<'a, A: Actor<Context = ReplicaContext<A>>> {
    pub(crate) lane: Arc<Lane<A>>,
    backend: &'a Backend<A>,
    order: Order,
    settings: Arc<BatchSettings>,
    batchers: HashMap<TypeId, Box<dyn Any>>,
    controls: Vec<Arc<dyn Beside>>,
    starts: Vec<Start>,
}

impl<A: Actor<Context = ReplicaContext<A>>> Build<'_, A> {
    pub(crate) fn backend(&self) -> &BackendName {
        &self.order.identity.replica.backend
    }

    pub(crate) fn settings(&self) -> Arc<BatchSettings> {
        Arc::clone(&self.settings)
    }

    pub(crate) fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.lane.gate)
    }

    /// The lane of the Batcher for `M`, when the backend batches `M` and the options ask for it.
    pub(crate) fn batcher_for<M: Request>(&mut self) -> Option<Arc<Lane<Batcher<M>>>> {
        self.order.config.max_batch_size?;
        let make = self.backend.batchers.get(&TypeId::of::<M>())?.downcast_ref::<MakeBatcher<A, M>>()?.0;
        Some(make(self))
    }

    /// The lane of the Batcher for `M`, made when it is first asked for.
    pub(crate) fn batcher<M: Request>(&mut self) -> Arc<Lane<Batcher<M>>>
    where
        A: Handler<Batch<M>>,
    {
        let known =
            self.batchers.get(&TypeId::of::<M>()).and_then(|lane| lane.downcast_ref::<Arc<Lane<_>>>());
        if let Some(lane) = known {
            return Arc::clone(lane);
        }
        let lane = Arc::new(Lane::<Batcher<M>>::new(
            Arc::new(Gate::new(usize::MAX)),
            usize::MAX,
            Some(Arc::clone(&self.order.home) as Arc<dyn Home>),
        ));
        let copy =
            self.backend.copies.get(&TypeId::of::<M>()).and_then(|copy| copy.downcast_ref::<CopyBatch<M>>());
        let bench = Arc::new(Bench {
            target: Arc::new(
                LanePort::<A, Whole<M>>::new(self.backend().clone(), Arc::clone(&self.lane)).ungated(),
            ),
            home: Arc::clone(&self.order.home) as Arc<dyn Home>,
            settings: Arc::clone(&self.settings),
            cells: Arc::clone(&self.order.cells),
            timer: self.order.timer,
            copy: copy.copied().filter(|_| self.order.config.idempotent),
            queue: Default::default(),
            running: Default::default(),
        });
        let control = BatcherControl { lane: Arc::clone(&lane), bench: Arc::downgrade(&bench) };
        self.controls.push(Arc::new(control));
        let parts_lane = Arc::clone(&lane);
        let (identity, cells) = (Arc::clone(&self.order.identity), Arc::clone(&self.order.batcher_cells));
        self.starts.push(Box::new(move || {
            let parts = Parts {
                factory: Arc::new(move |_: &mut ReplicaContext<_>| Ok(Batcher::new(Arc::clone(&bench)))),
                lane: parts_lane,
                identity,
                desk: Rc::new(Desk::new(cells, None)),
                user: Configured::default(),
                leases: Leases::default(),
                health: Checked::default(),
                patience: Patience::ENDLESS,
                on_event: Box::new(drop),
            };
            drop(tokio::task::spawn_local(ReplicaTask::new(parts).0));
        }));
        self.batchers.insert(TypeId::of::<M>(), Box::new(Arc::clone(&lane)));
        lane
    }
}
