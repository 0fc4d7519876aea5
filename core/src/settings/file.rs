//! The configuration file: one YAML document of `version: 1`, or the origin's file. Strict: an unknown field is a
//! mistake, not a wish nobody hears.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::reader::{ConfigError, Field, Findings, quote};
use super::rules::{is_dns_label, is_dns_subdomain, is_label_value, is_qualified_name};
use super::yaml::{self, Node, Place, Value};
use super::{
    Access, CertificateFiles, CertificateSource, Class, ConfiguredCluster, DEFAULT_CLASS, Limits, Settings,
    Tls, class, origin,
};
use crate::demand::PORTS_MAX;
use crate::names::{self, ClusterName};
use crate::objects::PortSpec;

/// Largest file in bytes: what fits into the ConfigMap it comes from.
pub const FILE_MAX: usize = 1 << 20;

/// Upper bound of every limit; far above what an API server carries.
const LIMIT_MAX: u32 = 1_000_000;

pub(super) const NAMESPACE: (&str, &str) = ("the name of a namespace", "write its name in lower case");

/// A configuration that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// What is in force.
    pub settings: Settings,
    /// For a file in the origin's form: the same in today's form, with comments on what was decided.
    pub origin_translation: Option<String>,
}

/// Reads a configuration file. The error has every mistake that was found, each with its place and its remedy.
pub fn parse(text: &str) -> Result<Parsed, ConfigError> {
    if text.len() > FILE_MAX {
        let rule = format!("the file has {} bytes; at most {FILE_MAX} are read", text.len());
        return Err(Findings::of_file(None, rule, "shorten it: it has to fit into a ConfigMap"));
    }
    let root = yaml::parse(text).map_err(|e| unreadable(&e))?;
    let Value::Map(entries) = &root.value else {
        let rule = format!("expected a map, found {}", root.value.kind());
        return Err(Findings::of_file(root.place, rule, "begin the file with version: 1"));
    };
    let has = |name: &str| entries.iter().any(|(n, _)| n.text == name);
    if !has("version") && (has("external-ips") || has("cluster")) {
        return origin::parse(&root);
    }
    let settings = settings(&root)?;
    Ok(Parsed { settings, origin_translation: None })
}

/// A file that is no YAML, or more of it than a configuration needs.
fn unreadable(error: &serde_saphyr::Error) -> ConfigError {
    use serde_saphyr::Error;
    let place = error.location().and_then(Place::of);
    let mut innermost = error.without_snippet();
    while let Error::AliasError { error, .. } = innermost {
        innermost = error.without_snippet();
    }
    let (rule, remedy) = match innermost {
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().map_or_else(|| "a field".to_owned(), quote);
            (format!("{key} is there twice"), "keep one of them")
        }
        Error::Budget { breach: serde_saphyr::budget::BudgetBreach::Documents { .. }, .. } => {
            ("there is a second document".to_owned(), "keep one: remove what follows ---")
        }
        Error::Budget { .. } | Error::AliasReplayLimitExceeded { .. } => (
            "the file is too deep, too long or has too many aliases".to_owned(),
            "write it without aliases, as in the documentation",
        ),
        Error::NullIntoString { .. } => ("a field has no name".to_owned(), "write it as name: value"),
        other => {
            let text = other.render_with_formatter(&serde_saphyr::UserMessageFormatter);
            let text = text.split(" at line ").next().unwrap_or_default().to_owned();
            (format!("not YAML: {text}"), "correct the line, or the one before it")
        }
    };
    Findings::of_file(place, rule, remedy)
}

fn settings(root: &Node) -> Result<Settings, ConfigError> {
    let mut findings = Findings::default();
    let f = &mut findings;
    let mut settings = Settings::default();
    let mut table = Field::root(root).table(f);
    if let Some(version) = table.require("version", "begin the file with version: 1", f)
        && !matches!(version.node.value, Value::Number(1))
    {
        f.report(&version, "this program reads version 1 only", "write version: 1");
    }
    if let Some(field) = table.take("installation") {
        let rule = ("a name", "use at most 63 lower-case letters, digits and '-'");
        if let Some(name) = field.text_that_is(is_dns_label, rule, f) {
            name.clone_into(&mut settings.installation);
        }
    }
    if let Some(field) = table.take("access") {
        let words = [("token", Access::Token), ("open", Access::Open)];
        settings.access = field.choice(&words, f).unwrap_or(settings.access);
    }
    if let Some(field) = table.take("tls") {
        settings.tls = tls(&field, f);
    }
    if let Some(field) = table.take("clusterDomain") {
        let rule = ("a DNS domain", "write it as cluster.local, without a dot at the end");
        if let Some(domain) = field.text_that_is(is_dns_subdomain, rule, f) {
            domain.clone_into(&mut settings.cluster_domain);
        }
    }
    if let Some(field) = table.take("limits") {
        settings.limits = limits(&field, f);
    }
    if let Some(field) = table.take("classes") {
        settings.classes.extend(classes(&field, &settings.limits, f));
    }
    if let Some(field) = table.take("clusters") {
        settings.clusters = clusters(&field, &settings.classes, f);
    }
    table.finish(f);
    findings.into_result(settings)
}

