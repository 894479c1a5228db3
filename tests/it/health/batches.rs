//! Batches: where their thread hangs, where they wait for a state that never comes, and where they fail as a whole.

use std::{ops::RangeInclusive, sync::mpsc};

use futures_util::future::join_all;
use greenroom::Batch;

use super::*;
use crate::support::uncounted;

/// What an item makes its batch do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Do {
    /// Waits at the barrier.
    Hold,
    /// Blocks the thread.
    Block,
    /// Panics, as often as it may.
    Panic,
    /// Waits for ever.
    Never,
}

/// Does it where it meets the replicas of these generations. Answers the generation.
#[derive(Clone, Message)]
#[rtype(result = "Result<u64, ServeError>")]
struct Item(RangeInclusive<u64>, Do);

/// What the replicas have in common.
#[derive(Clone)]
struct Gang {
    holds: Barrier,
    let_go: Arc<Mutex<mpsc::Receiver<()>>>,
    blocked: Arc<AtomicU64>,
    panics_left: Arc<AtomicU64>,
    /// From the second state on this generation has none.
    loses: u64,
    states: Arc<AtomicU64>,
}

impl Gang {
    fn new() -> (Self, mpsc::Sender<()>) {
        quiet_panics();
        let (release, let_go) = mpsc::channel();
        let gang = Self {
            holds: Barrier::new(),
            let_go: Arc::new(Mutex::new(let_go)),
            blocked: Arc::default(),
            panics_left: Arc::new(AtomicU64::new(u64::MAX)),
            loses: 0,
            states: Arc::default(),
        };
        (gang, release)
    }

    fn backend(&self) -> Backend<Member> {
        let gang = self.clone();
        let member = Backend::new(move |ctx| {
            if ctx.replica_id().generation == gang.loses && gang.states.fetch_add(1, SeqCst) > 0 {
                return Err("it has lost its state".into());
            }
            Ok(Member(gang.clone()))
        });
        member.batched::<Item>()
    }
}

struct Member(Gang);

impl Actor for Member {
    type Context = ReplicaContext<Self>;
}

impl Handler<Batch<Item>> for Member {
    type Result = ResponseFuture<Result<Vec<<Item as Message>::Result>, ServeError>>;
    fn handle(&mut self, batch: Batch<Item>, ctx: &mut Self::Context) -> Self::Result {
        let (generation, len) = (ctx.replica_id().generation, batch.len());
        let has = |what| batch.items().iter().any(|item| item.1 == what && item.0.contains(&generation));
        let less = |left: u64| left.checked_sub(1);
        if has(Do::Panic) && self.0.panics_left.fetch_update(SeqCst, SeqCst, less).is_ok() {
            panic!("{MEANT}");
        }
        if has(Do::Block) {
            self.0.blocked.fetch_add(1, SeqCst);
            let _ = self.0.let_go.lock().unwrap().recv_timeout(s(60));
        }
        let (hold, never) = (has(Do::Hold).then(|| self.0.holds.pass()), has(Do::Never));
        Box::pin(async move {
            if let Some(passed) = hold {
                passed.await;
            }
            if never {
                std::future::pending::<()>().await;
            }
            Ok(vec![Ok(generation); len])
        })
    }
}

fn batches(size: usize) -> BackendConfig {
    config().max_batch_size(size).max_concurrent_queries(size)
}

async fn hospital(gang: &Gang, config: BackendConfig) -> (Stage, Handle<Item>) {
    freeze();
    let stage = Stage::new().await.unwrap();
    let handle = stage.replicas("ward", gang.backend(), config).await.unwrap();
    (stage, handle)
}

fn ejections(stage: &Stage) -> u64 {
    metric(stage.serve(), "serve_replica_ejections_total", "backend=\"ward\"")
}

/// Forty calls at once for so many seconds.
async fn load(handle: &Handle<Item>, item: Item, seconds: u64) {
    let end = tokio::time::Instant::now() + s(seconds);
    let callers = (0..40).map(|_| async {
        while tokio::time::Instant::now() < end {
            let _ = handle.call(item.clone()).await;
            sleep(ms(100)).await;
        }
    });
    join_all(callers).await;
}

