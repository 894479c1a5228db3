//! Tests of the configuration file: what it says, and what each mistake in it is told as.

use std::{path::Path, time::Duration};

use proptest::prelude::*;
use serde_json::json;

use super::{BackendConfig, HttpConfig, Location, Placement, ServeConfig, Source};
use crate::{
    error::ServeError,
    http_call::ShardKeys,
    traffic::{Affinity, Compare, ShadowRule},
};

fn yaml(text: &str) -> Result<ServeConfig, ServeError> {
    ServeConfig::from_yaml(text, Path::new("/base"))
}

/// Every problem of a text that has some.
fn problems(text: &str) -> Vec<String> {
    match yaml(text).unwrap_err() {
        ServeError::InvalidConfig(problems) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("another error: {other}"),
    }
}

/// A backend `a` with another line, and an endpoint `a` with others.
fn with(backend: &str, endpoint: &str) -> String {
    format!(
        "backends:\n  - name: a\n    registered: a\n    {backend}\n\
         endpoints:\n  - name: a\n    {endpoint}\n"
    )
}

const WHOLE: &str = r#"
http:
  { location: EveryNode, host: "::", port: 0, threads: 2, max_body_bytes: 1024, explain: false, body_timeout_s: 0.5,
    shard_key: { headers: [X-User, x-device], cookie: sid } }
admin: { host: localhost, port: 9000 }
backends:
  - name: digits
    onnx: models/digits.onnx
    num_replicas: 2
    max_batch_size: 32
    batch_wait_timeout_s: 0.002
    max_concurrent_queries: 64
    max_queued_queries: 0
    request_timeout_s: 1.5
    startup_timeout_s: 5
    graceful_shutdown_timeout_s: 6
    health_check_period_s: 0.5
    health_check_timeout_s: 7
    idempotent: true
    placement: dedicated
    num_threads: 4
    restart: { max_restarts: 0, window_s: 1, backoff_s: 0 }
  - { name: own, registered: builtin, request_timeout_s: ~, max_batch_size: null }
  - { name: far, onnx: /abs/far.onnx }
endpoints:
  - { name: digits, route: /digits, traffic: { digits: 0.75, own: 0.25 }, shadow: { far: 0.1 }, affinity: replica }
  - { name: own, route: "/own/{id}", methods: [get, Put, get], backend: own }
  - { name: inner, backend: own, shadow: { digits: { proportion: 0.5, compare: exact }, far: 1 } }
  - name: compared
    backend: own
    shadow: { far: { proportion: 1, compare: { absolute: 0.5, noise_floor: 0.25, sample: 3 } } }
"#;

