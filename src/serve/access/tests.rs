use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::time::{Duration, advance};

use super::*;
use crate::client::fake::Fake;
use crate::constants::{
    ACCESS_CACHE, ACCESS_CACHE_SIZE, ACCESS_OUTAGE, REVIEW_RETRY, REVIEWS_BURST, REVIEWS_INTERVAL,
};
use crate::map::{Current, Liveness};

/// Knows the token `good`, of an account that may read `allowed`.
#[derive(Default)]
struct Fixed {
    allowed: Mutex<Vec<Wish>>,
    down: Mutex<Option<String>>,
    hangs: Mutex<bool>,
    authentications: AtomicUsize,
    authorizations: AtomicUsize,
}

impl Fixed {
    fn answer<T: Send + 'static>(&self, value: T) -> BoxFuture<'static, Result<T, Unreachable>> {
        let answer = match &*self.down.lock().unwrap() {
            Some(why) => Err(Unreachable(why.clone())),
            None => Ok(value),
        };
        let hangs = *self.hangs.lock().unwrap();
        Box::pin(async move {
            // a real review is not answered at once
            tokio::task::yield_now().await;
            if hangs {
                std::future::pending::<()>().await;
            }
            answer
        })
    }

    fn asked(&self) -> (usize, usize) {
        (self.authentications.load(Ordering::SeqCst), self.authorizations.load(Ordering::SeqCst))
    }
}

impl Reviewer for Fixed {
    fn authenticate(&self, token: &str) -> BoxFuture<'static, Result<Option<Account>, Unreachable>> {
        self.authentications.fetch_add(1, Ordering::SeqCst);
        let account = Account { name: "reader".into(), user: json!({"username": "reader"}) };
        self.answer((token == "good").then_some(account))
    }

    fn authorize(&self, _: &Account, wish: &Wish) -> BoxFuture<'static, Result<bool, Unreachable>> {
        self.authorizations.fetch_add(1, Ordering::SeqCst);
        self.answer(self.allowed.lock().unwrap().contains(wish))
    }
}

fn fixed(allowed: impl IntoIterator<Item = Wish>) -> (Arc<Fixed>, Access) {
    let reviewer = Arc::new(Fixed { allowed: Mutex::new(allowed.into_iter().collect()), ..Fixed::default() });
    (Arc::clone(&reviewer), Access::token(reviewer))
}

fn with(authorization: &str) -> HeaderMap {
    HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::try_from(authorization).unwrap())])
}

fn metrics() -> Metrics {
    Metrics::new(Arc::new(Current::new()), Arc::new(Liveness::new()))
}

/// Status and body of the refusal; 200 where there is none.
async fn check(access: &Access, headers: &HeaderMap, wish: &Wish) -> (u16, String) {
    match access.check(headers, wish, &metrics()).await {
        Ok(()) => (200, String::new()),
        Err(problem) => {
            let answer = axum::response::Response::from(problem);
            let status = answer.status().as_u16();
            assert_eq!(answer.headers().contains_key(WWW_AUTHENTICATE), status == 401);
            assert_eq!(answer.headers().contains_key("retry-after"), status == 503);
            let body = axum::body::to_bytes(answer.into_body(), 1 << 16).await.unwrap();
            (status, String::from_utf8(body.to_vec()).unwrap())
        }
    }
}

#[tokio::test]
async fn open_means_everybody() {
    assert_eq!(check(&Access::Open, &HeaderMap::new(), &Wish::Aggregate).await.0, 200);
}

#[tokio::test]
async fn only_a_bearer_token_of_an_account_with_the_right_lets_in() {
    let (_, access) = fixed([Wish::Aggregate]);
    let cluster = cluster("data", "infinispan");
    assert_eq!(check(&access, &with("Bearer good"), &Wish::Aggregate).await.0, 200);
    assert_eq!(
        check(&access, &with("bearer  good"), &Wish::Aggregate).await.0,
        200,
        "the scheme has no case"
    );
    let (status, body) = check(&access, &with("Bearer good"), &cluster).await;
    assert_eq!(status, 403);
    assert!(
        body.contains("reader lacks `get` on ConfigMap infinispan-external-ips in namespace data"),
        "{body}"
    );
    let (status, body) = check(&access, &HeaderMap::new(), &Wish::Aggregate).await;
    assert_eq!(status, 401);
    assert!(body.contains("--audience external-ip.dev"), "{body}");
    for wrong in ["Bearer bad", "Basic good", "Bearer ", "good"] {
        assert_eq!(check(&access, &with(wrong), &Wish::Aggregate).await.0, 401, "{wrong}");
    }
}

