//! Which selections are watched, and the tasks that do.

use std::collections::BTreeMap;
use std::sync::Arc;

use external_ip_core::names::{self, CLUSTER_LABEL, POD_ID_LABEL};
use external_ip_core::objects::Service;
use external_ip_core::settings::{Exposure, Settings};
use external_ip_core::state::{Change, Feed, PodFeed, Update};
use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::stream::{Pulse, Selection, Sink, Watched, follow};
use crate::map::{FeedPulse, Liveness, Questions, Refresh};
use crate::metrics::Metrics;

/// One selection and where its changes belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedSpec {
    /// For logs, metrics and liveness: unique among the feeds.
    pub name: String,
    /// What is watched.
    pub selection: Selection,
    /// Where its changes belong.
    pub feed: Feed,
}

impl FeedSpec {
    fn new(name: impl Into<String>, feed: Feed, path: &str, labels: String) -> Self {
        let selection = Selection { path: path.to_owned(), labels: Some(labels), fields: None };
        Self { name: name.into(), selection, feed }
    }

    /// Its mark in a position, equal on all replicas that watch the same. Pods of the configuration's clusters are marked
    /// by what is selected: their order is another one after a change of the configuration.
    pub fn mark(&self) -> Arc<str> {
        match self.feed {
            Feed::Pods(PodFeed::Labelled) => "p".into(),
            Feed::Pods(PodFeed::Stamped) => "t".into(),
            Feed::Services => "s".into(),
            Feed::Slices => "e".into(),
            Feed::Namespaces => "n".into(),
            Feed::Nodes => "o".into(),
            Feed::Pods(PodFeed::Configured(_)) => {
                let Selection { path, labels, .. } = &self.selection;
                let selected = format!("{path}?{}", labels.as_deref().unwrap_or_default());
                format!("c{}-", names::short_hash(selected.as_bytes(), 7)).into()
            }
        }
    }
}

/// Everything that is watched with these settings. The pod selections are disjoint, so that a pod that changes its
/// labels leaves one feed and enters another, and no pod is held twice.
pub fn feeds(settings: &Settings) -> Vec<FeedSpec> {
    const PODS: &str = "/api/v1/pods";
    let ours = format!("{}={}", names::MANAGED_BY_LABEL, names::CONTROLLER_NAME);
    let mut feeds = vec![
        FeedSpec::new("namespaces", Feed::Namespaces, "/api/v1/namespaces", {
            format!("{}=true", names::ENABLED_LABEL)
        }),
        FeedSpec::new("services", Feed::Services, "/api/v1/services", ours.clone()),
        FeedSpec::new("endpointslices", Feed::Slices, "/apis/discovery.k8s.io/v1/endpointslices", ours),
        FeedSpec::new("pods", Feed::Pods(PodFeed::Labelled), PODS, CLUSTER_LABEL.to_owned()),
        FeedSpec::new(
            "stamped pods",
            Feed::Pods(PodFeed::Stamped),
            PODS,
            format!("{POD_ID_LABEL},!{CLUSTER_LABEL}"),
        ),
    ];
    if settings.uses(Exposure::NodePort) {
        let selection = Selection { path: "/api/v1/nodes".to_owned(), labels: None, fields: None };
        feeds.push(FeedSpec { name: "nodes".to_owned(), selection, feed: Feed::Nodes });
    }
    feeds.extend(settings.clusters.iter().enumerate().map(|(index, cluster)| {
        FeedSpec::new(
            format!("pods of {}/{}", cluster.namespace, cluster.name),
            Feed::Pods(PodFeed::Configured(index)),
            &format!("/api/v1/namespaces/{}/pods", cluster.namespace),
            format!("{},!{CLUSTER_LABEL},!{POD_ID_LABEL}", selector(&cluster.selector)),
        )
    }));
    feeds
}

