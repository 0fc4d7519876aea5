//! AdmissionReviews as an API server sends them for the pods of StatefulSets, of several sizes. Made by rule, so that
//! every run measures the same bytes: the shapes (defaulted fields, the token volume, probes, environment, managed
//! fields with one path for each field) are those of a 1.37 API server.

use serde_json::{Value, json};

/// What a pod is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Name in tables.
    pub(crate) name: &'static str,
    /// Containers.
    pub(crate) containers: usize,
    /// Environment variables of each.
    pub(crate) variables: usize,
    /// Whether another tool's fields are listed in `metadata.managedFields`.
    pub(crate) managed_fields: bool,
    /// Our annotations.
    pub(crate) annotations: &'static [(&'static str, &'static str)],
    /// It belongs to a cluster.
    pub(crate) member: bool,
}

const PLAIN: Shape = Shape {
    name: "4 kB",
    containers: 1,
    variables: 1,
    managed_fields: false,
    annotations: &[("external-ip.dev/ports", "11222")],
    member: true,
};

/// From the smallest to the largest that occur.
pub(crate) const SHAPES: [Shape; 6] = [
    PLAIN,
    Shape { name: "8 kB", containers: 2, variables: 19, ..PLAIN },
    Shape { name: "8 kB, managedFields", containers: 1, variables: 24, managed_fields: true, ..PLAIN },
    Shape {
        name: "8 kB, injected",
        containers: 2,
        variables: 19,
        annotations: &[("external-ip.dev/ports", "11222"), ("external-ip.dev/inject", "env,volume")],
        ..PLAIN
    },
    Shape { name: "8 kB, no member", containers: 2, variables: 19, member: false, ..PLAIN },
    Shape { name: "60 kB, 20 containers", containers: 20, variables: 7, managed_fields: true, ..PLAIN },
];

