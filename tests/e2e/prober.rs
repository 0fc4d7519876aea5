//! Asks every published entry in a loop, from outside, and judges each answer by what the map said before the question.
//!
//! The map lags the cluster, so an answer from the successor of the pod it named (same name, same address) is *late*, and
//! the map must come to name that successor. An answer from any other pod is *wrong*: there must be none, ever.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::rig::{Rig, eventually};
use crate::workload::{Entry, Map, entries};

/// Between two looks at the map.
const LOOK: Duration = Duration::from_millis(20);
/// Between two questions of one asker: the machine's cores are needed elsewhere too.
const PAUSE: Duration = Duration::from_millis(4);
/// Who does not answer within this time is gone.
const ANSWER: Duration = Duration::from_secs(2);
/// Who ask at the same time.
const ASKERS: usize = 4;
/// No published address may lead elsewhere for longer than this, even on a machine that is busy with a compiler.
const LATE: Duration = Duration::from_secs(5);

/// Asks until it is stopped.
pub(crate) struct Prober {
    seen: Arc<Seen>,
    stop: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// What it has seen.
#[derive(Default)]
struct Seen {
    /// The map as fetched last.
    entries: ArcSwap<Vec<Entry>>,
    report: Mutex<Report>,
}

/// What came of it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Report {
    /// Answers from the very pod the map named.
    pub(crate) right: usize,
    /// Answers from its successor, before the map named it: how long it took the map.
    pub(crate) late: Vec<Duration>,
    /// Answers from another pod.
    pub(crate) wrong: Vec<String>,
    /// Connections that were refused, or not answered, by how they failed. Of no consequence for the map: pods end,
    /// nodes learn of new addresses a moment later, and a machine full of compilers takes its time.
    pub(crate) failed: BTreeMap<&'static str, usize>,
    /// Maps fetched.
    pub(crate) maps: usize,
    /// The longest time one of them took.
    pub(crate) slowest: Duration,
    /// The same for a reader that insists on what it has seen (`Map-Position`) while its connections go to either
    /// replica: refused as behind, and the longest time an answer took.
    pub(crate) behind: usize,
    pub(crate) slowest_insisting: Duration,
    /// Maps that could not be fetched, and why.
    pub(crate) unread: Vec<String>,
    /// The fewest Routed members of any map, from [`Prober::watch_members`] on.
    pub(crate) fewest: Option<usize>,
    /// Successors that the map does not name yet: their uid, where, since when.
    pending: Vec<(String, SocketAddr, Instant)>,
}

impl Prober {
    pub(crate) fn start(rig: &Rig, maps: &[Map]) -> Self {
        let (seen, stop) = (Arc::new(Seen::default()), CancellationToken::new());
        let sources: Arc<Vec<Map>> = Arc::new(maps.to_vec());
        let mut tasks =
            vec![rig.outside.spawn(follow(Arc::clone(&sources), Arc::clone(&seen), stop.clone()))];
        tasks.push(rig.outside.spawn(insist(sources[0].clone(), Arc::clone(&seen), stop.clone())));
        for first in 0..ASKERS {
            tasks.push(rig.outside.spawn(ask_all(first, Arc::clone(&seen), stop.clone())));
        }
        let prober = Self { seen, stop, tasks };
        prober.go_on(200);
        prober
    }

    /// Waits for this many more right answers: what comes next is looked at, too.
    pub(crate) fn go_on(&self, answers: usize) {
        let target = self.report().right + answers;
        eventually(&format!("{answers} more answers"), || {
            let report = self.report();
            if report.right >= target { Ok(()) } else { Err(report.to_string()) }
        });
    }

    /// From now on remembers the fewest Routed members of any map.
    pub(crate) fn watch_members(&self) {
        let now = self.seen.entries.load().len();
        self.seen.report.lock().unwrap().fewest = Some(now);
    }

    pub(crate) fn report(&self) -> Report {
        self.seen.report.lock().unwrap().clone()
    }

    /// Ends it, once the map has caught up with everybody who answered.
    pub(crate) fn stop(self, rig: &Rig) -> Report {
        eventually("the map names every successor that answered", || {
            let pending = self.report().pending;
            if pending.is_empty() { Ok(()) } else { Err(format!("{pending:?}")) }
        });
        self.stop.cancel();
        let tasks = self.tasks;
        rig.outside.run(async move {
            for task in tasks {
                task.await.expect("askers do not panic");
            }
        });
        self.seen.report.lock().unwrap().clone()
    }
}

