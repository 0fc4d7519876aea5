use serde_json::{Value, json};

use super::*;
use crate::client::fake::Fake;
use crate::tls::authority::Authority;
use crate::tls::testing::authority;

async fn asked(answers: impl AsyncFnOnce(&mut Fake), certificate: &Authority) -> Option<String> {
    let (client, mut server) = Fake::new();
    let verifiers = Verifiers { registration: true, config_maps: Some("ours".to_owned()) };
    let (found, ()) =
        tokio::join!(verifiers.first_without(&client, certificate.signer()), answers(&mut server));
    assert!(server.is_idle(), "nothing else is asked");
    found.unwrap()
}

fn registration(bundles: &[&str]) -> Value {
    let webhooks: Vec<Value> =
        bundles.iter().map(|b| json!({"clientConfig": {"caBundle": BASE64.encode(b.as_bytes())}})).collect();
    json!({"metadata": {"resourceVersion": "1"}, "webhooks": webhooks})
}

fn config_map(name: &str, owner: &str, data: &Value) -> Value {
    let annotations = json!({OWNER_ANNOTATION: owner});
    json!({"metadata": {"namespace": "ns", "name": name, "annotations": annotations}, "data": data})
}

#[tokio::test]
async fn every_webhook_of_the_registration_has_to_know_it() {
    let (old, new) = (authority(), authority());
    let both = format!("{}{}", old.bundle(), new.bundle());
    let lacking = asked(async |server| server.next().await.ok(&registration(&[&both, old.bundle()])), &new);
    assert_eq!(lacking.await.unwrap(), "MutatingWebhookConfiguration external-ip-controller");
}

#[tokio::test]
async fn every_config_map_of_ours_has_to_know_it_on_every_page_and_no_other() {
    let (old, new) = (authority(), authority());
    let both = format!("{}{}", old.bundle(), new.bundle());
    let (knows, lacks) = (json!({"ca.crt": both}), json!({"ca.crt": old.bundle()}));
    let pages = async |server: &mut Fake, last: &Value| {
        server.next().await.fail(404, "NotFound");
        let first = server.next().await;
        assert_eq!(first.query["labelSelector"], "app.kubernetes.io/managed-by%3Dexternal-ip-controller");
        let items = json!([
            config_map("a", "ours", &knows),
            config_map("b", "somebody", &lacks),
            config_map("c", "ours", &json!({"mapping.yaml": ""}))
        ]);
        first.ok(&json!({"metadata": {"continue": "more"}, "items": items}));
        let second = server.next().await;
        assert_eq!(second.query["continue"], "more");
        second.ok(&json!({"metadata": {}, "items": [config_map("d", "ours", last)]}));
    };
    assert_eq!(asked(async |server| pages(server, &knows).await, &new).await, None);
    let lacking = asked(async |server| pages(server, &lacks).await, &new).await;
    assert_eq!(lacking.unwrap(), "ca.crt of ConfigMap ns/d");
}
