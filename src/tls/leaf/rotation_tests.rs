//! Two replicas and one API server.

use data_encoding::BASE64;
use external_ip_core::names::{FORMER_CA_ANNOTATION, NEXT_CA_ANNOTATION, ROTATE_CA_ANNOTATION};
use serde_json::{Value, json};

use super::tests::metrics;
use super::*;
use crate::client::fake::{Exchange, Fake};
use crate::tls::testing::authority;

/// The objects a rotation reads and writes, with the preconditions of the API server.
struct Objects {
    secret: Value,
    /// `caBundle`.
    bundle: String,
    refused: usize,
}

impl Objects {
    fn holding(authority: &Authority) -> Self {
        let text = |pem: &str| BASE64.encode(pem.as_bytes());
        let secret = json!({
            "metadata": {"resourceVersion": "1", "annotations": {}},
            "data": {"tls.crt": text(authority.bundle()), "tls.key": text(&authority.key_pem())},
        });
        Self { secret, bundle: authority.bundle().to_owned(), refused: 0 }
    }

    fn annotate(&mut self, key: &str, value: &str) {
        self.write(&json!({"metadata": {"annotations": {key: value}}}));
    }

    fn annotation(&self, key: &str) -> &Value {
        &self.secret["metadata"]["annotations"][key]
    }

    fn holds(&self, key: &str) -> bool {
        self.secret["data"][key].is_string()
    }

