// What each token takes from all tokens of its sequence: scores, their softmax, and the sum of values weighted by it.
// One workgroup for a query of one head; queries, keys and values of a token lie one after the other.

struct Heads {
    first: u32,
    // Tokens of a sequence, at most TOKENS.
    tokens: u32,
    heads: u32,
    // Numbers of a head.
    size: u32,
}
var<immediate> table: Heads;

@group(0) @binding(0) var<storage, read> qkv: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

const THREADS: u32 = 64u;
const TOKENS: u32 = 256u;
var<workgroup> scores: array<f32, TOKENS>;
var<workgroup> parts: array<f32, THREADS>;

fn largest_of_all(own: f32, i: u32) -> f32 {
    workgroupBarrier();
    parts[i] = own;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if i < half { parts[i] = max(parts[i], parts[i + half]); }
    }
    workgroupBarrier();
    return parts[0];
}

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
    let width = table.heads * table.size;
    let place = group.x + table.first;
    let head = place % table.heads;
    let token = place / table.heads;
    let sequence = token / table.tokens * table.tokens;
    let query = token * 3u * width + head * table.size;
    var largest = -3.4e38;
    for (var other = i; other < table.tokens; other += THREADS) {
        let key = (sequence + other) * 3u * width + width + head * table.size;
        var score = 0.0;
        for (var n = 0u; n < table.size; n++) { score += qkv[query + n] * qkv[key + n]; }
        score *= inverseSqrt(f32(table.size));
        scores[other] = score;
        largest = max(largest, score);
    }
    largest = largest_of_all(largest, i);
    var sum = 0.0;
    for (var other = i; other < table.tokens; other += THREADS) {
        let part = exp(scores[other] - largest);
        scores[other] = part;
        sum += part;
    }
    sum = sum_of_all(sum, i);
    for (var n = i; n < table.size; n += THREADS) {
        var value = 0.0;
        for (var other = 0u; other < table.tokens; other++) {
            value += scores[other] * qkv[(sequence + other) * 3u * width + 2u * width + head * table.size + n];
        }
        y[token * width + head * table.size + n] = value / sum;
    }
}
