use std::sync::atomic::{AtomicBool, Ordering};

use external_ip_core::mapping::Mapping as Map;
use futures::FutureExt;
use http::Request as HttpRequest;
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::super::tests::{Knows, Served, served, served_to, two};
use super::*;
use crate::constants::ACCESS_CACHE;
use crate::serve::access::Access;
use crate::testing::{cluster, mapping};

/// A reader's connection.
struct Reader {
    status: u16,
    headers: HeaderMap,
    body: Body,
    text: String,
}

/// One event.
#[derive(Debug, PartialEq, Eq)]
struct Event {
    id: String,
    data: String,
}

async fn watch(served: &Served, path: &str, headers: &[(&str, &str)]) -> Reader {
    let mut request = HttpRequest::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = served.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = answer.into_parts();
    Reader { status: parts.status.as_u16(), headers: parts.headers, body, text: String::new() }
}

impl Reader {
    /// The next block of lines; `None` at the end.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(block);
            }
            let piece = self.body.frame().await?.unwrap().into_data().unwrap();
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    /// The next event, past comments.
    async fn event(&mut self) -> Event {
        loop {
            let block = self.block().await.expect("an event");
            let field = |name: &str| block.lines().find_map(|l| l.strip_prefix(name)).map(str::to_owned);
            if let Some(data) = field("data: ") {
                return Event { id: field("id: ").unwrap(), data };
            }
        }
    }

    /// Whether there is nothing to read now.
    fn is_quiet(&mut self) -> bool {
        self.event().now_or_never().is_none()
    }

    /// Everything until the end of the stream, which may not go on for more than a minute.
    async fn rest(&mut self) -> Vec<String> {
        let mut blocks = Vec::new();
        let end = Instant::now() + Duration::from_secs(60);
        while let Some(block) = self.block().await {
            assert!(Instant::now() < end, "the stream ends");
            blocks.push(block);
        }
        blocks
    }
}

fn one(members: u8) -> Map {
    mapping([cluster("data", "a", members)])
}

const PATH: &str = "/v1/watch/data/a";