impl Report {
    pub(crate) fn answers(&self) -> usize {
        self.right + self.late.len() + self.wrong.len()
    }

    /// What must never be otherwise, and the lag, which is bounded.
    pub(crate) fn assert_nobody_else_answered(&self) {
        assert!(self.wrong.is_empty(), "answers from another pod: {:#?}\n{self}", self.wrong);
        assert_eq!(self.behind, 0, "a reader that goes from replica to replica was refused: {self}");
        assert!(self.late.iter().all(|lag| *lag < LATE), "the map lagged for more than {LATE:?}: {self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slowest = self.late.iter().max().copied().unwrap_or_default();
        write!(f, "{} answers: {} from another pod, ", self.answers(), self.wrong.len())?;
        write!(f, "{} from a successor before the map named it (at most {slowest:?}), ", self.late.len())?;
        write!(f, "the rest right; failed while a pod was gone or quite new: {:?}; ", self.failed)?;
        write!(
            f,
            "{} maps read (the slowest in {:?}), not read: {:?}; ",
            self.maps, self.slowest, self.unread
        )?;
        write!(f, "insisting on its position: {} refused, ", self.behind)?;
        write!(f, "the slowest answer in {:?}", self.slowest_insisting)
    }
}

/// Asks each entry until its own pod answers: nodes learn of a new address a moment after the API server.
pub(crate) fn reach(rig: &Rig, entries: &[Entry]) -> Vec<serde_json::Value> {
    let answer = |entry: &Entry| {
        let address = entry.address().expect("a published entry has an address");
        eventually(&format!("{} answers at {address}", entry.pod), || {
            let answer = rig.outside.run(async move { timeout(ANSWER, ask(address)).await });
            match answer.unwrap_or(Err("timed out"))? {
                who if who["uid"] == entry.uid.as_str() => Ok(who),
                who => panic!("{address}: the map said {entry:?}, it answered {who}"),
            }
        })
    };
    entries.iter().map(answer).collect()
}

/// Keeps the map up to date: every source, again and again.
async fn follow(sources: Arc<Vec<Map>>, seen: Arc<Seen>, stop: CancellationToken) {
    let mut last: Vec<(String, Vec<Entry>)> = vec![Default::default(); sources.len()];
    while !stop.is_cancelled() {
        for (source, (tag, routed)) in sources.iter().zip(&mut last) {
            let begun = Instant::now();
            let answer = source.clone().fetch(&[("if-none-match", tag.as_str())]).await;
            let mut report = seen.report.lock().unwrap();
            match answer {
                Ok(answer) if answer.status == 304 => {}
                Ok(answer) if answer.status == 200 => {
                    *routed = entries(&answer).into_iter().filter(|entry| entry.routed).collect();
                    answer.header("etag").clone_into(tag);
                }
                Ok(answer) => report.unread.push(format!("{}: {}", answer.status, answer.body)),
                Err(error) => report.unread.push(format!("{error} after {:?}", begun.elapsed())),
            }
            report.maps += 1;
            report.slowest = report.slowest.max(begun.elapsed());
        }
        let all: Vec<Entry> = last.iter().flat_map(|(_, entries)| entries.iter().cloned()).collect();
        caught_up(&mut seen.report.lock().unwrap(), &all);
        seen.entries.store(Arc::new(all));
        sleep(LOOK).await;
    }
}

/// Reads one map as a client that will not be shown an older one.
async fn insist(source: Map, seen: Arc<Seen>, stop: CancellationToken) {
    let mut position = String::new();
    while !stop.is_cancelled() {
        let begun = Instant::now();
        let headers = [("map-position", position.as_str())];
        let headers = if position.is_empty() { &[][..] } else { &headers };
        let answer = source.clone().fetch(headers).await;
        {
            let mut report = seen.report.lock().unwrap();
            report.slowest_insisting = report.slowest_insisting.max(begun.elapsed());
            match answer {
                Ok(answer) if answer.status == 200 => answer.header("map-position").clone_into(&mut position),
                Ok(answer) if answer.body.contains("\"Behind\"") => {
                    crate::rig::say(&format!("refused: {position} at {}", answer.header("map-position")));
                    report.behind += 1;
                }
                _ => {} // `follow` counts what fails
            }
        }
        sleep(LOOK).await;
    }
}

/// Takes the successors that the map names now off the list.
fn caught_up(report: &mut Report, entries: &[Entry]) {
    if let Some(fewest) = &mut report.fewest {
        *fewest = entries.len().min(*fewest);
    }
    for (uid, at, since) in std::mem::take(&mut report.pending) {
        if entries.iter().any(|entry| entry.uid == uid && entry.address() == Some(at)) {
            report.late.push(since.elapsed());
        } else {
            report.pending.push((uid, at, since));
        }
    }
}

async fn ask_all(first: usize, seen: Arc<Seen>, stop: CancellationToken) {
    let mut next = first;
    while !stop.is_cancelled() {
        let entries = seen.entries.load_full();
        if let Some(entry) = entries.get(next % entries.len().max(1))
            && let Some(address) = entry.address()
        {
            let answer = timeout(ANSWER, ask(address)).await.unwrap_or(Err("timed out"));
            judge(&mut seen.report.lock().unwrap(), entry, address, answer);
        }
        next += 1;
        sleep(PAUSE).await;
    }
}

fn judge(
    report: &mut Report,
    asked: &Entry,
    at: SocketAddr,
    answer: Result<serde_json::Value, &'static str>,
) {
    let answer = match answer {
        Ok(answer) => answer,
        Err(how) => return *report.failed.entry(how).or_default() += 1,
    };
    if answer["uid"] == asked.uid.as_str() && answer["ip"] == asked.inside.as_str() {
        report.right += 1;
    } else if answer["pod"] == asked.pod.as_str() && answer["uid"] != asked.uid.as_str() {
        let uid = answer["uid"].as_str().unwrap_or_default().to_owned();
        // one of them stands for all until the map names it
        if report.pending.iter().all(|(known, ..)| *known != uid) {
            report.pending.push((uid, at, Instant::now()));
        }
    } else {
        report.wrong.push(format!("{at}: the map said {asked:?}, it answered {answer}"));
    }
}

/// One question on a connection of its own, as a client that has just read the map.
async fn ask(address: SocketAddr) -> Result<serde_json::Value, &'static str> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "refused",
        std::io::ErrorKind::HostUnreachable | std::io::ErrorKind::NetworkUnreachable => "unreachable",
        _ => "not connected",
    })?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: member\r\n\r\n").await.map_err(|_| "cut")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.map_err(|_| "cut")?;
    let body = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or("cut")?;
    serde_json::from_slice(&answer[body + 4..]).map_err(|_| "cut")
}

