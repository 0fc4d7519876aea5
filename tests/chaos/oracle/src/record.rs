//! Writes down what happened: `history.jsonl` (etcd) and `documents.jsonl` (what replicas answered). Judging comes later,
//! from these files alone.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::etcd;
use crate::history::PREFIXES;
use crate::http::{Peer, get};

/// Between two looks at one replica: the resolution of every time that is measured.
const LOOK: Duration = Duration::from_millis(50);

/// What is recorded and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Record {
    /// etcd's client address.
    #[arg(long)]
    etcd: SocketAddr,
    /// A replica's mapping listener: NAME=ADDRESS.
    #[arg(long = "replica", value_parser = replica)]
    replicas: Vec<(String, SocketAddr)>,
    /// The published CA, in PEM.
    #[arg(long)]
    ca: PathBuf,
    /// An existing directory.
    #[arg(long)]
    out: PathBuf,
}

fn replica(text: &str) -> Result<(String, SocketAddr)> {
    let (name, address) = text.split_once('=').context("NAME=ADDRESS")?;
    Ok((name.to_owned(), address.parse()?))
}

/// One line of a file.
pub(crate) enum Line {
    History(Value),
    Document(Value),
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}

/// Records until standard input ends: that also happens when whoever started it dies.
pub(crate) async fn run(args: Record) -> Result<()> {
    let ca = std::fs::read(&args.ca).context("the CA")?;
    let (to, lines) = mpsc::unbounded_channel();
    let out = args.out.clone();
    let writing = tokio::task::spawn_blocking(move || write(&out, lines));
    let mut etcd = Peer::plain(args.etcd);
    let mut tasks = JoinSet::new();
    for prefix in PREFIXES {
        let from = etcd::first(&mut etcd, prefix, &to).await?;
        tasks.spawn(etcd::follow(args.etcd, prefix, from, to.clone()));
    }
    for (name, address) in &args.replicas {
        let peers = vec![Peer::tls(*address, &ca)?];
        let reader = Reader::new(name, peers, args.etcd, to.clone());
        tasks.spawn(reader.run());
    }
    let everywhere: Result<_> = args.replicas.iter().map(|(_, address)| Peer::tls(*address, &ca)).collect();
    tasks.spawn(Reader::new("roaming", everywhere?, args.etcd, to.clone()).roaming().run());
    println!("recording");
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    let closing = etcd::last(&mut etcd).await?;
    // the watches are at most this far behind, on a busy machine too; what still lacks then is told as a gap by the comparison
    sleep(Duration::from_secs(3)).await;
    tasks.shutdown().await;
    let _ = to.send(Line::History(closing));
    drop(to);
    writing.await?
}

/// Asks replicas again and again.
struct Reader {
    name: String,
    peers: Vec<Peer>,
    etcd: Peer,
    to: UnboundedSender<Line>,
    /// Sends the last position, so that it is never shown anything older.
    insists: bool,
    tags: Vec<String>,
    /// Entries by number, as they were last received from each peer.
    known: HashMap<String, usize>,
    entries: Vec<Vec<usize>>,
}

impl Reader {
    fn new(name: &str, peers: Vec<Peer>, etcd: SocketAddr, to: UnboundedSender<Line>) -> Self {
        let count = peers.len();
        Self {
            name: name.to_owned(),
            peers,
            etcd: Peer::plain(etcd),
            to,
            insists: false,
            tags: vec![String::new(); count],
            known: HashMap::new(),
            entries: vec![Vec::new(); count],
        }
    }

    fn roaming(mut self) -> Self {
        self.insists = true;
        self
    }

    async fn run(mut self) {
        let mut position = String::new();
        for turn in 0.. {
            let from = turn % self.peers.len();
            let asked = if self.insists { position.clone() } else { String::new() };
            let line = match self.read(from, &asked).await {
                Ok((line, at)) => {
                    if !at.is_empty() {
                        position = at;
                    }
                    line
                }
                Err(error) => {
                    json!({"at": now(), "reader": self.name, "from": from, "error": format!("{error:#}")})
                }
            };
            let _ = self.to.send(Line::Document(line));
            sleep(LOOK).await;
        }
    }

    /// One question; gives what to write down, and the position to go on from.
    async fn read(&mut self, from: usize, position: &str) -> Result<(Value, String)> {
        let asked_at = now();
        let tag = self.tags[from].clone();
        let headers =
            [("if-none-match", tag.as_str()), ("map-position", position), ("accept", "application/json")];
        let answer = self.peers[from].ask(get("/v1/mapping", &headers)?).await?;
        let at = now();
        // asked after the answer has arrived: the map cannot show anything newer
        let newest = etcd::revision(&mut self.etcd).await?;
        let status = answer.status.as_u16();
        let told = answer.header("map-position").to_owned();
        let mut line = json!({"at": at, "asked_at": asked_at, "reader": self.name, "from": from, "status": status,
            "position": told, "newest": newest});
        if !position.is_empty() {
            line["asked"] = json!(position);
        }
        match status {
            200 => {
                answer.header("etag").clone_into(&mut self.tags[from]);
                let document = serde_json::from_slice(&answer.body).context("the document")?;
                self.entries[from] = self.numbered(&document);
            }
            304 => {}
            _ => return Ok((line, String::new())),
        }
        line["entries"] = json!(self.entries[from]);
        Ok((line, told))
    }

    /// Numbers of a document's entries; new ones are written down once.
    fn numbered(&mut self, document: &Value) -> Vec<usize> {
        let mut numbers = Vec::new();
        for cluster in document["clusters"].as_array().into_iter().flatten() {
            for entry in cluster["entries"].as_array().into_iter().flatten() {
                let of =
                    json!({"namespace": cluster["namespace"], "cluster": cluster["name"], "entry": entry});
                let next = self.known.len();
                let number = *self.known.entry(of.to_string()).or_insert(next);
                if number == next {
                    let line = json!({"reader": self.name, "number": number, "of": of});
                    let _ = self.to.send(Line::Document(line));
                }
                numbers.push(number);
            }
        }
        numbers
    }
}

fn write(out: &Path, mut lines: UnboundedReceiver<Line>) -> Result<()> {
    let file = |name: &str| {
        let path = out.join(name);
        File::create(&path).map(BufWriter::new).map_err(|e| anyhow!("{}: {e}", path.display()))
    };
    let (mut history, mut documents) = (file("history.jsonl")?, file("documents.jsonl")?);
    while let Some(line) = lines.blocking_recv() {
        match line {
            Line::History(line) => writeln!(history, "{line}")?,
            Line::Document(line) => writeln!(documents, "{line}")?,
        }
    }
    history.flush()?;
    documents.flush()?;
    Ok(())
}
