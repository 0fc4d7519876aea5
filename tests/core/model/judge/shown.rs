//! The rest of a freed address: what was shown for one pod is not given to another one at once.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::Verdict;
use super::truth::{Truth, annotation, is_shared, items, number_at, slot_of, token};

/// A Service by UID, and of a shared one the port.
type Place = (String, String);

/// Who was shown at a place: the pod's name, and by what the place led to it.
#[derive(Clone)]
struct Last {
    pod: String,
    target: Value,
    /// The last leader of this process that knew of it.
    leader: u32,
}

/// What clients of one replica were shown: for whom, and until when.
#[derive(Default)]
pub(crate) struct Shown {
    past: BTreeMap<Place, (Last, Duration)>,
    present: BTreeMap<Place, Last>,
    /// How many planners it has had.
    leaders: u32,
}

fn place(service: &Value, port: &Value) -> Option<Place> {
    let port = if is_shared(service) { port.to_string() } else { String::new() };
    Some((service["metadata"]["uid"].as_str()?.to_owned(), port))
}

impl Shown {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A new planner looks for the first time.
    pub(crate) fn begin(&mut self) {
        self.leaders += 1;
        self.present.values_mut().for_each(|last| last.leader = self.leaders);
    }

    /// What is shown from `now` on; what was shown before was shown until now.
    pub(crate) fn show(&mut self, truth: &Truth<'_>, documents: &[&Value], now: Duration) {
        let before = std::mem::take(&mut self.present);
        self.past.extend(before.into_iter().map(|(place, pod)| (place, (pod, now))));
        for document in documents {
            let name = document["name"].as_str().unwrap_or_default();
            for entry in items(&document["entries"]).filter(|e| !e["external"].is_null()) {
                let Some(service) = truth.service(name, &entry["slot"], entry) else { continue };
                let pod = entry["pod"].as_str().unwrap_or_default().to_owned();
                for shown in items(&entry["ports"]) {
                    let same =
                        |p: &&Value| p["port"] == shown["external"] && p["protocol"] == shown["protocol"];
                    let port = items(&service["spec"]["ports"]).find(same);
                    let target = port.map_or(Value::Null, |p| p["targetPort"].clone());
                    let last = Last { pod: pod.clone(), target, leader: self.leaders };
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

    /// Ports of a shared Service that led to the pod they were shown for, and shall lead to another one. What somebody
    /// else has bent already stays where it leads, and of what was gone already a new leader knows nothing.
    fn ports_given(&self, truth: &Truth<'_>, service: &Value, planned: &Value) -> Vec<&(Last, Duration)> {
        let to = |port: &Value| -> Vec<&str> {
            let pods = truth.living().filter(|pod| number_at(pod, port).is_some());
            pods.filter_map(|pod| pod["metadata"]["name"].as_str()).collect()
        };
        let blocked = |port: &&Value| port["targetPort"].as_str().is_some_and(|t| t.starts_with('n'));
        let given = |port: &Value| {
            let led_to = |target: &Value| {
                let mut same = items(&service["spec"]["ports"]).filter(|p| p["port"] == port["port"]);
                same.any(|p| token(&p["targetPort"]) == token(target))
            };
            let shown = self.of_another(place(service, &port["port"]), &to(port))?;
            let known = led_to(&shown.0.target) || shown.0.leader == self.leaders;
            (known && !led_to(&port["targetPort"])).then_some(shown)
        };
        items(&planned["spec"]["ports"]).filter(|p| !blocked(p)).filter_map(given).collect()
    }
}

/// A planned write to a shared Service: the number outside of a number inside stays what it is as long as the slot has
/// it. Where somebody has given the protocols of one number two, they may get one again.
pub(crate) fn ports_stay(service: &Value, planned: &Value) -> Verdict {
    let key = |p: &Value| {
        let token = token(&p["targetPort"])?;
        Some((token.to_owned(), slot_of(p)?, p["name"].as_str()?.rsplit('-').next()?.to_owned()))
    };
    let had: Vec<_> = items(&service["spec"]["ports"]).filter_map(|p| Some((key(p)?, &p["port"]))).collect();
    for port in items(&planned["spec"]["ports"]) {
        let Some(wanted) = key(port) else { continue };
        // a slot whose ports somebody has bent to two pods is none any more, and one of two with the same number goes
        let before: Vec<&Value> =
            had.iter().filter(|(k, _)| *k == wanted).map(|(_, number)| *number).collect();
        let is_bent = had.iter().any(|((token, slot, _), number)| {
            let own = *slot == wanted.1;
            own && *token != wanted.0 || !own && before.contains(number)
        });
        if is_bent {
            continue;
        }
        if !before.is_empty() && before.iter().all(|number| **number != port["port"]) {
            return Err(format!("{port} had another number outside: {service}"));
        }
    }
    Ok(())
}
