//! How a job is cut into slices of bounded length, and what a kernel's work costs. Pure.

use std::time::Duration;

use smallvec::SmallVec;

/// Most steps of a job that one slice takes.
pub(crate) const SLICE_STEPS_MAX: usize = 64;

/// Part of a splittable step that is run first to learn what it costs.
const CALIBRATION_PARTS: u32 = 16;

/// What a unit of work costs, learned from what was measured.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    ns_per_unit: Option<f64>,
    /// The largest piece measured so far: small ones cost more a unit, since a device works on many units at once.
    largest: u64,
}

impl Cost {
    /// A cost assumed until it is measured.
    pub(crate) fn assumed(ns_per_unit: f64) -> Self {
        Self { ns_per_unit: Some(ns_per_unit), largest: 0 }
    }

    pub(crate) fn of(&self, units: u64) -> Option<Duration> {
        let ns = self.ns_per_unit? * units as f64;
        Some(Duration::from_nanos(ns as u64))
    }

    /// This many units took this long.
    pub(crate) fn learn(&mut self, units: u64, took: Duration) {
        let measured = took.as_nanos() as f64 / units.max(1) as f64;
        let known = self.ns_per_unit.filter(|_| units < self.largest.saturating_mul(2));
        self.ns_per_unit = Some(known.map_or(measured, |known| known * 0.8 + measured * 0.2));
        self.largest = self.largest.max(units);
    }
}

/// What is left of one step of a job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remaining {
    /// Units left along the axis that may be cut; 1 for a step that may not.
    pub(crate) units: u32,
    /// All units that the step had.
    pub(crate) all_units: u32,
    /// What a unit is made of, for its cost: workgroups or bytes.
    pub(crate) weight: u64,
    pub(crate) cost: Cost,
    /// Most units in one piece.
    pub(crate) units_max: u32,
}

/// One slice: how many units of each of the next steps, and how long it should take.
#[derive(Debug, PartialEq)]
pub(crate) struct Slice {
    pub(crate) units: SmallVec<[u32; 8]>,
    pub(crate) estimate: Duration,
    /// Whether nothing is known of what its only step costs.
    pub(crate) calibrates: bool,
}

/// Plans the next slice of a job from what is left of its steps: as much as fits into `slice_max`, at least one unit.
/// A step of unknown cost runs alone, a small part of it first.
pub(crate) fn plan(steps: impl Iterator<Item = Remaining>, slice_max: Duration) -> Slice {
    let mut slice = Slice { units: SmallVec::new(), estimate: Duration::ZERO, calibrates: false };
    for step in steps.take(SLICE_STEPS_MAX) {
        let left = slice_max.saturating_sub(slice.estimate);
        let Some(all) = step.cost.of(u64::from(step.units).saturating_mul(step.weight)) else {
            if slice.units.is_empty() {
                let units = (step.all_units / CALIBRATION_PARTS).max(1).min(step.units).min(step.units_max);
                slice.units.push(units);
                slice.estimate = slice_max / 4;
                slice.calibrates = true;
            }
            break;
        };
        let units = if all <= left {
            step.units
        } else {
            // Equal pieces, so that no small one is left at the end.
            let room = if slice.units.is_empty() { slice_max } else { left };
            let pieces = all.as_nanos().div_ceil(room.as_nanos().max(1)).max(1);
            let equal = u128::from(step.units).div_ceil(pieces);
            let fit = left.as_nanos() * u128::from(step.units) / all.as_nanos().max(1);
            let least = u128::from(slice.units.is_empty());
            u32::try_from(equal.min(fit).max(least)).unwrap_or(1)
        };
        let units = units.min(step.units_max);
        if units == 0 {
            break;
        }
        slice.estimate += step.cost.of(u64::from(units).saturating_mul(step.weight)).unwrap_or_default();
        slice.units.push(units);
        if units < step.units {
            break;
        }
    }
    slice
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: Duration = Duration::from_millis(2);

    fn step(units: u32, us_per_unit: Option<f64>) -> Remaining {
        let cost = us_per_unit.map_or_else(Cost::default, |us| Cost::assumed(us * 1e3));
        Remaining { units, all_units: units, weight: 1, cost, units_max: u32::MAX }
    }

    #[test]
    fn short_steps_go_together_and_the_long_one_is_cut_into_equal_pieces() {
        let slice =
            plan([step(10, Some(10.0)), step(4, Some(100.0)), step(100, Some(100.0))].into_iter(), MAX);
        assert_eq!(slice.units.as_slice(), [10, 4, 15], "what fits beside 0.5 ms, in pieces of equal length");
        let alone = plan([step(85, Some(100.0))].into_iter(), MAX);
        assert_eq!(alone.units.as_slice(), [17], "five times 17, and not four times 20 and 5");
    }

    #[test]
    fn what_cannot_be_cut_goes_alone_when_it_is_long() {
        let slice = plan([step(1, Some(9_000.0)), step(1, Some(1.0))].into_iter(), MAX);
        assert_eq!(slice.units.as_slice(), [1]);
        assert_eq!(slice.estimate, 9 * Duration::from_millis(1));
        let before = plan([step(1, Some(1.0)), step(1, Some(9_000.0))].into_iter(), MAX);
        assert_eq!(before.units.as_slice(), [1], "and never behind another step");
    }

    #[test]
    fn a_step_of_unknown_cost_begins_with_a_small_part_of_it_alone() {
        let slice = plan([step(160, None), step(1, Some(1.0))].into_iter(), MAX);
        assert_eq!((slice.units.as_slice(), slice.calibrates), ([10].as_slice(), true));
        let behind = plan([step(1, Some(1.0)), step(160, None)].into_iter(), MAX);
        assert_eq!((behind.units.as_slice(), behind.calibrates), ([1].as_slice(), false));
    }

    #[test]
    fn larger_pieces_correct_what_small_ones_said() {
        let mut cost = Cost::default();
        cost.learn(1, Duration::from_micros(10));
        assert_eq!(cost.of(100), Some(Duration::from_millis(1)));
        cost.learn(100, Duration::from_micros(20));
        assert_eq!(cost.of(100), Some(Duration::from_micros(20)), "a wave of many units costs what one does");
        cost.learn(100, Duration::from_micros(70));
        assert_eq!(cost.of(100), Some(Duration::from_micros(30)), "then it moves slowly");
    }

    proptest! {
        #[test]
        fn every_job_ends_in_slices_within_the_bound_or_of_one_unit(
            steps in prop::collection::vec((1_u32..5_000, 1_u32..3_000), 1..40),
        ) {
            let mut left: Vec<Remaining> =
                steps.iter().map(|(units, us)| step(*units, Some(f64::from(*us)))).collect();
            let all: u64 = steps.iter().map(|(units, us)| u64::from(*units) * u64::from(*us)).sum();
            let mut slices = 0;
            while !left.is_empty() {
                let slice = plan(left.iter().copied(), MAX);
                prop_assert!(!slice.units.is_empty());
                let one = slice.units.as_slice() == [1];
                prop_assert!(slice.estimate <= MAX || one, "{slice:?}");
                let whole = slice.units.iter().zip(&left).filter(|(units, step)| **units == step.units).count();
                if let (true, Some(units)) = (whole < slice.units.len(), slice.units.last()) {
                    left[whole].units -= units;
                }
                left.drain(..whole);
                slices += 1;
                prop_assert!(slices <= 2 * (all / 2_000 + 1) + 2 * steps.len() as u64 + all / 1_000);
            }
        }
    }
}
