//! The integration tests: one binary, one file an area.

mod api;
mod embedding;
mod http;
mod shutdown;
mod support;
mod tidy;