#[test]
fn a_whole_file_is_read() {
    let config = yaml(WHOLE).unwrap();
    let http = HttpConfig { threads: std::num::NonZeroUsize::new(2), ..HttpConfig::default() };
    let http = HttpConfig {
        location: Location::EveryNode,
        host: "::".into(),
        port: 0,
        max_body_bytes: 1024,
        body_timeout: Duration::from_millis(500),
        ..http
    };
    let shard_key = ShardKeys::default().header("X-User").unwrap().header("X-Device").unwrap();
    let http = HttpConfig { shard_key: shard_key.cookie("sid").unwrap(), explain: false, ..http };
    assert_eq!(config.http, http);
    assert_eq!((config.admin.host.as_str(), config.admin.port), ("localhost", 9000));

    let [digits, own, far] = &config.backends[..] else { panic!("{config:?}") };
    assert_eq!(digits.source, Source::Onnx { path: "/base/models/digits.onnx".into() });
    let expected = BackendConfig::default()
        .num_replicas(2)
        .max_batch_size(32)
        .batch_wait_timeout(Duration::from_millis(2))
        .max_concurrent_queries(64)
        .max_queued_queries(0)
        .request_timeout(Duration::from_millis(1500))
        .startup_timeout(Duration::from_secs(5))
        .graceful_shutdown_timeout(Duration::from_secs(6))
        .health_check_period(Duration::from_millis(500))
        .health_check_timeout(Duration::from_secs(7))
        .idempotent(true)
        .placement(Placement::Dedicated)
        .num_threads(4)
        .restart(super::RestartPolicy {
            max_restarts: 0,
            window: Duration::from_secs(1),
            backoff: Duration::ZERO,
        });
    assert_eq!(digits.config, expected);
    assert_eq!(own.config, BackendConfig::default());
    assert!(matches!(&own.source, Source::Registered { name } if name.as_str() == "builtin"));
    assert_eq!(far.source, Source::Onnx { path: "/abs/far.onnx".into() });

    let methods: Vec<_> = config.endpoints.iter().map(|endpoint| endpoint.methods.join(" ")).collect();
    assert_eq!(methods, ["POST", "GET PUT", "GET", "GET"]);
    assert_eq!(config.endpoints[1].route.as_ref().unwrap().as_str(), "/own/{id}");
    assert_eq!(
        serde_json::to_value(&config.endpoints[0].traffic).unwrap(),
        json!({"digits": 0.75, "own": 0.25})
    );
    assert_eq!(config.endpoints[0].affinity, Affinity::Replica);
    let shadow = |endpoint: usize| &config.endpoints[endpoint].shadow[..];
    assert_eq!(shadow(0), [ShadowRule::new("far", 0.1).unwrap()]);
    let exactly = ShadowRule::new("digits", 0.5).unwrap().compare(Compare::exact()).unwrap();
    assert_eq!(shadow(2), [exactly, ShadowRule::new("far", 1.0).unwrap()]);
    let within = Compare::within(0.5, 0.0).noise_floor(0.25).sample(3);
    assert_eq!(shadow(3), [ShadowRule::new("far", 1.0).unwrap().compare(within).unwrap()]);
}

#[test]
fn each_wrong_shadow_rule_is_told_with_its_place() {
    for (rules, told) in [
        ("{b: 1}", "shadow.b (line 10, column 17): there is no backend b; declared here: a, own"),
        (
            "{a: 1.5}",
            "shadow.a (line 10, column 17): a proportion of 1.5 was given; allowed: a number from 0 to 1",
        ),
        ("{a: {proportion: -1}}", "shadow.a.proportion (line 10, column 30): a proportion of -1 was given"),
        ("{a: {}}", "shadow.a (line 10, column 17): proportion is missing"),
        ("{a: {proportion: 1, x: 1}}", "shadow.a.x (line 10, column 33): unknown key"),
        (
            "{a: {proportion: 1, compare: about}}",
            "compare (line 10, column 42): the text \"about\" was given",
        ),
        (
            "{a: {proportion: 1, compare: {relative: -1}}}",
            "relative (line 10, column 53): the number -1 was given",
        ),
        ("{a: {proportion: 1, compare: {noise_floor: 2}}}", "allowed: a number from 0 to 1"),
        ("{a: {proportion: 1, compare: {sample: 257}}}", "allowed: a whole number from 0 to 256"),
        ("{a: {proportion: 1, compare: {by: f}}}", "compare.by (line 10"),
        ("{own: 1}", "shadow.own (line 10, column 19): backend own serves all of the endpoint"),
        ("[a]", "shadow (line 10, column 13): a list was given; allowed: a map"),
    ] {
        let text = format!(
            "backends:\n  - name: a\n    registered: a\n  - name: own\n    registered: own\nendpoints:\n  - name: e\n\
             \x20   backend: own\n    # Copies go elsewhere.\n    shadow: {rules}\n"
        );
        let found = problems(&text);
        assert!(found.len() == 1 && found[0].contains(told), "{rules}: {found:?}");
    }
}

