use axum::body::to_bytes;
use external_ip_core::mapping::Mapping as Map;
use http::Request as HttpRequest;
use http::header::{IF_NONE_MATCH, RETRY_AFTER};
use tower::ServiceExt;

use super::*;
use crate::constants::{POSITION_WAIT, POSITION_WAITERS};
use crate::map::{PodQuestion, Position, Snapshot};
use crate::testing::{cluster, mapping};

pub(super) struct Served {
    current: Arc<Current>,
    pub(super) refresh: Arc<Refresh>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) stop: CancellationToken,
    pub(super) router: Router,
    pub(super) questions: tokio::sync::mpsc::Receiver<PodQuestion>,
}

/// Whose tokens are known, as the function says; they may read everything.
pub(super) struct Knows<F>(pub(super) F);

impl<F: Fn(&str) -> bool + Send + Sync + 'static> access::Reviewer for Knows<F> {
    fn authenticate(
        &self,
        token: &str,
    ) -> futures::future::BoxFuture<'static, Result<Option<access::Account>, access::Unreachable>> {
        let known = (self.0)(token);
        let account = known.then(|| access::Account { name: "x".into(), user: serde_json::json!({}) });
        Box::pin(async move { Ok(account) })
    }
    fn authorize(
        &self,
        _: &access::Account,
        _: &Wish,
    ) -> futures::future::BoxFuture<'static, Result<bool, access::Unreachable>> {
        Box::pin(async { Ok(true) })
    }
}

/// An open listener; nothing is published yet.
pub(super) fn served() -> Served {
    served_to(Access::Open)
}

/// A listener; nothing is published yet.
pub(super) fn served_to(access: Access) -> Served {
    let (current, liveness) = (Arc::new(Current::new()), Arc::new(Liveness::new()));
    liveness.feed("pods").listed();
    let refresh = Arc::<Refresh>::default();
    let metrics = Arc::new(Metrics::new(Arc::clone(&current), Arc::clone(&liveness)));
    let (explainer, questions) = Explainer::new();
    let (_, ca) = tokio::sync::watch::channel(Some("PEM".into()));
    let stop = CancellationToken::new();
    let mapping = Mapping {
        current: Arc::clone(&current),
        liveness,
        refresh: Arc::clone(&refresh),
        explainer,
        access,
        ca: Some(ca),
        metrics: Arc::clone(&metrics),
        stop: stop.clone(),
    };
    Served { current, refresh, metrics, stop, router: router(mapping), questions }
}

pub(super) fn position(pods: u64) -> Position {
    format!("e5.n5.p{pods}.s5").parse().unwrap()
}

impl Served {
    pub(super) fn publish(&self, mapping: Map, pods: u64) {
        self.publish_reached(mapping, pods, pods);
    }

    /// The last change is older than what has been seen.
    fn publish_reached(&self, mapping: Map, changed: u64, reached: u64) {
        let (position, reached) = (position(changed), position(reached));
        self.current.publish(Snapshot { mapping: mapping.into(), position, reached, ..Snapshot::default() });
    }

    pub(super) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send("GET", path, headers).await
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        send(&self.router, method, path, headers).await
    }
}

pub(super) async fn send(router: &Router, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = HttpRequest::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = answer.into_parts();
    let mut bytes = to_bytes(body, 1 << 20).await.unwrap().to_vec();
    if parts.headers.get("content-encoding").is_some_and(|coding| coding == "gzip") {
        let packed = std::mem::take(&mut bytes);
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut bytes).unwrap();
    }
    let body = String::from_utf8(bytes).unwrap();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: HeaderMap,
    pub(super) body: String,
}

impl Answer {
    /// All of a header's values.
    pub(super) fn all(&self, name: impl http::header::AsHeaderName) -> Vec<&str> {
        self.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect()
    }

