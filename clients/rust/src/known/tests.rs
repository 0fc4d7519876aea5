use super::*;

const ONE: &str = r#"{"entries": [{"state": "Routed", "internal": {"ips": ["198.18.0.5"]},
    "external": {"ips": ["203.0.113.1"]}, "ports": [{"protocol": "TCP", "internal": 1, "external": 1}]}]}"#;

fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Answer {
    let headers = headers.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)));
    Answer {
        status: StatusCode::from_u16(status).unwrap(),
        headers: headers.collect(),
        body: body.as_bytes().to_vec(),
    }
}

fn sent(known: &Known) -> (String, String) {
    let headers = known.headers(None);
    let text = |name: HeaderName| headers.get(name).map_or("", |v| v.to_str().unwrap()).to_owned();
    (text(IF_NONE_MATCH), text(MAP_POSITION))
}

fn known() -> Known {
    let mut known = Known::default();
    let first = answer(200, &[("etag", "\"a\""), ("map-position", "p7"), ("age", "3")], ONE);
    let heard = known.hear(&first).unwrap();
    assert_eq!((heard.map.unwrap().is_empty(), heard.age), (false, Duration::from_secs(3)));
    known
}

#[test]
fn what_was_shown_is_sent_back() {
    assert_eq!(sent(&Known::default()), (String::new(), String::new()));
    assert_eq!(sent(&known()), ("\"a\"".into(), "p7".into()));
    let token = HeaderValue::from_static("Bearer x");
    assert_eq!(Known::default().headers(Some(&token))[AUTHORIZATION], "Bearer x");
}

#[test]
fn an_unchanged_map_advances_the_position_alone() {
    let mut known = known();
    let heard = known.hear(&answer(304, &[("etag", "\"a\""), ("map-position", "p9")], "")).unwrap();
    assert!(heard.map.is_none());
    assert_eq!(sent(&known), ("\"a\"".into(), "p9".into()));
}

#[test]
fn refusals_and_damaged_answers_change_nothing() {
    let behind = r#"{"reason": "Behind", "message": "this replica has seen less"}"#;
    for (status, body, words) in [
        (503, behind, "seen less"),
        (401, r#"{"reason": "NoToken"}"#, "NoToken"),
        (404, "<html>not here</html>", "404"),
        (404, r#"{"reason": "NoSuchPath"}"#, "NoSuchPath"),
        (200, "<html>log in</html>", "not a cluster's document"),
        (302, "", "302"),
    ] {
        let mut known = known();
        let headers = [("etag", "\"b\""), ("map-position", "p5"), ("retry-after", "2")];
        let fault = known.hear(&answer(status, &headers, body)).unwrap_err();
        assert!(fault.to_string().contains(words), "{fault}");
        assert_eq!(sent(&known), ("\"a\"".into(), "p7".into()), "{status} {body}");
    }
}

#[test]
fn a_cluster_that_is_gone_has_no_addresses() {
    let mut known = known();
    let gone = r#"{"reason": "NoSuchCluster", "message": "there is no cluster"}"#;
    assert!(known.hear(&answer(404, &[], gone)).is_err(), "somebody on the way says so");
    let heard = known.hear(&answer(404, &[("map-position", "p8")], gone)).unwrap();
    assert!(heard.map.unwrap().is_empty());
    assert_eq!(sent(&known), (String::new(), "p8".into()));
}

#[test]
fn a_restored_server_and_one_of_another_version_begin_anew() {
    let mut restored = known();
    let headers = [("etag", "\"c\""), ("map-position", "p2"), ("mapping-reset", "true")];
    assert!(restored.hear(&answer(200, &headers, ONE)).unwrap().map.is_some());
    assert_eq!(sent(&restored), ("\"c\"".into(), "p2".into()));
    let mut other = known();
    assert!(other.hear(&answer(400, &[], r#"{"reason": "InvalidPosition"}"#)).is_err());
    assert_eq!(sent(&other), (String::new(), String::new()));
}

#[test]
fn a_held_question_is_asked_again_at_once_and_others_after_the_interval() {
    let mut pace = Pace::new(Duration::from_secs(4));
    let same = Heard { map: None, age: Duration::ZERO };
    assert_eq!(pace.heard(&same, Duration::from_secs(25), 0.5), Duration::ZERO);
    assert_eq!(pace.heard(&same, Duration::from_millis(3), 0.5), Duration::from_secs(4));
    assert_eq!(pace.heard(&same, Duration::from_millis(3), 0.0), Duration::from_secs(3));
    let new = Heard { map: Some(Map::parse(ONE.as_bytes()).unwrap()), age: Duration::ZERO };
    assert_eq!(pace.heard(&new, Duration::ZERO, 1.0), BURST);
    let gone = Heard { map: Some(Map::default()), age: Duration::ZERO };
    assert_eq!(pace.heard(&gone, Duration::ZERO, 1.0), Duration::from_secs(5));
}

#[test]
fn failures_are_spaced_out_and_the_server_may_ask_for_more() {
    let mut pace = Pace::new(Duration::from_secs(4));
    let fault = Fault::Unreachable("gone".into());
    let waits: Vec<u128> = (0..9).map(|_| pace.failed(&fault, 1.0).as_millis()).collect();
    assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400, 12800, 15000, 15000]);
    assert_eq!(pace.failed(&fault, 0.0), Duration::from_millis(7500));
    pace.heard(&Heard { map: None, age: Duration::ZERO }, Duration::ZERO, 0.0);
    let refused = Fault::Refused {
        status: StatusCode::SERVICE_UNAVAILABLE,
        message: String::new(),
        retry_after: Some(Duration::from_secs(2)),
    };
    assert_eq!(pace.failed(&refused, 1.0), Duration::from_millis(2200));
}
