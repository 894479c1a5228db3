//! Tests of the state directory: what is read back, what is refused, and what a failed save leaves.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Saved, Store, absolute, checked, decl_of, same, straight, with_functions};
use crate::{
    config::{BackendConfig, BackendDecl, EndpointDecl, RestartPolicy, ServeConfig, Source},
    endpoint::Endpoint,
    error::{ServeError, StateError},
    ids::{BackendName, EndpointName},
    resources::Resources,
    traffic::{Compare, ShadowRule, TrafficPolicy},
};

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("greenroom-store-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    fn json(&self) -> PathBuf {
        self.state().join("state.json")
    }

    /// Names of the files in the state directory.
    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.state()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn backend(name: &str, config: BackendConfig) -> BackendDecl {
    let name = BackendName::new(name).unwrap();
    BackendDecl { source: Source::Registered { name: name.clone() }, name, config }
}

fn endpoint(name: &str, endpoint: Endpoint) -> EndpointDecl {
    decl_of(&EndpointName::new(name).unwrap(), &endpoint.check().unwrap())
}

fn one(replicas: u32) -> Saved {
    let mut saved = Saved::default();
    saved.put_backend(backend("a", BackendConfig::default().num_replicas(replicas)));
    saved
}

fn open(path: &Path) -> Result<(Store, Option<Saved>), ServeError> {
    Store::open(path, |_| None)
}

