//! The integration tests, one binary: a module for each area.
#![allow(
    clippy::manual_assert,
    clippy::items_after_statements,
    clippy::semicolon_if_nothing_returned,
    reason = "a test reads from top to bottom, and what panics there is meant to"
)]

mod actix_assumptions;
mod admin;
mod api;
mod batching;
#[cfg(feature = "onnx")]
mod binary;
mod cancellation;
mod compare;
#[path = "../conformance/mod.rs"]
mod conformance;
mod deadlines;
mod deploy;
#[cfg(feature = "onnx")]
mod digits;
#[cfg(feature = "onnx")]
mod digits_example;
mod documents;
mod embedding;
mod endings;
mod endings_at_once;
mod example_deploy;
#[cfg(feature = "gpu")]
mod example_fractional_gpus;
mod example_health_check;
mod example_reconfigure;
mod examples;
mod examples_http;
mod examples_rolling;
mod examples_traffic;
mod frail;
#[cfg(feature = "gpu")]
mod gpu;
mod health;
mod http;
mod lifecycle;
mod meta;
mod noter;
#[cfg(feature = "onnx")]
mod onnx;
mod overload;
mod own_actors;
mod panics;
mod pending;
mod placement;
#[cfg(feature = "onnx")]
mod process;
mod reconfigure;
#[cfg(feature = "onnx")]
mod reload;
mod resources;
mod rolling;
mod shutdown;
#[cfg(feature = "onnx")]
mod socket;
mod state;
mod support;
#[cfg(target_os = "linux")]
mod takeover;
#[cfg(all(target_os = "linux", feature = "onnx"))]
mod takeover_processes;
mod tidy;
mod timeouts;
mod traffic;
#[cfg(feature = "onnx")]
mod triton;
mod wire;
