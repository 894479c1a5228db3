//! Configurations that are refused: before anything is touched, or by a replica, and then all go back.

use super::{
    forms::{Plain, Read},
    *,
};

fn keeps_red(stage: &Stage) {
    let config = stage.serve().get_backend_config("painter").unwrap();
    assert_eq!(config.user_config.unwrap().json(), &colour("red"));
    assert_eq!(config.num_replicas as usize, stage.serve().status().backends[0].replicas.len());
}

#[actix_web::test]
async fn one_that_cannot_be_read_is_refused_at_creation_and_at_update_and_the_old_one_stays()
-> Result<(), ServeError> {
    let (stage, studio) = (Stage::new().await?, Studio::new());
    let wrong = [json!({"name": 1}), json!({}), json!("red"), json!([1, 2])];
    for wrong in &wrong {
        let config = BackendConfig::default().user_config(wrong.clone());
        let error = stage.serve().create_backend("bad", studio.backend(), config).await.unwrap_err();
        assert_eq!(error.code(), "invalid_config", "{error}");
    }
    assert_eq!((studio.made(), stage.serve().list_backends().len()), (0, 0));
    let look = stage.replicas("painter", studio.backend(), red()).await?;
    for wrong in wrong {
        let update = BackendUpdate::default().num_replicas(3).user_config(wrong);
        let error = stage.serve().update_backend_config("painter", update).await.unwrap_err();
        assert!(error.to_string().starts_with("user_config: it is no "), "{error}");
        keeps_red(&stage);
    }
    assert_eq!((look.call(Look).await?.colour.as_str(), studio.made(), studio.taken()), ("red", 1, 1));
    stage.end().await
}

#[actix_web::test]
async fn one_that_nobody_takes_is_refused_at_creation_and_at_update() -> Result<(), ServeError> {
    let stage = Stage::new().await?;
    let plain = || Backend::new(|_| Ok(Plain::default())).handles::<Read>();
    let config = BackendConfig::default().user_config(json!("x"));
    let error = stage.serve().create_backend("plain", plain(), config).await.unwrap_err();
    assert!(error.code() == "invalid" && error.to_string().contains(".reconfigure::<C>()"), "{error}");
    assert!(stage.serve().list_backends().is_empty());
    let read: Handle<Read> = stage.replica("plain", plain()).await?;
    let update = BackendUpdate::default().user_config(json!("x")).num_replicas(2);
    let error = stage.serve().update_backend_config("plain", update).await.unwrap_err();
    assert_eq!(error.code(), "invalid");
    assert_eq!(stage.serve().get_backend_config("plain")?, BackendConfig::default());
    assert_eq!(read.call(Read).await?, "");
    stage.end().await
}

#[actix_web::test]
async fn one_that_a_replica_refuses_is_taken_back_from_all_and_told_with_the_reason() -> Result<(), ServeError>
{
    for refuses in ["refused by 0", "refused by 2", "refused by 4"] {
        let (stage, studio) = (Stage::new().await?, Studio::new());
        let look = stage.replicas("painter", studio.backend(), red().num_replicas(5)).await?;
        let error = stage.serve().update_backend_config("painter", paint(refuses)).await.unwrap_err();
        let ServeError::ReconfigureFailed { backend, why } = &error else { panic!("{error}") };
        let slot = refuses.strip_prefix("refused by ").unwrap();
        assert_eq!((backend.as_str(), &**why), ("painter", &*format!("replica {slot}: this colour is ugly")));
        // When it is told, all have the old one.
        assert_eq!(colours(&look, 5).await, only("red"));
        keeps_red(&stage);
        assert_eq!(studio.made(), 5, "no state was lost");
        let shown = stage.serve().status().backends.remove(0).last_error;
        assert!(shown.unwrap().ends_with("ugly"));
        // Nothing is left of it.
        stage.serve().update_backend_config("painter", paint("blue")).await?;
        assert_eq!(colours(&look, 5).await, only("blue"));
        stage.end().await?;
    }
    Ok(())
}

