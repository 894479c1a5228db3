//! Weighted rendezvous hashing: which of several weighted names a key belongs to, without any memory of keys.

/// Which of the weighted `names` a key belongs to: its index; none when no weight is above 0. Keys and names are
/// given by their hashes.
///
/// Each name draws a time for the key, evenly random in its hash and `1 / weight` long on average; the shortest
/// wins, so each name wins a share of the keys as large as its weight, and a change of weights moves only the
/// keys of the shares that it moves (Schindelhauer and Schomaker, "Weighted distributed hash tables", 2005).
pub(crate) fn pick(key: u64, names: impl IntoIterator<Item = (u64, f64)>) -> Option<usize> {
    let mut best = None;
    for (i, (name, weight)) in names.into_iter().enumerate() {
        if weight <= 0.0 {
            continue;
        }
        let u = unit(mix(key ^ name));
        // Saves most logarithms: -ln u is never less than 1 - u.
        if best.is_some_and(|(_, shortest)| (1.0 - u) / weight >= shortest) {
            continue;
        }
        // The library's own logarithm, since those of platforms differ in the last digit.
        let time = -libm::log(u) / weight;
        if best.is_none_or(|(_, shortest)| time < shortest) {
            best = Some((i, time));
        }
    }
    best.map(|(i, _)| i)
}

/// An even draw from `0.0..1.0`, never 0 or 1, that a key and a name always give again.
pub(crate) fn draw(key: u64, name: u64) -> f64 {
    unit(mix(key ^ name))
}

/// 53 bits as a number between 0 and 1, both excluded.
fn unit(bits: u64) -> f64 {
    ((bits >> 11) as f64 + 0.5) * (1.0 / (1_u64 << 53) as f64)
}

/// Spreads every bit over all (the finaliser of `SplitMix64`).
fn mix(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::stable_hash;

    const KEYS: u32 = 10_000;

    fn key(n: u32) -> u64 {
        stable_hash(&format!("session-{n}"))
    }

    fn names(weights: &[f64]) -> Vec<(u64, f64)> {
        weights.iter().enumerate().map(|(i, w)| (stable_hash(&format!("backend-{i}")), *w)).collect()
    }

    fn shares(weights: &[f64]) -> Vec<f64> {
        let names = names(weights);
        let mut counts = vec![0.0; weights.len()];
        (0..KEYS).for_each(|n| counts[pick(key(n), names.iter().copied()).unwrap()] += 1.0);
        counts.iter().map(|count| count / f64::from(KEYS)).collect()
    }

    #[test]
    fn each_name_gets_its_share_of_the_keys() {
        for weights in [&[0.5, 0.5][..], &[0.9, 0.1], &[0.98, 0.01, 0.01], &[0.2; 5], &[0.0, 1.0]] {
            for (share, weight) in shares(weights).iter().zip(weights) {
                let sigma = (weight * (1.0 - weight) / f64::from(KEYS)).sqrt();
                assert!((share - weight).abs() <= 4.0 * sigma, "{weights:?}: {share} for {weight}");
            }
        }
    }

    #[test]
    fn a_tenth_moves_from_09_to_08_and_none_the_wrong_way() {
        let (before, after) = (names(&[0.9, 0.1]), names(&[0.8, 0.2]));
        let mut moved = 0;
        for key in (0..KEYS).map(key) {
            match (pick(key, before.iter().copied()), pick(key, after.iter().copied())) {
                (Some(0), Some(1)) => moved += 1,
                (old, new) => assert_eq!(old, new, "{key}"),
            }
        }
        assert!((900..=1100).contains(&moved), "{moved} of {KEYS} keys moved");
    }

    /// Computed apart from this program too, with another implementation of the hash.
    #[test]
    fn the_mapping_is_written_down_for_ever() {
        let names = names(&[0.5, 0.3, 0.2]);
        let found: String =
            (0..32).map(|n| pick(key(n), names.iter().copied()).unwrap().to_string()).collect();
        assert_eq!(
            found, "01110011102021020112201002200001",
            "keys would change their backends with the next version"
        );
    }

    #[test]
    fn nothing_is_picked_from_nothing() {
        assert_eq!(pick(1, []), None);
        assert_eq!(pick(1, [(2, 0.0), (3, 0.0)]), None);
    }

    proptest! {
        #[test]
        fn a_name_that_goes_moves_its_own_keys_only(
            weights in prop::collection::vec(0.01..1.0_f64, 2..8),
            gone in 0_usize..8,
            from in 0_u32..1_000_000,
        ) {
            let gone = gone % weights.len();
            let before = names(&weights);
            let mut after = before.clone();
            after[gone].1 = 0.0;
            for key in (from..from + 100).map(key) {
                let (old, new) = (pick(key, before.iter().copied()), pick(key, after.iter().copied()));
                prop_assert!(old == new || old == Some(gone));
            }
        }

        #[test]
        fn a_draw_is_inside(key in any::<u64>(), name in any::<u64>()) {
            let u = draw(key, name);
            prop_assert!(u > 0.0 && u < 1.0);
        }
    }
}
