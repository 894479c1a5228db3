//! Resources and capacity in files, JSON and setters: what is read, what is refused with its place, what is threads.

use std::path::Path;

use serde_json::json;

use super::{BackendConfig, BackendUpdate, ServeConfig};
use crate::{
    error::ServeError,
    resources::{Amount, Capacity, Resources},
};

fn yaml(text: &str) -> Result<ServeConfig, ServeError> {
    ServeConfig::from_yaml(text, Path::new("/base"))
}

fn problems(refused: Result<impl std::fmt::Debug, ServeError>) -> Vec<String> {
    match refused.unwrap_err() {
        ServeError::InvalidConfig(problems) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("another error: {other}"),
    }
}

fn backend(resources: &str) -> String {
    format!("backends:\n  - name: a\n    registered: a\n    resources: {resources}\n")
}

#[test]
fn a_file_says_what_replicas_ask_for_and_what_there_is() {
    let text =
        backend("{num_cpus: 0.5, num_gpus: 0.25, gpu_memory_bytes: 7, memory_bytes: 9, custom: {a.b: 1.5}}")
            + "capacity: {num_cpus: 8, num_gpus: 1, memory_bytes: 1000, custom: {a.b: 3}}";
    let config = yaml(&text).unwrap();
    let asked = Resources::default().num_cpus(0.5).num_gpus(0.25).gpu_memory_bytes(7).memory_bytes(9);
    assert_eq!(config.backends[0].config.resources, asked.custom("a.b", 1.5));
    let there = Capacity::default().num_cpus(8.0).num_gpus(1).memory_bytes(1000).custom("a.b", 3.0);
    assert_eq!(config.capacity, there);
    let written = serde_json::to_value(&config).unwrap();
    assert_eq!(written["backends"][0]["resources"]["num_cpus"], json!(0.5));
    assert_eq!(ServeConfig::from_json(written, Path::new("/elsewhere")), Ok(config));
}

#[test]
fn what_a_capacity_does_not_say_is_detected_and_null_is_not_counted() {
    assert_eq!(yaml("capacity: {}").unwrap().capacity, Capacity::default());
    let nothing = yaml("capacity: {num_cpus: ~, num_gpus: null, memory_bytes: ~, custom: ~}").unwrap();
    assert_eq!(nothing.capacity, Capacity::unlimited());
    let written = serde_json::to_value(&nothing).unwrap();
    assert_eq!(ServeConfig::from_json(written, Path::new("/elsewhere")), Ok(nothing));
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(Capacity::default().num_cpus, Some(Amount::whole(cores as u32)));
}

#[test]
fn each_wrong_amount_is_told_with_its_place_and_what_is_allowed() {
    for (resources, told) in [
        (
            "{num_cpus: -1}",
            "backends[0].resources.num_cpus (line 4, column 27): -1 was given; nobody can ask for less",
        ),
        (
            "{num_cpus: .nan}",
            "num_cpus (line 4, column 27): the number .nan was given; allowed: a finite number",
        ),
        ("{num_cpus: .inf}", "the number .inf was given; allowed: a finite number"),
        ("{num_cpus: 0.00001}", "0.00001 was given; it has more than four decimals"),
        ("{num_cpus: 1000001}", "1000001 was given; at most 1000000 is allowed"),
        ("{num_cpus: all}", "the text \"all\" was given"),
        ("{num_cpus: ~}", "null was given"),
        ("{num_gpus: 1.5}", "num_gpus (line 4, column 27): 1.5 is above 1 and not whole"),
        ("{num_gpus: -0.5}", "-0.5 is negative"),
        ("{num_gpus: 65}", "65 devices are more than 64"),
        ("{gpu_memory_bytes: 1}", "gpu_memory_bytes (line 4, column 35): 1 was given and num_gpus is 0"),
        ("{num_gpus: .nan}", "num_gpus (line 4, column 27): the number .nan was given; allowed: a finite"),
        ("{num_gpus: -.inf}", "the number -.inf was given; allowed: a finite number"),
        ("{num_gpus: 1e-5}", "num_gpus (line 4, column 27): 0.00001 is finer than 0.0001"),
        ("{num_gpus: 1e300}", "num_gpus (line 4, column 27): 1e300 devices are more than 64"),
        ("{num_gpus: '0.5'}", "num_gpus (line 4, column 27): the text \"0.5\" was given"),
        ("{num_gpus: -0.0, gpu_memory_bytes: 1}", "gpu_memory_bytes (line 4, column 51): 1 was given and"),
        ("{num_gpus: 1, gpu_memory_bytes: -1}", "the number -1 was given; allowed: a whole number from 0"),
        ("{num_gpus: 1, gpu_memory_bytes: 0.5}", "the number 0.5 was given; allowed: a whole number from"),
        ("{num_gpus: 1, gpu_memory_bytes: 1GiB}", "the text \"1GiB\" was given; allowed: a whole number"),
        ("{memory_bytes: 1.5}", "the number 1.5 was given; allowed: a whole number from 0"),
        ("{memory_bytes: -1}", "the number -1 was given; allowed: a whole number from 0"),
        ("{custom: {num_cpus: 1}}", "custom.num_cpus (line 4, column 36): num_cpus has a key of its own"),
        ("{custom: {a b: 1}}", "custom[\"a b\"] (line 4, column 31): a name of a resource has 1 to 64"),
        ("{custom: {a: -1}}", "custom.a (line 4, column 29): -1 was given; nobody can ask"),
        ("{custom: [a]}", "a list was given; allowed: a map"),
        (
            "{num_cpu: 1}",
            "resources.num_cpu (line 4, column 17): unknown key; did you mean num_cpus? allowed: num_cpus, num_gpus",
        ),
        ("2", "resources (line 4, column 16): the number 2 was given; allowed: a map"),
    ] {
        let found = problems(yaml(&backend(resources)));
        assert!(found.len() == 1 && found[0].contains(told), "{resources}: {found:?}");
    }
    for (capacity, told) in [
        ("{num_cpus: -1}", "capacity.num_cpus (line 1, column 22): -1 was given"),
        (
            "{num_gpus: 0.5}",
            "capacity.num_gpus (line 1, column 22): the number 0.5 was given; allowed: a whole",
        ),
        ("{num_gpus: 65}", "allowed: a whole number from 0 to 64"),
        ("{custom: {'': 1}}", "a name of a resource has 1 to 64"),
        ("{gpu_memory_bytes: 1}", "capacity.gpu_memory_bytes (line 1, column 12): unknown key"),
    ] {
        let found = problems(yaml(&format!("capacity: {capacity}")));
        assert!(found.len() == 1 && found[0].contains(told), "{capacity}: {found:?}");
    }
    let many: Vec<_> = (0..33).map(|i| format!("r{i}: 1")).collect();
    let many = format!("{{custom: {{{}}}}}", many.join(", "));
    assert!(problems(yaml(&backend(&many)))[0].ends_with("33 were given; at most 32 are allowed"));
}

