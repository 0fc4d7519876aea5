//! What the API server does with the ports of a Service: holds them to its rules, and gives them node ports.

use std::collections::BTreeSet;

use serde_json::{Value, json};

pub(crate) struct NodePorts {
    /// The one freed last is given first.
    free: Vec<u16>,
}

impl Default for NodePorts {
    fn default() -> Self {
        Self { free: (30_000..30_200).rev().collect() }
    }
}

fn ports(service: &Value) -> impl Iterator<Item = &Value> {
    service["spec"]["ports"].as_array().into_iter().flatten()
}

fn numbers(service: &Value) -> BTreeSet<u16> {
    ports(service).filter_map(|p| p["nodePort"].as_u64()).map(|n| u16::try_from(n).unwrap()).collect()
}

impl NodePorts {
    /// Gives every port one: that of its name before, else that of the same number under another protocol, else a free one.
    pub(crate) fn fill(&mut self, before: Option<&Value>, after: &mut Value) {
        if !matches!(after["spec"]["type"].as_str(), Some("NodePort" | "LoadBalancer")) {
            return;
        }
        let mut used = numbers(after);
        let held = |name: &Value| {
            before.and_then(|b| ports(b).find(|p| p["name"] == *name)).map(|p| p["nodePort"].clone())
        };
        for port in after["spec"]["ports"].as_array_mut().into_iter().flatten() {
            let old = held(&port["name"]).filter(Value::is_u64);
            if port["nodePort"].is_null()
                && let Some(old) = old
                && used.insert(u16::try_from(old.as_u64().unwrap()).unwrap())
            {
                port["nodePort"] = old;
            }
        }
        let mut by_number: Vec<(Value, Value)> = ports(after)
            .filter(|p| p["nodePort"].is_u64())
            .map(|p| (p["port"].clone(), p["nodePort"].clone()))
            .collect();
        for port in after["spec"]["ports"].as_array_mut().into_iter().flatten() {
            if port["nodePort"].is_null() {
                let same =
                    by_number.iter().find(|(number, _)| *number == port["port"]).map(|(_, n)| n.clone());
                let given = same.unwrap_or_else(|| json!(self.free.pop().expect("a node port is left")));
                by_number.push((port["port"].clone(), given.clone()));
                port["nodePort"] = given;
            }
        }
    }

    /// Takes back what a Service has no more.
    pub(crate) fn release(&mut self, before: Option<&Value>, after: Option<&Value>) {
        let (before, after) =
            (before.map(numbers).unwrap_or_default(), after.map(numbers).unwrap_or_default());
        self.free.extend(before.difference(&after));
    }

    /// One that nobody has.
    pub(crate) fn another(&mut self) -> u16 {
        self.free.pop().expect("a node port is left")
    }
}

/// Why the API server refuses a Service.
pub(crate) fn invalid(service: &Value) -> Option<String> {
    let (mut names, mut points) = (BTreeSet::new(), BTreeSet::new());
    let twice = ports(service).find(|p| {
        !names.insert(p["name"].to_string()) || !points.insert(format!("{}/{}", p["port"], p["protocol"]))
    });
    match twice {
        Some(port) => Some(format!("a port is there twice: {port}")),
        None if names.is_empty() => Some("no ports".to_owned()),
        None => None,
    }
}
