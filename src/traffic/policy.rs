//! `TrafficPolicy`: which share of an endpoint's requests each backend gets.

use std::collections::BTreeSet;

use serde::{Serialize, Serializer};

use super::rendezvous;
use crate::{
    error::{Problem, ServeError},
    ids::{BackendName, stable_hash},
};

/// How far from 1 the sum of the weights may be.
pub const WEIGHT_SUM_TOLERANCE: f64 = 1e-6;

/// Weights over one or more backends, checked when built, sorted by the backends' names.
///
/// A weight of 0 keeps a backend in the policy without any request going to it.
///
/// ```
/// use greenroom::TrafficPolicy;
/// let policy = TrafficPolicy::new([("old", 0.75), ("new", 0.25)])?;
/// assert_eq!(policy.backend(policy.pick(0.1)).as_str(), "new");
/// assert_eq!(policy.backend(policy.pick(0.9)).as_str(), "old");
///
/// // A key stays where it is, but for the share of keys that a change of weights has to move.
/// let kept = policy.backend(policy.pick_for("session 7")).clone();
/// assert_eq!(*policy.backend(policy.pick_for("session 7")), kept);
/// # Ok::<(), greenroom::ServeError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TrafficPolicy {
    shares: Vec<Share>,
}

/// One backend of a policy.
#[derive(Clone, Debug, PartialEq)]
struct Share {
    backend: BackendName,
    weight: f64,
    /// Sum of all weights up to and with this one.
    up_to: f64,
    /// The name's, for keys.
    hash: u64,
}

/// A mistake in a set of weights: of one entry, or of all of them together.
#[derive(Debug)]
pub(crate) struct Mistake {
    /// Index of the wrong entry, in the order given.
    pub(crate) entry: Option<usize>,
    /// What is wrong and what is allowed.
    pub(crate) what: String,
}

impl TrafficPolicy {
    /// Checks `weights` and makes a policy of them.
    ///
    /// # Errors
    /// [`ServeError::InvalidConfig`] with every name that is not allowed or, when all are, with every mistake of the
    /// weights: no backend at all, a backend named twice, a weight that is negative or not finite, a sum further than [`WEIGHT_SUM_TOLERANCE`] from 1.
    pub fn new(weights: impl IntoIterator<Item = (impl AsRef<str>, f64)>) -> Result<Self, ServeError> {
        let (mut named, mut misnamed) = (Vec::new(), Vec::new());
        for (name, weight) in weights {
            match BackendName::new(&name) {
                Ok(name) => named.push((name, weight)),
                Err(why) => {
                    let place = format!("traffic.{:?}", name.as_ref());
                    misnamed.push(Problem { place, what: why.to_string() });
                }
            }
        }
        if !misnamed.is_empty() {
            return Err(ServeError::InvalidConfig(misnamed));
        }
        let weights = named;
        Self::checked(&weights).map_err(|mistakes| {
            let problem = |mistake: Mistake| Problem {
                place: match mistake.entry {
                    Some(entry) => format!("traffic.{}", weights[entry].0),
                    None => "traffic".into(),
                },
                what: mistake.what,
            };
            ServeError::InvalidConfig(mistakes.into_iter().map(problem).collect())
        })
    }

    /// All requests to one backend.
    pub fn single(backend: BackendName) -> Self {
        let hash = stable_hash(backend.as_str());
        Self { shares: vec![Share { backend, weight: 1.0, up_to: 1.0, hash }] }
    }

    /// The policy, or each mistake with the entry that holds it.
    pub(crate) fn checked(weights: &[(BackendName, f64)]) -> Result<Self, Vec<Mistake>> {
        let mistakes = mistakes(weights);
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let mut sorted: Vec<_> = weights.to_vec();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        let mut up_to = 0.0;
        let share = |(backend, weight): (BackendName, f64)| {
            up_to += weight;
            let hash = stable_hash(backend.as_str());
            // Adding zero turns a weight of -0.0 into 0.0.
            Share { backend, weight: weight + 0.0, up_to, hash }
        };
        Ok(Self { shares: sorted.into_iter().map(share).collect() })
    }