#[test]
fn no_share_of_a_gpu_is_asked_for_with_0_however_it_is_written() {
    for zero in ["0", "0.0", "-0.0", "0e5"] {
        let config = yaml(&backend(&format!("{{num_gpus: {zero}, gpu_memory_bytes: 0}}"))).unwrap();
        assert_eq!(config.backends[0].config.resources, Resources::default(), "{zero}");
    }
}

#[test]
fn a_misspelt_kind_of_share_is_told_with_what_is_allowed() {
    let with = |line: &str| problems(yaml(&(backend("{num_gpus: 0.5}") + "    " + line + "\n")));
    for (line, told) in [
        (
            "gpu_share: hardcap",
            "gpu_share (line 5, column 16): the text \"hardcap\" was given; allowed: work_conserving or hard_cap",
        ),
        ("gpu_share: HARD_CAP", "allowed: work_conserving or hard_cap"),
        ("gpu_share: 0.5", "the number 0.5 was given; allowed: work_conserving or hard_cap"),
        ("gpu_shares: hard_cap", "unknown key; did you mean gpu_share?"),
    ] {
        let found = with(line);
        assert!(found.len() == 1 && found[0].contains(told), "{line}: {found:?}");
    }
    let none = problems(yaml(&(backend("{num_gpus: 0}") + "    gpu_share: hard_cap\n")));
    assert!(none.concat().contains("there is nothing to cap"), "{none:?}");
}

#[test]
fn setters_tell_the_same_with_the_option_s_key() {
    let wrong = Resources::default().num_cpus(f64::NAN).num_gpus(2.5).custom("a/b", 1.0);
    let found = problems(BackendConfig::default().resources(wrong).check());
    let places: Vec<_> = found.iter().filter_map(|told| Some(told.split_once(": ")?.0)).collect();
    assert_eq!(places, ["resources.num_cpus", "resources.num_gpus", "resources.custom.a/b"]);
    let wrong = Capacity::default().num_cpus(-1.0).num_gpus(65).custom("", 1.0);
    assert_eq!(problems(wrong.check()).len(), 3);
    assert_eq!(wrong.num_cpus(1.0).num_gpus(1).check().map_err(|_| ()), Err(()));
}

#[test]
fn an_update_changes_only_the_resources_that_it_gives() {
    let old = Resources::default().num_cpus(2.0).memory_bytes(5).custom("a", 1.0).custom("b", 1.0);
    let update = json!({"resources": {"num_gpus": 0.5, "custom": {"a": 0, "c": 2}}});
    let new =
        BackendConfig::default().resources(old.clone()).updated(&BackendUpdate::from_json(update).unwrap());
    assert_eq!(new.unwrap().resources, old.num_gpus(0.5).custom("a", 0.0).custom("c", 2.0));
}

#[test]
fn threads_are_the_whole_cpus_at_least_one_unless_they_are_set() {
    let with = |cpus: f64| BackendConfig::default().resources(Resources::default().num_cpus(cpus));
    let threads = |config: BackendConfig| config.threads();
    assert_eq!([0.0, 0.5, 1.0, 1.9999, 2.5, 8.0].map(|cpus| threads(with(cpus))), [1, 1, 1, 1, 2, 8]);
    assert_eq!(threads(with(1e6)), 1024);
    assert_eq!(threads(with(8.0).num_threads(3)), 3);
}
