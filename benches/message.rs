//! A handle call beside a bare `Addr::send().await`: one by one, 64 at once, across threads, over hops.
//!
//! `cargo bench --bench message`; `ROUNDS` and `CALLS` set how often and how many.

mod measure;

use std::{cell::RefCell, num::NonZeroUsize, rc::Rc};

use actix::{Actor, Addr, Arbiter, Context, Handler, Message, ResponseFuture};
use greenroom::{Backend, BackendConfig, Endpoint, Handle, ReplicaContext, Serve, ServeError, ServeOptions};
use measure::{Table, env, median, time};

#[derive(Message)]
#[rtype(result = "Result<u64, ServeError>")]
struct Add(u64);

#[derive(Message)]
#[rtype(result = "Result<u64, ServeError>")]
struct Hop(u64);

/// The reference: a plain actix actor.
struct Bare;

impl Actor for Bare {
    type Context = Context<Self>;
}

impl Handler<Add> for Bare {
    type Result = Result<u64, ServeError>;
    fn handle(&mut self, Add(n): Add, _: &mut Self::Context) -> Self::Result {
        Ok(n + 1)
    }
}

/// Ours.
struct Ours;

impl Actor for Ours {
    type Context = ReplicaContext<Self>;
}

impl Handler<Add> for Ours {
    type Result = Result<u64, ServeError>;
    fn handle(&mut self, Add(n): Add, _: &mut Self::Context) -> Self::Result {
        Ok(n + 1)
    }
}

/// Hands its call on to the next backend.
struct Hops(Vec<Handle<Add>>);

impl Actor for Hops {
    type Context = ReplicaContext<Self>;
}

impl Handler<Hop> for Hops {
    type Result = ResponseFuture<Result<u64, ServeError>>;
    fn handle(&mut self, Hop(mut n): Hop, _: &mut Self::Context) -> Self::Result {
        let next = self.0.clone();
        Box::pin(async move {
            for handle in &next {
                n = handle.call(Add(n)).await?;
            }
            Ok(n)
        })
    }
}

async fn serve(options: ServeOptions) -> Result<Serve, ServeError> {
    let serve = Serve::start(options).await?;
    serve
        .create_backend("add", Backend::new(|_| Ok(Ours)).handles::<Add>(), BackendConfig::default())
        .await?;
    serve.create_endpoint("add", Endpoint::new("add")).await?;
    for hops in [1, 2] {
        let name = format!("hops{hops}");
        let backend = Backend::new(move |ctx| {
            let next: Result<_, _> = (0..hops).map(|_| ctx.handle("add")).collect();
            Ok(Hops(next?))
        });
        serve.create_backend(&name, backend.handles::<Hop>(), BackendConfig::default()).await?;
        serve.create_endpoint(&name, Endpoint::new(&name)).await?;
    }
    Ok(serve)
}

/// Calls `n` times from `tasks` tasks on this thread.
async fn many<F, Fut>(n: usize, tasks: usize, call: F)
where
    F: Fn() -> Fut + 'static,
    Fut: Future<Output = ()>,
{
    let call = Rc::new(call);
    let left = Rc::new(RefCell::new(n));
    let running: Vec<_> = (0..tasks)
        .map(|_| {
            let (call, left) = (Rc::clone(&call), Rc::clone(&left));
            actix::spawn(async move {
                while left.replace_with(|n| n.saturating_sub(1)) > 0 {
                    call().await;
                }
            })
        })
        .collect();
    for task in running {
        let _ = task.await;
    }
}

/// The 99.9th percentile of 10,000 refusals by a replica that is full, in microseconds.
fn refusals(system: &actix::SystemRunner) -> Result<f64, ServeError> {
    system.block_on(async {
        let serve = Serve::start(ServeOptions::default().current_thread()).await?;
        let held = Backend::from_fn(|_: Add| std::future::pending());
        let config = BackendConfig::default().max_concurrent_queries(64).max_queued_queries(64);
        serve.create_backend("held", held, config).await?;
        serve.create_endpoint("held", Endpoint::new("held")).await?;
        let handle = serve.handle::<Add>("held")?;
        let taken: Vec<_> = (0..128).map(|_| handle.call(Add(1))).collect();
        let mut took = Vec::new();
        for _ in 0..10_000 {
            let start = std::time::Instant::now();
            let refused = tokio::task::coop::unconstrained(handle.call(Add(1))).await;
            took.push(start.elapsed().as_nanos() as f64 / 1e3);
            assert!(matches!(refused, Err(ServeError::Overloaded { .. })));
        }
        drop(taken);
        serve.shutdown().await?;
        took.sort_by(f64::total_cmp);
        Ok(took[took.len() * 999 / 1000])
    })
}

