//! Holds the last good map, and the task that follows the source.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::file::{LOOK, Mounted};
use crate::https::{Endpoint, Https};
use crate::known::{Fault, Known, Pace};
use crate::map::{External, Map};

/// A mapper cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Not an address of the map.
    #[error("{0}: give the listener's address, for example https://203.0.113.9:8888")]
    Url(String),
    /// It follows the map in a task.
    #[error("a mapper is made within a tokio runtime")]
    NoRuntime,
}

/// Answers `external(internal)` from the last good map, without locks and without waiting. Clones share one map and the
/// task that follows it, which ends with the last of them.
#[derive(Debug, Clone)]
pub struct AddressMapper {
    held: Arc<Held>,
    _task: Arc<Task>,
}

#[derive(Debug)]
struct Held {
    map: ArcSwap<Map>,
    /// When the source was last heard, less the age it gave.
    confirmed: ArcSwapOption<Instant>,
    problem: ArcSwapOption<String>,
    generation: watch::Sender<u64>,
}

#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl AddressMapper {
    /// Follows the map of one cluster over HTTPS. Within a tokio runtime.
    pub fn https(source: Https) -> Result<Self, StartError> {
        let pace = Pace::new(source.poll);
        let endpoint = source.endpoint()?;
        Self::follow(|held| follow(held, endpoint, pace))
    }

    /// Follows a mounted `mapping.json`. Within a tokio runtime.
    pub fn file(path: impl Into<PathBuf>) -> Result<Self, StartError> {
        let mounted = Mounted::new(path.into());
        Self::follow(|held| look(held, mounted))
    }

    fn follow<F>(task: impl FnOnce(Arc<Held>) -> F) -> Result<Self, StartError>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        let held = Arc::new(Held {
            map: ArcSwap::default(),
            confirmed: ArcSwapOption::empty(),
            problem: ArcSwapOption::empty(),
            generation: watch::Sender::new(0),
        });
        let task = runtime.spawn(task(Arc::clone(&held)));
        Ok(Self { held, _task: Arc::new(Task(task)) })
    }

    /// By internal IP and TCP port. `None`: not in the map, so do not connect: the address may be anybody's outside.
    pub fn external(&self, internal: IpAddr, port: u16) -> Option<External> {
        self.held.map.load().external(internal, port)
    }

    /// By an IP or a member's DNS name; see [`Map::external_of`].
    pub fn external_of(&self, internal: &str, port: u16) -> Option<External> {
        self.held.map.load().external_of(internal, port)
    }

    /// What a driver's resolver wants: addresses to connect to. A load balancer that is known by its host name only is
    /// looked up in DNS. The error of an unmapped address is [`io::ErrorKind::NotFound`] and comes at once.
    pub async fn resolve(&self, internal: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let external = self.external_of(internal, port).ok_or_else(|| self.not_mapped(internal, port))?;
        match &external.host {
            Some(host) if external.ips.is_empty() => {
                Ok(tokio::net::lookup_host((host.as_str(), external.port)).await?.collect())
            }
            _ => Ok(external.addresses().collect()),
        }
    }

    fn not_mapped(&self, internal: &str, port: u16) -> io::Error {
        let why = self.problem().map(|p| format!(" ({p})")).unwrap_or_default();
        io::Error::new(io::ErrorKind::NotFound, format!("{internal}:{port} is not in the map{why}"))
    }

    /// The whole map as it is now.
    pub fn map(&self) -> Arc<Map> {
        self.held.map.load_full()
    }

    /// Returns once there is a map, be it empty. Before that nothing is mapped.
    pub async fn ready(&self) {
        // the sender lives as long as this mapper
        drop(self.held.generation.subscribe().wait_for(|g| *g > 0).await);
    }

    /// Counts the maps; changes after each new one is in force.
    pub fn generations(&self) -> watch::Receiver<u64> {
        self.held.generation.subscribe()
    }

    /// How long ago the map was known to be what the API server had; `None` before the first. It grows while the
    /// controller is away.
    pub fn age(&self) -> Option<Duration> {
        self.held.confirmed.load().as_ref().map(|at| at.elapsed())
    }

    /// Why the last attempt to read the map failed; `None` where it did not.
    pub fn problem(&self) -> Option<String> {
        self.held.problem.load().as_ref().map(|p| String::clone(p))
    }
}

impl Held {
    fn heard(&self, map: Option<Map>, age: Duration) {
        let now = Instant::now();
        self.confirmed.store(Some(Arc::new(now.checked_sub(age).unwrap_or(now))));
        self.problem.store(None);
        if let Some(map) = map {
            self.map.store(Arc::new(map));
            self.generation.send_modify(|g| *g += 1);
        }
    }

    fn failed(&self, fault: &Fault) {
        self.problem.store(Some(Arc::new(fault.to_string())));
    }
}

async fn follow(held: Arc<Held>, mut endpoint: Endpoint, mut pace: Pace) {
    let mut known = Known::default();
    loop {
        let asked = Instant::now();
        let pause = match ask(&mut endpoint, &mut known).await {
            Ok(heard) => {
                let pause = pace.heard(&heard, asked.elapsed(), fastrand::f64());
                held.heard(heard.map, heard.age);
                pause
            }
            Err(fault) => {
                held.failed(&fault);
                pace.failed(&fault, fastrand::f64())
            }
        };
        sleep(pause).await;
    }
}

async fn ask(endpoint: &mut Endpoint, known: &mut Known) -> Result<crate::known::Heard, Fault> {
    let token = endpoint.token().await?;
    let answer = endpoint.ask(known.headers(token.as_ref())).await?;
    known.hear(&answer)
}

async fn look(held: Arc<Held>, mut mounted: Mounted) {
    loop {
        match mounted.look().await {
            Ok(map) => held.heard(map, Duration::ZERO),
            Err(fault) => held.failed(&fault),
        }
        sleep(LOOK).await;
    }
}
