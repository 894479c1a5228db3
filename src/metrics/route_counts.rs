//! The counters of the answers on one route, found without a lock.

use std::sync::{Arc, OnceLock};

use actix_web::http::{Method, StatusCode};

use crate::metrics::{
    registry::{HttpKey, Registry},
    spread::Spread,
};

/// Kinds of answers, by method and status, whose counters a route has at hand. There are few on most routes; those
/// that come later than these take the registry's lock, and so do methods that are not allowed.
const AT_HAND: usize = 6;

/// The answers on one route.
#[derive(Debug)]
pub(crate) struct RouteCounts {
    /// The pattern's text: the metric label.
    label: Arc<str>,
    at_hand: [OnceLock<(Method, StatusCode, Arc<Spread>)>; AT_HAND],
}

impl RouteCounts {
    pub(crate) fn new(label: &str) -> Self {
        Self { label: label.into(), at_hand: Default::default() }
    }

    /// Counts an answer.
    #[inline]
    pub(crate) fn count(&self, registry: &Registry, method: &Method, status: StatusCode) {
        let fresh = || {
            let count = registry.http(HttpKey::new(&self.label, method, status));
            (method.clone(), status, count)
        };
        let usual = status != StatusCode::METHOD_NOT_ALLOWED;
        for place in self.at_hand.iter().filter(|_| usual) {
            let (m, s, count) = place.get_or_init(fresh);
            if (*s, m) == (status, method) {
                return count.add();
            }
        }
        registry.http(HttpKey::new(&self.label, method, status)).add();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_counted_under_its_own_method_and_status() {
        let (registry, route) = (Registry::default(), RouteCounts::new("/a/{b}"));
        let kinds: Vec<_> = (200..206)
            .flat_map(|status| [Method::GET, Method::POST].map(|method| (method, status)))
            .collect();
        for (times, (method, status)) in kinds.iter().enumerate() {
            for _ in 0..=times {
                route.count(&registry, method, StatusCode::from_u16(*status).unwrap());
            }
        }
        let mut counted = registry.read_http();
        counted.sort_by_key(|(_, n)| *n);
        assert_eq!(counted.len(), kinds.len());
        for (times, ((key, n), (method, status))) in counted.iter().zip(&kinds).enumerate() {
            assert_eq!((key.method, key.status, *n), (method.as_str(), *status, times as u64 + 1));
            assert_eq!(&*key.route, "/a/{b}");
        }
    }
}
