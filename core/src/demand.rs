//! What a pod asks for: the cluster it belongs to, its class and its ports. One rule for the webhook (which has only
//! a review in its hands) and for the planner (which has seen the pod).

use std::collections::BTreeSet;

use crate::names::{self, ClusterName};
use crate::objects::{ContainerPort, InvalidPort, Pod, PortRef, PortSpec, Protocol, ServicePort};
use crate::reason::{Code, Reason};
use crate::settings::{Class, ConfiguredCluster, DEFAULT_CLASS, Settings};

/// Most ports of one slot: an EndpointSlice cannot carry more.
pub const PORTS_MAX: usize = 100;

/// Longest piece of a user's text that a reason repeats, in characters: the remedy behind it must stay readable.
const QUOTED_MAX: usize = 60;

/// Which cluster a pod belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Membership<'s> {
    /// None: it is no business of ours.
    None,
    /// One.
    Cluster {
        /// The label's value as written, which may not be a cluster name, or the configured name.
        name: String,
        /// The configuration's entry that selects the pod. With a label: only the entry of the very same cluster.
        configured: Option<&'s ConfiguredCluster>,
    },
    /// No label, and several entries of the configuration select it.
    Ambiguous {
        /// Their cluster names, sorted.
        names: Vec<String>,
    },
}

/// The cluster of a pod of `namespace` with these `labels`. The pod's own label wins over the configuration.
pub fn cluster_of<'l, 's>(
    labels: impl Fn(&str) -> Option<&'l str>,
    namespace: &str,
    settings: &'s Settings,
) -> Membership<'s> {
    let mut selecting = settings.clusters.iter().filter(|c| {
        c.namespace == namespace && c.selector.iter().all(|(key, value)| labels(key) == Some(value.as_str()))
    });
    if let Some(name) = labels(names::CLUSTER_LABEL) {
        let configured = selecting.find(|c| c.name.as_str() == name);
        return Membership::Cluster { name: name.to_owned(), configured };
    }
    let Some(first) = selecting.next() else { return Membership::None };
    let mut names: Vec<String> = selecting.map(|c| c.name.to_string()).collect();
    if names.is_empty() {
        return Membership::Cluster { name: first.name.to_string(), configured: Some(first) };
    }
    names.push(first.name.to_string());
    names.sort_unstable();
    Membership::Ambiguous { names }
}

/// The part of a pod that says what it wants.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Namespace.
    pub namespace: &'a str,
    /// Cluster name as [`cluster_of`] found it.
    pub cluster: &'a str,
    /// Value of [`names::PORTS_ANNOTATION`].
    pub ports_annotation: Option<&'a str>,
    /// Value of [`names::CLASS_ANNOTATION`].
    pub class_annotation: Option<&'a str>,
    /// Value of [`names::AWAIT_ANNOTATION`].
    pub await_annotation: Option<&'a str>,
    /// Value of [`names::INJECT_ANNOTATION`].
    pub inject_annotation: Option<&'a str>,
    /// Ports the containers declare, native sidecars included.
    pub container_ports: &'a [ContainerPort],
    /// Uses its node's network.
    pub host_network: bool,
    /// A kubelet's static pod.
    pub mirror: bool,
    /// The configuration's entry that selects the pod. What it says about class and ports goes before the pod's
    /// annotations: the entry is what opened the network, so a pod's author cannot open more by an annotation.
    pub configured: Option<&'a ConfiguredCluster>,
}

impl<'a> Ask<'a> {
    /// What `pod` asks for as a member of `cluster`.
    pub fn of_pod(pod: &'a Pod, cluster: &'a str, configured: Option<&'a ConfiguredCluster>) -> Self {
        Self {
            namespace: &pod.key.namespace,
            cluster,
            ports_annotation: pod.ports.as_deref(),
            class_annotation: pod.class.as_deref(),
            await_annotation: pod.await_address.as_deref(),
            inject_annotation: pod.inject.as_deref(),
            container_ports: &pod.container_ports,
            host_network: pod.host_network,
            mirror: pod.mirror,
            configured,
        }
    }
}

