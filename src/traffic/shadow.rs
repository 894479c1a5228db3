//! `ShadowRule`: which share of an endpoint's requests a backend gets copies of.

use serde::Serialize;

use super::{compare::Compare, rendezvous};
use crate::{
    error::ServeError,
    ids::{BackendName, stable_hash},
};

/// A share of an endpoint's requests goes to another backend as well, as copies: nobody waits for its answers,
/// and nothing that happens there changes what the caller gets.
///
/// ```
/// use greenroom::ShadowRule;
/// let rule = ShadowRule::new("next", 0.1)?;
/// assert_eq!(rule.backend().as_str(), "next");
/// assert!(ShadowRule::new("next", 1.5).is_err());
/// # Ok::<(), greenroom::ServeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShadowRule {
    #[serde(skip)]
    backend: BackendName,
    proportion: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    compare: Option<Compare>,
    /// Apart from that of the backend's name, so that copies do not follow where a key is served.
    #[serde(skip)]
    hash: u64,
}

impl ShadowRule {
    /// Copies of the `proportion` of requests, 0 to 1, go to `backend`; 0 takes the rule away.
    ///
    /// # Errors
    /// [`ServeError::Invalid`] for a name or a proportion that is not allowed.
    pub fn new(backend: impl AsRef<str>, proportion: f64) -> Result<Self, ServeError> {
        let backend = BackendName::new(backend)?;
        if !(0.0..=1.0).contains(&proportion) {
            let why = format!("a proportion of {proportion} was given; allowed: a number from 0 to 1");
            return Err(ServeError::invalid("shadow", why));
        }
        let hash = stable_hash(&format!("shadow of {backend}"));
        // Adding zero turns -0.0 into 0.0.
        Ok(Self { backend, proportion: proportion + 0.0, compare: None, hash })
    }

    /// Compares the answers to copies with those that the callers got; the counts and some pairs that differed
    /// are in [`ShadowStatus`](crate::ShadowStatus).
    ///
    /// # Errors
    /// Those of [`Compare::check`].
    pub fn compare(self, compare: Compare) -> Result<Self, ServeError> {
        Ok(Self { compare: Some(compare.check()?), ..self })
    }

    /// The same rule without a comparison.
    pub(crate) fn uncompared(self) -> Self {
        Self { compare: None, ..self }
    }

    /// How answers are compared, if they are.
    pub fn compared(&self) -> Option<&Compare> {
        self.compare.as_ref()
    }

    /// The backend that gets copies.
    pub fn backend(&self) -> &BackendName {
        &self.backend
    }

    /// The share of requests that are copied.
    pub fn proportion(&self) -> f64 {
        self.proportion
    }

    /// Whether a request is copied, for a draw evenly spread over `0.0..1.0`.
    pub(crate) fn hits(&self, u: f64) -> bool {
        u < self.proportion
    }

    /// Whether the requests with this key, given by its hash, are copied: all of them or none.
    pub(crate) fn hits_key(&self, key: u64) -> bool {
        self.hits(rendezvous::draw(key, self.hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proportion_outside_0_to_1_is_refused() {
        for proportion in [-0.1, 1.000_001, f64::NAN, f64::INFINITY] {
            let error = ShadowRule::new("b", proportion).unwrap_err().to_string();
            assert!(error.contains("a proportion of") && error.contains("from 0 to 1"), "{error}");
        }
        assert!(ShadowRule::new("b", 0.0).is_ok() && ShadowRule::new("b", 1.0).is_ok());
    }

    #[test]
    fn a_key_is_copied_always_or_never_and_each_rule_draws_for_itself() {
        let rules = [ShadowRule::new("a", 0.5).unwrap(), ShadowRule::new("b", 0.5).unwrap()];
        let keys: Vec<_> = (0..10_000).map(|n| stable_hash(&format!("user-{n}"))).collect();
        let hits = |rule: &ShadowRule| keys.iter().filter(|key| rule.hits_key(**key)).count();
        let both = keys.iter().filter(|key| rules.iter().all(|rule| rule.hits_key(**key))).count();
        // 4 sigma of 10,000 draws at a half and at a quarter.
        assert!(hits(&rules[0]).abs_diff(5_000) <= 200 && hits(&rules[1]).abs_diff(5_000) <= 200);
        assert!(both.abs_diff(2_500) <= 174, "{both}: the draws are not of their own");
    }

    #[test]
    fn all_and_nothing_are_exact() {
        let (all, none) = (ShadowRule::new("a", 1.0).unwrap(), ShadowRule::new("a", 0.0).unwrap());
        for u in [0.0, 0.5, 1.0 - f64::EPSILON / 2.0] {
            assert!(all.hits(u) && !none.hits(u));
        }
        assert!((0..1000).all(|key| all.hits_key(key) && !none.hits_key(key)));
    }
}
