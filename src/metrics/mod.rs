//! Metrics of one Serve.

pub(crate) mod cells;

pub(crate) mod registry;
