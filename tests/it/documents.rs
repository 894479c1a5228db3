//! Documents and code do not part: code shown is code that runs, tests named are tests that there are.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const COMING: &str = "docs/coming-from-ray-serve.md";
const CONFORMANCE: &str = "tests/conformance/README.md";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The texts of the files of a folder.
fn texts(folder: &str) -> Vec<String> {
    let files = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|ext| ext == "rs"))
        .map(|path| read(path.to_str().unwrap()))
        .collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Each Rust block of a document with the last line before it that is not blank.
fn rust_blocks(document: &str) -> Vec<(String, Vec<String>)> {
    let mut blocks = Vec::new();
    let (mut above, mut inside) = (String::new(), None::<Vec<String>>);
    for line in document.lines() {
        match (&mut inside, line) {
            (Some(_), "```") => blocks.push((std::mem::take(&mut above), inside.take().unwrap())),
            (Some(block), _) => block.push(line.to_owned()),
            (None, "```rust") => inside = Some(Vec::new()),
            (None, "") => {}
            (None, _) => above = line.to_owned(),
        }
    }
    assert!(inside.is_none(), "a block is not closed");
    blocks
}

#[test]
fn the_rust_code_shown_to_users_of_ray_serve_is_code_of_the_example_named_above_it() {
    let blocks = rust_blocks(&read(COMING));
    assert!(blocks.len() >= 11, "{} blocks", blocks.len());
    for (above, block) in blocks {
        let example = quoted(&above).find(|name| name.starts_with("examples/"));
        let example = example.unwrap_or_else(|| panic!("no example is named above\n{}", block.join("\n")));
        let text = read(example);
        let lines: Vec<_> = text.lines().collect();
        let shown = lines.windows(block.len()).any(|window| window == block);
        assert!(shown, "{example} does not hold these lines any more:\n{}", block.join("\n"));
    }
}

#[test]
fn the_tests_include_every_example_that_is_shown_to_users_of_ray_serve() {
    let document = read(COMING);
    let tests = texts("tests/it").concat();
    let names = document.split("examples/").skip(1).filter_map(|rest| rest.split_once(".rs"));
    let names: BTreeSet<_> = names.map(|(name, _)| name).filter(|name| !name.contains([' ', '\n'])).collect();
    assert!(names.len() >= 10, "{names:?}");
    for name in names {
        let path = format!("#[path = \"../../examples/{name}.rs\"]");
        assert!(tests.contains(&path), "no test includes examples/{name}.rs");
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for document in ["README.md", COMING, CONFORMANCE] {
        let text = read(document);
        let folder = root().join(document).parent().unwrap().to_owned();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("http") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { root().join(document) } else { folder.join(file) };
            assert!(path.exists(), "{document}: {target}");
            if !anchor.is_empty() {
                let text = fs::read_to_string(&path).unwrap();
                let titles = text.lines().filter_map(|line| line.strip_prefix("## "));
                let mut anchors = titles.map(|title| title.to_lowercase().replace(' ', "-"));
                assert!(anchors.any(|title| title == anchor), "{document}: {target}");
            }
        }
    }
}

/// The names of the tests in a module of `tests/conformance`.
fn conformance_tests() -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    for entry in fs::read_dir(root().join("tests/conformance")).unwrap() {
        let path = entry.unwrap().path();
        let Some(module) = path.to_str().unwrap().strip_suffix(".rs") else { continue };
        let module = module.rsplit('/').next().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        for pair in lines.windows(2).filter(|pair| pair[0].starts_with("#[") && pair[0].ends_with("test]")) {
            let name = pair[1].split("fn ").nth(1).and_then(|rest| rest.split('(').next()).unwrap();
            tests.insert(format!("conformance::{module}::{name}"));
        }
    }
    tests
}

#[test]
fn the_map_of_conformance_names_every_test_of_ours_and_none_that_is_not_there() {
    let document = read(CONFORMANCE);
    let named: BTreeSet<_> =
        quoted(&document).filter(|name| name.contains("::")).map(str::to_owned).collect();
    let ours = conformance_tests();
    let unnamed: Vec<_> = ours.difference(&named).collect();
    assert!(unnamed.is_empty(), "not in {CONFORMANCE}: {unnamed:#?}");
    for name in named.difference(&ours) {
        let (module, test) = name.rsplit_once("::").unwrap();
        let path = format!("tests/it/{}.rs", module.replace("::", "/"));
        let text = fs::read_to_string(root().join(&path)).unwrap_or_else(|e| panic!("{name}: {path}: {e}"));
        assert!(text.contains(&format!("fn {test}(")), "{CONFORMANCE} names {name}, which is not in {path}");
    }
}
