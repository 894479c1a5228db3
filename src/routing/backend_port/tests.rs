//! Calls that come late to replicas that were replaced meanwhile, and calls that wait for the next one.

use super::*;

#[derive(actix::Message)]
#[rtype(result = "Result<u8, ServeError>")]
struct Ask;

fn name() -> BackendName {
    BackendName::own("backend")
}

fn replica(generation: u64, port: impl Port<Ask> + 'static) -> PublishedReplica {
    let port: Box<dyn Any + Send + Sync> = Box::new(Arc::new(port) as Arc<dyn Port<Ask>>);
    let id = ReplicaId { backend: name(), slot: 0, generation };
    (id, Arc::new(vec![(TypeId::of::<Ask>(), port)]))
}

/// Answers at once.
struct Answers(u8);

impl Port<Ask> for Answers {
    fn deliver(&self, call: Call<Ask>, _: bool) -> Result<(), Refusal<Ask>> {
        call.reply.send(Ok(self.0));
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

/// A replica that is gone when a call reaches it, and others have taken its place.
struct Gone {
    of: Arc<Shared<Ask>>,
    now: Vec<PublishedReplica>,
}

impl Port<Ask> for Gone {
    fn deliver(&self, call: Call<Ask>, _: bool) -> Result<(), Refusal<Ask>> {
        self.of.publish(&self.now);
        Err(Refusal::of(call, ServeError::never_began(&name())))
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

/// What a call is told, if it is told now.
type Told = Option<Result<u8, ServeError>>;

fn call(shared: &Shared<Ask>) -> Told {
    match shared.port.call(Ask, Meta::new()) {
        Answer::Now(result) => Some(result),
        Answer::Waiting(mut waiting) => waiting.try_now(),
        Answer::Refused(refusal) => Some(Err(refusal.why)),
    }
}

fn deliver(shared: &Shared<Ask>) -> Told {
    let (reply, mut waiting) = Reply::channel();
    match shared.port.deliver(Call { msg: Ask, meta: Meta::new(), reply }, false) {
        Ok(()) => waiting.try_now(),
        Err(refusal) => Some(Err(refusal.why)),
    }
}

#[test]
fn a_call_that_comes_late_asks_the_replicas_that_there_are_now() {
    for ask in [call, deliver] {
        let shared = Arc::new(Shared::<Ask>::new(name(), Outside::default()));
        let gone = |now| replica(1, Gone { of: Arc::clone(&shared), now });
        shared.publish(&[gone(vec![replica(2, Answers(7))])]);
        assert_eq!(ask(&shared), Some(Ok(7)));
        // When nobody has come it is told so, and not asked for ever.
        shared.publish(&[gone(Vec::new())]);
        assert_eq!(ask(&shared).unwrap().unwrap_err().code(), "no_replica");
    }
}

#[test]
fn calls_wait_for_the_next_replica_where_one_is_awaited() {
    let shared = Shared::<Ask>::new(name(), Outside::default());
    shared.hold(2);
    let mut waiting: Vec<_> = (0..3)
        .map(|_| match shared.port.call(Ask, Meta::new()) {
            Answer::Waiting(waiting) => Ok(waiting),
            Answer::Refused(refusal) => Err(refusal.why),
            Answer::Now(_) => panic!("nobody is there"),
        })
        .collect();
    let refused = waiting.pop().unwrap().err();
    assert_eq!(refused, Some(ServeError::Overloaded { backend: name(), limit: 2 }));
    assert_eq!(shared.waiting(), 2);
    shared.publish(&[replica(1, Answers(5))]);
    shared.let_go();
    for waiting in waiting {
        assert_eq!(waiting.ok().unwrap().try_now(), Some(Ok(5)));
    }
    assert_eq!((call(&shared), deliver(&shared)), (Some(Ok(5)), Some(Ok(5))));
    shared.publish(&[]);
    assert_eq!(call(&shared).unwrap().unwrap_err().code(), "no_replica");
}
