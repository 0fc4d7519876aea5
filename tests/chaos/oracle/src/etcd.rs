//! Every change in etcd, through its JSON gateway: whole also while the API server is frozen or gone.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use data_encoding::BASE64;
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::sleep;

use crate::history::PREFIXES;
use crate::http::{Peer, post};
use crate::record::{Line, now};

/// Between two attempts while etcd does not answer.
const RETRY: Duration = Duration::from_millis(100);

/// etcd's revision now: nobody can have seen a later one before this was asked.
pub(crate) async fn revision(etcd: &mut Peer) -> Result<u64> {
    let body = json!({"key": BASE64.encode(b"nothing"), "count_only": true});
    let answer = range(etcd, &body).await?;
    integer(&answer["header"]["revision"])
}

/// Records what there is under a prefix; gives the revision to go on from.
pub(crate) async fn first(etcd: &mut Peer, prefix: &str, to: &UnboundedSender<Line>) -> Result<u64> {
    let answer = range(etcd, &span(prefix)).await?;
    for kv in answer["kvs"].as_array().into_iter().flatten() {
        let _ = to.send(Line::History(change(kv, false)?));
    }
    Ok(integer(&answer["header"]["revision"])? + 1)
}

/// Records every change under a prefix from a revision on. Ends only with an error that leaves a gap.
pub(crate) async fn follow(address: SocketAddr, prefix: &str, mut from: u64, to: UnboundedSender<Line>) {
    loop {
        // after an error of the connection: go on where we were
        let gap = watch(address, prefix, &mut from, &to).await.unwrap_or_default();
        if let Some(gap) = gap {
            let _ = to.send(Line::History(json!({"gap": format!("{prefix}: {gap}")})));
            return;
        }
        sleep(RETRY).await;
    }
}

async fn watch(
    address: SocketAddr,
    prefix: &str,
    from: &mut u64,
    to: &UnboundedSender<Line>,
) -> Result<Option<String>> {
    let mut create = span(prefix);
    create["start_revision"] = json!(from.to_string());
    let request = post("/v3/watch", &json!({"create_request": create}))?;
    let mut body = Peer::plain(address).send(request).await?.into_body();
    let mut buffer = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        buffer.extend_from_slice(&data);
        while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let message: Value = serde_json::from_slice(&line)?;
            let result = &message["result"];
            if result["canceled"] == true {
                return Ok(Some(result.to_string()));
            }
            for event in result["events"].as_array().into_iter().flatten() {
                let line = change(&event["kv"], event["type"] == "DELETE")?;
                *from = line["revision"].as_u64().context("revision")? + 1;
                let _ = to.send(Line::History(line));
            }
        }
    }
    Ok(None)
}

/// What there is at the end, by key: the record is compared with it.
pub(crate) async fn last(etcd: &mut Peer) -> Result<Value> {
    let end = revision(etcd).await?;
    let mut keys = Map::new();
    for prefix in PREFIXES {
        let mut ask = span(prefix);
        ask["keys_only"] = json!(true);
        ask["revision"] = json!(end.to_string());
        let answer = range(etcd, &ask).await?;
        for kv in answer["kvs"].as_array().into_iter().flatten() {
            keys.insert(decoded(&kv["key"])?, json!(integer(&kv["mod_revision"])?));
        }
    }
    Ok(json!({"end": end, "keys": keys}))
}

async fn range(etcd: &mut Peer, body: &Value) -> Result<Value> {
    let answer = etcd.ask(post("/v3/kv/range", body)?).await?;
    if !answer.status.is_success() {
        bail!("etcd: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
    }
    Ok(serde_json::from_slice(&answer.body)?)
}

/// All keys that begin with `prefix`.
fn span(prefix: &str) -> Value {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    json!({"key": BASE64.encode(prefix.as_bytes()), "range_end": BASE64.encode(&end)})
}

fn change(kv: &Value, deleted: bool) -> Result<Value> {
    let mut object = Value::Null;
    if !deleted {
        let text = decoded(&kv["value"])?;
        object = serde_json::from_str(&text).context(
            "etcd must hold JSON: start the API server with --storage-media-type=application/json",
        )?;
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
    }
    let (key, revision) = (decoded(&kv["key"])?, integer(&kv["mod_revision"])?);
    Ok(json!({"revision": revision, "at": now(), "key": key, "object": object}))
}

fn decoded(value: &Value) -> Result<String> {
    Ok(String::from_utf8(BASE64.decode(value.as_str().unwrap_or_default().as_bytes())?)?)
}

/// The gateway writes 64 bit numbers as text.
fn integer(value: &Value) -> Result<u64> {
    value.as_str().context("a number")?.parse().context("a number")
}
