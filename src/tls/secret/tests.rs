use serde_json::Value;

use super::*;
use crate::client::fake::{Exchange, Fake};
use crate::tls::testing::{authority, now};

fn holding(version: &str, authority: &Authority) -> Value {
    json!({"metadata": {"resourceVersion": version}, "data": {
        CERTIFICATE: BASE64.encode(authority.bundle().as_bytes()), KEY: BASE64.encode(authority.key_pem().as_bytes()),
    }})
}

fn empty(version: &str) -> Value {
    json!({"metadata": {"resourceVersion": version}})
}

async fn obtained(
    current: Option<&Authority>,
    answers: impl AsyncFnOnce(&mut Fake),
) -> Result<Authority, SecretError> {
    let (client, mut server) = Fake::new();
    let both = async { tokio::join!(obtain(&client, "ns", current, now()), answers(&mut server)) };
    let both = tokio::time::timeout(std::time::Duration::from_secs(20), both).await;
    let (result, ()) = both.expect("all answers are asked for");
    assert!(server.is_idle(), "nothing else is asked");
    result.map(|stored| stored.authority)
}

async fn takes(server: &mut Fake, method: &str, path: &str) -> Exchange {
    let exchange = server.next().await;
    assert_eq!((exchange.method.as_str(), exchange.path.as_str()), (method, path));
    exchange
}

const PATH: &str = "/api/v1/namespaces/ns/secrets/external-ip-controller-ca";

#[tokio::test]
async fn what_is_there_is_used_and_nothing_is_written() {
    let there = authority();
    let found =
        obtained(None, async |server| takes(server, "GET", PATH).await.ok(&holding("1", &there))).await;
    assert!(found.unwrap().is(&there));
}

#[tokio::test]
async fn an_empty_secret_is_filled_at_the_version_that_was_read() {
    let mut written = Value::Null;
    let made = obtained(None, async |server| {
        takes(server, "GET", PATH).await.ok(&empty("7"));
        let write = takes(server, "PATCH", PATH).await;
        assert_eq!(write.content, "application/merge-patch+json");
        assert_eq!(write.body["metadata"], json!({"resourceVersion": "7"}));
        written = write.body["data"].clone();
        write.ok(&json!({}));
    });
    let made = made.await.unwrap();
    let text = |key: &str| {
        String::from_utf8(BASE64.decode(written[key].as_str().unwrap().as_bytes()).unwrap()).unwrap()
    };
    assert!(made.is(&Authority::parse(&text(CERTIFICATE), &text(KEY), now()).unwrap()));
}

#[tokio::test]
async fn who_comes_second_takes_the_ca_of_who_came_first() {
    let first = authority();
    let found = obtained(None, async |server| {
        takes(server, "GET", PATH).await.ok(&empty("7"));
        takes(server, "PATCH", PATH).await.fail(409, "Conflict");
        takes(server, "GET", PATH).await.ok(&holding("8", &first));
    });
    assert!(found.await.unwrap().is(&first));
}

#[tokio::test]
async fn a_missing_secret_is_created_and_a_name_taken_meanwhile_is_read() {
    let first = authority();
    let found = obtained(None, async |server| {
        takes(server, "GET", PATH).await.fail(404, "NotFound");
        takes(server, "POST", "/api/v1/namespaces/ns/secrets").await.fail(409, "AlreadyExists");
        takes(server, "GET", PATH).await.ok(&holding("8", &first));
    });
    assert!(found.await.unwrap().is(&first));
}

#[tokio::test]
async fn an_emptied_secret_gets_the_ca_back_that_clients_trust() {
    let known = authority();
    let kept = obtained(Some(&known), async |server| {
        takes(server, "GET", PATH).await.ok(&empty("9"));
        takes(server, "PATCH", PATH).await.ok(&json!({}));
    });
    assert!(kept.await.unwrap().is(&known));
}

#[tokio::test]
async fn a_secret_that_cannot_be_used_is_never_overwritten_and_the_remedy_is_told() {
    let mut half = holding("1", &authority());
    half["data"][KEY] = json!("");
    let error = obtained(None, async |server| server.next().await.ok(&half)).await.unwrap_err().to_string();
    assert!(
        error.contains("tls.key holds no readable private key") && error.contains("kubectl -n ns patch"),
        "{error}"
    );
    let old = Authority::generate(1_000_000_000).unwrap();
    let error = obtained(None, async |server| server.next().await.ok(&holding("1", &old)))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("the CA certificate expired"), "{error}");
}

#[tokio::test]
async fn a_missing_right_is_named() {
    let error = obtained(None, async |server| {
        takes(server, "GET", PATH).await.fail(404, "NotFound");
        server.next().await.fail(403, "Forbidden");
    });
    let error = error.await.unwrap_err().to_string();
    assert!(error.contains("not allowed to create it") && error.contains("apply the manifests"), "{error}");
}

#[tokio::test]
async fn a_missing_namespace_is_named_at_the_first_attempt() {
    let error = obtained(None, async |server| {
        takes(server, "GET", PATH).await.fail(404, "NotFound");
        takes(server, "POST", "/api/v1/namespaces/ns/secrets").await.fail(404, "NotFound");
    });
    let error = error.await.unwrap_err().to_string();
    assert!(
        error.contains("no namespace 'ns': apply the manifests") && error.contains("--namespace"),
        "{error}"
    );
}
