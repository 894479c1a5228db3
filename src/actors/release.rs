//! What a change of a backend is, from what is wanted of it and what was: pure.

use crate::{backend::fingerprint::Fingerprint, config::BackendConfig};

/// What is wanted of a backend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Declared<'a> {
    pub(crate) config: &'a BackendConfig,
    /// What tells its code apart; none for a closure.
    pub(crate) fingerprint: Option<Fingerprint>,
}

/// Whether the code that is given is the very one that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// None was given: it stays.
    Same,
    /// Some was given, and whether it is the same is to be told.
    Code,
}

/// What a change does to replicas that run; each may come with those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    /// Nothing.
    Nothing,
    /// They are told new limits and time-outs.
    Push,
    /// There are more or fewer of them.
    Scale,
    /// They take another `user_config`, in place.
    Reconfigure,
    /// They are replaced by those of a new release.
    Roll,
}

/// What leads from `old` to `new`.
pub(crate) fn change(old: Declared<'_>, new: Declared<'_>, given: Given) -> Change {
    if !same_code(old, new, given) || only_new_ones_follow(old.config, new.config).next().is_some() {
        Change::Roll
    } else if old.config.user_config != new.config.user_config {
        Change::Reconfigure
    } else if old.config.num_replicas != new.config.num_replicas {
        Change::Scale
    } else if old.config != new.config {
        Change::Push
    } else {
        Change::Nothing
    }
}

/// The version tells, where one is given; else the fingerprint; else code that is given is always new.
pub(crate) fn same_code(old: Declared<'_>, new: Declared<'_>, given: Given) -> bool {
    match (&old.config.version, &new.config.version) {
        (None, None) => {
            given == Given::Same || old.fingerprint.is_some() && old.fingerprint == new.fingerprint
        }
        (old, new) => old == new,
    }
}

/// The keys of the options that differ and that only a new replica can follow.
pub(crate) fn only_new_ones_follow(
    old: &BackendConfig,
    new: &BackendConfig,
) -> impl Iterator<Item = &'static str> {
    let differ = [
        ("placement", old.placement != new.placement),
        ("num_threads", old.num_threads != new.num_threads),
        // Switched on or off; another size is followed by those that run.
        ("max_batch_size", old.max_batch_size.is_some() != new.max_batch_size.is_some()),
        ("idempotent", old.idempotent != new.idempotent),
        ("resources", old.resources != new.resources),
        ("gpu_share", old.gpu_share != new.gpu_share),
        ("restart", old.restart != new.restart),
    ];
    differ.into_iter().filter_map(|(key, differs)| differs.then_some(key))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::{
        config::{Placement, RestartPolicy},
        resources::Resources,
    };

    fn config() -> BackendConfig {
        BackendConfig::default()
    }

    fn changed(old: &BackendConfig, new: &BackendConfig, given: Given) -> Change {
        let fingerprint = None;
        change(Declared { config: old, fingerprint }, Declared { config: new, fingerprint }, given)
    }

    #[test]
    fn each_option_is_followed_by_the_least_that_can() {
        let second = Duration::from_secs(1);
        let cases = [
            (config(), Change::Nothing),
            (config().max_queued_queries(7), Change::Push),
            (config().max_concurrent_queries(7), Change::Push),
            (config().request_timeout(second), Change::Push),
            (config().startup_timeout(second), Change::Push),
            (config().graceful_shutdown_timeout(second), Change::Push),
            (config().batch_wait_timeout(second), Change::Push),
            (config().num_replicas(2).max_queued_queries(7), Change::Scale),
            (config().user_config(json!(1)).num_replicas(2), Change::Reconfigure),
            (config().placement(Placement::Dedicated), Change::Roll),
            (config().num_threads(2), Change::Roll),
            (config().max_batch_size(2), Change::Roll),
            (config().idempotent(true), Change::Roll),
            (config().resources(Resources::default().num_cpus(0.5)), Change::Roll),
            (config().restart(RestartPolicy { max_restarts: 1, ..RestartPolicy::default() }), Change::Roll),
            (config().version("1").num_replicas(2).user_config(json!(1)), Change::Roll),
        ];
        for (new, wanted) in cases {
            assert_eq!(changed(&config(), &new, Given::Same), wanted, "{new:?}");
            assert_eq!(changed(&new, &config(), Given::Same), wanted, "back from {new:?}");
        }
        let batched = config().max_batch_size(4);
        assert_eq!(changed(&batched, &config().max_batch_size(8), Given::Same), Change::Push);
    }

    #[test]
    fn the_version_tells_code_apart_where_one_is_given_else_the_fingerprint_and_a_closure_is_always_new() {
        let (a, b) = (Some(Fingerprint::of(b"a")), Some(Fingerprint::of(b"b")));
        let (one, two) = (config().version("1"), config().version("2"));
        let rolls = |old: &BackendConfig, before, new: &BackendConfig, after, given| {
            let (old, new) =
                (Declared { config: old, fingerprint: before }, Declared { config: new, fingerprint: after });
            change(old, new, given) == Change::Roll
        };
        for given in [Given::Same, Given::Code] {
            assert!(!rolls(&one, a, &one, b, given), "the same version, whatever the code");
            assert!(rolls(&one, a, &two, a, given), "another version, though the code is the same");
            assert!(rolls(&one, a, &config(), a, given) && rolls(&config(), a, &one, a, given));
            assert!(!rolls(&config(), a, &config(), a, given));
        }
        assert!(rolls(&config(), a, &config(), b, Given::Code));
        assert!(rolls(&config(), None, &config(), None, Given::Code), "a closure");
        assert!(rolls(&config(), None, &config(), a, Given::Code));
        assert!(!rolls(&config(), None, &config(), None, Given::Same), "the one that there is");
    }

    #[test]
    fn with_the_same_version_options_that_only_new_ones_follow_still_roll() {
        let (old, new) = (config().version("1"), config().version("1").idempotent(true));
        assert_eq!(changed(&old, &new, Given::Code), Change::Roll);
        assert_eq!(only_new_ones_follow(&old, &new).collect::<Vec<_>>(), ["idempotent"]);
    }
}
