//! What the steps of a backend promise: they lead to what is wanted, in bounds that hold whatever happens between.

use proptest::{
    collection::{btree_set, vec},
    prelude::*,
    sample::Index,
};

use super::*;
use ReplicaState::{Draining, Running, Starting};

fn observed(slot: u32, release: u64, state: ReplicaState) -> Observed {
    Observed { slot, generation: u64::from(slot) + 100 * release, release, state, changing: false }
}

fn running(slots: &[u32]) -> Vec<Observed> {
    slots.iter().map(|slot| observed(*slot, 0, Running)).collect()
}

fn aim(replicas: u32) -> Aim {
    Aim { replicas, release: 0, room: usize::MAX }
}

#[test]
fn the_lowest_free_slots_are_filled_and_the_highest_drained() {
    assert_eq!(next_actions(aim(3), &running(&[1])), [Action::Start(0), Action::Start(2)]);
    assert_eq!(next_actions(aim(1), &running(&[0, 2, 5])), [Action::Drain(5), Action::Drain(2)]);
    assert_eq!(next_actions(aim(0), &[]), []);
}

#[test]
fn of_too_many_those_that_take_no_calls_go_first() {
    let there = [observed(0, 0, Starting), observed(1, 0, Running)];
    assert_eq!(next_actions(aim(1), &there), [Action::Drain(0)]);
}

#[test]
fn as_many_are_started_as_there_is_room_for_beside_those_that_drain() {
    let there = [observed(0, 0, Running), observed(1, 0, Draining)];
    let starts = |room| next_actions(Aim { room, ..aim(3) }, &there);
    assert_eq!(starts(2), []);
    assert_eq!(starts(3), [Action::Start(1)]);
    assert_eq!(starts(9), [Action::Start(1), Action::Start(2)]);
}

/// What replicas there are, how they change, and what they are steered to.
#[derive(Clone, Debug)]
struct World {
    replicas: Vec<Observed>,
    generation: u64,
    aim: Aim,
}

impl World {
    fn new(replicas: Vec<Observed>, aim: Aim) -> Self {
        let generation = replicas.iter().map(|o| o.generation).max().unwrap_or(0);
        Self { replicas, generation, aim }
    }

    /// `n` of release 0 that take calls are to become as many of release 1.
    fn rolling(n: u32, room: usize) -> Self {
        let slots: Vec<_> = (0..n).collect();
        Self::new(running(&slots), Aim { replicas: n, release: 1, room })
    }

    fn steer(&mut self) {
        for action in next_actions(self.aim, &self.replicas) {
            match action {
                Action::Start(slot) => {
                    self.generation += 1;
                    let new = observed(slot, self.aim.release, Starting);
                    self.replicas.push(Observed { generation: self.generation, ..new });
                }
                Action::Drain(generation) => {
                    let o = self.replicas.iter_mut().find(|o| o.generation == generation).unwrap();
                    assert!(o.live(), "one that drains is not told again");
                    (o.state, o.changing) = (Draining, false);
                }
            }
        }
        assert_eq!(next_actions(self.aim, &self.replicas), [], "done once is done");
    }

    /// Something that may happen by itself happens; false when there is nothing.
    fn happens(&mut self, which: Index) -> bool {
        let waiting: Vec<_> = (0..self.replicas.len()).filter(|i| !self.replicas[*i].ready()).collect();
        if waiting.is_empty() {
            return false;
        }
        let i = *which.get(&waiting);
        match self.replicas[i].state {
            Draining => drop(self.replicas.remove(i)),
            Starting => self.replicas[i].state = Running,
            Running => self.replicas[i].changing = false,
        }
        true
    }

    fn ready(&self) -> usize {
        self.replicas.iter().filter(|o| o.ready()).count()
    }

    fn done(&self) -> bool {
        let slots: std::collections::BTreeSet<_> = self.replicas.iter().map(|o| o.slot).collect();
        self.replicas.len() == self.aim.replicas as usize
            && slots.len() == self.replicas.len()
            && self.replicas.iter().all(|o| o.ready() && o.release == self.aim.release)
    }
}

/// Steps after which everything must have come to rest.
const STEPS_MAX: usize = 500;

fn any_replicas() -> impl Strategy<Value = Vec<Observed>> {
    vec((0_u32..12, 0_u64..3, 0_u8..4), 0..16).prop_map(|all| {
        let replica = |(i, (slot, release, state)): (usize, (u32, u64, u8))| Observed {
            slot,
            generation: i as u64,
            release,
            state: [Starting, Running, Running, Draining][state as usize],
            changing: state == 2,
        };
        // Of one release there is one in each slot.
        let mut taken = HashSet::new();
        let all = all.into_iter().filter(|(slot, release, _)| taken.insert((*slot, *release)));
        all.enumerate().map(replica).collect()
    })
}

