
// The buffers of a product of any size: the numbers of a quad are looked at one by one.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

fn x_at(row: u32, input: u32) -> vec4f {
    var quad = vec4f();
    if row >= product.rows { return quad; }
    let at = row * product.inputs + input;
    if input < product.inputs { quad.x = x[at]; }
    if input + 1u < product.inputs { quad.y = x[at + 1u]; }
    if input + 2u < product.inputs { quad.z = x[at + 2u]; }
    if input + 3u < product.inputs { quad.w = x[at + 3u]; }
    return quad;
}

fn w_at(input: u32, column: u32) -> vec4f {
    var quad = vec4f();
    if input >= product.inputs { return quad; }
    let at = input * product.outputs + column;
    if column < product.outputs { quad.x = w[at]; }
    if column + 1u < product.outputs { quad.y = w[at + 1u]; }
    if column + 2u < product.outputs { quad.z = w[at + 2u]; }
    if column + 3u < product.outputs { quad.w = w[at + 3u]; }
    return quad;
}

fn finish(row: u32, column: u32, sums: vec4f) {
    finish_one(row, column, sums.x);
    finish_one(row, column + 1u, sums.y);
    finish_one(row, column + 2u, sums.z);
    finish_one(row, column + 3u, sums.w);
}

fn finish_one(row: u32, column: u32, sum: f32) {
    if row >= product.rows || column >= product.outputs { return; }
    let at = row * product.outputs + column;
    var value = sum;
    if product.bias == 1u { value += b[column]; }
    if product.relu == 1u { value = max(value, 0.0); }
    if product.add == 1u { value += y[at]; }
    y[at] = value;
}