#[tokio::test(start_paused = true)]
async fn each_event_is_the_whole_document_that_a_reader_gets_at_the_same_moment() {
    let served = served();
    served.publish(two(), 7);
    for (watched, read) in [
        ("/v1/watch", "/v1/mapping"),
        (PATH, "/v1/mapping/data/a"),
        ("/v1/watch?format=nat-map", "/v1/mapping?format=nat-map"),
        ("/v1/watch/data/a?format=nat-map", "/v1/mapping/data/a?format=nat-map"),
    ] {
        served.publish(two(), 7);
        let mut reader = watch(&served, watched, &[]).await;
        assert_eq!(
            (reader.status, &reader.headers["content-type"]),
            (200, &HeaderValue::from_static("text/event-stream"))
        );
        assert_eq!(reader.headers["map-position"], "e5.n5.p7.s5");
        for (map, position) in [(two(), 7), (mapping([cluster("data", "a", 3), cluster("data", "b", 1)]), 8)]
        {
            served.publish(map, position);
            let (event, answer) = (reader.event().await, served.get(read, &[]).await);
            assert_eq!(event.data, answer.body.trim_end(), "{watched}");
            assert_eq!(event.id, format!("{} {}", answer.header("etag"), answer.header("map-position")));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_that_the_reader_has_and_what_it_missed_is_sent_once() {
    let served = served();
    served.publish(two(), 7);
    let first = watch(&served, PATH, &[]).await.event().await;
    let mut reader = watch(&served, PATH, &[("last-event-id", &first.id)]).await;
    assert!(reader.is_quiet(), "it has that one");
    served.publish(mapping([cluster("data", "a", 2), cluster("data", "b", 2)]), 8);
    assert!(reader.is_quiet(), "another cluster's change");
    for members in 3..9 {
        served.publish(one(members), 9);
    }
    let event = reader.event().await;
    assert!(event.data.contains("a-7") && reader.is_quiet(), "only the last of several changes");
    let mut back = watch(&served, PATH, &[("last-event-id", &first.id)]).await;
    assert_eq!(back.event().await, event, "after it was away");
    let tag = first.id.split(' ').next().unwrap();
    assert_eq!(watch(&served, PATH, &[("last-event-id", tag)]).await.event().await, event);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_comes_back_to_a_replica_behind_is_not_shown_an_older_map() {
    let (ahead, behind) = (served(), served());
    ahead.publish(one(3), 9);
    behind.publish(one(2), 7);
    let id = watch(&ahead, PATH, &[]).await.event().await.id;
    let refused = watch(&behind, PATH, &[("last-event-id", &id)]).await;
    assert_eq!((refused.status, refused.headers["retry-after"].to_str().unwrap()), (503, "2"));
    let by_header = watch(&behind, PATH, &[("map-position", "e5.n5.p9.s5")]).await;
    assert_eq!(by_header.status, 503);
    let headers = [("last-event-id", id.as_str())];
    let (mut reader, ()) = tokio::join!(watch(&behind, PATH, &headers), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        behind.publish(one(3), 9);
    });
    assert!(reader.status == 200 && reader.is_quiet(), "it has what that replica has by now");
    assert_eq!(watch(&behind, PATH, &[("last-event-id", "\"x\" yesterday")]).await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_says_its_age_every_few_seconds() {
    let served = served();
    served.publish(two(), 7);
    let mut reader = watch(&served, PATH, &[]).await;
    reader.event().await;
    let begun = Instant::now();
    assert_eq!(reader.block().await.unwrap(), ": age 15");
    assert_eq!(begun.elapsed(), WATCH_KEEP_ALIVE);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_the_process_stops_and_says_when_to_come_back() {
    let served = served();
    served.publish(two(), 7);
    let mut readers = Vec::new();
    for _ in 0..20 {
        let mut reader = watch(&served, PATH, &[]).await;
        reader.event().await;
        readers.push(reader);
    }
    served.stop.cancel();
    let mut moments = Vec::new();
    for mut reader in readers {
        let rest = reader.rest().await;
        assert_eq!((rest.len(), rest[0].as_str()), (2, ": this replica stops"));
        moments.push(rest[1].strip_prefix("retry: ").unwrap().parse::<u128>().unwrap());
    }
    assert!(moments.iter().all(|m| *m < WATCH_RETURN.as_millis()));
    moments.sort_unstable();
    moments.dedup();
    assert!(moments.len() > 10, "not all in one moment: {moments:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_where_its_cluster_does_or_the_map_begins_anew() {
    let served = served();
    served.publish(two(), 7);
    let mut reader = watch(&served, PATH, &[]).await;
    reader.event().await;
    served.publish(mapping([cluster("data", "b", 1)]), 8);
    assert_eq!(reader.rest().await[0], ": NoSuchCluster");
    assert_eq!(watch(&served, PATH, &[]).await.status, 404);

    served.publish(two(), 9);
    let mut reader = watch(&served, PATH, &[]).await;
    reader.event().await;
    let mut pods = served.refresh.feed("p".into());
    served.publish(one(4), 3);
    let restored = async {
        pods.wait().await;
        let question = pods.take().unwrap();
        pods.answer(question, 3);
    };
    let ended =
        tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(reader.rest(), restored).0 });
    assert_eq!(
        ended.await.expect("the stream ends")[0],
        ": reset",
        "the API server was restored from a backup"
    );
}

#[tokio::test(start_paused = true)]
async fn large_documents_follow_each_other_at_a_pace() {
    let served = served();
    let many = |members: u8| mapping((0..40).map(|n| cluster("data", &format!("c{n}"), members)));
    served.publish(many(100), 7);
    let mut reader = watch(&served, "/v1/watch", &[]).await;
    let size = u32::try_from(reader.event().await.data.len()).unwrap();
    let begun = Instant::now();
    served.publish(many(101), 8);
    reader.event().await;
    let (took, pause) = (begun.elapsed(), WATCH_PACE * (size / 1024));
    // timers know milliseconds
    assert!(took >= pause && took < pause + Duration::from_millis(2), "{took:?} for {size} bytes");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_withdrawn_reads_no_longer() {
    let known = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&known);
    let served = served_to(Access::token(Arc::new(Knows(move |_: &str| asked.load(Ordering::Relaxed)))));
    served.publish(two(), 7);
    let token = [("authorization", "Bearer t")];
    assert_eq!(watch(&served, PATH, &[]).await.status, 401);
    let mut reader = watch(&served, PATH, &token).await;
    reader.event().await;
    tokio::time::sleep(WATCH_ACCESS * 3).await;
    served.publish(one(3), 8);
    reader.event().await;
    known.store(false, Ordering::Relaxed);
    let begun = Instant::now();
    let rest = reader.rest().await;
    assert_eq!(rest[rest.len() - 2], ": InvalidToken");
    assert!(begun.elapsed() <= WATCH_ACCESS + ACCESS_CACHE, "{:?}", begun.elapsed());
    served.publish(one(4), 9);
    assert_eq!(watch(&served, PATH, &token).await.status, 401);
}

#[tokio::test]
async fn events_have_the_forms_that_fit_on_a_line() {
    let served = served();
    served.publish(two(), 7);
    assert_eq!(watch(&served, "/v1/watch?format=yaml", &[]).await.status, 400);
    assert_eq!(watch(&served, "/v1/watch/data/nobody", &[]).await.status, 404);
}
