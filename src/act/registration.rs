//! Keeps the webhook's registration trusting our CA. Only the leader, and only where the CA is ours.

use std::time::Duration;

use external_ip_core::names;
use kube::Client;
use tokio_util::sync::CancellationToken;

use super::lease::{Leadership, Role};
use crate::tls::Trusted;
use crate::tls::authority::{BundleOutcome, ensure_ca_bundle};

/// Between two looks though nothing has changed here: somebody may have applied the registration anew, without the
/// bundle. Until then new pods are not stamped but adopted, so a minute is soon enough.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// After a failure or a conflict.
const RETRY: Duration = Duration::from_secs(2);

/// Writes `caBundle` whenever it is not `ca`. Ends at `stop`.
pub async fn keep_ca_bundle(
    client: Client,
    leadership: Leadership,
    mut ca: Trusted,
    stop: CancellationToken,
) {
    let mut role = leadership.changes();
    loop {
        let leading =
            matches!(*role.borrow_and_update(), Role::Leading { .. }) && leadership.is_leading_now();
        let bundle = ca.borrow_and_update().clone();
        let pause = match bundle {
            Some(bundle) if leading => look(&client, &bundle).await,
            _ => LOOK_AGAIN,
        };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = role.changed() => if changed.is_err() { return },
            changed = ca.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn look(client: &Client, bundle: &str) -> Duration {
    match ensure_ca_bundle(client, names::CONTROLLER_NAME, bundle).await {
        Ok(BundleOutcome::Written) => {
            tracing::info!("the webhook's registration trusts our CA");
            LOOK_AGAIN
        }
        Ok(BundleOutcome::Unchanged | BundleOutcome::Missing) => LOOK_AGAIN,
        Ok(BundleOutcome::Conflict) => RETRY,
        Err(error) => {
            tracing::warn!("caBundle of the webhook's registration: {error}");
            RETRY
        }
    }
}
