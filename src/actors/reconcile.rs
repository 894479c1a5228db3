//! What to do next for one backend: pure, from what is wanted and what is there.

use std::{cmp::Reverse, collections::HashSet};

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
    pub(crate) generation: u64,
    /// The release that it was made from.
    pub(crate) release: u64,
    pub(crate) state: ReplicaState,
    /// It is being given a `user_config`; no call begins there.
    pub(crate) changing: bool,
}

impl Observed {
    fn live(&self) -> bool {
        self.state != ReplicaState::Draining
    }

    fn ready(&self) -> bool {
        self.state == ReplicaState::Running && !self.changing
    }
}

/// What there is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Aim {
    pub(crate) replicas: u32,
    /// The release that all of them are to be made from.
    pub(crate) release: u64,
    /// Replicas that there is room for at once, those that drain included.
    pub(crate) room: usize,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start a replica in this slot.
    Start(u32),
    /// Drain the replica of this generation. By slot there may be two: an old one, and the one that replaces it.
    Drain(u64),
}

/// Replicas that are replaced at once: a fifth, rounded down, and one at least.
pub(crate) fn wave(replicas: u32) -> u32 {
    (replicas / 5).max(1)
}

/// The actions that lead from `observed` to what is aimed at. With what they lead to, there are none left.
///
/// Replicas of another release are replaced: with room for one more, the new one is started first, and an old one
/// drains only when enough take calls without it. Without room an old one has to make it.
pub(crate) fn next_actions(aim: Aim, observed: &[Observed]) -> Vec<Action> {
    let wanted = usize::try_from(aim.replicas).unwrap_or(usize::MAX);
    let wave = usize::try_from(wave(aim.replicas)).unwrap_or(usize::MAX);
    let live = observed.iter().filter(|o| o.live());
    let (mut new, mut old): (Vec<&Observed>, Vec<&Observed>) = live.partition(|o| o.release == aim.release);
    // Of too many go those that take no calls, then the highest slots, so that labels stay 0..N-1.
    new.sort_by_key(|o| (!o.ready(), o.slot));
    let mut actions: Vec<_> =
        new.drain(wanted.min(new.len())..).rev().map(|o| Action::Drain(o.generation)).collect();
    let mut ready = new.iter().chain(&old).filter(|o| o.ready()).count();
    let least = if aim.room > wanted { wanted } else { wanted.saturating_sub(wave) };
    // Old ones whose slot is taken over go first: whoever is kept to a slot changes once.
    let replaced: HashSet<u32> = new.iter().filter(|o| o.ready()).map(|o| o.slot).collect();
    old.sort_by_key(|o| (!replaced.contains(&o.slot), Reverse(o.slot)));
    for o in old {
        let left = ready - usize::from(o.ready());
        // One that is not ready yet would only be in the way.
        if o.state == ReplicaState::Starting || left >= least {
            actions.push(Action::Drain(o.generation));
            ready = left;
        }
    }
    let rolling = observed.iter().any(|o| o.release != aim.release);
    let most = if rolling { aim.room.min(wanted + wave) } else { aim.room };
    let starts = (wanted - new.len()).min(most.saturating_sub(observed.len()));
    let taken: HashSet<u32> = new.iter().map(|o| o.slot).collect();
    let free = (0..).filter(|slot| !taken.contains(slot));
    actions.extend(free.take(starts).map(Action::Start));
    actions
}

/// One replica that takes calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Configuration {
    pub(crate) generation: u64,
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

/// The replicas, by generation, that are given the wanted `user_config` next. Of all that take calls a fifth, rounded
/// down, may be without them at once, and one always may.
pub(crate) fn next_changes(replicas: &[Configuration]) -> Vec<u64> {
    let at_once = (replicas.len() / 5).max(1);
    let changing = replicas.iter().filter(|replica| replica.progress == Progress::Changing).count();
    let mut behind: Vec<u64> = replicas
        .iter()
        .filter(|replica| replica.progress == Progress::Behind)
        .map(|r| r.generation)
        .collect();
    behind.sort_unstable();
    behind.truncate(at_once.saturating_sub(changing));
    behind
}

#[cfg(test)]
mod tests;
