use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use axum::body::Bytes;
use external_ip_core::formats::{document, etag, nat_map, origin};
use external_ip_core::mapping::{ClusterMapping, Mapping};
use external_ip_core::names::Key;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderValue;
use tokio::sync::OnceCell;

use crate::constants::GZIP_FROM;

/// How a document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `application/json`
    Json,
    /// `application/yaml` (RFC 9512)
    Yaml,
    /// What drivers take: routed TCP ports only, as JSON.
    NatMap,
}

impl Format {
    /// The `Content-Type`.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json | Self::NatMap => "application/json",
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
    gzip: OnceCell<Option<Box<Document>>>,
}

impl Document {
    /// `text` with its tag.
    pub fn new(text: impl Into<Bytes>) -> Self {
        let body = text.into();
        // base32 between quotes is a header value; were it not, a client would see an ETag that never matches
        let etag = HeaderValue::try_from(etag(&body)).unwrap_or(HeaderValue::from_static("\"\""));
        Self { body, etag, gzip: OnceCell::new() }
    }

    /// The same compressed, with a tag of its own; `None` where that saves nothing. Made once, by the first who asks, and
    /// beside the threads that answer: a map of 10 000 pods takes tens of milliseconds.
    pub async fn gzip(&self) -> Option<&Self> {
        if self.body.len() < GZIP_FROM {
            return None;
        }
        let made = self.gzip.get_or_init(async || {
            let body = self.body.clone();
            tokio::task::spawn_blocking(move || gzip(&body)).await.ok().flatten()
        });
        made.await.as_deref()
    }
}

fn gzip(body: &Bytes) -> Option<Box<Document>> {
    // the fastest level: entries repeat themselves so much that the others save little more
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).ok()?;
    let made = encoder.finish().ok()?;
    (made.len() < body.len()).then(|| Box::new(Document::new(made)))
}

/// One document in each format.
#[derive(Debug, Default)]
struct Forms {
    json: OnceLock<Document>,
    yaml: OnceLock<Document>,
    nat_map: OnceLock<Document>,
}

impl Forms {
    fn get(&self, format: Format, make: impl FnOnce() -> String) -> &Document {
        let form = match format {
            Format::Json => &self.json,
            Format::Yaml => &self.yaml,
            Format::NatMap => &self.nat_map,
        };
        form.get_or_init(|| Document::new(make()))
    }
}

/// All documents of one generation. Each is made once, by the first who asks, and shared.
#[derive(Debug)]
pub struct Documents {
    clusters: BTreeMap<Key, Arc<ClusterDocuments>>,
    mapping: Arc<Mapping>,
    service_ip: Option<IpAddr>,
    origin: OnceLock<(Document, usize)>,
    forms: Forms,
}

impl Documents {
    /// Documents of `mapping`; those of clusters that are as they were are taken over from `before`. And the clusters of
    /// which that is not so, with those that are gone.
    pub(super) fn new(
        mapping: &Arc<Mapping>,
        service_ip: Option<IpAddr>,
        before: Option<&Self>,
    ) -> (Self, Vec<Key>) {
        let mut changed = Vec::new();
        // both are sorted: side by side, one look at each
        let mut former = before.into_iter().flat_map(|b| &b.clusters).peekable();
        let mut keep = |(key, cluster): (&Key, &Arc<ClusterMapping>)| {
            while let Some((gone, _)) = former.next_if(|(of, _)| *of < key) {
                changed.push(gone.clone());
            }
            let known = former.next_if(|(of, _)| *of == key).map(|(_, documents)| documents);
            let documents = known.filter(|d| d.mapping == *cluster).map_or_else(
                || {
                    changed.push(key.clone());
                    Arc::new(ClusterDocuments::new(Arc::clone(cluster)))
                },
                Arc::clone,
            );
            (key.clone(), documents)
        };
        let clusters = mapping.iter().map(&mut keep).collect();
        changed.extend(former.map(|(gone, _)| gone.clone()));
        let mapping = Arc::clone(mapping);
        let (origin, forms) = (OnceLock::new(), Forms::default());
        (Self { clusters, mapping, service_ip, origin, forms }, changed)
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

    /// The document over all clusters.
    pub fn aggregate(&self, format: Format) -> &Document {
        self.forms.get(format, || match format {
            Format::Json => document::aggregate_json(&self.mapping),
            Format::Yaml => document::aggregate_yaml(&self.mapping),
            Format::NatMap => nat_map::aggregate(&self.mapping),
        })
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
    forms: Forms,
}

impl ClusterDocuments {
    fn new(mapping: Arc<ClusterMapping>) -> Self {
        Self { mapping, forms: Forms::default() }
    }

    /// The document of the cluster.
    pub fn document(&self, format: Format) -> &Document {
        self.forms.get(format, || match format {
            Format::Json => document::cluster_json(&self.mapping),
            Format::Yaml => document::cluster_yaml(&self.mapping),
            Format::NatMap => nat_map::cluster(&self.mapping),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cluster, mapping};

    fn documents_of(mapping: &Mapping) -> Documents {
        Documents::new(&Arc::new(mapping.clone()), None, None).0
    }

    #[test]
    fn equal_maps_are_equal_bytes_and_equal_tags_and_formats_have_their_own() {
        let made = || documents_of(&mapping([cluster("data", "a", 2)]));
        let (one, other) = (made(), made());
        assert_eq!(one.aggregate(Format::Json).body, other.aggregate(Format::Json).body);
        assert_eq!(one.aggregate(Format::Json).etag, other.aggregate(Format::Json).etag);
        assert_ne!(one.aggregate(Format::Json).etag, one.aggregate(Format::Yaml).etag);
    }

    #[test]
    fn a_document_is_made_once() {
        let documents = documents_of(&mapping([cluster("data", "a", 2)]));
        assert_eq!(documents.origin().body.as_ptr(), documents.origin().body.as_ptr());
    }

    #[tokio::test]
    async fn a_document_is_compressed_once_and_only_where_that_saves_something() {
        use std::io::Read;
        let large = mapping((0..20).map(|n| cluster("data", &format!("c{n}"), 3)));
        let documents = documents_of(&large);
        let document = documents.aggregate(Format::Json);
        let (one, other) = tokio::join!(document.gzip(), document.gzip());
        let (one, other) = (one.unwrap(), other.unwrap());
        assert!(std::ptr::eq(one, other));
        assert!(one.body.len() * 4 < document.body.len() && one.etag != document.etag);
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&one.body[..]).read_to_end(&mut text).unwrap();
        assert_eq!(text, document.body);
        let again = documents_of(&large);
        assert_eq!(again.aggregate(Format::Json).gzip().await.unwrap().etag, one.etag, "on every replica");
        let small = documents_of(&mapping([cluster("data", "a", 1)]));
        assert!(small.aggregate(Format::Json).gzip().await.is_none());
        let noise: Vec<u8> = (0..GZIP_FROM).map(|_| fastrand::u8(..)).collect();
        assert!(Document::new(noise).gzip().await.is_none(), "nothing would be saved");
    }
}
