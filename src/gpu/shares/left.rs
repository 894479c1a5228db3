//! Those who left a device and owe it still: who takes a share next takes over what they owe.

use std::time::Duration;

use super::Client;

/// Longest time that a newcomer waits for what others used before it.
const OWED_MAX: Duration = Duration::from_secs(30);

/// Those who left and owe something, by when they left. Their shares and those of the present clients are the whole
/// together at most, since a newcomer first takes over what is owed: whoever leaves and comes back has no more than if it
/// had stayed, and the others no less than their shares.
#[derive(Debug, Default)]
pub(super) struct Left {
    clients: Vec<(u64, Client)>,
    /// When one who left and whose debt was handed on last wanted the device.
    wanted: Option<Duration>,
}

impl Left {
    /// One who leaves, and wanted the device until `seen` if it has jobs.
    pub(super) fn add(&mut self, id: u64, mut client: Client, seen: Duration) {
        client.leave(seen);
        self.clients.push((id, client));
    }

    /// One whose slice ended after it left.
    pub(super) fn settling(&mut self, id: u64, seen: Duration) -> Option<&mut Client> {
        let (_, client) = self.clients.iter_mut().rev().find(|(left, _)| *left == id)?;
        client.wanted_until(seen);
        Some(client)
    }

    /// Whether nobody of them has wanted the device for so long.
    pub(super) fn are_gone(&self, after: Duration, now: Duration) -> bool {
        self.wanted.is_none_or(|wanted| now >= wanted.saturating_add(after))
            && self.clients().all(|client| client.is_gone(after, now))
    }

    pub(super) fn clients(&self) -> impl Iterator<Item = &Client> {
        self.clients.iter().map(|(_, client)| client)
    }

    /// Hands what was owed for as much share as the newcomer has on to it, beginning with who left last. Slices that
    /// still run are owed by who started them until they end: until then that place is taken.
    pub(super) fn hand_on(&mut self, to: &mut Client, virtual_now: i128, now: Duration) {
        self.clients.retain_mut(|(_, client)| client.owes(virtual_now, now));
        let mut room = to.share;
        for (_, from) in self.clients.iter_mut().rev().filter(|(_, client)| client.in_flight == 0) {
            let part = room.min(from.share);
            if part == 0 {
                break;
            }
            self.wanted = self.wanted.max(from.last_wanted());
            to.take_over(from, part, virtual_now, OWED_MAX);
            room -= part;
        }
        self.clients.retain(|(_, client)| client.share > 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::*, OWED_MAX};
    use crate::resources::WHOLE;

    const MS: Duration = Duration::from_millis(1);
    const OTHER: u64 = 0;

    fn fraction(parts: u32) -> Fraction {
        Fraction::from_ten_thousandths(parts).unwrap()
    }

    /// When a lease is given back.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Leaves {
        Never,
        /// When its job has ended.
        After,
        /// While its job runs.
        Within,
    }

    /// A lease with one job at a time beside one that is always busy.
    fn device_time(
        parts: u32,
        policy: SharePolicy,
        job: Duration,
        leaves: Leaves,
        runs: Duration,
    ) -> Duration {
        let mut shares = Shares::new(ShareOptions { depth_max: 1, ..ShareOptions::default() });
        let (mut now, mut first, mut used) = (Duration::ZERO, 1, Duration::ZERO);
        if parts < WHOLE {
            shares.join(OTHER, fraction(WHOLE - parts), SharePolicy::WorkConserving, now);
            (0..4).for_each(|_| shares.arrived(OTHER, now));
        }
        shares.join(first, fraction(parts), policy, now);
        shares.arrived(first, now);
        while now < runs {
            let id = match shares.next(now) {
                Next::Start(id) => id,
                Next::Until(then) => {
                    now = then.max(now + Duration::from_nanos(1));
                    continue;
                }
                other => panic!("{other:?}"),
            };
            let took = if id == OTHER { MS } else { job };
            shares.started(id, Duration::ZERO, Part::Last, now);
            if id != OTHER && leaves == Leaves::Within {
                shares.leave(id);
            }
            now += took;
            shares.next(now);
            shares.settled(id, Duration::ZERO, took);
            shares.answered(id, now);
            if id != OTHER {
                used += took;
                if leaves != Leaves::Never {
                    shares.leave(id);
                    first += 1;
                    shares.join(first, fraction(parts), policy, now);
                }
            }
            shares.arrived(if id == OTHER { OTHER } else { first }, now);
        }
        used
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn a_lease_that_is_given_back_after_every_job_gets_no_more_than_one_that_is_kept(
            parts in 500_u32..9_000,
            job in 1_u32..200,
            within in any::<bool>(),
        ) {
            let leaves = if within { Leaves::Within } else { Leaves::After };
            let (job, runs) = (job * MS, Duration::from_secs(20));
            let got = |leaves| device_time(parts, SharePolicy::WorkConserving, job, leaves, runs);
            let most = runs.mul_f64(f64::from(parts) / f64::from(WHOLE)) + 2 * job + runs / 100;
            prop_assert!(got(leaves) <= most, "{:?} of {most:?}", got(leaves));
            prop_assert!(got(leaves) + 2 * job + runs / 100 >= got(Leaves::Never), "and no less");
        }

        #[test]
        fn a_cap_holds_over_all_leases_that_are_had_one_after_the_other(
            parts in 500_u32..9_000,
            job in 1_u32..200,
            alone in any::<bool>(),
        ) {
            let (job, runs, burst) = (job * MS, Duration::from_secs(20), 100 * MS);
            let cap = SharePolicy::HardCap { burst };
            let got = if alone {
                capped_alone(parts, cap, job, runs)
            } else {
                device_time(parts, cap, job, Leaves::After, runs)
            };
            let most = (runs + burst).mul_f64(f64::from(parts) / f64::from(WHOLE)) + 2 * job;
            prop_assert!(got <= most, "{got:?} of {most:?}");
        }
    }

