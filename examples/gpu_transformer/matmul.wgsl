// y = x w for matrices of any size, row by row. A workgroup makes a square block of y, a thread 4 x 4 numbers of it,
// 8 x 4 or 8 x 8, which stay in registers from the first input to the last.
//
// SIDE, ROW_QUADS and COLUMN_QUADS come before this text (matmul.rs). Behind it come the buffers, with x_at, w_at and
// finish: matmul_quads.wgsl or matmul_any.wgsl. A quad is four neighbours: of rows, of columns or of inputs.
//
// What makes it quick on a GPU:
// - Each number that is read from workgroup memory is used 4 or 8 times, and each read there brings a quad.
// - Of four inputs the steps are written out, and their index in `staged` is a literal: the checks of bounds are those of
//   numbers that do not change among them, and the addresses are constants beside each other.
// - The next inputs are under way from the buffers while the present ones are multiplied.
// - 32 neighbours among the threads read 8 quads of rows and 4 of columns, no two of them in one bank of that memory.

struct Product {
    // Added to the workgroup's index: the grid may be run in pieces.
    first: u32,
    rows: u32,
    inputs: u32,
    outputs: u32,
    // 1: the bias of its column is added to each output,
    bias: u32,
    // then, if 1, what is below zero becomes zero,
    relu: u32,
    // then, if 1, what was in y before is added.
    add: u32,
}
var<immediate> product: Product;

// Inputs that a round takes.
const DEPTH: u32 = 16u;
const QUADS: u32 = SIDE / 4u;
const THREADS: u32 = (QUADS / ROW_QUADS) * (QUADS / COLUMN_QUADS);
// Threads that bring x; as many bring w. Each brings a patch of 4 x 4.
const HALF: u32 = THREADS / 2u;
const GROUPS_ACROSS: u32 = QUADS / (4u * COLUMN_QUADS);

// For each input of a round the rows of x, which are a column there, and behind them the columns of w.
var<workgroup> staged: array<array<array<vec4f, 2u * QUADS>, 4>, DEPTH / 4u>;

// The thread's outputs, a row of four each: those of its first rows and columns, then of its second columns, then the
// same of its second rows.
var<private> sums: array<vec4f, 16>;

struct Patch { a: vec4f, b: vec4f, c: vec4f, d: vec4f }

// Four rows of x with four inputs each, or four inputs of w with four columns each.
fn bring(is_x: bool, row: u32, column: u32) -> Patch {
    var own: Patch;
    if is_x {
        let a = x_at(row, column);
        let b = x_at(row + 1u, column);
        let c = x_at(row + 2u, column);
        let d = x_at(row + 3u, column);
        own.a = vec4f(a.x, b.x, c.x, d.x);
        own.b = vec4f(a.y, b.y, c.y, d.y);
        own.c = vec4f(a.z, b.z, c.z, d.z);
        own.d = vec4f(a.w, b.w, c.w, d.w);
    } else {
        own.a = w_at(row, column);
        own.b = w_at(row + 1u, column);
        own.c = w_at(row + 2u, column);
        own.d = w_at(row + 3u, column);
    }
    return own;
}

// One input: each row of four with each column of four.
fn first(a: vec4f, b: vec4f) {
    sums[0] += a.x * b;
    sums[1] += a.y * b;
    sums[2] += a.z * b;
    sums[3] += a.w * b;
}

fn right(a: vec4f, b: vec4f) {
    sums[4] += a.x * b;
    sums[5] += a.y * b;
    sums[6] += a.z * b;
    sums[7] += a.w * b;
}

fn below(a: vec4f, b: vec4f) {
    sums[8] += a.x * b;
    sums[9] += a.y * b;
    sums[10] += a.z * b;
    sums[11] += a.w * b;
}

fn last(a: vec4f, b: vec4f) {
    sums[12] += a.x * b;
    sums[13] += a.y * b;
    sums[14] += a.z * b;
    sums[15] += a.w * b;
}

// One input, the `k`th of four: all rows that are the thread's with all columns that are.
fn step(fourth: u32, k: u32, row: u32, column: u32) {
    let a = staged[fourth][k][row];
    let b = staged[fourth][k][column];
    first(a, b);
    if ROW_QUADS == 2u {
        let low = staged[fourth][k][row + 8u];
        below(low, b);
        if COLUMN_QUADS == 2u {
            let wide = staged[fourth][k][column + 4u];
            right(a, wide);
            last(low, wide);
        }
    }
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) i: u32,
) {
    // Where a grid is too long for one axis, its second one counts faster.
    let block = (group.x + product.first) * groups.y + group.y;
    let blocks_across = (product.outputs + SIDE - 1u) / SIDE;
    let top = block / blocks_across * SIDE;
    let left = block % blocks_across * SIDE;
    // The last row of a grid of two axes may be longer than what is left.
    if top >= product.rows { return; }

    let lane = i % 32u;
    let down = (lane >> 1u) & 7u;
    let across = (lane & 1u) | ((lane >> 3u) & 2u);

    let is_x = i < HALF;
    let quad = i % HALF / 32u * 8u + down;
    let place = select(QUADS, 0u, is_x) + quad;
    var from_row = across * 4u;
    var from_column = left + quad * 4u;
    var next_row = DEPTH;
    var next_column = 0u;
    if is_x {
        from_row = top + quad * 4u;
        from_column = across * 4u;
        next_row = 0u;
        next_column = DEPTH;
    }

    let row = i / 32u / GROUPS_ACROSS * (8u * ROW_QUADS) + down;
    let column = i / 32u % GROUPS_ACROSS * (4u * COLUMN_QUADS) + across;
    let behind = QUADS + column;

    // A round later than there are inputs, for what the last of them brought.
    for (var done = 0u; ; done += DEPTH) {
        let own = bring(is_x, from_row, from_column);
        from_row += next_row;
        from_column += next_column;
        if done > 0u {
            for (var fourth = 0u; fourth < DEPTH / 4u; fourth++) {
                step(fourth, 0u, row, behind);
                step(fourth, 1u, row, behind);
                step(fourth, 2u, row, behind);
                step(fourth, 3u, row, behind);
            }
        }
        if done >= product.inputs { break; }
        workgroupBarrier();
        staged[across][0][place] = own.a;
        staged[across][1][place] = own.b;
        staged[across][2][place] = own.c;
        staged[across][3][place] = own.d;
        workgroupBarrier();
    }

    let y_row = top + row * 4u;
    let y_column = left + column * 4u;
    finish(y_row, y_column, sums[0]);
    finish(y_row + 1u, y_column, sums[1]);
    finish(y_row + 2u, y_column, sums[2]);
    finish(y_row + 3u, y_column, sums[3]);
    if COLUMN_QUADS == 2u {
        finish(y_row, y_column + 16u, sums[4]);
        finish(y_row + 1u, y_column + 16u, sums[5]);
        finish(y_row + 2u, y_column + 16u, sums[6]);
        finish(y_row + 3u, y_column + 16u, sums[7]);
    }
    if ROW_QUADS == 2u {
        finish(y_row + 32u, y_column, sums[8]);
        finish(y_row + 33u, y_column, sums[9]);
        finish(y_row + 34u, y_column, sums[10]);
        finish(y_row + 35u, y_column, sums[11]);
        if COLUMN_QUADS == 2u {
            finish(y_row + 32u, y_column + 16u, sums[12]);
            finish(y_row + 33u, y_column + 16u, sums[13]);
            finish(y_row + 34u, y_column + 16u, sums[14]);
            finish(y_row + 35u, y_column + 16u, sums[15]);
        }
    }
}
