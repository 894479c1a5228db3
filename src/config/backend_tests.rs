//! Tests of the options of a backend and of their changes.

use std::{num::NonZeroUsize, time::Duration};

use serde_json::json;

use super::{BackendConfig, BackendUpdate, Placement, RestartPolicy, RestartUpdate};
use crate::error::ServeError;

const HOUR: Duration = Duration::from_secs(3600);

fn problems(config: &BackendConfig) -> Vec<String> {
    match config.check() {
        Ok(()) => Vec::new(),
        Err(ServeError::InvalidConfig(problems)) => problems.iter().map(ToString::to_string).collect(),
        Err(other) => panic!("another error: {other}"),
    }
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let written = serde_json::to_value(BackendConfig::default()).unwrap();
    let documented = json!({
        "version": null,
        "num_replicas": 1,
        "max_batch_size": null,
        "batch_wait_timeout_s": 0.0,
        "max_concurrent_queries": 100,
        "max_queued_queries": 1000,
        "request_timeout_s": null,
        "startup_timeout_s": 60.0,
        "graceful_shutdown_timeout_s": 20.0,
        "health_check_period_s": 10.0,
        "health_check_timeout_s": 30.0,
        "idempotent": false,
        "placement": null,
        "num_threads": null,
        "resources": {
            "num_cpus": 1.0, "num_gpus": 0.0, "gpu_memory_bytes": 0, "memory_bytes": 0, "custom": {},
        },
        "gpu_share": "work_conserving",
        "restart": { "max_restarts": 5, "window_s": 10.0, "backoff_s": 0.1 },
        "user_config": null,
    });
    assert_eq!(written, documented);
    assert_eq!(problems(&BackendConfig::default()), [""; 0]);
}

#[test]
fn what_is_set_is_written_in_the_files_form() {
    let config = BackendConfig::default()
        .batch_wait_timeout(Duration::from_millis(2))
        .request_timeout(Duration::from_millis(1500))
        .placement(Placement::Dedicated);
    let written = serde_json::to_value(config).unwrap();
    assert_eq!(written["batch_wait_timeout_s"], json!(0.002));
    assert_eq!(written["request_timeout_s"], json!(1.5));
    assert_eq!(written["placement"], json!("dedicated"));
}

#[test]
fn each_bad_value_is_refused_with_its_key_and_its_limit() {
    let config = BackendConfig::default;
    let restart = |change: fn(&mut RestartPolicy)| {
        let mut policy = RestartPolicy::default();
        change(&mut policy);
        config().restart(policy)
    };
    let cases = [
        (config().num_replicas(10_001), "num_replicas: 10001 was given; at most 10000"),
        (config().max_batch_size(0), "max_batch_size: 0 was given; at least 1"),
        (
            config().max_batch_size(65_537).max_concurrent_queries(65_537),
            "max_batch_size: 65537 was given; at most 65536",
        ),
        (config().max_concurrent_queries(0), "max_concurrent_queries: 0 was given"),
        (config().max_concurrent_queries(1_000_001), "max_concurrent_queries: 1000001 was given; at most"),
        (config().max_queued_queries(10_000_001), "max_queued_queries: 10000001 was given; at most"),
        (
            config().batch_wait_timeout(2 * HOUR),
            "batch_wait_timeout_s: 7200 s was given; allowed: 0 to 3600 s",
        ),
        (config().request_timeout(Duration::ZERO), "request_timeout_s: 0 s was given; allowed: more than 0"),
        (config().startup_timeout(Duration::ZERO), "startup_timeout_s: 0 s was given"),
        (
            config().startup_timeout(25 * HOUR),
            "startup_timeout_s: 90000 s was given; allowed: more than 0 and at most",
        ),
        (config().graceful_shutdown_timeout(Duration::ZERO), "graceful_shutdown_timeout_s: 0 s"),
        (
            config().health_check_period(Duration::ZERO),
            "health_check_period_s: 0 s was given; allowed: more than 0",
        ),
        (config().health_check_timeout(25 * HOUR), "health_check_timeout_s: 90000 s was given"),
        (config().num_threads(0), "num_threads: 0 was given"),
        (config().num_threads(1025), "num_threads: 1025 was given; at most 1024"),
        (restart(|policy| policy.max_restarts = 10_001), "restart.max_restarts: 10001"),
        (restart(|policy| policy.window = Duration::ZERO), "restart.window_s: 0 s"),
        (restart(|policy| policy.backoff = 2 * HOUR), "restart.backoff_s: 7200 s"),
    ];
    for (config, text) in cases {
        let found = problems(&config);
        assert!(found.len() == 1 && found[0].starts_with(text), "{text}: {found:?}");
    }
}

