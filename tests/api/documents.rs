//! The map as readers get it: forms, headers, ConfigMaps, who may.

use std::time::{Duration, Instant};

use external_ip_controller::map::Position;
use serde_json::{Value, json};

use crate::rig::{CONFIG, Space, ca, fetch, rig};
use crate::support::product::Product;
use crate::support::{eventually, https};

#[tokio::test]
async fn the_old_form_the_full_document_the_watch_and_the_config_maps_say_the_same() {
    let space = Space::new("doc-same").await;
    space.stateful_set(2, json!({})).await;
    let addresses = space.routed(&["c-0", "c-1"]).await;
    let entries = space.entries("c").await;
    let pairs: Vec<String> = addresses
        .iter()
        .map(|(pod, outside)| format!("{}:{outside}", entries[pod]["internal"]["ips"][0].as_str().unwrap()))
        .collect();
    let old = space.fetch("/", &[]).await;
    assert_eq!(old.status, 200);
    for pair in &pairs {
        assert!(old.body.contains(pair), "{pair} in\n{}", old.body);
    }
    let document = space.fetch(&format!("/v1/mapping/{}/c", space.name), &[]).await.json();
    let whole = space.fetch("/v1/mapping", &[]).await.json();
    let ours = whole["clusters"].as_array().unwrap().iter().find(|c| c["namespace"] == space.name.as_str());
    assert_eq!(ours, Some(&document));
    let path = format!("/v1/watch/{}/c", space.name);
    let event =
        https::beginning(space.rig.product.mapping, &ca(&space.api).await, &path, "}\n\n").await.unwrap();
    let data = event.lines().find_map(|line| line.strip_prefix("data:")).expect("a document");
    assert_eq!(serde_json::from_str::<Value>(data).unwrap(), document);
    let data = eventually("the ConfigMap says the same", async || {
        let map = space.api.get(&space.core("configmaps/c-external-ips")).await.body;
        let text = map["data"]["mapping.json"].as_str().unwrap_or_default();
        let same = serde_json::from_str::<Value>(text).is_ok_and(|d| d == document);
        if same { Ok(map["data"].clone()) } else { Err(map.to_string()) }
    })
    .await;
    let yaml = data["mapping.yaml"].as_str().unwrap();
    assert!(pairs.iter().all(|p| yaml.contains(p)), "{yaml}");
    let nat: Value = serde_json::from_str(data["nat-map.json"].as_str().unwrap()).unwrap();
    for (pod, outside) in &addresses {
        let inside = entries[pod]["internal"]["ips"][0].as_str().unwrap();
        assert_eq!(nat[format!("{inside}:11222")], json!({"host": outside, "port": 11222}));
    }
    assert!(data["ca.crt"].as_str().unwrap().contains("BEGIN CERTIFICATE"));
    eventually("the aggregate ConfigMap is the old form", async || {
        let path = "/api/v1/namespaces/external-ip-controller/configmaps/external-ip-mapping";
        let map = space.api.get(path).await.body;
        let yaml = map["data"]["mapping.yaml"].as_str().unwrap_or_default();
        if pairs.iter().all(|p| yaml.contains(p)) { Ok(()) } else { Err(map.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn a_config_map_that_is_deleted_or_edited_is_mended() {
    let space = Space::new("doc-mended").await;
    space.stateful_set(1, json!({})).await;
    space.routed(&["c-0"]).await;
    let path = space.core("configmaps/c-external-ips");
    let routed = async |what: &str| {
        eventually(what, async || {
            let map = space.api.get(&path).await.body;
            let text = map["data"]["mapping.json"].as_str().unwrap_or_default().to_owned();
            if text.contains("Routed") { Ok(map["metadata"]["uid"].clone()) } else { Err(map.to_string()) }
        })
        .await
    };
    let first = routed("it is written").await;
    space.api.delete(&path).await.ok();
    let second = eventually("it is made again", async || match routed("it is there").await {
        uid if uid != first => Ok(uid),
        uid => Err(uid.to_string()),
    })
    .await;
    space.api.patch(&path, &json!({"data": {"mapping.json": "{}", "theirs": "kept"}})).await.ok();
    assert_eq!(routed("it is mended").await, second);
}

#[tokio::test]
async fn a_config_map_that_is_not_ours_is_left_alone() {
    let space = Space::new("doc-foreign").await;
    let foreign = json!({"metadata": {"name": "c-external-ips"}, "data": {"mapping.json": "theirs"}});
    space.api.post(&space.core("configmaps"), &foreign).await.ok();
    space.stateful_set(1, json!({})).await;
    space.routed(&["c-0"]).await;
    space.writes(0).await;
    let map = space.api.get(&space.core("configmaps/c-external-ips")).await.ok();
    assert_eq!(map["data"], json!({"mapping.json": "theirs"}));
}

#[tokio::test]
async fn readers_are_told_form_age_position_and_whether_anything_changed() {
    let space = Space::new("doc-headers").await;
    space.stateful_set(1, json!({})).await;
    space.routed(&["c-0"]).await;
    let path = format!("/v1/mapping/{}/c", space.name);
    let json = space.fetch(&path, &[]).await;
    let yaml = space.fetch(&path, &[("accept", "application/yaml")]).await;
    assert_eq!(
        (json.header("content-type"), yaml.header("content-type")),
        ("application/json", "application/yaml")
    );
    assert_ne!(json.header("etag"), yaml.header("etag"));
    assert!(yaml.body.contains("pod: 'c-0'"), "{}", yaml.body);
    let age: u64 = json.header("age").parse().unwrap();
    assert!(age <= 30, "{age}");
    let unchanged = space.fetch(&path, &[("if-none-match", json.header("etag"))]).await;
    assert_eq!((unchanged.status.as_u16(), unchanged.body.as_str()), (304, ""));
    let position = json.header("map-position").to_owned();
    assert_eq!(space.fetch(&path, &[("map-position", &position)]).await.status, 200);
    let unheard_of = space.fetch(&path, &[("map-position", "p9999999999.s1.e1.n1")]).await;
    assert_eq!((unheard_of.status.as_u16(), unheard_of.header("mapping-reset")), (200, "true"));
    assert!(!unheard_of.header("map-position").contains("9999999999"), "to begin anew with");
    assert_eq!(space.fetch("/v1/mapping/nowhere/nothing", &[]).await.status, 404);
}

#[tokio::test]
async fn a_reader_that_goes_from_replica_to_replica_is_never_refused() {
    let space = Space::new("doc-wander").await;
    space.stateful_set(1, json!({})).await;
    space.routed(&["c-0"]).await;
    // what a replica knows from its first list the others may not know before their next bookmark
    let second = space.rig.replica("wander", CONFIG);
    second.ready().await;
    let path = format!("/v1/mapping/{}/c", space.name);
    let mut position = String::from("p1");
    let mut slowest = Duration::ZERO;
    for round in 0..40 {
        let replica = if round % 2 == 0 { second.mapping } else { space.rig.product.mapping };
        let begun = Instant::now();
        let answer = fetch(replica, &space.api, &path, &[("map-position", &position)]).await;
        slowest = slowest.max(begun.elapsed());
        let at = answer.header("map-position");
        assert_eq!(answer.status, 200, "round {round}, {position} at {at}: {}", answer.body);
        assert_eq!(answer.header("mapping-reset"), "");
        answer.header("map-position").clone_into(&mut position);
    }
    assert!(slowest < Duration::from_secs(4), "no bookmark came early: {slowest:?}");
}

#[tokio::test]
async fn a_reader_during_a_rolling_restart_never_sees_the_map_go_back() {
    let space = Space::new("doc-rolling").await;
    space.stateful_set(1, json!({})).await;
    space.routed(&["c-0"]).await;
    let mut old = space.rig.replica("rolling-0", CONFIG);
    old.ready().await;
    let reader = tokio::sync::Mutex::new(Reader { position: "p1".parse().unwrap(), members: 0 });
    for round in 1..4_u32 {
        let new = space.rig.replica(&format!("rolling-{round}"), CONFIG);
        new.ready().await;
        space.scale(round + 1).await; // while it moves between the two
        let wanted = usize::try_from(round).unwrap() + 1;
        eventually("it sees the new member at both", async || {
            let mut reader = reader.lock().await;
            let seen = (reader.read(&space, &old).await?, reader.read(&space, &new).await?);
            if seen == (wanted, wanted) { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
        old = new; // and the other ends
    }
}

/// A client that gives back the position it was told last.
struct Reader {
    position: Position,
    members: usize,
}

impl Reader {
    /// How many members this replica shows; panics where it knows less than was read before.
    async fn read(&mut self, space: &Space, replica: &Product) -> Result<usize, String> {
        let path = format!("/v1/mapping/{}/c", space.name);
        let position = self.position.to_string();
        let answer = fetch(replica.mapping, &space.api, &path, &[("map-position", &position)]).await;
        if answer.status == 503 {
            return Err(answer.body); // it is behind, and says so
        }
        let told: Position = answer.header("map-position").parse().unwrap();
        assert!(!told.is_behind(&self.position), "{} and then {told}", self.position);
        assert_eq!(answer.header("mapping-reset"), "");
        let members = answer.json()["entries"].as_array().unwrap().len();
        assert!(members >= self.members, "{} members were shown before: {}", self.members, answer.body);
        (self.position, self.members) = (told, members);
        Ok(members)
    }
}

#[tokio::test]
async fn with_tokens_a_reader_sees_what_rbac_lets_it_see_and_nothing_else() {
    let space = Space::new("doc-token").await;
    space.stateful_set(1, json!({})).await;
    space.routed(&["c-0"]).await;
    let guarded = space.rig.replica("guarded", &CONFIG.replace("access: open", "access: token"));
    guarded.ready().await;
    let path = format!("/v1/mapping/{}/c", space.name);
    let ask = async |path: &str, token: Option<&str>| {
        let bearer = token.map(|t| format!("Bearer {t}"));
        let headers: Vec<(&str, &str)> = bearer.iter().map(|b| ("authorization", b.as_str())).collect();
        fetch(guarded.mapping, &space.api, path, &headers).await
    };
    let nobody = ask(&path, None).await;
    assert_eq!(nobody.status, 401);
    assert!(nobody.header("www-authenticate").starts_with("Bearer"));
    assert_eq!(ask(&path, Some("invented")).await.status, 401);

    let token = async |audience: &str| {
        let body = json!({"spec": {"audiences": [audience]}});
        let made = space.api.post(&space.core("serviceaccounts/default/token"), &body).await.ok();
        made["status"]["token"].as_str().unwrap().to_owned()
    };
    let ours = token("external-ip.dev").await;
    assert_eq!(
        ask(&path, Some(&token("https://kubernetes.default.svc").await)).await.status,
        401,
        "another audience"
    );
    assert_eq!(ask(&path, Some(&ours)).await.status, 403, "known, and no right");

    let rbac = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{}", space.name);
    let rule = json!({"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["c-external-ips"], "verbs": ["get"]});
    space
        .api
        .post(&format!("{rbac}/roles"), &json!({"metadata": {"name": "reader"}, "rules": [rule]}))
        .await
        .ok();
    let binding = json!({"metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": space.name}]});
    space.api.post(&format!("{rbac}/rolebindings"), &binding).await.ok();
    eventually("the right counts once the cached answer has ended", async || {
        match ask(&path, Some(&ours)).await {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer.body),
        }
    })
    .await;
    assert_eq!(ask("/v1/mapping", Some(&ours)).await.status, 403, "the whole map is another right");
    assert_eq!(ask("/", Some(&ours)).await.status, 403);
    assert_eq!(ask("/ca.pem", None).await.status, 200);
}

#[tokio::test]
async fn metrics_and_probes_are_served_without_names_of_objects() {
    let space = Space::new("doc-metrics").await;
    space.stateful_set(1, json!({})).await;
    space.routed(&["c-0"]).await;
    let text = space.rig.product.admin("/metrics").await.body;
    assert!(text.trim_end().ends_with("# EOF"), "OpenMetrics");
    assert!(text.contains("state=\"Routed\""), "{text}");
    assert!(!text.contains("doc-metrics") && !text.contains("c-0"), "bounded cardinality");
    assert_eq!(space.rig.product.admin("/livez").await.status, 200);
}

#[tokio::test]
async fn with_certificates_from_files_readers_find_their_ca() {
    let rig = rig().await;
    let files = rig.cluster.dir().unwrap().join("dev-ca");
    let dev_ca = concat!(env!("CARGO_MANIFEST_DIR"), "/certs/dev-ca");
    let made = std::process::Command::new(dev_ca).arg("--out").arg(&files).arg("127.0.0.1").output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let file = |name: &str| files.join(name).display().to_string();
    let source = json!({"certificate": file("tls.crt"), "key": file("tls.key"), "ca": file("ca.crt")});
    let replica = rig.replica("files", &format!("{CONFIG}\ntls: {}\n", json!({"mapping": source})));
    replica.ready().await;
    let ca = std::fs::read_to_string(file("ca.crt")).unwrap();
    let answer =
        https::get(replica.mapping, &ca, "/ca.pem", &[]).await.expect("this CA issued what is served");
    assert_eq!((answer.status.as_u16(), answer.body.trim()), (200, ca.trim()));
}
