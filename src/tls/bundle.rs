//! The CA in the webhook's registration.

use data_encoding::BASE64;
use kube::Client;
use serde::Deserialize;
use serde_json::json;

use crate::client::call::{self, CallError, Patch};
use crate::constants::WRITE_TIMEOUT;

/// What [`ensure_ca_bundle`] found or did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BundleOutcome {
    /// Already so.
    Unchanged,
    /// Written.
    Written,
    /// There is no such registration: nobody calls the webhook through it.
    Missing,
    /// Somebody else wrote in between: look again.
    Conflict,
}

#[derive(Deserialize)]
struct Registration {
    metadata: Metadata,
    #[serde(default)]
    webhooks: Vec<Webhook>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Webhook {
    client_config: ClientConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientConfig {
    #[serde(default)]
    ca_bundle: String,
}

/// Makes the MutatingWebhookConfiguration `name` trust `bundle` (PEM), in all its webhooks. Writes that field and
/// nothing else, only where it differs, and only if nobody has changed the object since it was read. For the leader.
/// A registration that is missing is no error: run by hand, there may be none.
pub async fn ensure_ca_bundle(client: &Client, name: &str, bundle: &str) -> Result<BundleOutcome, CallError> {
    let Some(found) = read(client, name).await? else { return Ok(BundleOutcome::Missing) };
    let wanted = BASE64.encode(bundle.as_bytes());
    let version = found.metadata.resource_version;
    let mut operations = vec![json!({"op": "test", "path": "/metadata/resourceVersion", "value": version})];
    for (index, webhook) in found.webhooks.iter().enumerate() {
        if webhook.client_config.ca_bundle != wanted {
            let path = format!("/webhooks/{index}/clientConfig/caBundle");
            operations.push(json!({"op": "add", "path": path, "value": wanted}));
        }
    }
    if operations.len() == 1 {
        return Ok(BundleOutcome::Unchanged);
    }
    let body = json!(operations).to_string().into_bytes();
    match call::whole(client, call::patch(&path(name), Patch::Json, body), WRITE_TIMEOUT).await {
        Ok(_) => Ok(BundleOutcome::Written),
        // 422 without fields is how the API server says that a test did not hold
        Err(CallError::Status(status))
            if status.code == 409 || (status.code == 422 && !status.names_fields()) =>
        {
            Ok(BundleOutcome::Conflict)
        }
        Err(error) => Err(error),
    }
}

/// `caBundle` of each webhook of the MutatingWebhookConfiguration `name`, as it is there; `None` where it is missing.
pub(super) async fn registered(client: &Client, name: &str) -> Result<Option<Vec<String>>, CallError> {
    let found = read(client, name).await?;
    Ok(found.map(|found| found.webhooks.into_iter().map(|w| w.client_config.ca_bundle).collect()))
}

async fn read(client: &Client, name: &str) -> Result<Option<Registration>, CallError> {
    match call::whole(client, call::get(&path(name)), WRITE_TIMEOUT).await {
        Ok(found) => serde_json::from_slice(&found)
            .map(Some)
            .map_err(|e| CallError::Transport(format!("{name}: not a MutatingWebhookConfiguration: {e}"))),
        Err(error) if error.code() == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

fn path(name: &str) -> String {
    format!("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake::Fake;

    fn registration(bundle: &str) -> serde_json::Value {
        json!({"metadata": {"resourceVersion": "7"}, "webhooks": [
            {"name": "a", "clientConfig": {"caBundle": bundle}}, {"name": "b", "clientConfig": {"url": "https://x"}},
        ]})
    }

    async fn ensure(answers: impl AsyncFnOnce(Fake)) -> Result<BundleOutcome, CallError> {
        let (client, server) = Fake::new();
        tokio::join!(ensure_ca_bundle(&client, "w", "PEM"), answers(server)).0
    }

    #[tokio::test]
    async fn only_differing_bundles_are_written_and_only_to_the_version_that_was_read() {
        let outcome = ensure(async |mut server| {
            server.next().await.ok(&registration("UEVN"));
            let write = server.next().await;
            assert_eq!(
                (write.method.as_str(), write.content.as_str()),
                ("PATCH", "application/json-patch+json")
            );
            assert_eq!(
                write.body,
                json!([
                    {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
                    {"op": "add", "path": "/webhooks/1/clientConfig/caBundle", "value": "UEVN"},
                ])
            );
            write.ok(&json!({}));
        });
        assert_eq!(outcome.await, Ok(BundleOutcome::Written));
    }

    #[tokio::test]
    async fn a_bundle_in_place_costs_no_write() {
        let outcome = ensure(async |mut server| {
            let mut registered = registration("UEVN");
            registered["webhooks"][1]["clientConfig"]["caBundle"] = json!("UEVN");
            server.next().await.ok(&registered);
            assert!(server.is_idle());
        });
        assert_eq!(outcome.await, Ok(BundleOutcome::Unchanged));
    }

    #[tokio::test]
    async fn a_missing_registration_and_a_conflict_are_no_errors() {
        let missing = ensure(async |mut server| server.next().await.fail(404, "NotFound"));
        assert_eq!(missing.await, Ok(BundleOutcome::Missing));
        for code in [409, 422] {
            let conflict = ensure(async |mut server| {
                server.next().await.ok(&registration("x"));
                server.next().await.fail(code, "Conflict");
            });
            assert_eq!(conflict.await, Ok(BundleOutcome::Conflict));
        }
    }
}
