//! Reads an AdmissionReview: strings are borrowed from the body, fields nobody asks for are skipped unread. The
//! budget is microseconds, and a pod's review is mostly environment, volumes and managed fields.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::json::{self, Raw};
use crate::names;
use crate::objects::{ContainerPort, Protocol};

/// A string, borrowed where it holds no escape sequence. (A bare `Cow` inside `Option` or a map would always be
/// copied by serde.)
#[derive(Debug, Default, Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Text<'_> {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text, or nothing.
fn text<'t>(field: Option<&'t Text<'_>>) -> &'t str {
    field.map_or("", Text::as_str)
}

#[derive(Debug, Deserialize)]
pub(super) struct Review<'a, O> {
    #[serde(borrow)]
    pub(super) request: Request<'a, O>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request<'a, O> {
    #[serde(borrow)]
    uid: Text<'a>,
    #[serde(borrow)]
    resource: Option<Resource<'a>>,
    #[serde(borrow)]
    sub_resource: Option<Text<'a>>,
    #[serde(borrow)]
    namespace: Option<Text<'a>>,
    #[serde(borrow)]
    operation: Option<Text<'a>>,
    dry_run: Option<bool>,
    pub(super) object: Option<O>,
}

#[derive(Debug, Deserialize)]
struct Resource<'a> {
    #[serde(borrow)]
    group: Option<Text<'a>>,
    #[serde(borrow)]
    resource: Option<Text<'a>>,
}

impl<O> Request<'_, O> {
    /// Identity of the request, repeated in its answer.
    pub(super) fn uid(&self) -> &str {
        self.uid.as_str()
    }

    pub(super) fn namespace(&self) -> &str {
        text(self.namespace.as_ref())
    }

    pub(super) fn dry_run(&self) -> bool {
        self.dry_run.unwrap_or(false)
    }

    /// Whether it is about a new pod, not another kind, verb or a subresource (`pods/eviction` is a CREATE, too).
    pub(super) fn creates_pod(&self) -> bool {
        text(self.operation.as_ref()) == "CREATE"
            && text(self.sub_resource.as_ref()).is_empty()
            && self
                .resource
                .as_ref()
                .is_some_and(|r| text(r.group.as_ref()).is_empty() && text(r.resource.as_ref()) == "pods")
    }
}

/// The least a review must have to be answered.
#[derive(Debug, Deserialize)]
pub(super) struct BareReview<'a> {
    #[serde(borrow)]
    pub(super) request: BareRequest<'a>,
}

#[derive(Debug, Deserialize)]
pub(super) struct BareRequest<'a> {
    #[serde(borrow)]
    pub(super) uid: Text<'a>,
}

/// A pod.
#[derive(Debug, Deserialize)]
pub(super) struct PodObject<'a> {
    #[serde(borrow)]
    pub(super) metadata: Option<Metadata<'a>>,
    #[serde(borrow)]
    spec: Option<Spec<'a>>,
}

/// What is left of a pod whose spec cannot be read: enough to take forged keys away.
#[derive(Debug, Deserialize)]
pub(super) struct NamedObject<'a> {
    #[serde(borrow)]
    pub(super) metadata: Option<Metadata<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    generate_name: Option<Text<'a>>,
    #[serde(borrow)]
    namespace: Option<Text<'a>>,
    /// All labels; `None` = there is no map to add to.
    #[serde(borrow)]
    pub(super) labels: Option<Entries<'a, true>>,
    /// Only the annotations we read or reserve; `None` = there is no map to add to.
    #[serde(borrow)]
    pub(super) annotations: Option<Entries<'a, false>>,
}

impl Metadata<'_> {
    /// The name, where it is known already.
    pub(super) fn name(&self) -> Option<&str> {
        Some(text(self.name.as_ref())).filter(|name| !name.is_empty())
    }

    pub(super) fn namespace(&self) -> &str {
        text(self.namespace.as_ref())
    }

    /// The name, or what it will begin with: for logs.
    pub(super) fn display_name(&self) -> &str {
        self.name().unwrap_or_else(|| text(self.generate_name.as_ref()))
    }

    pub(super) fn label(&self, key: &str) -> Option<&str> {
        self.labels.as_ref()?.get(key)
    }

    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key)
    }
}