/// What a pod gets if there is room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand<'s> {
    /// Name of the class.
    pub class_name: &'s str,
    /// The class.
    pub class: &'s Class,
    /// At least one, at most [`PORTS_MAX`]; sorted, names and (port, protocol) unique, outside = inside.
    pub ports: Vec<ServicePort>,
    /// It waits for its address before it starts.
    pub waits: bool,
    /// How its processes are told the address.
    pub inject: Inject,
}

/// Ways to give a pod's processes what its annotations say. A process reads them when it starts, so either implies
/// waiting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inject {
    /// As environment.
    pub env: bool,
    /// As files.
    pub volume: bool,
}

/// Reads what a pod asks for, or says why it cannot be exposed.
pub fn demand<'s>(ask: &Ask, settings: &'s Settings) -> Result<Demand<'s>, Reason> {
    if ask.mirror {
        return Err(Code::MirrorPod.into());
    }
    if ask.host_network {
        return Err(Code::HostNetwork.into());
    }
    ask.cluster
        .parse::<ClusterName>()
        .map_err(|_| Reason::new(Code::InvalidClusterName, quoted(ask.cluster)))?;
    let (class_name, class) = class_of(ask, settings)?;
    let inject = inject(ask)?;
    let waits = awaits(ask)?.unwrap_or(class.await_address.enabled) || inject.env || inject.volume;
    let ports = service_ports(&wanted_ports(ask)?, ask.container_ports)?;
    Ok(Demand { class_name, class, ports, waits, inject })
}

fn class_of<'s>(ask: &Ask, settings: &'s Settings) -> Result<(&'s str, &'s Class), Reason> {
    let name = match ask.configured {
        Some(entry) => &entry.class,
        None => ask.class_annotation.unwrap_or(DEFAULT_CLASS),
    };
    let (name, class) = settings
        .classes
        .get_key_value(name)
        .ok_or_else(|| Reason::new(Code::UnknownClass, format!("class {}", quoted(name))))?;
    if class.allows(ask.namespace) {
        Ok((name, class))
    } else {
        let detail = format!("class {}, namespace {}", quoted(name), quoted(ask.namespace));
        Err(Reason::new(Code::ClassNotAllowed, detail))
    }
}

/// Whether the pod says that it waits, or that it does not.
fn awaits(ask: &Ask) -> Result<Option<bool>, Reason> {
    match ask.await_annotation {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(value) => Err(Reason::new(Code::InvalidSettings, format!("await: {}", quoted(value)))),
    }
}

fn inject(ask: &Ask) -> Result<Inject, Reason> {
    let mut inject = Inject::default();
    let Some(value) = ask.inject_annotation else { return Ok(inject) };
    for part in value.split(',') {
        match part.trim() {
            "env" => inject.env = true,
            "volume" => inject.volume = true,
            _ => return Err(Reason::new(Code::InvalidSettings, format!("inject: {}", quoted(value)))),
        }
    }
    Ok(inject)
}

/// Port and protocol inside, not yet named.
type Wanted = BTreeSet<(u16, Protocol)>;

fn wanted_ports(ask: &Ask) -> Result<Wanted, Reason> {
    let configured = ask.configured.map(|c| c.ports.as_slice()).filter(|ports| !ports.is_empty());
    let from_annotation;
    let specs = match (configured, ask.ports_annotation) {
        (Some(ports), _) => ports,
        (None, Some(text)) => {
            from_annotation = PortSpec::list(text).map_err(|e| match e {
                InvalidPort::Port(part) | InvalidPort::Protocol(part) => {
                    Reason::new(Code::InvalidPorts, quoted(&part))
                }
            })?;
            from_annotation.as_slice()
        }
        (None, None) => return Ok(ask.container_ports.iter().map(|p| (p.number, p.protocol)).collect()),
    };
    specs.iter().map(|spec| resolve(spec, ask.container_ports)).collect()
}

