//! The protocol's best known client, `tritonclient` from PyPI, against the real binary.

use std::{path::PathBuf, process::Command};

use crate::{
    digits,
    process::{Folder, Server},
};

/// A Python that has `tests/python/requirements.txt` installed.
fn python() -> PathBuf {
    if let Some(python) = std::env::var_os("GREENROOM_PYTHON") {
        return python.into();
    }
    // target/debug/greenroom -> target/python
    let target = PathBuf::from(env!("CARGO_BIN_EXE_greenroom")).ancestors().nth(2).unwrap().to_owned();
    let python = target.join("python/bin/python");
    assert!(
        python.exists(),
        "there is no {}; run tests/setup.sh once, or let GREENROOM_PYTHON name a Python that has \
         tests/python/requirements.txt installed",
        python.display()
    );
    python
}

#[test]
fn tritonclient_gets_sklearns_labels_and_reads_our_refusals() {
    let python = python();
    let folder = Folder::digits("triton");
    let server = Server::start(&folder);
    let output = Command::new(&python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/v2_client.py"))
        .arg(server.data().to_string())
        .arg(digits::folder().join("test.json"))
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", python.display()));
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out == "ok\n", "{out}{error}");
    server.end();
}
