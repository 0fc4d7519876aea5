//! The configuration file of external-ip-proxy (2017), from which this project comes: one class and one cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::file::{NAMESPACE, Parsed, ports, selector};
use super::reader::{ConfigError, Field, Findings, quote};
use super::render::render_clusters;
use super::rules::{is_dns_label, is_label_value, is_qualified_name};
use super::yaml::{Node, Value};
use super::{ADDRESS_PLACEHOLDER, Class, ConfiguredCluster, DEFAULT_CLASS, Settings, pool};
use crate::names::{self, ClusterName};

/// Where the origin looked when it was not told otherwise.
const DEFAULT_NAMESPACE: &str = "default";

/// Name of a cluster whose file offers none.
const DEFAULT_CLUSTER: &str = "origin";

/// Reads a file in the origin's form and translates it.
pub(super) fn parse(root: &Node) -> Result<Parsed, ConfigError> {
    let mut findings = Findings::default();
    let mut notes = vec!["translated from the form of external-ip-proxy".to_owned()];
    let mut table = Field::root(root).table(&mut findings);
    let external = table.take("external-ips").map(|f| external_ips(&f, &mut notes, &mut findings));
    let (namespace, addresses) = external.unwrap_or_default();
    let cluster = table
        .require("cluster", "say which pods are exposed: cluster: {labels: {app: NAME}}", &mut findings)
        .and_then(|f| cluster(&f, &mut notes, &mut findings));
    // what the origin added when it published the file
    table.take("runtime-configuration");
    table.finish(&mut findings);
    let namespace = namespace.unwrap_or_else(|| {
        notes.push(format!("external-ips.namespace is not given: '{DEFAULT_NAMESPACE}'"));
        DEFAULT_NAMESPACE.to_owned()
    });
    let class = class(addresses);
    let mut body = "version: 1\nclasses:\n  default:\n    exposure: [dedicated]\n".to_owned();
    if class.addresses.is_empty() {
        notes.push(
            "the class 'default' stands for external-ips: one load balancer address per pod".to_owned(),
        );
    } else {
        let pool: Vec<String> =
            pool::render(&class.addresses).iter().map(|text| format!("\"{text}\"")).collect();
        body.push_str("    service: {loadBalancerIP: \"{address}\"}\n    addresses: [");
        body.push_str(&pool.join(", "));
        body.push_str("]\n");
        notes.push(
            "the class 'default' stands for external-ips: each pod has one of these addresses".to_owned(),
        );
        notes.push(
            "loadBalancerIP asks for it; write the annotation your load balancer reads if it wants that"
                .to_owned(),
        );
    }
    let settings = Settings {
        classes: BTreeMap::from([(DEFAULT_CLASS.to_owned(), class)]),
        clusters: cluster.map(|c| ConfiguredCluster { namespace, ..c }).into_iter().collect(),
        ..Settings::default()
    };
    notes
        .push("TLS: the document is served over HTTPS; its CA is in the ConfigMap external-ip-ca".to_owned());
    let comments = format!("# {}", notes.join("\n# "));
    let origin_translation = Some(format!("{comments}\n{body}{}", render_clusters(&settings.clusters)));
    findings.into_result(Parsed { settings, origin_translation })
}

/// The class that asks for these addresses, in the field every load balancer of that time read.
fn class(addresses: Vec<IpAddr>) -> Class {
    let mut class = Class::default();
    if !addresses.is_empty() {
        class.service.load_balancer_ip = Some(ADDRESS_PLACEHOLDER.to_owned());
        class.addresses = addresses;
    }
    class
}

/// The section `external-ips`: the namespace, and the static addresses; none where the load balancer chooses.
fn external_ips(
    field: &Field<'_>,
    notes: &mut Vec<String>,
    findings: &mut Findings,
) -> (Option<String>, Vec<IpAddr>) {
    let mut table = field.table(findings);
    let namespace = table
        .take("namespace")
        .and_then(|f| f.text_that_is(is_dns_label, NAMESPACE, findings))
        .map(str::to_owned);
    if table.take("service-ip").is_some() {
        notes.push("service-ip is left out: the document shows the address its own Service has".to_owned());
    }
    let dynamic = table.take("dynamic-ips");
    let dynamic_ips = dynamic.as_ref().and_then(|f| f.flag(findings));
    let (ips, range) = (table.take("ips"), table.take("ip-range"));
    table.finish(findings);
    let fixed = ips.is_some() || range.is_some();
    if dynamic_ips == Some(true) || !(fixed || dynamic_ips == Some(false)) {
        if fixed {
            notes.push("ips and ip-range are left out: dynamic-ips is true".to_owned());
        }
        return (namespace, Vec::new());
    }
    let mut addresses = ips.as_ref().map(|f| pool::pool(f, findings)).unwrap_or_default();
    if let Some(range) = &range {
        let of_range = ip_range(range, findings);
        addresses.extend(of_range.into_iter().filter(|ip| !addresses.contains(ip)).collect::<Vec<_>>());
    }
    let families = (addresses.iter().any(IpAddr::is_ipv4), addresses.iter().any(IpAddr::is_ipv6));
    let place = ips.as_ref().or(dynamic.as_ref()).unwrap_or(field);
    if ips.is_none() && range.is_none() {
        let remedy = "write them as ips: [203.0.113.7], or dynamic-ips: true";
        findings.report(place, "static addresses are wanted and none is given", remedy);
    } else if families == (true, true) {
        findings.report(
            place,
            "there are addresses of both families",
            "write a file of this project's own form",
        );
    }
    (namespace, addresses)
}

