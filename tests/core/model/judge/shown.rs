//! The rest of a freed address: what was shown for one pod is not given to another one at once.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::Verdict;
use super::truth::{Truth, annotation, is_shared, items, number_at, shown_points};

/// A Service by UID, and of a shared one the port.
type Place = (String, String);

/// Who was shown at a place: the pod's name, and by what the place led to it.
#[derive(Clone)]
struct Last {
    pod: String,
    target: Value,
}

/// What clients of one replica were shown: for whom, and until when.
#[derive(Default)]
pub(crate) struct Shown {
    past: BTreeMap<Place, (Last, Duration)>,
    present: BTreeMap<Place, Last>,
}

fn place(service: &Value, port: &Value) -> Option<Place> {
    let port = if is_shared(service) { port.to_string() } else { String::new() };
    Some((service["metadata"]["uid"].as_str()?.to_owned(), port))
}

impl Shown {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// What is shown from `now` on; what was shown before was shown until now.
    pub(crate) fn show(&mut self, truth: &Truth<'_>, documents: &[&Value], now: Duration) {
        let before = std::mem::take(&mut self.present);
        self.past.extend(before.into_iter().map(|(place, pod)| (place, (pod, now))));
        for document in documents {
            let name = document["name"].as_str().unwrap_or_default();
            for entry in items(&document["entries"]).filter(|e| !e["external"].is_null()) {
                let Some(service) = truth.service(name, &entry["slot"], &shown_points(entry)) else {
                    continue;
                };
                let pod = entry["pod"].as_str().unwrap_or_default().to_owned();
                for shown in items(&entry["ports"]) {
                    let same =
                        |p: &&Value| p["port"] == shown["external"] && p["protocol"] == shown["protocol"];
                    let port = items(&service["spec"]["ports"]).find(same);
                    let target = port.map_or(Value::Null, |p| p["targetPort"].clone());
                    let last = Last { pod: pod.clone(), target };
                    self.present.extend(place(service, &shown["external"]).map(|place| (place, last)));
                }
            }
        }
    }

    /// Until when a place was shown for another pod than these.
    fn of_another(&self, place: Option<Place>, pods: &[&str]) -> Option<&(Last, Duration)> {
        self.past.get(&place?).filter(|(last, _)| !pods.contains(&last.pod.as_str()))
    }

    /// A planned write makes a Service (as the replica saw it) this one: an address that was shown for another pod must
    /// have rested.
    pub(crate) fn rested(
        &self,
        truth: &Truth<'_>,
        service: &Value,
        planned: &Value,
        (now, rest): (Duration, Duration),
    ) -> Verdict {
        let given = if is_shared(service) {
            self.ports_given(truth, service, planned)
        } else {
            self.service_given(service, planned).into_iter().collect()
        };
        match given.into_iter().find(|(_, until)| *until + rest > now) {
            Some((Last { pod, .. }, until)) => Err(format!(
                "the address of {pod}, shown until {until:?}, goes to another pod at {now:?}: {service} becomes {planned}"
            )),
            None => Ok(()),
        }
    }

    fn service_given(&self, service: &Value, planned: &Value) -> Option<&(Last, Duration)> {
        let id = |s: &Value| s["spec"]["selector"]["stamp.external-ip.dev/pod-id"].clone();
        let pod = annotation(planned, "external-ip.dev/pod").unwrap_or_default();
        let stays = id(service) == id(planned)
            || id(planned) == "nobody"
            || annotation(service, "external-ip.dev/pod") == Some(pod);
        if stays { None } else { self.of_another(place(service, &Value::Null), &[pod]) }
    }

    /// Ports of a shared Service that led to the pod they were shown for, and lead to another one now. Ports that
    /// somebody has bent or that a pod does not have any more are not held to it: the product forgets whose they were.
    fn ports_given(&self, truth: &Truth<'_>, service: &Value, planned: &Value) -> Vec<&(Last, Duration)> {
        let to = |port: &Value| -> Vec<&str> {
            let pods = truth.living().filter(|pod| number_at(pod, port).is_some());
            pods.filter_map(|pod| pod["metadata"]["name"].as_str()).collect()
        };
        let blocked = |port: &&Value| port["targetPort"].as_str().is_some_and(|t| t.starts_with('n'));
        let given = |port: &Value| {
            let same = |p: &&Value| (&p["port"], &p["protocol"]) == (&port["port"], &port["protocol"]);
            let before = &items(&service["spec"]["ports"]).find(same)?["targetPort"];
            let shown = self.of_another(place(service, &port["port"]), &to(port))?;
            (*before == shown.0.target && *before != port["targetPort"]).then_some(shown)
        };
        items(&planned["spec"]["ports"]).filter(|p| !blocked(p)).filter_map(given).collect()
    }
}

/// A planned write to a shared Service: the number outside of a number inside stays what it is as long as the slot has
/// it. Where somebody has given the protocols of one number two, they may get one again.
pub(crate) fn ports_stay(service: &Value, planned: &Value) -> Verdict {
    let key = |p: &Value| {
        let token = p["targetPort"].as_str()?.split('-').next()?;
        let token = if token.len() == 9 { token.strip_prefix('n')? } else { token };
        let (slot, rest) = p["name"].as_str()?.split_once('-')?;
        Some((token.to_owned(), slot.to_owned(), rest.split_once('-')?.1.to_owned()))
    };
    let had: Vec<_> = items(&service["spec"]["ports"]).filter_map(|p| Some((key(p)?, &p["port"]))).collect();
    for port in items(&planned["spec"]["ports"]) {
        let Some(wanted) = key(port) else { continue };
        // a slot whose ports somebody has bent to two pods is none any more
        if had.iter().any(|((token, slot, _), _)| *slot == wanted.1 && *token != wanted.0) {
            continue;
        }
        let before: Vec<&Value> =
            had.iter().filter(|(k, _)| *k == wanted).map(|(_, number)| *number).collect();
        if !before.is_empty() && before.iter().all(|number| **number != port["port"]) {
            return Err(format!("{port} had another number outside: {service}"));
        }
    }
    Ok(())
}
