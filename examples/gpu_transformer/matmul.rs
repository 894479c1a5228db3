//! Products of matrices on a GPU: the tile that a shape gets, its kernel's text, its grid and its immediates.
//!
//! Nothing but the standard library is used here, so any program on wgpu can take this file with the three of WGSL.

/// Most workgroups along an axis of a grid that every device allows.
const GRID_MAX: u32 = 65_535;

/// As many workgroups keep a large GPU busy. A larger tile uses what it reads more often, but leaves fewer of them.
const BUSY: u32 = 192;

/// `y = x w` with `x` of `rows` times `inputs` numbers, `w` of `inputs` times `outputs`, row by row. None is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub rows: u32,
    pub inputs: u32,
    pub outputs: u32,
}

/// The tile of `y` that a workgroup makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tile {
    /// 32 by 32, 4 by 4 a thread.
    Small,
    /// 64 by 64, 8 by 4 a thread.
    Medium,
    /// 128 by 128, 8 by 8 a thread.
    Large,
}

/// How a kernel reads and writes its buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Four numbers at once: inputs and outputs are multiples of four.
    Quads,
    /// One by one.
    Any,
}

/// One kernel. Its buffers are `x`, `w`, the bias (any buffer of 16 bytes where there is none, `w` too) and `y`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    pub tile: Tile,
    pub access: Access,
}

/// What is done with a product before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    Nothing,
    /// The bias of its column is added.
    Bias,
    /// The bias is added, and what is then below zero becomes zero.
    BiasRelu,
    /// The bias is added, and what was in `y` before.
    BiasAdd,
}

impl Tile {
    /// All of them, the smallest first.
    pub const ALL: [Self; 3] = [Self::Small, Self::Medium, Self::Large];

    /// Rows and columns.
    pub const fn side(self) -> u32 {
        match self {
            Self::Small => 32,
            Self::Medium => 64,
            Self::Large => 128,
        }
    }

    /// Quads of rows and of columns that a thread has.
    const fn quads(self) -> (u32, u32) {
        match self {
            Self::Small => (1, 1),
            Self::Medium => (2, 1),
            Self::Large => (2, 2),
        }
    }

    /// The largest of which there are still enough, and which a narrow matrix does not leave half empty.
    pub fn of(shape: Shape) -> Self {
        let fits = |tile: &Self| {
            let narrow = shape.rows.min(shape.outputs);
            narrow > tile.side() / 2 && tile.count(shape) >= u64::from(BUSY)
        };
        Self::ALL.into_iter().rev().find(fits).unwrap_or(Self::Small)
    }

    /// How many of them cover `y`.
    fn count(self, shape: Shape) -> u64 {
        u64::from(shape.rows.div_ceil(self.side())) * u64::from(shape.outputs.div_ceil(self.side()))
    }
}

impl Kernel {
    /// The one for a shape.
    pub fn of(shape: Shape) -> Self {
        Self { tile: Tile::of(shape), access: Access::of(shape) }
    }

    /// Its text. It may be cut along the first axis; the first workgroup is at byte 0 of the immediates.
    pub fn wgsl(self) -> String {
        let (side, (row_quads, column_quads)) = (self.tile.side(), self.tile.quads());
        let numbers = [("SIDE", side), ("ROW_QUADS", row_quads), ("COLUMN_QUADS", column_quads)];
        let head: String =
            numbers.iter().map(|(name, value)| format!("const {name}: u32 = {value}u;\n")).collect();
        let buffers = match self.access {
            Access::Quads => include_str!("matmul_quads.wgsl"),
            Access::Any => include_str!("matmul_any.wgsl"),
        };
        head + include_str!("matmul.wgsl") + buffers
    }

    /// Its workgroups for a shape: all along the first axis, unless they are too many.
    pub fn grid(self, shape: Shape) -> [u32; 3] {
        let tiles = self.tile.count(shape);
        let deep = tiles.div_ceil(u64::from(GRID_MAX)).max(1);
        let whole = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        [whole(tiles.div_ceil(deep)), whole(deep), 1]
    }
}

impl Access {
    /// The best that a shape allows.
    pub fn of(shape: Shape) -> Self {
        if shape.inputs.is_multiple_of(4) && shape.outputs.is_multiple_of(4) {
            Self::Quads
        } else {
            Self::Any
        }
    }
}

/// The immediates of every kernel here.
pub fn immediates(shape: Shape, epilogue: Epilogue) -> [u8; 28] {
    let (bias, relu, add) = match epilogue {
        Epilogue::Nothing => (0, 0, 0),
        Epilogue::Bias => (1, 0, 0),
        Epilogue::BiasRelu => (1, 1, 0),
        Epilogue::BiasAdd => (1, 0, 1),
    };
    let words = [0, shape.rows, shape.inputs, shape.outputs, bias, relu, add];
    let mut bytes = [0; 28];
    for (four, word) in bytes.chunks_exact_mut(4).zip(words) {
        four.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}