/// The judge is what the claim rests on: it must be able to say no.
#[test]
fn an_answer_is_judged_by_what_the_map_said() {
    let at: SocketAddr = "203.0.113.1:11222".parse().unwrap();
    let asked = Entry {
        pod: "a-0".to_owned(),
        uid: "first".to_owned(),
        slot: 0,
        routed: true,
        inside: "198.18.0.5".to_owned(),
        outside: "203.0.113.1".to_owned(),
        port: 11222,
    };
    let answer = |pod, uid, ip| Ok(serde_json::json!({"pod": pod, "uid": uid, "ip": ip}));
    let mut report = Report::default();
    judge(&mut report, &asked, at, answer("a-0", "first", "198.18.0.5"));
    judge(&mut report, &asked, at, Err("refused"));
    assert_eq!((report.right, report.failed["refused"], report.wrong.len()), (1, 1, 0));
    judge(&mut report, &asked, at, answer("a-1", "other", "198.18.0.6"));
    judge(&mut report, &asked, at, answer("a-0", "first", "198.18.0.6"));
    assert_eq!(report.wrong.len(), 2, "another pod, and an address inside that is not the published one");
    // its successor, until the map names it at that address
    judge(&mut report, &asked, at, answer("a-0", "second", "198.18.0.7"));
    judge(&mut report, &asked, at, answer("a-0", "second", "198.18.0.7"));
    caught_up(&mut report, std::slice::from_ref(&asked));
    assert_eq!((report.pending.len(), report.late.len()), (1, 0));
    caught_up(&mut report, &[Entry { uid: "second".to_owned(), ..asked }]);
    assert_eq!((report.pending.len(), report.late.len(), report.wrong.len()), (0, 1, 2));
}
