//! Where a backend is in its life: pure, one state at a time, and from each only some others.

use serde::Serialize;

/// Where a backend is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum BackendState {
    /// It is declared, and the program has not yet given its code.
    AwaitingCode,
    /// It is to be made when there is room for its replicas.
    Pending,
    /// Its first replicas are started; it serves nothing yet.
    Creating,
    /// All is as it should be.
    Running,
    /// A change is under way, or taken back: replicas are added, reconfigured, replaced, drained.
    Updating,
    /// Fewer replicas take calls than should, and no change is the reason.
    Unhealthy,
    /// Its replicas drain; then it is gone.
    Deleting,
}

/// What is seen of a backend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Everything is as it should be.
    pub(crate) settled: bool,
    /// A change is under way, or taken back.
    pub(crate) changing: bool,
    /// As many replicas take calls as should.
    pub(crate) whole: bool,
}

impl BackendState {
    /// The states that may come next; a backend that is gone has none.
    pub fn next(self) -> &'static [BackendState] {
        match self {
            Self::AwaitingCode => &[Self::Pending, Self::Creating, Self::Deleting],
            Self::Pending => &[Self::Creating, Self::Deleting],
            Self::Creating => &[Self::Pending, Self::Running, Self::Deleting],
            Self::Running => &[Self::Updating, Self::Unhealthy, Self::Deleting],
            Self::Updating => &[Self::Running, Self::Unhealthy, Self::Deleting],
            Self::Unhealthy => &[Self::Running, Self::Updating, Self::Deleting],
            Self::Deleting => &[],
        }
    }

    /// Whether it was once whole, so that it can be used and changed.
    pub(crate) fn made(self) -> bool {
        matches!(self, Self::Running | Self::Updating | Self::Unhealthy)
    }

    /// The state that follows from what is seen.
    pub(crate) fn after(self, seen: Seen) -> Self {
        match self {
            Self::Deleting => self,
            Self::Creating if seen.settled => Self::Running,
            // Code and room are given by others.
            Self::AwaitingCode | Self::Pending | Self::Creating => self,
            Self::Running | Self::Updating | Self::Unhealthy => match seen {
                Seen { changing: true, .. } => Self::Updating,
                Seen { settled: true, .. } | Seen { whole: true, .. } => Self::Running,
                Seen { .. } => Self::Unhealthy,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use BackendState::*;

    const ALL: [BackendState; 7] = [AwaitingCode, Pending, Creating, Running, Updating, Unhealthy, Deleting];

    #[test]
    fn every_state_is_reached_and_every_one_but_the_last_is_left_for_the_last() {
        for state in ALL {
            assert!(!state.next().contains(&state), "{state:?} is no change");
            assert_eq!(state.next().contains(&Deleting), state != Deleting, "{state:?}");
            let first = state == AwaitingCode;
            assert_eq!(ALL.iter().any(|before| before.next().contains(&state)), !first, "{state:?}");
        }
        assert!(Deleting.next().is_empty());
        // What was once made is never made again.
        for made in ALL.into_iter().filter(|state| state.made()) {
            assert!(made.next().iter().all(|next| next.made() || *next == Deleting), "{made:?}");
        }
    }

    #[test]
    fn what_is_seen_leads_only_to_states_that_may_come_next() {
        for state in ALL {
            for bits in 0..8 {
                let seen = Seen { settled: bits & 1 > 0, changing: bits & 2 > 0, whole: bits & 4 > 0 };
                let after = state.after(seen);
                assert!(after == state || state.next().contains(&after), "{state:?} {seen:?}");
                assert!(!state.made() || after.after(seen) == after, "the same is seen again");
            }
        }
    }

    #[test]
    fn a_backend_is_unhealthy_only_while_no_change_is_under_way() {
        let seen = |settled, changing, whole| Seen { settled, changing, whole };
        assert_eq!(Creating.after(seen(false, false, false)), Creating);
        assert_eq!(Creating.after(seen(true, false, true)), Running);
        assert_eq!(Running.after(seen(false, false, false)), Unhealthy);
        assert_eq!(Unhealthy.after(seen(false, true, false)), Updating);
        assert_eq!(Updating.after(seen(false, false, true)), Running, "others still drain");
        assert_eq!(Deleting.after(seen(true, true, true)), Deleting);
    }
}
