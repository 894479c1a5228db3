//! The `greenroom` binary.