    pub(super) fn header(&self, name: impl http::header::AsHeaderName) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

pub(super) fn two() -> Map {
    mapping([cluster("data", "a", 2), cluster("data", "b", 1)])
}

#[tokio::test]
async fn before_the_first_list_there_is_no_map_and_not_an_empty_one() {
    let served = served();
    for path in ["/", "/v1/mapping", "/v1/mapping/data/a"] {
        let answer = served.get(path, &[]).await;
        assert_eq!((answer.status, answer.header(RETRY_AFTER)), (503, "2"), "{path}");
    }
}

#[tokio::test]
async fn every_document_has_its_type_its_tag_its_age_and_its_position() {
    let served = served();
    served.publish(two(), 7);
    for (path, media) in [
        ("/", "application/yaml"),
        ("/v1/mapping", "application/json"),
        ("/v1/mapping?format=yaml", "application/yaml"),
        ("/v1/mapping?format=nat-map", "application/json"),
        ("/v1/mapping/data/a", "application/json"),
        ("/v1/mapping/data/a?format=nat-map", "application/json"),
    ] {
        let answer = served.get(path, &[]).await;
        assert_eq!((answer.status, answer.header(CONTENT_TYPE)), (200, media), "{path}");
        assert_eq!(answer.header(AGE), "0");
        assert_eq!(answer.header(MAP_POSITION), "e5.n5.p7.s5");
        assert_eq!(
            (answer.header(CACHE_CONTROL), answer.header(VARY)),
            ("no-cache", "Accept, Accept-Encoding")
        );
        assert!(answer.header(ETAG).starts_with('"') && answer.header(ETAG).len() > 10, "{answer:?}");
        assert!(!answer.body.is_empty());
    }
    let text = served.metrics.text();
    assert!(text.contains("external_ip_requests_total{document=\"aggregate\",code=\"200\"} 3"), "{text}");
}

#[tokio::test]
async fn formats_are_chosen_by_accept_and_have_their_own_tags() {
    let served = served();
    served.publish(two(), 7);
    let json = served.get("/v1/mapping", &[("accept", "application/json")]).await;
    let yaml = served.get("/v1/mapping", &[("accept", "application/yaml")]).await;
    assert_eq!(yaml.header(CONTENT_TYPE), "application/yaml");
    assert_ne!(json.header(ETAG), yaml.header(ETAG));
    let origin = served.get("/", &[("accept", "application/json")]).await;
    assert_eq!(origin.header(CONTENT_TYPE), "application/yaml", "the origin's document has one form");
}

#[tokio::test]
async fn a_known_document_costs_no_body_and_a_changed_cluster_alone_changes_its_tag() {
    let served = served();
    served.publish(two(), 7);
    let a = served.get("/v1/mapping/data/a", &[]).await;
    let b = served.get("/v1/mapping/data/b", &[]).await;
    served.publish(mapping([cluster("data", "a", 2), cluster("data", "b", 3)]), 8);
    let again = served.get("/v1/mapping/data/a", &[("if-none-match", a.header(ETAG))]).await;
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    assert_eq!(again.header(ETAG), a.header(ETAG));
    assert_eq!(again.header(MAP_POSITION), "e5.n5.p8.s5", "how far the answer is known to hold");
    let changed = served.get("/v1/mapping/data/b", &[(IF_NONE_MATCH.as_str(), b.header(ETAG))]).await;
    assert_eq!(changed.status, 200);
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let served = served();
    served.publish(two(), 7);
    let (get, head) = (served.get("/v1/mapping", &[]).await, served.send("HEAD", "/v1/mapping", &[]).await);
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header(ETAG), get.header(ETAG));
    assert_eq!(head.header("content-length"), get.body.len().to_string());
}

#[tokio::test]
async fn errors_say_what_is_wrong_and_what_to_do() {
    let served = served();
    served.publish(two(), 7);
    for (method, path, headers, status, reason, words) in [
        ("GET", "/v1/mapping/data/nobody", vec![], 404, "NoSuchCluster", "data/nobody"),
        ("GET", "/v1/mapping/data", vec![], 404, "NoSuchPath", "/v1/mapping/NAMESPACE/CLUSTER"),
        ("GET", "/v2", vec![], 404, "NoSuchPath", "/v1/mapping"),
        ("POST", "/v1/mapping", vec![], 405, "OnlyReading", "GET or HEAD"),
        ("GET", "/v1/mapping?format=xml", vec![], 400, "UnknownFormat", "format=json"),
        ("GET", "/v1/pods/data/a-0?format=nat-map", vec![], 400, "UnknownFormat", "format=text"),
        ("GET", "/", vec![("map-position", "yesterday")], 400, "InvalidPosition", "unchanged"),
        ("GET", "/?wait=soon", vec![], 400, "InvalidWait", "whole seconds"),
    ] {
        let answer = served.send(method, path, &headers).await;
        assert_eq!(answer.status, status, "{path}");
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(body["reason"], reason);
        assert!(answer.body.contains(words), "{}", answer.body);
    }
    assert!(served.send("POST", "/", &[]).await.header("allow").contains("GET"));
}