    /// The backend that a draw of `u`, evenly spread over `0.0..1.0`, stands for: its index in [`iter`](Self::iter).
    ///
    /// Never a backend of weight 0, whatever `u` is.
    pub fn pick(&self, u: f64) -> usize {
        let point = u * self.shares.last().map_or(0.0, |last| last.up_to);
        self.shares
            .iter()
            .position(|share| point < share.up_to && share.weight > 0.0)
            .unwrap_or_else(|| self.last_positive())
    }

    /// The backend that serves the requests with this shard key: its index in [`iter`](Self::iter). By weighted
    /// rendezvous hashing, so the same everywhere and always; a change of weights moves only the keys that it has
    /// to move.
    pub fn pick_for(&self, shard_key: &str) -> usize {
        self.pick_keyed(stable_hash(shard_key))
    }

    /// The same for a key given by its hash.
    pub(crate) fn pick_keyed(&self, key: u64) -> usize {
        let names = self.shares.iter().map(|share| (share.hash, share.weight));
        rendezvous::pick(key, names).unwrap_or_else(|| self.last_positive())
    }

    /// The backend at an index that [`pick`](Self::pick) gave.
    ///
    /// # Panics
    /// When `index` is not below [`len`](Self::len).
    pub fn backend(&self, index: usize) -> &BackendName {
        &self.shares[index].backend
    }

    /// The weight of a backend; none when the policy does not name it.
    pub fn weight(&self, backend: &BackendName) -> Option<f64> {
        self.shares.iter().find(|share| share.backend == *backend).map(|share| share.weight)
    }

    /// Whether no request goes anywhere else than to this backend.
    pub(crate) fn serves_all(&self, backend: &BackendName) -> bool {
        self.shares.iter().all(|share| share.weight == 0.0 || share.backend == *backend)
    }

    /// Every backend with its weight, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&BackendName, f64)> {
        self.shares.iter().map(|share| (&share.backend, share.weight))
    }

    /// How many backends it names, those of weight 0 too; never 0.
    #[expect(clippy::len_without_is_empty, reason = "a policy names at least one backend")]
    pub fn len(&self) -> usize {
        self.shares.len()
    }

    /// Where a draw lands that rounding put past the end.
    fn last_positive(&self) -> usize {
        self.shares.iter().rposition(|share| share.weight > 0.0).unwrap_or(0)
    }
}

impl Serialize for TrafficPolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

