// Each row moved to mean 0 and variance 1, then scaled and shifted: one workgroup a row.

struct Rows { first: u32, columns: u32 }
var<immediate> table: Rows;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> gain: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

const THREADS: u32 = 64u;
var<workgroup> parts: array<f32, THREADS>;

// The sum of what all threads have; every thread gets it.
fn sum_of_all(own: f32, i: u32) -> f32 {
    workgroupBarrier();
    parts[i] = own;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if i < half { parts[i] += parts[i + half]; }
    }
    workgroupBarrier();
    return parts[0];
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) i: u32) {
    let start = (group.x + table.first) * table.columns;
    var sum = 0.0;
    for (var n = i; n < table.columns; n += THREADS) { sum += x[start + n]; }
    let mean = sum_of_all(sum, i) / f32(table.columns);
    var squares = 0.0;
    for (var n = i; n < table.columns; n += THREADS) {
        let off = x[start + n] - mean;
        squares += off * off;
    }
    let variance = sum_of_all(squares, i) / f32(table.columns);
    let scale = inverseSqrt(variance + 1e-5);
    for (var n = i; n < table.columns; n += THREADS) {
        y[start + n] = (x[start + n] - mean) * scale * gain[n] + bias[n];
    }
}
