//! `map`: the map, as the controller would publish it from what is there now.

use std::sync::Arc;

use anyhow::{Result, bail};
use external_ip_core::formats::document;
use external_ip_core::mapping::{self, ClusterMapping, Entry, Mapping};
use external_ip_core::names::Key;

use super::seen::Reader;
use super::table::table;
use super::{Caller, note, print};
use crate::cli;

/// Prints the map of a namespace, a cluster, or all.
///
/// # Errors
/// There is no such cluster, or the caller may not read what decides.
pub async fn run(args: &cli::Map) -> Result<()> {
    let caller = Caller::new(&args.source).await?;
    let namespace = caller.namespace.as_str();
    let state = Reader::new(&caller.client, namespace).state(&caller.configuration.settings).await?;
    let wanted = |key: &Key| {
        (args.all_namespaces || &*key.namespace == namespace)
            && args.cluster.as_ref().is_none_or(|name| *name == *key.name)
    };
    let made = |key: &Key| Some((key.clone(), Arc::new(mapping::cluster_mapping(&state, key)?)));
    let mapping: Mapping = state.clusters().filter(|key| wanted(key)).filter_map(made).collect();
    match (&args.cluster, mapping.len()) {
        (Some(name), 0) => bail!("there is no cluster {name}: no pod of it and no address kept for it"),
        (None, 0) if args.all_namespaces => note("no pod is labelled external-ip.dev/cluster"),
        (None, 0) => note(&format!(
            "no pod in namespace {namespace} is labelled external-ip.dev/cluster (-A looks everywhere)"
        )),
        _ => {}
    }
    let one = mapping.values().next().filter(|_| args.cluster.is_some() && mapping.len() == 1);
    let json = || one.map_or_else(|| document::aggregate_json(&mapping), |c| document::cluster_json(c));
    let yaml = || one.map_or_else(|| document::aggregate_yaml(&mapping), |c| document::cluster_yaml(c));
    print(args.output, || text(&mapping), json, yaml);
    Ok(())
}

fn text(mapping: &Mapping) -> String {
    let rows = mapping.values().flat_map(|cluster| cluster.entries.iter().map(|entry| row(cluster, entry)));
    table(["NAMESPACE", "CLUSTER", "POD", "SLOT", "STATE", "INSIDE", "OUTSIDE", "PORTS", "REASON"], rows)
}

fn row(cluster: &ClusterMapping, entry: &Entry) -> [String; 9] {
    let join = |items: Vec<String>| items.join(",");
    let outside =
        entry.external.iter().flat_map(|e| e.ips.iter().map(ToString::to_string).chain(e.host.clone()));
    let ports = entry.ports.iter().map(|p| format!("{}/{}", p.external, p.protocol));
    [
        cluster.namespace.clone(),
        cluster.name.clone(),
        entry.pod.clone(),
        entry.slot.map(|n| n.to_string()).unwrap_or_default(),
        format!("{:?}", entry.state),
        join(entry.internal.ips.iter().map(ToString::to_string).collect()),
        join(outside.collect()),
        join(ports.collect()),
        entry.reason.or(entry.drift.as_ref().map(|drift| drift.reason)).unwrap_or_default().to_owned(),
    ]
}
