// The control: y = x w with tiles of 16 by 16, one output a thread, as in every first text on the matter.

struct Product {
    first: u32,
    rows: u32,
    inputs: u32,
    outputs: u32,
    bias: u32,
    relu: u32,
    add: u32,
}
var<immediate> product: Product;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

const TILE: u32 = 16u;
var<workgroup> of_x: array<array<f32, TILE>, TILE>;
var<workgroup> of_w: array<array<f32, TILE>, TILE>;

@compute @workgroup_size(TILE, TILE)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) own: vec3u) {
    let column = (group.x + product.first) * TILE + own.x;
    let row = group.y * TILE + own.y;
    var sum = 0.0;
    for (var start = 0u; start < product.inputs; start += TILE) {
        let across = start + own.x;
        let down = start + own.y;
        var value = 0.0;
        if row < product.rows && across < product.inputs { value = x[row * product.inputs + across]; }
        of_x[own.y][own.x] = value;
        value = 0.0;
        if down < product.inputs && column < product.outputs { value = w[down * product.outputs + column]; }
        of_w[own.y][own.x] = value;
        workgroupBarrier();
        for (var n = 0u; n < TILE; n++) { sum += of_x[own.y][n] * of_w[n][own.x]; }
        workgroupBarrier();
    }
    if row >= product.rows || column >= product.outputs { return; }
    let at = row * product.outputs + column;
    if product.bias == 1u { sum += b[column]; }
    if product.relu == 1u { sum = max(sum, 0.0); }
    if product.add == 1u { sum += y[at]; }
    y[at] = sum;
}
