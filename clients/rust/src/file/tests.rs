use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Instant;

use serde_json::json;
use tokio::time::{sleep, timeout};

use super::*;
use crate::AddressMapper;

/// Long enough for a machine whose cores are shared; a test that needs it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

async fn eventually(what: &str, there: impl Fn() -> bool) {
    let begun = Instant::now();
    while !there() {
        assert!(begun.elapsed() < PATIENCE, "waited for: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Where member `n` is outside.
fn outside(mapper: &AddressMapper, n: u8) -> Option<String> {
    mapper.external_of(&format!("198.18.0.{n}"), 6379).map(|e| e.to_string())
}

/// A ConfigMap as a kubelet mounts it: files are links into `..data`, a link that is swapped. Makes version `n` the current one.
fn swap(directory: &Path, n: u8, text: &str) {
    let version = format!("..version-{n}");
    std::fs::create_dir(directory.join(&version)).unwrap();
    std::fs::write(directory.join(&version).join("mapping.json"), text).unwrap();
    symlink(&version, directory.join("..next")).unwrap();
    std::fs::rename(directory.join("..next"), directory.join("..data")).unwrap();
}

fn document(members: &[u8]) -> String {
    let entry = |n: &u8| {
        json!({"state": "Routed", "internal": {"ips": [format!("198.18.0.{n}")]},
            "external": {"ips": [format!("203.0.113.{n}")], "host": null},
            "ports": [{"name": "p", "protocol": "TCP", "internal": 6379, "external": 6379}]})
    };
    json!({"entries": members.iter().map(entry).collect::<Vec<_>>()}).to_string()
}

#[tokio::test]
async fn a_mounted_config_map_is_followed_and_a_damaged_one_is_not() {
    let directory = std::env::temp_dir().join(format!("external-ip-client-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let path = directory.join("mapping.json");
    symlink("..data/mapping.json", &path).unwrap();
    let mapper = AddressMapper::file(&path).unwrap();
    eventually("it is missed", || mapper.problem().is_some()).await;
    swap(&directory, 1, &document(&[1]));
    timeout(PATIENCE, mapper.ready()).await.unwrap();
    assert_eq!(outside(&mapper, 1).unwrap(), "203.0.113.1:6379");
    swap(&directory, 2, &document(&[1, 2]));
    eventually("the swap", || outside(&mapper, 2).is_some()).await;
    swap(&directory, 3, "{\"entries\": [");
    eventually("the damage", || mapper.problem().is_some()).await;
    assert!(outside(&mapper, 2).is_some(), "the last good map");
    swap(&directory, 4, &document(&[]));
    eventually("all are withdrawn", || mapper.map().is_empty()).await;
    assert_eq!(mapper.problem(), None);
    assert!(mapper.age().unwrap() < PATIENCE);
    std::fs::remove_dir_all(&directory).unwrap();
}
