//! The example of health checks does what it says.

#![allow(dead_code, reason = "the example's own `main` is not called here")]

use std::time::Duration;

use greenroom::{ServeError, testing::Stage};

#[path = "../../examples/health_check.rs"]
mod health_check;

use health_check::{Database, Offer, deploy};

#[actix_web::test]
async fn replicas_without_their_connection_are_replaced_and_no_call_fails() -> Result<(), ServeError> {
    tokio::time::pause();
    let (stage, database) = (Stage::new().await?, Database::default());
    deploy(stage.serve(), &database).await?;
    let offer = stage.serve().handle::<Offer>("shop")?;
    assert!(offer.call(Offer).await?.starts_with("a book, says replica "));
    database.restart();
    for _ in 0..500 {
        offer.call(Offer).await?;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let backend = stage.serve().status().backends.swap_remove(0);
    assert!(backend.replicas.iter().all(|replica| replica.id.generation > 2), "{backend:?}");
    let told = backend.last_error.unwrap();
    assert!(told.ends_with("the connection to the database is closed (3 of 3 in a row)"), "{told}");
    stage.end().await
}
