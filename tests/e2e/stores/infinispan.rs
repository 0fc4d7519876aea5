//! An Infinispan cluster as the guide makes it, and the Hot Rod client with our transport factory outside.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Instant;

use local_cluster::image::Image;
use serde_json::{Value, json};

use super::images;
use super::jars::Jars;
use super::outside::{Client, Files, decoded, follows, is_refused, no_route_to, objects, program};
use crate::readme::{Terminal, shell_blocks};
use crate::rig::{Rig, eventually, root, say};
use crate::workload::{Entry, Map, Workload};

const INFINISPAN: Workload =
    Workload { kind: "StatefulSet", namespace: "infinispan", name: "infinispan", annotations: &[] };
/// Keys the client writes.
const KEYS: u64 = 1000;
/// Those whose owners are asked for: each member has some.
const ALONE: RangeInclusive<usize> = 10..=69;

#[test]
#[ignore = "takes minutes: make test-stores"]
fn an_infinispan_cluster_is_used_directly_through_all_that_replaces_members() {
    let (image, jars) = (image(), Jars::built());
    let Some(rig) = Rig::installed() else { return };
    let begun = Instant::now();
    let step = |what: &str| say(&format!("infinispan: {what} after {:?}", begun.elapsed()));
    let store = Infinispan::by_its_guide(&rig, &image);
    let Infinispan { terminal, grow, shrink, announce_names, map, first, password } = &store;
    step("a cluster of three");

    no_route_to(&rig, first);
    let files = Files::new("infinispan");
    let java = || {
        let mut java = program(&rig, "java");
        java.args(jars.arguments("Load")).args(store.properties(&first[0].address().unwrap().to_string()));
        java.arg(TRANSPORT);
        java
    };
    let mut blind = java();
    blind.env("EXTERNAL_IP_MAP", files.write("nat-map.json", "{}"));
    let refused = is_refused(&mut blind, "has no external address in the map");
    step(&format!("a client with an empty map has failed as it should: {refused}"));

    let mut follower = java();
    follows(&mut follower, map, &files);
    let mut client = Client::start(&mut follower);
    client.ready();
    client.all_succeed(2000);
    let used = Members::used_directly(&rig, password, 3);
    let owners = store.each_key_goes_to_its_owner(&rig, &mut client, first);
    step(&format!("all members are used: {used:?}, and each for its own keys: {owners:?}"));

    rig.kubectl(&["-n", "infinispan", "delete", "pod", "infinispan-1", "--grace-period=0", "--force"]);
    let report = client.all_succeed(2000);
    let second = INFINISPAN.routed(&rig, map, 3);
    assert_eq!(second[1].outside, first[1].outside);
    INFINISPAN.rolled_out(&rig);
    store.size(&rig, 3);
    let used = Members::used_directly(&rig, password, 3);
    let after = client.all_succeed(2000);
    let owners = store.each_key_goes_to_its_owner(&rig, &mut client, &second);
    step(&format!("infinispan-1 was killed and replaced: {report:?}, {after:?}, {used:?}, {owners:?}"));

    terminal.types(&rig, grow);
    let four = INFINISPAN.routed(&rig, map, 4);
    store.size(&rig, 4);
    let report = client.all_succeed(4000);
    let used = Members::used_directly(&rig, password, 4);
    let owners = store.each_key_goes_to_its_owner(&rig, &mut client, &four);
    step(&format!("four members: {report:?}, {used:?}, {owners:?}"));

    terminal.types(&rig, shrink);
    let last = INFINISPAN.routed(&rig, map, 3);
    store.size(&rig, 3);
    let report = client.all_succeed(2000);
    let owners = store.each_key_goes_to_its_owner(&rig, &mut client, &last);
    step(&format!("three again: {report:?}, {owners:?}"));
    let outside = |entries: &[Entry]| entries.iter().map(|entry| entry.outside.clone()).collect::<Vec<_>>();
    assert_eq!(outside(first), outside(&last), "each member has the address it began with");
    drop(client);

    terminal.types(&rig, announce_names);
    let named = INFINISPAN.routed(&rig, map, 3);
    store.size(&rig, 3);
    let mut follower = java();
    follows(&mut follower, map, &files);
    let mut client = Client::start(&mut follower);
    client.ready();
    let servers = client.ask("servers").to_string();
    for n in 0..3 {
        assert!(servers.contains(&format!("infinispan-{n}.infinispan.infinispan.svc")), "{servers}");
    }
    let report = client.all_succeed(2000);
    let owners = store.each_key_goes_to_its_owner(&rig, &mut client, &named);
    step(&format!("members announce their names: {servers}, {report:?}, {owners:?}"));
}

