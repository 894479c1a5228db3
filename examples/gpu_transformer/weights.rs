//! The weights of a transformer block, drawn from a generator: the same each time.

/// Numbers of a token.
pub const WIDTH: usize = 64;
/// Attention heads.
pub const HEADS: usize = 4;
/// Tokens of a sequence.
pub const TOKENS: usize = 16;
/// Numbers of a token inside the feed-forward part.
pub const INNER: usize = 128;

/// Matrices are row by row, an input's weights to all outputs in a row.
pub struct Weights {
    pub gain1: Vec<f32>,
    pub bias1: Vec<f32>,
    /// To queries, keys and values, side by side.
    pub qkv: Vec<f32>,
    pub qkv_bias: Vec<f32>,
    pub out: Vec<f32>,
    pub out_bias: Vec<f32>,
    pub gain2: Vec<f32>,
    pub bias2: Vec<f32>,
    pub up: Vec<f32>,
    pub up_bias: Vec<f32>,
    pub down: Vec<f32>,
    pub down_bias: Vec<f32>,
}

impl Weights {
    pub fn drawn(seed: u64) -> Self {
        let mut draw = numbers(seed);
        let mut matrix = |inputs: usize, outputs: usize| -> Vec<f32> {
            let scale = 1.0 / (inputs as f32).sqrt();
            (0..inputs * outputs).map(|_| draw() * scale).collect()
        };
        let gain = |drawn: Vec<f32>| drawn.into_iter().map(|x| 1.0 + 0.1 * x).collect();
        Self {
            gain1: gain(matrix(1, WIDTH)),
            bias1: matrix(1, WIDTH),
            qkv: matrix(WIDTH, 3 * WIDTH),
            qkv_bias: matrix(1, 3 * WIDTH),
            out: matrix(WIDTH, WIDTH),
            out_bias: matrix(1, WIDTH),
            gain2: gain(matrix(1, WIDTH)),
            bias2: matrix(1, WIDTH),
            up: matrix(WIDTH, INNER),
            up_bias: matrix(1, INNER),
            down: matrix(INNER, WIDTH),
            down_bias: matrix(1, WIDTH),
        }
    }
}

/// Numbers from -1 to 1, the same for the same seed.
pub fn numbers(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    }
}
