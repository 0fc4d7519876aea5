//! Names and keys that users, the API server and other programs see. Design words are defined in the crate doc.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::objects::Protocol;

/// Users' label on pods: the cluster the pod belongs to.
pub const CLUSTER_LABEL: &str = "external-ip.dev/cluster";
/// Platform engineers' label on namespaces; only the value `"true"` lets a namespace take part.
pub const ENABLED_LABEL: &str = "external-ip.dev/enabled";
/// Users' annotation: exposed ports, for example `11222`, `11222/udp`, `hotrod`, comma separated.
pub const PORTS_ANNOTATION: &str = "external-ip.dev/ports";
/// Users' annotation: the class that says how slots are exposed.
pub const CLASS_ANNOTATION: &str = "external-ip.dev/class";
/// Users' annotation: hold the pod until its external address is known.
pub const AWAIT_ANNOTATION: &str = "external-ip.dev/await";
/// Users' annotation: give the address to the process, `env` and/or `volume`.
pub const INJECT_ANNOTATION: &str = "external-ip.dev/inject";

/// Everything under this prefix is written by us alone; found on a new pod it is somebody else's and removed.
pub const RESERVED_PREFIX: &str = "stamp.external-ip.dev/";
/// The identity label a slot's Service selects.
pub const POD_ID_LABEL: &str = "stamp.external-ip.dev/pod-id";
/// Version of the stamp's format.
pub const STAMP_VERSION_ANNOTATION: &str = "stamp.external-ip.dev/version";
/// The slot's number, where known at CREATE.
pub const STAMP_SLOT_ANNOTATION: &str = "stamp.external-ip.dev/slot";
/// External addresses, comma separated, IPv4 first, where known at CREATE.
pub const STAMP_ADDRESS_ANNOTATION: &str = "stamp.external-ip.dev/address";
/// External host name, where known at CREATE.
pub const STAMP_HOST_ANNOTATION: &str = "stamp.external-ip.dev/host";
/// Prefix of one annotation per exposed port: internal number, value the external one. See [`stamp_port`].
pub const STAMP_PORT_PREFIX: &str = "stamp.external-ip.dev/port-";

/// The label by which a shared Service selects: the cluster's name, on pods that carry the names of shared ports.
pub const SHARED_LABEL: &str = "stamp.external-ip.dev/shared";

/// Our scheduling gate: holds a pod until its address is known.
pub const ADDRESS_GATE: &str = "external-ip.dev/address";
/// Our readiness gate and the condition that meets it: the pod's external address leads to it.
pub const ROUTED_CONDITION: &str = "external-ip.dev/routed";
/// Environment of `inject: env`: [`STAMP_ADDRESS_ANNOTATION`]. The ports' variables are named by [`env_port`].
pub const ADDRESS_ENV: &str = "EXTERNAL_IP";
/// Environment of `inject: env`: [`STAMP_HOST_ANNOTATION`].
pub const HOST_ENV: &str = "EXTERNAL_HOST";
/// The volume of `inject: volume`; one file per annotation, named by its key without the prefix.
pub const TOLD_VOLUME: &str = "external-ip";
/// Where [`TOLD_VOLUME`] is mounted.
pub const TOLD_PATH: &str = "/etc/external-ip";

/// Label and value that all our objects carry.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY_LABEL`], and the name of the Lease, the webhook configuration and the field manager.
pub const CONTROLLER_NAME: &str = "external-ip-controller";
/// Number of a shared Service among its cluster's, on the Service.
pub const SHARED_SERVICE_LABEL: &str = "external-ip.dev/shared";
/// Slot number on a slot's Service.
pub const SLOT_LABEL: &str = "external-ip.dev/slot";
/// The installation that owns an object: its configured name, never a UID, so a restored Service is ours again.
pub const OWNER_ANNOTATION: &str = "external-ip.dev/owner";
/// The pod name a slot is kept for.
pub const POD_ANNOTATION: &str = "external-ip.dev/pod";
/// The class a slot was made with: says how long it is kept when its pod is gone.
pub const SLOT_CLASS_ANNOTATION: &str = "external-ip.dev/slot-class";
/// How a slot is exposed, where that is not by a load balancer of its own.
pub const EXPOSURE_ANNOTATION: &str = "external-ip.dev/exposure";
/// The external addresses a slot asks its load balancer for, comma separated, IPv4 first: its claim, nobody else's.
pub const ASKED_ANNOTATION: &str = "external-ip.dev/asked-address";
/// `"true"` hands a foreign Service over to us on purpose.
pub const ADOPT_ANNOTATION: &str = "external-ip.dev/adopt";
/// `"true"` on a slot's Service asks for another one in its place; it goes when that has its address.
pub const RECREATE_ANNOTATION: &str = "external-ip.dev/recreate";
/// Written by the leader on a Service that gave a held pod no address in time: until when pods of its class are not
/// held (RFC 3339).
pub const IN_VAIN_ANNOTATION: &str = "external-ip.dev/awaited-in-vain";
/// Written by the leader on a Service that has waited too long for its address, so that every replica shows the
/// same reason without looking at its own clock.
pub const OVERDUE_ANNOTATION: &str = "external-ip.dev/overdue";