#[test]
fn what_is_written_reads_back_the_same() {
    let config = yaml(WHOLE).unwrap();
    let written = serde_json::to_value(&config).unwrap();
    assert_eq!(ServeConfig::from_json(written, Path::new("/elsewhere")), Ok(config));
}

#[test]
fn what_a_file_does_not_say_has_its_default() {
    assert_eq!(yaml("{}"), Ok(ServeConfig::default()));
    assert_eq!(yaml("http:\nadmin:\nbackends:\nendpoints: []"), Ok(ServeConfig::default()));
}

#[test]
fn each_wrong_option_of_a_backend_is_told_with_its_place_and_what_is_allowed() {
    let cases = [
        (
            "num_replicas: -1",
            "num_replicas (line 4, column 19): the number -1 was given; allowed: a whole number from 0",
        ),
        ("num_replicas: 1.5", "the number 1.5 was given; allowed: a whole number from 0 to 10000"),
        ("num_replicas: 2.0", "the number 2.0 was given"),
        ("num_replicas: '2'", "the text \"2\" was given; allowed: a whole number"),
        ("num_replicas: 99999999999999999999", "the number 99999999999999999999 was given"),
        ("num_replicas: .nan", "the number .nan was given"),
        ("num_replicas:", "null was given; allowed"),
        ("max_batch_size: 0", "the number 0 was given; allowed: a whole number from 1 to 65536"),
        ("max_batch_size: 101", "max_concurrent_queries is 100 and max_batch_size is 101"),
        ("batch_wait_timeout_s: -1", "the number -1 was given; allowed: a number of seconds from 0 to 3600"),
        ("batch_wait_timeout_s: .nan", "the number .nan was given"),
        ("batch_wait_timeout_s: 3601", "the number 3601 was given"),
        ("batch_wait_timeout_s: 2ms", "the text \"2ms\" was given"),
        ("max_concurrent_queries: 0", "allowed: a whole number from 1 to 1000000"),
        ("max_queued_queries: -1", "allowed: a whole number from 0 to 10000000"),
        ("request_timeout_s: 0", "allowed: a number of seconds, more than 0 and at most 86400"),
        ("startup_timeout_s: .inf", "allowed: a number of seconds, more than 0"),
        ("graceful_shutdown_timeout_s: 1e300", "the number 1e300 was given"),
        ("idempotent: yes", "the text \"yes\" was given; allowed: true or false"),
        ("placement: gpu", "the text \"gpu\" was given; allowed: worker or dedicated"),
        ("num_threads: 0", "allowed: a whole number from 1 to 1024"),
        ("restart: 5", "restart (line 4, column 14): the number 5 was given; allowed: a map"),
        ("restart: {window_s: 0}", "restart.window_s (line 4, column 25): the number 0"),
        ("restart: {window: 1}", "restart.window (line 4, column 15): unknown key; did you mean window_s?"),
        (
            "autoscaling: {}",
            "autoscaling (line 4, column 5): unknown key; allowed: name, onnx, registered, version, num_rep",
        ),
        ("num_replica: 1", "unknown key; did you mean num_replicas? allowed: "),
        ("registered: b", "registered (line 4, column 5): the key is there twice, first on line 3"),
        ("onnx: x", "onnx and registered were both given"),
        ("python: {}", "python (line 4, column 5): not supported yet; allowed: onnx or registered"),
    ];
    for (line, told) in cases {
        let found = problems(&with(line, "backend: a"));
        let told = |found: &String| found.starts_with("backends[0].") && found.contains(told);
        assert!(found.len() == 1 && told(&found[0]), "{line}: {found:?}");
    }
}

