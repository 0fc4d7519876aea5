//! The CA is replaced while everybody goes on connecting.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::rig::{CONFIG, Rig, Space, ca};
use crate::support::api::Api;
use crate::support::product::Product;
use crate::support::{https, within};

const SECRET: &str = "/api/v1/namespaces/external-ip-controller/secrets/external-ip-controller-ca";
const REGISTRATION: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/external-ip-controller";
/// How old a client's copy of the CA may be: less than the ten seconds a bundle has to settle.
const COPIED: Duration = Duration::from_secs(3);

async fn registered(api: &Api) -> String {
    let found = api.get(REGISTRATION).await.ok();
    let bundle = found["webhooks"][0]["clientConfig"]["caBundle"].as_str().unwrap_or_default();
    String::from_utf8(BASE64.decode(bundle.as_bytes()).unwrap()).unwrap()
}

/// The certificate a listener shows to a client that asks for `name`.
async fn shown(at: SocketAddr, ca: &str, name: &str) -> Result<Vec<u8>, String> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = https::connect(at, ca, name).await?;
    Ok(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec())
}

/// What the clients of a rotation have seen.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    handshakes: AtomicUsize,
    reviews: AtomicUsize,
    failures: std::sync::Mutex<Vec<String>>,
}

impl Seen {
    fn failed(&self, what: String) {
        self.failures.lock().unwrap().push(what);
    }

