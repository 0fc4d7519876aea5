//! What the ConfigMaps shall hold.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Bytes;
use external_ip_core::formats::origin;
use external_ip_core::mapping::{ClusterMapping, Mapping};
use external_ip_core::names::{
    self, CA_CONFIG_MAP, CLUSTER_LABEL, CONTROLLER_NAME, ClusterName, Key, MANAGED_BY_LABEL,
    MAPPING_CONFIG_MAP, OWNER_ANNOTATION,
};
use external_ip_core::reason::Code;
use serde_json::{Value, json};

use super::held::{Held, hash};
use crate::map::{Format, Published};

use crate::tls::authority::CONFIG_MAP_KEY;

/// The API server takes no more than this in one ConfigMap, all keys together.
const TOO_LARGE: usize = 1 << 20;
/// Keys of the documents. They never change: pods mount them by name.
const ORIGIN: &str = "mapping.yaml";
const FULL: &str = "mapping.json";
const NAT_MAP: &str = "nat-map.json";

/// All ConfigMaps there shall be.
pub(super) type Documents = BTreeMap<Key, Arc<Document>>;

/// One ConfigMap.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Document {
    /// The cluster it is of.
    pub(super) cluster: Option<String>,
    /// Whether it is made where it is not there yet.
    pub(super) may_be_made: bool,
    /// Bytes of all keys.
    pub(super) size: usize,
    /// Bytes it would have had, where that is more than a ConfigMap takes. The document is withdrawn then: readers see
    /// that there is none, not an old one.
    pub(super) too_large: Option<usize>,
    /// `None`: the key must not be there.
    data: BTreeMap<&'static str, Option<Text>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Text {
    /// Shared with who reads the same document.
    text: Bytes,
    hash: u64,
}

impl Document {
    /// `texts` as they are rendered, dropped where they are too large together with `ca`.
    fn new(cluster: Option<&str>, texts: Vec<(&'static str, Bytes)>, ca: Option<&str>) -> Self {
        let size: usize = texts.iter().map(|(_, text)| text.len()).sum::<usize>() + ca.map_or(0, str::len);
        let too_large = (size > TOO_LARGE).then_some(size);
        let mut data: BTreeMap<_, _> = texts
            .into_iter()
            .map(|(key, text)| (key, too_large.is_none().then(|| Text::new(text))))
            .collect();
        // one that is not known any more must not be trusted any longer
        data.insert(CONFIG_MAP_KEY, ca.map(|bundle| Text::new(Bytes::from(bundle.to_owned()))));
        Self { cluster: cluster.map(str::to_owned), may_be_made: true, size, too_large, data }
    }

    /// Whether `held` is as wanted, in what is ours.
    pub(super) fn is_met_by(&self, held: &Held) -> bool {
        self.cluster == held.cluster
            && self.data.iter().all(|(key, text)| held.data.get(*key) == text.as_ref().map(|t| &t.hash))
    }

    /// The whole object, for the first write.
    pub(super) fn manifest(&self, key: &Key, installation: &str) -> Value {
        let mut metadata = self.metadata(installation);
        metadata["namespace"] = json!(&*key.namespace);
        metadata["name"] = json!(&*key.name);
        let mut whole =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": self.data()});
        // what a patch takes away by `null` would be an empty text here
        for map in ["/metadata/labels", "/data"] {
            if let Some(Value::Object(map)) = whole.pointer_mut(map) {
                map.retain(|_, value| !value.is_null());
            }
        }
        whole
    }

    /// A merge patch that makes `held` this one, if it is still as it was seen.
    pub(super) fn patch(&self, held: &Held, installation: &str) -> Value {
        let mut metadata = self.metadata(installation);
        metadata["uid"] = json!(held.uid);
        metadata["resourceVersion"] = json!(held.version.to_string());
        json!({"metadata": metadata, "data": self.data()})
    }

    fn data(&self) -> BTreeMap<&str, Option<Cow<'_, str>>> {
        self.data.iter().map(|(key, text)| (*key, text.as_ref().map(Text::as_str))).collect()
    }

