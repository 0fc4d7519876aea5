//! Reads one class of the configuration.

use std::net::IpAddr;

use super::pool::pool;
use super::reader::{Field, Findings, quote};
use super::rules::{closest, is_cidr, is_dns_label, is_qualified_name};
use super::{Await, Class, Exposure, Reachability, Retention, ServiceTemplate, Shared};

/// Words of [`Exposure`].
const EXPOSURES: [(&str, Exposure); 3] =
    [("dedicated", Exposure::Dedicated), ("shared", Exposure::Shared), ("nodePort", Exposure::NodePort)];

/// The word that [`class`] reads as `exposure`.
pub(super) fn exposure_word(exposure: Exposure) -> &'static str {
    EXPOSURES.iter().find(|(_, e)| *e == exposure).map_or("", |(word, _)| word)
}

/// What annotations and `loadBalancerIP` may hold.
const PLACEHOLDERS: [&str; 4] = ["cluster", "namespace", "slot", "address"];

const NAMESPACE: (&str, &str) =
    ("the name of a namespace", "write the whole name in lower case, or \"*\" alone for all namespaces");

/// The class that `field` describes; what is left out has its default.
pub(super) fn class(field: &Field<'_>, findings: &mut Findings) -> Class {
    let mut class = Class::default();
    let mut table = field.table(findings);
    if let Some(allow) = table.take("allow") {
        class.namespaces = allowed(&allow, findings);
    }
    if let Some(list) = table.take("exposure") {
        class.exposure = exposures(&list, findings);
    }
    if let Some(service) = table.take("service") {
        class.service = service_template(&service, findings);
    }
    if let Some(list) = table.take("addresses") {
        class.addresses = pool(&list, findings);
    }
    if let Some(field) = table.take("loadBalancers") {
        class.load_balancers = field.number(0..=1_000_000, findings);
    }
    if let Some(field) = table.take("shared") {
        class.shared = shared(&field, &class.shared, findings);
    }
    if let Some(field) = table.take("await") {
        class.await_address = await_address(&field, &class.await_address, findings);
    }
    if let Some(field) = table.take("retention") {
        class.retention = retention(&field, findings).unwrap_or(class.retention);
    }
    if let Some(field) = table.take("reuseAfter") {
        class.reuse_after = field.duration(findings).unwrap_or(class.reuse_after);
    }
    if let Some(field) = table.take("spareSlots") {
        class.spare_slots = field.number(0..=1000, findings).unwrap_or(0);
    }
    if let Some(field) = table.take("readinessGate") {
        class.readiness_gate = field.flag(findings).unwrap_or(false);
    }
    if let Some(field) = table.take("reachable") {
        class.reachable = reachability(&field, findings);
    }
    if let Some(flag) = table.take("resolveNames").and_then(|f| f.flag(findings)) {
        class.resolve_names = flag;
    }
    table.finish(findings);
    check(field, &class, findings);
    class
}

/// Rules that hold between fields.
fn check(field: &Field<'_>, class: &Class, findings: &mut Findings) {
    if class.exposure.contains(&Exposure::Shared)
        && class.service.external_traffic_policy.as_deref() == Some("Local")
    {
        let rule = "externalTrafficPolicy Local cannot go with exposure shared: pods of several nodes share the \
             address, and a node without the right pod would drop its clients";
        findings.report(field, rule, "leave externalTrafficPolicy out, or shared");
    }
    if class.exposure.contains(&Exposure::Shared)
        && class.exposure.contains(&Exposure::Dedicated)
        && class.service.load_balancer_ip.as_deref().is_some_and(|ip| ip.contains("{slot}"))
    {
        let rule = "loadBalancerIP with {slot} cannot go with exposures dedicated and shared both: a slot and a shared \
             load balancer may have the same number, and would ask for one address";
        findings.report(field, rule, "leave one of the exposures out, or let the load balancer choose");
    }
    let ahead = class.spare_slots > 0 || class.await_address.members > 1;
    if ahead && class.exposure.first() != Some(&Exposure::Dedicated) {
        let rule = "spareSlots and await.members make dedicated slots ahead of the pods, which exposure does not want first";
        findings.report(field, rule, "begin exposure with dedicated, or leave them out");
    }
    if class.readiness_gate && !class.service.publish_not_ready_addresses {
        let rule = "readinessGate cannot go with publishNotReadyAddresses false: a pod would be ready once its address \
             leads to it, and its address would lead to it once it is ready";
        findings.report(field, rule, "leave one of them out");
    }
    check_addresses(field, class, findings);
}

