//! A rule that changes begins anew; one that stays goes on, and metrics only grow.

use greenroom::{Compare, ShadowRule};

use super::{after, ask, beside, compare, counted, off_by, report};

#[actix_web::test]
async fn a_changed_rule_begins_anew_and_metrics_go_on() {
    let stage = beside(off_by(0.5), Compare::exact()).await;
    let serve = stage.serve();
    ask(serve, 3).await;
    assert_eq!(after(serve, 3).await.sample.len(), 3);
    compare(serve, Compare::within(1.0, 0.0)).await;
    let told = report(serve);
    assert_eq!((told.shadow.differed, told.sample.len(), told.agreement), (0, 0, None));
    ask(serve, 2).await;
    assert_eq!(after(serve, 2).await.agreement, Some(1.0));
    assert_eq!((counted(serve, "differed"), counted(serve, "agreed")), (3, 2));
    let half = ShadowRule::new("next", 0.5).unwrap().compare(Compare::within(1.0, 0.0)).unwrap();
    serve.set_shadow("shop", half).await.unwrap();
    assert_eq!(report(serve).agreement, None, "another proportion is another rule");
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn a_rule_that_stays_as_it_is_goes_on() {
    let stage = beside(off_by(0.5), Compare::exact()).await;
    let serve = stage.serve();
    ask(serve, 3).await;
    after(serve, 3).await;
    compare(serve, Compare::exact()).await;
    serve.set_traffic("shop", [("now", 1.0)]).await.unwrap();
    ask(serve, 2).await;
    let told = after(serve, 5).await;
    assert_eq!((told.shadow.differed, told.sample.len()), (5, 5));
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn what_is_no_longer_compared_leaves_no_report_and_its_metrics_go_with_the_endpoint() {
    let stage = beside(off_by(0.5), Compare::exact()).await;
    let serve = stage.serve();
    ask(serve, 3).await;
    after(serve, 3).await;
    serve.shadow_traffic("shop", "next", 1.0).await.unwrap();
    assert!(serve.status().endpoints[0].shadow[0].compare.is_none());
    ask(serve, 1).await;
    assert_eq!(counted(serve, "differed"), 3);
    serve.delete_endpoint("shop").await.unwrap();
    assert!(!serve.metrics().contains("serve_shadow_comparisons_total{"));
    stage.end().await.unwrap();
}
