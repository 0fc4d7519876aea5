use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::routes;
use super::super::tests::{served, two};
use super::*;
use http::header::CONTENT_TYPE;

fn described() -> Value {
    serde_json::from_slice(&description().body).unwrap()
}

#[test]
fn every_path_is_described_and_every_described_path_is_there() {
    let served: BTreeSet<String> = routes::all().into_iter().map(|(path, _)| path.to_owned()).collect();
    let described: BTreeSet<String> = described()["paths"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(described, served);
}

#[test]
fn every_reference_leads_somewhere() {
    fn check(all: &Value, part: &Value) {
        match part {
            Value::Object(fields) => {
                if let Some(place) = fields.get("$ref") {
                    let pointer = place.as_str().unwrap().strip_prefix('#').unwrap();
                    assert!(all.pointer(pointer).is_some(), "{place}");
                }
                fields.values().for_each(|field| check(all, field));
            }
            Value::Array(items) => items.iter().for_each(|item| check(all, item)),
            _ => {}
        }
    }
    check(&described(), &described());
}

/// What a description says of an answer, behind its reference.
fn resolved<'d>(all: &'d Value, part: &'d Value) -> &'d Value {
    part["$ref"].as_str().map_or(part, |place| all.pointer(&place[1..]).unwrap())
}

#[tokio::test]
async fn answers_have_the_status_the_type_and_the_headers_that_are_described() {
    let served = served();
    served.publish(two(), 7);
    let all = described();
    for (path, asked) in [
        ("/", "/"),
        ("/v1/mapping", "/v1/mapping"),
        ("/v1/mapping", "/v1/mapping?format=yaml"),
        ("/v1/mapping", "/v1/mapping?format=nat-map"),
        ("/v1/mapping", "/v1/mapping?format=x"),
        ("/v1/mapping", "/v1/mapping?wait=x"),
        ("/v1/mapping/{namespace}/{cluster}", "/v1/mapping/data/a"),
        ("/v1/mapping/{namespace}/{cluster}", "/v1/mapping/data/nobody"),
        ("/v1/watch/{namespace}/{cluster}", "/v1/watch/data/nobody"),
        ("/v1/watch", "/v1/watch?format=yaml"),
        ("/status", "/status"),
        ("/ca.pem", "/ca.pem"),
        ("/openapi.json", "/openapi.json"),
    ] {
        let answer = served.get(asked, &[]).await;
        let described = &all["paths"][path]["get"]["responses"][answer.status.to_string()];
        assert!(described.is_object(), "{asked}: {answer:?}");
        let described = resolved(&all, described);
        assert!(described["content"][answer.header(CONTENT_TYPE)].is_object(), "{asked}: {answer:?}");
        for (header, said) in described["headers"].as_object().into_iter().flatten() {
            let optional = header == "Mapping-Reset";
            assert!(optional || !answer.header(header.as_str()).is_empty(), "{asked}: {header}: {said}");
        }
        if answer.status >= 400 {
            let problem: Value = serde_json::from_str(&answer.body).unwrap();
            let known = all["components"]["schemas"]["Problem"]["properties"].as_object().unwrap();
            assert!(problem.as_object().unwrap().keys().all(|key| known.contains_key(key)), "{problem}");
        }
    }
}

#[tokio::test]
async fn everybody_may_read_it_and_it_has_a_tag() {
    let served = served();
    let first = served.get("/openapi.json", &[("accept-encoding", "gzip")]).await;
    assert_eq!((first.status, first.header("content-encoding")), (200, "gzip"));
    let document: Value = serde_json::from_str(&first.body).unwrap();
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let again = [("accept-encoding", "gzip"), ("if-none-match", first.header("etag"))];
    assert_eq!(served.get("/openapi.json", &again).await.status, 304);
}

/// What is said of the wait is what holds.
#[test]
fn limits_that_are_told_are_those_of_the_constants() {
    let all = described();
    let wait = all["components"]["parameters"]["wait"]["description"].to_string();
    assert!(wait.contains(&format!("no more than {} count", crate::constants::WAIT_MAX.as_secs())), "{wait}");
    let position = all["components"]["parameters"]["Map-Position"]["description"].to_string();
    assert!(position.contains(&format!("up to {} s", crate::constants::POSITION_WAIT.as_secs())));
    let watch = all["paths"]["/v1/watch"]["get"]["description"].to_string();
    assert!(watch.contains(&format!("at least every {} s", crate::constants::WATCH_KEEP_ALIVE.as_secs())));
    assert_eq!(all["openapi"], json!("3.1.0"));
}
