//! The shipped manifests on a cluster whose pods are pretended: the product runs beside the API server.

use local_cluster::Cluster;

use super::api::Api;
use super::eventually;

/// The controller's namespace.
pub(crate) const HOME: &str = "external-ip-controller";
/// The account of the manifests: what the product may do here is what it may do there.
pub(crate) const ACCOUNT: &str = "system:serviceaccount:external-ip-controller:external-ip-controller";

/// The shipped manifests, but for what runs the product as a pod: it runs beside the API server here.
pub(crate) fn install(cluster: &Cluster, admission_port: u16) {
    const BY_HAND: [&str; 3] = ["kind: Deployment", "kind: MutatingWebhookConfiguration", "kind: Service\n"];
    let shipped =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/install.yaml")).unwrap();
    let kept: Vec<&str> =
        shipped.split("\n---\n").filter(|d| !BY_HAND.iter().any(|k| d.contains(&format!("\n{k}")))).collect();
    // first, so that the namespace has the labels of the shipped one in the end
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/examples/webhook-by-url.yaml");
    let example = std::fs::read_to_string(example).unwrap();
    cluster.apply(&example.replace("127.0.0.1:8443", &format!("127.0.0.1:{admission_port}"))).unwrap();
    cluster.apply(&kept.join("\n---\n")).unwrap();
}

/// The published CA.
pub(crate) async fn ca(api: &Api) -> String {
    eventually("the CA is published", async || {
        let map = api.get("/api/v1/namespaces/external-ip-controller/configmaps/external-ip-ca").await.body;
        map["data"]["ca.crt"].as_str().map(str::to_owned).ok_or_else(|| map.to_string())
    })
    .await
}
