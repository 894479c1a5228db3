//! `traffic` and `shadow`: where an endpoint's requests go, and who gets copies of them.

use super::{
    answer::{Answered, changed},
    ask::Ask,
    endpoints::find,
};
use crate::{
    config::{EndpointDecl, ServeConfig},
    serve::steps,
    traffic::ShadowRule,
};

pub(super) async fn put(mut ask: Ask) -> Answered {
    ask.query.finish()?;
    let name = ask.endpoint_name()?;
    let now = ask.serve.config();
    let mut wanted = now.clone();
    let endpoint = find(&mut wanted, &name)?;
    endpoint.traffic = EndpointDecl::traffic_from_json(ask.json()?, &now.backends)?;
    let weights: Vec<_> =
        endpoint.traffic.iter().map(|(backend, weight)| (backend.clone(), weight)).collect();
    ask.serve.set_traffic(&name, weights).await?;
    Ok(changed(&steps(&now, &wanted)))
}

pub(super) async fn put_shadow(mut ask: Ask) -> Answered {
    ask.query.finish()?;
    let backend = ask.shadow_name()?;
    let mut now = ask.serve.config();
    find(&mut now, &ask.endpoint_name()?)?;
    let rule = EndpointDecl::shadow_from_json(&backend, ask.json()?, &now.backends)?;
    set(ask, now, rule).await
}

pub(super) async fn delete_shadow(mut ask: Ask) -> Answered {
    ask.query.finish()?;
    let backend = ask.shadow_name()?;
    let mut now = ask.serve.config();
    let endpoint = find(&mut now, &ask.endpoint_name()?)?;
    if endpoint.shadow.iter().all(|rule| *rule.backend() != backend) {
        return Ok(changed(&[]));
    }
    set(ask, now, ShadowRule::new(&backend, 0.0)?).await
}

/// Puts the rule in the place of the one that was; one of 0 takes it away.
async fn set(ask: Ask, now: ServeConfig, rule: ShadowRule) -> Answered {
    let name = ask.endpoint_name()?;
    let mut wanted = now.clone();
    let endpoint = find(&mut wanted, &name)?;
    endpoint.shadow.retain(|known| known.backend() != rule.backend());
    if rule.proportion() > 0.0 {
        endpoint.shadow.push(rule.clone());
    }
    ask.serve.set_shadow(&name, rule).await?;
    Ok(changed(&steps(&now, &wanted)))
}
