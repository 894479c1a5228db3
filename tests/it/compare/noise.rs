//! The noise floor: how much the serving backend differs from itself.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use greenroom::{BackendUpdate, Compare, testing::Stage};

use super::{Order, after, compare, counted, ended, honest, market, off_by, open_door, report, shop};
use crate::support::{Barrier, until};

#[actix_web::test]
async fn a_backend_that_always_says_the_same_makes_no_noise() {
    let stage = Stage::new().await.unwrap();
    let asked = Arc::new(AtomicU64::new(0));
    let now = {
        let asked = Arc::clone(&asked);
        move |article| {
            asked.fetch_add(1, SeqCst);
            honest(article)
        }
    };
    market(stage.serve(), shop(now, &open_door()), shop(off_by(1.0), &open_door())).await;
    compare(stage.serve(), Compare::exact().noise_floor(1.0)).await;
    super::ask(stage.serve(), 20).await;
    after(stage.serve(), 20).await;
    until("all is compared with itself", || ended(report(stage.serve()).noise) == 20).await;
    let report = report(stage.serve());
    assert_eq!((report.noise.agreed, report.noise_rate, report.agreement), (20, Some(0.0), Some(0.0)));
    assert_eq!((asked.load(SeqCst), report.sample.len()), (40, 16), "each was asked of it twice");
    assert_eq!((counted(stage.serve(), "noise_agreed"), counted(stage.serve(), "agreed")), (20, 0));
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn a_backend_that_says_something_else_each_time_is_told_from_its_shadow() {
    let stage = Stage::new().await.unwrap();
    let asked = AtomicU64::new(0);
    let now = move |article| off_by(asked.fetch_add(1, SeqCst) as f64)(article);
    market(stage.serve(), shop(now, &open_door()), shop(honest, &open_door())).await;
    compare(stage.serve(), Compare::exact().noise_floor(1.0).sample(5)).await;
    let orders = stage.serve().handle::<Order>("shop").unwrap();
    for article in 0..20 {
        orders.call(Order { article }).await.unwrap();
    }
    until("all is compared with itself", || ended(report(stage.serve()).noise) == 20).await;
    let told = after(stage.serve(), 20).await;
    assert_eq!((told.noise.differed, told.noise_rate), (20, Some(1.0)));
    assert_eq!(counted(stage.serve(), "noise_differed"), 20);
    let of_the_shadow: Vec<_> =
        (0..20).map(|n| serde_json::to_string(&honest(n).unwrap()).unwrap()).collect();
    assert_eq!(told.sample.len(), 5);
    for pair in &told.sample {
        assert!(of_the_shadow.contains(&pair.shadow.answer), "noise is no sample: {pair:?}");
    }
    assert!(told.to_string().contains("noise floor: 100.00 % differ from themselves"), "{told}");
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn only_the_share_asked_for_is_asked_twice() {
    let stage = Stage::new().await.unwrap();
    market(stage.serve(), shop(honest, &open_door()), shop(honest, &open_door())).await;
    compare(stage.serve(), Compare::exact().noise_floor(0.1)).await;
    super::ask(stage.serve(), 2_000).await;
    after(stage.serve(), 2_000).await;
    let mut seen = 0;
    until("the noise settles", || std::mem::replace(&mut seen, ended(report(stage.serve()).noise)) == seen)
        .await;
    // 5 sigma of 2,000 draws at a tenth.
    assert!(seen.abs_diff(200) <= 67, "{seen}");
    compare(stage.serve(), Compare::exact()).await;
    super::ask(stage.serve(), 100).await;
    assert_eq!(ended(after(stage.serve(), 100).await.noise), 0, "none unless asked for");
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn a_full_backend_drops_its_noise_and_not_its_callers() {
    let stage = Stage::new().await.unwrap();
    let door = Barrier::new();
    market(stage.serve(), shop(honest, &door), shop(honest, &open_door())).await;
    // Room for one.
    let one = BackendUpdate::default().max_concurrent_queries(1).max_queued_queries(0);
    stage.serve().update_backend_config("now", one).await.unwrap();
    compare(stage.serve(), Compare::exact().noise_floor(1.0)).await;
    let call = stage.serve().handle::<Order>("shop").unwrap().call(Order { article: 1 });
    until("the noise is dropped", || report(stage.serve()).noise.unpaired == 1).await;
    door.release(1);
    assert_eq!(call.await, honest(1));
    assert_eq!(after(stage.serve(), 1).await.shadow.agreed, 1);
    stage.end().await.unwrap();
}