#[test]
fn each_wrong_part_of_an_endpoint_is_told_with_its_place() {
    let cases = [
        ("backend: b", "endpoints[0].backend (line 7, column 14): there is no backend b; declared here: a"),
        ("traffic: {b: 1}", "endpoints[0].traffic.b (line 7, column 18): there is no backend b"),
        (
            "traffic: {a: 0.5}",
            "endpoints[0].traffic (line 7, column 14): the weights add up to 0.5; they must",
        ),
        ("traffic: {a: -1}", "traffic.a (line 7, column 18): a weight of -1 was given"),
        ("traffic: {a: .nan}", "the number .nan was given; allowed: a finite number"),
        ("traffic: {a: all}", "the text \"all\" was given"),
        ("traffic: {}", "no backend was given"),
        ("traffic: a", "the text \"a\" was given; allowed: a map"),
        (
            "traffic: {a b: 1}",
            "traffic[\"a b\"] (line 7, column 20): backend name: \"a b\" is not a valid name",
        ),
        ("methods: [GET]", "endpoints[0] (line 6, column 5): which backend answers is missing"),
        (
            "route: digits\n    backend: a",
            "route (line 7, column 12): \"digits\" is not a valid route: it must start",
        ),
        ("route: /v2/x\n    backend: a", "served by the server itself"),
        (
            "methods: [BREW]\n    backend: a",
            "methods[0] (line 7, column 15): the method \"BREW\" is not allowed",
        ),
        ("methods: []\n    backend: a", "no method was given"),
        ("methods: GET\n    backend: a", "the text \"GET\" was given; allowed: a list"),
        ("backend: a\n    traffic: {a: 1}", "traffic and backend were both given"),
        (
            "backend: a\n    splits: {a: 1}",
            "splits (line 8, column 5): unknown key; allowed: name, route, methods",
        ),
        (
            "backend: a\n    shadow: {a: 1}",
            "shadow.a (line 8, column 17): backend a serves all of the endpoint",
        ),
        ("backend: a\n    affinity: thread", "the text \"thread\" was given; allowed: backend or replica"),
    ];
    for (lines, told) in cases {
        let found = problems(&with("num_replicas: 1", lines));
        assert!(found.len() == 1 && found[0].contains(told), "{lines}: {found:?}");
    }
}

#[test]
fn each_wrong_listener_is_told_with_its_place() {
    let cases = [
        (
            "http: {location: headonly}",
            "http.location (line 1, column 18): the text \"headonly\" was given; allowed: Head",
        ),
        ("http: {host: ''}", "allowed: text that is not empty"),
        ("http: {host: 'localhost:8000'}", "\"localhost:8000\" is no IP address and no host name"),
        ("http: {host: 1.2.3.256}", "is no IP address"),
        ("http: {host: 8000}", "the number 8000 was given; allowed: text"),
        ("http: {port: 65536}", "allowed: a whole number from 0 to 65535"),
        ("http: {threads: 0}", "allowed: a whole number from 1 to 1024"),
        ("http: {max_body_bytes: 0}", "allowed: a whole number from 1 to 1073741824"),
        ("http: {body_timeout_s: 0}", "allowed: a number of seconds, more than 0 and at most 3600"),
        ("http: {tls: {}}", "http.tls (line 1, column 8): unknown key"),
        (
            "admin: {host: 0.0.0.0}",
            "\"0.0.0.0\" is not a loopback address; allowed: 127.0.0.1, ::1 or localhost",
        ),
        ("admin: {host: example.com}", "is not a loopback address"),
        ("admin: 8265", "allowed: a map"),
        ("backends: {}", "backends (line 1, column 11): a map was given; allowed: a list"),
        ("endpoint: []", "endpoint (line 1, column 1): unknown key; did you mean endpoints?"),
        ("[]", "line 1, column 1: a list was given; allowed: a map"),
    ];
    for (text, told) in cases {
        let found = problems(text);
        assert!(found.len() == 1 && found[0].contains(told), "{text}: {found:?}");
    }
    assert!(yaml("admin: {host: '::1'}").is_ok() && yaml("admin: {host: 127.9.9.9}").is_ok());
}

