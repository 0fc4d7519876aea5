//! `cleanup`: takes away everything an installation has made, as the first step of uninstalling it.
//!
//! What is ours carries our label and the installation's name; nothing else is touched. Refused while a controller is
//! alive, which would make it all again, unless it leaves the namespace alone anyway. Labels and annotations on pods
//! stay: they go with the pods.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use external_ip_core::action::Action;
use external_ip_core::names::{
    ADDRESS_GATE, CONTROLLER_NAME, ENABLED_LABEL, MANAGED_BY_LABEL, POD_ID_LABEL, ROUTED_CONDITION,
};
use external_ip_core::objects::{self, Namespace, Readiness};
use futures::StreamExt;
use kube::Client;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::act::lease;
use crate::cli;
use crate::client::call::{self, CallError, Patch};
use crate::constants::{CLEANUP_PATIENCE, WRITE_TIMEOUT};
use crate::watch::{Selection, list};

/// Deletions at once.
const IN_FLIGHT: usize = 8;
/// How often what changed under a deletion is looked at again.
const ROUNDS: u32 = 3;
const LOOK: Duration = Duration::from_secs(1);

/// Carries it out and tells the progress on standard output.
///
/// # Errors
/// A controller is alive, the API server does not answer or refuses, or something is left: the message says which.
pub async fn run(client: &Client, args: &cli::Cleanup) -> Result<()> {
    let cleanup = Cleanup { client, args };
    if !args.dry_run {
        cleanup.refuse_while_alive().await?;
    }
    cleanup.lift_gates().await?;
    cleanup.let_be_ready().await?;
    for kind in [Kind::Service, Kind::ConfigMap] {
        cleanup.delete_all(kind).await?;
    }
    if args.dry_run {
        println!("nothing was changed (--dry-run)");
        return Ok(());
    }
    cleanup.wait_until_gone().await?;
    println!("nothing of the installation '{}' is left", args.installation);
    Ok(())
}

struct Cleanup<'a> {
    client: &'a Client,
    args: &'a cli::Cleanup,
}

#[derive(Clone, Copy)]
enum Kind {
    Service,
    ConfigMap,
}

impl Kind {
    fn plural(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::ConfigMap => "configmaps",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Service => "Service",
            Self::ConfigMap => "ConfigMap",
        })
    }
}