/// Written by the leader on a Service whose address it has dialled: the result, the pod's UID, the address.
pub const REACHABLE_ANNOTATION: &str = "external-ip.dev/reachable";

/// Written by the leader on a Service whose load balancer is known by name: the name and its addresses.
pub const RESOLVED_ANNOTATION: &str = "external-ip.dev/resolved";

/// Set by Kubernetes' own EndpointSlice controller; endpoints from anybody else are not believed.
pub const SLICE_MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// Value of [`SLICE_MANAGED_BY_LABEL`] for slices of Kubernetes' own controller.
pub const SLICE_CONTROLLER: &str = "endpointslice-controller.k8s.io";
/// Names the Service an EndpointSlice belongs to.
pub const SLICE_SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// When the pods behind an EndpointSlice last changed, as its controller records it.
pub const SLICE_TRIGGER_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Marks a mirror pod of a kubelet's static pod.
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// Secret with the self-managed CA.
pub const CA_SECRET: &str = "external-ip-controller-ca";
/// On [`CA_SECRET`], by people: have a new CA made, and let clients have it for this long before it signs.
pub const ROTATE_CA_ANNOTATION: &str = "external-ip.dev/rotate-ca";
/// On [`CA_SECRET`], by us: from when the next CA signs. May be edited.
pub const NEXT_CA_ANNOTATION: &str = "external-ip.dev/next-ca-signs-from";
/// On [`CA_SECRET`], by us: until when the former CA is trusted. May be edited.
pub const FORMER_CA_ANNOTATION: &str = "external-ip.dev/former-ca-trusted-until";
/// Secret with the leaf of mapping servers that run on their own.
pub const MAPPING_TLS_SECRET: &str = "external-ip-controller-mapping-tls";
/// ConfigMap with the CA certificate, in the controller's namespace.
pub const CA_CONFIG_MAP: &str = "external-ip-ca";
/// ConfigMap with the aggregate mapping, in the controller's namespace.
pub const MAPPING_CONFIG_MAP: &str = "external-ip-mapping";
/// Service that publishes the mapping listener.
pub const MAPPING_SERVICE: &str = "external-ip-controller-mapping";
/// Service the API server reaches the webhook by.
pub const WEBHOOK_SERVICE: &str = "external-ip-controller-webhook";

/// Longest cluster name: leaves room for `-ext-<slot>` and for the pod-id's hash within 63 characters.
pub const CLUSTER_NAME_MAX: usize = 40;
const LABEL_MAX: usize = 63;

/// Why a text is not a cluster name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a cluster name: use at most 40 lower-case letters, digits and '-', starting with a letter and ending with a letter or digit"
)]
pub struct InvalidClusterName(pub String);

/// A cluster's name: DNS-1035 label of at most [`CLUSTER_NAME_MAX`] characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterName(Arc<str>);

