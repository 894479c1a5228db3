//! Which replica takes a call: one on the caller's thread, else the lighter of two drawn at random.

use rand::{Rng, RngExt};

/// Draws the lighter of two different indices below `n`; `n` is at least 1.
pub(crate) fn lighter_of_two(n: usize, rng: &mut impl Rng, load: impl Fn(usize) -> usize) -> usize {
    if n < 2 {
        return 0;
    }
    let a = rng.random_range(0..n);
    let b = (a + rng.random_range(1..n)) % n;
    if load(b) < load(a) { b } else { a }
}

/// Picks a replica: `here` are those on the caller's thread, preferred until they run as many calls as they
/// may at once; then every one of the `n` is in the draw. One whose load is `usize::MAX` works nothing off and is
/// picked only where all are such.
pub(crate) fn pick(
    n: usize,
    here: &[usize],
    rng: &mut impl Rng,
    load: impl Fn(usize) -> usize,
    concurrency: impl Fn(usize) -> usize,
) -> usize {
    if !here.is_empty() {
        let near = here[lighter_of_two(here.len(), rng, |i| load(here[i]))];
        if load(near) < concurrency(near) {
            return near;
        }
    }
    let drawn = lighter_of_two(n, rng, &load);
    if load(drawn) < usize::MAX {
        return drawn;
    }
    // Neither of the two works anything off now.
    (0..n).min_by_key(|i| load(*i)).unwrap_or(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::SmallRng};

    #[test]
    fn of_two_replicas_the_lighter_always_wins() {
        let mut rng = SmallRng::seed_from_u64(1);
        let loads = [7, 3];
        for _ in 0..100 {
            assert_eq!(lighter_of_two(2, &mut rng, |i| loads[i]), 1);
        }
    }

    #[test]
    fn the_heaviest_of_many_is_never_picked() {
        let mut rng = SmallRng::seed_from_u64(2);
        let loads = [1, 9, 1, 1];
        for _ in 0..1000 {
            assert_ne!(lighter_of_two(4, &mut rng, |i| loads[i]), 1);
        }
    }

    #[test]
    fn the_own_thread_is_preferred_until_it_is_busy() {
        let mut rng = SmallRng::seed_from_u64(3);
        for _ in 0..100 {
            assert_eq!(pick(4, &[2], &mut rng, |i| if i == 2 { 3 } else { 0 }, |_| 4), 2);
            assert_ne!(pick(4, &[2], &mut rng, |i| if i == 2 { 4 } else { 0 }, |_| 4), 2);
        }
    }

    #[test]
    fn one_that_works_nothing_off_is_picked_only_where_all_are_such() {
        let mut rng = SmallRng::seed_from_u64(5);
        let loads = [usize::MAX, usize::MAX, 50, usize::MAX];
        for here in [&[][..], &[0], &[0, 1, 3]] {
            (0..100).for_each(|_| assert_eq!(pick(4, here, &mut rng, |i| loads[i], |_| 4), 2));
        }
        assert!(pick(2, &[], &mut rng, |_| usize::MAX, |_| 4) < 2);
    }

    #[test]
    fn equal_loads_spread() {
        let mut rng = SmallRng::seed_from_u64(4);
        let mut hits = [0; 5];
        (0..10_000).for_each(|_| hits[lighter_of_two(5, &mut rng, |_| 0)] += 1);
        assert!(hits.iter().all(|h| (1800..2200).contains(h)), "{hits:?}");
    }
}
