//! Stands in for parts of the core until they land.
#![allow(missing_docs)]

pub(crate) fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", external_ip_core::names::short_hash(bytes, 26))
}

pub(crate) mod document {
    use external_ip_core::mapping::{ClusterMapping, Mapping};
    pub(crate) fn cluster_json(c: &ClusterMapping) -> String {
        serde_json::to_string(c).unwrap_or_default()
    }
    pub(crate) fn cluster_yaml(c: &ClusterMapping) -> String {
        format!("# yaml\n{}", cluster_json(c))
    }
    pub(crate) fn aggregate_json(m: &Mapping) -> String {
        let all: Vec<_> = m.values().map(|c| cluster_json(c)).collect();
        format!("{{\"clusters\":[{}]}}", all.join(","))
    }
    pub(crate) fn aggregate_yaml(m: &Mapping) -> String {
        format!("# yaml\n{}", aggregate_json(m))
    }
}

pub(crate) mod origin {
    use external_ip_core::mapping::Mapping;
    pub(crate) struct OriginDocument {
        pub(crate) text: String,
        pub(crate) left_out: usize,
    }
    pub(crate) fn document(m: &Mapping, ip: Option<std::net::IpAddr>) -> OriginDocument {
        OriginDocument { text: format!("runtime-configuration: {ip:?} {}", m.len()), left_out: 0 }
    }
}
