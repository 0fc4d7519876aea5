//! Hands mapping servers that run on their own a leaf of our CA. Only the leader, and only where the CA is ours.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio_util::sync::CancellationToken;

use super::lease::{Leadership, Role};
use crate::constants::{REGISTRATION_POLL, REGISTRATION_RETRY};
use crate::metrics::wall_clock;
use crate::tls::authority::Authority;
use crate::tls::handover::hand_over;
use crate::tls::leaf::SelfManaged;

/// Keeps a leaf in the Secret of mapping servers that run on their own. Ends at `stop`.
pub async fn keep_mapping_leaf(
    client: Client,
    namespace: String,
    leadership: Leadership,
    own: Arc<SelfManaged>,
    stop: CancellationToken,
) {
    let (mut role, mut names, mut trusted) = (leadership.changes(), own.names_changes(), own.trusted());
    loop {
        let leading =
            matches!(*role.borrow_and_update(), Role::Leading { .. }) && leadership.is_leading_now();
        names.mark_unchanged();
        trusted.mark_unchanged();
        let signing = own.authority().filter(|_| leading);
        let pause = match signing {
            Some(authority) => offer(&client, &namespace, &authority, &own.names()).await,
            None => REGISTRATION_POLL,
        };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = role.changed() => if changed.is_err() { return },
            changed = trusted.changed() => if changed.is_err() { return },
            changed = names.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn offer(
    client: &Client,
    namespace: &str,
    authority: &Authority,
    names: &BTreeSet<String>,
) -> Duration {
    let now = i64::try_from(wall_clock().as_secs()).unwrap_or(i64::MAX);
    match hand_over(client, namespace, authority, names, now).await {
        Ok(written) => {
            if written {
                tracing::info!(names = names.len(), "handed a new certificate to the mapping servers");
            }
            REGISTRATION_POLL
        }
        Err(error) => {
            tracing::warn!("certificate of the mapping servers: {error}");
            REGISTRATION_RETRY
        }
    }
}
