//! The habits of the house, held by a test: floors, file length, first lines, no way out, examples that are named.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The top-level modules of the library, lowest first. A module uses those of lower floors only; those of one
/// floor may use each other where the floor says so.
const FLOORS: [(&[&str], Siblings); 13] = [
    (&["error", "ids"], Siblings::Together),
    (&["resources"], Siblings::Apart),
    (
        &["batching", "gpu", "guard", "health", "http_call", "meta", "route", "tensor", "traffic"],
        Siblings::Apart,
    ),
    (&["call", "config", "endpoint", "oip"], Siblings::Apart),
    (&["metrics", "port"], Siblings::Apart),
    (&["comparison"], Siblings::Apart),
    (&["routing"], Siblings::Apart),
    (&["handle"], Siblings::Apart),
    (&["blocking"], Siblings::Apart),
    // A context is what a backend is written against, a backend is what actors are built from.
    (&["actors", "backend"], Siblings::Together),
    (&["onnx"], Siblings::Apart),
    (&["serve"], Siblings::Apart),
    (&["http", "testing"], Siblings::Apart),
];

#[derive(Clone, Copy, PartialEq)]
enum Siblings {
    Apart,
    Together,
}

/// Longest file, in lines of code: without blank lines, comments and tests.
const CODE_LINES_MAX: usize = 300;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Every Rust file below a folder with its path and text.
fn files(folder: &str) -> Vec<(String, String)> {
    let mut folders = vec![root().join(folder)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has no Rust files");
    found.sort();
    found
}

/// The lines of code of a file, up to its tests.
fn code(name: &str, text: &str) -> Vec<String> {
    if name.ends_with("tests.rs") || name == "src/onnx/fixture.rs" {
        return Vec::new();
    }
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]" || !text.contains("\nmod tests {"));
    lines
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .collect()
}

/// The modules that `crate::...` in these lines reaches into.
fn reached(lines: &[String]) -> BTreeSet<String> {
    let text = lines.join(" ");
    let word = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect()
    };
    let mut found = BTreeSet::new();
    for (at, marker) in text.match_indices("crate::") {
        let Some(list) = text[at + marker.len()..].strip_prefix('{') else {
            found.insert(word(&text[at + marker.len()..]));
            continue;
        };
        let (mut depth, mut start) = (0, 0);
        for (i, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                ',' if depth == 0 => {
                    found.insert(word(&list[start..i]));
                    start = i + 1;
                }
                '}' if depth == 0 => {
                    found.insert(word(&list[start..i]));
                    break;
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
    }
    found.remove("");
    found
}

#[test]
fn the_reader_of_imports_sees_them_all() {
    let lines =
        ["use crate::a::b;", "use crate::{c, d::{e, f::g}, h};", "fn x(_: crate::i::J) {}", "use k::l;"];
    let found = reached(&lines.map(str::to_owned));
    assert_eq!(found.into_iter().collect::<String>(), "acdhi");
}

#[test]
fn imports_only_go_down() {
    let floor = |module: &str| FLOORS.iter().position(|(modules, _)| modules.contains(&module));
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (name, text) in files("src") {
        let module = name["src/".len()..].split(['/', '.']).next().unwrap();
        if ["lib", "main", "launch"].contains(&module) {
            continue;
        }
        let Some(own) = floor(module) else {
            wrong.push(format!("{name}: the module {module} has no floor"));
            continue;
        };
        seen.insert(module.to_owned());
        for other in reached(&code(&name, &text)) {
            let below = match floor(&other) {
                Some(floor) if floor == own => other == module || FLOORS[own].1 == Siblings::Together,
                Some(floor) => floor < own,
                None => false,
            };
            if !below {
                wrong.push(format!("{name} reaches up or sideways into {other}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let listed: BTreeSet<_> =
        FLOORS.iter().flat_map(|(modules, _)| *modules).map(|m| (*m).to_owned()).collect();
    assert_eq!(listed, seen, "floors for modules that there are");
}

#[test]
fn few_files_look_into_actix_s_inside() {
    // What its own loop is made of. Names that are in `actix::dev` only for history are used elsewhere too.
    let allowed = ["src/actors/context.rs", "src/actors/replica.rs", "src/actors/replica/task.rs"];
    for (name, text) in files("src") {
        let lines = code(&name, &text).join(" ");
        let inside = ["Envelope::", "EnvelopeProxy", "Mailbox", "channel::channel"]
            .iter()
            .any(|word| lines.contains(word));
        assert!(!inside || allowed.contains(&name.as_str()), "{name} reaches into actix::dev");
    }
}

#[test]
fn no_file_is_long_and_each_begins_with_what_it_is() {
    let mut wrong = Vec::new();
    for folder in ["src", "tests", "examples", "benches"] {
        for (name, text) in files(folder) {
            let lines = code(&name, &text).len();
            if lines > CODE_LINES_MAX {
                wrong.push(format!("{name} has {lines} lines of code, more than {CODE_LINES_MAX}"));
            }
            let first = text.lines().next().unwrap_or("");
            if !first.starts_with("//! ") {
                wrong.push(format!("{name} does not begin with a line that says what it is: {first:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_library_has_no_hidden_ways_out() {
    let mut wrong = Vec::new();
    let banned =
        [".unwrap()", ".expect(", "todo!", "unimplemented!", "dbg!", "unsafe {", "unbounded_channel"];
    for (name, text) in files("src") {
        for line in code(&name, &text) {
            // A constant that cannot be made does not compile.
            if banned.iter().any(|word| line.contains(word)) && !line.starts_with("const ") {
                wrong.push(format!("{name}: {line}"));
            }
        }
    }
    let word = concat!("#[ig", "nore");
    for (name, text) in files("src").into_iter().chain(files("tests")) {
        if text.contains(word) {
            wrong.push(format!("{name} leaves a test out"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn module_names_say_what_is_in_them() {
    for (name, _) in files("src") {
        for part in name.split(['/', '.']) {
            assert!(!["util", "utils", "common", "helper", "helpers", "misc"].contains(&part), "{name}");
        }
    }
}

#[test]
fn every_example_is_named_in_a_document() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap_or_default();
    let documents = read("README.md") + &read("examples/README.md");
    let mut missing = BTreeMap::new();
    for (name, _) in files("examples") {
        let example = name["examples/".len()..].split(['/', '.']).next().unwrap().to_owned();
        if !documents.contains(&format!("examples/{example}")) {
            missing.insert(example, name);
        }
    }
    assert!(missing.is_empty(), "not in README.md or examples/README.md: {missing:?}");
}
