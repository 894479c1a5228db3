//! How far a deploy is, a line whenever that changes.

use std::{convert::Infallible, time::Duration};

use greenroom::Serve;

use super::tell;

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Tells what the deploy under way waits for, for as long as it is polled.
pub(super) async fn told(serve: &Serve) -> Infallible {
    let mut last = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let waits_for = serve.progress().and_then(|progress| progress.waits_for);
        let waits_for = waits_for.filter(|line| line.contains(" replicas "));
        if waits_for != last {
            waits_for.iter().for_each(|line| tell(line));
            last = waits_for;
        }
    }
}