/// A map of strings: all of it, or only the keys the webhook cares about. Annotations of other tools may be hundreds
/// of kilobytes of escaped JSON, which are not worth a copy.
#[derive(Debug, Default)]
pub(super) struct Entries<'a, const ALL: bool>(Vec<(Text<'a>, Text<'a>)>);

impl<const ALL: bool> Entries<'_, ALL> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k.as_str() == key).map(|(_, value)| value.as_str())
    }

    /// Keys and values under the reserved prefix.
    pub(super) fn reserved(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        pairs.filter(|(key, _)| key.starts_with(names::RESERVED_PREFIX))
    }

    fn keeps(key: &str) -> bool {
        const READ: [&str; 5] = [
            names::PORTS_ANNOTATION,
            names::CLASS_ANNOTATION,
            names::AWAIT_ANNOTATION,
            names::INJECT_ANNOTATION,
            names::MIRROR_ANNOTATION,
        ];
        ALL || key.starts_with(names::RESERVED_PREFIX) || READ.contains(&key)
    }
}

impl<'de: 'a, 'a, const ALL: bool> Deserialize<'de> for Entries<'a, ALL> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor<const ALL: bool>;

        impl<'de, const ALL: bool> Visitor<'de> for EntriesVisitor<ALL> {
            type Value = Entries<'de, ALL>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries: Vec<(Text<'de>, Text<'de>)> = Vec::new();
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    if !Self::Value::keeps(key.as_str()) {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let value = map.next_value()?;
                    // of a key given twice the last counts, as for the API server; a second removal would fail
                    match entries.iter_mut().find(|(k, _)| k.as_str() == key.as_str()) {
                        Some(entry) => entry.1 = value,
                        None => entries.push((key, value)),
                    }
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(EntriesVisitor::<ALL>)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    host_network: Option<bool>,
    #[serde(borrow)]
    node_name: Option<Text<'a>>,
    #[serde(borrow)]
    scheduling_gates: Option<Vec<Gate<'a>>>,
    #[serde(borrow)]
    readiness_gates: Option<Vec<ReadinessGate<'a>>>,
    #[serde(borrow)]
    volumes: Option<Raw<'a>>,
    #[serde(borrow)]
    containers: Option<Vec<Container<'a>>>,
    #[serde(borrow)]
    init_containers: Option<Vec<Container<'a>>>,
}

#[derive(Debug, Deserialize)]
struct Gate<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadinessGate<'a> {
    #[serde(borrow)]
    condition_type: Option<Text<'a>>,
}

/// Lists that only an injection reads are not taken apart before.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Container<'a> {
    #[serde(borrow)]
    restart_policy: Option<Text<'a>>,
    #[serde(borrow)]
    ports: Option<Vec<Port<'a>>>,
    #[serde(borrow)]
    pub(super) env: Option<Raw<'a>>,
    #[serde(borrow)]
    pub(super) volume_mounts: Option<Raw<'a>>,
}

/// An element of a list, as far as an injection reads it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Item<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    mount_path: Option<Text<'a>>,
}

impl Item<'_> {
    pub(super) fn name(&self) -> &str {
        text(self.name.as_ref())
    }

    pub(super) fn mount_path(&self) -> &str {
        text(self.mount_path.as_ref())
    }
}

/// The elements of a list; of what is no such list none.
pub(super) fn items(list: Option<Raw<'_>>) -> Vec<Item<'_>> {
    list.and_then(|list| json::read(list.0).ok()).unwrap_or_default()
}

#[derive(Debug, Deserialize)]
struct Port<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(rename = "containerPort")]
    number: Option<i64>,
    #[serde(borrow)]
    protocol: Option<Text<'a>>,
}

