//! The product's own map server for tests of clients in other languages, without a Kubernetes: what it publishes is in a file.
//!
//! `map_server DIRECTORY` follows `DIRECTORY/map`, a line `INSIDE:PORT OUTSIDE:PORT` for each member, and writes `ca.crt`, `token`
//! and, once it serves, `url` beside it. The cluster is `data/store`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, unreachable_pub)] // a part of tests

#[path = "support/served.rs"]
mod served;

use std::path::{Path, PathBuf};
use std::time::Duration;

use served::{Member, Served, authority, one_token};

const TOKEN: &str = "reader";
/// Between two looks at the file.
const LOOK: Duration = Duration::from_millis(20);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let directory = PathBuf::from(std::env::args_os().nth(1).expect("usage: map_server DIRECTORY"));
    let authority = authority();
    write(&directory, "ca.crt", authority.bundle());
    write(&directory, "token", TOKEN);
    let served = Served::start(&authority, "127.0.0.1:0".parse().unwrap(), one_token::access(TOKEN));
    let (mut last, mut version) = (None, 0);
    loop {
        let members = read(&directory.join("map"));
        if members.is_some() && members != last {
            version += 1;
            served.publish(members.as_deref().unwrap_or_default(), version);
            last = members;
            write(&directory, "url", &served.url());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Appears as a whole.
fn write(directory: &Path, name: &str, text: &str) {
    let new = directory.join(format!(".{name}"));
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, directory.join(name)).unwrap();
}

/// `None` where there is no map yet.
fn read(path: &Path) -> Option<Vec<Member>> {
    let text = std::fs::read_to_string(path).ok()?;
    let member = |line: &str| {
        let (inside, outside) = line.split_once(' ').expect("INSIDE OUTSIDE");
        Member { inside: inside.parse().unwrap(), outside: outside.parse().unwrap() }
    };
    Some(text.lines().map(member).collect())
}
