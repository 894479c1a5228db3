//! Typed answers, compared exactly, within a tolerance and by a function, whichever way the caller gets them.

use greenroom::{Compare, Comparisons, RequestId, Route, ServeError};

use super::{Order, Price, after, ask, beside, counted, honest, market, off_by, open_door, report, shop};
use crate::support::{Barrier, until};

fn agreed(agreed: u64) -> Comparisons {
    Comparisons { agreed, ..Default::default() }
}

fn differed(differed: u64) -> Comparisons {
    Comparisons { differed, ..Default::default() }
}

#[actix_web::test]
async fn equal_answers_agree() {
    let stage = beside(honest, Compare::exact()).await;
    assert_eq!(report(stage.serve()).agreement, None, "nothing is told of what was never compared");
    ask(stage.serve(), 10).await;
    let report = after(stage.serve(), 10).await;
    assert_eq!((report.shadow, report.agreement, report.sample.len()), (agreed(10), Some(1.0), 0));
    assert_eq!((counted(stage.serve(), "agreed"), counted(stage.serve(), "differed")), (10, 0));
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn a_pair_that_differs_is_kept_with_its_request_its_place_and_both_sides() {
    let next = |article| if article == 7 { off_by(0.5)(article) } else { honest(article) };
    let stage = beside(next, Compare::exact()).await;
    ask(stage.serve(), 7).await;
    let prices = stage.serve().handle::<Price>("shop").unwrap();
    let id = RequestId::given("the-seventh").unwrap();
    assert_eq!(prices.options().request_id(id).call(Price { article: 7 }).await, honest(7));
    let report = after(stage.serve(), 8).await;
    assert_eq!((report.shadow.agreed, report.shadow.differed), (7, 1));
    assert_eq!(report.agreement, Some(7.0 / 8.0));
    let [pair] = &report.sample[..] else { panic!("{report}") };
    assert_eq!((&*pair.request_id, pair.served_by.as_str()), ("the-seventh", "now"));
    assert_eq!((&*pair.path, &*pair.primary.found, &*pair.shadow.found), ("prices[1]", "0.14", "0.64"));
    assert_eq!(pair.primary.answer, r#"{"article":7,"prices":[0.07,0.14]}"#);
    assert_eq!(pair.shadow.answer, r#"{"article":7,"prices":[0.07,0.64]}"#);
    let text = report.to_string();
    let told =
        ["compared: exact", "87.50 %", "7 agreed, 1 differed", "the-seventh", "prices[1]", "now: 0.14 in"];
    assert!(told.iter().all(|part| text.contains(part)), "{text}");
    assert_eq!(counted(stage.serve(), "differed"), 1);
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn numbers_may_differ_by_the_tolerance_and_no_more() {
    for (amount, expected) in [(0.009, agreed(5)), (0.011, differed(5))] {
        let stage = beside(off_by(amount), Compare::within(0.01, 0.0)).await;
        ask(stage.serve(), 5).await;
        assert_eq!(after(stage.serve(), 5).await.shadow, expected, "{amount}");
        stage.end().await.unwrap();
    }
}

#[actix_web::test]
async fn a_function_decides_over_both_answers_in_their_order() {
    let how = Compare::by(|primary, shadow| {
        primary["article"] == shadow["article"]
            && shadow["prices"][1].as_f64() > primary["prices"][1].as_f64()
    });
    let stage = beside(off_by(1.0), how.clone()).await;
    ask(stage.serve(), 5).await;
    assert_eq!(after(stage.serve(), 5).await.shadow, agreed(5));
    stage.end().await.unwrap();
    let stage = beside(off_by(-1.0), how).await;
    ask(stage.serve(), 5).await;
    let report = after(stage.serve(), 5).await;
    assert_eq!((report.shadow, &*report.sample[0].path), (differed(5), "prices[1]"));
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn answers_are_compared_whichever_way_their_caller_gets_them() {
    let stage = greenroom::testing::Stage::new().await.unwrap();
    let (serve, door) = (stage.serve(), Barrier::new());
    market(serve, shop(honest, &door), shop(honest, &open_door())).await;
    super::compare(serve, Compare::exact()).await;
    serve.handle::<Price>("shop").unwrap().call(Price { article: 1 }).await.unwrap();
    assert_eq!(after(serve, 1).await.shadow, agreed(1), "at once");
    let call = serve.handle::<Order>("shop").unwrap().call(Order { article: 2 });
    until("the handler waits", || door.inside() == 1).await;
    door.release(3);
    call.await.unwrap();
    assert_eq!(after(serve, 2).await.shadow, agreed(2), "later");
    serve.handle::<Order>("shop").unwrap().tell(Order { article: 3 }).unwrap();
    assert_eq!(after(serve, 3).await.shadow, agreed(3), "nobody waits");
    let route = Route { endpoint: "shop".try_into().unwrap(), msg: Order { article: 4 } };
    assert!(serve.router().unwrap().send(route).await.unwrap().is_ok());
    assert_eq!(after(serve, 4).await.shadow, agreed(4), "through the router");
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn latencies_are_those_of_each_side() {
    let stage = greenroom::testing::Stage::new().await.unwrap();
    let (now, next) = (Barrier::new(), open_door());
    market(stage.serve(), shop(honest, &now), shop(off_by(1.0), &next)).await;
    super::compare(stage.serve(), Compare::exact()).await;
    let call = stage.serve().handle::<Order>("shop").unwrap().call(Order { article: 1 });
    until("both have begun", || now.began() == 1 && next.began() == 1).await;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    now.release(1);
    call.await.unwrap();
    let report = after(stage.serve(), 1).await;
    let [pair] = &report.sample[..] else { panic!("{report}") };
    let (primary, shadow) = (pair.primary.latency_ms, pair.shadow.latency_ms);
    assert!(primary >= 50.0 && shadow < primary, "{primary} {shadow}");
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn failures_agree_by_their_code() {
    let fail = |code: &'static str| move |_| Err(ServeError::backend(422, code, format!("it is {code}")));
    let cases = [("gone", agreed(1), ""), ("late", differed(1), "late")];
    for (next, expected, found) in cases {
        let stage = greenroom::testing::Stage::new().await.unwrap();
        market(stage.serve(), shop(fail("gone"), &open_door()), shop(fail(next), &open_door())).await;
        super::compare(stage.serve(), Compare::by(|_, _| panic!("it is not asked"))).await;
        let prices = stage.serve().handle::<Price>("shop").unwrap();
        assert_eq!(prices.call(Price { article: 1 }).await.unwrap_err().code(), "gone");
        let report = after(stage.serve(), 1).await;
        assert_eq!(report.shadow, expected);
        if let [pair] = &report.sample[..] {
            let places = (&*pair.path, &*pair.primary.found, &*pair.shadow.found, &*pair.shadow.answer);
            assert_eq!(places, ("(error)", "gone", found, "it is late"));
        }
        stage.end().await.unwrap();
    }
    let stage = beside(fail("gone"), Compare::exact()).await;
    ask(stage.serve(), 1).await;
    let pair = after(stage.serve(), 1).await.sample.remove(0);
    assert_eq!((&*pair.primary.found, &*pair.shadow.found), ("(answered)", "gone"));
    stage.end().await.unwrap();
}
