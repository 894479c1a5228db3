//! Each kind of step while requests come through HTTP and handles: none fails.

use std::{cell::Cell, net::SocketAddr, rc::Rc};

use super::*;
use crate::wire::{Client, listening};

/// Callers that ask until they are told to end, and fail with the first call that does.
struct Load {
    ends: Rc<Cell<bool>>,
    callers: Vec<actix_web::rt::task::JoinHandle<u64>>,
}

impl Load {
    /// Four over HTTP on each of `paths`, four by handles to `e`.
    fn on(serve: &Serve, address: SocketAddr, paths: &'static [&'static str]) -> Self {
        let ends = Rc::new(Cell::new(false));
        let mut callers = Vec::new();
        for i in 0..4 * paths.len() {
            let (ends, path) = (Rc::clone(&ends), paths[i % paths.len()]);
            callers.push(actix_web::rt::spawn(async move {
                let (mut client, mut calls) = (Client::connect(address).await, 0);
                while !ends.get() {
                    client.request("GET", path, &[], "").await;
                    let answer = client.answer().await;
                    assert_eq!(answer.status, 200, "{path}: {answer:?}");
                    calls += 1;
                }
                calls
            }));
        }
        for _ in 0..4 {
            let (ends, handle) = (Rc::clone(&ends), serve.handle::<Which>("e").unwrap());
            callers.push(actix_web::rt::spawn(async move {
                let mut calls = 0;
                while !ends.get() {
                    handle.call(Which).await.unwrap();
                    calls += 1;
                }
                calls
            }));
        }
        Self { ends, callers }
    }

    /// None has failed.
    async fn end(self) {
        self.ends.set(true);
        let mut calls = 0;
        for caller in self.callers {
            calls += caller.await.unwrap();
        }
        assert!(calls > 100, "{calls} calls");
    }
}

#[actix_web::test]
async fn no_call_fails_while_each_kind_of_step_is_taken() -> Result<(), ServeError> {
    let (serve, address) = listening(2).await;
    register(&serve);
    deploy(&serve, first()).await?;
    let load = Load::on(&serve, address, &["/e"]);
    let mut config = first();
    let mut steps = Vec::new();
    let mut changes: Vec<Box<dyn FnMut(&mut ServeConfig)>> = vec![
        Box::new(|config| config.backends[0].config.num_replicas = 3),
        Box::new(|config| config.backends[0].config.max_queued_queries = 2000),
        Box::new(|config| {
            let options = config.backends[0].config.clone();
            config.backends[0].config = options.user_config(serde_json::json!(10));
        }),
        Box::new(|config| config.backends[0].config.version = Some("2".into())),
        Box::new(|config| config.endpoints[0] = yaml_endpoint("e", "traffic: { a: 0.5, b: 0.5 }")),
        Box::new(|config| config.endpoints[0] = yaml_endpoint("e", "backend: a, shadow: { b: 1.0 }")),
        Box::new(|config| config.endpoints[0] = yaml_endpoint("e", "backend: a, methods: [GET, POST]")),
        Box::new(|config| config.endpoints[0] = yaml_endpoint("e", "backend: b, affinity: replica")),
        Box::new(|config| {
            config.backends.push(yaml("backends: [{ name: c, registered: one }]").backends.remove(0));
            config.endpoints[0] = yaml_endpoint("e", "backend: c");
            config.backends.remove(0);
        }),
        Box::new(|config| config.backends[1].config.num_replicas = 2),
    ];
    for change in &mut changes {
        change(&mut config);
        let deployed = deploy(&serve, config.clone()).await?;
        steps.extend(deployed.plan.steps.iter().map(|step| step.action));
    }
    for id in [1, 9, 4, 2] {
        let back = serve.rollback(Some(id), DeployOptions::default()).await?;
        steps.extend(back.plan.steps.iter().map(|step| step.action));
    }
    for action in [
        PlanAction::Create,
        PlanAction::Scale,
        PlanAction::Update,
        PlanAction::Reconfigure,
        PlanAction::Roll,
        PlanAction::SetTraffic,
        PlanAction::SetShadow,
        PlanAction::Replace,
        PlanAction::Delete,
    ] {
        assert!(steps.contains(&action), "{action}");
    }
    load.end().await;
    serve.shutdown().await
}

/// The endpoint behind `/e`.
fn yaml_endpoint(name: &str, more: &str) -> greenroom::EndpointDecl {
    let text = format!(
        "backends: [{{ name: a, registered: one }}, {{ name: b, registered: two }}, {{ name: c, registered: one }}]\n\
         endpoints: [{{ name: {name}, route: /{name}, {more} }}]"
    );
    yaml(&text).endpoints.remove(0)
}

#[actix_web::test]
async fn a_step_that_fails_under_load_and_all_that_is_taken_back_fails_no_call() -> Result<(), ServeError> {
    let (serve, address) = listening(2).await;
    register(&serve);
    deploy(&serve, first()).await?;
    let load = Load::on(&serve, address, &["/e"]);
    for n in 1..=5 {
        let broken = changed(|config| {
            config.backends[0].config = BackendConfig::default().num_replicas(1 + n % 3).version("2");
            let more = "backends: [{ name: x, registered: two }, { name: y, registered: broken }]";
            config.backends.extend(yaml(more).backends);
            config.endpoints[0] = yaml_endpoint("e", "backend: b");
        });
        assert_eq!(deploy(&serve, broken).await.unwrap_err().code(), "deploy_failed");
        assert_eq!(serve.plan(&first())?, Plan::default());
    }
    load.end().await;
    serve.shutdown().await
}

#[actix_web::test]
async fn endpoints_that_take_over_each_other_s_routes_are_never_missing() -> Result<(), ServeError> {
    let (serve, address) = listening(2).await;
    register(&serve);
    let straight = changed(|config| config.endpoints.push(yaml_endpoint("f", "backend: b")));
    let mut crossed = straight.clone();
    let (e, f) = (straight.endpoints[0].route.clone(), straight.endpoints[1].route.clone());
    (crossed.endpoints[0].route, crossed.endpoints[1].route) = (f, e);
    deploy(&serve, straight.clone()).await?;
    let load = Load::on(&serve, address, &["/e", "/f"]);
    let mut client = Client::connect(address).await;
    for n in 0..40 {
        let (config, answers) = if n % 2 == 0 { (&crossed, [2, 1]) } else { (&straight, [1, 2]) };
        let plan = deploy(&serve, config.clone()).await?.plan;
        assert_eq!(told(&plan), [(PlanAction::Replace, "e"), (PlanAction::Replace, "f")]);
        for (path, number) in ["/e", "/f"].into_iter().zip(answers) {
            client.request("GET", path, &[], "").await;
            assert_eq!(client.answer().await.json(), number);
        }
    }
    load.end().await;
    serve.shutdown().await
}
