//! The integration tests: one binary, one file an area.

#[cfg(feature = "onnx")]
mod binary;
#[cfg(feature = "onnx")]
mod digits;
#[cfg(feature = "onnx")]
mod onnx;
#[cfg(feature = "onnx")]
mod socket;
#[cfg(feature = "onnx")]
mod triton;
