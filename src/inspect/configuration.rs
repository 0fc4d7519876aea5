//! The configuration in force: the file named, else the one the installation's Deployment mounts.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use external_ip_core::names::CONTROLLER_NAME;
use external_ip_core::settings::{self, Settings};
use kube::Client;
use serde::Deserialize;

use super::note;
use crate::cli::Source;
use crate::client::call::{self, CallError};
use crate::constants::WRITE_TIMEOUT;

/// Settings to answer with.
pub(super) struct Configuration {
    pub(super) settings: Settings,
}

/// Reads it. Where it cannot be read the defaults are assumed, and the caller is told: a team may ask about its own pods
/// without a right to the controller's namespace.
pub(super) async fn read(client: &Client, source: &Source) -> Result<Configuration> {
    if let Some(file) = &source.config {
        return from_file(file);
    }
    match installed(client, &source.controller_namespace).await {
        Ok(text) => parsed(&text, "the installation's configuration"),
        Err(error) => {
            note(&format!(
                "the configuration could not be read ({error}): the defaults are assumed; name it with --config FILE"
            ));
            Ok(Configuration { settings: Settings::default() })
        }
    }
}

/// Of a file.
pub(super) fn from_file(file: &std::path::Path) -> Result<Configuration> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| name.clone())?;
    parsed(&text, &name)
}

fn parsed(text: &str, name: &str) -> Result<Configuration> {
    let parsed = settings::parse(text).map_err(|error| anyhow!("{name}: {error}"))?;
    Ok(Configuration { settings: parsed.settings })
}

async fn installed(client: &Client, namespace: &str) -> Result<String, CallError> {
    let deployment: Deployment =
        object(client, &format!("/apis/apps/v1/namespaces/{namespace}/deployments/{CONTROLLER_NAME}"))
            .await?;
    let maps = deployment.spec.template.spec.volumes.into_iter().filter_map(|volume| volume.config_map);
    for map in maps {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps/{}", map.name);
        let mut found: ConfigMap = object(client, &path).await?;
        if let Some(text) = found.data.remove("config.yaml") {
            return Ok(text);
        }
    }
    Err(CallError::Transport(format!("Deployment {namespace}/{CONTROLLER_NAME} mounts no config.yaml")))
}

/// One object of the API server.
pub(super) async fn object<T: serde::de::DeserializeOwned>(
    client: &Client,
    path: &str,
) -> Result<T, CallError> {
    let bytes = call::whole(client, call::get(path), WRITE_TIMEOUT).await?;
    serde_json::from_slice(&bytes).map_err(|error| CallError::Transport(format!("{path}: {error}")))
}

#[derive(Deserialize)]
struct Deployment {
    spec: DeploymentSpec,
}

#[derive(Deserialize)]
struct DeploymentSpec {
    template: Template,
}

#[derive(Deserialize)]
struct Template {
    spec: PodSpec,
}

#[derive(Deserialize)]
struct PodSpec {
    #[serde(default)]
    volumes: Vec<Volume>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume {
    config_map: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct ConfigMap {
    #[serde(default)]
    data: BTreeMap<String, String>,
}
