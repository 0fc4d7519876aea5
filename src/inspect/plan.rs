//! `plan`: what workloads would cost, before they are there.

use std::fmt::Write;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use external_ip_core::cost::{self, Asked, Cost, InUse, Manifests, Plan};
use external_ip_core::formats::document;
use external_ip_core::names::{CONTROLLER_NAME, MANAGED_BY_LABEL};
use external_ip_core::objects::Service;
use external_ip_core::settings::Settings;

use super::table::table;
use super::{Caller, check_name, configuration, note, print};
use crate::cli;
use crate::watch::{Selection, list};

/// Most bytes of manifests that are read: what kubectl applies at once is far smaller.
const MANIFESTS_MAX: u64 = 16 << 20;

/// Prints what the manifests, or a workload that is there, would cost.
///
/// # Errors
/// A manifest cannot be read, or the cluster is needed and does not answer.
pub async fn run(args: &cli::Plan) -> Result<()> {
    let offline = args.source.config.as_ref().filter(|_| args.workload.is_none());
    let plan = if let Some(config) = offline {
        let namespace = args.source.namespace.as_deref().unwrap_or("default");
        let manifests = from_files(args, namespace)?;
        cost::plan(&manifests, &configuration::from_file(config)?.settings, &InUse::default())
    } else {
        let caller = Caller::new(&args.source).await?;
        let manifests = match &args.workload {
            Some(workload) => from_cluster(&caller, workload, args.nodes).await?,
            None => from_files(args, &caller.namespace)?,
        };
        let settings = &caller.configuration.settings;
        let in_use = in_use(&caller, settings, &manifests).await;
        cost::plan(&manifests, settings, &in_use)
    };
    print(args.output, || text(&plan), || document::to_json(&plan), || document::to_yaml(&plan));
    Ok(())
}

fn from_files(args: &cli::Plan, namespace: &str) -> Result<Manifests> {
    let mut all = Manifests::default();
    let stdin = Path::new("-").to_owned();
    let files = if args.files.is_empty() { std::slice::from_ref(&stdin) } else { &args.files };
    for file in files {
        let found = read(file)
            .and_then(|text| Ok(cost::workloads(&text, namespace, args.nodes)?))
            .with_context(|| file.display().to_string())?;
        all.workloads.extend(found.workloads);
        all.ignored.extend(found.ignored);
    }
    Ok(all)
}

fn read(file: &Path) -> Result<String> {
    let source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file)?)
    };
    let mut text = String::new();
    source.take(MANIFESTS_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MANIFESTS_MAX {
        bail!("more than {MANIFESTS_MAX} bytes");
    }
    Ok(text)
}

async fn from_cluster(caller: &Caller, workload: &str, nodes: Option<u32>) -> Result<Manifests> {
    let namespace = &caller.namespace;
    let Some((kind, name)) = workload.split_once('/') else {
        bail!("'{workload}' is not KIND/NAME: write for example sts/infinispan")
    };
    check_name("workload", name)?;
    let collection = match kind.to_ascii_lowercase().as_str() {
        "sts" | "statefulset" | "statefulsets" => "/apis/apps/v1/namespaces/{}/statefulsets",
        "deploy" | "deployment" | "deployments" => "/apis/apps/v1/namespaces/{}/deployments",
        "ds" | "daemonset" | "daemonsets" => "/apis/apps/v1/namespaces/{}/daemonsets",
        "rs" | "replicaset" | "replicasets" => "/apis/apps/v1/namespaces/{}/replicasets",
        "po" | "pod" | "pods" => "/api/v1/namespaces/{}/pods",
        _ => bail!("'{kind}' is not looked at: write sts/NAME, deploy/NAME, ds/NAME, rs/NAME or pod/NAME"),
    };
    let path = format!("{}/{name}", collection.replace("{}", namespace));
    let found: serde_json::Value = configuration::object(&caller.client, &path)
        .await
        .with_context(|| format!("reading {kind} {namespace}/{name}"))?;
    Ok(cost::workloads(&found.to_string(), namespace, nodes)?)
}

/// The installation's Services of other clusters than those that are planned. Nothing where they may not be listed: the
/// caller is told.
async fn in_use(caller: &Caller, settings: &Settings, manifests: &Manifests) -> InUse {
    let selection = Selection {
        path: "/api/v1/services".to_owned(),
        labels: Some(format!("{MANAGED_BY_LABEL}={CONTROLLER_NAME}")),
        fields: None,
    };
    match list::<Service>(&caller.client, &selection).await {
        Ok(services) => cost::in_use(&services, settings, manifests),
        Err(error) => {
            note(&format!("limits are held against these workloads alone: {error:#}"));
            InUse::default()
        }
    }
}

fn text(plan: &Plan) -> String {
    let head = [
        "WORKLOAD",
        "CLUSTER",
        "CLASS",
        "EXPOSURE",
        "PODS",
        "LOAD BALANCERS",
        "ADDRESSES",
        "NODE PORTS",
        "PORTS",
    ];
    let totals = [
        ("all", plan.total.at_rest),
        ("during a rolling update", plan.total.rolling),
        ("at most, until slots have rested", plan.total.at_most),
    ];
    let rows = plan.workloads.iter().map(row).chain(totals.map(|(name, cost)| total(name, cost)));
    let mut text = table(head, rows);
    let without = plan.workloads.iter().filter_map(|w| Some((w, w.message.as_ref()?)));
    for (workload, message) in without {
        let _ = writeln!(text, "{}: no address: {message}", name(workload));
    }
    for workload in plan.workloads.iter().filter(|w| w.pods.is_none()) {
        let _ = writeln!(text, "{}: a pod on every node: say how many with --nodes", name(workload));
    }
    for limit in &plan.exceeded {
        let _ = writeln!(text, "over the limit: {limit}");
    }
    for service in &plan.departing {
        let _ = writeln!(text, "stays as it is: {service}");
    }
    if !plan.ignored.is_empty() {
        let _ = writeln!(text, "not looked at: {}", plan.ignored.join(", "));
    }
    text
}

fn name(workload: &Asked) -> String {
    format!("{} {}/{}", workload.kind, workload.namespace, workload.name)
}

fn row(workload: &Asked) -> [String; 9] {
    let Asked { cluster, class, exposure, pods, ahead, costs, .. } = workload;
    let ahead = if *ahead > 0 { format!(" + {ahead} ahead") } else { String::new() };
    let [balancers, addresses, node_ports, ports] = numbers(costs.at_rest);
    [
        name(workload),
        cluster.clone().unwrap_or_default(),
        class.clone().unwrap_or_default(),
        exposure.unwrap_or_default().to_owned(),
        pods.map_or_else(|| "?".to_owned(), |p| format!("{}{ahead}", p.at_rest)),
        balancers,
        addresses,
        node_ports,
        ports,
    ]
}

fn total(name: &str, cost: Cost) -> [String; 9] {
    let [balancers, addresses, node_ports, ports] = numbers(cost);
    let empty = String::new;
    [
        name.to_owned(),
        empty(),
        empty(),
        empty(),
        cost.slots.to_string(),
        balancers,
        addresses,
        node_ports,
        ports,
    ]
}

fn numbers(cost: Cost) -> [String; 4] {
    [cost.load_balancers, cost.addresses, cost.node_ports, cost.ports].map(|n| n.to_string())
}
