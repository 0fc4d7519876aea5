//! The Service of a slot, or of the slots that share it: what it shall be, and whether an existing one is that.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::names::{self, Key};
use crate::objects::{Service, ServicePort};
use crate::settings::{Class, Exposure, ServiceTemplate};
use crate::shared::SharedSlot;

/// Selector value that is nobody's identity: those have the cluster's name and a dot in front.
const NOBODY: &str = "nobody";

/// The desired Service of a slot, or of several (exposure shared). We own selector, ports, type, the class's fields and our metadata, nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotService {
    /// Namespace and name.
    pub key: Key,
    /// Cluster.
    pub cluster: String,
    /// Slot number; of a shared one its number among the shared Services.
    pub slot: u32,
    /// By a load balancer or node ports of its own, or shared.
    pub exposure: Exposure,
    /// The installation that owns it.
    pub owner: String,
    /// The class it is made with.
    pub class: String,
    /// The pod name the slot is kept for; empty where it is shared.
    pub pod: String,
    /// The identity it routes to; `None` = nobody (several claimants). Shared: its ports say so.
    pub pod_id: Option<String>,
    /// Ports, sorted.
    pub ports: Vec<ServicePort>,
    /// Fields of the class, placeholders filled in.
    pub template: ServiceTemplate,
}

impl SlotService {
    /// Slot `slot` of `namespace`/`cluster` with a class's template filled in.
    pub fn template_for(
        class: &Class,
        exposure: Exposure,
        namespace: &str,
        cluster: &str,
        slot: u32,
    ) -> ServiceTemplate {
        let fill = |text: &String| {
            text.replace("{cluster}", cluster)
                .replace("{namespace}", namespace)
                .replace("{slot}", &slot.to_string())
        };
        let mut template = class.service.clone();
        if exposure == Exposure::NodePort {
            // the API server refuses them without a load balancer
            template.load_balancer_class = None;
            template.load_balancer_ip = None;
            template.load_balancer_source_ranges.clear();
            template.allocate_load_balancer_node_ports = None;
        }
        template.annotations.values_mut().for_each(|v| *v = fill(v));
        template.load_balancer_ip = template.load_balancer_ip.as_ref().map(fill);
        template
    }

    /// How many slots it holds.
    pub fn slots(&self) -> usize {
        if self.is_shared() { SharedSlot::read(&self.ports).len() } else { 1 }
    }

    fn is_node_port(&self) -> bool {
        self.exposure == Exposure::NodePort
    }

    fn is_shared(&self) -> bool {
        self.exposure == Exposure::Shared
    }

