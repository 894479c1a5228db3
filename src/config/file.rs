//! `ServeConfig`: what a configuration file, or the same as JSON, says.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;

use super::{
    admin::AdminConfig,
    backend_decl::BackendDecl,
    endpoint_decl::EndpointDecl,
    http::HttpConfig,
    node::{Node, shown},
    reader::{Item, Problems},
    yaml,
};
use crate::{
    error::ServeError,
    http::RoutePattern,
    ids::{BackendName, EndpointName},
};

/// Most backends that a refusal lists.
const LISTED_MAX: usize = 20;

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
        let config = Self::read(Item::root(&node, &problems), base_dir);
        problems.unless(config)
    }

    /// What a JSON value says, in the same form; relative paths in it start from `base_dir`.
    ///
    /// # Errors
    /// [`ServeError::InvalidConfig`] with every mistake and its path.
    pub fn from_json(json: serde_json::Value, base_dir: &Path) -> Result<Self, ServeError> {
        let node = Node::from_json(json).map_err(|problem| ServeError::InvalidConfig(vec![problem]))?;
        let problems = Problems::default();
        let config = Self::read(Item::root(&node, &problems), base_dir);
        problems.unless(config)
    }

    fn read(item: Item<'_>, base_dir: &Path) -> Option<Self> {
        let mut fields = item.fields()?;
        let mut known = Known::default();
        let http = fields.nullable("http", HttpConfig::read).flatten();
        let admin = fields.nullable("admin", AdminConfig::read).flatten();
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
            backends: backends.flatten().unwrap_or_default(),
            endpoints: endpoints.flatten().unwrap_or_default(),
        })
    }
}

/// The names and routes read so far, each with its place.
#[derive(Debug, Default)]
pub(crate) struct Known {
    backends: BTreeMap<BackendName, Backend>,
    endpoints: BTreeMap<EndpointName, String>,
    routes: BTreeMap<String, String>,
    /// A backend's name could not be read, so that one that is missing may be that.
    incomplete: bool,
}

#[derive(Debug)]
struct Backend {
    place: String,
    onnx: bool,
}

impl Known {
    /// Some backend's name could not be read.
    pub(crate) fn incomplete<T>(&mut self) -> Option<T> {
        self.incomplete = true;
        None
    }

    /// Notes a backend; a second one of its name is a problem.
    pub(crate) fn backend(&mut self, name: &BackendName, onnx: bool, item: &Item<'_>) {
        match self.backends.get(name) {
            Some(first) => item.problem(format!("backend {name} is there twice, first at {}", first.place)),
            None => drop(self.backends.insert(name.clone(), Backend { place: item.place(), onnx })),
        }
    }

    /// Notes an endpoint; a second one of its name is a problem.
    pub(crate) fn endpoint(&mut self, name: &EndpointName, item: &Item<'_>) {
        match self.endpoints.get(name) {
            Some(first) => item.problem(format!("endpoint {name} is there twice, first at {first}")),
            None => drop(self.endpoints.insert(name.clone(), item.place())),
        }
    }

    /// Notes a route; a second one that matches the same paths is a problem.
    pub(crate) fn route(&mut self, route: &RoutePattern, item: &Item<'_>) {
        let shape: Vec<&str> = route.shape().map(|segment| segment.unwrap_or("{}")).collect();
        let shape = shape.join("/");
        match self.routes.get(&shape) {
            Some(first) => {
                item.problem(format!("the route {route} matches the same paths as the one at {first}"))
            }
            None => drop(self.routes.insert(shape, item.place())),
        }
    }

    /// Whether the backend is an ONNX model.
    pub(crate) fn is_onnx(&self, name: &BackendName) -> bool {
        self.backends.get(name).is_some_and(|backend| backend.onnx)
    }

    /// A backend that is not declared is a problem.
    pub(crate) fn find(&self, name: &BackendName, item: &Item<'_>) {
        if self.incomplete || self.backends.contains_key(name) {
            return;
        }
        let mut names: Vec<String> =
            self.backends.keys().take(LISTED_MAX).map(|name| shown(name.as_str())).collect();
        if self.backends.len() > LISTED_MAX {
            names.push("...".into());
        }
        let there = if names.is_empty() { "none".into() } else { names.join(", ") };
        item.problem(format!("there is no backend {name}; declared here: {there}"));
    }
}