/// The property that makes a client go by the map.
pub(super) const TRANSPORT: &str = "transport_factory=dev.externalip.hotrod.ExternalIpTransportFactory";

/// The image that the example asks for.
pub(super) fn image() -> PathBuf {
    images::archive("infinispan", &Image::new("quay.io/infinispan/server:16.0"))
}

/// The cluster of the guide, with three members.
pub(super) struct Infinispan {
    terminal: Terminal,
    grow: String,
    shrink: String,
    announce_names: String,
    pub(super) map: Map,
    pub(super) first: Vec<Entry>,
    password: String,
}

impl Infinispan {
    pub(super) fn by_its_guide(rig: &Rig, image: &Path) -> Self {
        rig.cluster.load_image(image).unwrap();
        let guide = std::fs::read_to_string(root().join("docs/stores/infinispan.md")).unwrap();
        let [install, grow, shrink, announce_names] = shell_blocks(&guide).try_into().unwrap();
        let terminal = Terminal::new(rig);
        terminal.replace("examples/infinispan.yaml", &without_names(rig).to_string());
        rig.made("namespace", "infinispan");
        terminal.types(rig, &install);
        let map = Map::of_cluster(rig, "infinispan", "infinispan");
        let first = INFINISPAN.routed(rig, &map, 3);
        let store = Self { terminal, grow, shrink, announce_names, map, first, password: password(rig) };
        store.size(rig, 3);
        store
    }

    /// Waits until so many members have found each other, and each of them has the keys it is to have.
    fn size(&self, rig: &Rig, count: u64) {
        eventually(&format!("{count} members have found each other"), || {
            let manager = stats(rig, &self.password, "infinispan-0", "cache-managers/default");
            let found = manager["cluster_size"].as_u64();
            if found == Some(count) { Ok(()) } else { Err(format!("{found:?}")) }
        });
        for n in 0..count {
            eventually(&format!("infinispan-{n} moves no keys"), || {
                let cache = stats(rig, &self.password, &format!("infinispan-{n}"), "caches/data");
                let moving = &cache["rehash_in_progress"];
                if moving == false { Ok(()) } else { Err(format!("{moving}")) }
            });
        }
    }

    /// Has the client use one member's keys after the other's: its owner is asked for each of them, and nobody else. How
    /// many keys that was for each member.
    fn each_key_goes_to_its_owner(&self, rig: &Rig, client: &mut Client, members: &[Entry]) -> Vec<usize> {
        let owners = self.owners(rig, members);
        let asked = || Members::of(rig, &self.password, members.len()).operations;
        client.rests(|client| {
            let mut before = asked();
            for owner in 0..members.len() {
                let keys: Vec<_> =
                    ALONE.zip(&owners).filter(|(_, o)| **o == owner).map(|(key, _)| key).collect();
                assert!(!keys.is_empty(), "infinispan-{owner} owns none of {ALONE:?}");
                client.keys(&keys);
                let mut wanted = before.clone();
                wanted[owner] += 2 * keys.len() as u64;
                before = asked();
                assert_eq!(before, wanted, "all operations with keys of infinispan-{owner} are its own");
            }
        });
        (0..members.len()).map(|n| owners.iter().filter(|owner| **owner == n).count()).collect()
    }