/// `{from, to}`: both ends, with or without the length of their network, which says nothing more.
fn ip_range(field: &Field<'_>, findings: &mut Findings) -> Vec<IpAddr> {
    let mut table = field.table(findings);
    let mut end = |name, findings: &mut Findings| {
        let field = table.require(
            name,
            "give both ends of the range: {from: 203.0.113.7, to: 203.0.113.20}",
            findings,
        )?;
        let rule = ("an IP address", "write it as 203.0.113.7");
        let address = |text: &str| text.split('/').next().and_then(|ip| ip.parse::<IpAddr>().ok());
        field.text_that_is(|text| address(text).is_some(), rule, findings).and_then(address)
    };
    let ends = (end("from", findings), end("to", findings));
    table.finish(findings);
    let (Some(from), Some(to)) = ends else { return Vec::new() };
    if from.is_ipv4() != to.is_ipv4() || from > to {
        findings.report(field, "the range has no addresses", "write the lower address at from");
        return Vec::new();
    }
    let addresses: Vec<IpAddr> = pool::addresses(from, to).take(pool::POOL_MAX + 1).collect();
    if addresses.len() > pool::POOL_MAX {
        let rule = format!("the range has more than {} addresses", pool::POOL_MAX);
        findings.report(field, rule, "write a smaller range");
    }
    addresses
}

/// The section `cluster`; its namespace stands elsewhere.
fn cluster(field: &Field<'_>, notes: &mut Vec<String>, findings: &mut Findings) -> Option<ConfiguredCluster> {
    let mut table = field.table(findings);
    let selector = table
        .require("labels", "name the labels of the pods: labels: {app: NAME}", findings)
        .and_then(|f| labels(&f, findings));
    let ports = table.take("ports").map(|f| ports(&f, findings));
    let stateful_set = table.take("stateful-set").and_then(|f| f.text(findings));
    table.finish(findings);
    let selector = selector?;
    if ports.is_none() {
        notes.push("cluster.ports is not given: every port the containers declare".to_owned());
    }
    let (name, note) = name(stateful_set, &selector)?;
    notes.push(note);
    Some(ConfiguredCluster {
        name,
        namespace: String::new(),
        selector,
        ports: ports.unwrap_or_default(),
        class: DEFAULT_CLASS.to_owned(),
    })
}

/// The cluster's name, which the origin's form does not have, and where it comes from.
fn name(stateful_set: Option<&str>, selector: &BTreeMap<String, String>) -> Option<(ClusterName, String)> {
    let set = stateful_set.into_iter().map(|name| (name, "after stateful-set".to_owned()));
    let labels = selector.iter().map(|(key, value)| (value.as_str(), format!("after the label {key}")));
    let default = (DEFAULT_CLUSTER, "for lack of a stateful-set or label that is a cluster name".to_owned());
    set.chain(labels).chain([default]).find_map(|(text, why)| {
        let name: ClusterName = text.parse().ok()?;
        let note = format!("the cluster is called '{name}', {why}; give it any name you like");
        Some((name, note))
    })
}

/// The labels: a map, or `key=value` with commas, as early files had it.
fn labels(field: &Field<'_>, findings: &mut Findings) -> Option<BTreeMap<String, String>> {
    let Value::Text(text) = &field.node.value else { return selector(field, findings) };
    let pair = |part: &str| {
        let (key, value) = part.split_once('=')?;
        let (key, value) = (key.trim(), value.trim());
        let ours = key.starts_with(names::RESERVED_PREFIX) || key == names::CLUSTER_LABEL;
        (is_qualified_name(key) && !ours && is_label_value(value)).then(|| (key.to_owned(), value.to_owned()))
    };
    let pairs: Option<BTreeMap<_, _>> = text.split(',').map(pair).collect();
    if pairs.is_none() {
        let rule = format!("{} does not say which label has the value", quote(text));
        findings.report(field, rule, "write labels as a map: labels: {app: NAME}");
    }
    pairs
}
