//! Whether what is wanted of several backends fits together, before any of it is begun.

use std::sync::Arc;

use crate::{
    actors::fleet::{Fleet, no_resources},
    error::ServeError,
    ids::BackendName,
    resources::{Pool, Resources},
};

/// How many replicas of a backend are wanted, and what each asks for.
pub(crate) struct Need<'a> {
    pub(crate) backend: &'a BackendName,
    pub(crate) replicas: u32,
    pub(crate) resources: &'a Resources,
}

impl Fleet {
    /// Whether all of this fits into what is free now, in this order; each backend gives back what it has itself.
    ///
    /// # Errors
    /// [`ServeError::NoResources`] for the first that does not fit.
    pub(crate) fn fits<'a>(&self, needs: impl IntoIterator<Item = Need<'a>>) -> Result<(), ServeError> {
        let mut pool = self.pool.clone();
        for Need { backend, replicas, resources } in needs {
            if let Some(entry) = self.backends.get(backend) {
                pool = pool.without(entry.claims.iter());
            }
            admit(&mut pool, backend, replicas, resources)?;
        }
        Ok(())
    }
}

/// Whether this can ever fit, all of it together; otherwise each that is too much for those before it.
pub(crate) fn ever_fits<'a>(
    pool: &Pool,
    needs: impl IntoIterator<Item = Need<'a>>,
) -> Vec<(&'a BackendName, ServeError)> {
    let mut pool = pool.unused();
    let needs = needs.into_iter();
    needs
        .filter_map(|Need { backend, replicas, resources }| {
            admit(&mut pool, backend, replicas, resources).err().map(|why| (backend, why))
        })
        .collect()
}

fn admit(
    pool: &mut Pool,
    backend: &BackendName,
    replicas: u32,
    resources: &Resources,
) -> Result<(), ServeError> {
    // The pool is a copy of what there is, and the claims end with it.
    let claims = pool.admit(&Arc::new(resources.clone()), replicas);
    claims.map(drop).map_err(|short| no_resources(backend, replicas, 0, &short))
}
