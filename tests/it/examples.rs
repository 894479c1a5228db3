//! The examples do what they say: each is included here as a module and run.

#![allow(dead_code, reason = "the examples' own `main`s are not called here")]

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use actix_web::{App, test};
use greenroom::{Capacity, Compare, Placement, Serve, ServeError, ServeOptions, testing::Stage};
use serde_json::Value;
use tokio::time::{Instant, timeout};

#[path = "../../examples/batching.rs"]
mod batching;
#[path = "../../examples/blocking_handle.rs"]
mod blocking_handle;
#[path = "../../examples/composition.rs"]
mod composition;
#[path = "../../examples/cpu_bound.rs"]
mod cpu_bound;
#[path = "../../examples/resources.rs"]
mod resources;
#[path = "../../examples/scaling_out.rs"]
mod scaling_out;
#[path = "../../examples/shadow_compare.rs"]
mod shadow_compare;
#[path = "../../examples/testing_a_backend.rs"]
mod testing_a_backend;

/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

#[actix_web::test]
async fn twelve_increments_leave_in_batches_of_five_five_and_two() -> Result<(), ServeError> {
    tokio::time::pause();
    let stage = Stage::new().await?;
    batching::deploy(stage.serve()).await?;
    let answers = batching::at_once(stage.serve(), 12).await?;
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.unwrap()).collect();
    let counts: Vec<_> = answers.iter().map(|answer| answer.count).collect();
    assert_eq!(counts, (1..=12).collect::<Vec<_>>());
    let mut sizes = BTreeMap::new();
    answers.iter().for_each(|answer| *sizes.entry(answer.batch_size).or_insert(0) += 1);
    assert_eq!(sizes, BTreeMap::from([(5, 10), (2, 2)]));
    stage.end().await
}

#[actix_web::test]
async fn one_increment_of_a_batch_may_fail_alone() -> Result<(), ServeError> {
    let stage = Stage::new().await?;
    batching::deploy(stage.serve()).await?;
    let counter = stage.serve().handle::<batching::Increment>("counter")?;
    let calls = [1, u64::MAX, 2].map(|by| counter.call(batching::Increment { by }));
    let mut codes = Vec::new();
    for call in calls {
        codes.push(call.await.map(|counted| counted.count).map_err(|error| error.code().to_owned()));
    }
    assert_eq!(codes, [Ok(1), Err("too_large".into()), Ok(3)]);
    stage.end().await
}

#[actix_web::test]
async fn the_gateway_sends_its_input_through_a_and_then_b() -> Result<(), ServeError> {
    let stage = Stage::new().await?;
    let gateway = composition::pipeline(stage.serve()).await?;
    assert_eq!(gateway.call(composition::Predict { x: 3.0 }).await?, 8.0);
    stage.end().await
}

#[actix_web::test]
async fn the_ensemble_does_without_members_that_are_late_or_fail() -> Result<(), ServeError> {
    tokio::time::pause();
    let stage = Stage::new().await?;
    let ensemble = composition::ensemble(stage.serve()).await?;
    let begun = Instant::now();
    let verdict = ensemble.call(composition::Ask(composition::Predict { x: 3.0 })).await?;
    assert_eq!(verdict.mean, 4.0, "the mean of 3 and 5");
    let missing = [("late", "deadline_exceeded"), ("failing", "out_of_ideas")];
    assert_eq!(verdict.missing, missing.map(|(member, code)| (member.into(), code.into())));
    let took = begun.elapsed();
    assert!((composition::PATIENCE..2 * composition::PATIENCE).contains(&took), "{took:?}");
    stage.end().await
}

#[actix_web::test]
async fn model_two_is_used_only_for_a_score_above_one_half() -> Result<(), ServeError> {
    for (score, model_used, calls) in [(0.75, 2, 1), (0.5, 1, 0)] {
        let stage = Stage::new().await?;
        stage.fake("model_one", move |_: composition::Score| async move { Ok(score) }).await?;
        let (told, asked) = mpsc::channel();
        let two = move |composition::Repeat(data)| {
            told.send(data.clone()).unwrap();
            async move { Ok(data) }
        };
        stage.fake("model_two", two).await?;
        let composed = stage.replica("composed", composition::composed()).await?;
        let used = composed.call(composition::Query { data: "hey!".into() }).await?;
        assert_eq!(used, composition::Used { model_used, score });
        assert_eq!(asked.try_iter().collect::<Vec<_>>(), vec!["hey!"; calls]);
        stage.end().await?;
    }
    Ok(())
}

#[actix_web::test]
async fn the_random_models_answer_over_http() -> Result<(), ServeError> {
    let stage = Stage::new().await?;
    composition::random_models(stage.serve()).await?;
    let app = test::init_service(App::new().configure(stage.serve().ingress())).await;
    for _ in 0..20 {
        let request = test::TestRequest::get().uri("/composed?data=hey!").to_request();
        let used: Value = test::call_and_read_body_json(&app, request).await;
        let (model, score) = (used["model_used"].as_u64().unwrap(), used["score"].as_f64().unwrap());
        assert_eq!(model, if score > 0.5 { 2 } else { 1 });
    }
    stage.end().await
}