fn selector(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Starts a task per feed; each returns its feed's name, and does so only after `shutdown` or when nobody reads `tx`.
/// Every feed is declared to `watched` before this returns.
pub fn spawn(
    tasks: &mut JoinSet<String>,
    feeds: Vec<FeedSpec>,
    client: &Client,
    watched: &Watchers,
    tx: &mpsc::Sender<Update>,
    shutdown: &CancellationToken,
) {
    for feed in feeds {
        let pulse = watched.liveness.feed(feed.name.as_str());
        let pulse = Vitals { pulse, metrics: Arc::clone(&watched.metrics) };
        let questions = watched.refresh.feed(feed.mark());
        let (client, tx, shutdown) = (client.clone(), tx.clone(), shutdown.clone());
        tasks.spawn(async move {
            shutdown.run_until_cancelled(run(client, &feed, &pulse, questions, tx)).await;
            feed.name
        });
    }
}

/// Who looks at the feeds.
pub struct Watchers {
    /// How long ago each spoke.
    pub liveness: Arc<Liveness>,
    /// Readers that wait for them.
    pub refresh: Arc<Refresh>,
    /// Counts lists.
    pub metrics: Arc<Metrics>,
}

/// Where a feed reports life.
struct Vitals {
    pulse: FeedPulse,
    metrics: Arc<Metrics>,
}

impl Pulse for Vitals {
    fn listing(&self) {
        self.metrics.relist(self.pulse.name());
    }
    fn heard(&self) {
        self.pulse.heard();
    }
    fn listed(&self) {
        self.pulse.listed();
    }
}

async fn run(
    client: Client,
    feed: &FeedSpec,
    pulse: &dyn Pulse,
    questions: Questions,
    tx: mpsc::Sender<Update>,
) {
    async fn to<T: Watched>(
        client: Client,
        feed: &FeedSpec,
        pulse: &dyn Pulse,
        questions: Questions,
        tx: mpsc::Sender<Update>,
        wrap: impl Fn(Change<T>) -> Update + Send + Sync + 'static,
    ) {
        let sink = Sink { tx, wrap: Box::new(wrap) };
        follow(client, &feed.name, &feed.selection, pulse, questions, sink).await;
    }
    match feed.feed {
        Feed::Pods(from) => to(client, feed, pulse, questions, tx, move |c| Update::Pods(from, c)).await,
        Feed::Services => to(client, feed, pulse, questions, tx, Update::Services).await,
        Feed::Slices => to(client, feed, pulse, questions, tx, Update::Slices).await,
        Feed::Namespaces => to(client, feed, pulse, questions, tx, Update::Namespaces).await,
        Feed::Nodes => to(client, feed, pulse, questions, tx, Update::Nodes).await,
    }
}

/// Watches the Service the mapping is published by, for its addresses. `None` until it is seen and where it is not
/// there. Ends, returning its name, after `shutdown`.
pub fn mapping_service(
    tasks: &mut JoinSet<String>,
    client: &Client,
    namespace: &str,
    shutdown: &CancellationToken,
) -> watch::Receiver<Option<Arc<Service>>> {
    const NAME: &str = "mapping service";
    let selection = Selection {
        path: format!("/api/v1/namespaces/{namespace}/services"),
        labels: None,
        fields: Some(format!("metadata.name={}", names::MAPPING_SERVICE)),
    };
    let (shown, seen) = watch::channel(None);
    let (client, shutdown) = (client.clone(), shutdown.clone());
    tasks.spawn(async move {
        let (tx, mut rx) = mpsc::channel(4);
        let sink = Sink { tx, wrap: Box::new(|change: Change<Service>| change) };
        let latest = async {
            while let Some(change) = rx.recv().await {
                let service = match change {
                    Change::Listed { items, .. } => items.into_iter().next().map(Arc::new),
                    Change::Applied(service) => Some(Arc::new(service)),
                    Change::Deleted(_) => None,
                    // of one object there are no parts
                    Change::Part(_) | Change::Unlisted | Change::Progress(_) => continue,
                };
                shown.send_if_modified(|now| std::mem::replace(now, service.clone()) != service);
            }
        };
        let both =
            futures::future::join(follow(client, NAME, &selection, &(), Questions::none(), sink), latest);
        shutdown.run_until_cancelled(both).await;
        NAME.to_owned()
    });
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use external_ip_core::settings::ConfiguredCluster;

    fn settings() -> Settings {
        let cluster = |name: &str, selector: &[(&str, &str)]| ConfiguredCluster {
            name: name.parse().unwrap(),
            namespace: "data".into(),
            selector: selector.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            ports: vec![],
            class: "default".into(),
        };
        let clusters = vec![cluster("a", &[("app", "a"), ("tier", "db")]), cluster("b", &[("app", "b")])];
        Settings { clusters, ..Settings::default() }
    }

    #[test]
    fn feeds_have_names_of_their_own() {
        let mut names: Vec<_> = feeds(&settings()).into_iter().map(|f| f.name).collect();
        assert_eq!(names.len(), 7);
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 7);
    }

    #[test]
    fn nodes_are_watched_only_where_a_class_uses_their_addresses() {
        let watched = |settings: &Settings| feeds(settings).iter().any(|f| f.feed == Feed::Nodes);
        let mut settings = settings();
        assert!(!watched(&settings));
        settings.classes.entry("default".into()).and_modify(|c| c.exposure.push(Exposure::NodePort));
        assert!(watched(&settings));
    }

    #[test]
    fn a_configured_cluster_is_watched_in_its_namespace_without_labelled_and_stamped_pods() {
        let feed = &feeds(&settings())[5];
        assert_eq!(feed.selection.path, "/api/v1/namespaces/data/pods");
        assert_eq!(
            feed.selection.labels.as_deref(),
            Some("app=a,tier=db,!external-ip.dev/cluster,!stamp.external-ip.dev/pod-id")
        );
        assert_eq!(feed.feed, Feed::Pods(PodFeed::Configured(0)));
    }
}
