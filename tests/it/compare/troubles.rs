//! Whatever happens to a shadow, or in a comparison, callers get what they would have got, and nothing is left.

use std::{
    cell::RefCell,
    future::pending,
    sync::{Mutex, mpsc},
    time::Duration,
};

use actix::{Actor, Handler, Message, ResponseFuture};
use greenroom::{
    Backend, BackendConfig, BackendUpdate, Compare, Comparisons, Endpoint, ReplicaContext, Serve, ServeError,
    ServeOptions, testing::Stage,
};
use serde::{Serialize, Serializer};

use super::{Order, after, ask, beside, compare, counted, honest, market, open_door, report, shop};
use crate::support::{Barrier, MEANT, quiet_panics, until};

#[actix_web::test]
async fn a_function_that_panics_fails_its_comparison_and_nothing_else() {
    quiet_panics();
    let how = Compare::by(|primary, _| {
        assert!(primary["article"] != 1, "{MEANT}: no such article");
        true
    });
    let stage = beside(honest, how).await;
    ask(stage.serve(), 3).await;
    let report = after(stage.serve(), 3).await;
    assert_eq!(report.shadow, Comparisons { agreed: 2, failed: 1, ..Default::default() });
    assert!(report.last_failure.unwrap().contains("no such article"));
    assert_eq!(counted(stage.serve(), "failed"), 1);
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn a_shadow_that_panics_differs() {
    quiet_panics();
    let stage = beside(|_| panic!("{MEANT}: closed"), Compare::exact()).await;
    ask(stage.serve(), 2).await;
    let pair = after(stage.serve(), 2).await.sample.remove(0);
    let found = (&*pair.path, &*pair.primary.found, &*pair.shadow.found);
    assert_eq!(found, ("(error)", "(answered)", "panicked"));
    assert!(pair.shadow.answer.contains("closed"), "{}", pair.shadow.answer);
    stage.end().await.unwrap();
}

#[actix_web::test]
async fn a_shadow_that_hangs_is_not_waited_for_and_unpaired_when_it_goes() {
    let stage = Stage::new().await.unwrap();
    market(stage.serve(), shop(honest, &open_door()), shop(honest, &Barrier::new())).await;
    compare(stage.serve(), Compare::exact()).await;
    let orders = stage.serve().handle::<Order>("shop").unwrap();
    for article in 0..5 {
        assert_eq!(orders.call(Order { article }).await, honest(article));
    }
    assert_eq!(report(stage.serve()).shadow, Comparisons::default());
    let none = BackendUpdate::default().num_replicas(0).graceful_shutdown_timeout(Duration::from_millis(1));
    stage.serve().update_backend_config("next", none).await.unwrap();
    let expected = Comparisons { unpaired: 5, ..Default::default() };
    assert_eq!(after(stage.serve(), 5).await.shadow, expected);
    stage.end().await.unwrap();
}

/// An answer whose code panics where the test says.
#[derive(Debug, PartialEq)]
struct Fragile(&'static str);

impl Clone for Fragile {
    fn clone(&self) -> Self {
        assert!(self.0 != "clone", "{MEANT}: cloned");
        Self(self.0)
    }
}

impl Serialize for Fragile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(self.0 != "serialize", "{MEANT}: serialized");
        serializer.serialize_str(self.0)
    }
}

#[derive(Message, Clone)]
#[rtype(result = "Result<Fragile, ServeError>")]
struct Fetch(&'static str, bool);

struct Store;

impl Actor for Store {
    type Context = ReplicaContext<Self>;
}

impl Handler<Fetch> for Store {
    type Result = ResponseFuture<Result<Fragile, ServeError>>;
    fn handle(&mut self, Fetch(what, hang): Fetch, _: &mut Self::Context) -> Self::Result {
        Box::pin(async move {
            if hang {
                pending::<()>().await;
            }
            Ok(Fragile(what))
        })
    }
}

#[actix_web::test]
async fn an_answer_that_panics_when_cloned_or_serialized_still_reaches_its_caller() {
    quiet_panics();
    let stage = Stage::new().await.unwrap();
    for name in ["now", "next"] {
        let store = Backend::new(|_| Ok(Store)).handles::<Fetch>().compares::<Fetch>();
        stage.serve().create_backend(name, store, BackendConfig::default()).await.unwrap();
    }
    stage.serve().create_endpoint("shop", Endpoint::new("now")).await.unwrap();
    compare(stage.serve(), Compare::exact()).await;
    let fetch = stage.serve().handle::<Fetch>("shop").unwrap();
    for (n, (what, why)) in [("clone", "cloned"), ("serialize", "serialized")].into_iter().enumerate() {
        assert_eq!(fetch.call(Fetch(what, false)).await, Ok(Fragile(what)));
        let report = after(stage.serve(), n as u64 + 1).await;
        assert_eq!(report.shadow, Comparisons { failed: n as u64 + 1, ..Default::default() });
        assert!(report.last_failure.unwrap().contains(why));
    }
    assert_eq!(fetch.call(Fetch("whole", false)).await, Ok(Fragile("whole")));
    assert_eq!(after(stage.serve(), 3).await.shadow.agreed, 1);
    // A caller that gives up at its deadline has left; its shadow hangs as well.
    let late = fetch.options().timeout(Duration::from_millis(5)).call(Fetch("late", true)).await;
    assert_eq!(late, Err(ServeError::DeadlineExceeded));
    assert_eq!(after(stage.serve(), 4).await.shadow.unpaired, 1);
    stage.end().await.unwrap();
}

thread_local! {
    static ENDS: RefCell<Option<Ends>> = const { RefCell::new(None) };
}

/// Tells when its thread has ended.
struct Ends(mpsc::Sender<()>);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// A Serve that compares with a function which tells that it is asked and then does `more`; the end of the thread
/// that it runs on is told too.
async fn compared(
    more: impl Fn() + Send + Sync + 'static,
) -> (Serve, mpsc::Receiver<()>, mpsc::Receiver<()>) {
    let (begun, begins) = mpsc::channel();
    let (ended, ends) = mpsc::channel();
    let how = Compare::by(move |_, _| {
        ENDS.set(Some(Ends(ended.clone())));
        begun.send(()).unwrap();
        more();
        true
    });
    let serve = Serve::start(ServeOptions::default().current_thread()).await.unwrap();
    market(&serve, shop(honest, &open_door()), shop(honest, &open_door())).await;
    compare(&serve, how).await;
    (serve, begins, ends)
}

#[actix_web::test]
async fn the_thread_that_compares_ends_with_its_serve() {
    for shut_down in [true, false] {
        let (serve, _begins, ends) = compared(|| ()).await;
        ask(&serve, 1).await;
        after(&serve, 1).await;
        assert!(ends.try_recv().is_err(), "it lives as long as its Serve");
        if shut_down {
            serve.shutdown().await.unwrap();
        } else {
            drop(serve);
        }
        until("the thread ends", || ends.try_recv().is_ok()).await;
    }
}

#[actix_web::test]
async fn a_function_that_hangs_puts_off_no_answer_and_no_end() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let (serve, begins, ends) = compared(move || {
        // Until the sender is gone.
        let _ = released.lock().unwrap().recv();
    })
    .await;
    ask(&serve, 50).await;
    until("the function hangs", || begins.try_recv().is_ok()).await;
    ask(&serve, 50).await;
    serve.shutdown().await.unwrap();
    assert!(ends.try_recv().is_err() && begins.try_recv().is_err());
    drop(release);
    until("the thread ends after that", || ends.try_recv().is_ok()).await;
    assert!(begins.try_recv().is_err(), "what waited is given up");
}
