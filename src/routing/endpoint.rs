//! One endpoint: its name, which never moves, and what it means now, swapped whole.

use std::sync::Arc;

use arc_swap::{ArcSwapOption, Guard};
use rand::RngExt;

use crate::{
    call::{Answer, Call, Refusal, Request},
    error::ServeError,
    http_call::WantedHeaders,
    ids::EndpointName,
    meta::{Explanation, Meta, RoutingRule, with_rng},
    metrics::spread::Spread,
    routing::{backend_routes::BackendRoutes, copies::Copies, shadows::Shadow},
    traffic::{Affinity, TrafficPolicy},
};

/// How often a call follows changes of its endpoint that overtake it.
const FOLLOWS_MAX: usize = 3;

/// A name that handles hold on to, and what it means now.
pub(crate) struct EndpointSlot {
    pub(crate) name: EndpointName,
    state: ArcSwapOption<EndpointState>,
}

/// What an endpoint means at one moment.
pub(crate) type Meaning = Guard<Option<Arc<EndpointState>>>;

/// What an endpoint means: a policy over backends, and who gets copies. Immutable; a change swaps the whole.
pub(crate) struct EndpointState {
    pub(crate) policy: TrafficPolicy,
    pub(crate) affinity: Affinity,
    /// In the order of the policy.
    pub(crate) backends: Vec<Routed>,
    pub(crate) shadows: Vec<Shadow>,
}

/// One backend of a policy, and how many calls were routed to it.
pub(crate) struct Routed {
    pub(crate) routes: Arc<BackendRoutes>,
    pub(crate) requests: Arc<Spread>,
}

impl EndpointState {
    /// The backend that the policy picks.
    fn pick(&self, name: &EndpointName, meta: &mut Meta) -> &Routed {
        let i = match (self.backends.len(), &meta.shard_key) {
            (1, _) => 0,
            (_, Some(key)) => self.policy.pick_keyed(key.hash()),
            (_, None) => self.policy.pick(with_rng(|rng| rng.random::<f64>())),
        };
        let backend = &self.backends[i];
        meta.keeps_replica = self.affinity == Affinity::Replica;
        if meta.explain.is_some() {
            self.explain(name, meta, backend);
        }
        backend
    }

    #[cold]
    fn explain(&self, name: &EndpointName, meta: &Meta, chosen: &Routed) {
        let backend = &chosen.routes.name;
        let weight = self.policy.weight(backend).unwrap_or(0.0);
        let rule = match (self.backends.len(), &meta.shard_key) {
            (1, _) => RoutingRule::Only,
            (_, Some(_)) => RoutingRule::ShardKey(weight),
            (_, None) => RoutingRule::Weight(weight),
        };
        if let Some(explain) = &meta.explain {
            // All of it: the call may have been elsewhere before.
            explain.note(|e| {
                *e = Explanation {
                    endpoint: Some(name.clone()),
                    rule: Some(rule),
                    backend: Some(backend.clone()),
                    ..Explanation::default()
                };
            });
        }
    }

    fn call<M: Request>(&self, name: &EndpointName, msg: M, mut meta: Meta) -> Answer<M> {
        let backend = self.pick(name, &mut meta);
        let port = match backend.routes.port_of::<M>() {
            Ok(port) => port,
            Err(why) => return Answer::Refused(Refusal { msg, meta, reply: None, why }),
        };
        if self.shadows.is_empty() {
            let answer = port.call(msg, meta);
            if !matches!(answer, Answer::Refused(_)) {
                backend.requests.add();
            }
            return answer;
        }
        let mut copies = Copies::of(&self.shadows, &backend.routes, &msg, &meta);
        let mut answer = port.call(msg, meta);
        if matches!(answer, Answer::Refused(_)) {
            copies.cancel();
        } else {
            backend.requests.add();
            copies.watch_answer(&mut answer);
            copies.send(port);
        }
        answer
    }

    fn deliver<M: Request>(&self, name: &EndpointName, mut call: Call<M>) -> Result<(), Refusal<M>> {
        let backend = self.pick(name, &mut call.meta);
        let port = match backend.routes.port_of::<M>() {
            Ok(port) => port,
            Err(why) => {
                let Call { msg, meta, reply } = call;
                return Err(Refusal { msg, meta, reply: Some(reply), why });
            }
        };
        let mut copies = Copies::of(&self.shadows, &backend.routes, &call.msg, &call.meta);
        if let Some(watch) = copies.watch() {
            call.reply = call.reply.map(|result| {
                watch.see(&result);
                result
            });
        }
        if let Err(refusal) = port.deliver(call, false) {
            copies.cancel();
            return Err(refusal);
        }
        backend.requests.add();
        copies.send(port);
        Ok(())
    }