impl Shape {
    /// The review of this shape's pod, as bytes of JSON.
    pub(crate) fn review(&self) -> Vec<u8> {
        let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
        let resource = json!({"group": "", "version": "v1", "resource": "pods"});
        let account = "system:serviceaccount:kube-system:statefulset-controller";
        let review = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {
            "uid": "0f5f2a3e-6f0f-4f5e-9a3b-6a1d1b0c9e11",
            "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
            "name": "infinispan-0", "namespace": "data", "operation": "CREATE",
            "userInfo": {"username": account, "uid": "b9a3c1de-7d55-4d0b-8f4e-1f2c9f8d7a01",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"]},
            "object": self.pod(), "oldObject": null, "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"}}});
        review.to_string().into_bytes()
    }

    /// The pod, as admission sees it.
    pub(crate) fn pod(&self) -> Value {
        let mut labels = json!({"app": "infinispan", "apps.kubernetes.io/pod-index": "0",
            "controller-revision-hash": "infinispan-7c9f6d5b8d", "statefulset.kubernetes.io/pod-name": "infinispan-0"});
        if self.member {
            labels["external-ip.dev/cluster"] = json!("infinispan");
        }
        let annotations: serde_json::Map<String, Value> =
            self.annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let containers: Vec<Value> = (0..self.containers).map(|n| self.container(n)).collect();
        let mut pod = json!({"kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": "infinispan-0", "generateName": "infinispan-", "namespace": "data",
                "uid": "6b1c2e0a-9d47-4a57-8d52-0c9a6a3d4f10", "creationTimestamp": "2026-11-22T10:00:00Z",
                "labels": labels, "annotations": annotations,
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "infinispan",
                    "uid": "2d7e9b56-4c55-4b07-a3ff-f5f4e9b0c002", "controller": true, "blockOwnerDeletion": true}]},
            "spec": {"volumes": volumes(), "containers": containers,
                "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
                "serviceAccountName": "default", "serviceAccount": "default", "hostname": "infinispan-0",
                "subdomain": "infinispan", "securityContext": {"fsGroup": 185, "runAsNonRoot": true},
                "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 100, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname",
                        "labelSelector": {"matchLabels": {"app": "infinispan"}}}}]}},
                "schedulerName": "default-scheduler", "priority": 0, "enableServiceLinks": true,
                "preemptionPolicy": "PreemptLowerPriority",
                "tolerations": [toleration("not-ready"), toleration("unreachable")]},
            "status": {}});
        if self.managed_fields {
            pod["metadata"]["managedFields"] = json!([self.managed_fields()]);
        }
        pod
    }

    fn container(&self, n: usize) -> Value {
        let variables: Vec<Value> = (0..self.variables)
            .map(|v| match v % 4 {
                0 => json!({"name": format!("POD_FIELD_{v}"),
                    "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}}),
                1 => json!({"name": format!("PASSWORD_{v}"),
                    "valueFrom": {"secretKeyRef": {"name": "credentials", "key": format!("password-{v}")}}}),
                _ => json!({"name": format!("SERVER_OPTION_{v}"),
                    "value": format!("-Dserver.option.{v}=\"/opt/server/data\"")}),
            })
            .collect();
        let probe = |path: &str| {
            json!({"httpGet": {"path": path, "port": 11222, "scheme": "HTTP"}, "initialDelaySeconds": 10,
                "timeoutSeconds": 80, "periodSeconds": 60, "successThreshold": 1, "failureThreshold": 5})
        };
        json!({"name": format!("server-{n}"), "image": "registry.example/infinispan/server:16.0",
            "args": ["--cluster-stack=kubernetes", "-Djgroups.dns.query=infinispan-ping.data.svc.cluster.local"],
            "ports": [{"name": format!("port-{n}"), "containerPort": 11222 + n, "protocol": "TCP"},
                {"name": format!("ping-{n}"), "containerPort": 8888 + n, "protocol": "TCP"}],
            "env": variables,
            "resources": {"limits": {"memory": "2Gi"}, "requests": {"cpu": "500m", "memory": "2Gi"}},
            "volumeMounts": [{"name": "data", "mountPath": "/opt/server/data"},
                {"name": "kube-api-access-x7k2p", "readOnly": true,
                    "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
            "livenessProbe": probe("/health/live"), "readinessProbe": probe("/health/ready"),
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            "imagePullPolicy": "IfNotPresent",
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}})
    }

    /// A path for each field, as server-side bookkeeping writes them.
    fn managed_fields(&self) -> Value {
        let field = |keys: &[&str]| -> Value {
            keys.iter().map(|key| (format!("f:{key}"), json!({}))).collect::<serde_json::Map<_, _>>().into()
        };
        let mut containers = serde_json::Map::new();
        for n in 0..self.containers {
            let probe =
                ["failureThreshold", "httpGet", "initialDelaySeconds", "periodSeconds", "timeoutSeconds"];
            let mut fields =
                field(&["name", "image", "args", "imagePullPolicy", "resources", "securityContext"]);
            fields["f:livenessProbe"] = field(&probe);
            fields["f:readinessProbe"] = field(&probe);
            fields["f:env"] = (0..self.variables)
                .map(|v| (format!("k:{{\"name\":\"SERVER_OPTION_{v}\"}}"), field(&["name", "value"])))
                .collect::<serde_json::Map<_, _>>()
                .into();
            containers.insert(format!("k:{{\"name\":\"server-{n}\"}}"), fields);
        }
        json!({"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1",
            "time": "2026-11-22T10:00:00Z", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:labels": field(&["app", "controller-revision-hash"])},
                "f:spec": {"f:containers": containers}}})
    }
}

fn volumes() -> Value {
    json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data-infinispan-0"}},
        {"name": "kube-api-access-x7k2p", "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace",
                "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}}])
}

fn toleration(of: &str) -> Value {
    json!({"key": format!("node.kubernetes.io/{of}"), "operator": "Exists", "effect": "NoExecute",
        "tolerationSeconds": 300})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reviews_have_the_sizes_their_names_say() {
        for shape in SHAPES {
            let said =
                shape.name.split(' ').next().and_then(|kb| kb.parse::<usize>().ok()).unwrap_or_default();
            let bytes = shape.review().len();
            assert!(bytes.abs_diff(said * 1000) <= said * 100, "{}: {bytes}", shape.name);
        }
    }

    #[test]
    fn a_review_is_the_same_each_time() {
        for shape in SHAPES {
            assert_eq!(shape.review(), shape.review());
        }
    }
}
