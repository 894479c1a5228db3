//! GPUs on the dashboard: all that its script reads of them is told, and true.

use std::collections::BTreeSet;

use greenroom::Listen;

use super::{
    backends::{Spin, create, serving},
    small,
};
use crate::{
    admin::{
        Api,
        dashboard::{look, places, reads},
    },
    support::until,
};

#[actix_web::test]
async fn all_that_the_dashboard_reads_of_gpus_is_in_a_real_status() {
    let devices = vec![small(), small()];
    let serve = serving(devices.clone()).await;
    create(&serve, "a", 0.25).await;
    create(&serve, "b", 0.75).await;
    serve.handle::<Spin>("a").unwrap().call(Spin(1)).await.unwrap();
    let api = Api(serve.listen_admin(Listen::default()).await.unwrap());
    let script = api.get("/dashboard.js").await.text().to_owned();
    let shape = &reads(&script, "status")["gpus?"];
    let gpus = || async move { api.get("/api/serve/status?replicas=false").await.json()["gpus"].take() };
    let told = gpus().await;
    let (mut found, mut all) = (BTreeSet::new(), BTreeSet::new());
    look(shape, &told, "gpus", &mut found);
    places(shape, "gpus", &mut all);
    assert_eq!(found, all);
    for key in ["open", "suspect", "watchdog", "abandoned"] {
        assert!(shape[0]["health"][key].is_string(), "whether a device is in trouble: {key}");
    }
    assert_eq!(told.as_array().unwrap().len(), 2);
    let leases: Vec<_> =
        told.as_array().unwrap().iter().flat_map(|gpu| gpu["leases"].as_array().unwrap()).collect();
    let asked: Vec<_> = leases.iter().map(|lease| lease["share_asked"].as_f64().unwrap()).collect();
    assert_eq!(asked.iter().sum::<f64>(), 1.0, "{asked:?}");
    let a = leases.iter().find(|lease| lease["backend"] == "a").unwrap();
    assert_eq!(a["jobs"], 1);
    let overall = a["share_overall"].as_f64().unwrap();
    assert!(overall > 0.0 && overall <= 1.0, "{overall}");
    for gpu in told.as_array().unwrap() {
        let number = |key: &str| gpu[key].as_u64().unwrap();
        let held: u64 = gpu["leases"]
            .as_array()
            .unwrap()
            .iter()
            .map(|lease| lease["memory_used_bytes"].as_u64().unwrap())
            .sum();
        assert_eq!(number("memory_used_bytes"), held);
        assert_eq!((number("memory_bytes"), number("lost")), (1 << 20, 0));
        assert!(number("free_memory_bytes") < number("memory_bytes"));
    }
    devices[0].lose().unwrap();
    until("the loss told", || serve.status().gpus[0].lost == 1).await;
    serve.shutdown().await.unwrap();
}
