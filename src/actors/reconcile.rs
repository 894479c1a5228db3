//! What to do next for one backend: pure, from what is wanted and what is there.

use serde::Serialize;

/// Where a replica is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ReplicaState {
    /// Its state is being made.
    Starting,
    /// It takes calls.
    Running,
    /// It takes no new calls and finishes those it has.
    Draining,
}

impl ReplicaState {
    /// The states that may come next; a replica that is gone has none.
    pub fn next(self) -> &'static [ReplicaState] {
        match self {
            Self::Starting => &[Self::Running, Self::Draining],
            Self::Running => &[Self::Draining],
            Self::Draining => &[],
        }
    }
}

/// One replica as it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed {
    pub(crate) slot: u32,
    pub(crate) state: ReplicaState,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start a replica in this slot.
    Start(u32),
    /// Drain the replica in this slot.
    Drain(u32),
}

/// The actions that lead from `observed` to `wanted` replicas. With what they lead to, there are none left.
pub(crate) fn next_actions(wanted: u32, observed: &[Observed]) -> Vec<Action> {
    let mut live: Vec<u32> =
        observed.iter().filter(|o| o.state != ReplicaState::Draining).map(|o| o.slot).collect();
    live.sort_unstable();
    let wanted_len = usize::try_from(wanted).unwrap_or(usize::MAX);
    if live.len() >= wanted_len {
        // The highest slots go first, so that labels stay 0..N-1.
        return live[wanted_len..].iter().rev().map(|slot| Action::Drain(*slot)).collect();
    }
    let mut free = (0..).filter(|slot| live.binary_search(slot).is_err());
    (live.len()..wanted_len).filter_map(|_| free.next()).map(Action::Start).collect()
}

/// One replica that takes calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Configuration {
    pub(crate) slot: u32,
    pub(crate) progress: Progress,
}

/// How far a replica is with the `user_config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It has another one.
    Behind,
    /// It is being given one; no call begins there.
    Changing,
    /// It has the one that is wanted.
    Current,
}

/// The replicas, by slot, that are given the wanted `user_config` next. Of all that take calls a fifth, rounded
/// down, may be without them at once, and one always may.
pub(crate) fn next_changes(replicas: &[Configuration]) -> Vec<u32> {
    let at_once = (replicas.len() / 5).max(1);
    let changing = replicas.iter().filter(|replica| replica.progress == Progress::Changing).count();
    let mut behind: Vec<u32> =
        replicas.iter().filter(|replica| replica.progress == Progress::Behind).map(|r| r.slot).collect();
    behind.sort_unstable();
    behind.truncate(at_once.saturating_sub(changing));
    behind
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn running(slots: &[u32]) -> Vec<Observed> {
        slots.iter().map(|slot| Observed { slot: *slot, state: ReplicaState::Running }).collect()
    }

    #[test]
    fn the_lowest_free_slots_are_filled_and_the_highest_drained() {
        assert_eq!(next_actions(3, &running(&[1])), [Action::Start(0), Action::Start(2)]);
        assert_eq!(next_actions(1, &running(&[0, 2, 5])), [Action::Drain(5), Action::Drain(2)]);
        assert_eq!(next_actions(0, &[]), []);
    }

    fn apply(mut observed: Vec<Observed>, actions: &[Action]) -> Vec<Observed> {
        for action in actions {
            match *action {
                Action::Start(slot) => observed.push(Observed { slot, state: ReplicaState::Starting }),
                Action::Drain(slot) => {
                    let live = |o: &&mut Observed| o.slot == slot && o.state != ReplicaState::Draining;
                    if let Some(o) = observed.iter_mut().find(live) {
                        o.state = ReplicaState::Draining;
                    }
                }
            }
        }
        observed
    }

    proptest! {
        #[test]
        fn solving_twice_changes_nothing(wanted in 0u32..20, slots in proptest::collection::btree_set(0u32..30, 0..20)) {
            let observed = running(&slots.into_iter().collect::<Vec<_>>());
            let done = apply(observed.clone(), &next_actions(wanted, &observed));
            prop_assert_eq!(next_actions(wanted, &done), vec![]);
            let live = done.iter().filter(|o| o.state != ReplicaState::Draining).count();
            prop_assert_eq!(live, wanted as usize);
        }
    }

    #[test]
    fn a_life_only_goes_forward() {
        use ReplicaState::{Draining, Running, Starting};
        assert_eq!(Starting.next(), [Running, Draining]);
        assert_eq!(Running.next(), [Draining]);
        assert!(Draining.next().is_empty());
    }

    fn configured(progress: impl IntoIterator<Item = Progress>) -> Vec<Configuration> {
        let progress = progress.into_iter().enumerate();
        progress.map(|(slot, progress)| Configuration { slot: slot as u32, progress }).collect()
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
            mut all in proptest::collection::vec(0..3_u8, 1..60),
            order in proptest::collection::vec(0..60_usize, 0..60),
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
                for slot in next_changes(&now) {
                    prop_assert_eq!(now[slot as usize].progress, Progress::Behind);
                    now[slot as usize].progress = Progress::Changing;
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
}
