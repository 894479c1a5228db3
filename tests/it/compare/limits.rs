//! What is kept and what waits is bounded, and what is left out is counted.

use std::sync::{Arc, Mutex, mpsc};

use actix::{Actor, Handler, Message};
use greenroom::{
    Backend, BackendConfig, BackendUpdate, Compare, Comparisons, Endpoint, ReplicaContext, RequestId, Serve,
    ServeError, ShadowRule, testing::Stage,
};

use super::{
    Order, Price, after, ask, beside, compare, counted, ended, honest, market, off_by, open_door, report,
    shop,
};
use crate::support::{Barrier, until};

#[actix_web::test]
async fn the_last_pairs_that_differed_are_kept_and_no_more() {
    let stage = beside(off_by(1.0), Compare::exact().sample(3)).await;
    let prices = stage.serve().handle::<Price>("shop").unwrap();
    for article in 0..10 {
        let id = RequestId::given(&format!("number-{article}")).unwrap();
        prices.options().request_id(id).call(Price { article }).await.unwrap();
    }
    let report = after(stage.serve(), 10).await;
    let kept: Vec<_> = report.sample.iter().map(|pair| &*pair.request_id).collect();
    assert_eq!((report.shadow.differed, kept), (10, vec!["number-7", "number-8", "number-9"]));
    compare(stage.serve(), Compare::exact().sample(0)).await;
    ask(stage.serve(), 2).await;
    let report = after(stage.serve(), 2).await;
    assert_eq!((report.shadow.differed, report.sample.len()), (2, 0));
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn a_long_answer_is_kept_in_part() {
    let long = |article| Ok(super::Quote { article, prices: vec![1.25; 10_000] });
    let stage = beside(long, Compare::exact()).await;
    ask(stage.serve(), 1).await;
    let pair = after(stage.serve(), 1).await.sample.remove(0);
    assert!(
        pair.shadow.answer.len() <= 2048 + 3 && pair.shadow.answer.ends_with('…'),
        "{}",
        pair.shadow.answer
    );
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn pairs_beyond_the_queue_are_skipped_and_nobody_waits() {
    let (release, released) = mpsc::channel::<()>();
    let (begun, begins) = mpsc::channel();
    let released = Mutex::new(released);
    let how = Compare::by(move |_, _| {
        begun.send(()).unwrap();
        // Until the sender is gone.
        let _ = released.lock().unwrap().recv();
        true
    });
    let stage = beside(honest, how).await;
    ask(stage.serve(), 1).await;
    until("the first is being compared", || begins.try_recv().is_ok()).await;
    ask(stage.serve(), 1024 + 10).await;
    until("the queue is full", || report(stage.serve()).shadow.skipped == 10).await;
    assert_eq!(ended(report(stage.serve()).shadow), 10);
    drop(release);
    let told = after(stage.serve(), 1 + 1024 + 10).await;
    assert_eq!(told.shadow, Comparisons { agreed: 1025, skipped: 10, ..Default::default() });
    assert_eq!(counted(stage.serve(), "skipped"), 10);
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn a_caller_that_leaves_is_counted_as_unpaired() {
    let stage = Stage::new().await.unwrap();
    let door = Barrier::new();
    market(stage.serve(), shop(honest, &door), shop(honest, &open_door())).await;
    compare(stage.serve(), Compare::exact()).await;
    let call = stage.serve().handle::<Order>("shop").unwrap().call(Order { article: 1 });
    until("the handler waits", || door.inside() == 1).await;
    assert_eq!(ended(report(stage.serve()).shadow), 0);
    drop(call);
    let expected = Comparisons { unpaired: 1, ..Default::default() };
    assert_eq!(after(stage.serve(), 1).await.shadow, expected);
    assert_eq!(counted(stage.serve(), "unpaired"), 1);
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn a_copy_that_is_dropped_is_unpaired() {
    let stage = Stage::new().await.unwrap();
    let door = Barrier::new();
    market(stage.serve(), shop(honest, &open_door()), shop(honest, &door)).await;
    let one = BackendUpdate::default().max_concurrent_queries(1).max_queued_queries(0);
    stage.serve().update_backend_config("next", one).await.unwrap();
    compare(stage.serve(), Compare::exact()).await;
    let orders = stage.serve().handle::<Order>("shop").unwrap();
    orders.call(Order { article: 1 }).await.unwrap();
    orders.call(Order { article: 2 }).await.unwrap();
    let expected = Comparisons { unpaired: 1, ..Default::default() };
    assert_eq!(after(stage.serve(), 1).await.shadow, expected, "the second found no room");
    door.release(1);
    let expected = Comparisons { unpaired: 1, agreed: 1, ..Default::default() };
    assert_eq!(after(stage.serve(), 2).await.shadow, expected);
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn a_call_that_is_refused_is_no_comparison() {
    let stage = Stage::new().await.unwrap();
    let door = Barrier::new();
    market(stage.serve(), shop(honest, &door), shop(honest, &open_door())).await;
    let one = BackendUpdate::default().max_concurrent_queries(1).max_queued_queries(0);
    stage.serve().update_backend_config("now", one).await.unwrap();
    let orders = stage.serve().handle::<Order>("shop").unwrap();
    let first = orders.call(Order { article: 1 });
    compare(stage.serve(), Compare::exact().noise_floor(1.0)).await;
    assert_eq!(orders.call(Order { article: 2 }).await.unwrap_err().code(), "overloaded");
    orders.tell(Order { article: 3 }).unwrap();
    door.release(1);
    first.await.unwrap();
    let told = report(stage.serve());
    assert_eq!((ended(told.shadow), ended(told.noise)), (0, 0), "{told}");
    stage.end().await.unwrap();
}

/// Neither it nor its answer is known to be comparable.
#[derive(Message, Clone)]
#[rtype(result = "Result<Arc<str>, ServeError>")]
struct Plain;

struct Clerk;

impl Actor for Clerk {
    type Context = ReplicaContext<Self>;
}

impl Handler<Plain> for Clerk {
    type Result = Result<Arc<str>, ServeError>;
    fn handle(&mut self, _: Plain, _: &mut Self::Context) -> Self::Result {
        Ok("done".into())
    }
}

async fn clerks(serve: &Serve) {
    for name in ["now", "next"] {
        let clerk = Backend::new(|_| Ok(Clerk)).handles::<Plain>().shadows::<Plain>();
        serve.create_backend(name, clerk, BackendConfig::default()).await.unwrap();
    }
    serve.create_endpoint("shop", Endpoint::new("now")).await.unwrap();
}

#[actix_web::test]
async fn a_rule_that_could_compare_nothing_is_refused_with_the_type_named() {
    let stage = Stage::new().await.unwrap();
    clerks(stage.serve()).await;
    let rule = ShadowRule::new("next", 1.0).unwrap();
    let comparing = rule.clone().compare(Compare::exact()).unwrap();
    let refused = stage.serve().set_shadow("shop", comparing).await.unwrap_err();
    assert_eq!(refused.code(), "not_compared");
    let text = refused.to_string();
    assert!(text.contains("Plain") && text.contains("next") && text.contains(".compares::<M>()"), "{text}");
    assert!(stage.serve().status().endpoints[0].shadow.is_empty(), "nothing has changed");
    stage.serve().set_shadow("shop", rule).await.unwrap();
    assert!(stage.serve().status().endpoints[0].shadow[0].compare.is_none());
    let wrong = ShadowRule::new("next", 1.0).unwrap().compare(Compare::within(f64::NAN, -1.0)).unwrap_err();
    assert!(wrong.to_string().contains("compare.absolute: NaN was given"), "{wrong}");
    stage.end().await.unwrap();
}