#[test]
fn values_on_their_limits_are_allowed() {
    let config = BackendConfig::default()
        .num_replicas(0)
        .max_batch_size(65_536)
        .max_concurrent_queries(65_536)
        .max_queued_queries(0)
        .batch_wait_timeout(HOUR)
        .startup_timeout(24 * HOUR)
        .request_timeout(Duration::from_nanos(1))
        .num_threads(1024);
    assert_eq!(problems(&config), [""; 0]);
}

#[test]
fn a_batch_larger_than_the_concurrency_is_refused_with_both_told() {
    let found = problems(&BackendConfig::default().max_batch_size(101));
    assert_eq!(found.len(), 1);
    assert!(
        found[0]
            .starts_with("max_concurrent_queries: max_concurrent_queries is 100 and max_batch_size is 101")
    );
    assert_eq!(problems(&BackendConfig::default().max_batch_size(100)), [""; 0]);
}

#[test]
fn all_mistakes_are_told_at_once() {
    let config = BackendConfig::default().max_batch_size(0).num_threads(0).startup_timeout(Duration::ZERO);
    assert_eq!(problems(&config).len(), 3);
}

#[test]
fn a_good_value_replaces_a_refused_one() {
    let config = BackendConfig::default().max_batch_size(0).num_threads(0).max_concurrent_queries(0);
    let config = config.max_batch_size(4).num_threads(None).max_concurrent_queries(4);
    assert_eq!(problems(&config), [""; 0]);
    assert_eq!(config.max_batch_size, NonZeroUsize::new(4));
}

#[test]
fn an_update_changes_only_the_fields_that_it_gives() {
    let old = BackendConfig::default().max_batch_size(8).request_timeout(HOUR).num_threads(2);
    assert_eq!(old.updated(&BackendUpdate::default()), Ok(old.clone()));

    let restart = RestartUpdate { max_restarts: Some(9), ..RestartUpdate::default() };
    let update = BackendUpdate::default().num_replicas(3).request_timeout(None).restart(restart);
    let mut expected = old.clone().num_replicas(3).request_timeout(None);
    expected.restart.max_restarts = 9;
    assert_eq!(old.updated(&update), Ok(expected));
}

#[test]
fn an_update_sets_every_field() {
    let policy = RestartPolicy { max_restarts: 1, window: HOUR, backoff: Duration::ZERO };
    let update = BackendUpdate::default()
        .num_replicas(7)
        .max_batch_size(3)
        .batch_wait_timeout(HOUR)
        .max_concurrent_queries(5)
        .max_queued_queries(6)
        .request_timeout(HOUR)
        .startup_timeout(HOUR)
        .graceful_shutdown_timeout(HOUR)
        .health_check_period(HOUR)
        .health_check_timeout(HOUR)
        .idempotent(true)
        .placement(Placement::Worker)
        .num_threads(4)
        .restart(policy);
    let expected = BackendConfig::default()
        .num_replicas(7)
        .max_batch_size(3)
        .batch_wait_timeout(HOUR)
        .max_concurrent_queries(5)
        .max_queued_queries(6)
        .request_timeout(HOUR)
        .startup_timeout(HOUR)
        .graceful_shutdown_timeout(HOUR)
        .health_check_period(HOUR)
        .health_check_timeout(HOUR)
        .idempotent(true)
        .placement(Placement::Worker)
        .num_threads(4)
        .restart(policy);
    assert_eq!(BackendConfig::default().updated(&update), Ok(expected));
}

#[test]
fn an_update_is_judged_by_its_result() {
    let old = BackendConfig::default().max_batch_size(50);
    let error = old.updated(&BackendUpdate::default().max_concurrent_queries(49)).unwrap_err().to_string();
    assert!(error.contains("49") && error.contains("50"), "{error}");
    let both = BackendUpdate::default().max_concurrent_queries(0).num_threads(0);
    let ServeError::InvalidConfig(found) = old.updated(&both).unwrap_err() else { panic!("another error") };
    assert_eq!(found.len(), 2);
}

#[test]
fn an_update_tells_every_mistake_too() {
    let json =
        json!({"num_replicas": null, "placement": null, "max_batch_size": 0, "restart": {"backoff": 1}});
    let ServeError::InvalidConfig(found) = BackendUpdate::from_json(json).unwrap_err() else { panic!() };
    let places: Vec<_> = found.iter().map(|problem| problem.place.as_str()).collect();
    assert_eq!(places, ["num_replicas", "max_batch_size", "restart.backoff"]);
    let cleared = BackendUpdate::from_json(json!({"placement": null, "restart": {"backoff_s": 2}})).unwrap();
    assert_eq!((cleared.placement, cleared.restart.backoff), (Some(None), Some(Duration::from_secs(2))));
}