impl Cleanup<'_> {
    async fn refuse_while_alive(&self) -> Result<()> {
        let args = self.args;
        if args.force {
            return Ok(());
        }
        if let Some(namespace) = &args.namespace
            && !self.is_enabled(namespace).await?
        {
            return Ok(()); // a running controller makes nothing there
        }
        let home = &args.controller_namespace;
        println!("looking whether a controller is alive (Lease {home}/{CONTROLLER_NAME})");
        let holder = lease::living_holder(self.client, home).await.with_context(|| {
            format!("reading the Lease {home}/{CONTROLLER_NAME}; --force goes on without")
        })?;
        if let Some(holder) = holder {
            let elsewise = args.namespace.as_ref().map_or(String::new(), |namespace| {
                format!(", or take the namespace out: kubectl label namespace {namespace} {ENABLED_LABEL}-")
            });
            bail!(
                "a controller is alive ({holder}) and would make it all again. Stop it first: kubectl -n {home} \
                 scale deployment/{CONTROLLER_NAME} --replicas=0{elsewise} (--force goes on all the same)"
            );
        }
        Ok(())
    }

    async fn is_enabled(&self, namespace: &str) -> Result<bool> {
        let selection = Selection {
            path: "/api/v1/namespaces".to_owned(),
            labels: None,
            fields: Some(format!("metadata.name={namespace}")),
        };
        let found: Vec<Namespace> = list(self.client, &selection).await.context("reading the namespace")?;
        Ok(found.iter().any(|n| n.enabled))
    }

    fn selection(&self, plural: &str, labels: String) -> Selection {
        let path = match &self.args.namespace {
            Some(namespace) => format!("/api/v1/namespaces/{namespace}/{plural}"),
            None => format!("/api/v1/{plural}"),
        };
        Selection { path, labels: Some(labels), fields: None }
    }

    /// Pods that wait for an address start without one.
    async fn lift_gates(&self) -> Result<()> {
        let pods: Vec<Pod> = list(self.client, &self.selection("pods", POD_ID_LABEL.to_owned()))
            .await
            .context("listing pods")?;
        for pod in pods {
            let Some(index) = pod.spec.scheduling_gates.iter().position(|gate| gate.name == ADDRESS_GATE)
            else {
                continue;
            };
            let Meta { namespace, name, uid, .. } = &pod.metadata;
            if self.args.dry_run {
                println!("would lift the gate of Pod {namespace}/{name}");
                continue;
            }
            // other gates stay, also if the list changes meanwhile
            let gate = format!("/spec/schedulingGates/{index}");
            let lift = json!([
                {"op": "test", "path": "/metadata/uid", "value": uid},
                {"op": "test", "path": format!("{gate}/name"), "value": ADDRESS_GATE},
                {"op": "remove", "path": gate},
            ]);
            let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
            let request = call::patch(&path, Patch::Json, lift.to_string().into());
            match call::whole(self.client, request, WRITE_TIMEOUT).await {
                Ok(_) => println!("lifted the gate of Pod {namespace}/{name}"),
                Err(error) if error.code() == Some(404) => {}
                Err(error) => bail!("lifting the gate of Pod {namespace}/{name}: {error}"),
            }
        }
        Ok(())
    }

    /// Pods that are held back by our readiness gate alone become ready without an address.
    async fn let_be_ready(&self) -> Result<()> {
        let selection = self.selection("pods", POD_ID_LABEL.to_owned());
        let pods: Vec<objects::Pod> = list(self.client, &selection).await.context("listing pods")?;
        for pod in pods {
            let place = match pod.readiness {
                Some(Readiness::Missing) => None,
                Some(Readiness::Unmet(place)) => Some(place),
                Some(Readiness::NotBegun | Readiness::Met) | None => continue,
            };
            let (key, at) = (pod.key.clone(), jiff::Timestamp::now().as_second());
            if self.args.dry_run {
                println!("would let Pod {key} be ready without its address");
                continue;
            }
            let (reason, message) = ("Uninstalled", "its address is not waited for any more".to_owned());
            let mark = Action::MarkRouted { key: pod.key, uid: pod.uid, place, reason, message, at };
            let path = format!("/api/v1/namespaces/{}/pods/{}/status", key.namespace, key.name);
            let request = call::patch(&path, Patch::Json, mark.body().to_string().into());
            match call::whole(self.client, request, WRITE_TIMEOUT).await {
                Ok(_) => println!("let Pod {key} be ready without its address"),
                Err(error) if error.code() == Some(404) => {}
                Err(error) => bail!("setting the condition {ROUTED_CONDITION} of Pod {key}: {error}"),
            }
        }
        Ok(())
    }

    /// Objects of the installation that are there, and how many carry our label and another's name.
    async fn ours(&self, kind: Kind) -> Result<(Vec<Meta>, usize)> {
        let selection = self.selection(kind.plural(), format!("{MANAGED_BY_LABEL}={CONTROLLER_NAME}"));
        let all: Vec<Object> =
            list(self.client, &selection).await.with_context(|| format!("listing {kind}s"))?;
        let (ours, others): (Vec<_>, Vec<_>) = all
            .into_iter()
            .map(|object| object.metadata)
            .partition(|meta| meta.annotations.owner.as_ref() == Some(&self.args.installation));
        Ok((ours, others.len()))
    }

    async fn delete_all(&self, kind: Kind) -> Result<()> {
        for round in 1..=ROUNDS {
            let (mut ours, others) = self.ours(kind).await?;
            ours.retain(|meta| meta.deletion_timestamp.is_none());
            if round == 1 && others > 0 {
                println!("{others} {kind}s of other installations are left alone");
            }
            if self.args.dry_run {
                for meta in &ours {
                    println!("would delete {kind} {}/{}", meta.namespace, meta.name);
                }
                return Ok(());
            }
            let mut deletions =
                futures::stream::iter(&ours).map(|meta| self.delete(kind, meta)).buffer_unordered(IN_FLIGHT);
            let mut changed = false;
            while let Some(deleted) = deletions.next().await {
                changed |= !deleted?;
            }
            if !changed {
                return Ok(());
            }
        }
        Ok(()) // what is left is found at the end
    }

    /// Deletes one object as it was seen; `false` where it has changed since.
    async fn delete(&self, kind: Kind, meta: &Meta) -> Result<bool> {
        let Meta { namespace, name, uid, resource_version, .. } = meta;
        let path = format!("/api/v1/namespaces/{namespace}/{}/{name}", kind.plural());
        let version = resource_version.parse().unwrap_or(0);
        match call::whole(self.client, call::delete(&path, call::preconditions(uid, version)), WRITE_TIMEOUT)
            .await
        {
            Ok(_) => println!("deleted {kind} {namespace}/{name}"),
            Err(error) if error.code() == Some(404) => {}
            Err(error) if error.code() == Some(409) => return Ok(false),
            Err(error) => return Err(explained(error, kind, namespace, name)),
        }
        Ok(true)
    }

    /// Waits for finalizers of others, such as a cloud's load balancer.
    async fn wait_until_gone(&self) -> Result<()> {
        let begun = Instant::now();
        let mut told = false;
        loop {
            let mut left = Vec::new();
            for kind in [Kind::Service, Kind::ConfigMap] {
                let (ours, _) = self.ours(kind).await?;
                left.extend(ours.into_iter().map(|meta| format!("{kind} {}/{}", meta.namespace, meta.name)));
            }
            if left.is_empty() {
                return Ok(());
            }
            if begun.elapsed() >= CLEANUP_PATIENCE {
                bail!(
                    "{} are left after {} s; their finalizers say who has to release them (kubectl get -o yaml): {}",
                    left.len(),
                    CLEANUP_PATIENCE.as_secs(),
                    left.join(", ")
                );
            }
            if !told {
                println!("waiting for {} to be released by their load balancers", left.len());
                told = true;
            }
            sleep(LOOK).await;
        }
    }
}

