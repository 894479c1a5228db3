//! The integration tests, one binary: a module for each area.

mod api;
#[cfg(feature = "onnx")]
mod binary;
#[cfg(feature = "onnx")]
mod digits;
mod embedding;
mod examples;
mod examples_http;
mod frail;
mod http;
#[cfg(feature = "onnx")]
mod onnx;
mod panics;
mod shutdown;
#[cfg(feature = "onnx")]
mod socket;
mod support;
mod tidy;
#[cfg(feature = "onnx")]
mod triton;
mod wire;
