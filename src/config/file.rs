//! `ServeConfig`: what a configuration file, or the same as JSON, says.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{
    admin::AdminConfig, backend_decl::BackendDecl, endpoint_decl::EndpointDecl, http::HttpConfig, item::Item,
    known::Known, node::Node, problems::Problems, resources, yaml,
};
use crate::{error::ServeError, resources::Capacity};

/// Everything that a configuration file says; what it does not say has its default.
///
/// ```
/// use std::path::Path;
/// use greenroom::ServeConfig;
/// let text = "
/// backends:
///   - name: digits
///     onnx: digits.onnx
///     num_replicas: 2
/// endpoints:
///   - name: digits
///     route: /digits
///     backend: digits
/// ";
/// let config = ServeConfig::from_yaml(text, Path::new("/models"))?;
/// assert_eq!(config.backends[0].config.num_replicas, 2);
/// assert_eq!(config.endpoints[0].methods, ["POST"]);
/// assert_eq!(config.http.port, 8000);
/// # Ok::<(), greenroom::ServeError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ServeConfig {
    /// Where requests come in.
    pub http: HttpConfig,
    /// Where the service itself is administered.
    pub admin: AdminConfig,
    /// The directory in which it is kept what the service was told, so that a new process goes on with it; none:
    /// nothing is kept. A relative path was put after the base directory.
    pub state: Option<PathBuf>,
    /// The Unix socket through which a new process takes over from the running one; none: it cannot. A relative
    /// path was put after the base directory. Linux only.
    pub takeover: Option<PathBuf>,
    /// How much there is of what replicas ask for; what is absent is detected.
    pub capacity: Capacity,
    /// Every backend, in the order of the file.
    pub backends: Vec<BackendDecl>,
    /// Every endpoint, in the order of the file; each backend that it names is there.
    pub endpoints: Vec<EndpointDecl>,
}

impl ServeConfig {
    /// What a YAML text says; relative paths in it start from `base_dir`. Nothing is opened.
    ///
    /// Aliases and custom tags are not supported; a text has at most 4 MiB.
    ///
    /// # Errors
    /// [`ServeError::InvalidConfig`] with every mistake and its line and column.
    pub fn from_yaml(text: &str, base_dir: &Path) -> Result<Self, ServeError> {
        let (node, found) = yaml::read(text).map_err(|problem| ServeError::InvalidConfig(vec![problem]))?;
        let problems = Problems::default();
        found.into_iter().for_each(|problem| problems.push(problem));
        let config = Self::read(Item::root(&node, &problems), base_dir, Known::default());
        problems.unless(config)
    }

    /// What a JSON value says, in the same form; relative paths in it start from `base_dir`.
    ///
    /// # Errors
    /// [`ServeError::InvalidConfig`] with every mistake and its path.
    pub fn from_json(json: serde_json::Value, base_dir: &Path) -> Result<Self, ServeError> {
        let node = Node::from_json(json).map_err(|problem| ServeError::InvalidConfig(vec![problem]))?;
        let problems = Problems::default();
        let config = Self::read(Item::root(&node, &problems), base_dir, Known::default());
        problems.unless(config)
    }

    /// What was written of a configuration that was in force. What no file may say, but a service may have come to
    /// by changes, is read back too: rules that rest, a `user_config` as deep as one can be.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json).
    pub(crate) fn from_kept(json: serde_json::Value) -> Result<Self, ServeError> {
        let node = Node::from_kept_json(json).map_err(|problem| ServeError::InvalidConfig(vec![problem]))?;
        let problems = Problems::default();
        let config = Self::read(Item::root(&node, &problems), Path::new(""), Known::kept());
        problems.unless(config)
    }

    /// What takes the place of a running configuration, which is read back as it was written too: rules that rest where
    /// they are there already, a `user_config` as deep as one can be. Whoever has the value has bounded it.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json).
    pub(crate) fn instead_of(
        running: &Self,
        json: serde_json::Value,
        base_dir: &Path,
    ) -> Result<Self, ServeError> {
        let node = Node::from_kept_json(json).map_err(|problem| ServeError::InvalidConfig(vec![problem]))?;
        let problems = Problems::default();
        let known = Known::instead_of(&running.endpoints);
        let config = Self::read(Item::root(&node, &problems), base_dir, known);
        problems.unless(config)
    }

    fn read(item: Item<'_>, base_dir: &Path, mut known: Known) -> Option<Self> {
        let mut fields = item.fields()?;
        let http = fields.nullable("http", HttpConfig::read).flatten();
        let admin = fields.nullable("admin", AdminConfig::read).flatten();
        let state = fields.nullable("state", |item| Some(base_dir.join(item.text()?)));
        let takeover = fields.nullable("takeover", |item| Some(base_dir.join(item.text()?))).flatten();
        let capacity = fields.nullable("capacity", resources::read_capacity).flatten();
        let backends = fields.nullable("backends", |item| {
            let items = item.items().or_else(|| known.incomplete())?;
            Some(items.into_iter().filter_map(|item| BackendDecl::read(item, base_dir, &mut known)).collect())
        });
        let endpoints = fields.nullable("endpoints", |item| {
            Some(item.items()?.into_iter().filter_map(|item| EndpointDecl::read(item, &mut known)).collect())
        });
        fields.finish();
        Some(Self {
            http: http.unwrap_or_default(),
            admin: admin.unwrap_or_default(),
            state: state.flatten(),
            takeover,
            capacity: capacity.unwrap_or_default(),
            backends: backends.flatten().unwrap_or_default(),
            endpoints: endpoints.flatten().unwrap_or_default(),
        })
    }
}