/// Why a directory is refused.
fn refused(path: &Path) -> StateError {
    match open(path) {
        Err(ServeError::State(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// All that is hard to write down.
fn odd() -> Saved {
    let deep = (0..30).fold(json!({"x": 0.1}), |inner, _| json!([inner]));
    let mut saved = one(0);
    let config = BackendConfig::default()
        .user_config(deep)
        .max_batch_size(7)
        .request_timeout(Duration::from_nanos(12_345_678_901_234))
        .batch_wait_timeout(Duration::from_nanos(1))
        .num_threads(3)
        .restart(RestartPolicy { window: Duration::from_millis(1), ..RestartPolicy::default() })
        .resources(Resources::default().num_cpus(0.0001).num_gpus(0.3333).custom("a.b", 0.7));
    saved.put_backend(backend("odd", config));
    saved.put_backend(BackendDecl {
        source: Source::Onnx { path: "/models/ä b.onnx".into() },
        ..backend("model", BackendConfig::default())
    });
    let split = TrafficPolicy::new([("a", 0.1), ("model", 0.7), ("odd", 0.2)]).unwrap();
    let far = ShadowRule::new("odd", 0.1 + 0.2).unwrap();
    let near = ShadowRule::new("a", 1.0).unwrap().compare(Compare::within(0.0, 0.1).sample(0)).unwrap();
    saved.put_endpoint(endpoint(
        "split",
        Endpoint::split(split).shadow(far).shadow(near).route("/x/{id}").methods(["PUT", "GET"]),
    ));
    // All traffic went to the shadow, so its rule rests.
    let rests = ShadowRule::new("a", 0.5).unwrap();
    saved.put_endpoint(endpoint("rests", Endpoint::new("a").shadow(rests)));
    let given = endpoint("split", Endpoint::new("gone").route("/x/{other}"));
    saved.given.endpoints.insert(given.name.clone(), given);
    let given = endpoint("other", Endpoint::new("a").route("/x/{id}"));
    saved.given.endpoints.insert(given.name.clone(), given);
    let given = backend("a", BackendConfig::default());
    saved.given.backends.insert(given.name.clone(), given);
    saved.desired.state = Some("/somewhere".into());
    saved.desired.capacity = saved.desired.capacity.clone().num_cpus(None).custom("a.b", 2.5);
    saved.declared = Some(ServeConfig { endpoints: Vec::new(), ..saved.desired.clone() });
    saved.applied(1_763_700_000.123_456, "file".into(), saved.declared.clone().unwrap());
    saved.applied(1_763_700_001.0, "rollback to 1".into(), ServeConfig::default());
    saved
}

#[test]
fn what_is_saved_is_read_back_the_same() {
    let folder = Folder::new();
    let (mut store, before) = open(&folder.state()).unwrap();
    assert_eq!(before, None);
    store.save(&odd()).unwrap();
    drop(store);
    let (mut store, read) = open(&folder.state()).unwrap();
    assert_eq!(read, Some(odd()));
    store.save(&one(3)).unwrap();
    drop(store);
    assert_eq!(open(&folder.state()).unwrap().1, Some(one(3)));
    let text: Value = serde_json::from_slice(&fs::read(folder.json()).unwrap()).unwrap();
    assert_eq!(
        (&text["format"], &text["sequence"]),
        (&json!(1), &json!(2)),
        "saves are counted across processes"
    );
    assert_eq!(text["desired"]["backends"][0]["num_replicas"], 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_weight_timeout_and_amount_is_read_back_exactly(
        part in 0.0_f64..=1.0,
        nanos in 1_u64..=86_400_000_000_000,
        ten_thousandths in 0_u32..=10_000,
    ) {
        let config = BackendConfig::default()
            .startup_timeout(Duration::from_nanos(nanos))
            .resources(Resources::default().num_cpus(f64::from(ten_thousandths) / 10_000.0));
        config.check().unwrap();
        let mut saved = one(1);
        saved.put_backend(backend("b", config));
        let split = TrafficPolicy::new([("a", part), ("b", 1.0 - part)]).unwrap();
        saved.put_endpoint(endpoint("e", Endpoint::split(split)));
        let read = ServeConfig::from_kept(serde_json::to_value(&saved.desired).unwrap());
        prop_assert_eq!(read, Ok(saved.desired));
    }
}

#[test]
fn a_second_one_is_refused_with_the_process_that_works_there() {
    let folder = Folder::new();
    let first = open(&folder.state()).unwrap();
    let why = refused(&folder.state());
    assert_eq!(why, StateError::InUse { path: folder.state(), pid: Some(std::process::id()) });
    assert!(
        why.to_string().contains(&format!("in use by process {}; stop that one first", std::process::id()))
    );
    drop(first);
    assert!(open(&folder.state()).is_ok());
}

#[test]
fn what_can_be_no_directory_or_cannot_be_written_is_refused_at_once() {
    let folder = Folder::new();
    let file = folder.0.join("file");
    fs::write(&file, "x").unwrap();
    assert_eq!(refused(&file), StateError::NotADirectory { path: file.clone() });
    assert_eq!(fs::read(&file).unwrap(), b"x");
    for path in [file.join("state"), folder.0.join("not/there")] {
        let why = refused(&path);
        assert!(matches!(&why, StateError::Unusable { doing: "made", .. }), "{why}");
        assert!(why.to_string().contains("give it a directory that it may write to"), "{why}");
    }
    // A directory that takes no files, whoever asks.
    #[cfg(target_os = "linux")]
    assert_eq!(refused(Path::new("/proc/self")).code(), "state_unusable");
}

#[test]
fn a_directory_in_which_nothing_new_can_be_written_is_refused_at_the_start() {
    let folder = Folder::new();
    let (mut store, _) = open(&folder.state()).unwrap();
    store.save(&one(1)).unwrap();
    drop(store);
    // In the place of the file that would be written first; it cannot be removed as a file.
    fs::create_dir(folder.state().join("state.json.new")).unwrap();
    let why = refused(&folder.state());
    assert!(matches!(&why, StateError::Unusable { doing: "removed", .. }), "{why}");
    fs::remove_dir(folder.state().join("state.json.new")).unwrap();
    assert_eq!(open(&folder.state()).unwrap().1, Some(one(1)));
}

#[test]
fn a_damaged_file_is_refused_with_its_place_and_never_overwritten() {
    let folder = Folder::new();
    let (mut store, _) = open(&folder.state()).unwrap();
    store.save(&odd()).unwrap();
    drop(store);
    let whole = fs::read_to_string(folder.json()).unwrap();
    let half = &whole[..whole.len() / 2];
    let lines = half.lines().count();
    for (text, place) in [
        (half.to_owned(), format!("line {lines}, column ")),
        (String::new(), "line 1, column 0".into()),
        ("[]".into(), "line 1, column ".into()),
        (whole.replace("\"format\": 1,", ""), "line ".into()),
        (whole.replace("\"format\": 1,", "\"format\": 0,"), "format".into()),
        (
            whole.replace("\"num_replicas\": 0", "\"num_replicas\": -1"),
            "desired.backends[0].num_replicas".into(),
        ),
        (whole.replace("\"sequence\"", "\"sequel\""), "line 3, column ".into()),
        (whole.replace("\"gone\": 1.0", "\"gone\": 2.0"), "given.endpoints[1].traffic".into()),
        (whole.replace("declared-1", "../declared-1"), "declared".into()),
    ] {
        assert_ne!(text, whole);
        fs::write(folder.json(), &text).unwrap();
        let why = refused(&folder.state());
        let StateError::Damaged { path, place: told, .. } = &why else { panic!("{why}") };
        assert!(*path == folder.json() && told.starts_with(&place), "{place}: {why}");
        assert!(why.to_string().contains("mend that place, or move the directory away"), "{why}");
        assert_eq!(fs::read_to_string(folder.json()).unwrap(), text);
    }
    fs::write(folder.json(), &whole).unwrap();
    for file in ["history-1.json", "declared-1.json"] {
        let path = folder.state().join(file);
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..text.len() - 3]).unwrap();
        assert!(matches!(refused(&folder.state()), StateError::Damaged { path: told, .. } if told == path));
        fs::remove_file(&path).unwrap();
        assert!(refused(&folder.state()).to_string().contains("it is missing, and state.json names it"));
        fs::write(&path, text).unwrap();
    }
    assert_eq!(open(&folder.state()).unwrap().1, Some(odd()));
    // The cure that the message names.
    fs::rename(folder.state(), folder.0.join("away")).unwrap();
    assert_eq!(open(&folder.state()).unwrap().1, None);
    assert_eq!(open(&folder.0.join("away")).unwrap().1, Some(odd()));
}

#[test]
fn a_file_from_the_future_is_refused_and_one_that_is_too_large_is_not_read() {
    let folder = Folder::new();
    fs::create_dir(folder.state()).unwrap();
    fs::write(folder.json(), r#"{"format": 2, "news": [1]}"#).unwrap();
    let why = refused(&folder.state());
    assert_eq!(why, StateError::FromTheFuture { path: folder.json(), format: 2, known: 1 });
    assert_eq!(fs::read_to_string(folder.json()).unwrap(), r#"{"format": 2, "news": [1]}"#);
    // A hole: nothing is on the disk.
    File::create(folder.json()).unwrap().set_len(super::file::FILE_BYTES_MAX + 1).unwrap();
    assert!(refused(&folder.state()).to_string().contains("more than 67108864 bytes"));
}

#[test]
fn what_a_killed_process_left_is_removed_and_nothing_else() {
    let folder = Folder::new();
    let (mut store, _) = open(&folder.state()).unwrap();
    store.save(&odd()).unwrap();
    drop(store);
    let before = folder.files();
    assert_eq!(before, ["declared-1.json", "history-1.json", "history-2.json", "lock", "state.json"]);
    for left in ["state.json.new", "history-3.json.new", "history-3.json", "declared-2.json"] {
        fs::write(folder.state().join(left), "{").unwrap();
    }
    fs::write(folder.state().join("notes.txt"), "mine").unwrap();
    assert_eq!(open(&folder.state()).unwrap().1, Some(odd()));
    assert_eq!(folder.files(), [&before[..4], &["notes.txt".into(), "state.json".into()]].concat());
}

#[test]
fn a_save_that_fails_leaves_the_old_state_and_the_next_one_works() {
    let folder = Folder::new();
    let (mut store, _) = open(&folder.state()).unwrap();
    store.save(&one(1)).unwrap();
    let text = fs::read(folder.json()).unwrap();
    let in_the_way = folder.state().join("state.json.new");
    fs::create_dir(&in_the_way).unwrap();
    let why = store.save(&odd()).unwrap_err();
    assert!(matches!(&why, ServeError::StateNotSaved { why } if why.contains("state: ")), "{why}");
    assert_eq!((fs::read(folder.json()).unwrap(), why.code()), (text, "state_not_saved"));
    fs::remove_dir(&in_the_way).unwrap();
    store.save(&odd()).unwrap();
    drop(store);
    assert_eq!(open(&folder.state()).unwrap().1, Some(odd()));
}

#[cfg(target_os = "linux")]
#[test]
fn a_directory_that_cannot_be_synced_goes_back_to_the_old_state() {
    let folder = Folder::new();
    let (mut store, _) = open(&folder.state()).unwrap();
    let unsyncable = || File::open("/dev/null").unwrap();
    let directory = store.replace_handle(unsyncable());
    store.save(&one(1)).unwrap_err();
    assert!(!folder.json().exists(), "there was none before");
    drop(store.replace_handle(directory));
    store.save(&one(1)).unwrap();
    drop(store.replace_handle(unsyncable()));
    store.save(&one(2)).unwrap_err();
    drop(store);
    assert_eq!(open(&folder.state()).unwrap().1, Some(one(1)));
}

#[test]
fn what_stays_the_same_is_not_written_again_and_what_is_dropped_goes() {
    let folder = Folder::new();
    let (mut store, _) = open(&folder.state()).unwrap();
    let mut saved = odd();
    store.save(&saved).unwrap();
    let modified = |file: &str| fs::metadata(folder.state().join(file)).unwrap().modified().unwrap();
    let before = ["declared-1.json", "history-1.json"].map(modified);
    saved.put_backend(backend("a", BackendConfig::default().num_replicas(9)));
    store.save(&saved).unwrap();
    assert_eq!(["declared-1.json", "history-1.json"].map(modified), before);
    saved.history.remove(0);
    saved.declared = Some(ServeConfig::default());
    store.save(&saved).unwrap();
    assert_eq!(folder.files(), ["declared-3.json", "history-2.json", "lock", "state.json"]);
    drop(store);
    assert_eq!(open(&folder.state()).unwrap().1, Some(saved));
}

#[test]
fn functions_are_left_out_and_come_back_with_the_program_that_has_them() {
    let by = || Compare::by(|_, _| true);
    let rule = |proportion| ShadowRule::new("b", proportion).unwrap();
    let given = Endpoint::new("a").shadow(rule(0.5).compare(by()).unwrap()).check().unwrap();
    let name = EndpointName::new("e").unwrap();
    let kept = checked(&decl_of(&name, &given)).unwrap();
    assert_eq!(kept.shadows, [rule(0.5)]);
    assert_eq!(with_functions(kept.clone(), &given).shadows, given.shadows);
    let by_hand = Endpoint::new("a").shadow(rule(0.25)).check().unwrap();
    assert_eq!(with_functions(by_hand, &given).shadows, [rule(0.25)], "another rule than the program's");
}

#[test]
fn what_the_file_said_is_kept_beside_what_was_deployed_since_and_once_while_both_are_the_same() {
    let folder = Folder::new();
    let (mut store, _) = open(&folder.state()).unwrap();
    let mut saved = odd();
    saved.history.clear();
    saved.file.clone_from(&saved.declared);
    store.save(&saved).unwrap();
    assert_eq!(folder.files(), ["declared-1.json", "lock", "state.json"]);
    saved.declared = Some(ServeConfig::default());
    store.save(&saved).unwrap();
    assert_eq!(folder.files(), ["declared-1.json", "declared-2.json", "lock", "state.json"]);
    drop(store);
    let (mut store, read) = open(&folder.state()).unwrap();
    assert_eq!(read, Some(saved.clone()));
    saved.declared.clone_from(&saved.file);
    store.save(&saved).unwrap();
    assert_eq!(folder.files(), ["declared-1.json", "lock", "state.json"]);
    drop(store);
    assert_eq!(open(&folder.state()).unwrap().1, Some(saved));
}

#[cfg(unix)]
#[test]
fn whatever_is_written_is_for_its_owner_alone_also_in_a_directory_that_all_can_read() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    fs::create_dir(folder.state()).unwrap();
    fs::set_permissions(folder.state(), fs::Permissions::from_mode(0o755)).unwrap();
    let (mut store, _) = open(&folder.state()).unwrap();
    store.save(&odd()).unwrap();
    let files = folder.files();
    assert_eq!(files, ["declared-1.json", "history-1.json", "history-2.json", "lock", "state.json"]);
    for file in files {
        let mode = fs::metadata(folder.state().join(&file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn paths_become_absolute_and_two_that_say_the_same_are_the_same() {
    let mut config = one(1).desired;
    config.backends[0].source = Source::Onnx { path: "models/m.onnx".into() };
    config.state = Some("state".into());
    let mut whole = config.clone();
    absolute(&mut whole).unwrap();
    let here = std::env::current_dir().unwrap();
    assert_eq!(whole.backends[0].source, Source::Onnx { path: here.join("models/m.onnx") });
    assert_eq!(whole.state, Some(here.join("state")));
    let again = whole.clone();
    absolute(&mut whole).unwrap();
    assert_eq!(again, whole);
    // Otherwise spelled, they are the same.
    whole.backends[0].source = Source::Onnx { path: "./other/../models/./m.onnx".into() };
    whole.state = Some("models/../state/".into());
    absolute(&mut whole).unwrap();
    assert_eq!(again, whole);
    assert_eq!(straight("/../a/b/../../c".as_ref()).unwrap(), Path::new("/c"));
    assert!(same(&whole, &whole.clone()) && !same(&whole, &config));
    #[cfg(unix)]
    {
        let path: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"/\xff.onnx");
        config.backends[0].source = Source::Onnx { path: path.into() };
        assert!(absolute(&mut config).unwrap_err().to_string().contains("is no text"));
        // Behind a link `..` is the folder above the one that it stands for.
        let link = std::env::temp_dir().join(format!("greenroom-straight-{}", std::process::id()));
        std::os::unix::fs::symlink("/usr/bin", &link).unwrap();
        assert_eq!(straight(&link.join("../m")).unwrap(), link.join("../m"));
        assert_eq!(straight(&link.join("a/../m")).unwrap(), link.join("m"));
        fs::remove_file(link).unwrap();
    }
}