#[test]
fn names_and_routes_are_there_once() {
    let text = "backends: [{name: a, registered: a}, {name: a, registered: b}]\n\
                endpoints:\n- {name: e, route: '/{x}', backend: a}\n- {name: e, route: '/{y}', backend: a}\n";
    let expected = [
        "backends[1].name (line 1, column 45): backend a is there twice, first at backends[0].name (line 1, column 19)",
        "endpoints[1].name (line 4, column 10): endpoint e is there twice, first at endpoints[0].name (line 3, column 10)",
        "endpoints[1].route (line 4, column 20): the route /{y} matches the same paths as the one at \
         endpoints[0].route (line 3, column 20)",
    ];
    assert_eq!(problems(text), expected);
}

#[test]
fn one_mistake_does_not_bring_forth_another() {
    let nameless = "backends: [{name: a b, registered: a}]\nendpoints: [{name: e, backend: a}]";
    assert_eq!(problems(nameless).len(), 1);
    let wrong_option =
        "backends: [{name: a, python: {}, num_replicas: -1}]\nendpoints: [{name: e, backend: a}]";
    assert_eq!(problems(wrong_option).len(), 2);
    let wrong_size = with("max_batch_size: 200\n    max_concurrent_queries: many", "backend: a");
    assert_eq!(problems(&wrong_size).len(), 1);
}

#[test]
fn json_has_the_same_form_and_its_places_are_paths() {
    let json = json!({"backends": [{"name": "a", "num_replicas": 1e9}], "x": null});
    let error = ServeConfig::from_json(json, Path::new("")).unwrap_err().to_string();
    for told in [
        "backends[0].num_replicas: the number",
        "backends[0]: what it is made of is missing",
        "x: unknown key",
    ] {
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn problems_past_the_first_hundred_are_counted() {
    let text: String = (0..1000).map(|i| format!("k{i}: 1\n")).collect();
    let found = problems(&text);
    assert_eq!((found.len(), found[100].as_str()), (101, "configuration: 900 more problems"));
}

#[test]
fn a_slash_at_the_end_and_a_parameter_are_different_routes() {
    let text = "backends: [{name: a, registered: a}]\nendpoints:\n\
                - {name: e, route: '/x/', backend: a}\n- {name: f, route: '/x/{y}', backend: a}\n";
    assert_eq!(yaml(text).map(|config| config.endpoints.len()), Ok(2));
}

proptest! {
    #[test]
    fn no_change_of_a_few_characters_makes_it_panic(
        at in 0..WHOLE.len(), length in 0..10_usize, new in "[-a1:,\\[\\]{}&*!|>'\"#%@~?. \n]{0,3}",
    ) {
        let mut text = WHOLE.to_owned();
        text.replace_range(at..(at + length).min(WHOLE.len()), &new);
        if let Err(error) = yaml(&text) {
            prop_assert!(matches!(error, ServeError::InvalidConfig(problems) if !problems.is_empty()));
        }
    }
}

#[test]
fn the_socket_of_a_takeover_lies_beside_the_file() {
    assert_eq!(ServeConfig::from_yaml("{}", Path::new("/srv")).unwrap().takeover, None);
    for (text, path) in [
        ("takeover: a.sock", Some("/srv/a.sock")),
        ("takeover: /run/a.sock", Some("/run/a.sock")),
        ("takeover: ~", None),
    ] {
        let config = ServeConfig::from_yaml(text, Path::new("/srv")).unwrap();
        assert_eq!(config.takeover.as_deref(), path.map(Path::new), "{text}");
        let json = serde_json::to_value(&config).unwrap();
        assert_eq!(ServeConfig::from_json(json, Path::new("/elsewhere")).unwrap(), config);
    }
    for text in ["takeover: 8000", "takeover: ''", "takeover: [a]", "takeover: true"] {
        let error = ServeConfig::from_yaml(text, Path::new("/srv")).unwrap_err().to_string();
        assert!(error.contains("takeover"), "{error}");
    }
}
