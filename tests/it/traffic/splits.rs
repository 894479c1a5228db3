//! Each backend of an endpoint gets its share, and the status tells which share it got.

use std::time::Duration;

use greenroom::{Endpoint, TrafficPolicy};

use super::{Who, backends, here, read};
use crate::support::metric;

const REQUESTS: u64 = 100_000;

#[actix_web::test]
async fn a_canary_split_is_inside_four_sigma() {
    let serve = here().await;
    let counts = backends(&serve, &["old", "a", "b"]).await;
    let weights = [("old", 0.98), ("a", 0.01), ("b", 0.01)];
    serve.create_endpoint("e", Endpoint::split(TrafficPolicy::new(weights).unwrap())).await.unwrap();
    let handle = serve.handle::<Who>("e").unwrap();
    for _ in 0..REQUESTS {
        handle.call(Who {}).await.unwrap();
    }
    for ((name, weight), count) in weights.iter().zip(read(&counts)) {
        let sigma = (REQUESTS as f64 * weight * (1.0 - weight)).sqrt();
        assert!((count as f64 - REQUESTS as f64 * weight).abs() <= 4.0 * sigma, "{name}: {count}");
        let labels = format!("endpoint=\"e\",backend=\"{name}\"");
        assert_eq!(metric(&serve, "serve_num_router_requests_total", &labels), count);
    }
    assert_eq!(read(&counts).iter().sum::<u64>(), REQUESTS);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn the_status_tells_the_shares_of_the_last_minute() {
    tokio::time::pause();
    let serve = here().await;
    backends(&serve, &["a", "b"]).await;
    serve.create_endpoint("e", Endpoint::new("a")).await.unwrap();
    let handle = serve.handle::<Who>("e").unwrap();
    let shares = || {
        let endpoint = serve.list_endpoints().remove(0);
        let seen = endpoint.last_minute.into_iter();
        seen.map(|s| (s.backend.to_string(), s.requests, s.share)).collect::<Vec<_>>()
    };
    assert_eq!(shares(), [("a".into(), 0, 0.0)]);
    for _ in 0..30 {
        handle.call(Who {}).await.unwrap();
    }
    serve.set_traffic("e", [("b", 1.0)]).await.unwrap();
    for _ in 0..10 {
        handle.call(Who {}).await.unwrap();
    }
    assert_eq!(shares(), [("a".into(), 30, 0.75), ("b".into(), 10, 0.25)]);
    tokio::time::sleep(Duration::from_secs(70)).await;
    for _ in 0..5 {
        handle.call(Who {}).await.unwrap();
    }
    assert_eq!(shares(), [("b".into(), 5, 1.0)], "what was longer ago than a minute is forgotten");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_backend_of_weight_0_stays_warm_and_is_not_asked() {
    let serve = here().await;
    let counts = backends(&serve, &["a", "b"]).await;
    serve.create_endpoint("e", Endpoint::new("a")).await.unwrap();
    serve.set_traffic("e", [("a", 1.0), ("b", 0.0)]).await.unwrap();
    let handle = serve.handle::<Who>("e").unwrap();
    for n in 0..1_000 {
        assert_eq!(handle.call(Who {}).await.unwrap(), "a");
        assert_eq!(handle.options().shard_key(format!("{n}")).call(Who {}).await.unwrap(), "a");
    }
    assert_eq!(read(&counts), [2_000, 0]);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_backend_that_is_deleted_and_made_again_is_counted_anew() {
    let serve = here().await;
    backends(&serve, &["a", "b"]).await;
    serve.create_endpoint("e", Endpoint::new("b")).await.unwrap();
    let handle = serve.handle::<Who>("e").unwrap();
    for _ in 0..3 {
        handle.call(Who {}).await.unwrap();
    }
    serve.set_traffic("e", [("a", 1.0)]).await.unwrap();
    serve.delete_backend("b", false).await.unwrap();
    backends(&serve, &["b"]).await;
    serve.set_traffic("e", [("b", 1.0)]).await.unwrap();
    for _ in 0..5 {
        handle.call(Who {}).await.unwrap();
    }
    let seen = serve.list_endpoints().remove(0).last_minute;
    let seen: Vec<_> = seen.iter().map(|s| (s.backend.as_str(), s.requests)).collect();
    assert_eq!(seen, [("a", 0), ("b", 5)]);
    serve.shutdown().await.unwrap();
}
