//! The example of deploying does what it says.

#![allow(dead_code, reason = "the example's own `main` is not called here")]

use greenroom::{ServeError, testing::Stage};

#[path = "../../examples/deploy.rs"]
mod deploy;

#[actix_web::test]
async fn a_change_is_planned_deployed_and_rolled_back() -> Result<(), ServeError> {
    let stage = Stage::new().await?;
    let serve = stage.serve();
    deploy::register(serve)?;
    assert_eq!(deploy::deploy(serve, deploy::FIRST).await?.id, 1);
    let table = "\
scale        backend   greeter       num_replicas: 2 -> 3
create       backend   greeter-next  not there yet
set_traffic  endpoint  greet         traffic: {\"greeter\":1.0} -> {\"greeter\":0.9,\"greeter-next\":0.1}";
    assert_eq!(deploy::plan(serve, deploy::SECOND)?, table);
    assert_eq!(deploy::deploy(serve, deploy::SECOND).await?.id, 2);
    assert_eq!(deploy::plan(serve, deploy::SECOND)?, "nothing to change");
    serve.set_traffic("greet", [("greeter-next", 1.0)]).await?;
    let greet = serve.handle::<deploy::Greet>("greet")?;
    assert_eq!(greet.call(deploy::Greet { name: "Ada".into() }).await?, "Good day, Ada");
    assert_eq!(deploy::roll_back(serve).await?.id, 3);
    assert_eq!(greet.call(deploy::Greet { name: "Ada".into() }).await?, "Hello, Ada");
    assert_eq!(serve.list_backends().len(), 1);
    stage.end().await
}
