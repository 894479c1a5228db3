//! What the admin API refuses of shares of a GPU: told with its place, and nothing is done.

use greenroom::{Listen, Serve};
use serde_json::{Value, json};

use super::{
    backends::{computes, serving},
    small,
};
use crate::admin::{Api, did, refused};

const AT: &str = "/api/serve/backends/a";

/// A Serve with one small device and the code `computes`, and where it is steered.
async fn service() -> (Serve, Api) {
    let serve = serving(vec![small()]).await;
    serve.register("computes", computes()).unwrap();
    let admin = serve.listen_admin(Listen::default()).await.unwrap();
    (serve, Api(admin))
}

fn with(resources: &Value) -> Value {
    json!({"registered": "computes", "resources": resources})
}

/// Values of `resources` that cannot be, where each is wrong, and what is told of it.
fn wrong() -> Vec<(Value, &'static str, &'static str)> {
    let gpus = "resources.num_gpus";
    let memory = "resources.gpu_memory_bytes";
    vec![
        (json!({"num_gpus": -0.5}), gpus, "-0.5 is negative"),
        (json!({"num_gpus": 1.5}), gpus, "1.5 is above 1 and not whole"),
        (json!({"num_gpus": 0.00001}), gpus, "0.00001 is finer than 0.0001"),
        (json!({"num_gpus": 1e-300}), gpus, "1e-300 is finer than 0.0001"),
        (json!({"num_gpus": 65}), gpus, "65 devices are more than 64"),
        (json!({"num_gpus": 1e300}), gpus, "1e300 devices are more than 64"),
        (json!({"num_gpus": "0.5"}), gpus, "the text \"0.5\" was given; allowed: a finite number"),
        (json!({"num_gpus": "NaN"}), gpus, "the text \"NaN\" was given"),
        (json!({"num_gpus": null}), gpus, "null was given"),
        (json!({"num_gpus": true}), gpus, "true was given"),
        (json!({"num_gpus": [0.5]}), gpus, "a list was given"),
        (json!({"num_gpu": 0.5}), "resources.num_gpu", "did you mean num_gpus?"),
        (json!({"num_gpus": 0.5, "gpu_memory_bytes": -1}), memory, "the number -1 was given"),
        (json!({"num_gpus": 0.5, "gpu_memory_bytes": 1.5}), memory, "the number 1.5 was given"),
        (json!({"num_gpus": 0.5, "gpu_memory_bytes": 1e300}), memory, "was given; allowed: a whole number"),
        (json!({"num_gpus": 0.5, "gpu_memory_bytes": "1GiB"}), memory, "the text \"1GiB\" was given"),
        (json!({"gpu_memory_bytes": 1}), memory, "1 was given and num_gpus is 0"),
        (json!({"num_gpus": -0.0, "gpu_memory_bytes": 1}), memory, "1 was given and num_gpus is 0"),
    ]
}

#[actix_web::test]
async fn shares_and_memory_that_cannot_be_are_told_with_their_place_and_nothing_is_made() {
    let (serve, api) = service().await;
    for (resources, place, told) in wrong() {
        let answer = api.put(AT, &with(&resources)).await;
        let text = answer.text();
        assert_eq!(refused(&answer), (400, "invalid_config".into(), vec![place.to_owned()]), "{text}");
        assert!(answer.json()["problems"][0]["what"].as_str().unwrap().contains(told), "{resources}: {text}");
    }
    for number in ["NaN", "Infinity", "-inf", ".5", "1e999"] {
        let body = format!("{{\"registered\": \"computes\", \"resources\": {{\"num_gpus\": {number}}}}}");
        let answer = api.ask("PUT", AT, &["content-type: application/json"], &body).await;
        assert_eq!(answer.status, 400, "{number}: {}", answer.text());
    }
    for (share, told) in
        [("hardcap", "work_conserving or hard_cap"), ("HARD_CAP", "hard_cap"), ("", "hard_cap")]
    {
        let body = json!({"registered": "computes", "resources": {"num_gpus": 0.5}, "gpu_share": share});
        let answer = api.put(AT, &body).await;
        assert_eq!(refused(&answer).2, ["gpu_share"], "{}", answer.text());
        assert!(answer.text().contains(told), "{}", answer.text());
    }
    let misspelt =
        json!({"registered": "computes", "resources": {"num_gpus": 0.5}, "gpu_shares": "hard_cap"});
    let answer = api.put(AT, &misspelt).await;
    assert_eq!(refused(&answer).2, ["gpu_shares"]);
    assert!(answer.text().contains("did you mean gpu_share?"), "{}", answer.text());
    let none = json!({"registered": "computes", "gpu_share": "hard_cap"});
    assert_eq!(refused(&api.put(AT, &none).await).2, ["gpu_share"], "there is nothing to cap");
    let status = serve.status();
    assert!(status.backends.is_empty() && status.gpus.iter().all(|gpu| gpu.leases.is_empty()));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn shares_above_1_and_memory_above_the_device_are_refused_and_what_runs_stays() {
    let (serve, api) = service().await;
    let wish = json!({"num_cpus": 0, "num_gpus": 0.5, "gpu_memory_bytes": 65536});
    assert_eq!(did(&api.put(AT, &with(&wish)).await), ["create backend a"]);
    let before = serve.get_backend_config("a").unwrap();
    for (resources, place, _) in wrong() {
        if resources == json!({"gpu_memory_bytes": 1}) {
            // No mistake beside the share that there is.
            continue;
        }
        let answer = api.send("PATCH", AT, &json!({"resources": resources})).await;
        assert_eq!(refused(&answer).2, [place], "{resources}: {}", answer.text());
        assert_eq!(serve.get_backend_config("a").unwrap(), before, "{resources}");
    }
    let gone = api.send("PATCH", AT, &json!({"resources": {"num_gpus": 0}})).await;
    assert_eq!(refused(&gone).2, ["resources.gpu_memory_bytes"], "{}", gone.text());
    for much in [json!({"num_gpus": 2}), json!({"gpu_memory_bytes": 1 << 20}), json!({"num_gpus": 64})] {
        let answer = api.send("PATCH", AT, &json!({"resources": much})).await;
        assert_eq!((answer.status, answer.code().as_str()), (409, "no_resources"), "{}", answer.text());
    }
    let other = api.put("/api/serve/backends/b", &with(&json!({"num_cpus": 0, "num_gpus": 0.6}))).await;
    assert_eq!((other.status, other.code().as_str()), (409, "no_resources"));
    assert!(other.text().contains("free: num_gpus 0.5 of 1"), "{}", other.text());
    let both = json!({"backends": [
        {"name": "b", "registered": "computes", "resources": {"num_gpus": 0.6}},
        {"name": "c", "registered": "computes", "resources": {"num_gpus": 0.6}},
    ]});
    let all = api.put("/api/serve/config", &both).await;
    assert_eq!(refused(&all), (400, "invalid_config".into(), vec!["backends[1].resources".into()]));
    assert!(all.text().contains("free: num_gpus 0.4 of 1"), "{}", all.text());
    assert_eq!(serve.get_backend_config("a").unwrap(), before, "nothing has changed");
    let lease = &serve.status().gpus[0].leases[0];
    assert_eq!((lease.share_asked, lease.memory_quota_bytes), (0.5, 65536));
    assert_eq!(serve.status().backends.len(), 1);
    serve.shutdown().await.unwrap();
}