impl<'a> PodObject<'a> {
    pub(super) fn host_network(&self) -> bool {
        self.spec.as_ref().is_some_and(|s| s.host_network == Some(true))
    }

    /// Ports the containers declare, native sidecars included. What is no port is left out: the API server refuses
    /// the pod for it, in better words.
    pub(super) fn container_ports(&self) -> Vec<ContainerPort> {
        let containers = self.running_containers().map(|(_, container)| container);
        containers.flat_map(|c| c.ports.iter().flatten()).filter_map(Port::declared).collect()
    }

    /// Containers that live as long as the pod, native sidecars included, and the JSON pointer to each.
    pub(super) fn running_containers(&self) -> impl Iterator<Item = (String, &Container<'a>)> {
        let spec = self.spec.as_ref();
        let containers = numbered("containers", spec.and_then(|s| s.containers.as_deref()));
        let sidecars = numbered("initContainers", spec.and_then(|s| s.init_containers.as_deref()));
        containers.chain(sidecars.filter(|(_, c)| text(c.restart_policy.as_ref()) == "Always"))
    }

    /// Whether the pod has its node already: it cannot be held.
    pub(super) fn has_node(&self) -> bool {
        self.spec.as_ref().is_some_and(|s| !text(s.node_name.as_ref()).is_empty())
    }

    /// Names of the scheduling gates; `None` = there is no list to add to.
    pub(super) fn scheduling_gates(&self) -> Option<Vec<&str>> {
        let gates = self.spec.as_ref()?.scheduling_gates.as_ref()?;
        Some(gates.iter().map(|gate| text(gate.name.as_ref())).collect())
    }

    /// Condition types of the readiness gates; `None` = there is no list to add to.
    pub(super) fn readiness_gates(&self) -> Option<Vec<&str>> {
        let gates = self.spec.as_ref()?.readiness_gates.as_ref()?;
        Some(gates.iter().map(|gate| text(gate.condition_type.as_ref())).collect())
    }

    pub(super) fn volumes(&self) -> Option<Raw<'a>> {
        self.spec.as_ref()?.volumes
    }
}

fn numbered<'s, 'a>(
    list: &'static str,
    found: Option<&'s [Container<'a>]>,
) -> impl Iterator<Item = (String, &'s Container<'a>)> {
    let containers = found.unwrap_or_default().iter().enumerate();
    containers.map(move |(index, container)| (format!("/spec/{list}/{index}"), container))
}

/// Place in its list, name, number and protocol.
pub(super) type PlacedPort<'p> = (usize, &'p str, u16, Protocol);

impl PodObject<'_> {
    /// The ports of each container, last first, with the container's path.
    pub(super) fn ports_by_container(&self) -> Vec<(String, Vec<PlacedPort<'_>>)> {
        let Some(spec) = &self.spec else { return Vec::new() };
        let lists = [("containers", &spec.containers), ("initContainers", &spec.init_containers)];
        let mut found = Vec::new();
        for (list, containers) in lists {
            for (index, container) in containers.iter().flatten().enumerate() {
                let ports = container.ports.as_deref().unwrap_or_default().iter().enumerate().rev();
                let placed = ports.filter_map(|(place, port)| {
                    let name = text(port.name.as_ref());
                    port.declared().map(|p| (place, name, p.number, p.protocol))
                });
                found.push((format!("/spec/{list}/{index}"), placed.collect()));
            }
        }
        found
    }

    /// Whether the first container has a list of ports to add to.
    pub(super) fn first_declares_ports(&self) -> bool {
        let first = self.spec.as_ref().and_then(|s| s.containers.as_ref()?.first());
        first.is_some_and(|c| c.ports.is_some())
    }
}

impl Port<'_> {
    fn declared(&self) -> Option<ContainerPort> {
        let number = u16::try_from(self.number?).ok().filter(|n| *n > 0)?;
        let protocol = match text(self.protocol.as_ref()) {
            "" => Protocol::default(),
            given => given.parse().ok()?,
        };
        Some(ContainerPort { name: text(self.name.as_ref()).to_owned(), number, protocol })
    }
}
