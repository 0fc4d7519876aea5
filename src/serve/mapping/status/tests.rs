use std::sync::Arc;

use super::super::tests::{Knows, Served, served, served_to, two};
use super::*;
use crate::serve::access::Access;
use crate::testing::{cluster, mapping};

#[tokio::test]
async fn the_page_allows_nothing_but_its_own_style() {
    let served = served();
    served.publish(two(), 7);
    let answer = served.get("/status", &[]).await;
    assert_eq!((answer.status, answer.header(CONTENT_TYPE)), (200, "text/html; charset=utf-8"));
    let policy = answer.header(CONTENT_SECURITY_POLICY);
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    let (_, style) = answer.body.split_once("<style>").unwrap();
    let (style, _) = style.split_once("</style>").unwrap();
    assert!(
        policy.contains(&BASE64.encode(&Sha256::digest(style.as_bytes()))),
        "the hash is that of the style"
    );
    assert!(
        !answer.body.contains("<script") && !answer.body.contains("src=") && !answer.body.contains("style=")
    );
}

#[tokio::test]
async fn what_others_wrote_stays_text() {
    let served = served();
    let mut hostile = cluster("data", "a", 1);
    hostile.entries[0].reason = Some("NoLoadBalancer");
    hostile.entries[0].message = Some("<img src=x onerror=\"alert('x')\"> & more".into());
    served.publish(mapping([hostile]), 7);
    let body = served.get("/status", &[]).await.body;
    assert!(body.contains("&lt;img src=x onerror=&quot;alert(&#39;x&#39;)&quot;&gt; &amp; more"), "{body}");
}

/// Lets in whoever has the token `good`.
pub(super) fn behind_a_token() -> Served {
    served_to(Access::token(Arc::new(Knows(|token: &str| token == "good"))))
}

fn guarded() -> Served {
    let served = behind_a_token();
    served.publish(two(), 7);
    served
}

#[tokio::test]
async fn a_browser_is_asked_for_a_token_and_shows_it_as_a_password() {
    let served = guarded();
    let asked = served.get("/status", &[]).await;
    assert_eq!(asked.status, 401);
    assert!(asked.all(WWW_AUTHENTICATE).iter().any(|challenge| challenge.starts_with("Basic ")));
    let elsewhere = served.get("/v1/mapping", &[]).await;
    assert!(elsewhere.all(WWW_AUTHENTICATE).iter().all(|challenge| challenge.starts_with("Bearer ")));
    let basic = |pair: &str| format!("Basic {}", BASE64.encode(pair.as_bytes()));
    for (credentials, status) in [
        (basic("token:good"), 200),
        (basic(":good"), 200),
        (basic("good:"), 401),
        (basic("good"), 401),
        (basic("token:bad"), 401),
        ("Basic good".to_owned(), 401),
        ("Bearer good".to_owned(), 200),
        ("Digest good".to_owned(), 401),
    ] {
        for path in ["/status", "/v1/mapping"] {
            let answer = served.get(path, &[("authorization", &credentials)]).await;
            assert_eq!(answer.status, status, "{path} {credentials}");
        }
    }
}
