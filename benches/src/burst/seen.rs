//! What becomes of Services, as watches show it; and who gives them their addresses where MetalLB does not.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;

use super::ground::{AT_ONCE, Ground, Town};
use crate::api::{Api, Call};

/// Status writes at once.
const GIVERS: usize = 4;
/// The first address given: benchmark range (RFC 2544), nobody dials it.
const FIRST: u32 = u32::from_be_bytes([198, 19, 128, 0]);
/// Longest wait for the last one.
const PATIENCE: Duration = Duration::from_secs(600);

/// Watches a town from here on. Ends when dropped.
pub(super) struct Seen<'a> {
    ground: &'a Ground,
    pods: usize,
    services: watch::Receiver<Count>,
    slices: watch::Receiver<Count>,
    _tasks: JoinSet<Result<()>>,
}

/// How many, and since when.
#[derive(Debug, Clone, Copy)]
struct Count {
    /// That are there.
    there: usize,
    /// That have their address, or their pod.
    complete: usize,
    /// When the last one came, and when it was complete.
    came: Instant,
    completed: Instant,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    status: Status,
    #[serde(default)]
    endpoints: Option<Vec<Endpoint>>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    load_balancer: LoadBalancer,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct LoadBalancer {
    ingress: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    #[allow(dead_code)] // that it is there is enough
    target_ref: serde::de::IgnoredAny,
}

impl Object {
    fn is_complete(&self) -> bool {
        !self.status.load_balancer.ingress.is_empty()
            || self.endpoints.as_ref().is_some_and(|e| !e.is_empty())
    }
}

impl<'a> Seen<'a> {
    pub(super) fn begin(ground: &'a Ground, town: &Town) -> Result<Self> {
        let mut tasks = JoinSet::new();
        let now = Instant::now();
        let none = Count { there: 0, complete: 0, came: now, completed: now };
        let (services_tx, services) = watch::channel(none);
        let (slices_tx, slices) = watch::channel(none);
        let (names_tx, names) = mpsc::unbounded_channel();
        let (admin, handle) = (&ground.admin, ground.runtime.handle());
        let streams =
            [(town.core("services"), services_tx, Some(names_tx)), (town.slices(), slices_tx, None)];
        for (path, count, names) in streams {
            let events = handle.block_on(open(admin, &path))?;
            tasks.spawn_on(follow(events, count, names), handle);
        }
        if town.class == AT_ONCE {
            let names = Arc::new(Mutex::new(names));
            let path = town.core("services");
            for _ in 0..GIVERS {
                tasks.spawn_on(give(admin.clone(), path.clone(), Arc::clone(&names)), handle);
            }
        }
        Ok(Self { ground, pods: town.pods, services, slices, _tasks: tasks })
    }

    /// When the last Service was made, and when the last had its address and its pod.
    pub(super) fn complete(&self) -> Result<(Instant, Instant)> {
        let all = |count: &Count| count.complete == self.pods;
        let (mut services, mut slices) = (self.services.clone(), self.slices.clone());
        let both = async {
            services.wait_for(all).await?;
            slices.wait_for(all).await.map(drop)
        };
        let waited = self.ground.runtime.block_on(async { tokio::time::timeout(PATIENCE, both).await });
        let (services, slices) = (*self.services.borrow(), *self.slices.borrow());
        waited.with_context(|| format!("of {} pods: {services:?}, {slices:?}", self.pods))??;
        Ok((services.came, services.completed.max(slices.completed)))
    }
}

/// A watch from now on.
async fn open(api: &Api, path: &str) -> Result<hyper::body::Incoming> {
    let list = api.ask(&Call::get(format!("{path}?limit=1"))).await?;
    let version = list["metadata"]["resourceVersion"].as_str().context("no version")?;
    let watch = Call::get(format!("{path}?watch=1&resourceVersion={version}"));
    Ok(api.connect().await?.open(&watch).await?.into_body())
}

async fn follow(
    mut events: hyper::body::Incoming,
    count: watch::Sender<Count>,
    names: Option<mpsc::UnboundedSender<String>>,
) -> Result<()> {
    let (mut there, mut complete) = (HashSet::new(), HashSet::new());
    let mut buffer = Vec::new();
    while let Some(frame) = events.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        buffer.extend_from_slice(&data);
        while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let Event { kind, object } = serde_json::from_slice(&line)?;
            if !matches!(kind.as_str(), "ADDED" | "MODIFIED") {
                continue;
            }
            let is_complete = object.is_complete();
            let name = object.metadata.name;
            let now = Instant::now();
            if there.insert(name.clone()) {
                if let Some(names) = &names {
                    // nobody gives where MetalLB does
                    let _ = names.send(name.clone());
                }
                count.send_modify(|c| (c.there, c.came) = (c.there + 1, now));
            }
            if is_complete && complete.insert(name) {
                count.send_modify(|c| (c.complete, c.completed) = (c.complete + 1, now));
            }
        }
    }
    bail!("the watch has ended")
}

/// Writes an address into the status of each Service.
async fn give(api: Api, path: String, names: Arc<Mutex<mpsc::UnboundedReceiver<String>>>) -> Result<()> {
    static GIVEN: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(FIRST);
    let mut connection = api.connect().await?;
    loop {
        let Some(name) = names.lock().await.recv().await else { return Ok(()) };
        let ip = Ipv4Addr::from(GIVEN.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": ip}]}}});
        connection.ask(&Call::patch(format!("{path}/{name}/status"), &status)).await?;
    }
}
