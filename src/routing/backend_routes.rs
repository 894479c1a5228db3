//! Every message type that one backend takes, and the ports over its replicas.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::{
    call::Request,
    error::ServeError,
    http_call::WantedHeaders,
    ids::BackendName,
    oip::ModelMetadata,
    port::Home,
    port::Port,
    routing::{
        backend_port::{AnyBackendPort, PublishedReplica},
        shadows::Copying,
    },
};

/// How each message is copied that can be.
#[derive(Clone, Default)]
pub(crate) struct Copiers(Arc<HashMap<TypeId, Copier>>);

/// The name and type of each message in `messages` that is not in `other`.
fn without(messages: &BackendRoutes, other: &BackendRoutes) -> Option<String> {
    let names = messages.messages().filter(|(message, _)| !other.takes_type(*message)).map(|(_, name)| name);
    let names: Vec<_> = names.collect();
    (!names.is_empty()).then(|| names.join(", "))
}

#[derive(Clone)]
struct Copier {
    /// The [`Copying`] of the message type.
    copying: Arc<dyn Any + Send + Sync>,
    compares: bool,
}

impl Copiers {
    /// From now on `M` is copied like this; what could be compared before still can.
    pub(crate) fn add<M: Request>(&mut self, copying: Copying<M>) {
        let compares = copying.answer.is_some();
        let all = Arc::make_mut(&mut self.0);
        if compares || !all.contains_key(&TypeId::of::<M>()) {
            all.insert(TypeId::of::<M>(), Copier { copying: Arc::new(copying), compares });
        }
    }

    /// What can be copied or compared by either. That is a matter of the messages, not of who handles them.
    fn joined(&self, other: &Self) -> Self {
        let mut all = HashMap::clone(&self.0);
        for (message, copier) in &*other.0 {
            if copier.compares || !all.contains_key(message) {
                all.insert(*message, copier.clone());
            }
        }
        Self(Arc::new(all))
    }
}

/// Every message type that one backend takes, and the ports over its replicas.
pub(crate) struct BackendRoutes {
    pub(crate) name: BackendName,
    /// Headers that it asks for in an HTTP request.
    pub(crate) wanted_headers: WantedHeaders,
    model: ArcSwapOption<OnceLock<ModelMetadata>>,
    ports: Vec<Box<dyn AnyBackendPort>>,
    copiers: ArcSwap<Copiers>,
}

impl BackendRoutes {
    pub(crate) fn new(
        name: BackendName,
        wanted_headers: WantedHeaders,
        model: Option<Arc<OnceLock<ModelMetadata>>>,
        ports: Vec<Box<dyn AnyBackendPort>>,
        copiers: Copiers,
    ) -> Self {
        let (model, copiers) = (ArcSwapOption::from(model), ArcSwap::from_pointee(copiers));
        Self { name, wanted_headers, model, ports, copiers }
    }

    /// Set for inference models: what is known of the model once it is loaded.
    pub(crate) fn model(&self) -> Option<Arc<OnceLock<ModelMetadata>>> {
        self.model.load_full()
    }

    /// From now on the replicas are all of this model, or of none.
    pub(crate) fn set_model(&self, model: Option<Arc<OnceLock<ModelMetadata>>>) {
        self.model.store(model);
    }

    /// Whether replicas of the code that `new` is of can take the place of those here: they take the same messages.
    ///
    /// # Errors
    /// What is missing or added, and what to do instead.
    pub(crate) fn suits(&self, new: &Self) -> Result<(), ServeError> {
        const CURE: &str = "deploy it as another backend and move the traffic there";
        let more = without(new, self).map(|names| format!("takes {names}, which the old code does not"));
        let less = without(self, new).map(|names| format!("does not take {names}, which the old code does"));
        let headers = (new.wanted_headers > self.wanted_headers)
            .then(|| "asks for more headers of HTTP requests than the old code".to_owned());
        let told: Vec<_> = [more, less, headers].into_iter().flatten().collect();
        if told.is_empty() {
            return Ok(());
        }
        let name = self.name.as_str();
        Err(ServeError::invalid(name, format!("the new code {}; {CURE}", told.join(", and "))))
    }

    /// What can be copied of the messages of `new`, which suits, can be here too.
    pub(crate) fn adopt(&self, new: &Self) {
        self.copiers.store(Arc::new(self.copiers.load().joined(&new.copiers.load())));
    }

    /// The port over all replicas for messages `M`.
    pub(crate) fn port_of<M: Request>(&self) -> Result<&Arc<dyn Port<M>>, ServeError> {
        let port = self.port(TypeId::of::<M>()).and_then(|port| port.downcast_ref());
        port.ok_or_else(|| ServeError::NotTaken {
            backend: self.name.clone(),
            message: std::any::type_name::<M>().into(),
            takes: self.takes(),
        })
    }

    /// The messages it takes: type and name.
    pub(crate) fn messages(&self) -> impl Iterator<Item = (TypeId, &'static str)> {
        self.ports.iter().map(|port| port.message())
    }

    pub(crate) fn takes_type(&self, message: TypeId) -> bool {
        self.messages().any(|(taken, _)| taken == message)
    }

    pub(crate) fn copies_type(&self, message: TypeId) -> bool {
        self.copiers.load().0.contains_key(&message)
    }

    pub(crate) fn compares_type(&self, message: TypeId) -> bool {
        self.copiers.load().0.get(&message).is_some_and(|copier| copier.compares)
    }

    /// How `M` is copied, if it can be.
    pub(crate) fn copying<M: Request>(&self) -> Option<Copying<M>> {
        self.copiers.load().0.get(&TypeId::of::<M>())?.copying.downcast_ref().copied()
    }

    /// Types of the messages it takes, for people.
    pub(crate) fn takes(&self) -> Box<str> {
        let names: Vec<_> = self.messages().map(|(_, name)| name).collect();
        if names.is_empty() { "nothing".into() } else { names.join(", ").into() }
    }

    /// Makes these the replicas that take calls.
    pub(crate) fn publish(&self, replicas: &[PublishedReplica]) {
        self.ports.iter().for_each(|port| port.publish(replicas));
    }

    /// Everything goes: ports hold their siblings, and without this would hold each other for ever.
    pub(crate) fn close(&self) {
        self.ports.iter().for_each(|port| port.close());
    }

    pub(crate) fn set_timeout(&self, timeout: Option<Duration>) {
        self.ports.iter().for_each(|port| port.set_timeout(timeout));
    }

    /// While there is no replica, calls wait for one: of each message at most so many.
    pub(crate) fn hold(&self, seats: usize) {
        self.ports.iter().for_each(|port| port.hold(seats));
    }

    /// Calls wait no longer: those that did go to the replicas that there are, or are told that there are none.
    pub(crate) fn let_go(&self) {
        self.ports.iter().for_each(|port| port.let_go());
    }

    /// Ends calls that wait and whose deadline nobody else keeps.
    pub(crate) fn end_overdue(&self) {
        self.ports.iter().for_each(|port| port.end_overdue());
    }

    /// Calls that wait for a replica.
    pub(crate) fn waiting(&self) -> usize {
        self.ports.iter().map(|port| port.waiting()).sum()
    }
}

impl Home for BackendRoutes {
    fn port(&self, message: TypeId) -> Option<&(dyn Any + Send + Sync)> {
        self.ports.iter().find(|port| port.message().0 == message).map(|port| port.erased())
    }

    fn gone(&self) -> ServeError {
        ServeError::never_began(&self.name)
    }
}