    /// `spec.type`.
    fn service_type(&self) -> &'static str {
        if self.is_node_port() { "NodePort" } else { "LoadBalancer" }
    }

    fn labels(&self) -> [(&'static str, String); 3] {
        [
            (names::MANAGED_BY_LABEL, names::CONTROLLER_NAME.to_owned()),
            (names::CLUSTER_LABEL, self.cluster.clone()),
            (
                if self.is_shared() { names::SHARED_SERVICE_LABEL } else { names::SLOT_LABEL },
                self.slot.to_string(),
            ),
        ]
    }

    fn annotations(&self) -> BTreeMap<&str, &str> {
        let template = self.template.annotations.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        template
            .chain(self.is_node_port().then_some((names::EXPOSURE_ANNOTATION, "nodePort")))
            .chain((!self.is_shared()).then_some((names::POD_ANNOTATION, self.pod.as_str())))
            .chain([
                (names::OWNER_ANNOTATION, self.owner.as_str()),
                (names::SLOT_CLASS_ANNOTATION, self.class.as_str()),
            ])
            .collect()
    }

    fn selector(&self) -> BTreeMap<&'static str, &str> {
        if self.is_shared() {
            return BTreeMap::from([(names::SHARED_LABEL, self.cluster.as_str())]);
        }
        BTreeMap::from([(names::POD_ID_LABEL, self.pod_id.as_deref().unwrap_or(NOBODY))])
    }

    /// `spec` with the fields we own and no others.
    fn spec(&self) -> Value {
        let t = &self.template;
        let port = |p: &ServicePort| {
            let target = if p.target_name.is_empty() { json!(p.target) } else { json!(p.target_name) };
            json!({"name": p.name, "protocol": p.protocol, "port": p.port, "targetPort": target})
        };
        let ports: Vec<Value> = self.ports.iter().map(port).collect();
        let mut spec = Map::new();
        let mut set = |key: &str, value: Value| spec.insert(key.to_owned(), value);
        set("type", json!(self.service_type()));
        set("selector", json!(self.selector()));
        set("ports", json!(ports));
        set("publishNotReadyAddresses", json!(t.publish_not_ready_addresses));
        for (key, value) in [
            ("loadBalancerClass", &t.load_balancer_class),
            ("loadBalancerIP", &t.load_balancer_ip),
            ("externalTrafficPolicy", &t.external_traffic_policy),
            ("ipFamilyPolicy", &t.ip_family_policy),
        ] {
            if let Some(value) = value {
                set(key, json!(value));
            }
        }
        if !t.load_balancer_source_ranges.is_empty() {
            set("loadBalancerSourceRanges", json!(t.load_balancer_source_ranges));
        }
        if let Some(value) = t.allocate_load_balancer_node_ports {
            set("allocateLoadBalancerNodePorts", json!(value));
        }
        Value::Object(spec)
    }

    /// The whole object, for the first write.
    pub fn manifest(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "namespace": &*self.key.namespace, "name": &*self.key.name,
                "labels": self.labels().into_iter().collect::<BTreeMap<_, _>>(),
                "annotations": self.annotations(),
            },
            "spec": self.spec(),
        })
    }

    /// A merge patch that makes an existing Service this one, if it is still the one it was planned from.
    /// `loadBalancerClass` cannot be changed on an existing Service and stays out.
    pub fn patch(&self, uid: &str, version: u64, drop_selector: &[String]) -> Value {
        let mut annotations: Map<String, Value> =
            self.annotations().into_iter().map(|(k, v)| (k.to_owned(), json!(v))).collect();
        // handed over once; staying there it would let the next foreign change look like consent
        annotations.insert(names::ADOPT_ANNOTATION.to_owned(), Value::Null);
        annotations.insert(names::OVERDUE_ANNOTATION.to_owned(), Value::Null);
        let mut spec = self.spec();
        if let Some(spec) = spec.as_object_mut() {
            spec.remove("loadBalancerClass");
            let mut selector = json!(self.selector());
            for key in drop_selector {
                selector[key] = Value::Null;
            }
            spec.insert("selector".to_owned(), selector);
        }
        json!({
            "metadata": {
                "uid": uid, "resourceVersion": version.to_string(),
                "labels": self.labels().into_iter().collect::<BTreeMap<_, _>>(),
                "annotations": annotations,
            },
            "spec": spec,
        })
    }

    /// Whether `service` already is what is wanted, in the fields we own.
    pub fn is_met_by(&self, service: &Service) -> bool {
        let t = &self.template;
        let same = |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
        self.selector()
            .iter()
            .map(|(k, v)| (*k, *v))
            .eq(service.selector.iter().map(|(k, v)| (k.as_str(), v.as_str())))
            && service.service_type == self.service_type()
            && self.ports == service.ports
            && self.labels().iter().all(|(k, v)| service.labels.get(*k) == Some(v))
            && self.annotations().iter().all(|(k, v)| service.annotations.get(*k).is_some_and(|f| f == v))
            && same(&t.load_balancer_ip, &service.load_balancer_ip)
            && same(&t.external_traffic_policy, &service.external_traffic_policy)
            && same(&t.ip_family_policy, &service.ip_family_policy)
            && (t.load_balancer_source_ranges.is_empty()
                || t.load_balancer_source_ranges == service.load_balancer_source_ranges)
            && t.allocate_load_balancer_node_ports
                .is_none_or(|v| service.allocate_load_balancer_node_ports == Some(v))
            && t.publish_not_ready_addresses == service.publish_not_ready_addresses
    }
}