#[actix_web::test]
async fn ten_replicas_share_the_requests_and_scaling_to_two_loses_none() -> Result<(), ServeError> {
    let one_cpu = ServeOptions::default().capacity(Capacity::default().num_cpus(1.0));
    let serve = Serve::start(one_cpu.serving_threads(NonZeroUsize::MIN)).await?;
    scaling_out::deploy(&serve).await?;
    let of_ten = scaling_out::spread(&serve, 1000).await?;
    assert_eq!((of_ten.len(), of_ten.values().sum::<usize>()), (10, 1000));
    let (meanwhile, scaled) =
        tokio::join!(scaling_out::spread(&serve, 1000), scaling_out::scale_to(&serve, 2));
    scaled?;
    assert_eq!(meanwhile?.values().sum::<usize>(), 1000, "none is lost on the way");
    let of_two = scaling_out::spread(&serve, 1000).await?;
    assert_eq!((of_two.len(), of_two.values().sum::<usize>()), (2, 1000));
    serve.shutdown().await
}

#[actix_web::test]
async fn one_replica_more_than_fits_is_refused_with_the_cures_until_others_are_gone() -> Result<(), ServeError>
{
    let serve = Serve::start(resources::there()).await?;
    resources::deploy(&serve).await?;
    assert_eq!(serve.handle::<resources::Solve>("solve")?.call(resources::Solve(4)).await?, 14);
    resources::deploy_parallel(&serve).await?;
    let threads = serve.handle::<resources::Threads>("parallel")?.call(resources::Threads).await?;
    assert_eq!(threads, 12, "whatever CPUs it asks for");
    let refused = resources::one_more(&serve).await.unwrap_err().to_string();
    let guide =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/coming-from-ray-serve.md"));
    let guide = guide.unwrap().replace('\n', " ");
    assert!(guide.contains(&refused), "the guide shows another text than {refused}");
    serve.delete_backend("describe", false).await?;
    resources::one_more(&serve).await?;
    serve.shutdown().await
}

#[actix_web::test]
async fn plain_threads_call_at_once_and_a_runtime_thread_is_refused() -> Result<(), ServeError> {
    let serve = Serve::start(crate::support::uncounted().serving_threads(NonZeroUsize::MIN)).await?;
    let square = blocking_handle::deploy(&serve).await?;
    let here = square.call(blocking_handle::Square(2));
    assert_eq!(here.unwrap_err().code(), "would_deadlock");
    let (tx, rx) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || tx.send(blocking_handle::sum_of_squares(&square, 10)));
    assert_eq!(rx.await.unwrap(), Ok(385));
    serve.shutdown().await
}

/// Whether light requests are answered while the heavy backend computes and nothing ends that but us.
async fn light_beside_heavy(placement: Option<Placement>) -> Result<bool, ServeError> {
    let serve = Serve::start(crate::support::uncounted().serving_threads(NonZeroUsize::MIN)).await?;
    let (begun, mut begins) = tokio::sync::mpsc::channel(1);
    let (release, released) = mpsc::channel();
    let released = Mutex::new(released);
    let work: cpu_bound::Work = Arc::new(move |n| {
        begun.try_send(()).unwrap();
        released.lock().unwrap().recv_timeout(LIMIT).unwrap();
        n
    });
    cpu_bound::deploy(&serve, work, placement).await?;
    let heavy = serve.handle::<cpu_bound::Compute>("heavy")?.call(cpu_bound::Compute(7));
    timeout(LIMIT, begins.recv()).await.expect("the heavy request begins");
    let light = serve.handle::<cpu_bound::Ping>("light")?;
    // Where light requests come through, all of them do at once; where they do not, this is the wait.
    let patience = if placement.is_none() { LIMIT } else { Duration::from_millis(200) };
    let pings = async {
        for n in 0..20 {
            assert_eq!(light.call(cpu_bound::Ping(n)).await, Ok(n));
        }
    };
    let came_through = timeout(patience, pings).await.is_ok();
    release.send(()).unwrap();
    assert_eq!(heavy.await, Ok(7));
    serve.shutdown().await?;
    Ok(came_through)
}

#[actix_web::test]
async fn light_requests_come_through_while_the_heavy_backend_computes() {
    assert_eq!(light_beside_heavy(None).await, Ok(true));
}

#[actix_web::test]
async fn light_requests_wait_when_the_heavy_backend_is_put_on_their_thread() {
    assert_eq!(light_beside_heavy(Some(Placement::Worker)).await, Ok(false));
}

#[actix_web::test]
async fn primes_are_counted() {
    assert_eq!([1, 2, 10, 100].map(cpu_bound::primes), [0, 1, 4, 25]);
}

#[actix_web::test]
async fn the_new_version_differs_in_what_is_a_fault_of_its_own() -> Result<(), ServeError> {
    let stage = Stage::new().await?;
    shadow_compare::deploy(stage.serve()).await?;
    let exactly = timeout(LIMIT, shadow_compare::try_out(stage.serve(), Compare::exact())).await.unwrap()?;
    assert_eq!(exactly.agreement, Some(0.0));
    assert!(exactly.noise_rate > Some(0.0), "{exactly}");
    let within = Compare::within(0.0, 1e-6).sample(2);
    let within = timeout(LIMIT, shadow_compare::try_out(stage.serve(), within)).await.unwrap()?;
    assert_eq!((within.agreement, within.noise_rate), (Some(0.75), Some(0.0)));
    let found: Vec<_> = within.sample.iter().map(|pair| (&*pair.path, &*pair.shadow.found)).collect();
    assert_eq!(found, [("range[1]", "0.0"); 2]);
    stage.end().await
}