proptest! {
    #[test]
    fn solving_twice_changes_nothing(wanted in 0_u32..20, slots in btree_set(0_u32..30, 0..20)) {
        let slots: Vec<_> = slots.into_iter().collect();
        let mut world = World::new(running(&slots), aim(wanted));
        world.steer();
        prop_assert_eq!(world.replicas.iter().filter(|o| o.live()).count(), wanted as usize);
    }

    #[test]
    fn with_room_a_roll_never_has_fewer_running_than_wanted_nor_a_wave_more_than_that(
        n in 0_u32..30,
        more in 1_usize..8,
        events in vec(any::<Index>(), STEPS_MAX),
    ) {
        let mut world = World::rolling(n, n as usize + more);
        world.steer();
        for event in events {
            if !world.happens(event) { break }
            world.steer();
            prop_assert!(world.ready() >= n as usize);
            prop_assert!(world.replicas.len() <= (n + wave(n)) as usize);
        }
        prop_assert!(world.done(), "{:?}", world);
    }

    #[test]
    fn without_room_at_most_a_fifth_is_down_or_one_where_that_is_none(
        n in 1_u32..30,
        events in vec(any::<Index>(), STEPS_MAX),
    ) {
        let mut world = World::rolling(n, n as usize);
        world.steer();
        let down_max = if n < 5 { 1 } else { n / 5 };
        for event in events {
            if !world.happens(event) { break }
            world.steer();
            prop_assert!(world.ready() >= (n - down_max) as usize);
            prop_assert!(world.replicas.len() <= n as usize);
        }
        prop_assert!(world.done(), "{:?}", world);
    }

    #[test]
    fn from_whatever_there_is_the_steps_lead_to_what_is_wanted(
        replicas in any_replicas(),
        wanted in 0_u32..12,
        more in 0_usize..4,
        lost in vec((0..STEPS_MAX / 4, any::<Index>()), 0..10),
        events in vec(any::<Index>(), STEPS_MAX),
    ) {
        let room = (wanted as usize + more).max(replicas.len());
        let mut world = World::new(replicas, Aim { replicas: wanted, release: 1, room });
        for (step, event) in events.into_iter().enumerate() {
            world.steer();
            // Replicas fail and are gone while all this goes on.
            for (_, which) in lost.iter().filter(|(at, _)| *at == step) {
                if !world.replicas.is_empty() {
                    let i = which.index(world.replicas.len());
                    world.replicas.remove(i);
                }
            }
            let before = world.ready().min(wanted as usize);
            world.steer();
            let least = if more > 0 { wanted } else { wanted - wave(wanted).min(wanted) };
            prop_assert!(world.ready() >= before.min(least as usize), "only failures take it below");
            if !world.happens(event) && step > STEPS_MAX / 4 { break }
            // Where there were too many at first the room shrinks with them.
            world.aim.room = room.min((wanted as usize + more).max(world.replicas.len()));
        }
        world.steer();
        prop_assert!(world.done(), "{:?}", world);
    }
}

#[test]
fn ten_thousand_replicas_are_reconciled_in_little_time() {
    let mut world = World::rolling(10_000, 20_000);
    world.replicas.iter_mut().step_by(3).for_each(|o| o.release = 1);
    let begun = std::time::Instant::now();
    let actions = next_actions(world.aim, &world.replicas);
    let took = begun.elapsed();
    assert!(!actions.is_empty());
    println!("{} actions for {} replicas in {took:?}", actions.len(), world.replicas.len());
    // Optimised it is a hundredth of that.
    assert!(took < std::time::Duration::from_millis(500), "{took:?}");
}

#[test]
fn a_life_only_goes_forward() {
    assert_eq!(Starting.next(), [Running, Draining]);
    assert_eq!(Running.next(), [Draining]);
    assert!(Draining.next().is_empty());
}

fn configured(progress: impl IntoIterator<Item = Progress>) -> Vec<Configuration> {
    let progress = progress.into_iter().enumerate();
    progress.map(|(i, progress)| Configuration { generation: i as u64, progress }).collect()
}

#[test]
fn a_fifth_of_the_replicas_is_changed_at_once_rounded_down_and_one_at_least() {
    for (n, at_once) in [(0, 0), (1, 1), (2, 1), (5, 1), (9, 1), (10, 2), (14, 2), (15, 3), (100, 20)] {
        let next = next_changes(&configured(vec![Progress::Behind; n]));
        assert_eq!(next, (0..at_once).collect::<Vec<_>>(), "of {n}");
    }
}

proptest! {
    #[test]
    fn step_by_step_all_get_it_and_never_are_more_than_a_fifth_without_calls(
        mut all in vec(0..3_u8, 1..60),
        order in vec(0..60_usize, 0..60),
    ) {
        let most = (all.len() / 5).max(1);
        // What was being changed before is within the bound too.
        let mut changing = 0;
        for p in &mut all {
            changing += usize::from(*p == 1);
            if changing > most { *p = (*p).min(1) * 2; }
        }
        let kinds = [Progress::Behind, Progress::Changing, Progress::Current];
        let mut now = configured(all.iter().map(|p| kinds[*p as usize]));
        let mut order = order.into_iter().chain(std::iter::repeat(0));
        for _ in 0..200 {
            for generation in next_changes(&now) {
                prop_assert_eq!(now[generation as usize].progress, Progress::Behind);
                now[generation as usize].progress = Progress::Changing;
            }
            prop_assert!(next_changes(&now).is_empty());
            let busy: Vec<_> =
                (0..now.len()).filter(|i| now[*i].progress == Progress::Changing).collect();
            prop_assert!(busy.len() <= most);
            if busy.is_empty() { break }
            now[busy[order.next().unwrap() % busy.len()]].progress = Progress::Current;
        }
        prop_assert!(now.iter().all(|replica| replica.progress == Progress::Current));
    }
}