    fn metadata(&self, installation: &str) -> Value {
        json!({
            "labels": {MANAGED_BY_LABEL: CONTROLLER_NAME, CLUSTER_LABEL: self.cluster},
            "annotations": {OWNER_ANNOTATION: installation},
        })
    }
}

impl Text {
    fn new(text: Bytes) -> Self {
        Self { hash: hash(&String::from_utf8_lossy(&text)), text }
    }

    /// Rendered texts are UTF-8: nothing is copied.
    fn as_str(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.text)
    }
}

/// Makes documents, and keeps those of clusters that have not changed.
pub(super) struct Builder {
    namespace: String,
    service_ip: Option<IpAddr>,
    ca: Option<String>,
    clusters: BTreeMap<Key, (Arc<ClusterMapping>, Arc<Document>)>,
    aggregate: Option<(u64, Arc<Document>)>,
}

impl Builder {
    /// For a controller in `namespace`.
    pub(super) fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            service_ip: None,
            ca: None,
            clusters: BTreeMap::new(),
            aggregate: None,
        }
    }

    /// All ConfigMaps for what is published now.
    pub(super) fn build(&mut self, published: &Published, ca: Option<&str>) -> Documents {
        if self.service_ip != published.service_ip || self.ca.as_deref() != ca {
            self.clusters.clear();
            self.aggregate = None;
            self.service_ip = published.service_ip;
            self.ca = ca.map(str::to_owned);
        }
        let mut documents = Documents::new();
        let mut clusters = std::mem::take(&mut self.clusters);
        clusters.retain(|key, _| published.mapping.contains_key(key));
        for (key, mapping) in &*published.mapping {
            if key.name.parse::<ClusterName>().is_err() {
                continue;
            }
            let made = match clusters.get(key) {
                Some((before, document)) if Arc::ptr_eq(before, mapping) => Arc::clone(document),
                _ => Arc::new(self.of_cluster(published, key, mapping)),
            };
            clusters.insert(key.clone(), (Arc::clone(mapping), Arc::clone(&made)));
            let name = names::cluster_config_map(&key.name);
            documents.insert(Key::new(Arc::clone(&key.namespace), name), made);
        }
        self.clusters = clusters;
        let aggregate = self.aggregate(published);
        documents.insert(Key::new(self.namespace.as_str(), MAPPING_CONFIG_MAP), aggregate);
        if let Some(ca) = ca {
            let document = Document::new(None, Vec::new(), Some(ca));
            documents.insert(Key::new(self.namespace.as_str(), CA_CONFIG_MAP), Arc::new(document));
        }
        documents
    }

    fn of_cluster(&self, published: &Published, key: &Key, mapping: &Arc<ClusterMapping>) -> Document {
        let alone = Mapping::from([(key.clone(), Arc::clone(mapping))]);
        let mut texts = vec![(ORIGIN, Bytes::from(origin::document(&alone, self.service_ip).text))];
        if let Some(rendered) = published.documents().cluster(key) {
            let forms = [(FULL, Format::Json), (NAT_MAP, Format::NatMap)];
            texts.extend(forms.map(|(key, format)| (key, rendered.document(format).body.clone())));
        }
        let mut document = Document::new(Some(&key.name), texts, self.ca.as_deref());
        // a namespace that does not take part gets nothing new from us; what is there is kept up until it goes
        let outside = Some(Code::NamespaceNotEnabled.as_str());
        document.may_be_made =
            mapping.entries.is_empty() || mapping.entries.iter().any(|entry| entry.reason != outside);
        document
    }

    fn aggregate(&mut self, published: &Published) -> Arc<Document> {
        match &self.aggregate {
            Some((generation, document)) if *generation == published.generation => Arc::clone(document),
            _ => {
                let texts = vec![(ORIGIN, published.documents().origin().body.clone())];
                let document = Arc::new(Document::new(None, texts, self.ca.as_deref()));
                self.aggregate = Some((published.generation, Arc::clone(&document)));
                document
            }
        }
    }
}
