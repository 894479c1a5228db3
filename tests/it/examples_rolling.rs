//! The example of a rolling update does what it says.

#![allow(dead_code, reason = "the example's own `main` is not called here")]

use std::{cell::Cell, rc::Rc};

use greenroom::{ServeError, testing::Stage};

#[path = "../../examples/rolling_update.rs"]
mod rolling_update;

#[actix_web::test]
async fn a_new_version_takes_over_under_calls_and_one_that_cannot_be_made_is_taken_back()
-> Result<(), ServeError> {
    let stage = Stage::new().await?;
    let serve = stage.serve();
    rolling_update::open(serve).await?;
    let ends = Rc::new(Cell::new(false));
    let calls = actix_web::rt::spawn(rolling_update::call_until(serve.clone(), Rc::clone(&ends)));
    tokio::task::yield_now().await;
    rolling_update::deploy(serve, "2", "good morning").await?;
    let refused = rolling_update::deploy(serve, "3", "").await.unwrap_err().to_string();
    assert!(
        refused.starts_with("backend greeter stays as it was, its new release (version \"3\")"),
        "{refused}"
    );
    assert!(refused.ends_with("a greeter needs one"), "{refused}");
    let release = || serve.status().backends[0].release;
    let before = release();
    rolling_update::deploy(serve, "2", "good morning").await?;
    assert_eq!(release(), before);
    ends.set(true);
    let seen = calls.await.unwrap()?;
    let greetings: Vec<_> = seen.iter().map(|(greeting, _)| &**greeting).collect();
    assert_eq!(greetings, ["hello, world", "good morning, world"]);
    stage.end().await
}