    /// With room for many leases beside it.
    fn capped_alone(parts: u32, cap: SharePolicy, job: Duration, runs: Duration) -> Duration {
        let mut shares = Shares::new(ShareOptions::default());
        let (mut now, mut used, mut id) = (Duration::ZERO, Duration::ZERO, 0);
        while now < runs {
            id += 1;
            shares.join(id, fraction(parts), cap, now);
            shares.arrived(id, now);
            while let Next::Until(then) = shares.next(now) {
                now = then.max(now + Duration::from_nanos(1));
            }
            shares.started(id, Duration::ZERO, Part::Last, now);
            now += job;
            used += job;
            shares.settled(id, Duration::ZERO, job);
            shares.answered(id, now);
            shares.leave(id);
        }
        used
    }

    /// How long one waits who comes `away` after another left that used the device for 10 s, beside one that is busy.
    fn waits(left: u32, came: u32, away: Duration, busy_before: bool) -> Duration {
        let mut shares = Shares::new(ShareOptions { depth_max: 1, ..ShareOptions::default() });
        let mut now = Duration::ZERO;
        shares.join(OTHER, fraction(4_900), SharePolicy::WorkConserving, now);
        shares.join(1, fraction(left), SharePolicy::WorkConserving, now);
        shares.arrived(1, now);
        assert_eq!(shares.next(now), Next::Start(1));
        shares.started(1, Duration::ZERO, Part::Last, now);
        if busy_before {
            (0..4).for_each(|_| shares.arrived(OTHER, now));
        }
        now += Duration::from_secs(10);
        shares.settled(1, Duration::ZERO, Duration::from_secs(10));
        shares.answered(1, now);
        shares.leave(1);
        now += away;
        shares.join(2, fraction(came), SharePolicy::WorkConserving, now);
        shares.arrived(2, now);
        if !busy_before {
            (0..4).for_each(|_| shares.arrived(OTHER, now));
        }
        let began = now;
        while shares.next(now) != Next::Start(2) {
            shares.started(OTHER, MS, Part::Last, now);
            now += MS;
            shares.settled(OTHER, MS, MS);
            shares.answered(OTHER, now);
            shares.arrived(OTHER, now);
        }
        now - began
    }

    #[test]
    fn a_newcomer_waits_for_the_part_of_a_debt_that_its_share_is_and_never_longer_than_half_a_minute() {
        let large = waits(100, 5_000, Duration::ZERO, true);
        assert!(large < Duration::from_millis(400), "a hundredth owes a half little: {large:?}");
        let same = waits(100, 100, Duration::ZERO, true);
        assert!((Duration::from_secs(14)..OWED_MAX).contains(&same), "{same:?}");
    }

    #[test]
    fn what_those_who_left_owe_is_forgiven_as_what_others_owe() {
        assert!(waits(5_000, 5_000, 50 * MS, false) > Duration::from_secs(5));
        assert!(waits(5_000, 5_000, 150 * MS, false) < 10 * MS);
    }
}