/// What static addresses need of the template: the load balancer has to be told, in each family it gives.
fn check_addresses(field: &Field<'_>, class: &Class, findings: &mut Findings) {
    if class.addresses.is_empty() {
        return;
    }
    let place = field.entries(findings).into_iter().find(|(n, _)| n.text == "addresses");
    let place = place.map_or_else(|| field.clone(), |(_, field)| field);
    let mut report = |rule: &str, remedy: &str| findings.report(&place, rule, remedy);
    let service = &class.service;
    if !service.asks_for_address() {
        report(
            "nothing tells the load balancer which address a slot has",
            "put {address} into an annotation of service that your load balancer reads, or into loadBalancerIP",
        );
    }
    if class.exposure.contains(&Exposure::Shared) {
        report("a shared load balancer cannot have a static address yet", "leave addresses out, or shared");
    }
    let policy = service.ip_family_policy.as_deref();
    match class.address_families() {
        (true, true) if !matches!(policy, Some("PreferDualStack" | "RequireDualStack")) => report(
            "the pool has addresses of both families, and a Service without ipFamilyPolicy has one",
            "write ipFamilyPolicy: PreferDualStack (each slot gets one address of each family), or one family only",
        ),
        (true, true) if service.load_balancer_ip.is_some() => report(
            "loadBalancerIP holds one address, and a slot of this pool has two",
            "put {address} into the annotation your load balancer reads",
        ),
        (v4, v6) if v4 != v6 && policy == Some("RequireDualStack") => report(
            "a dual-stack Service needs an address of each family, and the pool has one family",
            "add addresses of the other family, or write ipFamilyPolicy: SingleStack",
        ),
        _ => {}
    }
}

/// Namespaces of `allow`; empty = all.
fn allowed(field: &Field<'_>, findings: &mut Findings) -> Vec<String> {
    let mut table = field.table(findings);
    let mut namespaces = Vec::new();
    if let Some(list) = table.take("namespaces")
        && let Some(items) = list.items(findings)
    {
        if items.is_empty() {
            findings.report(&list, "the list is empty: nobody could use the class", NAMESPACE.1);
        }
        let all = |item: &Field<'_>| matches!(&item.node.value, super::yaml::Value::Text(t) if t == "*");
        if items.iter().any(all) {
            if items.len() > 1 {
                findings.report(&list, "\"*\" stands beside other names", NAMESPACE.1);
            }
            table.finish(findings);
            return namespaces;
        }
        namespaces.extend(
            items.iter().filter_map(|i| i.text_that_is(is_dns_label, NAMESPACE, findings)).map(str::to_owned),
        );
        no_duplicates(&list, &namespaces, findings);
    }
    table.finish(findings);
    namespaces
}

fn no_duplicates<T: PartialEq + std::fmt::Debug>(list: &Field<'_>, items: &[T], findings: &mut Findings) {
    if items.iter().enumerate().any(|(i, item)| items[..i].contains(item)) {
        findings.report(list, "an item is there twice", "name each once");
    }
}

fn exposures(list: &Field<'_>, findings: &mut Findings) -> Vec<Exposure> {
    let Some(items) = list.items(findings) else { return vec![Exposure::Dedicated] };
    let exposures: Vec<Exposure> = items.iter().filter_map(|i| i.choice(&EXPOSURES, findings)).collect();
    no_duplicates(list, &exposures, findings);
    if items.is_empty() {
        findings.report(list, "there is no exposure", "write exposure: [dedicated]");
    }
    // a mistake above has been reported: do not report its consequences as well
    if exposures.is_empty() { vec![Exposure::Dedicated] } else { exposures }
}

fn shared(field: &Field<'_>, default: &Shared, findings: &mut Findings) -> Shared {
    let mut table = field.table(findings);
    let mut number = |name, otherwise: u16, findings: &mut Findings| {
        let found = table.take(name).and_then(|f| f.number(1..=65_535, findings));
        found.and_then(|n| u16::try_from(n).ok()).unwrap_or(otherwise)
    };
    let first_port = number("firstPort", default.first_port, findings);
    let ports_per_service = number("portsPerService", default.ports_per_service, findings);
    table.finish(findings);
    if u32::from(first_port) + u32::from(ports_per_service) > 65_536 {
        findings.report(field, "the ports go beyond 65535", "lower firstPort or portsPerService");
    }
    Shared { first_port, ports_per_service }
}

fn await_address(field: &Field<'_>, default: &Await, findings: &mut Findings) -> Await {
    let mut table = field.table(findings);
    let enabled = table.take("enabled").and_then(|f| f.flag(findings)).unwrap_or(default.enabled);
    let mut timeout = default.timeout;
    if let Some(field) = table.take("timeout")
        && let Some(given) = field.duration(findings)
    {
        timeout = given;
        if given.is_zero() {
            findings.report(
                &field,
                "a pod cannot wait for no time",
                "write a longer time, or enabled: false",
            );
        }
    }
    let members = table.take("members").and_then(|f| f.number(0..=1000, findings)).unwrap_or(default.members);
    table.finish(findings);
    Await { enabled, timeout, members }
}

