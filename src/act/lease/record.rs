//! What stands in a Lease, and how it is read and written.

use std::fmt;
use std::time::Duration;

use external_ip_core::names::CONTROLLER_NAME;
use kube::Client;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::CALL_TIMEOUT;
use crate::client::call::{self, CallError, Patch};
use crate::constants::LEASE_DURATION;

/// `spec` of a Lease. Empty in the one that ships with the manifests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Record {
    #[serde(rename = "holderIdentity")]
    pub(super) holder: String,
    lease_duration_seconds: u32,
    acquire_time: Option<String>,
    renew_time: Option<String>,
    lease_transitions: u32,
}

impl Record {
    /// How long it counts after it was last seen to change.
    pub(super) fn duration(&self) -> Duration {
        Duration::from_secs(self.lease_duration_seconds.into())
    }

    /// The record with which `identity` holds the Lease from now on.
    pub(super) fn taken_by(&self, identity: &str) -> Self {
        let now = micro_time();
        let renewal = self.holder == identity;
        Self {
            holder: identity.to_owned(),
            lease_duration_seconds: u32::try_from(LEASE_DURATION.as_secs()).unwrap_or(u32::MAX),
            acquire_time: if renewal { self.acquire_time.clone() } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: self.lease_transitions.saturating_add(u32::from(!renewal)),
        }
    }

    /// The record that lets anybody take the Lease at once.
    pub(super) fn released(&self) -> Self {
        Self {
            holder: String::new(),
            lease_duration_seconds: 1,
            renew_time: Some(micro_time()),
            ..self.clone()
        }
    }
}

/// The API's `MicroTime`.
fn micro_time() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}

/// A record and since when it has stood unchanged, as far as this process has seen.
#[derive(Debug)]
pub(super) struct Observed {
    pub(super) version: String,
    pub(super) record: Record,
    pub(super) since: Instant,
}

impl Observed {
    /// Whether somebody else holds the Lease and may still be alive.
    pub(super) fn is_held_by_another(&self, identity: &str, now: Instant) -> bool {
        !self.record.holder.is_empty()
            && self.record.holder != identity
            && self.since + self.record.duration() > now
    }
}

/// One Lease at the API server.
pub(super) struct Store {
    client: Client,
    namespace: String,
}

#[derive(Deserialize)]
struct Lease {
    metadata: Metadata,
    #[serde(default)]
    spec: Record,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
}

impl Store {
    pub(super) fn new(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned() }
    }

    fn collection(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.namespace)
    }

    fn path(&self) -> String {
        format!("{}/{CONTROLLER_NAME}", self.collection())
    }

    /// Version and record; `None` where there is no such Lease.
    pub(super) async fn read(&self) -> Result<Option<(String, Record)>, CallError> {
        match call::whole(&self.client, call::get(&self.path()), CALL_TIMEOUT).await {
            Ok(bytes) => parse(&bytes).map(Some),
            Err(error) if error.code() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes over the version that was read, or makes the Lease where there was none.
    pub(super) async fn write(
        &self,
        version: Option<&str>,
        record: &Record,
    ) -> Result<(String, Record), CallError> {
        let request = match version {
            Some(version) => {
                let body = json!({"metadata": {"resourceVersion": version}, "spec": record});
                call::patch(&self.path(), Patch::Merge, body.to_string().into())
            }
            None => call::create(&self.collection(), self.manifest(record).to_string().into()),
        };
        parse(&call::whole(&self.client, request, CALL_TIMEOUT).await?)
    }

    fn manifest(&self, record: &Record) -> Value {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"namespace": self.namespace, "name": CONTROLLER_NAME}, "spec": record,
        })
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{CONTROLLER_NAME}", self.namespace)
    }
}

fn parse(bytes: &[u8]) -> Result<(String, Record), CallError> {
    let lease: Lease = serde_json::from_slice(bytes)
        .map_err(|error| CallError::Transport(format!("the Lease cannot be read: {error}")))?;
    Ok((lease.metadata.resource_version, lease.spec))
}
