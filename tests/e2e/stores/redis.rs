//! A Redis Cluster as the guide makes it, and redis-py outside.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use local_cluster::image::Image;
use serde_json::{Value, json};

use super::images::{self, cache, run};
use super::jars::Jars;
use super::outside::{Client, Files, decoded, follows, is_refused, no_route_to, objects, program};
use crate::readme::{Terminal, shell_blocks};
use crate::rig::{Rig, eventually, root, say};
use crate::workload::{Entry, Map, Workload};

const REDIS: Workload = Workload { kind: "StatefulSet", namespace: "redis", name: "redis", annotations: &[] };
/// Keys the client writes.
const KEYS: u64 = 1000;

#[test]
#[ignore = "takes minutes: make test-stores"]
fn a_redis_cluster_is_used_directly_through_all_that_replaces_members() {
    let (image, jars) = (image(), Jars::built());
    let Some(rig) = Rig::installed() else { return };
    let begun = Instant::now();
    let step = |what: &str| say(&format!("redis: {what} after {:?}", begun.elapsed()));
    let store = Redis::by_its_guide(&rig, &image);
    let Redis { terminal, grow, shrink, map, first, .. } = &store;
    step("a cluster of three");

    no_route_to(&rig, first);
    let files = Files::new("redis");
    let python = || {
        let mut python = program(&rig, "python3");
        python
            .arg(root().join("tests/stores/redis/client.py"))
            .env("PYTHONPATH", packages())
            .env("PASSWORD", &store.password);
        python
    };
    let empty = files.write("nat-map.json", "{}");
    is_refused(python().env("EXTERNAL_IP_MAP", &empty), "the map has no members");
    let at = format!("at={}", first[0].address().unwrap());
    let mut jedis = program(&rig, "java");
    jedis.args(jars.arguments("RedisCluster")).args([
        &at,
        &format!("password={}", store.password),
        "mapped=true",
    ]);
    let refused = is_refused(jedis.env("EXTERNAL_IP_MAP", &empty), "has no external address in the map");
    step(&format!("redis-py and Jedis with an empty map have failed as they should: {refused}"));

    let mut follower = python();
    follows(&mut follower, map, &files);
    let mut client = Client::start(&mut follower);
    client.ready();
    client.all_succeed(2000);
    let used = Members::of(&rig, 3);
    assert_eq!(used.keys.iter().sum::<u64>(), KEYS, "{used:?}");
    used.all_used_directly();
    step(&format!("all members are used directly: {used:?}"));

    rig.kubectl(&["-n", "redis", "delete", "pod", "redis-1", "--grace-period=0", "--force"]);
    let second = replaced(&rig, map, &first[1].uid);
    assert_eq!(second[1].outside, first[1].outside);
    REDIS.rolled_out(&rig);
    let used = eventually("the successor is used", || {
        let used = Members::of(&rig, 3);
        if used.operations[1] > 100 { Ok(used) } else { Err(format!("{used:?}")) }
    });
    let report = client.all_succeed(1);
    let after = used_directly_from_now_on(&rig, &mut client, 3);
    step(&format!("redis-1 was replaced: {report:?}, {used:?}, then {after:?}"));

    terminal.types(&rig, grow);
    REDIS.routed(&rig, map, 4);
    let report = client.all_succeed(1);
    let used = used_directly_from_now_on(&rig, &mut client, 4);
    step(&format!("four members: {report:?}, {used:?}"));

    terminal.types(&rig, shrink);
    let last = REDIS.routed(&rig, map, 3);
    let report = client.all_succeed(2000);
    let used = used_directly_from_now_on(&rig, &mut client, 3);
    step(&format!("three again: {report:?}, {used:?}"));
    let outside = |entries: &[Entry]| entries.iter().map(|entry| entry.outside.clone()).collect::<Vec<_>>();
    assert_eq!(outside(first), outside(&last), "each member has the address it began with");
    drop(client);

    let announce = std::fs::read_to_string(root().join("docs/announce.md")).unwrap();
    let [announce] = shell_blocks(&announce).try_into().unwrap();
    terminal.types(&rig, &announce);
    let members = announced(&rig, &REDIS.routed(&rig, map, 3));
    let mut plain = python();
    plain.env("MEMBER", &first[0].outside);
    let mut plain = Client::start(&mut plain);
    plain.ready();
    let used = used_directly_from_now_on(&rig, &mut plain, 3);
    step(&format!("a client without a map goes by what the members announce: {used:?}\n{members}"));
}

/// The members' table, once each announces its external address to clients and is known to the others by its own.
fn announced(rig: &Rig, members: &[Entry]) -> String {
    eventually("each member announces its external address", || {
        let known = ask(rig, 0, "cluster nodes");
        let announces = |m: &Entry| known.contains(&format!(" {}:6379@16379,{}", m.inside, m.outside));
        if members.iter().all(announces) { Ok(known) } else { Err(known) }
    })
}

/// The image that the example asks for.
pub(super) fn image() -> PathBuf {
    images::archive("redis", &Image::new("redis:7.0"))
}

/// The cluster of the guide, with three members.
pub(super) struct Redis {
    terminal: Terminal,
    grow: String,
    shrink: String,
    pub(super) map: Map,
    pub(super) first: Vec<Entry>,
    pub(super) password: String,
    _storage: Storage,
}

