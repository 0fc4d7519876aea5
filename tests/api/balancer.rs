//! What load balancers do to those who wait for them: never, late, another address, none any more, not this port. The
//! test is the load balancer, of a Service of one pod and of one that pods share.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::rig::Space;
use crate::support::{eventually, within};

const WAITING: &str = "Pending WaitingForAddress";

/// Writes what a load balancer's controller writes.
pub(crate) async fn give(space: &Space, service: &str, ingress: Value) {
    let status = json!({"status": {"loadBalancer": {"ingress": ingress}}});
    space.api.patch(&space.core(&format!("services/{service}/status")), &status).await.ok();
}

pub(crate) fn of_class(class: &str) -> Value {
    json!({"metadata": {"annotations": {"external-ip.dev/class": class}}})
}

/// Two pods that share a Service and one with its own, which wait for their addresses; the two Services.
struct Served<'s> {
    space: &'s Space,
    own: String,
    shared: String,
}

impl<'s> Served<'s> {
    async fn by_the_test(space: &'s Space) -> Self {
        for (pod, class) in [("own", "nobody-serves"), ("s-0", "nobody-shares"), ("s-1", "nobody-shares")] {
            space.pod(pod, of_class(class)).await;
            // one after the other, so that the first has the first port
            space.reason("c", pod, "WaitingForAddress").await;
        }
        let own = space.services().await.remove(0);
        Self { space, own, shared: "c-ext-shared-0".to_owned() }
    }

    async fn give(&self, own: Value, shared: Value) {
        give(self.space, &self.own, own).await;
        give(self.space, &self.shared, shared).await;
    }