/// A user's port as number and protocol. As for a Service's `targetPort`, the first container with a name has it.
fn resolve(spec: &PortSpec, declared: &[ContainerPort]) -> Result<(u16, Protocol), Reason> {
    match &spec.port {
        PortRef::Number(number) => {
            Ok((*number, spec.protocol.unwrap_or_else(|| likely_protocol(*number, declared))))
        }
        PortRef::Name(name) => declared
            .iter()
            .find(|p| p.name == *name && spec.protocol.is_none_or(|wanted| wanted == p.protocol))
            .map(|p| (p.number, p.protocol))
            .ok_or_else(|| Reason::new(Code::UnknownPort, quoted(&spec.to_string()))),
    }
}

/// TCP, unless the containers declare the number under exactly one protocol and that is another.
fn likely_protocol(number: u16, declared: &[ContainerPort]) -> Protocol {
    let mut protocols = declared.iter().filter(|p| p.number == number).map(|p| p.protocol);
    match protocols.next() {
        Some(first) if protocols.all(|p| p == first) => first,
        _ => Protocol::Tcp,
    }
}

fn service_ports(wanted: &Wanted, declared: &[ContainerPort]) -> Result<Vec<ServicePort>, Reason> {
    if wanted.is_empty() {
        return Err(Code::NoPorts.into());
    }
    if wanted.len() > PORTS_MAX {
        let detail = format!("{} ports; a pod may expose {PORTS_MAX}", wanted.len());
        return Err(Reason::new(Code::InvalidPorts, detail));
    }
    let named: Vec<_> = wanted
        .iter()
        .map(|&(port, protocol)| (port, protocol, declared_name((port, protocol), declared)))
        .collect();
    let numbered =
        |port: u16, protocol: Protocol| format!("{}-{port}", protocol.as_str().to_ascii_lowercase());
    // hardly any declared name looks like a numbered one: those of all pods of a cluster are read at each look at it
    let is_numbered = |name: &str, port, protocol: Protocol| {
        let like = name.split_once('-').is_some_and(|(p, _)| p.eq_ignore_ascii_case(protocol.as_str()));
        like && numbered(port, protocol) == name
    };
    let clashes = |own: usize, name: &str| {
        named.iter().enumerate().any(|(i, (port, protocol, declared))| {
            i != own && (*declared == Some(name) || is_numbered(name, *port, *protocol))
        })
    };
    let mut ports: Vec<ServicePort> = named
        .iter()
        .enumerate()
        .map(|(i, (port, protocol, declared))| {
            let declared = declared.filter(|name| !clashes(i, name)).map(str::to_owned);
            ServicePort {
                name: declared.unwrap_or_else(|| numbered(*port, *protocol)),
                protocol: *protocol,
                port: *port,
                target: *port,
                target_name: String::new(),
            }
        })
        .collect();
    ports.sort();
    Ok(ports)
}

/// The name the first container gives a port, where it can name a Service's port as well.
fn declared_name((number, protocol): (u16, Protocol), declared: &[ContainerPort]) -> Option<&str> {
    declared
        .iter()
        .filter(|p| p.number == number && p.protocol == protocol)
        .map(|p| p.name.as_str())
        .find(|name| matches!(name.parse(), Ok(PortSpec { port: PortRef::Name(_), protocol: None })))
}

/// A user's text in quotes, shortened and without control characters: it goes into warnings and Events.
pub(crate) fn quoted(text: &str) -> String {
    let mut kept: String =
        text.chars().take(QUOTED_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(QUOTED_MAX).is_some() {
        kept.push('…');
    }
    format!("'{kept}'")
}

#[cfg(test)]
mod tests;