/// `true`, `false`, or how.
fn reachability(field: &Field<'_>, findings: &mut Findings) -> Option<Reachability> {
    let mut how = Reachability::default();
    if !matches!(&field.node.value, super::yaml::Value::Map(_)) {
        return field.flag(findings).filter(|wanted| *wanted).map(|_| how);
    }
    let mut table = field.table(findings);
    for (name, time) in [("interval", &mut how.interval), ("timeout", &mut how.timeout)] {
        let Some(field) = table.take(name) else { continue };
        let Some(given) = field.duration(findings) else { continue };
        *time = given;
        if given.is_zero() {
            findings.report(&field, "there is no time", "write at least 1s");
        }
    }
    table.finish(findings);
    Some(how)
}

fn retention(field: &Field<'_>, findings: &mut Findings) -> Option<Retention> {
    if matches!(&field.node.value, super::yaml::Value::Text(text) if text == "forever") {
        return Some(Retention::Forever);
    }
    field.duration(findings).map(Retention::For)
}

fn service_template(field: &Field<'_>, findings: &mut Findings) -> ServiceTemplate {
    let mut service = ServiceTemplate::default();
    let mut table = field.table(findings);
    if let Some(map) = table.take("annotations") {
        for (name, value) in map.entries(findings) {
            annotation_key(&value, &name.text, findings);
            if let Some(text) = value.text(findings) {
                placeholders(&value, text, findings);
                service.annotations.insert(name.text.clone(), text.to_owned());
            }
        }
    }
    let class = ("the name of a load balancer class", "write it as example.com/name");
    let mut word = |name, choices: &[&str], findings: &mut Findings| {
        let choices: Vec<(&str, &str)> = choices.iter().map(|word| (*word, *word)).collect();
        table.take(name).and_then(|f| f.choice(&choices, findings)).map(str::to_owned)
    };
    service.external_traffic_policy = word("externalTrafficPolicy", &["Cluster", "Local"], findings);
    let families = ["SingleStack", "PreferDualStack", "RequireDualStack"];
    service.ip_family_policy = word("ipFamilyPolicy", &families, findings);
    if let Some(field) = table.take("loadBalancerClass") {
        service.load_balancer_class =
            field.text_that_is(is_qualified_name, class, findings).map(str::to_owned);
    }
    if let Some(field) = table.take("loadBalancerIP") {
        let rule = ("an IP address", "write an address; its numbers may be made with {slot}");
        service.load_balancer_ip = field.text_that_is(is_ip_template, rule, findings).map(str::to_owned);
    }
    if let Some(list) = table.take("loadBalancerSourceRanges") {
        let rule = ("an address range", "write it as 198.51.100.0/24 or 2001:db8::/32");
        let items = list.items(findings).unwrap_or_default();
        let ranges = items.iter().filter_map(|i| i.text_that_is(is_cidr, rule, findings));
        service.load_balancer_source_ranges = ranges.map(str::to_owned).collect();
    }
    service.allocate_load_balancer_node_ports =
        table.take("allocateLoadBalancerNodePorts").and_then(|f| f.flag(findings));
    if let Some(flag) = table.take("publishNotReadyAddresses").and_then(|f| f.flag(findings)) {
        service.publish_not_ready_addresses = flag;
    }
    table.finish(findings);
    service
}

fn annotation_key(field: &Field<'_>, key: &str, findings: &mut Findings) {
    if !is_qualified_name(key) {
        let rule = format!("{} is not an annotation's name", quote(key));
        findings.report(field, rule, "write it as example.com/name");
    } else if key.starts_with("external-ip.dev/") || key.starts_with(crate::names::RESERVED_PREFIX) {
        findings.report(field, "the controller writes this annotation itself", "leave it out");
    }
}

/// Braces may be anything in an annotation (JSON), but a near miss of a placeholder is a mistake.
fn placeholders(field: &Field<'_>, text: &str, findings: &mut Findings) {
    for part in text.split('{').skip(1) {
        let Some((word, _)) = part.split_once('}') else { continue };
        if PLACEHOLDERS.contains(&word) || !word.bytes().all(|b| b.is_ascii_alphabetic()) {
            continue;
        }
        if let Some(close) = closest(word, &PLACEHOLDERS) {
            let rule = format!("unknown placeholder {}", quote(&format!("{{{word}}}")));
            findings.report(field, rule, format!("did you mean '{{{close}}}'?"));
        }
    }
}

fn is_ip_template(text: &str) -> bool {
    text == "{address}" || text.replace("{slot}", "1").parse::<IpAddr>().is_ok()
}
