
// The buffers of a product whose inputs and outputs are multiples of four: a quad is inside or outside as a whole.

@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read> w: array<vec4f>;
@group(0) @binding(2) var<storage, read> b: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4f>;

fn x_at(row: u32, input: u32) -> vec4f {
    if row >= product.rows || input >= product.inputs { return vec4f(); }
    return x[(row * product.inputs + input) / 4u];
}

fn w_at(input: u32, column: u32) -> vec4f {
    if input >= product.inputs || column >= product.outputs { return vec4f(); }
    return w[(input * product.outputs + column) / 4u];
}

fn finish(row: u32, column: u32, sums: vec4f) {
    if row >= product.rows || column >= product.outputs { return; }
    let at = (row * product.outputs + column) / 4u;
    var value = sums;
    if product.bias == 1u { value += b[column / 4u]; }
    if product.relu == 1u { value = max(value, vec4f()); }
    if product.add == 1u { value += y[at]; }
    y[at] = value;
}
