use std::time::Duration;

use http::header::{ETAG, IF_NONE_MATCH, RETRY_AFTER};
use tokio::time::Instant;

use super::super::tests::{Served, served, two};
use super::*;
use crate::constants::{POSITION_WAIT, WAIT_MAX};
use crate::testing::{cluster, mapping};

const PATH: &str = "/v1/mapping/data/a";

/// Its tag and the time of a request that waits with it.
async fn waits(served: &Served, path: &str, tag: &str) -> (u16, Duration) {
    let begun = Instant::now();
    let answer = served.get(path, &[(IF_NONE_MATCH.as_str(), tag)]).await;
    (answer.status, begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_held_until_the_document_differs_and_no_longer() {
    let served = served();
    served.publish(two(), 7);
    for path in [
        "/?wait=30",
        "/v1/mapping?wait=30",
        "/v1/mapping?wait=30&format=nat-map",
        "/v1/mapping/data/a?wait=30",
    ] {
        served.publish(two(), 7);
        let tag = served.get(path, &[]).await;
        let other = mapping([cluster("data", "a", 3), cluster("data", "b", 1)]);
        let ((status, took), ()) = tokio::join!(waits(&served, path, tag.header(ETAG)), async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            served.publish(two(), 8);
            tokio::time::sleep(Duration::from_secs(3)).await;
            served.publish(other, 9);
        });
        assert_eq!((status, took.as_secs()), (200, 6), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_another_cluster_ends_no_wait() {
    let served = served();
    served.publish(two(), 7);
    let tag = served.get(PATH, &[]).await;
    let headers = [(IF_NONE_MATCH.as_str(), tag.header(ETAG))];
    let (answer, ()) = tokio::join!(served.get("/v1/mapping/data/a?wait=10", &headers), async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        served.publish(mapping([cluster("data", "a", 2), cluster("data", "b", 5)]), 8);
    });
    assert_eq!((answer.status, answer.header("map-position")), (304, "e5.n5.p8.s5"), "it holds until then");
}

#[tokio::test(start_paused = true)]
async fn without_a_change_the_answer_is_304_after_the_wait_and_the_wait_is_bounded() {
    let served = served();
    served.publish(two(), 7);
    let tag = served.get(PATH, &[]).await;
    let tag = tag.header(ETAG);
    for (path, seconds) in [("?wait=30", 30), ("?wait=0", 0), ("", 0), ("?wait=99999", WAIT_MAX.as_secs())] {
        let (status, took) = waits(&served, &format!("{PATH}{path}"), tag).await;
        assert_eq!((status, took.as_secs()), (304, seconds), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_say_what_it_has_is_answered_at_once() {
    let served = served();
    served.publish(two(), 7);
    for tag in ["\"another\"", ""] {
        let (status, took) = waits(&served, "/v1/mapping/data/a?wait=30", tag).await;
        assert_eq!((status, took.as_secs()), (200, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_goes_is_told_at_once() {
    let served = served();
    served.publish(two(), 7);
    let tag = served.get(PATH, &[]).await;
    let ((status, took), ()) =
        tokio::join!(waits(&served, "/v1/mapping/data/a?wait=30", tag.header(ETAG)), async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            served.publish(mapping([cluster("data", "b", 1)]), 8);
        });
    assert_eq!((status, took.as_secs()), (404, 3));
}

#[tokio::test(start_paused = true)]
async fn who_waits_with_a_position_is_never_answered_with_an_older_map() {
    let served = served();
    served.publish(two(), 7);
    let tag = served.get(PATH, &[]).await.header(ETAG).to_owned();
    let headers = [(IF_NONE_MATCH.as_str(), tag.as_str()), ("map-position", "e5.n5.p9.s5")];
    let begun = Instant::now();
    let behind = served.get("/v1/mapping/data/a?wait=30", &headers).await;
    assert_eq!((behind.status, begun.elapsed()), (503, POSITION_WAIT), "it does not catch up");
    let (answer, ()) = tokio::join!(served.get("/v1/mapping/data/a?wait=30", &headers), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        served.publish(two(), 9);
        tokio::time::sleep(Duration::from_secs(1)).await;
        served.publish(mapping([cluster("data", "a", 1)]), 10);
    });
    assert_eq!((answer.status, answer.header("map-position")), (200, "e5.n5.p10.s5"));
}

#[tokio::test(start_paused = true)]
async fn what_is_held_ends_when_the_process_stops() {
    let served = served();
    served.publish(two(), 7);
    let tag = served.get(PATH, &[]).await;
    let ((status, took), ()) =
        tokio::join!(waits(&served, "/v1/mapping/data/a?wait=30", tag.header(ETAG)), async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            served.stop.cancel();
        });
    assert_eq!((status, took.as_secs()), (304, 2), "unchanged so far; the next request goes elsewhere");
}

#[tokio::test(start_paused = true)]
async fn held_answers_are_bounded_and_one_too_many_is_told_at_once() {
    let served = served();
    served.publish(two(), 7);
    let tag = served.get(PATH, &[]).await.header(ETAG).to_owned();
    let headers = [(IF_NONE_MATCH.as_str(), tag.as_str())];
    let all = (0..=HELD_ANSWERS).map(|_| served.get("/v1/mapping/data/a?wait=30", &headers));
    let begun = Instant::now();
    let mut all: futures::stream::FuturesUnordered<_> = all.collect();
    let first = futures::StreamExt::next(&mut all).await.unwrap();
    assert_eq!((first.status, first.header(RETRY_AFTER), begun.elapsed().as_secs()), (503, "2", 0));
}
