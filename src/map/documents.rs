use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use axum::body::Bytes;
use external_ip_core::formats::{document, etag, origin};
use external_ip_core::mapping::{ClusterMapping, Mapping};
use external_ip_core::names::Key;
use http::HeaderValue;

/// How a document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `application/json`
    Json,
    /// `application/yaml` (RFC 9512)
    Yaml,
}

impl Format {
    /// The `Content-Type`.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
        }
    }
}

/// A body and the hash that names it. Clones share the bytes.
#[derive(Debug, Clone)]
pub struct Document {
    /// What is sent.
    pub body: Bytes,
    /// Strong `ETag` with its quotes: equal bytes, equal tag, on every replica.
    pub etag: HeaderValue,
}

impl Document {
    /// `text` with its tag.
    pub fn new(text: String) -> Self {
        // base32 between quotes is a header value; were it not, a client would see an ETag that never matches
        let etag = HeaderValue::try_from(etag(text.as_bytes())).unwrap_or(HeaderValue::from_static("\"\""));
        Self { body: Bytes::from(text), etag }
    }
}

/// All documents of one generation. Each is made once, by the first who asks, and shared.
#[derive(Debug)]
pub struct Documents {
    clusters: BTreeMap<Key, Arc<ClusterDocuments>>,
    mapping: Mapping,
    service_ip: Option<IpAddr>,
    origin: OnceLock<(Document, usize)>,
    json: OnceLock<Document>,
    yaml: OnceLock<Document>,
}

impl Documents {
    /// Documents of `mapping`; those of clusters that are as they were are taken over from `before`.
    pub(super) fn new(mapping: &Mapping, service_ip: Option<IpAddr>, before: Option<&Self>) -> Self {
        let keep = |(key, cluster): (&Key, &Arc<ClusterMapping>)| {
            let kept = before.and_then(|b| b.clusters.get(key)).filter(|d| d.mapping == *cluster);
            (
                key.clone(),
                kept.map_or_else(|| Arc::new(ClusterDocuments::new(Arc::clone(cluster))), Arc::clone),
            )
        };
        Self {
            clusters: mapping.iter().map(keep).collect(),
            mapping: mapping.clone(),
            service_ip,
            origin: OnceLock::new(),
            json: OnceLock::new(),
            yaml: OnceLock::new(),
        }
    }

    /// The origin's YAML over all clusters (`/`).
    pub fn origin(&self) -> &Document {
        &self.origin_parts().0
    }

    /// Entries the origin's form cannot express (ports that differ, IPv6).
    pub fn origin_left_out(&self) -> usize {
        self.origin_parts().1
    }

    fn origin_parts(&self) -> &(Document, usize) {
        self.origin.get_or_init(|| {
            let made = origin::document(&self.mapping, self.service_ip);
            (Document::new(made.text), made.left_out)
        })
    }

    /// The full document over all clusters.
    pub fn aggregate(&self, format: Format) -> &Document {
        match format {
            Format::Json => self.json.get_or_init(|| Document::new(document::aggregate_json(&self.mapping))),
            Format::Yaml => self.yaml.get_or_init(|| Document::new(document::aggregate_yaml(&self.mapping))),
        }
    }

    /// One cluster's documents.
    pub fn cluster(&self, key: &Key) -> Option<&Arc<ClusterDocuments>> {
        self.clusters.get(key)
    }
}

/// One cluster's documents.
#[derive(Debug)]
pub struct ClusterDocuments {
    mapping: Arc<ClusterMapping>,
    json: OnceLock<Document>,
    yaml: OnceLock<Document>,
}

impl ClusterDocuments {
    fn new(mapping: Arc<ClusterMapping>) -> Self {
        Self { mapping, json: OnceLock::new(), yaml: OnceLock::new() }
    }

    /// The full document of the cluster.
    pub fn document(&self, format: Format) -> &Document {
        match format {
            Format::Json => self.json.get_or_init(|| Document::new(document::cluster_json(&self.mapping))),
            Format::Yaml => self.yaml.get_or_init(|| Document::new(document::cluster_yaml(&self.mapping))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cluster, mapping};

    #[test]
    fn equal_maps_are_equal_bytes_and_equal_tags_and_formats_have_their_own() {
        let made = || Documents::new(&mapping([cluster("data", "a", 2)]), None, None);
        let (one, other) = (made(), made());
        assert_eq!(one.aggregate(Format::Json).body, other.aggregate(Format::Json).body);
        assert_eq!(one.aggregate(Format::Json).etag, other.aggregate(Format::Json).etag);
        assert_ne!(one.aggregate(Format::Json).etag, one.aggregate(Format::Yaml).etag);
    }

    #[test]
    fn a_document_is_made_once() {
        let documents = Documents::new(&mapping([cluster("data", "a", 2)]), None, None);
        assert_eq!(documents.origin().body.as_ptr(), documents.origin().body.as_ptr());
    }
}