#[tokio::test]
async fn a_client_that_has_seen_less_is_answered_at_once() {
    let served = served();
    served.publish(two(), 7);
    assert_eq!(served.get("/", &[("map-position", "e5.n5.p7.s5")]).await.status, 200);
    assert_eq!(served.get("/", &[("map-position", "e1.n1.p1.s1")]).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_client_never_goes_back_on_a_replica_that_is_behind() {
    let served = served();
    served.publish(two(), 7);
    let begun = tokio::time::Instant::now();
    let answer = served.get("/", &[("map-position", "e5.n5.p8.s5")]).await;
    assert_eq!((answer.status, answer.header(RETRY_AFTER)), (503, "2"));
    assert_eq!(answer.header(MAP_POSITION), "e5.n5.p7.s5");
    assert!(begun.elapsed() >= POSITION_WAIT);
}

#[tokio::test]
async fn a_replica_that_catches_up_answers_with_what_it_has_then() {
    let served = served();
    served.publish(two(), 7);
    let (answer, ()) = tokio::join!(served.get("/", &[("map-position", "e5.n5.p9.s5")]), async {
        tokio::task::yield_now().await;
        served.publish(two(), 8);
        tokio::task::yield_now().await;
        served.publish(two(), 9);
    });
    assert_eq!((answer.status, answer.header(MAP_POSITION)), (200, "e5.n5.p9.s5"));
    let (answer, ()) = tokio::join!(served.get("/", &[("map-position", "e5.n5.p12.s5")]), async {
        tokio::task::yield_now().await;
        served.publish_reached(two(), 9, 12);
    });
    assert_eq!((answer.status, answer.header(MAP_POSITION)), (200, "e5.n5.p12.s5"), "by a bookmark");
}

#[tokio::test]
async fn a_replica_that_has_seen_nothing_newer_by_a_bookmark_answers_at_once_and_keeps_what_others_showed() {
    let served = served();
    served.publish_reached(two(), 7, 20);
    let answer = served.get("/", &[("map-position", "e5.n5.p15.s4")]).await;
    assert_eq!((answer.status, answer.header(MAP_POSITION)), (200, "e5.n5.p15.s5"));
    assert_eq!(answer.header(MAPPING_RESET), "");
    assert_eq!(served.get("/", &[]).await.header(MAP_POSITION), "e5.n5.p7.s5", "a bookmark is no change");
}

#[tokio::test(start_paused = true)]
async fn a_position_the_api_server_does_not_know_yet_is_from_before_it_was_restored() {
    let served = served();
    served.publish(two(), 7);
    let mut pods = served.refresh.feed("p".into());
    for (now, status, reset) in [(8, 503, ""), (7, 200, "true")] {
        let (answer, ()) = tokio::join!(served.get("/", &[("map-position", "e5.n5.p8.s5")]), async {
            pods.wait().await;
            let question = pods.take().unwrap();
            pods.answer(question, now);
        });
        assert_eq!((answer.status, answer.header(MAPPING_RESET)), (status, reset), "the server is at {now}");
        assert_eq!(answer.header(MAP_POSITION), "e5.n5.p7.s5");
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_clients_are_bounded() {
    let served = served();
    served.publish(two(), 7);
    let waiting: Vec<_> =
        (0..=POSITION_WAITERS).map(|_| served.get("/", &[("map-position", "e5.n5.p8.s5")])).collect();
    let begun = tokio::time::Instant::now();
    let mut waiting = futures::stream::FuturesUnordered::from_iter(waiting);
    let first = futures::StreamExt::next(&mut waiting).await.unwrap();
    assert_eq!((first.status, begun.elapsed().as_secs()), (503, 0), "one too many is told at once");
}

#[tokio::test]
async fn the_ca_is_there_for_everybody_and_its_absence_is_explained() {
    let served = served();
    let answer = served.get("/ca.pem", &[]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, "PEM");
    let (current, liveness) = (Arc::new(Current::new()), Arc::new(Liveness::new()));
    let metrics = Arc::new(Metrics::new(Arc::clone(&current), Arc::clone(&liveness)));
    let mapping = Mapping {
        current,
        liveness,
        refresh: Arc::default(),
        explainer: Explainer::new().0,
        access: Access::Open,
        ca: None,
        metrics: Arc::clone(&metrics),
        stop: CancellationToken::new(),
    };
    let answer = Served { router: router(mapping), ..served }.get("/ca.pem", &[]).await;
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains("mounted files"));
}

#[tokio::test]
async fn access_is_judged_before_anything_is_told() {
    /// Knows nobody.
    struct Nobody;
    impl access::Reviewer for Nobody {
        fn authenticate(
            &self,
            _: &str,
        ) -> futures::future::BoxFuture<'static, Result<Option<access::Account>, access::Unreachable>>
        {
            Box::pin(async { Ok(None) })
        }
        fn authorize(
            &self,
            _: &access::Account,
            _: &Wish,
        ) -> futures::future::BoxFuture<'static, Result<bool, access::Unreachable>> {
            Box::pin(async { Ok(false) })
        }
    }
    let served = served();
    let (current, metrics) = (Arc::clone(&served.current), Arc::clone(&served.metrics));
    let mapping = Mapping {
        current: Arc::clone(&current),
        liveness: Arc::new(Liveness::new()),
        refresh: Arc::default(),
        explainer: Explainer::new().0,
        access: Access::token(Arc::new(Nobody)),
        ca: None,
        metrics: Arc::clone(&metrics),
        stop: CancellationToken::new(),
    };
    let served = Served { router: router(mapping), ..served };
    served.publish(two(), 7);
    for path in ["/", "/v1/mapping", "/v1/mapping/data/a", "/v1/mapping/data/nobody"] {
        let answer = served.get(path, &[("authorization", "Bearer x")]).await;
        assert_eq!(answer.status, 401, "{path}");
        assert!(answer.header(MAP_POSITION).is_empty());
    }
}

#[tokio::test]
async fn drivers_get_their_form_of_one_cluster_and_of_all() {
    let served = served();
    served.publish(two(), 7);
    let one = served.get("/v1/mapping/data/a?format=nat-map", &[]).await;
    let pairs: serde_json::Value = serde_json::from_str(&one.body).unwrap();
    assert_eq!(pairs["198.18.0.1:11222"], serde_json::json!({"host": "203.0.113.1", "port": 11222}));
    let all = served.get("/v1/mapping?format=nat-map", &[]).await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&all.body).unwrap(), pairs, "b has an address of a");
}

