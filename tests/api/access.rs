//! Who may read the map, tried out: tokens that are not for us, not any more, or of somebody else.

use serde_json::{Value, json};

use crate::rig::{CONFIG, Space, fetch};
use crate::support::eventually;
use crate::support::https::Response;
use crate::support::product::Product;

const AUDIENCE: &str = "external-ip.dev";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// A replica that asks for tokens, on the shared cluster.
async fn guarded(space: &Space) -> Product {
    let product = space.rig.replica(&space.name, &CONFIG.replace("access: open", "access: token"));
    product.ready().await;
    product
}

/// A token of the namespace's account `name`, which is made where it is not there.
async fn token(space: &Space, name: &str, bound_to: Value) -> String {
    space.api.post(&space.core("serviceaccounts"), &json!({"metadata": {"name": name}})).await;
    let body = json!({"spec": {"audiences": [AUDIENCE], "boundObjectRef": bound_to}});
    let made = space.api.post(&space.core(&format!("serviceaccounts/{name}/token")), &body).await.ok();
    made["status"]["token"].as_str().unwrap().to_owned()
}

/// Lets an account of the namespace read the namespace's cluster `c`.
async fn allow(space: &Space, account: &str) {
    let rbac = format!("{RBAC}/namespaces/{}", space.name);
    let rule = json!({"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["c-external-ips"], "verbs": ["get"]});
    let metadata = json!({"name": account});
    space.api.post(&format!("{rbac}/roles"), &json!({"metadata": metadata, "rules": [rule]})).await.ok();
    let binding = json!({"metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": space.name}]});
    space.api.post(&format!("{rbac}/rolebindings"), &binding).await.ok();
}

async fn ask(space: &Space, product: &Product, path: &str, token: &str) -> Response {
    let bearer = format!("Bearer {token}");
    fetch(product.mapping, &space.api, path, &[("authorization", &bearer)]).await
}

/// Waits until the answer is this one: rights take effect in their own time, and answers count for 10 s.
async fn until(space: &Space, product: &Product, path: &str, token: &str, status: u16) -> Response {
    eventually(&format!("{path} is answered {status}"), async || {
        let answer = ask(space, product, path, token).await;
        if answer.status == status { Ok(answer) } else { Err(format!("{} {}", answer.status, answer.body)) }
    })
    .await
}

#[tokio::test]
async fn a_token_ends_here_when_it_ends_at_the_api_server() {
    let space = Space::new("access-ended").await;
    let product = guarded(&space).await;
    let path = format!("/v1/mapping/{}/c", space.name);
    space.pod("member", json!({})).await;
    space.routed(&["member"]).await;
    let tether = json!({"metadata": {"name": "tether"}});
    let tether = space.api.post(&space.core("secrets"), &tether).await.ok();
    let bound =
        json!({"apiVersion": "v1", "kind": "Secret", "name": "tether", "uid": tether["metadata"]["uid"]});
    allow(&space, "reader").await;
    allow(&space, "leaver").await;
    let with_secret = token(&space, "reader", bound).await;
    let with_account = token(&space, "leaver", json!(null)).await;
    for token in [&with_secret, &with_account] {
        until(&space, &product, &path, token, 200).await;
    }
    space.api.delete(&space.core("serviceaccounts/leaver")).await.ok();
    space.api.delete(&space.core("secrets/tether")).await.ok();
    for token in [&with_secret, &with_account] {
        until(&space, &product, &path, token, 401).await;
    }
}

#[tokio::test]
async fn a_right_in_one_namespace_shows_nothing_of_another_by_any_path() {
    let (mine, theirs) = (Space::new("access-mine").await, Space::new("access-theirs").await);
    let product = guarded(&mine).await;
    for space in [&mine, &theirs] {
        space.pod("member", json!({})).await;
        space.routed(&["member"]).await;
    }
    allow(&mine, "reader").await;
    let token = token(&mine, "reader", json!(null)).await;
    until(&mine, &product, "/v1/mapping/access-mine/c", &token, 200).await;
    let secret = theirs.routed(&["member"]).await.remove("member").unwrap();
    for path in [
        "/",
        "/v1/mapping",
        "/v1/mapping/",
        "/v1/mapping/access-theirs/c",
        "/v1/mapping/access-theirs/c?namespace=access-mine",
        "/v1/mapping/access-mine/../access-theirs/c",
        "/v1/mapping/access-mine%2F..%2Faccess-theirs/c",
        "/v1/mapping/access-mine/c/../../access-theirs/c",
        "/v1/mapping/access-mine%00/c",
        "/v1/mapping/access-theirs/%63",
        "/v1/mapping//c",
        "/v1/mapping/*/c",
        "/v1/mapping/%2A/%2A",
        "//v1/mapping/access-theirs/c",
        "/v1/mapping;/access-theirs/c",
        "/V1/MAPPING/access-theirs/c",
    ] {
        let answer = ask(&mine, &product, path, &token).await;
        assert!(
            answer.status != 200 && !answer.body.contains(&secret),
            "{path}: {} {}",
            answer.status,
            answer.body
        );
    }
    let bearer = format!("Bearer {token}");
    let twice = [("authorization", bearer.as_str()), ("authorization", "Bearer invented")];
    let answer = fetch(product.mapping, &mine.api, "/v1/mapping/access-mine/c", &twice).await;
    assert_eq!(answer.status, 401, "of two tokens neither counts");
}

#[tokio::test]
async fn a_flood_of_invented_tokens_stops_here_and_known_readers_are_answered_meanwhile() {
    let space = Space::new("access-flood").await;
    let product = guarded(&space).await;
    space.pod("member", json!({})).await;
    space.routed(&["member"]).await;
    allow(&space, "reader").await;
    let token = token(&space, "reader", json!(null)).await;
    let path = "/v1/mapping/access-flood/c";
    until(&space, &product, path, &token, 200).await;
    let position = space.rig.cluster.audit_position().unwrap();
    let begun = std::time::Instant::now();
    // each over a connection of its own, 20 at once
    let one = async |n: usize| ask(&space, &product, path, &format!("invented-{n}")).await.status.as_u16();
    let mut statuses = Vec::new();
    for round in 0..60 {
        statuses.extend(futures::future::join_all((0..20).map(|n| one(round * 20 + n))).await);
        assert_eq!(ask(&space, &product, path, &token).await.status, 200, "a known reader");
    }
    let seconds = begun.elapsed().as_secs();
    assert!(statuses.iter().all(|status| matches!(status, 401 | 503)));
    let (events, _) = space.rig.cluster.audit_events_since(position).unwrap();
    let reviews = events.iter().filter(|e| e.resource == "tokenreviews").count() as u64;
    println!("{} invented tokens in {seconds} s: {reviews} reviews", statuses.len());
    // 400 at once and 100 a second; other tests may have readers of their own
    assert!(reviews <= 400 + 100 * (seconds + 1) + 50, "{reviews} reviews in {seconds} s");
}