fn tls(field: &Field<'_>, findings: &mut Findings) -> Tls {
    let mut table = field.table(findings);
    let mut tls = Tls::default();
    if let Some(field) = table.take("admission") {
        tls.admission = certificate_source(&field, findings);
        if matches!(&tls.admission, CertificateSource::Files(files) if files.ca.is_some()) {
            let rule =
                "nobody would read this ca: the API server trusts caBundle of the webhook's registration";
            findings.report(
                &field,
                rule,
                "leave ca out; whoever makes the files writes caBundle, as cert-manager does",
            );
        }
    }
    if let Some(field) = table.take("mapping") {
        tls.mapping = certificate_source(&field, findings);
    }
    table.finish(findings);
    tls
}

/// `selfManaged`, or files.
fn certificate_source(field: &Field<'_>, findings: &mut Findings) -> CertificateSource {
    if matches!(field.node.value, Value::Text(_)) {
        field.choice(&[("selfManaged", ())], findings);
        return CertificateSource::SelfManaged;
    }
    let mut table = field.table(findings);
    let path = |field: Field<'_>, findings: &mut Findings| {
        let rule = ("a path", "write the path of a PEM file");
        field.text_that_is(|text| !text.is_empty(), rule, findings).map(PathBuf::from)
    };
    let mut required = |name, findings: &mut Findings| {
        let field = table.require(name, "give both certificate and key, or write selfManaged", findings);
        field.and_then(|field| path(field, findings)).unwrap_or_default()
    };
    let (certificate, key) = (required("certificate", findings), required("key", findings));
    let ca = table.take("ca").and_then(|field| path(field, findings));
    table.finish(findings);
    CertificateSource::Files(CertificateFiles { certificate, key, ca })
}

fn limits(field: &Field<'_>, findings: &mut Findings) -> Limits {
    let default = Limits::default();
    let mut table = field.table(findings);
    let mut number = |name, otherwise| {
        table.take(name).and_then(|f| f.number(1..=LIMIT_MAX, findings)).unwrap_or(otherwise)
    };
    let limits = Limits {
        slots_per_cluster: number("slotsPerCluster", default.slots_per_cluster),
        slots_per_namespace: number("slotsPerNamespace", default.slots_per_namespace),
        load_balancers: number("loadBalancers", default.load_balancers),
    };
    table.finish(findings);
    limits
}

fn classes(field: &Field<'_>, limits: &Limits, findings: &mut Findings) -> BTreeMap<String, Class> {
    let mut classes = BTreeMap::new();
    for (name, class_field) in field.entries(findings) {
        if !is_dns_label(&name.text) {
            let rule = format!("{} is not a class name", quote(&name.text));
            findings.report(&class_field, rule, "use at most 63 lower-case letters, digits and '-'");
        }
        let class = class::class(&class_field, findings);
        let members = class.await_address.members;
        let most = limits.addresses_of_a_cluster(&class);
        if members > most {
            let rule = format!("pods would wait for {members} addresses, and a cluster can have {most}");
            findings.report(
                &class_field,
                rule,
                "lower await.members, or raise the limits, the class's loadBalancers or its addresses",
            );
        }
        classes.insert(name.text.clone(), class);
    }
    classes
}

fn clusters(
    field: &Field<'_>,
    classes: &BTreeMap<String, Class>,
    findings: &mut Findings,
) -> Vec<ConfiguredCluster> {
    let mut clusters: Vec<ConfiguredCluster> = Vec::new();
    for item in field.items(findings).unwrap_or_default() {
        let Some(cluster) = cluster(&item, classes, findings) else { continue };
        let of_namespace = || clusters.iter().filter(|c| c.namespace == cluster.namespace);
        if of_namespace().any(|c| c.name == cluster.name) {
            let rule = format!("the cluster {}/{} is there twice", cluster.namespace, cluster.name);
            findings.report(&item, rule, "keep one entry, or give it another name");
        } else if let Some(other) = of_namespace().find(|c| c.selector == cluster.selector) {
            let rule = format!("the cluster '{}' of the same namespace has the same selector", other.name);
            findings.report(&item, rule, "select each pod by one entry only");
        }
        clusters.push(cluster);
    }
    clusters.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    clusters
}