#[tokio::test]
async fn who_takes_gzip_gets_the_same_in_fewer_bytes_under_a_tag_of_its_own() {
    let served = served();
    served.publish(mapping([cluster("data", "a", 20), cluster("data", "small", 1)]), 7);
    let gzip = ("accept-encoding", "gzip, br");
    for path in ["/v1/mapping", "/v1/mapping?format=yaml", "/v1/mapping/data/a"] {
        let (plain, packed) = (served.get(path, &[]).await, served.get(path, &[gzip]).await);
        assert_eq!((plain.header(CONTENT_ENCODING), packed.header(CONTENT_ENCODING)), ("", "gzip"));
        assert_eq!(packed.body, plain.body, "{path}");
        assert_ne!(packed.header(ETAG), plain.header(ETAG));
        let again = served.get(path, &[gzip, ("if-none-match", packed.header(ETAG))]).await;
        assert_eq!((again.status, again.header(CONTENT_ENCODING), again.body.as_str()), (304, "", ""));
        let other = served.get(path, &[("if-none-match", packed.header(ETAG))]).await;
        assert_eq!(other.status, 200, "that tag names other bytes");
    }
    let small = served.get("/v1/mapping/data/small", &[gzip]).await;
    assert_eq!((small.status, small.header(CONTENT_ENCODING)), (200, ""), "nothing would be saved");
}
