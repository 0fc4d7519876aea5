//! Whether what the webhook leaves on a new pod is true.

use serde_json::Value;

use super::Verdict;
use super::truth::{
    Point, Truth, annotation, cluster, is_going, is_shared, items, label, number_at, outside, selects, texts,
    token,
};

const RESERVED: &str = "stamp.external-ip.dev/";

impl Truth<'_> {
    /// Judges what the webhook has left on a new pod.
    pub(crate) fn judge_stamp(&self, pod: &Value) -> Verdict {
        let wrong = |what: &str| Err(format!("wrong stamp: {what}: {pod}"));
        let annotations = pod["metadata"]["annotations"].as_object().into_iter().flatten();
        let reserved: Vec<(&str, &str)> =
            annotations.filter_map(|(k, v)| Some((k.strip_prefix(RESERVED)?, v.as_str()?))).collect();
        let id = label(pod, "stamp.external-ip.dev/pod-id");
        let Some(cluster) = cluster(pod) else {
            return if id.is_none() && reserved.is_empty() {
                Ok(())
            } else {
                wrong("it belongs to no cluster")
            };
        };
        let name = pod["metadata"]["name"].as_str();
        match name {
            Some(name) if id != Some(&*format!("{cluster}.{name}")) => return wrong("not its own identity"),
            None if !id.is_some_and(|id| id.starts_with(&format!("{cluster}._"))) => {
                return wrong("no identity");
            }
            _ => {}
        }
        if reserved.iter().all(|(k, _)| *k == "version") {
            return Ok(());
        }
        let find = |key: &str| reserved.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
        let slot: Value = find("slot").and_then(|s| s.parse().ok()).map_or(Value::Null, |n: u32| n.into());
        let told: Vec<(u64, u64)> = reserved
            .iter()
            .filter_map(|(k, v)| {
                Some((k.strip_prefix("port-")?.split('-').next()?.parse().ok()?, v.parse().ok()?))
            })
            .collect();
        let ips = || find("address").into_iter().flat_map(|list| list.split(','));
        let points: Vec<Point> = ips()
            .flat_map(|ip| told.iter().map(move |(_, outside)| (ip.to_owned(), outside.to_string())))
            .collect();
        let Some(service) = self.service(cluster, &slot, &Value::Null) else { return wrong("no such slot") };
        let kept = is_shared(service) || annotation(service, "external-ip.dev/pod") == name;
        if is_going(service) || !kept {
            return wrong("the slot is not kept for it");
        }
        if !selects(service, pod) || service["spec"]["selector"].as_object().is_none_or(|s| s.len() != 1) {
            return wrong("the slot does not lead to it");
        }
        let ingress = &service["status"]["loadBalancer"]["ingress"];
        if !ips().all(|ip| outside(service).contains(&ip)) {
            return wrong("not the Service's address");
        }
        if find("host").is_some_and(|h| texts(ingress, "hostname").all(|i| i != h)) {
            return wrong("not the Service's host");
        }
        let others = self.services.iter().filter(|s| s["metadata"]["name"] != service["metadata"]["name"]);
        let number = |port: &str| port.split('/').next().unwrap_or_default().to_owned();
        if others.flat_map(|s| self.points(s)).any(|(host, port)| points.contains(&(host, number(&port)))) {
            return wrong("another Service has the address");
        }
        let declared = || items(&pod["spec"]["containers"]).flat_map(|c| items(&c["ports"]));
        // one that somebody has bent from one of its names to another is mended
        let shall_lead = |p: &Value, inside: u64| {
            let same = p["name"].as_str().and_then(|n| n.rsplit('-').next()) == Some(&*inside.to_string());
            let own =
                declared().any(|n| token(&n["name"]).is_some_and(|t| token(&p["targetPort"]) == Some(t)));
            is_shared(service) && same && own
        };
        let leads = |(inside, outside): &(u64, u64)| {
            let mut ports = items(&service["spec"]["ports"]).filter(|p| p["port"] == *outside);
            ports.any(|p| number_at(pod, p) == Some(*inside) || shall_lead(p, *inside))
        };
        if told.iter().all(leads) { Ok(()) } else { wrong("not the Service's port") }
    }
}