impl Redis {
    pub(super) fn by_its_guide(rig: &Rig, image: &Path) -> Self {
        rig.cluster.load_image(image).unwrap();
        let storage = Storage::new(rig);
        let guide = std::fs::read_to_string(root().join("docs/stores/redis.md")).unwrap();
        let [install, make, grow, shrink] = shell_blocks(&guide).try_into().unwrap();
        let terminal = Terminal::new(rig);
        terminal.replace("examples/redis.yaml", &storage.instead_of_claims(rig).to_string());
        rig.made("namespace", "redis");
        terminal.types(rig, &install);
        let map = Map::of_cluster(rig, "redis", "redis");
        let first = REDIS.routed(rig, &map, 3);
        terminal.types(rig, &make);
        let secret = ["-n", "redis", "get", "secret", "redis", "-o", "jsonpath={.data.password}"];
        let password = decoded(&rig.kubectl(&secret));
        Self { terminal, grow, shrink, map, first, password, _storage: storage }
    }
}

/// Once a redirection has told where each key is now: all members have their keys, and are asked for no others.
fn used_directly_from_now_on(rig: &Rig, client: &mut Client, count: usize) -> Members {
    client.all_succeed(2 * KEYS + 2);
    Members::forget(rig, count);
    client.all_succeed(2000);
    let used = Members::of(rig, count);
    assert_eq!(used.keys.iter().sum::<u64>(), KEYS, "{used:?}");
    used.all_used_directly();
    used
}

/// The map, once it shows another redis-1.
fn replaced(rig: &Rig, map: &Map, uid: &str) -> Vec<Entry> {
    eventually("another redis-1", || match REDIS.pods(rig).get("redis-1") {
        Some(found) if found != uid => Ok(()),
        found => Err(format!("{found:?}")),
    });
    REDIS.routed(rig, map, 3)
}

/// What members say of themselves.
#[derive(Debug)]
struct Members {
    keys: Vec<u64>,
    /// Writes and reads.
    operations: Vec<u64>,
    /// Operations that were for somebody else.
    redirected: Vec<u64>,
}

impl Members {
    fn of(rig: &Rig, count: usize) -> Self {
        let mut members = Self { keys: Vec::new(), operations: Vec::new(), redirected: Vec::new() };
        for n in 0..count {
            let said = ask(rig, n, "dbsize; redis-cli info commandstats; redis-cli info errorstats");
            let number = |prefix: &str| -> u64 {
                let rest = said.lines().find_map(|line| line.trim().strip_prefix(prefix));
                let digits = rest.unwrap_or("0").split(|c: char| !c.is_ascii_digit()).next();
                digits.unwrap_or_default().parse().unwrap()
            };
            members.keys.push(number(""));
            members.operations.push(number("cmdstat_set:calls=") + number("cmdstat_get:calls="));
            members.redirected.push(number("errorstat_MOVED:count=") + number("errorstat_ASK:count="));
        }
        members
    }

    /// Begins their statistics anew.
    fn forget(rig: &Rig, count: usize) {
        (0..count).for_each(|n| drop(ask(rig, n, "config resetstat")));
    }

    fn all_used_directly(&self) {
        assert!(self.keys.iter().all(|keys| *keys > 100), "keys are spread: {self:?}");
        assert!(self.operations.iter().all(|operations| *operations > 100), "all are used: {self:?}");
        assert!(
            self.redirected.iter().all(|redirected| *redirected == 0),
            "none was asked in vain: {self:?}"
        );
    }
}

fn ask(rig: &Rig, member: usize, what: &str) -> String {
    let pod = format!("redis-{member}");
    rig.kubectl(&["-n", "redis", "exec", &pod, "--", "sh", "-c", &format!("redis-cli {what}")])
}

/// The node has no storage provisioner: a directory each, by the pod's name, stands in for the claims.
struct Storage(PathBuf);

impl Storage {
    fn new(rig: &Rig) -> Self {
        let directory = rig.cluster.dir().unwrap().join("redis");
        for n in 0..4 {
            let member = directory.join(format!("redis-{n}"));
            std::fs::create_dir_all(&member).unwrap();
            std::fs::set_permissions(&member, Permissions::from_mode(0o777)).unwrap();
        }
        Self(directory)
    }

    /// The example with them.
    fn instead_of_claims(&self, rig: &Rig) -> Value {
        let mut objects = objects(rig, "examples/redis.yaml");
        let set = objects.iter_mut().find(|object| object["kind"] == "StatefulSet").expect("a StatefulSet");
        let claims = set["spec"].as_object_mut().unwrap().remove("volumeClaimTemplates");
        assert_eq!(claims.unwrap()[0]["metadata"]["name"], "data");
        let pod = &mut set["spec"]["template"]["spec"];
        pod["volumes"] = json!([{"name": "data", "hostPath": {"path": self.0, "type": "Directory"}}]);
        let container = &mut pod["containers"][0];
        container["volumeMounts"][0]["subPathExpr"] = json!("$(POD_NAME)");
        let name = json!({"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}});
        container["env"].as_array_mut().unwrap().push(name);
        json!({"apiVersion": "v1", "kind": "List", "items": objects})
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// redis-py as our client's tests have it, fetched once.
fn packages() -> PathBuf {
    let wanted = root().join("clients/python/requirements.txt");
    let state = images::state(std::slice::from_ref(&wanted), "redis-py");
    let directory = cache().join(format!("python-{state:016x}"));
    if !directory.exists() {
        let fresh = directory.with_extension("fresh");
        let _ = std::fs::remove_dir_all(&fresh);
        let pip =
            ["-m", "pip", "install", "--quiet", "--root-user-action=ignore", "--require-hashes", "--target"];
        run(Command::new("python3").args(pip).arg(&fresh).arg("--requirement").arg(wanted));
        std::fs::rename(fresh, &directory).unwrap();
    }
    directory
}
