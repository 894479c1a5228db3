//! Plans between random configurations: what their steps come to, and what each prefix of them leaves.

use std::{collections::BTreeMap, path::Path, time::Duration};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    actors::release::{self, Change, Given},
    config::{BackendConfig, BackendDecl, EndpointDecl, ServeConfig, Source},
    ids::{BackendName, EndpointName},
    resources::Resources,
    route::RoutePattern,
    traffic::{Affinity, ShadowRule, TrafficPolicy},
};

const SAME: fn(&BackendName) -> bool = |_| true;

fn backend(name: &str) -> BackendDecl {
    let name = BackendName::new(name).unwrap();
    BackendDecl { source: Source::Registered { name: name.clone() }, name, config: BackendConfig::default() }
}

fn endpoint(name: &str, weights: &[(&str, f64)]) -> EndpointDecl {
    EndpointDecl {
        name: EndpointName::new(name).unwrap(),
        route: None,
        methods: vec!["GET".into()],
        traffic: TrafficPolicy::new(weights.iter().copied()).unwrap(),
        shadow: Vec::new(),
        affinity: Affinity::Backend,
    }
}

fn config(backends: Vec<BackendDecl>, endpoints: Vec<EndpointDecl>) -> ServeConfig {
    ServeConfig { backends, endpoints, ..ServeConfig::default() }
}

fn config_of(backends: Vec<BackendDecl>) -> ServeConfig {
    config(backends, Vec::new())
}

/// Two backends and an endpoint to one of them.
fn two() -> ServeConfig {
    config(vec![backend("a"), backend("b")], vec![endpoint("e", &[("a", 1.0)])])
}

fn changed(change: impl FnOnce(&mut ServeConfig)) -> ServeConfig {
    let mut config = two();
    change(&mut config);
    config
}

/// `action name: why, why`.
fn told(plan: &Plan) -> Vec<String> {
    let step = |step: &PlanStep| {
        let why: Vec<_> = step.why.iter().map(|why| why.text.as_str()).collect();
        format!("{} {}: {}", step.action, step.name, why.join(", "))
    };
    plan.steps.iter().map(step).collect()
}

fn plan(wanted: &ServeConfig) -> Vec<String> {
    told(&Plan::between(&two(), None, wanted, SAME))
}

#[test]
fn each_change_of_a_backend_has_the_step_that_it_takes_and_says_why() {
    let a = |change: fn(BackendConfig) -> BackendConfig| {
        plan(&changed(|config| {
            config.backends[0].config = change(config.backends[0].config.clone());
        }))
    };
    assert_eq!(a(|config| config), [""; 0]);
    assert_eq!(a(|config| config.num_replicas(3)), ["scale a: num_replicas: 1 -> 3"]);
    assert_eq!(a(|config| config.max_queued_queries(7)), ["update a: max_queued_queries: 1000 -> 7"]);
    assert_eq!(
        a(|config| config.user_config(json!({"threshold": 0.5})).num_replicas(2)),
        ["reconfigure a: num_replicas: 1 -> 2, user_config: none -> {\"threshold\":0.5}"]
    );
    assert_eq!(
        a(|config| config.resources(Resources::default().num_cpus(0.5).custom("license", 1.0))),
        ["roll a: resources.custom.license: none -> 1.0, resources.num_cpus: 1.0 -> 0.5"]
    );
    assert_eq!(a(|config| config.max_batch_size(8)), ["roll a: max_batch_size: none -> 8"]);
    let mut batched = two();
    batched.backends[0].config = BackendConfig::default().max_batch_size(8);
    let mut larger = two();
    larger.backends[0].config = BackendConfig::default().max_batch_size(16);
    assert_eq!(told(&Plan::between(&batched, None, &larger, SAME)), ["update a: max_batch_size: 8 -> 16"]);
}

#[test]
fn other_code_rolls_and_a_file_with_the_same_bytes_does_not() {
    let other = |name: &BackendName| name.as_str() != "a";
    assert_eq!(told(&Plan::between(&two(), None, &two(), other)), ["roll a: its code has changed"]);
    let moved = changed(|config| config.backends[0].source = Source::Onnx { path: "new.onnx".into() });
    let why = "onnx: none -> \"new.onnx\", registered: \"a\" -> none";
    assert_eq!(told(&Plan::between(&two(), None, &moved, other)), [format!("roll a: {why}")]);
    assert_eq!(told(&Plan::between(&two(), None, &moved, SAME)), [format!("update a: {why}")]);
}