impl ClusterName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterName {
    type Err = InvalidClusterName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_dns_1035(text) && text.len() <= CLUSTER_NAME_MAX {
            Ok(Self(text.into()))
        } else {
            Err(InvalidClusterName(text.to_owned()))
        }
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `text` is a DNS-1035 label (63 characters at most).
pub fn is_dns_1035(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!(bytes.first(), Some(b'a'..=b'z'))
        && bytes.len() <= LABEL_MAX
        && bytes.last() != Some(&b'-')
        && bytes.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// A namespaced object's place: unique per kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl Key {
    /// The object `name` in `namespace`.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The identity of a pod whose name is known: its successor of the same name carries the same.
pub fn pod_id_of_name(cluster: &str, pod: &str) -> String {
    // several of each pod at every look at its cluster: joined, a fifth of what formatting costs
    let plain = [cluster, ".", pod].concat();
    if plain.len() <= LABEL_MAX {
        return plain;
    }
    // `__` cannot begin a pod name nor the random form, so the two never meet
    format!("{cluster}.__{}", short_hash(pod.as_bytes(), LABEL_MAX - CLUSTER_NAME_MAX - 3))
}

/// The identity of a pod whose name is not known at admission. `seed` is anything unique to the pod (the review's
/// UID, or the pod's); the answer to a repeated review is therefore the same.
pub fn pod_id_of_seed(cluster: &str, seed: &str) -> String {
    format!("{cluster}._{}", short_hash(seed.as_bytes(), 10))
}

/// The annotation with the external number of a port: `.../port-53`, and with another protocol than TCP
/// `.../port-53-udp`, since one number may be exposed under several.
pub fn stamp_port(internal: u16, protocol: Protocol) -> String {
    match protocol {
        Protocol::Tcp => format!("{STAMP_PORT_PREFIX}{internal}"),
        other => format!("{STAMP_PORT_PREFIX}{internal}-{}", other.as_str().to_ascii_lowercase()),
    }
}

/// The variable with the external number of a port: `EXTERNAL_PORT_53`, and with another protocol than TCP
/// `EXTERNAL_PORT_53_UDP`.
pub fn env_port(internal: u16, protocol: Protocol) -> String {
    match protocol {
        Protocol::Tcp => format!("EXTERNAL_PORT_{internal}"),
        other => format!("EXTERNAL_PORT_{internal}_{}", other.as_str()),
    }
}

/// Whether an identity was made for a pod without a name of its own, whose slot nobody comes back for.
pub fn is_anonymous(pod_id: &str) -> bool {
    pod_id.split_once('.').is_some_and(|(_, rest)| rest.starts_with('_') && !rest.starts_with("__"))
}

/// The Service of a dedicated slot.
pub fn slot_service(cluster: &str, slot: u32) -> String {
    [cluster, "-ext-", &slot.to_string()].concat()
}

/// A shared Service.
pub fn shared_service(cluster: &str, index: u32) -> String {
    format!("{cluster}-ext-shared-{index}")
}

/// What the names of a pod's shared ports begin with: `x` and 7 base32 characters of its identity's hash.
pub fn share_token(pod_id: &str) -> String {
    format!("x{}", short_hash(pod_id.as_bytes(), 7))
}

/// The name of a shared port, on pod and Service: a token and an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// See [`share_token`].
    pub token: &'a str,
    /// On a Service: no pod shall have this name, because several claim it.
    pub blocked: bool,
    /// Which of the pod's ports.
    pub index: u8,
}

impl<'a> Target<'a> {
    /// Reads a name of a port; `None` where it is not one of ours.
    pub fn read(text: &'a str) -> Option<Self> {
        let (name, number) = text.split_once('-')?;
        let blocked = name.len() == 9;
        let token = if blocked { name.strip_prefix('n')? } else { name };
        let hash = token.strip_prefix('x')?;
        let base32 = hash.len() == 7 && hash.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7'));
        let index: u8 = number.parse().ok()?;
        (base32 && index.to_string() == number).then_some(Self { token, blocked, index })
    }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blocked = if self.blocked { "n" } else { "" };
        write!(f, "{blocked}{}-{}", self.token, self.index)
    }
}

/// The ConfigMap with one cluster's mapping, in the cluster's namespace.
pub fn cluster_config_map(cluster: &str) -> String {
    format!("{cluster}-external-ips")
}

/// The number a StatefulSet gives its pods: `infinispan-2` has ordinal 2.
pub fn ordinal(pod: &str) -> Option<u32> {
    let digits = pod.rsplit_once('-')?.1;
    if digits.len() > 1 && digits.starts_with('0') { None } else { digits.parse().ok() }
}

/// First `length` lower-case base32 characters of the SHA-256 of `bytes` (52 at most).
pub fn short_hash(bytes: &[u8], length: usize) -> String {
    let mut text = data_encoding::BASE32_NOPAD.encode(&Sha256::digest(bytes)).to_ascii_lowercase();
    text.truncate(length);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_names_are_dns_1035_labels_of_40_characters() {
        for good in ["a", "infinispan", "a-1", &"a".repeat(40)] {
            assert_eq!(good.parse::<ClusterName>().unwrap().as_str(), good);
        }
        for bad in ["", "1a", "-a", "a-", "A", "a.b", "a_b", &"a".repeat(41)] {
            assert!(bad.parse::<ClusterName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn identities_fit_a_label_and_the_three_forms_never_meet() {
        let long = "p".repeat(253);
        let cluster = "c".repeat(40);
        for id in [pod_id_of_name("c", "c-0"), pod_id_of_name(&cluster, &long), pod_id_of_seed(&cluster, "s")]
        {
            assert!(id.len() <= 63, "{id}");
            assert!(id.as_bytes().last().unwrap().is_ascii_alphanumeric());
        }
        assert_eq!(pod_id_of_name("c", "c-0"), "c.c-0");
        assert!(!is_anonymous(&pod_id_of_name("c", "c-0")));
        assert!(!is_anonymous(&pod_id_of_name(&cluster, &long)));
        assert!(is_anonymous(&pod_id_of_seed("c", "s")));
        assert_eq!(pod_id_of_seed("c", "s"), pod_id_of_seed("c", "s"));
    }

    #[test]
    fn ordinals_are_what_a_stateful_set_writes() {
        assert_eq!(ordinal("infinispan-0"), Some(0));
        assert_eq!(ordinal("my-db-12"), Some(12));
        assert_eq!(ordinal("my-db-01"), None);
        assert_eq!(ordinal("web-abc"), None);
        assert_eq!(ordinal("web"), None);
    }
}
