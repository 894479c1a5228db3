//! The example of fractional GPUs does what it says: two models on one device, and a third that wants all of it.

#![allow(dead_code, reason = "the example's own `main` is not called here")]

use std::path::Path;

use greenroom::{Serve, ServeConfig, gpu::adapters};

use crate::wire::post;

#[path = "../../examples/fractional_gpus.rs"]
mod fractional_gpus;

#[actix_web::test]
async fn two_models_share_a_device_by_halves_and_one_that_wants_all_of_it_waits_its_turn() {
    if adapters().is_empty() {
        return eprintln!("SKIPPED: no Vulkan device; tests/setup.sh installs one in software");
    }
    let serve = Serve::start(fractional_gpus::options()).await.unwrap();
    fractional_gpus::deploy(&serve).await.unwrap();
    let address = serve.listen(greenroom::Listen::default()).await.unwrap();
    let body = "{\"values\": [1, -2.5]}";
    assert_eq!(post(address, "/double", body).await.json(), serde_json::json!([2.0, -5.0]));
    assert_eq!(post(address, "/triple", body).await.json(), serde_json::json!([3.0, -7.5]));
    let many = serde_json::json!({"values": vec![1.0; 5000]}).to_string();
    let (none, many) =
        (post(address, "/double", "{\"values\": []}").await, post(address, "/double", &many).await);
    assert_eq!((none.status, many.status), (422, 422));
    let leases: Vec<_> = serve.status().gpus.remove(0).leases;
    let shares: Vec<_> = leases.iter().map(|lease| (lease.backend.as_str(), lease.share_asked)).collect();
    assert_eq!(shares, [("my_gpu_backend_1", 0.5), ("my_gpu_backend_2", 0.5)]);
    if serve.status().gpus.len() == 1 {
        let refused = fractional_gpus::whole(&serve).await.unwrap_err();
        assert_eq!(refused.code(), "no_resources");
    }
    for (endpoint, backend) in [("double", "my_gpu_backend_1"), ("triple", "my_gpu_backend_2")] {
        serve.delete_endpoint(endpoint).await.unwrap();
        serve.delete_backend(backend, false).await.unwrap();
    }
    fractional_gpus::whole(&serve).await.unwrap();
    serve.shutdown().await.unwrap();
}

#[test]
fn the_options_that_the_guide_shows_in_a_file_are_read_as_it_says() {
    let guide = include_str!("../../docs/coming-from-ray-serve.md");
    let options =
        guide.split("```yaml\n").find(|block| block.starts_with("resources: { num_cpus: 0, num_gpus"));
    let options: String = options.unwrap().split("```").next().unwrap().replace('\n', "\n    ");
    let file = format!("backends:\n  - name: a\n    registered: a\n    {options}\n");
    let config = ServeConfig::from_yaml(&file, Path::new(".")).unwrap();
    let resources = &config.backends[0].config.resources;
    assert_eq!((resources.num_gpus.unwrap().as_f64(), resources.gpu_memory_bytes), (0.5, 1 << 30));
}