fn main() -> Result<(), ServeError> {
    let (rounds, calls) = (env("ROUNDS", 9), env("CALLS", 100_000));
    let system = actix::System::new();
    let (near, far, bare_near, bare_far) = system.block_on(async {
        let near = serve(ServeOptions::default().current_thread()).await?;
        let far = serve(
            ServeOptions::default()
                .capacity(greenroom::Capacity::unlimited())
                .serving_threads(NonZeroUsize::MIN),
        )
        .await?;
        let bare_far = Bare::start_in_arbiter(&Arbiter::new().handle(), |_| Bare);
        Ok::<_, ServeError>((near, far, Bare.start(), bare_far))
    })?;
    let (here, there) = (near.handle::<Add>("add")?, far.handle::<Add>("add")?);
    let hops = [near.handle::<Hop>("hops1")?, near.handle::<Hop>("hops2")?];

    let send = |addr: &Addr<Bare>, tasks| {
        let addr = addr.clone();
        time(&system, calls, move |n| {
            let addr = addr.clone();
            many(n, tasks, move || {
                let sent = addr.send(Add(1));
                async move {
                    assert!(matches!(sent.await, Ok(Ok(2))));
                }
            })
        })
    };
    let call = |handle: &Handle<Add>, tasks| {
        let handle = handle.clone();
        time(&system, calls, move |n| {
            let handle = handle.clone();
            many(n, tasks, move || {
                let sent = handle.call(Add(1));
                async move {
                    assert!(matches!(sent.await, Ok(2)));
                }
            })
        })
    };
    let hop = |handle: &Handle<Hop>| {
        let handle = handle.clone();
        time(&system, calls, move |n| {
            let handle = handle.clone();
            many(n, 1, move || {
                let sent = handle.call(Hop(1));
                async move {
                    assert!(sent.await.is_ok());
                }
            })
        })
    };
    let blocking = there.blocking();
    let block = || {
        let (blocking, n) = (blocking.clone(), calls / 10);
        let thread = std::thread::spawn(move || {
            let start = std::time::Instant::now();
            (0..n).for_each(|_| assert!(matches!(blocking.call(Add(1)), Ok(2))));
            start.elapsed().as_nanos() as f64 / n as f64
        });
        thread.join().unwrap_or(f64::NAN)
    };

    let mut rows: [Vec<f64>; 11] = Default::default();
    for _ in 0..rounds {
        // Interleaved: what the machine does beside us falls on both sides alike.
        let round = [
            send(&bare_near, 1),
            call(&here, 1),
            send(&bare_near, 64),
            call(&here, 64),
            send(&bare_far, 1),
            call(&there, 1),
            send(&bare_far, 64),
            call(&there, 64),
            hop(&hops[0]),
            hop(&hops[1]),
            block(),
        ];
        rows.iter_mut().zip(round).for_each(|(row, ns)| row.push(ns));
    }
    let refusal_us = refusals(&system)?;
    let ratio = |a: usize, b: usize| median(rows[b].iter().zip(&rows[a]).map(|(ours, bare)| ours / bare));
    let ns = rows.each_ref().map(|row| median(row.iter().copied()));
    let mut table = Table::new(["case", "Addr::send ns", "handle call ns", "ratio"]);
    let pairs = [
        ("same thread, one by one", 0),
        ("same thread, 64 at once", 2),
        ("cross thread, one by one", 4),
        ("cross thread, 64 at once", 6),
    ];
    for (case, i) in pairs {
        table.row([
            case.into(),
            format!("{:.0}", ns[i]),
            format!("{:.0}", ns[i + 1]),
            format!("{:.2}", ratio(i, i + 1)),
        ]);
    }
    for (case, i) in
        [("2 hops, same thread", 8), ("3 hops, same thread", 9), ("blocking handle, cross thread", 10)]
    {
        table.row([case.into(), String::new(), format!("{:.0}", ns[i]), String::new()]);
    }
    table.row([
        "refusal of a full replica, p99.9".into(),
        String::new(),
        format!("{:.0}", refusal_us * 1e3),
        String::new(),
    ]);
    table.print();
    println!(
        "{}",
        serde_json::json!({"message": {
            "same_thread_ratio": ratio(0, 1), "same_thread_64_ratio": ratio(2, 3),
            "cross_thread_ratio": ratio(4, 5), "cross_thread_64_ratio": ratio(6, 7),
            "two_hops_ns": ns[8], "three_hops_ns": ns[9], "blocking_ns": ns[10], "refusal_p999_us": refusal_us, "rounds": rounds, "calls": calls,
        }})
    );
    Ok(())
}
