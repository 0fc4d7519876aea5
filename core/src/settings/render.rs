//! Writes settings as the file that means them, every default spelled out: what `check` prints as "in force".

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::class::exposure_word;
use super::{
    Access, CertificateFiles, CertificateSource, Class, ConfiguredCluster, Retention, Settings, duration,
    pool,
};
use crate::objects::{PortRef, PortSpec};

/// The configuration in force; [`super::parse`] reads the same settings from it.
pub fn render(settings: &Settings) -> String {
    yaml(&file(settings))
}

/// The same as JSON.
pub fn render_json(settings: &Settings) -> String {
    // plain maps, lists and scalars always serialize
    serde_json::to_string(&file(settings)).unwrap_or_default()
}

fn file(settings: &Settings) -> File<'_> {
    File {
        version: 1,
        installation: &settings.installation,
        access: match settings.access {
            Access::Token => "token",
            Access::Open => "open",
        },
        tls: TlsFile { admission: source(&settings.tls.admission), mapping: source(&settings.tls.mapping) },
        cluster_domain: &settings.cluster_domain,
        limits: LimitsFile {
            slots_per_cluster: settings.limits.slots_per_cluster,
            slots_per_namespace: settings.limits.slots_per_namespace,
            load_balancers: settings.limits.load_balancers,
        },
        classes: settings.classes.iter().map(|(name, class)| (name.as_str(), class_file(class))).collect(),
        clusters: settings.clusters.iter().map(cluster_file).collect(),
    }
}

/// The section `clusters` alone.
pub(super) fn render_clusters(clusters: &[ConfiguredCluster]) -> String {
    yaml(&BTreeMap::from([("clusters", clusters.iter().map(cluster_file).collect::<Vec<_>>())]))
}

fn yaml(file: &impl Serialize) -> String {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    // plain maps, lists and scalars always serialize
    serde_saphyr::to_string_with_options(file, options).unwrap_or_default()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File<'s> {
    version: u8,
    installation: &'s str,
    access: &'s str,
    tls: TlsFile<'s>,
    cluster_domain: &'s str,
    limits: LimitsFile,
    classes: BTreeMap<&'s str, ClassFile<'s>>,
    clusters: Vec<ClusterFile<'s>>,
}

#[derive(Serialize)]
struct TlsFile<'s> {
    admission: SourceFile<'s>,
    mapping: SourceFile<'s>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum SourceFile<'s> {
    Word(&'static str),
    Files {
        certificate: &'s Path,
        key: &'s Path,
        #[serde(skip_serializing_if = "Option::is_none")]
        ca: Option<&'s Path>,
    },
}

fn source(source: &CertificateSource) -> SourceFile<'_> {
    match source {
        CertificateSource::SelfManaged => SourceFile::Word("selfManaged"),
        CertificateSource::Files(CertificateFiles { certificate, key, ca }) => {
            SourceFile::Files { certificate, key, ca: ca.as_deref() }
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LimitsFile {
    slots_per_cluster: u32,
    slots_per_namespace: u32,
    load_balancers: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ClassFile<'s> {
    allow: AllowFile<'s>,
    exposure: Vec<&'static str>,
    service: ServiceFile<'s>,
    addresses: Vec<String>,
    load_balancers: Option<u32>,
    shared: SharedFile,
    #[serde(rename = "await")]
    await_address: AwaitFile,
    retention: String,
    reuse_after: String,
    spare_slots: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    readiness_gate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reachable: Option<ReachableFile>,
    resolve_names: bool,
}

#[derive(Serialize)]
struct ReachableFile {
    interval: String,
    timeout: String,
}

#[derive(Serialize)]
struct AllowFile<'s> {
    namespaces: Vec<&'s str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceFile<'s> {
    annotations: &'s BTreeMap<String, String>,
    load_balancer_class: Option<&'s str>,
    #[serde(rename = "loadBalancerIP")]
    load_balancer_ip: Option<&'s str>,
    external_traffic_policy: Option<&'s str>,
    load_balancer_source_ranges: &'s [String],
    ip_family_policy: Option<&'s str>,
    allocate_load_balancer_node_ports: Option<bool>,
    publish_not_ready_addresses: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SharedFile {
    first_port: u16,
    ports_per_service: u16,
}

#[derive(Serialize)]
struct AwaitFile {
    enabled: bool,
    timeout: String,
    members: u32,
}

fn class_file(class: &Class) -> ClassFile<'_> {
    let t = &class.service;
    let all = class.namespaces.is_empty();
    ClassFile {
        allow: AllowFile {
            namespaces: if all { vec!["*"] } else { class.namespaces.iter().map(String::as_str).collect() },
        },
        exposure: class.exposure.iter().map(|e| exposure_word(*e)).collect(),
        service: ServiceFile {
            annotations: &t.annotations,
            load_balancer_class: t.load_balancer_class.as_deref(),
            load_balancer_ip: t.load_balancer_ip.as_deref(),
            external_traffic_policy: t.external_traffic_policy.as_deref(),
            load_balancer_source_ranges: &t.load_balancer_source_ranges,
            ip_family_policy: t.ip_family_policy.as_deref(),
            allocate_load_balancer_node_ports: t.allocate_load_balancer_node_ports,
            publish_not_ready_addresses: t.publish_not_ready_addresses,
        },
        addresses: pool::render(&class.addresses),
        load_balancers: class.load_balancers,
        shared: SharedFile {
            first_port: class.shared.first_port,
            ports_per_service: class.shared.ports_per_service,
        },
        await_address: AwaitFile {
            enabled: class.await_address.enabled,
            timeout: duration::render(class.await_address.timeout),
            members: class.await_address.members,
        },
        retention: match class.retention {
            Retention::For(time) => duration::render(time),
            Retention::Forever => "forever".to_owned(),
        },
        reuse_after: duration::render(class.reuse_after),
        spare_slots: class.spare_slots,
        readiness_gate: class.readiness_gate,
        reachable: class.reachable.map(|how| ReachableFile {
            interval: duration::render(how.interval),
            timeout: duration::render(how.timeout),
        }),
        resolve_names: class.resolve_names,
    }
}

#[derive(Serialize)]
struct ClusterFile<'s> {
    name: &'s str,
    namespace: &'s str,
    selector: &'s BTreeMap<String, String>,
    /// Left out = every declared port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<PortFile>,
    class: &'s str,
}

fn cluster_file(cluster: &ConfiguredCluster) -> ClusterFile<'_> {
    ClusterFile {
        name: cluster.name.as_str(),
        namespace: &cluster.namespace,
        selector: &cluster.selector,
        ports: cluster.ports.iter().map(port_file).collect(),
        class: &cluster.class,
    }
}

/// A bare number as people write it, everything else as text.
#[derive(Serialize)]
#[serde(untagged)]
enum PortFile {
    Number(u16),
    Text(String),
}

fn port_file(port: &PortSpec) -> PortFile {
    match port {
        PortSpec { port: PortRef::Number(number), protocol: None } => PortFile::Number(*number),
        other => PortFile::Text(other.to_string()),
    }
}
