//! The example of reconfiguring does what it says.

#![allow(dead_code, reason = "the example's own `main` is not called here")]

use greenroom::{ServeError, testing::Stage};

#[path = "../../examples/reconfigure.rs"]
mod reconfigure;

#[actix_web::test]
async fn the_threshold_changes_in_place_and_one_that_cannot_be_is_refused() -> Result<(), ServeError> {
    let stage = Stage::new().await?;
    let serve = stage.serve();
    reconfigure::deploy(serve).await?;
    // A score of exactly 0 comes once in 2^53 draws.
    assert_eq!(reconfigure::count(serve, 100).await?, 100);
    reconfigure::set_threshold(serve, 1.0).await?;
    assert_eq!(reconfigure::count(serve, 100).await?, 0);
    for wrong in [-1.0, 2.0] {
        let refused = reconfigure::set_threshold(serve, wrong).await.unwrap_err();
        assert_eq!(refused.code(), "reconfigure_failed");
        assert!(refused.to_string().ends_with(&format!("the threshold is 0 to 1, not {wrong}")), "{refused}");
        assert_eq!(reconfigure::count(serve, 100).await?, 0);
    }
    stage.end().await
}
