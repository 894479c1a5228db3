//! Files beside a model that hold tensors of it: found in its protobuf without reading what the tensors hold.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufReader, Read},
    path::{Component, Path},
};

use super::load;
use crate::{backend::fingerprint::Fingerprint, error::ServeError};

/// Longest name of a file that is looked at, in bytes.
const NAME_BYTES_MAX: u64 = 4096;
/// Most files that are looked at.
const FILES_MAX: usize = 10_000;
/// Deepest nesting of messages: graphs within attributes of nodes of graphs.
const DEPTH_MAX: usize = 64;

/// The fingerprint of the model in `file`, and of the files beside it that hold tensors of it.
///
/// # Errors
/// One of them cannot be read.
pub(super) fn fingerprint(file: &Path) -> Result<Fingerprint, ServeError> {
    let unreadable = |path: &Path, error: io::Error| load::unreadable(path, &error);
    let whole = |path: &Path| File::open(path).and_then(Fingerprint::read);
    let mut fingerprint = whole(file).map_err(|error| unreadable(file, error))?;
    let folder = file.parent().unwrap_or(Path::new(""));
    for name in named_in(file).map_err(|error| unreadable(file, error))? {
        let path = folder.join(&name);
        // What is no file could keep a reader for ever.
        let is_file = std::fs::metadata(&path).map(|there| there.is_file());
        if !is_file.map_err(|error| unreadable(&path, error))? {
            return Err(load::refuse(file, format!("its data {name} is no file")));
        }
        let data = whole(&path).map_err(|error| unreadable(&path, error))?;
        fingerprint = fingerprint.with(name.as_bytes(), data);
    }
    Ok(fingerprint)
}

/// The files that a model names. Of one that is no model those found before that showed: it will be refused when it
/// is loaded.
fn named_in(file: &Path) -> io::Result<BTreeSet<String>> {
    // A pipe can be read once only, and was.
    if !std::fs::metadata(file)?.is_file() {
        return Ok(BTreeSet::new());
    }
    let file = File::open(file)?;
    let end = file.metadata()?.len();
    let mut walk = Walk { from: BufReader::new(file), at: 0, found: BTreeSet::new() };
    match walk.message(Kind::Model, end, 0) {
        Err(error) if error.kind() != io::ErrorKind::InvalidData => Err(error),
        _ => Ok(walk.found),
    }
}

/// The messages of ONNX that tensors are somewhere in.
#[derive(Clone, Copy)]
enum Kind {
    Model,
    Function,
    Graph,
    Node,
    Attribute,
    Sparse,
    Tensor,
    /// A key and a value: the place of a tensor's data.
    Entry,
}

impl Kind {
    /// The message in this field, if there may be a tensor in it.
    fn within(self, field: u64) -> Option<Self> {
        Some(match (self, field) {
            (Self::Model, 7) | (Self::Attribute, 6 | 11) => Self::Graph,
            (Self::Model, 25) => Self::Function,
            (Self::Graph, 1) | (Self::Function, 7) => Self::Node,
            (Self::Node, 5) => Self::Attribute,
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Self::Sparse,
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::Sparse, 1 | 2) => Self::Tensor,
            (Self::Tensor, 13) => Self::Entry,
            _ => return None,
        })
    }
}

/// On the way through a file.
struct Walk {
    from: BufReader<File>,
    /// Bytes that are behind.
    at: u64,
    found: BTreeSet<String>,
}

impl Walk {
    /// Reads a message that goes up to `end`.
    fn message(&mut self, kind: Kind, end: u64, depth: usize) -> io::Result<()> {
        if depth > DEPTH_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (mut key, mut value) = (String::new(), String::new());
        while self.at < end {
            let tag = self.number()?;
            match tag & 7 {
                0 => drop(self.number()?),
                1 => self.skip(8, end)?,
                2 => {
                    let bytes = self.number()?;
                    match (kind, tag >> 3, kind.within(tag >> 3)) {
                        (Kind::Entry, 1, _) => key = self.text(bytes, end)?,
                        (Kind::Entry, 2, _) => value = self.text(bytes, end)?,
                        (.., Some(inner)) => {
                            let ends = self.at.checked_add(bytes).filter(|at| *at <= end);
                            self.message(inner, ends.ok_or(io::ErrorKind::InvalidData)?, depth + 1)?;
                        }
                        _ => self.skip(bytes, end)?,
                    }
                }
                5 => self.skip(4, end)?,
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        // Others than files below the model's folder are refused when it is loaded.
        let below = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if key == "location" && Path::new(&value).components().all(below) && self.found.len() < FILES_MAX {
            self.found.insert(value);
        }
        Ok(())
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.from.read_exact(&mut byte).map_err(cut)?;
            self.at += 1;
            number |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }

    fn text(&mut self, bytes: u64, end: u64) -> io::Result<String> {
        if bytes > NAME_BYTES_MAX {
            self.skip(bytes, end)?;
            return Ok(String::new());
        }
        let mut text = vec![0; bytes as usize];
        self.from.read_exact(&mut text).map_err(cut)?;
        self.at += bytes;
        String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn skip(&mut self, bytes: u64, end: u64) -> io::Result<()> {
        let at = self.at.checked_add(bytes).filter(|at| *at <= end).ok_or(io::ErrorKind::InvalidData)?;
        // Keeps what is buffered, where that reaches.
        self.from.seek_relative(i64::try_from(bytes).map_err(|_| io::ErrorKind::InvalidData)?)?;
        self.at = at;
        Ok(())
    }
}

/// A file that ends too early is no model.
fn cut(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::ErrorKind::InvalidData.into(),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::fixture::{field, write},
        *,
    };

    /// A tensor whose data is in another file.
    fn tensor(location: &str) -> Vec<u8> {
        let entry = |key: &str, value: &str| {
            field(13, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat())
        };
        [field(9, &[0; 99]), entry("offset", "0"), entry("location", location)].concat()
    }

    #[test]
    fn all_files_that_a_model_names_are_found_also_in_a_node_s_attribute_and_no_others() {
        let attribute = field(5, &field(5, &tensor("attribute.bin")));
        let graph = [field(5, &tensor("a.bin")), field(1, &attribute), field(5, &tensor("../outside.bin"))];
        let model = [field(2, b"location"), field(7, &graph.concat())].concat();
        let file = write("external-names", &model);
        assert_eq!(Vec::from_iter(named_in(&file).unwrap()), ["a.bin", "attribute.bin"]);
        // Cut off anywhere it is no model, and read no further.
        for end in 0..model.len() {
            let cut = write("external-cut", &model[..end]);
            assert!(named_in(&cut).unwrap().len() <= 2);
        }
    }

    #[test]
    fn a_change_of_the_data_alone_is_another_fingerprint_and_data_that_is_not_there_is_told() {
        let data = write("external-data", &[1; 64]);
        let name = data.file_name().unwrap().to_str().unwrap().to_owned();
        let model = write("external-model", &field(7, &field(5, &tensor(&name))));
        let before = fingerprint(&model).unwrap();
        assert_eq!(fingerprint(&model).unwrap(), before);
        std::fs::write(&*data, [2; 64]).unwrap();
        assert_ne!(fingerprint(&model).unwrap(), before);
        drop(data);
        let told = fingerprint(&model).unwrap_err().to_string();
        assert!(told.contains(&name) && told.contains("cannot be read"), "{told}");
        let plain = write("external-none", b"no model at all");
        assert_eq!(fingerprint(&plain).unwrap(), Fingerprint::of(b"no model at all"));
    }
}