    /// HTTP headers that the backends behind it ask for.
    pub(crate) fn wanted_headers(&self) -> WantedHeaders {
        let shadows = self.shadows.iter().map(|shadow| &shadow.routes);
        let routes = self.backends.iter().map(|backend| &backend.routes).chain(shadows);
        routes.map(|routes| routes.wanted_headers).max().unwrap_or_default()
    }

    /// Whether every backend of the policy takes `M`, as far as its code is there.
    pub(crate) fn check<M: Request>(&self) -> Result<(), ServeError> {
        let mut known =
            self.backends.iter().map(|backend| &backend.routes).filter(|routes| !routes.is_awaited());
        known.try_for_each(|routes| routes.port_of::<M>().map(drop))
    }
}

impl EndpointSlot {
    pub(crate) fn new(name: EndpointName) -> Self {
        Self { name, state: ArcSwapOption::empty() }
    }

    /// From now on the endpoint means this; nothing: it is gone. What it meant before is given back.
    pub(crate) fn publish(&self, state: Option<EndpointState>) -> Option<Arc<EndpointState>> {
        self.state.swap(state.map(Arc::new))
    }

    /// What it means now.
    #[inline]
    pub(crate) fn meaning(&self) -> Meaning {
        self.state.load()
    }

    /// Whether it means anything now.
    pub(crate) fn exists(&self) -> bool {
        self.state.load().is_some()
    }

    /// Whether every backend behind it takes `M`.
    pub(crate) fn check<M: Request>(&self) -> Result<(), ServeError> {
        match &*self.state.load() {
            Some(state) => state.check::<M>(),
            None => Err(self.unknown()),
        }
    }

    fn unknown(&self) -> ServeError {
        ServeError::UnknownEndpoint(self.name.clone())
    }

    /// Routes a call; a refusal is the answer.
    pub(crate) fn call<M: Request>(&self, msg: M, meta: Meta) -> Answer<M> {
        self.call_as(self.meaning(), msg, meta)
    }

    /// Routes a call that was made for what the endpoint meant a moment ago.
    pub(crate) fn call_as<M: Request>(&self, meaning: Meaning, msg: M, meta: Meta) -> Answer<M> {
        let answer = match &*meaning {
            Some(state) => state.call(&self.name, msg, meta),
            None => Answer::Refused(Refusal { msg, meta, reply: None, why: self.unknown() }),
        };
        match answer {
            Answer::Refused(refusal) if matches!(refusal.why, ServeError::NoReplica { .. }) => {
                self.follow(meaning, refusal)
            }
            answer => answer,
        }
    }

    /// A backend may have been taken out of the policy and drained while a call was on its way there; then the
    /// call goes where the endpoint means now.
    #[cold]
    fn follow<M: Request>(&self, mut old: Meaning, mut refusal: Refusal<M>) -> Answer<M> {
        for _ in 0..FOLLOWS_MAX {
            let Some(new) = self.changed(&old) else { break };
            let Some(state) = &*new else { break };
            let Refusal { msg, meta, .. } = refusal;
            match state.call(&self.name, msg, meta) {
                Answer::Refused(again) => refusal = again,
                answer => return answer,
            }
            old = new;
        }
        Answer::Refused(refusal)
    }

    /// What the endpoint means now, if that is something else than a moment ago and a call that was made for
    /// then fits it.
    fn changed(&self, old: &Meaning) -> Option<Meaning> {
        let new = self.meaning();
        let (then, now) = (old.as_ref()?, new.as_ref()?);
        (!Arc::ptr_eq(then, now) && now.wanted_headers() <= then.wanted_headers()).then_some(new)
    }

