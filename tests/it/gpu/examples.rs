//! The examples with a GPU: the digits network gives scikit-learn's labels, two models get their shares.

use std::time::Duration;

use greenroom::{
    Capacity, Serve, ServeOptions,
    gpu::{DetectGpus, Order, adapters},
};

use self::gpu_digits::{Classify, WithoutGpu};

#[path = "../../../examples/gpu_digits/main.rs"]
#[allow(dead_code, reason = "its main is not called")]
mod gpu_digits;
#[path = "../../../examples/gpu_fraction/main.rs"]
#[allow(dead_code, reason = "its main is not called")]
mod gpu_fraction;

use super::vulkan;
use crate::digits::held_out;

/// The labels of all held-out images, asked for at once.
async fn classify_all(serve: &Serve) {
    let handle = serve.handle::<Classify>("digits").unwrap();
    let held_out = held_out();
    let calls = held_out.x.into_iter().map(|pixels| handle.call(Classify { pixels }));
    let labels = futures_util::future::join_all(calls).await;
    for (n, (label, want)) in labels.into_iter().zip(held_out.sklearn).enumerate() {
        assert_eq!(i64::from(label.unwrap()), want, "image {n}");
    }
    let wrong = handle.call(Classify { pixels: vec![0.0; 12] }).await.unwrap_err();
    assert_eq!(wrong.code(), "not_an_image");
}

#[actix_web::test]
async fn the_digits_network_gives_scikit_learn_s_labels_on_a_quarter_of_a_device() {
    if adapters().is_empty() {
        return drop(vulkan(Default::default()));
    }
    let options = ServeOptions::default().capacity(Capacity::unlimited());
    let serve = Serve::start(options.detect_gpus(DetectGpus::default().software())).await.unwrap();
    let on = gpu_digits::deploy(&serve, WithoutGpu::Refuse).await.unwrap();
    assert!(on.starts_with("on a quarter of "), "{on}");
    classify_all(&serve).await;
    let lease = &serve.status().gpus[0].leases[0];
    assert!(lease.jobs < 200, "images went together: {} jobs", lease.jobs);
    let held = lease.memory_used_bytes;
    classify_all(&serve).await;
    assert_eq!(serve.status().gpus[0].leases[0].memory_used_bytes, held, "nothing is made for a request");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn without_a_gpu_the_digits_network_goes_on_with_the_cpu_or_is_refused() {
    if adapters().iter().any(|adapter| !adapter.software) {
        return eprintln!("SKIPPED: this machine has a GPU");
    }
    let serve =
        Serve::start(ServeOptions::default().capacity(Capacity::default().num_cpus(None))).await.unwrap();
    let refused = gpu_digits::deploy(&serve, WithoutGpu::Refuse).await.unwrap_err();
    assert_eq!(refused.code(), "gpu_unavailable");
    let on = gpu_digits::deploy(&serve, WithoutGpu::UseCpu).await.unwrap();
    assert!(on.starts_with("on the CPU: no GPU device: "), "{on}");
    classify_all(&serve).await;
    serve.shutdown().await.unwrap();
}

#[test]
fn arguments_that_are_not_allowed_are_refused() {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let seconds = |line| gpu_fraction::length(&words(line)).map(|length| length.as_secs());
    assert_eq!([seconds(""), seconds("--seconds 3")], [Some(10), Some(3)]);
    for wrong in ["--seconds", "--seconds abc", "--seconds 0", "--seconds 601", "--seconds 3 nonsense", "3"] {
        assert_eq!(seconds(wrong), None, "{wrong}");
    }
    let asked = |line| gpu_digits::asked(&words(line));
    assert_eq!([asked(""), asked("--gpu-only")], [Some(WithoutGpu::UseCpu), Some(WithoutGpu::Refuse)]);
    for wrong in ["--gpu", "nonsense", "--gpu-only nonsense"] {
        assert_eq!(asked(wrong), None, "{wrong}");
    }
}

#[actix_web::test]
async fn two_models_get_their_shares_and_in_order_of_arrival_they_do_not() {
    if adapters().is_empty() {
        return drop(vulkan(Default::default()));
    }
    let run = |order| gpu_fraction::run(order, Duration::from_millis(700), Duration::from_secs(3));
    let (device, shared) = run(Order::Shares).await.unwrap();
    let (_, control) = run(Order::Arrival).await.unwrap();
    println!("{device}: {:.4}, in order of arrival {:.4}", shared[0].share, control[0].share);
    assert!((shared[0].share - 0.25).abs() / 0.25 < 0.25, "{}", shared[0].share);
    assert!(control[0].share > 0.5, "the control has to fail the check: {}", control[0].share);
    assert!(shared.iter().all(|got| !got.latencies.is_empty()));
}
