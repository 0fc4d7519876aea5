use axum::body::to_bytes;
use external_ip_core::stamp::KeptSlots;
use futures::StreamExt;
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde_json::Value;
use tower::ServiceExt;

use super::*;
use crate::map::Snapshot;

struct Served {
    current: Arc<Current>,
    pulse: crate::map::FeedPulse,
    metrics: Arc<Metrics>,
    router: Router,
}

fn served(decide: Decide) -> Served {
    let (current, liveness) = (Arc::new(Current::new()), Arc::new(Liveness::new()));
    let pulse = liveness.feed("pods");
    let metrics = Arc::new(Metrics::new(Arc::clone(&current), Arc::clone(&liveness)));
    let admission = Admission {
        settings: Arc::new(Settings::default()),
        current: Arc::clone(&current),
        liveness,
        metrics: Arc::clone(&metrics),
    };
    Served { current, pulse, metrics, router: with_decision(admission, decide) }
}

impl Served {
    async fn send(&self, request: Request) -> (u16, Value) {
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn review(&self, body: impl Into<Body>) -> (u16, Value) {
        self.send(post_json(body.into())).await
    }
}

fn post_json(body: Body) -> Request {
    Request::post(PATH).header(CONTENT_TYPE, "application/json; charset=utf-8").body(body).unwrap()
}

/// A review of a new pod `infinispan-0` of cluster `infinispan`.
fn review_of_member() -> String {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u-1", "operation": "CREATE", "namespace": "data",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "object": {"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "infinispan-0", "namespace": "data", "labels": {"external-ip.dev/cluster": "infinispan"}},
            "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 11222}]}]}},
    }})
    .to_string()
}

fn patch_of(answer: &Value) -> String {
    let patch = answer["response"]["patch"].as_str().unwrap_or_default();
    String::from_utf8(data_encoding::BASE64.decode(patch.as_bytes()).unwrap()).unwrap()
}

fn panics(_: &[u8], _: &Settings, _: KeptSlots<'_>) -> Result<Answer, Unanswerable> {
    panic!("on purpose")
}

#[tokio::test]
async fn a_member_is_stamped_and_counted() {
    let served = served(stamp::answer);
    let (status, answer) = served.review(review_of_member()).await;
    assert_eq!(
        (status, &answer["response"]["allowed"], &answer["response"]["uid"]),
        (200, &json!(true), &json!("u-1"))
    );
    assert!(patch_of(&answer).contains("infinispan.infinispan-0"), "{answer}");
    let text = served.metrics.text();
    assert!(text.contains("external_ip_admission_total{result=\"stamped\",reason=\"\"} 1"), "{text}");
    assert!(text.contains("external_ip_admission_duration_seconds_count 1"));
}

#[tokio::test(start_paused = true)]
async fn a_kept_address_is_stamped_only_while_the_watches_are_live() {
    let served = served(stamp::answer);
    let address =
        SlotAddress { slot: 3, ips: vec!["203.0.113.7".parse().unwrap()], host: None, ports: Vec::new() };
    let kept = [("infinispan-0".to_owned(), address)].into();
    let slots = Arc::new([(Key::new("data", "infinispan"), Arc::new(kept))].into());
    served.current.publish(Snapshot { slots, ..Snapshot::default() });
    let stamped = async || patch_of(&served.review(review_of_member()).await.1).contains("203.0.113.7");
    assert!(!stamped().await, "not listed yet");
    served.pulse.listed();
    assert!(stamped().await);
    tokio::time::advance(crate::constants::STALE_AFTER).await;
    assert!(!stamped().await, "silent for too long");
    served.pulse.heard();
    assert!(stamped().await);
}

#[tokio::test]
async fn a_panic_lets_the_pod_through_and_is_counted() {
    let served = served(panics);
    let (status, answer) = served.review(review_of_member()).await;
    assert_eq!(
        (status, &answer["response"]["allowed"], &answer["response"]["uid"]),
        (200, &json!(true), &json!("u-1"))
    );
    assert!(answer["response"].get("patch").is_none());
    assert!(served.metrics.text().contains("external_ip_panics_total{place=\"admission_decision\"} 1"));
    assert_eq!(served.review("nonsense").await.0, 400, "without a uid there is nothing to answer");
}

