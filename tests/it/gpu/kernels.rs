//! Kernels that several tests run.

use greenroom::gpu::{Axis, KernelSpec};

/// Doubles every number of a buffer, 64 a workgroup; may be cut.
pub const DOUBLE: &str = "
var<immediate> first: u32;
@group(0) @binding(0) var<storage, read_write> data: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) i: u32) {
    let at = (group.x + first) * 64u + i;
    if at < arrayLength(&data) { data[at] *= 2.0; }
}";

/// Hundreds of steps of a recurrence on each number of a buffer, in the order of one thread: exact, and as long as
/// asked. Two loops, since software devices end one after some ten thousand rounds.
pub const SPIN: &str = "
struct P { first: u32, rounds: u32 }
var<immediate> p: P;
@group(0) @binding(0) var<storage, read_write> data: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) i: u32) {
    let at = (group.x + p.first) * 64u + i;
    if at >= arrayLength(&data) { return; }
    var x = data[at];
    for (var n = 0u; n < p.rounds; n++) {
        for (var m = 0u; m < 100u; m++) { x = fract(x * 1.7 + 0.3); }
    }
    data[at] = x;
}";

pub fn double() -> KernelSpec {
    KernelSpec::new(DOUBLE).split(Axis::X, 0)
}

pub fn spin() -> KernelSpec {
    KernelSpec::new(SPIN).split(Axis::X, 0)
}

/// The immediates of [`spin`].
pub fn rounds(n: u32) -> [u8; 8] {
    let mut immediates = [0; 8];
    immediates[4..].copy_from_slice(&n.to_le_bytes());
    immediates
}
