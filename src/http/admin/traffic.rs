//! `traffic` and `shadow`: where an endpoint's requests go, and who gets copies of them.

use super::{
    answer::{Answered, changed},
    ask::Ask,
    endpoints::find,
};
use crate::{
    config::{EndpointDecl, ServeConfig},
    traffic::ShadowRule,
};

pub(super) async fn put(mut ask: Ask) -> Answered {
    ask.query.finish()?;
    let name = ask.endpoint_name()?;
    let mut config = ask.serve.config();
    find(&mut config, &name)?;
    let policy = EndpointDecl::traffic_from_json(ask.json()?, &config.backends)?;
    let weights: Vec<_> = policy.iter().map(|(backend, weight)| (backend.clone(), weight)).collect();
    find(&mut config, &name)?.traffic = policy;
    let plan = ask.serve.plan(&config)?;
    ask.serve.set_traffic(&name, weights).await?;
    Ok(changed(&plan.steps))
}

pub(super) async fn put_shadow(mut ask: Ask) -> Answered {
    ask.query.finish()?;
    let backend = ask.shadow_name()?;
    let mut config = ask.serve.config();
    find(&mut config, &ask.endpoint_name()?)?;
    let rule = EndpointDecl::shadow_from_json(&backend, ask.json()?, &config.backends)?;
    set(ask, config, rule).await
}

pub(super) async fn delete_shadow(mut ask: Ask) -> Answered {
    ask.query.finish()?;
    let backend = ask.shadow_name()?;
    let mut config = ask.serve.config();
    let endpoint = find(&mut config, &ask.endpoint_name()?)?;
    if endpoint.shadow.iter().all(|rule| *rule.backend() != backend) {
        return Ok(changed(&[]));
    }
    set(ask, config, ShadowRule::new(&backend, 0.0)?).await
}

/// Puts the rule in the place of the one that was; one of 0 takes it away.
async fn set(ask: Ask, mut config: ServeConfig, rule: ShadowRule) -> Answered {
    let name = ask.endpoint_name()?;
    let endpoint = find(&mut config, &name)?;
    endpoint.shadow.retain(|known| known.backend() != rule.backend());
    if rule.proportion() > 0.0 {
        endpoint.shadow.push(rule.clone());
    }
    let plan = ask.serve.plan(&config)?;
    ask.serve.set_shadow(&name, rule).await?;
    Ok(changed(&plan.steps))
}
