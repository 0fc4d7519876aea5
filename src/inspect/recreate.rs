//! `recreate CLUSTER`: asks for new Services in place of those that are not as their class says, one after the other,
//! and tells how far that has come. The controller does it; what is written here is the request, with the caller's
//! rights: an annotation on each Service.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use external_ip_core::mapping::Entry;
use external_ip_core::names::{Key, RECREATE_ANNOTATION};
use external_ip_core::recreate::{Target, moved, targets};
use external_ip_core::state::State;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::seen::Reader;
use super::{Caller, check_name, note};
use crate::cli;
use crate::client::call::{self, Patch};
use crate::constants::WRITE_TIMEOUT;

/// Between two looks. Each lists what the controller watches.
const LOOK: Duration = Duration::from_secs(2);

/// Asks, and waits until each pod is reached at its new address.
///
/// # Errors
/// There is no such cluster, the caller may not change its Services, or an address has not come in time.
pub async fn run(args: &cli::Recreate) -> Result<()> {
    let caller = Caller::new(&args.source).await?;
    let (namespace, name) = match args.cluster.split_once('/') {
        Some((namespace, name)) => (namespace, name),
        None => (caller.namespace.as_str(), args.cluster.as_str()),
    };
    check_name("namespace", namespace)?;
    check_name("cluster", name)?;
    let recreation = Recreation { caller: &caller, args, cluster: Key::new(namespace, name) };
    recreation.run().await
}

struct Recreation<'a> {
    caller: &'a Caller,
    args: &'a cli::Recreate,
    cluster: Key,
}

impl Recreation<'_> {
    async fn run(&self) -> Result<()> {
        let cluster = &self.cluster;
        let state = self.state().await?;
        let targets = targets(&state, cluster, self.args.all);
        if targets.is_empty() {
            if state.services_of(cluster).is_empty() {
                bail!(
                    "cluster {cluster} has no Services: external-ip-controller map shows the clusters there are"
                );
            }
            println!("every Service of {cluster} is as its class says (--all makes them anew all the same)");
            return Ok(());
        }
        for target in &targets {
            println!("{}", self.line(target));
        }
        if self.args.dry_run {
            println!("nothing was changed (--dry-run)");
            return Ok(());
        }
        for together in targets.chunks(self.args.at_once.into()) {
            for target in together.iter().filter(|t| !t.asked) {
                self.ask(target).await?;
            }
            self.wait(together).await?;
        }
        println!(
            "{} of {cluster} were made anew; the former ones go after reuseAfter of their class",
            targets.len()
        );
        Ok(())
    }

    async fn state(&self) -> Result<State> {
        Reader::new(&self.caller.client, &self.cluster.namespace)
            .state(&self.caller.configuration.settings)
            .await
    }

    fn line(&self, target: &Target) -> String {
        let place = |entry: &Entry| format!("{} at {}", entry.pod, address(entry));
        let pods: Vec<String> = target.pods.values().map(place).collect();
        let pods = if pods.is_empty() { "no pod".to_owned() } else { pods.join(", ") };
        let why = if target.why.is_empty() { String::new() } else { format!(": {}", target.why) };
        let verb = if self.args.dry_run { "would be made anew" } else { "is to be made anew" };
        format!("Service {} ({pods}) {verb}{why}", target.service.name)
    }

    /// Bound to the Service that was looked at.
    async fn ask(&self, target: &Target) -> Result<()> {
        let Key { namespace, name } = &target.service;
        let path = format!("/api/v1/namespaces/{namespace}/services/{name}");
        let metadata = json!({"uid": target.uid, "annotations": {RECREATE_ANNOTATION: "true"}});
        let body = json!({"metadata": metadata}).to_string().into_bytes();
        call::whole(&self.caller.client, call::patch(&path, Patch::Merge, body), WRITE_TIMEOUT)
            .await
            .with_context(|| format!("asking for another Service in place of {}", target.service))?;
        Ok(())
    }

    async fn wait(&self, targets: &[Target]) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(self.args.timeout);
        let mut waiting: Vec<&Target> = targets.iter().collect();
        loop {
            let state = self.state().await?;
            waiting.retain(|target| {
                let Some(entries) = moved(&state, &self.cluster, target) else { return true };
                for entry in &entries {
                    println!("{}", step(target, entry));
                }
                if entries.is_empty() {
                    println!("Service {} is gone", target.service.name);
                }
                false
            });
            let Some(first) = waiting.first() else { return Ok(()) };
            if Instant::now() >= end {
                note(&format!(
                    "the pods are still reached at their former addresses; kubectl -n {} annotate service {} {RECREATE_ANNOTATION}- takes the request back",
                    self.cluster.namespace, first.service.name
                ));
                bail!("{}", stuck(&self.cluster, first, self.args.timeout));
            }
            sleep(LOOK).await;
        }
    }
}

fn stuck(cluster: &Key, target: &Target, seconds: u64) -> String {
    let pod = target.pods.keys().next().map_or_else(String::new, |pod| {
        format!(
            " (external-ip-controller explain {}/{pod} and the Events of the pod say why)",
            cluster.namespace
        )
    });
    format!(
        "nothing has taken the place of Service {} within {seconds} s{pod}: is a controller running, is there room for \
         one more in the limits, does the load balancer give addresses?",
        target.service.name
    )
}

fn address(entry: &Entry) -> String {
    let external = entry.external.as_ref();
    let first = external.and_then(|e| e.ips.first().map(ToString::to_string).or_else(|| e.host.clone()));
    first.unwrap_or_else(|| "no address".to_owned())
}

/// `c-0: 203.0.113.1 -> 203.0.113.9`.
fn step(target: &Target, entry: &Entry) -> String {
    let before = target.pods.get(&entry.pod).map_or_else(String::new, address);
    format!("{}: {before} -> {}", entry.pod, address(entry))
}
