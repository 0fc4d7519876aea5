//! One pod, explained.

use axum::response::Response;
use external_ip_core::explain;
use external_ip_core::names::Key;
use http::{HeaderMap, StatusCode, Uri};

use super::access::{self, Wish};
use super::shown::{self, MAP_POSITION};
use super::{Shared, request};
use crate::map::{Document, Format, Published};
use crate::serve::problem::Problem;

impl Shared {
    /// The explanation of a pod, for those who may read its cluster's document.
    pub(super) async fn explain(
        &self,
        pod: Key,
        headers: &HeaderMap,
        uri: &Uri,
    ) -> Result<Response, Problem> {
        let text = request::parameter(uri, "format") == Some("text");
        let format = if text { Format::Json } else { request::format(headers, uri)? };
        if format == Format::NatMap {
            return Err(request::unknown_format("a pod has format=json, format=yaml and format=text"));
        }
        let cluster = self.mapping.current.load().and_then(|published| cluster_of(&published, &pod));
        let wish = match &cluster {
            Some(cluster) => access::cluster(&cluster.namespace, &cluster.name),
            None => Wish::Aggregate,
        };
        let allowed = self.mapping.access.check(headers, &wish, &self.mapping.metrics).await;
        allowed.map_err(|problem| if problem.is_forbidden() { not_for_you(&pod) } else { problem })?;
        let mut shown = self.show(request::position(headers)?.as_ref()).await?;
        let found = self.mapping.explainer.ask(pod.clone()).await.ok_or_else(busy)?;
        shown.position = found.position.keeping(&shown.position);
        let Some(explanation) = found.explanation else {
            return Err(no_such_pod(&pod).header(MAP_POSITION, shown::value(&shown.position)));
        };
        let now = explanation.cluster.as_deref().map(|name| Key::new(pod.namespace.clone(), name));
        if now != cluster {
            return Err(moved()); // the right that was looked at was to another cluster
        }
        let (body, media_type) = match format {
            _ if text => (explain::text(&explanation), "text/plain; charset=utf-8"),
            Format::Json | Format::NatMap => (explain::json(&explanation), format.media_type()),
            Format::Yaml => (explain::yaml(&explanation), format.media_type()),
        };
        Ok(self.deliver(&shown, &Document::new(body), None, media_type, headers))
    }
}

/// The cluster whose document shows the pod.
fn cluster_of(published: &Published, pod: &Key) -> Option<Key> {
    let start = Key::new(pod.namespace.clone(), "");
    let here = published.mapping.range(start..).take_while(|(key, _)| key.namespace == pod.namespace);
    let mut with_pod = here.filter(|(_, cluster)| cluster.entries.iter().any(|e| e.pod == *pod.name));
    with_pod.next().map(|(key, _)| key.clone())
}

/// Says the same whether there is such a pod or not.
fn not_for_you(pod: &Key) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "Forbidden")
        .message(format!(
            "a pod is explained to those who may read its cluster's map, and {pod} is not in one you may read"
        ))
        .remedy(
            "ask who manages the cluster for `get` on ConfigMap CLUSTER-external-ips in the pod's namespace",
        )
}

fn no_such_pod(pod: &Key) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "NoSuchPod")
        .message(format!("no pod {pod} takes part: there is none of this name, or it belongs to no cluster"))
        .remedy(
            "look at the label external-ip.dev/cluster of its workload's pod template; \
             `external-ip-controller explain NAMESPACE/POD` looks at pods without it, too",
        )
}

fn busy() -> Problem {
    Problem::unavailable("Busy").message("too many questions at once, or this replica is about to end")
}

fn moved() -> Problem {
    Problem::unavailable("Changing").message("the pod has just changed its cluster").remedy("ask again")
}

#[cfg(test)]
mod tests;
