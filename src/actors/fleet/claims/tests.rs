//! What a backend claims while it is changed again and again: in the end what it asks for, and never more CPUs than there are.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::resources::Capacity;

fn asked(cpus: u32) -> Resources {
    Resources::default().num_cpus(f64::from(cpus))
}

/// A backend, as far as its claims know it; of its replicas there are as many as it has claims for.
struct Model {
    pool: Pool,
    claims: Claims,
    name: BackendName,
    /// Replicas, and CPUs of each.
    wanted: (u32, u32),
    before: Option<u32>,
}

impl Model {
    fn new(cpus: u32) -> Self {
        let claims = Claims::new(asked(1));
        let pool = Pool::new(Capacity::default().num_cpus(f64::from(cpus)));
        Self { pool, claims, name: BackendName::new("a").unwrap(), wanted: (0, 1), before: None }
    }

    fn change(&mut self, (n, cpus): (u32, u32), draining: u32) -> Result<(), ServeError> {
        let replicas = self.claims.held();
        let there = There { replicas, draining: draining.min(replicas) };
        self.claims.claim(&self.name, (n, &asked(cpus)), there, &mut self.pool)?;
        let (before, _) = std::mem::replace(&mut self.wanted, (n, cpus));
        self.before.get_or_insert(before);
        Ok(())
    }

    fn roll(&mut self) {
        let n = self.wanted.0;
        self.claims.surge(n + wave(n), &mut self.pool);
        let needed = n.max(self.before.unwrap_or(0)) + wave(n);
        self.claims.keep(needed as usize, &mut self.pool);
    }

    /// Everything is as it should be.
    fn settle(&mut self) {
        self.before = None;
        self.claims.keep(self.wanted.0 as usize, &mut self.pool);
        self.claims.lessen(&asked(self.wanted.1), &mut self.pool);
    }

    /// CPUs that are left: fewer than none where more were taken than there are.
    fn left(&self) -> i64 {
        self.pool.cpus_left().unwrap() / 10_000
    }
}

#[test]
fn what_a_wave_has_taken_beyond_the_cpus_is_no_reason_to_admit_another_replica() {
    let mut backend = Model::new(2);
    backend.change((2, 1), 0).unwrap();
    backend.settle();
    backend.roll();
    assert_eq!((backend.claims.held(), backend.left()), (3, -1));
    let why = backend.change((3, 1), 0).unwrap_err();
    assert!(matches!(why, ServeError::NoResources { replicas: 3, fit: 2, .. }), "{why}");
    backend.settle();
    assert_eq!((backend.claims.held(), backend.left()), (2, 0));
}

#[test]
fn where_there_are_cpus_for_it_a_claim_of_a_wave_becomes_one_of_the_backend() {
    let mut backend = Model::new(4);
    backend.change((2, 1), 0).unwrap();
    backend.roll();
    backend.change((3, 1), 0).unwrap();
    assert_eq!((backend.claims.held(), backend.claims.beyond, backend.left()), (3, 0, 1));
    backend.roll();
    assert_eq!((backend.claims.held(), backend.claims.beyond, backend.left()), (4, 1, 0));
    backend.settle();
    assert_eq!((backend.claims.held(), backend.left()), (3, 1));
}

#[test]
fn larger_replicas_are_admitted_where_there_are_cpus_without_those_of_the_wave() {
    let mut backend = Model::new(4);
    backend.change((2, 1), 0).unwrap();
    backend.settle();
    backend.roll();
    backend.change((2, 2), 0).unwrap();
    assert_eq!((backend.claims.held(), backend.left()), (3, -2), "the one of the wave is there still");
    backend.settle();
    assert_eq!((backend.claims.held(), backend.left()), (2, 0));
}

proptest! {
    #[test]
    fn what_settles_has_what_it_asks_for_and_never_more_cpus_than_there_are(
        cpus in 1_u32..12,
        steps in vec((0_u32..8, 1_u32..4, 0_u32..4, any::<bool>(), any::<bool>()), 1..24),
    ) {
        let mut backend = Model::new(cpus);
        for (n, each, draining, rolls, settles) in steps {
            let _ = backend.change((n, each), draining);
            if rolls {
                backend.roll();
            }
            let each = backend.claims.each.num_cpus.as_f64() as i64;
            prop_assert!(backend.left() + i64::from(backend.claims.beyond) * each >= 0);
            if settles {
                backend.settle();
                prop_assert_eq!((backend.claims.held(), backend.claims.beyond), (backend.wanted.0, 0));
                let taken = i64::from(backend.wanted.0 * backend.wanted.1);
                prop_assert_eq!(backend.left(), i64::from(cpus) - taken);
                prop_assert!(backend.left() >= 0);
            }
        }
    }
}