#[actix_web::test]
async fn what_a_hung_replica_gathered_for_batches_is_served_by_its_siblings_or_its_replacement()
-> Result<(), ServeError> {
    for members in [1, 2_u32] {
        let (gang, release) = Gang::new();
        let options = uncounted().serving_threads(NonZeroUsize::new(2).unwrap());
        let serve = Serve::start(options).await?;
        let config = batches(4).health_check_period(ms(20)).health_check_timeout(ms(500));
        serve.create_backend("ward", gang.backend(), config.num_replicas(members)).await?;
        serve.create_endpoint("ward", Endpoint::new("ward")).await?;
        let handle = serve.handle::<Item>("ward")?;
        // One request runs at each, so that a batch of four has no room beside it.
        let mut holds = Vec::new();
        while gang.holds.inside() < u64::from(members) {
            holds.push(handle.call(Item(1..=2, Do::Hold)));
            until("it runs, or waits for the first", || gang.holds.began() > 0).await;
            tokio::task::yield_now().await;
        }
        let answered = Arc::new(AtomicU64::new(0));
        let calls: Vec<_> = (0..20 * members)
            .map(|_| {
                let (calling, answered) = (handle.call(Item(1..=1, Do::Block)), Arc::clone(&answered));
                actix_web::rt::spawn(async move {
                    let answer = calling.await;
                    answered.fetch_add(1, SeqCst);
                    answer
                })
            })
            .collect();
        gang.holds.release(holds.len());
        until("it hangs", || gang.blocked.load(SeqCst) == 1).await;
        until("all but the batch that hangs", || answered.load(SeqCst) >= calls.len() as u64 - 4).await;
        release.send(()).unwrap();
        let mut lost = 0;
        for call in calls {
            match call.await.unwrap() {
                Ok(generation) => lost += u64::from(generation == 1),
                Err(error) => {
                    assert_eq!(error, ServeError::Stopped);
                    lost += 1;
                }
            }
        }
        assert!((1..=4).contains(&lost), "{lost} of {members}");
        drop(holds);
        serve.shutdown().await?;
    }
    Ok(())
}

#[actix_web::test]
async fn a_batch_that_waits_for_a_state_which_never_comes_goes_to_siblings_item_by_item()
-> Result<(), ServeError> {
    let (mut gang, _release) = Gang::new();
    gang.loses = 1;
    let restart = RestartPolicy { max_restarts: 2, window: s(60), backoff: s(1) };
    let (stage, handle) = hospital(&gang, batches(4).num_replicas(2).restart(restart)).await;
    let calls: Vec<_> = (0..40).map(|_| handle.call(Item(1..=1, Do::Panic))).collect();
    let (mut panicked, mut served) = (0, 0);
    for answer in join_all(calls).await {
        match answer {
            Ok(generation) => {
                assert_ne!(generation, 1);
                served += 1;
            }
            Err(ServeError::BatchPanicked { .. }) => panicked += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!((1..=4).contains(&panicked) && served == 40 - panicked, "{panicked} and {served}");
    assert_eq!(gang.states.load(SeqCst), 4, "it gave up");
    stage.end().await
}

#[actix_web::test]
async fn one_batch_that_panics_ejects_nobody() -> Result<(), ServeError> {
    let (gang, _release) = Gang::new();
    gang.panics_left.store(1, SeqCst);
    let (stage, handle) = hospital(&gang, batches(32).batch_wait_timeout(ms(5)).num_replicas(3)).await;
    let answers = join_all((0..96).map(|_| handle.call(Item(2..=2, Do::Panic)))).await;
    let failed = answers.iter().filter(|answer| answer.is_err()).count();
    assert!((25..=32).contains(&failed), "{failed}");
    sleep(s(65)).await;
    assert_eq!((generations(stage.serve()), ejections(&stage)), (vec![1, 2, 3], 0));
    let errors = metric(stage.serve(), "serve_backend_error_counter_total", "backend=\"ward\"");
    assert_eq!(errors, failed as u64, "each request counts");
    stage.end().await
}

#[actix_web::test]
async fn one_whose_every_batch_fails_or_takes_for_ever_is_ejected() -> Result<(), ServeError> {
    for what in [Do::Panic, Do::Never] {
        let (gang, _release) = Gang::new();
        let config = batches(32).batch_wait_timeout(ms(5)).num_replicas(3).request_timeout(ms(500));
        let (stage, handle) = hospital(&gang, config).await;
        load(&handle, Item(2..=2, what), 21).await;
        assert_eq!((generations(stage.serve()), ejections(&stage)), (vec![1, 4, 3], 1), "{what:?}");
        stage.end().await?;
    }
    Ok(())
}
