//! What keeping costs, and how long the Controller and a restored Serve are away. Run with `--nocapture`.

use std::time::{Duration, Instant};

use greenroom::{Endpoint, Serve, ServeOptions};

use super::{Folder, config, number};
use crate::support::quiet_panics;

const BACKENDS: usize = 100;

async fn filled(options: ServeOptions, backends: usize) -> Serve {
    let serve = Serve::start(options.current_thread()).await.unwrap();
    for i in 0..backends {
        let name = format!("b{i}");
        serve.create_backend(&name, number(1), config()).await.unwrap();
        serve.create_endpoint(&name, Endpoint::new(&name).route(format!("/{name}"))).await.unwrap();
    }
    serve
}

/// The median time of a change.
async fn change(serve: &Serve) -> Duration {
    let mut times = Vec::new();
    for i in 0..21 {
        let weight = f64::from(i) / 21.0;
        let begun = Instant::now();
        serve.set_traffic("b0", [("b0", weight), ("b1", 1.0 - weight)]).await.unwrap();
        times.push(begun.elapsed());
    }
    times.sort();
    times[times.len() / 2]
}

#[actix_web::test]
async fn a_hundred_backends_are_back_at_once_after_a_crash_of_the_controller_and_after_a_restart() {
    quiet_panics();
    let folder = Folder::new();
    let serve = filled(ServeOptions::default().state(folder.state()), BACKENDS).await;
    let mut away = Vec::new();
    for _ in 0..5 {
        let begun = Instant::now();
        serve.crash_controller().await;
        // Answered by the new one, after it has looked at every backend.
        serve.delete_endpoint("none").await.unwrap_err();
        away.push(begun.elapsed());
    }
    away.sort();
    let kept = change(&serve).await;
    serve.shutdown().await.unwrap();
    let bytes = std::fs::metadata(folder.state().join("state.json")).unwrap().len();
    let begun = Instant::now();
    let serve = folder.serve().await;
    let restored = begun.elapsed();
    assert_eq!(serve.list_backends().len(), BACKENDS);
    serve.shutdown().await.unwrap();
    let forgetful = filled(ServeOptions::default(), BACKENDS).await;
    let unkept = change(&forgetful).await;
    forgetful.shutdown().await.unwrap();
    let small = Folder::new();
    let few = filled(ServeOptions::default().state(small.state()), 2).await;
    let small = change(&few).await;
    few.shutdown().await.unwrap();
    println!(
        "{BACKENDS} backends, {bytes} bytes: the Controller is away for {:?} after a crash (worst {:?}), a change takes \
         {kept:?} (of 2 backends {small:?}, without a directory {unkept:?}), a new Serve is back in {restored:?}",
        away[2], away[4]
    );
    assert!(away[0] <= Duration::from_millis(50), "{away:?}");
}