#[tokio::test]
async fn what_is_no_review_gets_a_clear_answer() {
    let served = served(stamp::answer);
    let json = "application/json";
    for (method, path, media, body, status, reason) in [
        ("POST", "/mutate", json, "{}", 400, "Unanswerable"),
        ("POST", "/mutate", json, "not json", 400, "Unanswerable"),
        ("POST", "/mutate", "text/plain", "{}", 415, "NotJson"),
        ("GET", "/mutate", json, "", 405, "OnlyPost"),
        ("POST", "/", json, "{}", 404, "NoSuchPath"),
    ] {
        let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, media);
        let (found, answer) = served.send(request.body(Body::from(body)).unwrap()).await;
        assert_eq!((found, &answer["reason"]), (status, &json!(reason)), "{method} {path} {media}");
    }
}

#[tokio::test]
async fn a_review_larger_than_the_api_server_can_send_is_refused_with_and_without_its_length() {
    let served = served(stamp::answer);
    let large = vec![b' '; REVIEW_BYTES + 1];
    assert_eq!(served.review(large.clone()).await.0, 413);
    let frames = futures::stream::iter([Ok::<_, std::io::Error>(Frame::data(Bytes::from(large)))]);
    assert_eq!(served.review(Body::new(StreamBody::new(frames))).await.0, 413);
    let announced = Request::post(PATH).header(CONTENT_TYPE, "application/json");
    let announced =
        announced.header(CONTENT_LENGTH, (REVIEW_BYTES + 1).to_string()).body(Body::empty()).unwrap();
    assert_eq!(served.send(announced).await.0, 413, "before anything is read");
}

#[tokio::test]
async fn a_review_of_exactly_the_limit_is_answered() {
    let mut body = review_of_member().into_bytes();
    body.resize(REVIEW_BYTES, b' ');
    assert_eq!(served(stamp::answer).review(body).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_given_up() {
    let served = served(stamp::answer);
    let never = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
    let begun = tokio::time::Instant::now();
    assert_eq!(served.review(never).await.0, 408);
    assert_eq!(begun.elapsed().as_secs(), BODY_TIMEOUT.as_secs(), "in time");
    assert!(served.metrics.text().contains("external_ip_admission_total{result=\"unread\",reason=\"\"} 1"));
}

#[tokio::test(start_paused = true)]
async fn bodies_that_dawdle_keep_no_honest_review_waiting() {
    let served = served(stamp::answer);
    let begun = tokio::time::Instant::now();
    let almost = Bytes::from(vec![b' '; REVIEW_BYTES - 1]);
    let dawdling = (0..REVIEW_BYTES_IN_FLIGHT / REVIEW_BYTES).map(|_| {
        let frames = futures::stream::iter([Ok::<_, std::io::Error>(almost.clone())]);
        let body = Body::from_stream(frames.chain(futures::stream::pending()));
        tokio::spawn(served.router.clone().oneshot(post_json(body)))
    });
    let mut dawdling: Vec<_> = dawdling.collect();
    tokio::task::yield_now().await;
    assert_eq!(served.review(review_of_member()).await.0, 200);
    assert_eq!(begun.elapsed(), std::time::Duration::ZERO, "at once");
    let ended = dawdling.remove(0).await.unwrap().unwrap();
    assert_eq!(ended.status(), StatusCode::SERVICE_UNAVAILABLE, "the oldest made room");
    assert!(dawdling.iter().all(|d| !d.is_finished()), "the others go on");
}

#[tokio::test]
async fn a_review_in_many_pieces_is_read_as_one() {
    let review = review_of_member().into_bytes();
    let frames: Vec<_> =
        review.chunks(7).map(|c| Ok::<_, std::io::Error>(Bytes::copy_from_slice(c))).collect();
    let body = Body::from_stream(futures::stream::iter(frames));
    let (status, answer) = served(stamp::answer).review(body).await;
    assert!(status == 200 && patch_of(&answer).contains("infinispan.infinispan-0"), "{answer}");
}
