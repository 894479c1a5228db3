//! `BackendDecl`: a backend as it is declared.

use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use super::{backend::BackendConfig, fields::Fields, item::Item, known::Known, update::BackendUpdate};
use crate::{error::Problem, ids::BackendName};

/// A backend as it is declared: its name, what it is made of, its options.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackendDecl {
    /// Its name, which no other backend has.
    pub name: BackendName,
    /// What it is made of.
    #[serde(flatten)]
    pub source: Source,
    /// Its options.
    #[serde(flatten)]
    pub config: BackendConfig,
}

/// What a backend is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An ONNX model.
    Onnx {
        /// The model's file; a relative path was put after the base directory.
        path: PathBuf,
    },
    /// A backend that the embedding program registered.
    Registered {
        /// The name under which it was registered.
        name: BackendName,
    },
}

impl BackendDecl {
    /// Reads a declaration; its name becomes known even where the rest is wrong.
    pub(crate) fn read(item: Item<'_>, base_dir: &Path, known: &mut Known) -> Option<Self> {
        let mut fields = item.fields().or_else(|| known.incomplete())?;
        let name = fields.required("name", |item| {
            let name = item.clone().parsed(BackendName::new)?;
            Some((name, item))
        });
        let source = Source::read(&mut fields, base_dir);
        let config = read_config(&mut fields);
        if matches!(source, Some(Source::Onnx { .. })) && config.user_config.is_some() {
            let what = "a model of an ONNX file takes no user_config".into();
            fields.problems().push(Problem { place: fields.place_of("user_config"), what });
        }
        if matches!(source, Some(Source::Onnx { .. })) && config.resources.num_gpus.is_some() {
            let what = "an ONNX model is run on CPUs here and can use no GPU; ask for num_cpus".into();
            fields.problems().push(Problem { place: fields.place_of("resources.num_gpus"), what });
        }
        fields.finish();
        let (name, item) = name.or_else(|| known.incomplete())?;
        known.backend(&name, matches!(source, Some(Source::Onnx { .. })), &item);
        Some(Self { name, source: source?, config })
    }
}

impl Source {
    fn read(fields: &mut Fields<'_>, base_dir: &Path) -> Option<Self> {
        let later = "not supported yet; allowed: onnx or registered";
        let refused = fields.refuse("python", later) | fields.refuse("command", later);
        let (onnx, registered) = (fields.get("onnx"), fields.get("registered"));
        match (onnx, registered) {
            (Some(onnx), None) => Some(Self::Onnx { path: base_dir.join(onnx.text()?) }),
            (None, Some(registered)) => Some(Self::Registered { name: registered.parsed(BackendName::new)? }),
            (None, None) if refused => None,
            (None, None) => {
                fields.problem("what it is made of is missing; one of onnx and registered is needed");
                None
            }
            (Some(_), Some(registered)) => {
                registered.refuse("onnx and registered were both given; one is needed")
            }
        }
    }
}

/// The options, with the mistakes of single values and, if there are none, of how they go together.
fn read_config(fields: &mut Fields<'_>) -> BackendConfig {
    let before = fields.problems().count();
    let update = BackendUpdate::read(fields);
    let config = BackendConfig::default().with(&update);
    if fields.problems().count() == before {
        for problem in config.problems() {
            fields.problems().push(Problem { place: fields.place_of(&problem.place), ..problem });
        }
    }
    config
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Onnx { path } => serializer.collect_map([("onnx", path.to_string_lossy())]),
            Self::Registered { name } => serializer.collect_map([("registered", name)]),
        }
    }
}
