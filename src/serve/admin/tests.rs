use axum::body::{Body, to_bytes};
use http::Request;
use tower::ServiceExt;

use super::*;
use crate::map::{FeedPulse, Snapshot};
use crate::tls::testing::{authority, served as served_key};

struct Served {
    health: Arc<Health>,
    current: Arc<Current>,
    key: Arc<ServedKey>,
    pulse: FeedPulse,
    router: Router,
}

fn served() -> Served {
    let (current, liveness) = (Arc::new(Current::new()), Arc::new(Liveness::new()));
    let pulse = liveness.feed("pods");
    let metrics = Arc::new(Metrics::new(Arc::clone(&current), Arc::clone(&liveness)));
    let health = Arc::new(Health::new(Arc::clone(&current), liveness));
    let key = Arc::new(ServedKey::new());
    health.expect_listener("mapping");
    health.expect_key("mapping", Arc::clone(&key));
    Served { router: router(Arc::clone(&health), metrics), health, current, key, pulse }
}

impl Served {
    async fn get(&self, path: &str) -> (u16, String, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let (status, media) =
            (answer.status().as_u16(), answer.headers()[CONTENT_TYPE].to_str().unwrap().to_owned());
        let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, media, String::from_utf8(body.to_vec()).unwrap())
    }

    /// Makes every check hold.
    fn earn(&self) {
        self.health.bound("mapping");
        self.key.set((*served_key(&authority()).get().unwrap()).clone());
        self.pulse.listed();
        self.current.publish(Snapshot::default());
    }
}

#[tokio::test]
async fn readiness_is_earned_and_names_what_is_missing() {
    let served = served();
    served.key.explain("Secret ns/ca: Forbidden".to_owned());
    let (status, _, text) = served.get("/readyz").await;
    assert_eq!(status, 503);
    for line in [
        "[+] running\n",
        "[-] listener mapping: not bound yet\n",
        "[-] certificate mapping: Secret ns/ca: Forbidden\n",
        "[-] feed pods: not listed yet",
        "[-] map: nothing is published yet\n",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    served.earn();
    let (status, _, text) = served.get("/readyz").await;
    assert_eq!(status, 200, "{text}");
}

#[tokio::test(start_paused = true)]
async fn readiness_is_lost_while_a_feed_is_silent_and_at_the_stop() {
    let served = served();
    served.earn();
    tokio::time::advance(STALE_AFTER).await;
    let (status, _, text) = served.get("/readyz").await;
    assert_eq!(status, 503);
    assert!(text.contains("[-] feed pods: the API server has been silent for 30 s\n"), "{text}");
    served.pulse.heard();
    assert_eq!(served.get("/readyz").await.0, 200);
    served.health.stop();
    let (status, _, text) = served.get("/readyz").await;
    assert!(status == 503 && text.contains("[-] running: the process is stopping\n"), "{text}");
    assert_eq!(served.get("/livez").await.0, 200, "it still turns over");
}

#[tokio::test]
async fn metrics_are_open_metrics_text() {
    let (status, media, text) = served().get("/metrics").await;
    assert_eq!((status, media.as_str()), (200, metrics::CONTENT_TYPE));
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(served().get("/").await.0, 404);
}
