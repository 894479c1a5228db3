//! Tiny ONNX files for tests, written by hand in protobuf.

use std::{
    ops::Deref,
    path::{Path, PathBuf},
};

/// A file that is gone when the test is done with it.
pub(super) struct Scratch(PathBuf);

impl Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

/// A dimension of an input.
#[derive(Clone, Copy)]
pub(super) enum Dim {
    Fixed(u8),
    Named(&'static str),
    Open,
}

/// A field with bytes inside.
pub(super) fn field(number: u8, content: &[u8]) -> Vec<u8> {
    assert!(content.len() < 1 << 14, "two bytes of length are enough for these files");
    let mut out = vec![number << 3 | 2, content.len() as u8 & 0x7f | 0x80, (content.len() >> 7) as u8];
    out.extend(content);
    out
}

/// A field with a small number inside.
fn number(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

/// A named value with an element type of ONNX (1 is float, 8 string) and a shape.
pub(super) fn value(name: &str, element: u8, shape: &[Dim]) -> Vec<u8> {
    let dims = shape.iter().map(|dim| match dim {
        Dim::Fixed(length) => field(1, &number(1, *length)),
        Dim::Named(symbol) => field(1, &field(2, symbol.as_bytes())),
        Dim::Open => field(1, &[]),
    });
    let tensor = [number(1, element), field(2, &dims.collect::<Vec<_>>().concat())].concat();
    [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat()
}

/// A file with one node `operator` from `inputs` to the float `y`; the path names the test.
pub(super) fn model(test: &str, operator: &str, inputs: &[(&str, u8, &[Dim])]) -> Scratch {
    let names = inputs.iter().flat_map(|(name, ..)| field(1, name.as_bytes()));
    let node: Vec<u8> = names.chain(field(2, b"y")).chain(field(4, operator.as_bytes())).collect();
    let values = inputs.iter().flat_map(|(name, element, shape)| field(11, &value(name, *element, shape)));
    let output = field(12, &value("y", 1, &[]));
    let graph: Vec<u8> = field(1, &node).into_iter().chain(values).chain(output).collect();
    let file = [number(1, 8), field(8, &number(2, 13)), field(7, &graph)].concat();
    write(test, &file)
}

/// A file of any bytes.
pub(super) fn write(test: &str, bytes: &[u8]) -> Scratch {
    let path = std::env::temp_dir().join(format!("greenroom-{}-{test}.onnx", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    Scratch(path)
}
