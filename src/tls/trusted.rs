//! Whether those who verify our certificates know a CA, as the API server has it.

use data_encoding::BASE64;
use external_ip_core::names::{CONTROLLER_NAME, MANAGED_BY_LABEL, OWNER_ANNOTATION};
use kube::Client;
use rustls::pki_types::CertificateDer;
use serde::Deserialize;

use super::authority::{CONFIG_MAP_KEY, read_certificates};
use super::bundle;
use crate::client::call::{self, CallError};
use crate::constants::WRITE_TIMEOUT;

/// ConfigMaps read at once: at most as many MiB of memory.
const PAGE: usize = 20;

/// Who verifies our leafs by a bundle that we write.
#[derive(Debug, Clone, Default)]
pub struct Verifiers {
    /// The API server, by the webhook's registration.
    pub registration: bool,
    /// Readers of the map, by the ConfigMaps of this installation.
    pub config_maps: Option<String>,
}

#[derive(Deserialize)]
struct List {
    metadata: Page,
    items: Vec<ConfigMap>,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default, rename = "continue")]
    next: String,
}

#[derive(Deserialize)]
struct ConfigMap {
    metadata: Metadata,
    #[serde(default)]
    data: Data,
}

#[derive(Deserialize)]
struct Metadata {
    namespace: String,
    name: String,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
struct Data {
    #[serde(rename = "ca.crt")]
    ca: Option<String>,
}

impl Verifiers {
    /// The first object that should hold `certificate` and does not; `None` where all do.
    pub(super) async fn first_without(
        &self,
        client: &Client,
        certificate: &CertificateDer<'_>,
    ) -> Result<Option<String>, CallError> {
        if self.registration {
            for bundle in bundle::registered(client, CONTROLLER_NAME).await?.unwrap_or_default() {
                let pem = BASE64.decode(bundle.as_bytes()).ok().and_then(|b| String::from_utf8(b).ok());
                if !pem.is_some_and(|pem| knows(&pem, certificate)) {
                    return Ok(Some(format!("MutatingWebhookConfiguration {CONTROLLER_NAME}")));
                }
            }
        }
        match &self.config_maps {
            Some(installation) => config_map_without(client, installation, certificate).await,
            None => Ok(None),
        }
    }
}

async fn config_map_without(
    client: &Client,
    installation: &str,
    certificate: &CertificateDer<'_>,
) -> Result<Option<String>, CallError> {
    let all = format!("/api/v1/configmaps?labelSelector={MANAGED_BY_LABEL}%3D{CONTROLLER_NAME}&limit={PAGE}");
    let mut next = String::new();
    loop {
        let path = if next.is_empty() { all.clone() } else { format!("{all}&continue={next}") };
        let page = call::whole(client, call::get(&path), WRITE_TIMEOUT).await?;
        let page: List = serde_json::from_slice(&page)
            .map_err(|e| CallError::Transport(format!("not a list of ConfigMaps: {e}")))?;
        for ConfigMap { metadata, data } in page.items {
            let ours = metadata.annotations.get(OWNER_ANNOTATION).is_some_and(|o| o == installation);
            if ours && data.ca.is_some_and(|pem| !knows(&pem, certificate)) {
                let Metadata { namespace, name, .. } = metadata;
                return Ok(Some(format!("{CONFIG_MAP_KEY} of ConfigMap {namespace}/{name}")));
            }
        }
        if page.metadata.next.is_empty() {
            return Ok(None);
        }
        next = page.metadata.next;
    }
}

fn knows(pem: &str, certificate: &CertificateDer<'_>) -> bool {
    read_certificates(pem).is_ok_and(|known| known.contains(certificate))
}

#[cfg(test)]
mod tests;
