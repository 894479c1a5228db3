// y = x w + b, cut at zero if asked, plus what was there before if asked: tiles of 8 by 8, each read once a workgroup.

struct Layer {
    first: u32,
    rows: u32,
    inputs: u32,
    outputs: u32,
    // 1: no product is below zero.
    cut: u32,
    // 1: it is added to y.
    add: u32,
}
var<immediate> layer: Layer;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

const TILE: u32 = 8u;
var<workgroup> left: array<array<f32, TILE>, TILE>;
var<workgroup> right: array<array<f32, TILE>, TILE>;

@compute @workgroup_size(TILE, TILE)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) own: vec3u) {
    let column = group.x * TILE + own.x;
    let row = (group.y + layer.first) * TILE + own.y;
    var sum = 0.0;
    for (var start = 0u; start < layer.inputs; start += TILE) {
        let across = start + own.x;
        let down = start + own.y;
        var value = 0.0;
        if row < layer.rows && across < layer.inputs { value = x[row * layer.inputs + across]; }
        left[own.y][own.x] = value;
        value = 0.0;
        if down < layer.inputs && column < layer.outputs { value = w[down * layer.outputs + column]; }
        right[own.y][own.x] = value;
        workgroupBarrier();
        for (var n = 0u; n < TILE; n++) { sum += left[own.y][n] * right[n][own.x]; }
        workgroupBarrier();
    }
    if row >= layer.rows || column >= layer.outputs { return; }
    let at = row * layer.outputs + column;
    sum += b[column];
    if layer.cut == 1u { sum = max(sum, 0.0); }
    if layer.add == 1u { sum += y[at]; }
    y[at] = sum;
}
