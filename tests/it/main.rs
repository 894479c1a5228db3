//! The integration tests, one binary: a module for each area.

mod api;
mod embedding;
mod examples;
mod examples_http;
mod frail;
mod http;
mod panics;
mod shutdown;
mod support;
mod tidy;
mod wire;
