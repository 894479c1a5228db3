//! How many replicas take calls while they are replaced, and that no call fails meanwhile.

use greenroom::Resources;

use super::*;
use crate::support::{metric, quiet_panics, until};

const COUNTS: [u32; 6] = [1, 2, 3, 5, 10, 20];

#[actix_web::test]
async fn with_all_cpus_taken_replicas_are_replaced_without_one_being_down_and_no_call_fails() {
    tokio::time::pause();
    for n in COUNTS {
        let serve = with_cpus_for(n).await;
        open(&serve, counter("old"), config("1", n)).await;
        let load = Load::of(&serve, 8);
        serve.deploy_backend("counter", counter("new"), config("2", n)).await.unwrap();
        assert_all(&serve, "new", n).await;
        let (calls, Watched { least, most }) = load.end().await;
        let wave = (n / 5).max(1);
        assert!(least >= n as usize && most == (n + wave) as usize, "of {n}: {least} to {most}");
        assert!(calls > 20, "{calls}");
        assert_eq!(generations(&serve), (u64::from(n) + 1..=2 * u64::from(n)).collect::<Vec<_>>());
        let free = serve.status().capacity.free.num_cpus.unwrap();
        assert_eq!(free.as_f64(), 0.0, "what was there beyond is given back");
        serve
            .update_backend_config("counter", greenroom::BackendUpdate::default().num_replicas(0))
            .await
            .unwrap();
        assert_eq!(serve.status().capacity.free.num_cpus.unwrap().as_f64(), f64::from(n));
        serve.shutdown().await.unwrap();
    }
}

#[actix_web::test]
async fn without_room_at_most_a_fifth_is_down_or_one_where_that_is_none_and_no_call_fails() {
    tokio::time::pause();
    for n in COUNTS {
        let serve = serve_with(Capacity::unlimited().custom("seat", f64::from(n))).await;
        let seated = |version| config(version, n).resources(Resources::none().custom("seat", 1.0));
        open(&serve, counter("old"), seated("1")).await;
        let load = Load::of(&serve, 8);
        serve.deploy_backend("counter", counter("new"), seated("2")).await.unwrap();
        assert_all(&serve, "new", n).await;
        let (calls, Watched { least, most }) = load.end().await;
        let down_max = (n / 5).max(1);
        assert_eq!((least, most), ((n - down_max) as usize, n as usize), "of {n}");
        assert!(calls > 20, "{calls}");
        serve.shutdown().await.unwrap();
    }
}

#[actix_web::test]
async fn more_or_fewer_replicas_of_a_new_version_are_there_in_the_end_and_never_fewer_than_are_wanted() {
    tokio::time::pause();
    for (before, after) in [(2_u32, 6_u32), (6, 2), (3, 0), (10, 1)] {
        let serve = with_cpus_for(10).await;
        open(&serve, counter("old"), config("1", before)).await;
        let load = if after > 0 { Some(Load::of(&serve, 4)) } else { None };
        serve.deploy_backend("counter", counter("new"), config("2", after)).await.unwrap();
        assert_all(&serve, "new", after).await;
        if let Some(load) = load {
            let (_, watched) = load.end().await;
            assert!(watched.least >= before.min(after) as usize, "{before} to {after}: {watched:?}");
        }
        serve.shutdown().await.unwrap();
    }
}

#[actix_web::test]
async fn a_controller_that_crashes_twenty_times_meanwhile_loses_no_call_and_finishes() {
    tokio::time::pause();
    quiet_panics();
    for n in [1, 5] {
        let serve = with_cpus_for(n).await;
        open(&serve, counter("old"), config("1", n)).await;
        let load = Load::of(&serve, 8);
        let slow = config("2", n).user_config(json!({"ms": 50}));
        let deployed = deploying(&serve, counter("new"), slow);
        for _ in 0..20 {
            serve.crash_controller().await;
            tokio::time::sleep(Duration::from_millis(u64::from(n) * 2)).await;
        }
        deployed.await.unwrap().unwrap();
        assert_all(&serve, "new", n).await;
        let (_, Watched { least, most }) = load.end().await;
        assert!(least >= n as usize && most <= (n + 1) as usize, "of {n}: {least} to {most}");
        serve.shutdown().await.unwrap();
    }
}

#[actix_web::test]
async fn what_two_replicas_in_one_slot_counted_is_neither_lost_nor_counted_twice() {
    tokio::time::pause();
    let serve = with_cpus_for(2).await;
    open(&serve, counter("old"), config("1", 2)).await;
    let load = Load::of(&serve, 4);
    for version in ["2", "3", "4"] {
        serve.deploy_backend("counter", counter("new"), config(version, 2)).await.unwrap();
    }
    let (calls, _) = load.end().await;
    assert_eq!(metric(&serve, "serve_backend_request_counter_total", "backend=\"counter\""), calls);
    let starts = |slot| {
        let labels = format!("backend=\"counter\",replica=\"{slot}\"");
        metric(&serve, "serve_backend_replica_starts_total", &labels)
    };
    assert_eq!((starts(0), starts(1)), (4, 4));
    let labels = "backend=\"counter\",replica=\"0\"";
    assert_eq!(metric(&serve, "serve_replica_restarts_total", labels), 0, "replaced is not restarted");
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn what_is_deleted_while_it_is_rolled_out_is_gone_and_gives_all_back() {
    tokio::time::pause();
    let serve = with_cpus_for(3).await;
    serve.create_backend("counter", counter("old"), config("1", 3)).await.unwrap();
    let deployed = deploying(&serve, counter("new"), config("2", 3));
    until("it has begun", || status(&serve).replicas.iter().any(|r| r.release == 2)).await;
    serve.delete_backend("counter", false).await.unwrap();
    assert_eq!(deployed.await.unwrap().unwrap_err().code(), "unknown_backend");
    assert!(serve.status().backends.is_empty());
    assert_eq!(serve.status().capacity.free.num_cpus.unwrap().as_f64(), 3.0);
    serve.shutdown().await.unwrap();
}
