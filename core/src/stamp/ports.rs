//! The names of shared ports on a new pod: each exposed port once more, under the name a shared Service leads to.

use serde_json::json;

use super::patch::{Operation, written};
use super::review::PodObject;
use crate::objects::Protocol;
use crate::shared;

/// A container port to be there: name, number and protocol.
pub(super) type Named = (String, u16, Protocol);

/// Adds the operations that give a pod the `wanted` names, and take those away that came with a copy.
pub(super) fn change(
    pod: &PodObject<'_>,
    wanted: &[Named],
    copied: bool,
    operations: &mut Vec<Operation<'_>>,
) {
    let mut found: Vec<&str> = Vec::new();
    for (path, ports) in pod.ports_by_container() {
        for (index, name, number, protocol) in ports {
            let Some(own) = Some(name).filter(|n| copied && shared::token_of(n).is_some()) else { continue };
            if wanted.iter().any(|w| (w.0.as_str(), w.1, w.2) == (own, number, protocol))
                && !found.contains(&own)
            {
                found.push(own);
            } else {
                operations.push(Operation::Remove { path: format!("{path}/ports/{index}") });
            }
        }
    }
    let missing: Vec<_> = wanted
        .iter()
        .filter(|(name, ..)| !found.contains(&name.as_str()))
        .map(|(name, number, protocol)| {
            written(&json!({"name": name, "containerPort": number, "protocol": protocol}))
        })
        .collect();
    // the number is the network namespace's: it does not matter which container says it
    if missing.is_empty() {
    } else if pod.first_declares_ports() {
        let add = |port| Operation::add("/spec/containers/0/ports/-".to_owned(), port);
        operations.extend(missing.into_iter().map(add));
    } else {
        operations.push(Operation::add("/spec/containers/0/ports".to_owned(), written(&missing)));
    }
}
