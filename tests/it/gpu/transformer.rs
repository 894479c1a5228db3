//! The transformer block of the example against the same block in numbers of double precision.

use futures_util::future::join_all;
use greenroom::{
    Capacity, Serve, ServeOptions,
    gpu::{DetectGpus, adapters},
};

use self::gpu_transformer::{
    Encode, deploy,
    weights::{HEADS, INNER, TOKENS, WIDTH, Weights, numbers},
};
use super::vulkan;

#[path = "../../../examples/gpu_transformer/main.rs"]
#[allow(dead_code, reason = "its main is not called")]
pub mod gpu_transformer;

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// Each row of `x` times `w`, plus `b`.
fn project(x: &[f64], w: &[f32], b: &[f32]) -> Vec<f64> {
    let (w, b) = (wide(w), wide(b));
    let inputs = w.len() / b.len();
    let row = |row: &[f64]| -> Vec<f64> {
        (0..b.len()).map(|j| b[j] + (0..inputs).map(|i| row[i] * w[i * b.len() + j]).sum::<f64>()).collect()
    };
    x.chunks_exact(inputs).flat_map(row).collect()
}

fn layer_norm(x: &[f64], gain: &[f32], bias: &[f32]) -> Vec<f64> {
    let row = |row: &[f64]| -> Vec<f64> {
        let mean = row.iter().sum::<f64>() / WIDTH as f64;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / WIDTH as f64;
        let normed = |n: usize| (row[n] - mean) / (variance + 1e-5).sqrt();
        (0..WIDTH).map(|n| normed(n) * f64::from(gain[n]) + f64::from(bias[n])).collect()
    };
    x.chunks_exact(WIDTH).flat_map(row).collect()
}

/// All heads of one sequence.
fn attention(qkv: &[f64]) -> Vec<f64> {
    let size = WIDTH / HEADS;
    let part = |token: usize, which: usize, head: usize| {
        let at = token * 3 * WIDTH + which * WIDTH + head * size;
        &qkv[at..at + size]
    };
    let mut mixed = vec![0.0; TOKENS * WIDTH];
    for (token, head) in (0..TOKENS).flat_map(|token| (0..HEADS).map(move |head| (token, head))) {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let score = |other| (dot(part(token, 0, head), part(other, 1, head)) / (size as f64).sqrt()).exp();
        let scores: Vec<f64> = (0..TOKENS).map(score).collect();
        for (other, score) in scores.iter().enumerate() {
            for n in 0..size {
                mixed[token * WIDTH + head * size + n] +=
                    score / scores.iter().sum::<f64>() * part(other, 2, head)[n];
            }
        }
    }
    mixed
}

fn add(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn reference(tokens: &[f32], weights: &Weights) -> Vec<f64> {
    let x = wide(tokens);
    let normed = layer_norm(&x, &weights.gain1, &weights.bias1);
    let mixed = attention(&project(&normed, &weights.qkv, &weights.qkv_bias));
    let x = add(&x, &project(&mixed, &weights.out, &weights.out_bias));
    let normed = layer_norm(&x, &weights.gain2, &weights.bias2);
    let inner = project(&normed, &weights.up, &weights.up_bias);
    assert_eq!(inner.len(), TOKENS * INNER);
    let inner: Vec<f64> = inner.into_iter().map(|x| x.max(0.0)).collect();
    add(&x, &project(&inner, &weights.down, &weights.down_bias))
}

#[actix_web::test]
async fn a_transformer_block_in_batches_agrees_with_double_precision() {
    if adapters().is_empty() {
        return drop(vulkan(Default::default()));
    }
    let options = ServeOptions::default().capacity(Capacity::unlimited());
    let serve = Serve::start(options.detect_gpus(DetectGpus::default().software())).await.unwrap();
    deploy(&serve, Weights::drawn(1)).await.unwrap();
    let handle = serve.handle::<Encode>("encoder").unwrap();
    let mut draw = numbers(2);
    let sequences: Vec<Vec<f32>> = (0..20).map(|_| (0..TOKENS * WIDTH).map(|_| draw()).collect()).collect();
    let answers = join_all(sequences.iter().map(|tokens| handle.call(Encode(tokens.clone())))).await;
    let weights = Weights::drawn(1);
    let mut worst = 0.0_f64;
    for (tokens, answer) in sequences.iter().zip(answers) {
        let (answer, reference) = (answer.unwrap(), reference(tokens, &weights));
        assert_eq!(answer.len(), reference.len());
        let off = answer.iter().zip(&reference).map(|(got, want)| (f64::from(*got) - want).abs());
        worst = off.fold(worst, f64::max);
    }
    println!("within {worst:.1e}");
    assert!(worst < 1e-4, "{worst}");
    assert!(serve.status().gpus[0].leases[0].jobs < 60, "sequences went together");
    assert_eq!(handle.call(Encode(vec![0.0; 3])).await.unwrap_err().code(), "not_a_sequence");
    serve.shutdown().await.unwrap();
}