#[test]
fn each_change_of_an_endpoint_has_its_step() {
    let e = |change: fn(&mut EndpointDecl)| plan(&changed(|config| change(&mut config.endpoints[0])));
    assert_eq!(
        e(|e| e.traffic = TrafficPolicy::new([("a", 0.5), ("b", 0.5)]).unwrap()),
        ["set_traffic e: traffic: {\"a\":1.0} -> {\"a\":0.5,\"b\":0.5}"]
    );
    assert_eq!(
        e(|e| e.shadow = vec![ShadowRule::new("b", 0.5).unwrap()]),
        ["set_shadow e: shadow: {} -> {\"b\":{\"proportion\":0.5}}"]
    );
    assert_eq!(e(|e| e.shadow = vec![ShadowRule::new("b", 0.0).unwrap()]), [""; 0]);
    assert_eq!(
        e(|e| {
            e.route = Some(RoutePattern::parse("/e").unwrap());
            e.methods = vec!["POST".into(), "GET".into()];
            e.traffic = TrafficPolicy::new([("b", 1.0)]).unwrap();
        }),
        [
            "replace e: route: none -> \"/e\", methods: [\"GET\"] -> [\"POST\",\"GET\"], traffic: {\"a\":1.0} -> {\"b\":1.0}"
        ]
    );
}

#[test]
fn replicas_that_go_make_room_before_others_come_and_what_is_gone_goes_last() {
    let mut now = two();
    now.backends[0].config.num_replicas = 3;
    now.endpoints.push(endpoint("old", &[("b", 1.0)]));
    let mut wanted = config(vec![backend("c"), backend("a")], vec![endpoint("new", &[("c", 1.0)])]);
    wanted.endpoints.push(endpoint("e", &[("c", 1.0)]));
    assert_eq!(
        told(&Plan::between(&now, None, &wanted, SAME)),
        [
            "scale a: num_replicas: 3 -> 1",
            "create c: not there yet",
            "create new: not there yet",
            "set_traffic e: traffic: {\"a\":1.0} -> {\"c\":1.0}",
            "delete old: absent in the new config",
            "delete b: absent in the new config",
        ]
    );
}

#[test]
fn what_was_changed_by_hand_is_told_where_it_would_be_overwritten() {
    let declared = two();
    let by_hand = changed(|config| {
        config.backends[0].config.num_replicas = 5;
        config.backends[1].config.max_queued_queries = 7;
        config.backends.push(backend("mine"));
        config.endpoints.clear();
    });
    let wanted = changed(|config| {
        config.backends[0].config.num_replicas = 2;
        config.backends[1].config.max_queued_queries = 7;
    });
    let drift = |wanted: &ServeConfig| {
        let plan = Plan::between(&by_hand, Some(&declared), wanted, SAME);
        let told = |drift: &Drift| format!("{} {}: {}", drift.subject, drift.name, drift.what[0]);
        plan.drift.iter().map(told).collect::<Vec<_>>()
    };
    assert_eq!(
        drift(&wanted),
        ["backend a: num_replicas: 1 -> 5", "backend mine: created", "endpoint e: deleted"]
    );
    assert_eq!(drift(&by_hand), [""; 0], "what stays is not overwritten");
    assert_eq!(Plan::between(&by_hand, None, &wanted, SAME).drift, []);
}