    /// Routes a call that brings its reply; a refusal goes there.
    pub(crate) fn deliver<M: Request>(&self, call: Call<M>) {
        let mut meaning = self.meaning();
        let mut delivered = self.deliver_as(&meaning, call);
        for _ in 0..FOLLOWS_MAX {
            let Err(Refusal { msg, meta, reply: Some(reply), why: ServeError::NoReplica { backend, why } }) =
                delivered
            else {
                break;
            };
            let Some(new) = self.changed(&meaning) else {
                let why = ServeError::NoReplica { backend, why };
                delivered = Err(Refusal { msg, meta, reply: Some(reply), why });
                break;
            };
            delivered = self.deliver_as(&new, Call { msg, meta, reply });
            meaning = new;
        }
        // Answered before the message is dropped, which may panic.
        if let Err(Refusal { reply: Some(reply), why, msg, .. }) = delivered {
            reply.send(Err(why));
            drop(msg);
        }
    }

    fn deliver_as<M: Request>(&self, meaning: &Meaning, call: Call<M>) -> Result<(), Refusal<M>> {
        match &**meaning {
            Some(state) => state.deliver(&self.name, call),
            None => {
                let Call { msg, meta, reply } = call;
                Err(Refusal { msg, meta, reply: Some(reply), why: self.unknown() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::any::{Any, TypeId};

    use super::*;
    use crate::{
        call::Reply,
        ids::{BackendName, ReplicaId},
        port::Port,
        routing::backend_port::{AnyBackendPort, Shared},
    };

    #[derive(actix::Message)]
    #[rtype(result = "Result<u64, ServeError>")]
    struct Ask;

    /// Answers 7 and counts what it was told.
    #[derive(Default)]
    struct Seven(Spread);

    impl Port<Ask> for Seven {
        fn deliver(&self, call: Call<Ask>, _: bool) -> Result<(), Refusal<Ask>> {
            self.0.add();
            call.reply.send(Ok(7));
            Ok(())
        }
        fn load(&self) -> usize {
            0
        }
        fn concurrency(&self) -> usize {
            1
        }
        fn thread(&self) -> u64 {
            0
        }
    }

    /// An endpoint's meaning: everything to one backend, with a replica or without.
    fn meaning(name: &str, port: Option<Arc<dyn Port<Ask>>>) -> EndpointState {
        let name = BackendName::new(name).unwrap();
        let shared = Shared::<Ask>::new(name.clone(), Default::default());
        let id = ReplicaId { backend: name.clone(), slot: 0, generation: 1 };
        let ports = port.map(|port| {
            let port: Box<dyn Any + Send + Sync> = Box::new(port);
            (id, Arc::new(vec![(TypeId::of::<Ask>(), port)]))
        });
        shared.publish(&Vec::from_iter(ports));
        let ports: Vec<Box<dyn AnyBackendPort>> = vec![Box::new(shared)];
        let routes = BackendRoutes::new(name.clone(), WantedHeaders::None, None, ports, Default::default());
        EndpointState {
            policy: TrafficPolicy::single(name),
            affinity: Affinity::Backend,
            backends: vec![Routed { routes: Arc::new(routes), requests: Arc::default() }],
            shadows: Vec::new(),
        }
    }

    #[test]
    fn a_call_that_a_change_overtakes_follows_it() {
        let slot = EndpointSlot::new(EndpointName::new("e").unwrap());
        slot.publish(Some(meaning("drained", None)));
        let old = slot.meaning();
        let port = Arc::new(Seven::default());
        slot.publish(Some(meaning("next", Some(Arc::clone(&port) as Arc<dyn Port<Ask>>))));
        let Answer::Waiting(mut waiting) = slot.call_as(old, Ask, Meta::new()) else { panic!("refused") };
        assert_eq!(waiting.try_now(), Some(Ok(7)));
        let requests = slot.meaning().as_ref().unwrap().backends[0].requests.total();
        assert_eq!((requests, port.0.total()), (1, 1));
    }

    #[test]
    fn without_a_change_a_refusal_is_the_answer() {
        let slot = EndpointSlot::new(EndpointName::new("e").unwrap());
        slot.publish(Some(meaning("drained", None)));
        let Answer::Refused(refusal) = slot.call(Ask, Meta::new()) else { panic!("taken") };
        assert_eq!(refusal.why.code(), "no_replica");
        assert_eq!(slot.meaning().as_ref().unwrap().backends[0].requests.total(), 0);
        let (reply, mut waiting) = Reply::channel();
        slot.deliver(Call { msg: Ask, meta: Meta::new(), reply });
        assert!(matches!(waiting.try_now(), Some(Err(ServeError::NoReplica { .. }))));
    }
}
