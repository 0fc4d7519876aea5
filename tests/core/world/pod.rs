//! Pods as tests make them.

use external_ip_core::mapping;
use external_ip_core::names::{self, Key};
use external_ip_core::stamp;
use serde_json::{Value, json};

use super::{NS, World};

pub(crate) struct PodBuilder<'w> {
    world: &'w mut World,
    value: Value,
    named: bool,
}

impl<'w> PodBuilder<'w> {
    pub(super) fn of_stateful_set(world: &'w mut World, name: &str) -> Self {
        Self { world, value: pod_json(name), named: true }
    }

    pub(crate) fn label(mut self, key: &str, value: &str) -> Self {
        self.value["metadata"]["labels"][key] = json!(value);
        self
    }

    pub(crate) fn annotation(mut self, key: &str, value: &str) -> Self {
        self.value["metadata"]["annotations"][key] = json!(value);
        self
    }

    pub(crate) fn set(mut self, pointer: &str, value: Value) -> Self {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        self.value.pointer_mut(parent).unwrap()[field] = value;
        self
    }

    /// As a review shows a pod that is to get its name later.
    pub(crate) fn without_name(self) -> Self {
        self.set("/metadata/name", json!(""))
    }

    pub(crate) fn named(self, name: &str) -> Self {
        self.set("/metadata/name", json!(name))
    }

    /// Made at this second instead of one by one.
    pub(crate) fn created(self, second: i64) -> Self {
        self.set(
            "/metadata/creationTimestamp",
            json!(jiff::Timestamp::from_second(second).unwrap().to_string()),
        )
    }

    pub(crate) fn without(mut self, parent: &str, field: &str) -> Self {
        self.value.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(field);
        self
    }

    /// Of a ReplicaSet: its name never comes back.
    pub(crate) fn anonymous(mut self) -> Self {
        self.named = false;
        self.set("/metadata/ownerReferences", owner("ReplicaSet"))
    }

    /// What the real webhook makes of it.
    pub(crate) fn admitted(mut self) -> Self {
        let review = json!({"request": {"uid": format!("review-{}", self.world.version), "operation": "CREATE", "namespace": NS, "object": self.value,
            "resource": {"group": "", "version": "v1", "resource": "pods"}}});
        let state = &self.world.state;
        let kept = |cluster: &Key, name: &str| mapping::kept_addresses(state, cluster).get(name).cloned();
        let answer = stamp::answer(review.to_string().as_bytes(), state.settings(), &kept).unwrap();
        let answer: Value = serde_json::from_slice(&answer.body).unwrap();
        if let Some(patch) = answer["response"]["patch"].as_str() {
            let patch = data_encoding::BASE64.decode(patch.as_bytes()).unwrap();
            let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
            json_patch::patch(&mut self.value, &patch).unwrap();
        }
        self
    }

    /// Held by our gate behind another one, made now, and not started.
    pub(crate) fn gated(self) -> Self {
        let now = self.world.timestamp();
        self.set(
            "/spec/schedulingGates",
            json!([{"name": "example.com/quota"}, {"name": names::ADDRESS_GATE}]),
        )
        .set("/metadata/creationTimestamp", json!(now))
        .set("/status/podIPs", json!([]))
    }

    /// Created while the webhook was there.
    pub(crate) fn stamped(self) -> Self {
        let cluster =
            self.value["metadata"]["labels"][names::CLUSTER_LABEL].as_str().unwrap_or("c").to_owned();
        let name = self.value["metadata"]["name"].as_str().unwrap().to_owned();
        let id = if self.named {
            names::pod_id_of_name(&cluster, &name)
        } else {
            names::pod_id_of_seed(&cluster, &name)
        };
        self.label(names::POD_ID_LABEL, &id)
    }

    pub(crate) fn create(mut self) {
        let version = self.world.tick();
        let (second, ip) = (i64::try_from(version).unwrap(), u8::try_from(version % 250).unwrap());
        let created = jiff::Timestamp::from_second(second).unwrap();
        let metadata = &mut self.value["metadata"];
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("pod-{version}"));
        }
        if metadata["creationTimestamp"].is_null() {
            metadata["creationTimestamp"] = json!(created.to_string());
        }
        if self.value["status"]["podIPs"].is_null() {
            self.value["status"]["podIPs"] = json!([{"ip": format!("198.18.{}.{ip}", version / 250)}]);
        }
        self.world.put_pod(self.value);
    }
}

pub(crate) fn owner(kind: &str) -> Value {
    json!([{"apiVersion": "apps/v1", "kind": kind, "name": "c", "uid": "owner", "controller": true}])
}

fn pod_json(name: &str) -> Value {
    json!({
        "metadata": {"namespace": NS, "name": name, "labels": {names::CLUSTER_LABEL: "c"}, "annotations": {},
            "ownerReferences": owner("StatefulSet")},
        "spec": {"containers": [{"ports": [{"name": "hotrod", "containerPort": 11222}]}],
            "hostname": name, "subdomain": "c"},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    })
}
