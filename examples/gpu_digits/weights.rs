//! The weights of the digits network, read where the ONNX file has them, and the network on a CPU.

use greenroom::ServeError;

pub const PIXELS: usize = 64;
pub const HIDDEN: usize = 32;
pub const DIGITS: usize = 10;

/// Two layers; the second one's outputs are as many as there are digits.
pub struct Weights {
    pub w1: Vec<f32>,
    pub b1: Vec<f32>,
    pub w2: Vec<f32>,
    pub b2: Vec<f32>,
}

impl Weights {
    pub fn load(path: &str) -> Result<Self, ServeError> {
        let file = std::fs::read(path).map_err(|error| ServeError::invalid(path, error.to_string()))?;
        let tensor = |name: &str, count: usize| {
            let found = tensor(&file, name).filter(|numbers| numbers.len() == count);
            found.ok_or_else(|| ServeError::invalid(path, format!("it has no {count} numbers called {name}")))
        };
        Ok(Self {
            w1: tensor("w1", PIXELS * HIDDEN)?,
            b1: tensor("b1", HIDDEN)?,
            w2: tensor("w2", HIDDEN * DIGITS)?,
            b2: tensor("b2", DIGITS)?,
        })
    }

    /// What digit is on the image, by the CPU.
    pub fn classify(&self, pixels: &[f32]) -> u32 {
        let scaled: Vec<f32> = pixels.iter().map(|pixel| pixel / 16.0).collect();
        let hidden = layer(&scaled, &self.w1, &self.b1);
        let hidden: Vec<f32> = hidden.into_iter().map(|x| x.max(0.0)).collect();
        let logits = layer(&hidden, &self.w2, &self.b2);
        let best = (0..DIGITS).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
        best.unwrap_or(0) as u32
    }
}

fn layer(x: &[f32], w: &[f32], b: &[f32]) -> Vec<f32> {
    let column = |j: usize| (0..x.len()).map(|i| x[i] * w[i * b.len() + j]).sum::<f32>() + b[j];
    (0..b.len()).map(column).collect()
}

/// The numbers of a tensor: in an ONNX file its name is field 8 of its record, and its bytes are field 9, which
/// comes next; each field begins with its tag and its length.
fn tensor(file: &[u8], name: &str) -> Option<Vec<f32>> {
    let mut head = vec![0x42, u8::try_from(name.len()).ok()?];
    head.extend(name.bytes());
    head.push(0x4a);
    let at = file.windows(head.len()).position(|bytes| bytes == head)? + head.len();
    let (mut length, mut shift, mut begin) = (0, 0, at);
    loop {
        let byte = *file.get(begin)?;
        begin += 1;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 || shift > 28 {
            break;
        }
    }
    let bytes = file.get(begin..begin.checked_add(length)?)?;
    Some(bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect())
}
