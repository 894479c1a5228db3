// One dense layer: y = x w + b for every row of x, cut at zero where that is asked for. One number a thread.

struct Layer {
    // Added to the workgroup's index: the grid may be run in pieces.
    first: u32,
    rows: u32,
    inputs: u32,
    outputs: u32,
    // Every input is multiplied by it.
    scale: f32,
    // 1: no output is below zero.
    cut: u32,
}
var<immediate> layer: Layer;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) i: u32) {
    let at = (group.x + layer.first) * 64u + i;
    if at >= layer.rows * layer.outputs { return; }
    let row = at / layer.outputs;
    let column = at % layer.outputs;
    var sum = 0.0;
    for (var n = 0u; n < layer.inputs; n++) {
        sum += layer.scale * x[row * layer.inputs + n] * w[n * layer.outputs + column];
    }
    sum += b[column];
    y[at] = select(sum, max(sum, 0.0), layer.cut == 1u);
}
