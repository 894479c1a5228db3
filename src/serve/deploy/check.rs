//! Every mistake of a configuration that can be known before any of it is done, each with its place.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use crate::{
    actors::{
        build::Code,
        controller::Resolved,
        fit::{Need, ever_fits},
    },
    config::{EndpointDecl, ServeConfig},
    error::{Problem, ServeError},
    ids::BackendName,
    metrics::registry::Outside,
    routing::backend_routes::BackendRoutes,
    serve::Serve,
    store::{checked, straight},
};

/// The code of every backend of a configuration.
pub(super) type Codes = BTreeMap<BackendName, Arc<dyn Code>>;

impl Serve {
    /// The code of all backends that are wanted, when all of `wanted` is possible as far as can be known.
    ///
    /// # Errors
    /// [`ServeError::InvalidConfig`] with every mistake.
    pub(super) fn check(&self, wanted: &ServeConfig) -> Result<Codes, ServeError> {
        form(wanted, &self.config())?;
        let mut problems = self.fixed(wanted);
        let mut codes = Codes::new();
        for (i, decl) in wanted.backends.iter().enumerate() {
            let place = format!("backends[{i}]");
            let awaited = || self.0.office.fleet().awaiting.get(&decl.name).is_some_and(|a| a.decl == *decl);
            match self.0.sources.code(&decl.source) {
                Ok(code) => {
                    let checked = code.check(&decl.config).err().into_iter().chain(code.read().err());
                    problems.extend(checked.flat_map(|why| at(&place, why)));
                    codes.insert(decl.name.clone(), code);
                }
                // It was restored, and stays as it is until it has its code.
                Err(_) if awaited() => {}
                Err(why) => problems.extend(at(&place, why)),
            }
        }
        problems.extend(self.too_much(wanted));
        let routes = codes.iter();
        let routes =
            routes.map(|(name, code)| (name, Arc::new(code.routes(name.clone(), &Outside::default()))));
        let routes: BTreeMap<_, _> = routes.collect();
        problems.extend(self.other_messages(wanted, &routes));
        for (i, decl) in wanted.endpoints.iter().enumerate() {
            // Of a backend whose code is not known nothing more can be said.
            if names(decl).all(|backend| routes.contains_key(backend)) {
                let found = checked(decl).and_then(|declared| {
                    let find = |name: &BackendName| {
                        let found = routes.get(name).cloned();
                        found.ok_or_else(|| ServeError::UnknownBackend(name.clone()))
                    };
                    Resolved::among(&declared, find)?.check(&declared)
                });
                problems.extend(found.err().into_iter().flat_map(|why| at(&format!("endpoints[{i}]"), why)));
            }
        }
        if problems.is_empty() { Ok(codes) } else { Err(ServeError::InvalidConfig(problems)) }
    }

    /// Sections of the process itself that differ from what it runs with.
    fn fixed(&self, wanted: &ServeConfig) -> Vec<Problem> {
        let (absent, running) = (ServeConfig::default(), self.process());
        let same = |wanted: &Option<PathBuf>, kept: &Option<PathBuf>| {
            let whole = |path: &Option<PathBuf>| path.as_deref().and_then(|path| straight(path).ok());
            wanted.is_none() || whole(wanted) == whole(kept)
        };
        let sections = [
            ("http", wanted.http == running.http || wanted.http == absent.http),
            ("admin", wanted.admin == running.admin || wanted.admin == absent.admin),
            ("state", same(&wanted.state, &self.0.options.state)),
            ("takeover", same(&wanted.takeover, &running.takeover)),
            ("capacity", wanted.capacity == running.capacity || wanted.capacity == absent.capacity),
        ];
        let differing = sections.iter().filter(|(_, same)| !same);
        let problem = |(section, _): &(&str, bool)| Problem {
            place: (*section).into(),
            what: "it differs from what this process runs with; restart it to change this, or leave it out"
                .into(),
        };
        differing.map(problem).collect()
    }

    /// Code that takes other messages than what runs under its name.
    fn other_messages(
        &self,
        wanted: &ServeConfig,
        routes: &BTreeMap<&BackendName, Arc<BackendRoutes>>,
    ) -> Vec<Problem> {
        let running = |name| self.0.office.fleet().backends.get(name).map(|entry| Arc::clone(&entry.routes));
        let backends = wanted.backends.iter().enumerate();
        let found = backends.filter_map(|(i, decl)| {
            let (old, new) = (running(&decl.name)?, routes.get(&decl.name)?);
            let what = old.suits(new).err()?.to_string();
            Some(Problem { place: format!("backends[{i}]"), what })
        });
        found.collect()
    }

    /// Backends that do not fit even when nothing else is there.
    fn too_much(&self, wanted: &ServeConfig) -> Vec<Problem> {
        let pool = self.0.office.fleet().pool.clone();
        let place = |name: &BackendName| {
            let index = wanted.backends.iter().position(|decl| decl.name == *name).unwrap_or_default();
            format!("backends[{index}].resources")
        };
        // How many GPUs there are is not known before the first backend asks for one.
        let gpus = &self.0.office.gpus;
        let known = needs(wanted).filter(|need| !gpus.are_missing_for(need.resources));
        let found = ever_fits(&pool, known);
        found.into_iter().map(|(name, why)| Problem { place: place(name), what: why.to_string() }).collect()
    }
}

/// What the backends of a configuration ask for.
fn needs(config: &ServeConfig) -> impl Iterator<Item = Need<'_>> {
    config.backends.iter().map(|decl| Need {
        backend: &decl.name,
        replicas: decl.config.num_replicas,
        resources: &decl.config.resources,
    })
}

/// Whatever a file could not say, which a program may have put together; what has come to be so by changes may stay.
fn form(wanted: &ServeConfig, now: &ServeConfig) -> Result<(), ServeError> {
    let mut problems = Vec::new();
    for (i, decl) in wanted.backends.iter().enumerate() {
        let place =
            |problem: Problem| Problem { place: format!("backends[{i}].{}", problem.place), ..problem };
        problems.extend(decl.config.problems().into_iter().map(place));
    }
    if !problems.is_empty() {
        return Err(ServeError::InvalidConfig(problems));
    }
    let mut plain = wanted.clone();
    // A function has no form in a file.
    for rule in plain.endpoints.iter_mut().flat_map(|decl| &mut decl.shadow) {
        if rule.compared().is_some_and(|compare| compare.asks()) {
            *rule = rule.clone().uncompared();
        }
    }
    let json =
        serde_json::to_value(&plain).map_err(|error| ServeError::Internal(error.to_string().into()))?;
    ServeConfig::instead_of(now, json, std::path::Path::new("")).map(drop)
}

/// The backends that an endpoint names.
fn names(decl: &EndpointDecl) -> impl Iterator<Item = &BackendName> {
    decl.traffic.iter().map(|(backend, _)| backend).chain(decl.shadow.iter().map(|rule| rule.backend()))
}

/// An error as mistakes below a place.
fn at(place: &str, why: ServeError) -> Vec<Problem> {
    let below = |key: &str| format!("{place}.{key}");
    match why {
        ServeError::InvalidConfig(problems) => {
            problems.into_iter().map(|p| Problem { place: below(&p.place), ..p }).collect()
        }
        ServeError::Invalid { what, why } => vec![Problem { place: below(&what), what: why.into() }],
        other => vec![Problem { place: place.into(), what: other.to_string() }],
    }
}