fn cluster(
    item: &Field<'_>,
    classes: &BTreeMap<String, Class>,
    findings: &mut Findings,
) -> Option<ConfiguredCluster> {
    let mut table = item.table(findings);
    let is_name = |text: &str| text.parse::<ClusterName>().is_ok();
    let rule =
        ("a cluster name", "use at most 40 lower-case letters, digits and '-', starting with a letter");
    let name = table
        .require("name", "give the cluster a name", findings)
        .and_then(|f| f.text_that_is(is_name, rule, findings));
    let namespace = table
        .require("namespace", "say in which namespace its pods are", findings)
        .and_then(|f| f.text_that_is(is_dns_label, NAMESPACE, findings));
    let selector = table
        .require("selector", "give labels that all its pods carry", findings)
        .and_then(|f| selector(&f, findings));
    let ports = table.take("ports").map_or_else(Vec::new, |f| ports(&f, findings));
    let class_field = table.take("class");
    table.finish(findings);
    let class = match &class_field {
        Some(field) => field.text(findings)?,
        None => DEFAULT_CLASS,
    };
    let class_field = class_field.as_ref().unwrap_or(item);
    match (classes.get(class), namespace) {
        (None, _) => {
            let known: Vec<&str> = classes.keys().map(String::as_str).collect();
            let rule = format!("there is no class {}", quote(class));
            findings.report(
                class_field,
                rule,
                format!("define it under classes; there are: {}", known.join(", ")),
            );
        }
        (Some(found), Some(namespace)) if !found.allows(namespace) => {
            let rule = format!("the class '{class}' is not for namespace '{namespace}'");
            findings.report(class_field, rule, "add the namespace to the class's allow.namespaces");
        }
        _ => {}
    }
    Some(ConfiguredCluster {
        name: name?.parse().ok()?,
        namespace: namespace?.to_owned(),
        selector: selector?,
        ports,
        class: class.to_owned(),
    })
}

/// Labels of a selector; `None` where one is wrong.
pub(super) fn selector(field: &Field<'_>, findings: &mut Findings) -> Option<BTreeMap<String, String>> {
    let mut selector = BTreeMap::new();
    let entries = field.entries(findings);
    if entries.is_empty() {
        findings.report(field, "the selector is empty", "name at least one label: nobody means every pod");
        return None;
    }
    let mut good = true;
    for (name, value) in entries {
        let key = name.text.as_str();
        if !is_qualified_name(key) {
            findings.report(
                &value,
                format!("{} is not a label", quote(key)),
                "write it as app or example.com/name",
            );
            good = false;
        } else if key == names::CLUSTER_LABEL || key.starts_with(names::RESERVED_PREFIX) {
            let rule = "pods cannot be selected by the controller's own labels";
            findings.report(&value, rule, "select by a label of the workload; labelled pods need no entry");
            good = false;
        }
        let rule = ("a label's value", "use at most 63 letters, digits, '-', '_' and '.'");
        match value.text_that_is(is_label_value, rule, findings) {
            Some(text) => drop(selector.insert(key.to_owned(), text.to_owned())),
            None => good = false,
        }
    }
    good.then_some(selector)
}

/// A list of numbers and texts, each a port.
pub(super) fn ports(list: &Field<'_>, findings: &mut Findings) -> Vec<PortSpec> {
    let remedy = "write a number from 1 to 65535, 5353/udp, or a container port's name";
    let mut ports = Vec::new();
    let Some(items) = list.items(findings) else { return ports };
    if items.is_empty() || items.len() > PORTS_MAX {
        let rule = format!("there are {} ports", items.len());
        let remedy = format!("write 1 to {PORTS_MAX}; leave ports out to expose every declared one");
        findings.report(list, rule, remedy);
    }
    for item in items {
        let text = match &item.node.value {
            Value::Number(number) => number.to_string(),
            Value::Text(text) => text.clone(),
            other => {
                findings.report(&item, format!("expected a port, found {}", other.kind()), remedy);
                continue;
            }
        };
        match text.parse::<PortSpec>() {
            Ok(port) if ports.contains(&port) => {
                findings.report(&item, format!("the port {text} is there twice"), "name each once");
            }
            Ok(port) => ports.push(port),
            Err(_) => findings.report(&item, format!("{} is not a port", quote(&text)), remedy),
        }
    }
    ports
}