    fn version(&self) -> u64 {
        self.secret["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
    }

    fn write(&mut self, patch: &Value) {
        let version = self.version() + 1;
        json_patch::merge(&mut self.secret, patch);
        self.secret["metadata"]["resourceVersion"] = json!(version.to_string());
    }

    fn answer(&mut self, exchange: Exchange) {
        match (exchange.method.as_str(), exchange.path.rsplit('/').nth(1).unwrap()) {
            ("GET", "mutatingwebhookconfigurations") => {
                let webhook = json!({"clientConfig": {"caBundle": BASE64.encode(self.bundle.as_bytes())}});
                exchange.ok(&json!({"metadata": {"resourceVersion": "1"}, "webhooks": [webhook]}));
            }
            ("GET", "secrets") => exchange.ok(&self.secret),
            ("PATCH", "secrets") => {
                let precondition = exchange.body["metadata"]["resourceVersion"].clone();
                assert!(precondition.is_string(), "each write carries its precondition");
                if precondition == self.secret["metadata"]["resourceVersion"] {
                    self.write(&exchange.body);
                    exchange.ok(&json!({}));
                } else {
                    self.refused += 1;
                    exchange.fail(409, "Conflict");
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A replica with its wire to the objects.
struct Replica {
    managed: SelfManaged,
    server: Fake,
}

impl Replica {
    fn new() -> Self {
        let (api, server) = Fake::new();
        let verifiers = Verifiers { registration: true, config_maps: None };
        Self { managed: SelfManaged::new(api, "ns", [], verifiers, metrics()), server }
    }

    /// One look of this replica alone.
    async fn looks(&mut self, objects: &mut Objects) -> Result<Duration, String> {
        let renewing = self.managed.renew();
        tokio::pin!(renewing);
        loop {
            tokio::select! {
                biased;
                looked = &mut renewing => return looked,
                exchange = self.server.next() => objects.answer(exchange),
            }
        }
    }

    fn bundle(&self) -> String {
        self.managed.trusted().borrow().as_deref().unwrap().to_owned()
    }

    fn leaf(&self) -> Vec<u8> {
        self.managed.served().get().unwrap().cert[0].to_vec()
    }
}

/// Both look in the same moment: each reads what the other one reads.
async fn both_look(one: &mut Replica, other: &mut Replica, objects: &mut Objects) {
    let (first, second) = (one.managed.renew(), other.managed.renew());
    let both = async { tokio::join!(first, second) };
    tokio::pin!(both);
    loop {
        // requests are answered when both have one, or one of them is done
        let answered = async {
            let (a, b) = tokio::join!(one.server.next(), other.server.next());
            (Some(a), Some(b))
        };
        tokio::select! {
            biased;
            (first, second) = &mut both => {
                first.unwrap();
                second.unwrap();
                return;
            }
            (a, b) = answered => [a, b].into_iter().flatten().for_each(|e| objects.answer(e)),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_ca_signs_only_once_it_is_trusted_and_the_former_one_goes_after_that() {
    let old = authority();
    let (mut objects, mut replica) = (Objects::holding(&old), Replica::new());
    replica.looks(&mut objects).await.unwrap();
    let text = replica.managed.metrics.text();
    for certificate in ["authority", "leaf"] {
        let line =
            format!("external_ip_certificate_not_after_timestamp_seconds{{certificate=\"{certificate}\"}} ");
        assert!(text.contains(&line), "{text}");
    }
    let first = replica.leaf();
    objects.annotate(ROTATE_CA_ANNOTATION, "0s");
    assert_eq!(replica.looks(&mut objects).await, Ok(Duration::ZERO), "a step was taken: look again");
    assert!(objects.annotation(ROTATE_CA_ANNOTATION).is_null(), "the wish is fulfilled once");
    assert!(objects.annotation(NEXT_CA_ANNOTATION).is_string() && objects.holds("next.key"));

    let lacking = replica.looks(&mut objects).await.unwrap_err();
    assert!(lacking.contains("not written it to MutatingWebhookConfiguration"), "{lacking}");
    let published = replica.bundle();
    assert!(
        published.starts_with(old.bundle()) && published.len() > old.bundle().len(),
        "both are published"
    );
    assert_eq!(replica.leaf(), first, "more to trust needs no new leaf");

    objects.bundle = published;
    assert_eq!(
        replica.looks(&mut objects).await,
        Ok(BUNDLE_SETTLES),
        "API servers learn of it a little later"
    );
    tokio::time::advance(BUNDLE_SETTLES).await;
    replica.looks(&mut objects).await.unwrap();
    assert!(objects.holds("former.crt") && !objects.holds("next.key"));
    replica.looks(&mut objects).await.unwrap();
    assert_ne!(replica.leaf(), first, "the new CA signs");
    assert!(replica.bundle().contains(old.bundle()), "the former one is trusted");

    objects.annotate(FORMER_CA_ANNOTATION, "2020-01-01T00:00:00Z");
    replica.looks(&mut objects).await.unwrap();
    let second = replica.leaf();
    assert_eq!(replica.looks(&mut objects).await, Ok(AUTHORITY_POLL));
    assert!(!replica.bundle().contains(old.bundle()), "and is gone");
    assert_eq!(replica.leaf(), second);
    assert!(objects.annotation(FORMER_CA_ANNOTATION).is_null() && !objects.holds("former.crt"));
}

#[tokio::test(start_paused = true)]
async fn two_replicas_that_rotate_at_once_end_with_one_ca() {
    let old = authority();
    let (mut objects, mut one, mut other) = (Objects::holding(&old), Replica::new(), Replica::new());
    both_look(&mut one, &mut other, &mut objects).await;
    objects.annotate(ROTATE_CA_ANNOTATION, "0s");
    both_look(&mut one, &mut other, &mut objects).await;
    assert_eq!(objects.refused, 1, "both made a CA, one was refused");
    for replica in [&mut one, &mut other] {
        replica.looks(&mut objects).await.unwrap_err();
    }
    assert_eq!(one.bundle(), other.bundle());
    objects.bundle = one.bundle();
    both_look(&mut one, &mut other, &mut objects).await;
    tokio::time::advance(BUNDLE_SETTLES).await;
    both_look(&mut one, &mut other, &mut objects).await;
    assert_eq!(objects.refused, 2, "both let it sign, one was refused");
    both_look(&mut one, &mut other, &mut objects).await;
    assert_eq!(one.bundle(), other.bundle());
    assert!(one.bundle().ends_with(old.bundle()) && one.bundle().len() > old.bundle().len());
}

#[tokio::test]
async fn a_wish_nobody_can_read_costs_the_rotation_and_nothing_else() {
    let (mut objects, mut replica) = (Objects::holding(&authority()), Replica::new());
    objects.annotate(ROTATE_CA_ANNOTATION, "now");
    let error = replica.looks(&mut objects).await.unwrap_err();
    assert!(error.contains("'now' is no duration"), "{error}");
    assert!(replica.managed.served().problem().is_none(), "a certificate is served");
}
