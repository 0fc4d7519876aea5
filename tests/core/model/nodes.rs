//! Nodes: they come and go, and their addresses change.

use serde_json::{Value, json};

use crate::judge::Kind;
use crate::server::Server;
use crate::step::NodeChange;

const NAMES: [&str; 3] = ["n-0", "n-1", "n-2"];

/// All that are missing are there, and each has an address.
pub(crate) fn restore(server: &mut Server, dual: bool) {
    for (number, name) in (0u8..).zip(NAMES) {
        if server.get(Kind::Node, name).is_none() {
            server.create(Kind::Node, json!({"metadata": {"name": name}}));
        }
        let bare = server.get(Kind::Node, name).is_some_and(|n| n["status"]["addresses"][0].is_null());
        if bare {
            put(server, name, &inside(number, dual));
        }
    }
}

pub(crate) fn change(server: &mut Server, node: u8, change: NodeChange, dual: bool) -> bool {
    if change == NodeChange::Back {
        let there = server.names(Kind::Node).len();
        restore(server, dual);
        return server.names(Kind::Node).len() > there;
    }
    let Some(name) = server.nth(Kind::Node, node) else { return false };
    let number = u8::try_from(NAMES.iter().position(|n| *n == name).unwrap()).unwrap();
    match change {
        NodeChange::Gone => server.remove(Kind::Node, &name),
        NodeChange::Bare => put(server, &name, &[]),
        NodeChange::Inside => put(server, &name, &inside(number, dual)),
        NodeChange::Outside { address } => {
            let mut addresses = inside(number, dual);
            addresses.push(json!({"type": "ExternalIP", "address": format!("203.0.113.{}", 200 + address)}));
            if dual && address % 2 == 0 {
                let v6 = format!("2001:db8:1::{}", 1 + address);
                addresses.push(json!({"type": "ExternalIP", "address": v6}));
            }
            put(server, &name, &addresses)
        }
        NodeChange::Back => unreachable!("dealt with above"),
    }
}

fn inside(number: u8, dual: bool) -> Vec<Value> {
    let mut addresses = vec![
        json!({"type": "Hostname", "address": NAMES[usize::from(number)]}),
        json!({"type": "InternalIP", "address": format!("198.18.7.{}", 1 + number)}),
    ];
    if dual {
        addresses.push(json!({"type": "InternalIP", "address": format!("fd00:7::{}", 1 + number)}));
    }
    addresses
}

fn put(server: &mut Server, name: &str, addresses: &[Value]) -> bool {
    server.edit(Kind::Node, name, |node| node["status"]["addresses"] = json!(addresses))
}
