//! Requests with the same shard key go to the same backend, wherever the key comes from.

use std::{collections::BTreeMap, num::NonZeroUsize};

use greenroom::{Affinity, BackendConfig, BackendUpdate, Endpoint, Listen, Serve, ShardKeys, TrafficPolicy};

use super::{Who, backends, here, named};
use crate::wire::ask;

const FIVE: [(&str, f64); 5] = [("a", 0.2), ("b", 0.2), ("c", 0.2), ("d", 0.2), ("e", 0.2)];

#[actix_web::test]
async fn a_key_goes_where_the_policy_says_by_itself() {
    let serve = here().await;
    backends(&serve, &["a", "b", "c", "d", "e"]).await;
    let policy = TrafficPolicy::new(FIVE).unwrap();
    serve.create_endpoint("keyed", Endpoint::split(policy.clone())).await.unwrap();
    let handle = serve.handle::<Who>("keyed").unwrap();
    let mut used = BTreeMap::<String, u32>::new();
    for n in 0..500 {
        let key = format!("session-{n}");
        let keyed = handle.options().shard_key(&key);
        let served = keyed.call(Who {}).await.unwrap();
        assert_eq!(keyed.call(Who {}).await.unwrap(), served);
        // A policy built anywhere from the same weights says the same.
        assert_eq!(policy.backend(policy.pick_for(&key)).as_str(), served);
        *used.entry(served).or_default() += 1;
    }
    assert!(used.len() == 5 && used.values().all(|n| (60..140).contains(n)), "{used:?}");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn over_http_the_key_is_a_header_an_alias_or_a_cookie() {
    let serve = Serve::start(crate::support::uncounted().lent_threads()).await.unwrap();
    let keys = ShardKeys::default().header("X-Session").unwrap().cookie("sid").unwrap();
    let listen = Listen::default().threads(NonZeroUsize::MIN).shard_keys(keys);
    let address = serve.listen(listen).await.unwrap();
    backends(&serve, &["a", "b", "c", "d", "e"]).await;
    let policy = TrafficPolicy::new(FIVE).unwrap();
    serve.create_endpoint("keyed", Endpoint::split(policy.clone()).route("/who")).await.unwrap();
    for n in 0..40 {
        let want = format!("\"{}\"", policy.backend(policy.pick_for(&n.to_string())));
        let lines =
            [format!("x-SERVE-shard-KEY: {n}"), format!("x-session: {n}"), format!("cookie: a=b; sid={n}")];
        for line in &lines {
            assert_eq!(ask(address, "GET", "/who", &[line], "").await.text(), want, "{line}");
        }
        let both = [lines[0].as_str(), "x-session: other", "cookie: sid=another"];
        assert_eq!(ask(address, "GET", "/who", &both, "").await.text(), want, "the own header comes first");
    }
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn with_affinity_to_the_replica_a_key_stays_on_one_replica() {
    let serve = here().await;
    let (backend, _) = named("a");
    serve.create_backend("a", backend, BackendConfig::default().num_replicas(4)).await.unwrap();
    serve.create_endpoint("spread", Endpoint::new("a")).await.unwrap();
    serve.create_endpoint("kept", Endpoint::new("a").affinity(Affinity::Replica)).await.unwrap();
    let slots = async |endpoint: &str, key: usize| {
        let handle = serve.handle::<Who>(endpoint).unwrap().options().shard_key(key.to_string());
        let mut slots = Vec::new();
        for _ in 0..20 {
            slots.push(handle.call_explained(Who {}).await.1.replica.unwrap().slot);
        }
        slots.sort_unstable();
        slots.dedup();
        slots
    };
    let mut kept = Vec::new();
    for key in 0..40 {
        assert!(slots("spread", key).await.len() > 1, "the default keeps the backend alone");
        let slots = slots("kept", key).await;
        assert_eq!(slots.len(), 1, "{key}");
        kept.push(slots[0]);
    }
    assert!((0..4).all(|slot| kept.contains(&slot)), "{kept:?}");
    serve.update_backend_config("a", BackendUpdate::default().num_replicas(3)).await.unwrap();
    for (key, before) in kept.into_iter().enumerate() {
        let now = slots("kept", key).await;
        assert!(now == [before] || before == 3, "only the keys of the replica that went move");
    }
    serve.shutdown().await.unwrap();
}