    fn going_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

/// Makes a new connection again and again, with a copy of the CA.
async fn connects(at: SocketAddr, path: &'static str, copy: watch::Receiver<String>, seen: Arc<Seen>) {
    while seen.going_on() {
        let ca = copy.borrow().clone();
        match https::get(at, &ca, path, &[]).await {
            Ok(_) => _ = seen.handshakes.fetch_add(1, Ordering::Relaxed),
            Err(error) => seen.failed(format!("{at}{path}: {error}")),
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// Makes pods (dry run) again and again: the API server's own webhook client, with the bundle of the registration.
async fn makes_pods(space: Arc<Space>, seen: Arc<Seen>) {
    let pod = json!({
        "metadata": {"name": "c-0", "labels": {"external-ip.dev/cluster": "c"}},
        "spec": {"containers": [{"name": "main", "image": "none", "ports": [{"containerPort": 1}]}]},
    });
    while seen.going_on() {
        let made = space.api.post(&space.core("pods?dryRun=All"), &pod).await.ok();
        if made["metadata"]["labels"]["stamp.external-ip.dev/pod-id"] == "c.c-0" {
            seen.reviews.fetch_add(1, Ordering::Relaxed);
        } else {
            seen.failed(format!("not stamped: {}", made["metadata"]));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Copies both bundles every now and then, as kubelets and clients do.
async fn copies(api: Api, admission: watch::Sender<String>, mapping: watch::Sender<String>, seen: Arc<Seen>) {
    while seen.going_on() {
        tokio::time::sleep(COPIED).await;
        admission.send_replace(registered(&api).await);
        mapping.send_replace(ca(&api).await);
    }
}

async fn secret(api: &Api) -> Value {
    api.get(SECRET).await.ok()
}

/// A mapping Service whose load balancer has an address and a name.
async fn publish(api: &Api) {
    let services = "/api/v1/namespaces/external-ip-controller/services";
    let service = json!({
        "metadata": {"name": "external-ip-controller-mapping"},
        "spec": {"type": "LoadBalancer", "loadBalancerClass": "example.com/nobody", "ports": [{"port": 8888}]},
    });
    api.post(services, &service).await.ok();
    let ingress = json!([{"ip": "203.0.113.77"}, {"hostname": "map.example.org"}]);
    let status = json!({"status": {"loadBalancer": {"ingress": ingress}}});
    api.patch(&format!("{services}/external-ip-controller-mapping/status"), &status).await.ok();
}

#[tokio::test]
async fn a_ca_is_replaced_under_a_thousand_handshakes_and_none_of_them_fails() {
    let rig = Arc::new(tokio::task::spawn_blocking(|| Rig::start("rotation", CONFIG)).await.unwrap());
    rig.product.ready().await;
    let second = rig.replica("second", CONFIG);
    second.ready().await;
    let space = Arc::new(Space::on(Arc::clone(&rig), "rotation").await);
    let api = space.api.clone();
    let old = ca(&api).await;
    within(Duration::from_secs(30), "the registration trusts the CA", async || {
        let found = registered(&api).await;
        if found == old { Ok(()) } else { Err(found) }
    })
    .await;

    publish(&api).await;
    for name in ["203.0.113.77", "map.example.org"] {
        within(Duration::from_secs(20), "the leaf names the load balancer", async || {
            shown(second.mapping, &old, name).await
        })
        .await;
    }
    let listeners: Vec<SocketAddr> =
        [&rig.product, &second].iter().flat_map(|p: &&Product| [p.mapping, p.admission]).collect();
    let mut before = Vec::new();
    for at in &listeners {
        before.push(shown(*at, &old, "localhost").await.unwrap());
    }

    let (seen, mut clients) = (Arc::new(Seen::default()), JoinSet::new());
    let (admission, at_admission) = watch::channel(registered(&api).await);
    let (mapping, at_mapping) = watch::channel(old.clone());
    clients.spawn(copies(api.clone(), admission, mapping, Arc::clone(&seen)));
    clients.spawn(makes_pods(Arc::clone(&space), Arc::clone(&seen)));
    for product in [&rig.product, &second] {
        clients.spawn(connects(product.mapping, "/v1/mapping", at_mapping.clone(), Arc::clone(&seen)));
        clients.spawn(connects(product.admission, "/mutate", at_admission.clone(), Arc::clone(&seen)));
    }

    let begun = Instant::now();
    let asked = json!({"metadata": {"annotations": {"external-ip.dev/rotate-ca": "5s"}}});
    api.patch(SECRET, &asked).await.ok();
    let step = async |what: &str, done: fn(&Value) -> bool| {
        within(Duration::from_secs(120), what, async || {
            let secret = secret(&api).await;
            if done(&secret["data"]) { Ok(()) } else { Err(secret["metadata"].to_string()) }
        })
        .await;
        println!("{what} after {:.0} s", begun.elapsed().as_secs_f32());
    };
    step("the next CA is published", |data| data["next.crt"].is_string()).await;
    step("it signs", |data| data["former.crt"].is_string() && data["next.key"].is_null()).await;
    step("the former one is gone", |data| data["former.crt"].is_null() && data["next.crt"].is_null()).await;
    let new = within(Duration::from_secs(40), "one CA is published", async || {
        let (mapping, admission) = (ca(&api).await, registered(&api).await);
        let one = mapping.matches("BEGIN CERTIFICATE").count() == 1;
        if one && mapping == admission { Ok(mapping) } else { Err(format!("{mapping}\n{admission}")) }
    })
    .await;
    // some more with the new one alone
    let so_far = seen.handshakes.load(Ordering::Relaxed);
    within(Duration::from_secs(60), "copies of the new CA alone are in use", async || {
        let now = seen.handshakes.load(Ordering::Relaxed);
        if *at_mapping.borrow() == new && now > so_far + 200 { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
    seen.stop.store(true, Ordering::Relaxed);
    clients.join_all().await;

    let handshakes = seen.handshakes.load(Ordering::Relaxed);
    let reviews = seen.reviews.load(Ordering::Relaxed);
    let failures = seen.failures.lock().unwrap().clone();
    println!(
        "{handshakes} handshakes and {reviews} admissions in {:.0} s, {} failed",
        begun.elapsed().as_secs_f32(),
        failures.len()
    );
    assert!(
        failures.is_empty(),
        "{} failed, first: {:#?}",
        failures.len(),
        &failures[..failures.len().min(5)]
    );
    assert!(handshakes > 1_000 && reviews > 100, "{handshakes} handshakes, {reviews} admissions");
    assert_ne!(old, new);
    for (at, before) in listeners.iter().zip(before) {
        let now = shown(*at, &new, "localhost").await.unwrap();
        assert_ne!(now, before, "another leaf is served");
        shown(*at, &old, "localhost").await.unwrap_err();
    }
}