    /// Waits until the map shows exactly this: state and reason, or state, first address and first outside port.
    async fn shows(&self, wanted: &[(&str, &str)]) {
        let wanted: BTreeMap<&str, &str> = wanted.iter().copied().collect();
        eventually(&format!("{wanted:?}"), async || {
            let entries = self.space.entries("c").await;
            let found: BTreeMap<&str, String> = entries.iter().map(|(p, e)| (p.as_str(), line(e))).collect();
            let same = found.iter().map(|(pod, line)| (*pod, line.as_str())).eq(wanted.clone());
            if same { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }
}

fn line(entry: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    match entry["reason"].as_str() {
        Some(reason) => format!("{} {reason}", text(&entry["state"])),
        None => format!(
            "{} {}:{}",
            text(&entry["state"]),
            text(&entry["external"]["ips"][0]),
            entry["ports"][0]["external"]
        ),
    }
}

fn ip(address: &str) -> Value {
    json!([{"ip": address}])
}

#[tokio::test]
async fn without_a_load_balancer_controller_the_reason_says_so_after_two_minutes() {
    let space = Space::new("balancer-never").await;
    for (pod, class) in [("own", "nobody-serves"), ("s-0", "nobody-shares"), ("step", "steps-down")] {
        space.pod(pod, of_class(class)).await;
    }
    for pod in ["own", "s-0", "step"] {
        space.reason("c", pod, "WaitingForAddress").await;
    }
    let wanted = [("own", "NoLoadBalancer"), ("s-0", "NoLoadBalancer")];
    within(Duration::from_secs(150), "the reason NoLoadBalancer, and the next exposure", async || {
        let entries = space.entries("c").await;
        let told = wanted.iter().all(|(pod, reason)| entries[*pod]["reason"] == *reason);
        let stepped = entries["step"]["state"] == "Routed";
        if told && stepped { Ok(()) } else { Err(format!("{entries:?}")) }
    })
    .await;
    for (pod, reason) in wanted.into_iter().chain([("step", "SteppedDown")]) {
        space.event("Pod", pod, reason).await;
    }
    let port = space.entries("c").await["step"]["ports"][0]["external"].as_u64().unwrap();
    assert!((30_000..=32_767).contains(&port), "at the node: {port}");
}

#[tokio::test]
async fn an_address_that_comes_after_half_a_minute_is_published_and_told_to_the_pod_held_for_it() {
    let space = Space::new("balancer-late").await;
    space.pod("held", of_class("patient")).await;
    space.reason("c", "held", "WaitingForAddress").await;
    let held_for = space.services().await.remove(0);
    let gates = async || {
        let pod = space.api.get(&space.core("pods/held")).await.ok();
        (pod["spec"]["schedulingGates"].clone(), pod["metadata"]["annotations"].clone())
    };
    let sharing = json!({"metadata": {"annotations": {"external-ip.dev/class": "nobody-shares", "external-ip.dev/await": "true"}}});
    space.pod("s-0", sharing).await;
    space.reason("c", "s-0", "WaitingForAddress").await;
    let service = space.api.get(&space.core("services/c-ext-shared-0")).await.ok();
    let made: jiff::Timestamp = service["metadata"]["creationTimestamp"].as_str().unwrap().parse().unwrap();
    // what is tested: the time that some load balancers take
    let late = made.duration_until(jiff::Timestamp::now());
    tokio::time::sleep(Duration::from_secs(30).saturating_sub(late.try_into().unwrap_or_default())).await;
    for pod in ["held", "s-0"] {
        space.reason("c", pod, "WaitingForAddress").await;
    }
    assert!(gates().await.0.to_string().contains("external-ip.dev/address"), "{:?}", gates().await);
    give(&space, &held_for, ip("198.51.100.10")).await;
    give(&space, "c-ext-shared-0", ip("198.51.100.11")).await;
    let addresses = space.routed(&["held", "s-0"]).await;
    assert_eq!((addresses["held"].as_str(), addresses["s-0"].as_str()), ("198.51.100.10", "198.51.100.11"));
    let (gates, annotations) = gates().await;
    assert_eq!(gates, Value::Null);
    assert_eq!(annotations["stamp.external-ip.dev/address"], "198.51.100.10");
    let sharing = space.api.get(&space.core("pods/s-0")).await.ok();
    let told = |key: &str| sharing["metadata"]["annotations"][format!("stamp.external-ip.dev/{key}")].clone();
    assert_eq!((told("address"), told("port-11222")), (json!("198.51.100.11"), json!("20000")));
}

#[tokio::test]
async fn an_address_that_changes_is_followed_by_every_slot_behind_it() {
    let space = Space::new("balancer-changes").await;
    let served = Served::by_the_test(&space).await;
    served.give(json!([{"ip": "198.51.100.21"}, {"ip": "198.51.100.20"}]), ip("198.51.100.24")).await;
    let first = [
        ("own", "Routed 198.51.100.20:11222"),
        ("s-0", "Routed 198.51.100.24:20000"),
        ("s-1", "Routed 198.51.100.24:20001"),
    ];
    served.shows(&first).await;
    assert_eq!(space.entries("c").await["own"]["external"]["ips"], json!(["198.51.100.20", "198.51.100.21"]));
    served.give(ip("198.51.100.22"), ip("198.51.100.25")).await;
    let next = [
        ("own", "Routed 198.51.100.22:11222"),
        ("s-0", "Routed 198.51.100.25:20000"),
        ("s-1", "Routed 198.51.100.25:20001"),
    ];
    served.shows(&next).await;
}

#[tokio::test]
async fn an_address_that_is_taken_away_takes_its_entries_along_until_there_is_one_again() {
    let space = Space::new("balancer-goes").await;
    let served = Served::by_the_test(&space).await;
    let routed = [
        ("own", "Routed 198.51.100.30:11222"),
        ("s-0", "Routed 198.51.100.31:20000"),
        ("s-1", "Routed 198.51.100.31:20001"),
    ];
    served.give(ip("198.51.100.30"), ip("198.51.100.31")).await;
    served.shows(&routed).await;
    served.give(json!([]), json!([])).await;
    served.shows(&[("own", WAITING), ("s-0", WAITING), ("s-1", WAITING)]).await;
    for (pod, entry) in space.entries("c").await {
        assert_eq!((&entry["external"], &entry["ports"]), (&Value::Null, &json!([])), "{pod}");
    }
    served.give(ip("198.51.100.30"), ip("198.51.100.31")).await;
    served.shows(&routed).await;
}

#[tokio::test]
async fn a_port_that_is_refused_takes_out_the_slot_it_belongs_to_and_no_other() {
    let space = Space::new("balancer-refuses").await;
    let served = Served::by_the_test(&space).await;
    let points = |port: u64, error: Value| {
        let ports = json!([{"port": port, "protocol": "TCP", "error": error}]);
        json!([{"ip": "198.51.100.40"}, {"ip": "198.51.100.41", "ports": ports}])
    };
    let of = |at: &str, port: u64, error: Value| json!([{"ip": at, "ports": [{"port": port, "protocol": "TCP", "error": error}]}]);
    let full = json!("example.com/NoRoom");
    served.give(points(11_222, full.clone()), of("198.51.100.42", 20_001, full)).await;
    let refused =
        [("own", "Pending PortError"), ("s-0", "Routed 198.51.100.42:20000"), ("s-1", "Pending PortError")];
    served.shows(&refused).await;
    for pod in ["own", "s-1"] {
        let message = space.reason("c", pod, "PortError").await;
        assert!(message.contains("/TCP: example.com/NoRoom"), "{message}");
        assert_eq!(space.entries("c").await[pod]["external"], Value::Null);
        space.event("Pod", pod, "PortError").await;
    }
    served.give(points(11_222, Value::Null), of("198.51.100.42", 20_001, Value::Null)).await;
    let taken = [
        ("own", "Routed 198.51.100.40:11222"),
        ("s-0", "Routed 198.51.100.42:20000"),
        ("s-1", "Routed 198.51.100.42:20001"),
    ];
    served.shows(&taken).await;
}