#[actix_web::test]
async fn the_first_one_of_a_backend_that_had_none_is_taken_back_too() -> Result<(), ServeError> {
    let (stage, studio) = (Stage::new().await?, Studio::new());
    let look = stage.replicas("painter", studio.backend(), BackendConfig::default().num_replicas(3)).await?;
    let error = stage.serve().update_backend_config("painter", paint("refused by 2")).await.unwrap_err();
    assert_eq!(error.code(), "reconfigure_failed");
    assert_eq!(colours(&look, 3).await, only("none"));
    assert_eq!(stage.serve().get_backend_config("painter")?.user_config, None);
    stage.end().await
}

#[actix_web::test]
async fn a_panic_over_it_makes_the_state_anew_with_the_old_one() -> Result<(), ServeError> {
    quiet_panics();
    for slow in ["panic", "slow panic"] {
        let (stage, studio) = (Stage::new().await?, Studio::new());
        studio.changes.release(100);
        let look = stage.replicas("painter", studio.backend(), red().num_replicas(2)).await?;
        let error = stage.serve().update_backend_config("painter", paint(slow)).await.unwrap_err();
        assert!(error.to_string().ends_with(MEANT), "{error}");
        assert_eq!(colours(&look, 2).await, only("red"));
        assert_eq!(studio.made(), 3, "the one that panicked");
        keeps_red(&stage);
        stage.end().await?;
    }
    Ok(())
}

#[actix_web::test]
async fn one_that_a_new_replica_refuses_counts_as_a_failed_start() -> Result<(), ServeError> {
    tokio::time::pause();
    let (stage, studio) = (Stage::new().await?, Studio::new());
    let bad = BackendConfig::default().user_config(colour("refused by 0"));
    let error = stage.serve().create_backend("bad", studio.backend(), bad).await.unwrap_err();
    assert_eq!(error.code(), "start_failed");
    assert!(error.to_string().ends_with("it did not take its user_config: this colour is ugly"), "{error}");
    assert!(stage.serve().list_backends().is_empty());
    // The old one takes it, the new one does not: the whole update is undone.
    let look = stage.replicas("painter", studio.backend(), red()).await?;
    let update = paint("refused by 1").num_replicas(2);
    let error = stage.serve().update_backend_config("painter", update).await.unwrap_err();
    assert_eq!(error.code(), "start_failed", "{error}");
    assert_eq!(look.call(Look).await?.colour, "red");
    keeps_red(&stage);
    stage.end().await
}

#[actix_web::test]
async fn calls_that_do_not_end_in_time_keep_the_old_one_and_are_not_cut_off() -> Result<(), ServeError> {
    tokio::time::pause();
    let (stage, studio) = (Stage::new().await?, Studio::new());
    let config = red().graceful_shutdown_timeout(Duration::from_secs(5));
    let look = stage.replicas("painter", studio.backend(), config).await?;
    let running = stage.serve().handle::<LookTwice>("painter")?.call(LookTwice);
    let begun = tokio::time::Instant::now();
    let (updated, late) =
        tokio::join!(stage.serve().update_backend_config("painter", paint("blue")), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            look.call(Look).await
        });
    let error = updated.unwrap_err();
    assert!(error.to_string().ends_with("did not end within 5 s"), "{error}");
    assert_eq!(begun.elapsed().as_secs(), 5);
    assert_eq!(late?.colour, "red");
    studio.calls.release(1);
    assert_eq!(running.await?, ("red".into(), "red".into()));
    stage.serve().update_backend_config("painter", paint("blue")).await?;
    assert_eq!(look.call(Look).await?.colour, "blue");
    stage.end().await
}

#[actix_web::test]
async fn a_handler_that_takes_too_long_is_cut_off_and_the_state_is_made_anew() -> Result<(), ServeError> {
    tokio::time::pause();
    let (stage, studio) = (Stage::new().await?, Studio::new());
    let config = red().startup_timeout(Duration::from_secs(3));
    let look = stage.replicas("painter", studio.backend(), config).await?;
    let begun = tokio::time::Instant::now();
    let error = stage.serve().update_backend_config("painter", paint("slow blue")).await.unwrap_err();
    assert_eq!((error.code(), begun.elapsed().as_secs()), ("reconfigure_failed", 3), "{error}");
    assert_eq!((&*look.call(Look).await?.colour, studio.made()), ("red", 2));
    stage.end().await
}
