//! Replicas that are given up because their threads hang: what they had of a GPU is free in truth, and they cannot use it.

use std::{sync::mpsc, time::Duration};

use greenroom::{
    Backend, BackendUpdate, GpuFailure, Handle, RestartPolicy, Serve, ServeError,
    gpu::{GpuDevice, GpuError},
};

use super::{
    backends::{config, serving},
    work::{BYTES, Block, Hang, Run, Works, create, exact},
};
use crate::support::until;

/// A replica that hangs: what lets it go on, and what its lease was good for then.
struct Hung {
    release: mpsc::Sender<()>,
    told: mpsc::Receiver<Vec<Result<(), GpuError>>>,
    call: actix_web::rt::task::JoinHandle<Result<(), ServeError>>,
}

impl Hung {
    async fn at(serve: &Serve, name: &str) -> Self {
        let ((release, hangs), (tell, told)) = (mpsc::channel(), mpsc::channel());
        let handle: Handle<Hang> = serve.handle(name).unwrap();
        let call = actix_web::rt::spawn(async move { handle.call(Hang(hangs, tell)).await });
        let of = |status: greenroom::Status| {
            status.backends.iter().any(|backend| {
                backend.name.as_str() == name && backend.replicas.iter().any(|replica| replica.load > 0)
            })
        };
        until("it hangs", || of(serve.status())).await;
        Self { release, told, call }
    }

    /// Its thread goes on, and finds that it has nothing any more.
    fn wakes(self) {
        drop(self.release);
        let tried = self.told.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(tried, vec![Err(GpuError::Revoked); 4]);
        self.call.abort();
    }
}

fn leases(device: &GpuDevice) -> (usize, u64) {
    let status = device.status().wait().unwrap();
    (status.leases.len(), status.leased_bytes)
}

#[actix_web::test]
async fn another_backend_has_the_place_of_a_replica_that_hangs_and_is_deleted_by_force() {
    let device = exact();
    let serve = serving(vec![device.clone()]).await;
    create(&serve, "old", config(1.0)).await;
    let hung = Hung::at(&serve, "old").await;
    serve.delete_endpoint("old").await.unwrap();
    serve.delete_backend("old", true).await.unwrap();
    let next = create(&serve, "next", config(1.0)).await;
    next.call(Run(1)).await.unwrap();
    assert_eq!(leases(&device), (1, BYTES), "the new one's alone");
    hung.wakes();
    next.call(Run(1)).await.unwrap();
    assert_eq!(leases(&device), (1, BYTES));
    serve.shutdown().await.unwrap();
    until("all of it given back", || device.free().ten_thousandths == 10_000).await;
}

#[actix_web::test]
async fn one_that_does_not_answer_its_checks_is_replaced_on_the_same_place() {
    let device = exact();
    let serve = serving(vec![device.clone()]).await;
    let (period, timeout) = (Duration::from_millis(50), Duration::from_millis(300));
    let config = config(1.0).health_check_period(period).health_check_timeout(timeout);
    let handle = create(&serve, "a", config).await;
    let hung = Hung::at(&serve, "a").await;
    until("another one", || {
        serve.status().backends[0].replicas.iter().any(|replica| replica.id.generation > 1)
    })
    .await;
    handle.call(Run(1)).await.unwrap();
    let gpus = serve.status().gpus;
    assert_eq!((gpus[0].leases.len(), gpus[0].free_share), (1, 0.0));
    hung.wakes();
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn one_that_does_not_start_in_time_leaves_its_place() {
    let device = exact();
    let serve = serving(vec![device.clone()]).await;
    let (release, hangs) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let hangs = std::sync::Mutex::new(hangs);
    let backend = Backend::<Works>::new(move |ctx| {
        let lease = ctx.gpu()?.clone();
        let _buffer = lease.create_buffer(BYTES).wait()?;
        let _ = hangs.lock().unwrap().recv();
        let _ = tell.send(lease.create_buffer(64).wait().map(drop));
        Works::new(ctx)
    });
    let short = config(1.0)
        .startup_timeout(Duration::from_millis(100))
        .restart(RestartPolicy { max_restarts: 0, ..Default::default() });
    let late = serve.create_backend("late", backend, short).await.unwrap_err();
    assert_eq!(late.code(), "start_failed");
    create(&serve, "next", config(1.0)).await.call(Run(1)).await.unwrap();
    drop(release);
    let refused = told.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(refused, Err(GpuError::Revoked));
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_thread_blocked_by_its_own_jobs_is_let_go_and_what_runs_ends_before_the_next_begins() {
    let device = exact();
    let serve = serving(vec![device.clone()]).await;
    let old = create(&serve, "old", config(1.0)).await;
    old.call(Run(300)).await.unwrap();
    let (tell, told) = mpsc::channel();
    let blocked: Handle<Block> = serve.handle("old").unwrap();
    let call = actix_web::rt::spawn(async move { blocked.call(Block(8, 300, tell)).await });
    until("all its jobs are out", || serve.status().gpus[0].leases[0].outstanding == 8).await;
    serve.delete_endpoint("old").await.unwrap();
    let busy = device.busy();
    serve.delete_backend("old", true).await.unwrap();
    let next = create(&serve, "next", config(1.0)).await;
    next.call(Run(1)).await.unwrap();
    let ends: Vec<_> = told.iter().collect();
    assert!(ends.len() == 8 && ends[7] == Err(GpuError::Revoked), "{ends:?}");
    let ran = ends.iter().filter(|end| end.is_ok()).count() as u32;
    let own = device.busy() - busy - Duration::from_millis(1);
    assert!(own <= ran * Duration::from_millis(300), "{own:?}: what did not begin does not run");
    // It was answered.
    let _ = call.await.unwrap();
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn fewer_replicas_by_force_have_no_series_though_one_hangs() {
    let device = exact();
    let serve = serving(vec![device.clone()]).await;
    let config = config(0.5).num_replicas(2).max_concurrent_queries(1);
    create(&serve, "a", config.graceful_shutdown_timeout(Duration::from_millis(20))).await;
    let hung = [Hung::at(&serve, "a").await, Hung::at(&serve, "a").await];
    until("both hang", || serve.status().backends[0].replicas.iter().all(|replica| replica.load == 1)).await;
    serve.update_backend_config("a", BackendUpdate::default().num_replicas(1)).await.unwrap();
    let text = serve.metrics();
    assert!(text.contains("serve_gpu_share_asked{backend=\"a\",replica=\"0\",device=\"0\"} 0.5"));
    assert!(!text.contains("serve_gpu_share_asked{backend=\"a\",replica=\"1\""), "{text}");
    assert_eq!(serve.status().gpus[0].leases.len(), 1);
    until("its half is free", || serve.status().gpus[0].free_share == 0.5).await;
    drop(hung);
    serve.shutdown().await.unwrap();
}

#[actix_web::test]
async fn a_serve_that_is_dropped_leaves_a_given_device_although_a_replica_hangs() {
    let device = exact();
    let serve = serving(vec![device.clone()]).await;
    create(&serve, "a", config(1.0)).await;
    let hung = Hung::at(&serve, "a").await;
    drop(serve);
    until("all of it given back", || device.free().ten_thousandths == 10_000).await;
    hung.wakes();
}

#[test]
fn a_caller_whose_replica_was_given_up_is_told_that_it_may_try_again() {
    let revoked = ServeError::from(GpuError::Revoked);
    assert!(matches!(revoked, ServeError::Gpu { failure: GpuFailure::Unavailable, .. }));
    assert!(revoked.retryable() && !GpuError::Revoked.retryable(), "not with the same lease");
}