fn explained(error: CallError, kind: Kind, namespace: &str, name: &str) -> anyhow::Error {
    anyhow::Error::from(error).context(format!("deleting {kind} {namespace}/{name}"))
}

#[derive(Deserialize)]
struct Object {
    metadata: Meta,
}

#[derive(Deserialize)]
struct Pod {
    metadata: Meta,
    #[serde(default)]
    spec: PodSpec,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    scheduling_gates: Vec<Gate>,
}

#[derive(Deserialize)]
struct Gate {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    namespace: String,
    name: String,
    uid: String,
    resource_version: String,
    deletion_timestamp: Option<String>,
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Deserialize, Default)]
struct Annotations {
    #[serde(rename = "external-ip.dev/owner")]
    owner: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake::Fake;

    #[tokio::test(start_paused = true)]
    async fn what_others_do_not_release_ends_the_wait_by_name() {
        let (client, mut server) = Fake::new();
        let args = cli::Cleanup {
            namespace: None,
            dry_run: false,
            installation: "mine".to_owned(),
            controller_namespace: "here".to_owned(),
            force: false,
        };
        let held = json!({"metadata": {
            "namespace": "data", "name": "a-ext-0", "uid": "u", "resourceVersion": "7",
            "annotations": {"external-ip.dev/owner": "mine"},
            "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["service.kubernetes.io/load-balancer-cleanup"],
        }});
        let answers = async {
            loop {
                let request = server.next().await;
                let items = if request.path == "/api/v1/services" { vec![&held] } else { vec![] };
                request.ok(&json!({"metadata": {"resourceVersion": "9"}, "items": items}));
            }
        };
        let cleanup = Cleanup { client: &client, args: &args };
        let begun = Instant::now();
        let error = tokio::select! {
            waited = cleanup.wait_until_gone() => waited.unwrap_err().to_string(),
            () = answers => unreachable!(),
        };
        assert!(begun.elapsed() >= CLEANUP_PATIENCE && begun.elapsed() < CLEANUP_PATIENCE * 2);
        assert!(
            error.starts_with("1 are left after 120 s; their finalizers say who")
                && error.ends_with(": Service data/a-ext-0"),
            "{error}"
        );
    }
}
