//! A state that is made again after a panic is checked too, and callers do not wait for that.

use tokio::time::Instant;

use super::{Verdict::*, *};

#[actix_web::test]
async fn calls_do_not_wait_for_a_check_that_takes_its_time() -> Result<(), ServeError> {
    let ward = Ward::new();
    let (stage, ping) = stage(&ward, config()).await;
    ward.says(|visit| if visit.before == 0 { Later(s(9)) } else { Well });
    let begun = Instant::now();
    let fall = stage.serve().handle::<Fall>("ward")?;
    let (fallen, answered) = (fall.call(Fall), ping.call(Ping));
    fallen.await.unwrap_err();
    assert_eq!(answered.await?, (0, 1));
    assert!(begun.elapsed() < ms(10), "{:?}", begun.elapsed());
    assert_eq!(ward.checks(), 2, "it was begun");
    // The next question finds it still under way, and is answered by it.
    sleep(s(19)).await;
    assert_eq!((ward.states(), replicas(stage.serve())[0].failed_checks), (2, 0));
    stage.end().await
}

#[actix_web::test]
async fn one_that_fails_is_a_failed_start_with_its_pause() -> Result<(), ServeError> {
    for bad in [Ill, IllLater(ms(5)), Panics, PanicsLater(ms(5))] {
        let ward = Ward::new();
        let (stage, ping) = stage(&ward, config()).await;
        ward.says(move |visit| if (2..=4).contains(&visit.state) { bad } else { Well });
        let fall = stage.serve().handle::<Fall>("ward")?;
        let begun = Instant::now();
        fall.call(Fall).await.unwrap_err();
        sleep(ms(400)).await;
        assert_eq!(ping.call(Ping).await?, (0, 1));
        // 100, 200 and 400 ms.
        until("it is well again", || ward.states() == 5).await;
        let took = begun.elapsed();
        assert!((ms(700)..ms(800)).contains(&took), "{bad:?}: {took:?}");
        assert_eq!(generations(stage.serve()), [1]);
        stage.end().await?;
    }
    Ok(())
}

#[actix_web::test]
async fn one_that_fails_for_good_has_the_replica_replaced() -> Result<(), ServeError> {
    for bad in [Ill, IllLater(ms(5))] {
        let ward = Ward::new();
        let (stage, ping) = stage(&ward, config().num_replicas(2)).await;
        ward.says(move |visit| if visit.generation <= 2 && visit.before == 0 { bad } else { Well });
        let fall = stage.serve().handle::<Fall>("ward")?;
        fall.call(Fall).await.unwrap_err();
        sleep(s(5)).await;
        let now = generations(stage.serve());
        assert!(now.contains(&3) && now.len() == 2, "{now:?}");
        assert!(last_error(stage.serve()).ends_with("its health check failed: it feels ill"));
        for _ in 0..100 {
            ping.call(Ping).await?;
        }
        stage.end().await?;
    }
    Ok(())
}

#[actix_web::test]
async fn poison_requests_in_the_middle_of_its_checks_do_not_take_a_replica_out() -> Result<(), ServeError> {
    let ward = Ward::new();
    let (stage, ping) = stage(&ward, config()).await;
    ward.says(|_| Later(ms(50)));
    let fall = stage.serve().handle::<Fall>("ward")?;
    for _ in 0..2000 {
        fall.call(Fall).await.unwrap_err();
        sleep(ms(20)).await;
    }
    assert_eq!((ward.states(), ping.call(Ping).await?), (2001, (0, 1)));
    stage.end().await
}
