// The place of the largest number of each row.

struct Rows { first: u32, rows: u32, columns: u32 }
var<immediate> table: Rows;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> places: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) i: u32) {
    let row = (group.x + table.first) * 64u + i;
    if row >= table.rows { return; }
    var best = 0u;
    for (var n = 1u; n < table.columns; n++) {
        if x[row * table.columns + n] > x[row * table.columns + best] { best = n; }
    }
    places[row] = best;
}