#[tokio::test]
async fn a_token_longer_than_any_real_one_is_refused_without_asking() {
    let (reviewer, access) = fixed([]);
    let long = format!("Bearer {}", "x".repeat(TOKEN_BYTES + 1));
    assert_eq!(check(&access, &with(&long), &Wish::Aggregate).await.0, 401);
    assert_eq!(reviewer.asked(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_counts_for_ten_seconds_and_then_is_asked_for_again() {
    let (reviewer, access) = fixed([Wish::Aggregate]);
    let read = async || check(&access, &with("Bearer good"), &Wish::Aggregate).await.0;
    assert_eq!((read().await, read().await), (200, 200));
    assert_eq!(reviewer.asked(), (1, 1));
    reviewer.allowed.lock().unwrap().clear();
    advance(ACCESS_CACHE.saturating_sub(Duration::from_millis(1))).await;
    assert_eq!(read().await, 200);
    advance(Duration::from_millis(1)).await;
    assert_eq!(read().await, 403, "the right was withdrawn");
    assert_eq!(reviewer.asked(), (2, 2));
}

#[tokio::test]
async fn any_number_of_requests_with_one_token_make_one_review() {
    let (reviewer, access) = fixed([Wish::Aggregate]);
    let headers = with("Bearer good");
    let all = (0..50).map(|_| check(&access, &headers, &Wish::Aggregate));
    assert!(futures::future::join_all(all).await.iter().all(|(status, _)| *status == 200));
    assert_eq!(reviewer.asked(), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_cannot_be_asked_is_503_for_new_readers_and_no_change_for_known_ones() {
    let (reviewer, access) = fixed([Wish::Aggregate]);
    let read = async |token: &str| check(&access, &with(token), &Wish::Aggregate).await;
    assert_eq!(read("Bearer good").await.0, 200);
    assert_eq!(read("Bearer bad").await.0, 401);
    *reviewer.down.lock().unwrap() = Some("connection refused".into());
    advance(ACCESS_CACHE).await;
    let (status, body) = read("Bearer other").await;
    assert_eq!(status, 503);
    assert!(body.contains("connection refused"), "{body}");
    assert_eq!(read("Bearer good").await.0, 200, "known from before the outage");
    assert_eq!(read("Bearer bad").await.0, 401, "known as well");
    advance(ACCESS_OUTAGE).await;
    assert_eq!(read("Bearer good").await.0, 503, "but not for ever");
    *reviewer.down.lock().unwrap() = None;
    advance(REVIEW_RETRY).await;
    assert_eq!(read("Bearer good").await.0, 200, "the outage is over");
}

#[tokio::test(start_paused = true)]
async fn a_hanging_api_server_costs_one_timeout_and_not_one_per_request() {
    let (reviewer, access) = fixed([Wish::Aggregate]);
    *reviewer.hangs.lock().unwrap() = true;
    let begun = tokio::time::Instant::now();
    let headers = with("Bearer good");
    let all = (0..50).map(|_| check(&access, &headers, &Wish::Aggregate));
    assert!(futures::future::join_all(all).await.iter().all(|(status, _)| *status == 503));
    assert_eq!(check(&access, &headers, &Wish::Aggregate).await.0, 503);
    assert!(begun.elapsed() < REVIEW_TIMEOUT + Duration::from_millis(100), "it took {:?}", begun.elapsed());
    assert_eq!(reviewer.asked(), (1, 0));
}

#[tokio::test]
async fn invented_tokens_cannot_grow_the_cache() {
    let cache = Cache::new(|()| false);
    for n in 0..ACCESS_CACHE_SIZE + 100 {
        cache.get(n, |_| Ok(Box::pin(async { Ok(()) }))).await.unwrap();
    }
    assert_eq!(cache.len(), ACCESS_CACHE_SIZE);
}

#[tokio::test(start_paused = true)]
async fn invented_tokens_cannot_turn_out_those_who_were_let_in() {
    let cache = Cache::new(|admitted| *admitted);
    let ask = async |n: usize, answer: Result<bool, Unreachable>| {
        cache.get(n, |_| Ok(Box::pin(async { answer }))).await
    };
    ask(0, Ok(true)).await.unwrap();
    advance(ACCESS_CACHE * 2).await;
    for n in 1..2 * ACCESS_CACHE_SIZE {
        ask(n, Ok(false)).await.unwrap();
    }
    assert_eq!(cache.len(), ACCESS_CACHE_SIZE);
    assert_eq!(ask(0, Err(Unreachable("away".into()))).await, Ok(true), "still known in an outage");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_invented_tokens_is_no_flood_at_the_api_server_and_no_matter_to_known_readers() {
    let (reviewer, access) = fixed([Wish::Aggregate]);
    let read =
        async |token: &str| check(&access, &with(&format!("Bearer {token}")), &Wish::Aggregate).await.0;
    assert_eq!(read("good").await, 200);
    let flood = async |name: &str| {
        for n in 0..10_000 {
            let status = read(&format!("{name}-{n}")).await;
            assert!(matches!(status, 401 | 503), "{status}");
        }
    };
    flood("first").await;
    let burst = usize::try_from(REVIEWS_BURST).unwrap();
    assert_eq!(reviewer.asked().0, burst - 1, "the good one's two were the first of them");
    advance(ACCESS_CACHE).await;
    flood("second").await;
    assert_eq!(read("good").await, 200, "asked for again all the same");
    let (tokens, rights) = reviewer.asked();
    assert_eq!((tokens, rights), (2 * burst, 2), "a budget that was left alone is full and no fuller");
}

#[tokio::test(start_paused = true)]
async fn the_budget_comes_back_one_by_one() {
    let budget = Budget::new();
    let take = || std::iter::from_fn(|| budget.take().then_some(())).count();
    assert_eq!(take(), usize::try_from(REVIEWS_BURST).unwrap());
    advance(REVIEWS_INTERVAL * 5 / 2).await;
    assert_eq!(take(), 2);
    advance(REVIEWS_INTERVAL / 2).await;
    assert_eq!(take(), 1, "halves add up");
    advance(REVIEWS_INTERVAL * REVIEWS_BURST * 2).await;
    assert_eq!(take(), usize::try_from(REVIEWS_BURST).unwrap());
}

#[tokio::test(start_paused = true)]
async fn one_account_with_many_wishes_is_bounded_as_well() {
    let (reviewer, access) = fixed([]);
    for n in 0..2_000 {
        let wish = cluster("data", &format!("invented-{n}"));
        let status = check(&access, &with("Bearer good"), &wish).await.0;
        assert!(matches!(status, 403 | 503), "{status}");
    }
    assert_eq!(reviewer.asked(), (1, usize::try_from(REVIEWS_BURST).unwrap() - 1));
}

#[tokio::test]
async fn of_two_tokens_neither_counts() {
    let (reviewer, access) = fixed([Wish::Aggregate]);
    for (first, second) in [("Bearer good", "Bearer bad"), ("Bearer bad", "Bearer good"), ("Bearer good", "")]
    {
        let mut headers = with(first);
        headers.append(AUTHORIZATION, HeaderValue::try_from(second).unwrap());
        assert_eq!(check(&access, &headers, &Wish::Aggregate).await.0, 401);
    }
    assert_eq!(reviewer.asked(), (0, 0));
}

#[tokio::test]
async fn the_api_server_is_asked_for_our_audience_and_for_the_configmap() {
    let (client, mut server) = Fake::new();
    let reviewer = ApiReviewer::new(client);
    let user = json!({"username": "u", "groups": ["g"], "uid": "1", "extra": {"k": ["v"]}});
    let answer = async |status: serde_json::Value, server: &mut Fake| {
        let exchange = server.next().await;
        let spec = exchange.body["spec"].clone();
        exchange.ok(&json!({"status": status}));
        spec
    };
    let status = json!({"authenticated": true, "audiences": ["external-ip.dev"], "user": user});
    let (account, spec) = tokio::join!(reviewer.authenticate("t"), answer(status, &mut server));
    assert_eq!(spec, json!({"token": "t", "audiences": ["external-ip.dev"]}));
    let account = account.unwrap().unwrap();
    let wish = cluster("data", "infinispan");
    let (allowed, spec) =
        tokio::join!(reviewer.authorize(&account, &wish), answer(json!({"allowed": true}), &mut server));
    assert_eq!(allowed, Ok(true));
    assert_eq!(
        spec,
        json!({"user": "u", "groups": ["g"], "uid": "1", "extra": {"k": ["v"]}, "resourceAttributes": {
            "namespace": "data", "verb": "get", "group": "", "version": "v1",
            "resource": "configmaps", "name": "infinispan-external-ips",
        }})
    );
    let (allowed, spec) =
        tokio::join!(reviewer.authorize(&account, &Wish::Aggregate), answer(json!({}), &mut server));
    assert_eq!(allowed, Ok(false));
    assert_eq!(spec["nonResourceAttributes"], json!({"path": "/v1/mapping", "verb": "get"}));
}

#[tokio::test]
async fn a_token_for_another_audience_or_for_none_is_nobodys() {
    let (client, mut server) = Fake::new();
    let reviewer = ApiReviewer::new(client);
    for status in [
        json!({"authenticated": true, "user": {"username": "u"}}),
        json!({"authenticated": true, "audiences": ["https://kubernetes.default.svc"], "user": {"username": "u"}}),
        json!({"authenticated": false, "audiences": ["external-ip.dev"]}),
        json!({}),
    ] {
        let answer = async { server.next().await.ok(&json!({"status": status})) };
        let (account, ()) = tokio::join!(reviewer.authenticate("t"), answer);
        assert_eq!(account, Ok(None));
    }
}

#[tokio::test]
async fn a_refusal_of_the_controllers_own_account_is_no_verdict_on_the_reader() {
    let (client, mut server) = Fake::new();
    let reviewer = ApiReviewer::new(client);
    let answer = async { server.next().await.fail(403, "Forbidden") };
    let (account, ()) = tokio::join!(reviewer.authenticate("t"), answer);
    assert!(account.is_err());
}