#[test]
fn people_read_a_table_and_machines_json() {
    let by_hand = changed(|config| config.backends[0].config.num_replicas = 5);
    let wanted = changed(|config| {
        config.backends[0].config = BackendConfig::default().num_replicas(2).max_queued_queries(7);
        config.endpoints[0].traffic = TrafficPolicy::new([("b", 1.0)]).unwrap();
        config.backends.push(backend("another"));
    });
    let plan = Plan::between(&by_hand, Some(&two()), &wanted, SAME);
    let table = "\
scale        backend   a        max_queued_queries: 1000 -> 7
                                num_replicas: 5 -> 2
create       backend   another  not there yet
set_traffic  endpoint  e        traffic: {\"a\":1.0} -> {\"b\":1.0}
changed by hand since it was declared, and overwritten by this:
  backend a: num_replicas: 1 -> 5";
    assert_eq!(plan.to_string(), table);
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(
        json["steps"][0],
        json!({"action": "scale", "subject": "backend", "name": "a", "why": [
            {"text": "max_queued_queries: 1000 -> 7", "field": "max_queued_queries", "from": 1000, "to": 7},
            {"text": "num_replicas: 5 -> 2", "field": "num_replicas", "from": 5, "to": 2},
        ]})
    );
    assert_eq!(json["steps"][1]["why"], json!([{"text": "not there yet"}]));
    assert_eq!(json["drift"][0]["name"], "a");
    assert_eq!(Plan::default().to_string(), "nothing to change");
}

fn options() -> impl Strategy<Value = BackendConfig> {
    let replicas = 0..3_u32;
    let queued = prop_oneof![Just(1000), 0..5_usize];
    let batch = prop_oneof![Just(None), (1..3_usize).prop_map(Some)];
    let user = prop_oneof![Just(None), (0..2).prop_map(|n| Some(json!({"n": n})))];
    let cpus = prop_oneof![Just(1.0), Just(0.5)];
    let wait = (0..2_u64).prop_map(Duration::from_secs);
    (replicas, queued, batch, user, cpus, wait).prop_map(|(replicas, queued, batch, user, cpus, wait)| {
        BackendConfig::default()
            .num_replicas(replicas)
            .max_queued_queries(queued)
            .max_batch_size(batch)
            .user_config(user)
            .batch_wait_timeout(wait)
            .resources(Resources::default().num_cpus(cpus))
    })
}

/// Any of five backends, any of four endpoints over those that there are, with routes that differ.
fn configs() -> impl Strategy<Value = ServeConfig> {
    let source = prop_oneof![Just(None), Just(Some("m.onnx")), Just(Some("n.onnx"))];
    let backends = prop::collection::btree_map(0..5_usize, (source, options()), 1..5);
    let endpoint = (0..3_usize, 0..4_usize, prop::collection::vec(0..9_usize, 3), any::<bool>());
    let endpoints = prop::collection::btree_map(0..4_usize, endpoint, 0..4);
    (backends, endpoints, any::<bool>()).prop_map(|(backends, endpoints, reversed)| {
        let mut backends: Vec<_> = backends
            .into_iter()
            .map(|(i, (source, config))| {
                let mut decl = BackendDecl { config, ..backend(&format!("b{i}")) };
                if let Some(path) = source {
                    decl.source = Source::Onnx { path: path.into() };
                    decl.config.user_config = None;
                }
                decl
            })
            .collect();
        let mut taken = Vec::new();
        let endpoints = endpoints.into_iter().map(|(i, (methods, route, picks, keeps))| {
            let name = |pick: usize| backends[pick % backends.len()].name.as_str();
            let mut decl = match name(picks[0]) == name(picks[1]) {
                true => endpoint_of(i, &[(name(picks[0]), 1.0)]),
                false => endpoint_of(i, &[(name(picks[0]), 0.25), (name(picks[1]), 0.75)]),
            };
            decl.methods = [vec!["GET"], vec!["GET", "POST"], vec!["POST", "GET"]][methods]
                .iter()
                .map(|method| (*method).to_owned())
                .collect();
            // Endpoints may take over each other's routes.
            let route = Some((i + route) % 4).filter(|free| route > 0 && !taken.contains(free));
            taken.extend(route);
            decl.route = route.map(|route| RoutePattern::parse(format!("/{route}")).unwrap());
            decl.affinity = if keeps { Affinity::Replica } else { Affinity::Backend };
            if !decl.traffic.serves_all(&BackendName::new(name(picks[2])).unwrap()) {
                decl.shadow = vec![ShadowRule::new(name(picks[2]), (picks[2] % 3) as f64 / 2.0).unwrap()];
            }
            decl
        });
        let endpoints = endpoints.collect();
        if reversed {
            backends.reverse();
        }
        config(backends, endpoints)
    })
}

fn endpoint_of(i: usize, weights: &[(&str, f64)]) -> EndpointDecl {
    endpoint(&format!("e{i}"), weights)
}

/// A configuration by names, without what makes no difference.
#[derive(Clone, Debug, PartialEq)]
struct World {
    backends: BTreeMap<BackendName, BackendDecl>,
    endpoints: BTreeMap<EndpointName, EndpointDecl>,
}

impl World {
    fn of(config: &ServeConfig) -> Self {
        let backends = config.backends.iter().map(|decl| (decl.name.clone(), decl.clone()));
        let endpoints = config.endpoints.iter().map(|decl| (decl.name.clone(), plain(decl)));
        Self { backends: backends.collect(), endpoints: endpoints.collect() }
    }

    fn take(&mut self, step: &PlanStep) {
        match step.work.clone() {
            Work::Backend(decl) => drop(self.backends.insert(decl.name.clone(), *decl)),
            Work::Endpoint(decl) => drop(self.endpoints.insert(decl.name.clone(), plain(&decl))),
            Work::DeleteEndpoint(name) => assert!(self.endpoints.remove(&name).is_some()),
            Work::DeleteBackend(name) => assert!(self.backends.remove(&name).is_some()),
        }
    }

    /// Whether every backend that an endpoint names is there.
    fn whole(&self) -> bool {
        let names = |decl: &EndpointDecl| {
            let shadows = decl.shadow.iter().map(|rule| rule.backend().clone());
            decl.traffic.iter().map(|(backend, _)| backend.clone()).chain(shadows).collect::<Vec<_>>()
        };
        self.endpoints.values().flat_map(names).all(|backend| self.backends.contains_key(&backend))
    }
}

fn plain(decl: &EndpointDecl) -> EndpointDecl {
    let mut decl = decl.clone();
    decl.methods.sort();
    decl.shadow.retain(|rule| rule.proportion() > 0.0);
    decl
}

proptest! {
    #[test]
    fn the_steps_lead_exactly_to_what_is_wanted_and_never_name_a_backend_that_is_not_there(
        now in configs(),
        wanted in configs(),
        declared in proptest::option::of(configs()),
        same in any::<bool>(),
    ) {
        let plan = Plan::between(&now, declared.as_ref(), &wanted, |_| same);
        let (mut world, target) = (World::of(&now), World::of(&wanted));
        for step in &plan.steps {
            prop_assert!(!step.why.is_empty());
            world.take(step);
            prop_assert!(world.whole(), "after {step}");
        }
        prop_assert_eq!(&world, &target);
        let names: Vec<_> = plan.steps.iter().map(|step| (step.action, step.subject, &step.name)).collect();
        let once: std::collections::HashSet<_> = names.iter().collect();
        prop_assert_eq!(names.len(), once.len(), "each step once");
    }

    #[test]
    fn a_plan_says_what_is_really_done_to_a_backend(old in options(), new in options(), version in 0..3_u8) {
        let mut new = new;
        new.version = (version > 0).then(|| version.to_string());
        let [before, after] = [&old, &new].map(|config| {
            let decl = BackendDecl { config: config.clone(), ..backend("a") };
            config_of(vec![decl])
        });
        let [from, to] = [&old, &new].map(|config| release::Declared { config, fingerprint: None });
        let same = release::same_code(from, to, Given::Same);
        let plan = Plan::between(&before, None, &after, |_| same);
        let done = match release::change(from, to, Given::Same) {
            Change::Nothing => None,
            Change::Push => Some(PlanAction::Update),
            Change::Scale => Some(PlanAction::Scale),
            Change::Reconfigure => Some(PlanAction::Reconfigure),
            Change::Roll => Some(PlanAction::Roll),
        };
        prop_assert_eq!(plan.steps.first().map(|step| step.action), done);
    }

    #[test]
    fn from_a_configuration_to_itself_there_is_nothing_to_do(
        config in configs(),
        declared in proptest::option::of(configs()),
    ) {
        let plan = Plan::between(&config, declared.as_ref(), &config, SAME);
        prop_assert_eq!(plan, Plan::default());
        let json = serde_json::to_value(&config).unwrap();
        let read = ServeConfig::from_json(json, Path::new("")).unwrap();
        prop_assert_eq!(Plan::between(&config, None, &read, SAME), Plan::default(), "nor to its JSON form");
    }
}
