#!/bin/sh
# Everything that a change has to pass: format, lints, tests, documents. First installs what the tests need.
set -eu
cd "$(dirname "$0")"
tests/setup.sh
cargo fmt --check
cargo clippy --locked --features gpu --all-targets -- -D warnings
# Actors, HTTP and batching stand without the ONNX and the GPU parts.
cargo clippy --locked --no-default-features --lib --bins -- -D warnings
# Mesa asks for one, and complains.
export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/tmp}"
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --features gpu
else
    cargo test --locked --features gpu --lib --bins --tests
fi
cargo test --locked --features gpu --doc
RUSTDOCFLAGS="-D warnings" cargo doc --locked --features gpu --no-deps
if cargo deny --version >/dev/null 2>&1; then
    cargo deny --locked --log-level error check bans licenses sources
else
    echo "WARNING: cargo-deny is not installed: licences, bans and sources of dependencies were NOT checked" >&2
fi