fn mistakes(weights: &[(BackendName, f64)]) -> Vec<Mistake> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for (entry, (backend, weight)) in weights.iter().enumerate() {
        let mut mistake = |what| found.push(Mistake { entry: Some(entry), what });
        if !weight.is_finite() || *weight < 0.0 {
            mistake(format!("a weight of {weight} was given; allowed: a number from 0 to 1"));
        }
        if !seen.insert(backend) {
            mistake(format!("backend {backend} is named twice"));
        }
    }
    if weights.is_empty() {
        let what = "no backend was given; at least one is needed".into();
        found.push(Mistake { entry: None, what });
    } else if found.is_empty() {
        let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
        // Each addition may be off by half an epsilon; 0.999999 written by hand has to pass.
        let rounding = weights.len() as f64 * f64::EPSILON;
        // Told without the last digits, which are those of the addition.
        let shown = (sum * 1e9).round() / 1e9;
        if (sum - 1.0).abs() > WEIGHT_SUM_TOLERANCE + rounding {
            found.push(Mistake {
                entry: None,
                what: format!("the weights add up to {shown}; they must add up to 1"),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(weights: &[(&str, f64)]) -> Result<TrafficPolicy, ServeError> {
        TrafficPolicy::new(weights.iter().copied())
    }

    #[test]
    fn each_bad_set_of_weights_is_refused_with_its_place() {
        let cases: [(&[(&str, f64)], &str); 7] = [
            (&[], "traffic: no backend"),
            (&[("a", -0.5), ("b", 1.5)], "traffic.a: a weight of -0.5"),
            (&[("a", f64::NAN)], "traffic.a: a weight of NaN"),
            (&[("a", f64::INFINITY)], "traffic.a: a weight of inf"),
            (&[("a", 0.5), ("a", 0.5)], "traffic.a: backend a is named twice"),
            (&[("a", 0.1), ("b", 0.2), ("c", 0.3)], "traffic: the weights add up to 0.6;"),
            (&[("a", 0.0)], "traffic: the weights add up to 0;"),
        ];
        for (weights, text) in cases {
            let error = policy(weights).unwrap_err().to_string();
            assert!(error.contains(text), "{weights:?}: {error}");
        }
    }

    #[test]
    fn the_tolerance_is_a_millionth() {
        assert!(policy(&[("a", 0.333333), ("b", 0.333333), ("c", 0.333333)]).is_ok());
        assert!(policy(&[("a", 0.999998)]).is_err());
        assert!(policy(&[("a", 1.000002)]).is_err());
    }

    #[test]
    fn a_weight_of_zero_is_never_picked_first_last_or_between() {
        let policy = policy(&[("a", 0.0), ("b", 0.5), ("c", -0.0), ("d", 0.5), ("e", 0.0)]).unwrap();
        for u in [0.0, 0.25, 0.5, 0.75, 1.0 - f64::EPSILON / 2.0, 1.0, 7.0, -1.0, f64::NAN] {
            assert!([1, 3].contains(&policy.pick(u)), "{u}");
        }
    }

    #[test]
    fn it_is_written_as_a_map() {
        let policy = policy(&[("b", 0.25), ("a", 0.75)]).unwrap();
        assert_eq!(serde_json::to_string(&policy).unwrap(), r#"{"a":0.75,"b":0.25}"#);
    }

    proptest! {
        #[test]
        fn the_order_given_does_not_matter(weights in prop::collection::vec(0.0..1.0_f64, 1..20)) {
            let named = normalised(&weights);
            let reversed: Vec<_> = named.iter().rev().cloned().collect();
            prop_assert_eq!(TrafficPolicy::new(named).unwrap(), TrafficPolicy::new(reversed).unwrap());
        }

        #[test]
        fn a_pick_is_in_range_and_has_weight(
            weights in prop::collection::vec(prop_oneof![Just(0.0), 0.0..1.0_f64, 0.0..1e-15_f64], 1..20),
            u in 0.0..1.0_f64,
        ) {
            let policy = TrafficPolicy::new(normalised(&weights)).unwrap();
            for u in [u, 0.0, 1.0 - f64::EPSILON / 2.0] {
                let (_, weight) = policy.iter().nth(policy.pick(u)).unwrap();
                prop_assert!(weight > 0.0);
            }
        }

        #[test]
        fn even_draws_give_each_backend_its_share(weights in prop::collection::vec(0.0..1.0_f64, 1..8)) {
            let policy = TrafficPolicy::new(normalised(&weights)).unwrap();
            let mut counts = vec![0.0; policy.len()];
            (0..1000).for_each(|i| counts[policy.pick((f64::from(i) + 0.5) / 1000.0)] += 1.0);
            for ((_, weight), count) in policy.iter().zip(counts) {
                prop_assert!((weight * 1000.0 - count).abs() <= 1.0 + 1e-6);
            }
        }
    }

    /// The weights scaled to a sum of 1, with a name each.
    fn normalised(weights: &[f64]) -> Vec<(BackendName, f64)> {
        let sum: f64 = weights.iter().sum();
        let name = |i: usize| BackendName::new(format!("b{i:02}")).unwrap();
        if sum < 1e-9 {
            return vec![(name(0), 0.0), (name(1), 1.0)];
        }
        weights.iter().enumerate().map(|(i, weight)| (name(i), weight / sum)).collect()
    }
}
