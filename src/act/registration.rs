//! Keeps the webhook's registration trusting our CA. Only the leader, and only where the CA is ours.

use std::time::Duration;

use external_ip_core::names;
use kube::Client;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::lease::{Leadership, Role};
use crate::constants::{REGISTRATION_POLL, REGISTRATION_REMINDER, REGISTRATION_RETRY};
use crate::tls::Trusted;
use crate::tls::authority::{BundleOutcome, ensure_ca_bundle};

/// Writes `caBundle` whenever it is not `ca`. Ends at `stop`.
pub async fn keep_ca_bundle(
    client: Client,
    leadership: Leadership,
    mut ca: Trusted,
    stop: CancellationToken,
) {
    let (mut role, mut missing) = (leadership.changes(), Missing::default());
    loop {
        let leading =
            matches!(*role.borrow_and_update(), Role::Leading { .. }) && leadership.is_leading_now();
        let bundle = ca.borrow_and_update().clone();
        let pause = match bundle {
            Some(bundle) if leading => look(&client, &bundle, &mut missing).await,
            _ => REGISTRATION_POLL,
        };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = role.changed() => if changed.is_err() { return },
            changed = ca.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn look(client: &Client, bundle: &str, missing: &mut Missing) -> Duration {
    let outcome = ensure_ca_bundle(client, names::CONTROLLER_NAME, bundle).await;
    if let Ok(outcome) = &outcome {
        missing.tell(*outcome, Instant::now());
    }
    match outcome {
        Ok(BundleOutcome::Written) => {
            tracing::info!("the webhook's registration trusts our CA");
            REGISTRATION_POLL
        }
        Ok(BundleOutcome::Unchanged | BundleOutcome::Missing) => REGISTRATION_POLL,
        Ok(BundleOutcome::Conflict) => REGISTRATION_RETRY,
        Err(error) => {
            tracing::warn!("caBundle of the webhook's registration: {error}");
            REGISTRATION_RETRY
        }
    }
}

/// When it was last told that there is no registration.
#[derive(Default)]
struct Missing(Option<Instant>);

/// What the log says of a registration that comes and goes.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Missing,
    Back,
}

impl Missing {
    /// Tells at once, then now and then, and when it is back: run by hand there may be none for long.
    fn tell(&mut self, outcome: BundleOutcome, now: Instant) -> Option<Told> {
        let name = names::CONTROLLER_NAME;
        match (outcome, self.0) {
            (BundleOutcome::Missing, Some(told)) if now - told < REGISTRATION_REMINDER => None,
            (BundleOutcome::Missing, _) => {
                tracing::warn!(
                    "MutatingWebhookConfiguration {name} does not exist, so new pods are not stamped but adopted \
                     afterwards: apply the manifests, or register the webhook by URL with the CA of /ca.pem"
                );
                self.0 = Some(now);
                Some(Told::Missing)
            }
            (_, Some(_)) => {
                tracing::info!("MutatingWebhookConfiguration {name} is there: new pods are stamped");
                self.0 = None;
                Some(Told::Back)
            }
            (_, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_registration_is_told_once_then_every_hour_and_when_it_is_back() {
        let (begun, mut missing) = (Instant::now(), Missing::default());
        let told: Vec<_> = (0..150)
            .filter_map(|minute| {
                let outcome = if minute < 130 { BundleOutcome::Missing } else { BundleOutcome::Unchanged };
                missing.tell(outcome, begun + minute * REGISTRATION_POLL).map(|told| (minute, told))
            })
            .collect();
        assert_eq!(told, [(0, Told::Missing), (60, Told::Missing), (120, Told::Missing), (130, Told::Back)]);
        let gone = missing.tell(BundleOutcome::Missing, begun + 151 * REGISTRATION_POLL);
        assert_eq!(gone, Some(Told::Missing), "gone again is news");
    }
}
