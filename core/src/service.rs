//! The Service of a slot, or of the slots that share it: what it shall be, and whether an existing one is that.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::addresses;
use crate::names::{self, Key};
use crate::objects::{Service, ServicePort};
use crate::settings::{ADDRESS_PLACEHOLDER, Class, Exposure, ServiceTemplate};
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
    /// External addresses it asks for; empty = the load balancer chooses.
    pub asked: Vec<IpAddr>,
    /// What asked for an address, and shall not any more.
    pub given_up: GivenUp,
}

/// Fields that hold a claim the slot has given up. A merge patch has to name them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GivenUp {
    /// Annotations.
    annotations: Vec<String>,
    /// `spec.loadBalancerIP`.
    load_balancer_ip: bool,
}

impl GivenUp {
    /// Every field in which a class asks for an address.
    pub fn of(class: &Class) -> Self {
        let asks = |text: &String| text.contains(ADDRESS_PLACEHOLDER);
        let annotations = class.service.annotations.iter().filter(|(_, v)| asks(v)).map(|(k, _)| k.clone());
        Self {
            annotations: annotations.chain([names::ASKED_ANNOTATION.to_owned()]).collect(),
            load_balancer_ip: class.service.load_balancer_ip.as_ref().is_some_and(asks),
        }
    }

    fn is_met_by(&self, service: &Service) -> bool {
        let stays = self.annotations.iter().any(|key| service.annotations.contains_key(key));
        !stays && (!self.load_balancer_ip || service.load_balancer_ip.is_none())
    }
}

impl SlotService {
    /// Slot `slot` of `namespace`/`cluster` with a class's template filled in. What asks for an address is left out
    /// where none is asked for.
    pub fn template_for(
        class: &Class,
        exposure: Exposure,
        (namespace, cluster, slot): (&str, &str, u32),
        asked: &[IpAddr],
    ) -> ServiceTemplate {
        let asked = addresses::text(asked);
        let fill = |text: &String| {
            text.replace("{cluster}", cluster)
                .replace("{namespace}", namespace)
                .replace("{slot}", &slot.to_string())
                .replace(ADDRESS_PLACEHOLDER, &asked)
        };
        let mut template = class.service.clone();
        if asked.is_empty() {
            template.annotations.retain(|_, v| !v.contains(ADDRESS_PLACEHOLDER));
            template.load_balancer_ip =
                template.load_balancer_ip.filter(|v| !v.contains(ADDRESS_PLACEHOLDER));
        }
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

    fn annotations(&self) -> BTreeMap<&str, Cow<'_, str>> {
        let template = self.template.annotations.iter().map(|(k, v)| (k.as_str(), v.as_str().into()));
        let claim =
            (!self.asked.is_empty()).then(|| (names::ASKED_ANNOTATION, addresses::text(&self.asked).into()));
        template
            .chain(self.is_node_port().then_some((names::EXPOSURE_ANNOTATION, "nodePort".into())))
            .chain((!self.is_shared()).then_some((names::POD_ANNOTATION, self.pod.as_str().into())))
            .chain([
                (names::OWNER_ANNOTATION, self.owner.as_str().into()),
                (names::SLOT_CLASS_ANNOTATION, self.class.as_str().into()),
            ])
            .chain(claim)
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
        annotations.extend(self.given_up.annotations.iter().map(|key| (key.clone(), Value::Null)));
        let mut spec = self.spec();
        if let Some(spec) = spec.as_object_mut() {
            spec.remove("loadBalancerClass");
            let mut selector = json!(self.selector());
            for key in drop_selector {
                selector[key] = Value::Null;
            }
            spec.insert("selector".to_owned(), selector);
            if self.given_up.load_balancer_ip {
                spec.insert("loadBalancerIP".to_owned(), Value::Null);
            }
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
        self.selector().iter().map(|(k, v)| (*k, *v)).eq(service.selector.iter())
            && service.service_type == self.service_type()
            && self.ports == service.ports
            && self.labels().iter().all(|(k, v)| service.labels.get(k) == Some(v))
            && self.annotations().iter().all(|(k, v)| service.annotations.get(k).is_some_and(|f| f == &**v))
            && same(&t.load_balancer_ip, &service.load_balancer_ip)
            && same(&t.external_traffic_policy, &service.external_traffic_policy)
            && same(&t.ip_family_policy, &service.ip_family_policy)
            && (t.load_balancer_source_ranges.is_empty()
                || t.load_balancer_source_ranges == service.load_balancer_source_ranges)
            && t.allocate_load_balancer_node_ports
                .is_none_or(|v| service.allocate_load_balancer_node_ports == Some(v))
            && t.publish_not_ready_addresses == service.publish_not_ready_addresses
            && self.given_up.is_met_by(service)
    }
}
