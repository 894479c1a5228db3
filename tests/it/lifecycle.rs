//! The life of a state: its hooks, its timers, and all that its context can do.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Handler, Message, ResponseActFuture, Running,
    SpawnHandle, StreamHandler, fut,
};
use greenroom::{Backend, Handle, ReplicaContext, ServeError, testing::Stage};

use crate::support::until;

type Diary = Arc<Mutex<Vec<&'static str>>>;

/// Does with its context what it is told, and keeps a diary.
struct Clerk(Diary, Option<SpawnHandle>);

#[derive(Message, Clone, Copy)]
#[rtype(result = "Result<(), ServeError>")]
enum Order {
    Stop,
    Notify,
    NotifyFromFuture,
    Send,
    Later,
    CancelLater,
    Stream,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Write(&'static str);

impl Clerk {
    fn write(&self, line: &'static str) {
        self.0.lock().unwrap().push(line);
    }
}

impl Actor for Clerk {
    type Context = ReplicaContext<Self>;
    fn started(&mut self, _: &mut Self::Context) {
        self.write("started");
    }
    fn stopping(&mut self, _: &mut Self::Context) -> Running {
        self.write("stopping");
        Running::Stop
    }
    fn stopped(&mut self, _: &mut Self::Context) {
        self.write("stopped");
    }
}
impl Handler<Write> for Clerk {
    type Result = ();
    fn handle(&mut self, Write(line): Write, _: &mut Self::Context) {
        self.write(line);
    }
}
impl StreamHandler<&'static str> for Clerk {
    fn handle(&mut self, line: &'static str, _: &mut Self::Context) {
        self.write(line);
    }
    fn finished(&mut self, _: &mut Self::Context) {
        self.write("end of stream");
    }
}
impl Handler<Order> for Clerk {
    type Result = ResponseActFuture<Self, Result<(), ServeError>>;
    fn handle(&mut self, order: Order, ctx: &mut Self::Context) -> Self::Result {
        match order {
            Order::Stop => ctx.stop(),
            Order::Notify => ctx.notify(Write("notified")),
            Order::Send => {
                let sent = ctx.address().send(Write("sent"));
                return Box::pin(fut::wrap_future::<_, Self>(sent).map(|sent, clerk, _| {
                    sent.map_err(ServeError::from_user)?;
                    clerk.write("answered");
                    Ok(())
                }));
            }
            Order::Later => {
                self.1 = Some(ctx.run_later(Duration::from_millis(50), |clerk, _| clerk.write("later")))
            }
            Order::CancelLater => {
                ctx.cancel_future(self.1.take().unwrap());
            }
            Order::Stream => {
                ctx.add_stream(futures_util::stream::iter(["one", "two"]));
            }
            Order::NotifyFromFuture => {
                return Box::pin(fut::wrap_future::<_, Self>(tokio::task::yield_now()).map(|(), _, ctx| {
                    ctx.notify(Write("notified"));
                    ctx.notify_later(Write("notified later"), Duration::from_millis(50));
                    Ok(())
                }));
            }
        }
        Box::pin(fut::ready(Ok(())))
    }
}

async fn clerk() -> (Stage, Handle<Order>, Diary) {
    let (stage, diary) = (Stage::new().await.unwrap(), Diary::default());
    let own = Arc::clone(&diary);
    let backend = Backend::new(move |_| Ok(Clerk(Arc::clone(&own), None))).handles::<Order>();
    let handle = stage.replica("clerk", backend).await.unwrap();
    tokio::time::pause();
    (stage, handle, diary)
}

async fn diary_of(order: Order, expected: &[&str]) {
    let (stage, handle, diary) = clerk().await;
    handle.call(order).await.unwrap();
    let written = || diary.lock().unwrap().clone();
    until("the diary", || written().len() == expected.len() + 1).await;
    assert_eq!(written()[1..], *expected);
    stage.end().await.unwrap();
    assert_eq!(written()[written().len() - 2..], ["stopping", "stopped"], "told on a drain");
    tokio::time::resume();
}

#[actix_web::test]
async fn the_context_notifies_sends_waits_and_streams_as_actix_does() {
    diary_of(Order::Notify, &["notified"]).await;
    diary_of(Order::NotifyFromFuture, &["notified", "notified later"]).await;
    diary_of(Order::Send, &["sent", "answered"]).await;
    diary_of(Order::Later, &["later"]).await;
    diary_of(Order::Stream, &["one", "two", "end of stream"]).await;
}

#[actix_web::test]
async fn a_state_that_stops_itself_is_replaced_by_a_fresh_one() {
    diary_of(Order::Stop, &["stopping", "stopped", "started"]).await;
}

#[actix_web::test]
async fn a_cancelled_timer_never_fires() {
    let (stage, handle, diary) = clerk().await;
    handle.call(Order::Later).await.unwrap();
    handle.call(Order::CancelLater).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(*diary.lock().unwrap(), ["started"]);
    stage.end().await.unwrap();
}
