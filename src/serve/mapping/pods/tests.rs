use external_ip_core::explain::Explanation;
use futures::future::BoxFuture;
use http::header::{CONTENT_TYPE, ETAG};

use super::super::tests::{Answer, Served, position, served_to, two};
use super::*;
use crate::map::{Explained, Position};
use crate::serve::access::{Access, Account, Reviewer, Unreachable};

/// May read the map of cluster `data/a` and nothing else.
struct OnlyA;

impl Reviewer for OnlyA {
    fn authenticate(&self, token: &str) -> BoxFuture<'static, Result<Option<Account>, Unreachable>> {
        let account = (token == "good").then(|| Account { name: "reader".into(), user: token.into() });
        Box::pin(async { Ok(account) })
    }

    fn authorize(&self, _: &Account, wish: &Wish) -> BoxFuture<'static, Result<bool, Unreachable>> {
        let allowed = *wish == access::cluster("data", "a");
        Box::pin(async move { Ok(allowed) })
    }
}

/// What the state loop would say of the first pod of `cluster` in [`two`].
fn explanation(cluster: &str) -> Explanation {
    let entry = two()[&Key::new("data", cluster)].entries[0].clone();
    Explanation {
        namespace: "data".into(),
        cluster: Some(cluster.into()),
        class: Some("default".into()),
        since: "2026-01-01T00:00:00Z".into(),
        remedy: None,
        service: Some(format!("{cluster}-ext-0")),
        steps: Vec::new(),
        entry,
    }
}

/// Asks while the state loop says `found` at `position`; `None` in place of the answer where it was not asked.
async fn ask(
    served: &mut Served,
    path: &str,
    headers: &[(&str, &str)],
    found: Option<Explanation>,
    position: Position,
) -> (Answer, bool) {
    let Served { router, questions, .. } = served;
    let request = super::super::tests::send(router, "GET", path, headers);
    let mut asked = false;
    let loops = async {
        let Some(question) = questions.recv().await else { return };
        asked = true;
        question.answer.send(Explained { explanation: found, position }).expect("somebody waits for it");
        std::future::pending::<()>().await;
    };
    let answer = tokio::select! {
        answer = request => answer,
        () = loops => unreachable!(),
    };
    (answer, asked)
}

#[tokio::test]
async fn an_explanation_has_its_forms_its_tag_and_the_position_it_was_made_at() {
    let mut served = served_to(Access::Open);
    served.publish(two(), 7);
    for (path, media, words) in [
        ("/v1/pods/data/a-0", "application/json", "\"service\":\"a-ext-0\""),
        ("/v1/pods/data/a-0?format=yaml", "application/yaml", "service: 'a-ext-0'"),
        ("/v1/pods/data/a-0?format=text", "text/plain; charset=utf-8", "data/a-0: Routed since"),
    ] {
        let (answer, _) = ask(&mut served, path, &[], Some(explanation("a")), position(8)).await;
        assert_eq!((answer.status, answer.header(CONTENT_TYPE)), (200, media), "{path}");
        assert_eq!(answer.header(MAP_POSITION), "e5.n5.p8.s5");
        assert!(answer.body.contains(words), "{}", answer.body);
        let known = [("if-none-match", answer.header(ETAG))];
        let (again, _) = ask(&mut served, path, &known, Some(explanation("a")), position(8)).await;
        assert_eq!((again.status, again.body.as_str()), (304, ""));
    }
    let (answer, asked) = ask(&mut served, "/v1/pods/data/a-0?format=xml", &[], None, position(8)).await;
    assert_eq!((answer.status, asked), (400, false));
}

#[tokio::test]
async fn a_pod_nobody_knows_is_not_there_and_what_to_look_at_is_said() {
    let mut served = served_to(Access::Open);
    served.publish(two(), 7);
    let (answer, _) = ask(&mut served, "/v1/pods/data/z-0", &[], None, position(7)).await;
    assert_eq!((answer.status, answer.header(MAP_POSITION)), (404, "e5.n5.p7.s5"));
    assert!(answer.body.contains("external-ip.dev/cluster"), "{}", answer.body);
}

#[tokio::test]
async fn a_pod_is_explained_to_readers_of_its_cluster_and_others_do_not_learn_whether_it_is_there() {
    let mut served = served_to(Access::token(std::sync::Arc::new(OnlyA)));
    served.publish(two(), 7);
    let good = [("authorization", "Bearer good")];
    let (own, _) = ask(&mut served, "/v1/pods/data/a-0", &good, Some(explanation("a")), position(7)).await;
    assert_eq!(own.status, 200);
    let (other, asked) = ask(&mut served, "/v1/pods/data/b-0", &good, None, position(7)).await;
    assert_eq!((other.status, asked), (403, false));
    let (nobody, asked) = ask(&mut served, "/v1/pods/data/c-0", &good, None, position(7)).await;
    assert_eq!((nobody.status, asked), (403, false));
    assert_eq!(other.body.replace("b-0", "c-0"), nobody.body);
    let (stranger, asked) = ask(&mut served, "/v1/pods/data/a-0", &[], None, position(7)).await;
    assert_eq!((stranger.status, asked), (401, false));
}

#[tokio::test]
async fn a_pod_that_has_just_gone_to_another_cluster_is_not_explained_by_the_right_to_the_first() {
    let mut served = served_to(Access::token(std::sync::Arc::new(OnlyA)));
    served.publish(two(), 7);
    let good = [("authorization", "Bearer good")];
    let (answer, asked) =
        ask(&mut served, "/v1/pods/data/a-0", &good, Some(explanation("b")), position(8)).await;
    assert_eq!((answer.status, asked), (503, true));
    assert!(!answer.body.contains("b-ext-0"), "{}", answer.body);
}

#[tokio::test]
async fn more_questions_than_the_state_loop_may_be_asked_are_refused_at_once() {
    let served = served_to(Access::Open);
    served.publish(two(), 7);
    let mut waiting: Vec<_> = (0..=crate::constants::POD_QUESTIONS)
        .map(|_| Box::pin(served.get("/v1/pods/data/a-0", &[])))
        .collect();
    let (first, ..) = futures::future::select_all(&mut waiting).await;
    assert_eq!((first.status, first.body.contains("Busy")), (503, true), "{}", first.body);
}