    /// Whose each of these keys is before all others, by the cluster's own account.
    fn owners(&self, rig: &Rig, members: &[Entry]) -> Vec<usize> {
        let (first, last) = ALONE.into_inner();
        // the owner is told of the bytes that are sent: so as they are stored, a Protocol Buffers string of six bytes
        let keys = format!("caches/data/%4A%06key-[{first}-{last}]?action=distribution");
        let told = documents(rig, &self.password, "infinispan-0", &keys);
        assert_eq!(told.len(), ALONE.count(), "{told:?}");
        let owner = |key: &Value| {
            assert_eq!(key["contains_key"], true, "{key}");
            let owners = key["owners"].as_array().unwrap();
            let primary = owners.iter().find(|owner| owner["primary"] == true).unwrap();
            let ip = primary["node_addresses"][0].as_str().unwrap().rsplit_once(':').unwrap().0;
            members.iter().position(|member| member.inside == ip).unwrap_or_else(|| panic!("{primary}"))
        };
        told.iter().map(owner).collect()
    }

    /// A client's properties, to begin at this address.
    pub(super) fn properties(&self, at: &str) -> [String; 4] {
        [
            format!("server_list={at}"),
            "auth_username=app".to_owned(),
            format!("auth_password={}", self.password),
            "sasl_mechanism=SCRAM-SHA-256".to_owned(),
        ]
    }
}

/// What members say of themselves.
#[derive(Debug)]
struct Members {
    /// Copies of keys.
    entries: Vec<u64>,
    /// Writes and reads that clients have asked this member for.
    operations: Vec<u64>,
}

impl Members {
    fn of(rig: &Rig, password: &str, count: usize) -> Self {
        let mut members = Self { entries: Vec::new(), operations: Vec::new() };
        for n in 0..count {
            let said = stats(rig, password, &format!("infinispan-{n}"), "caches/data?action=stats");
            let number = |name: &str| said[name].as_u64().unwrap_or_default();
            members.entries.push(number("approximate_entries_in_memory"));
            members.operations.push(number("retrievals") + number("stores"));
        }
        members
    }

    /// Once clients have brought operations to each of them, and each key has two owners.
    fn used_directly(rig: &Rig, password: &str, count: usize) -> Self {
        eventually("all members are used", || {
            let used = Self::of(rig, password, count);
            let all = used.operations.iter().all(|operations| *operations > 100);
            if all && used.entries.iter().sum::<u64>() >= 2 * KEYS {
                Ok(used)
            } else {
                Err(format!("{used:?}"))
            }
        })
    }
}

/// A document of one member's own interface; null where there is none.
fn stats(rig: &Rig, password: &str, pod: &str, path: &str) -> Value {
    documents(rig, password, pod, path).pop().unwrap_or(Value::Null)
}

/// The same for a path with a range in it, as curl has them.
fn documents(rig: &Rig, password: &str, pod: &str, path: &str) -> Vec<Value> {
    let ip = rig.kubectl(&["-n", "infinispan", "get", "pod", pod, "-o", "jsonpath={.status.podIP}"]);
    let mut curl = rig.cluster.in_node("curl").unwrap();
    curl.args(["--header", "Key-Content-Type: application/x-protostream"]); // where there is a key
    curl.args(["--silent", "--max-time", "30", "--digest", "--user", &format!("app:{password}")]);
    let out = curl.arg(format!("http://{ip}:11222/rest/v2/{path}")).output().unwrap();
    serde_json::Deserializer::from_slice(&out.stdout).into_iter().map_while(Result::ok).collect()
}

fn password(rig: &Rig) -> String {
    let users = [
        "-n",
        "infinispan",
        "get",
        "secret",
        "infinispan-users",
        "-o",
        "jsonpath={.data.users\\.properties}",
    ];
    decoded(&rig.kubectl(&users)).trim_start_matches("app=").to_owned()
}

/// The example for a node without a DNS server: members find each other by multicast there.
fn without_names(rig: &Rig) -> Value {
    let mut objects = objects(rig, "examples/infinispan.yaml");
    let set = objects.iter_mut().find(|object| object["kind"] == "StatefulSet").expect("a StatefulSet");
    let env = set["spec"]["template"]["spec"]["containers"][0]["env"].as_array_mut().unwrap();
    let stack = env.iter_mut().find(|variable| variable["name"] == "STACK").expect("a variable STACK");
    stack["value"] = json!("tcp");
    json!({"apiVersion": "v1", "kind": "List", "items": objects})
}
