//! The cluster's processes, found by a mark in their environment.
//!
//! The mark is there from a process's first instruction, so nothing depends on a file that a killed `up` may not have
//! written, and a process number that was given to somebody else does not carry it.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid};

/// Names the cluster's directory in the environment of each of its processes.
pub(crate) const DIR_MARK: &str = "LOCAL_CLUSTER_DIR";
/// Names the component in the environment of each of its processes.
pub(crate) const COMPONENT_MARK: &str = "LOCAL_CLUSTER_COMPONENT";

/// Far more than the kernel needs to end what was killed, even where a pod held gigabytes.
const END_LIMIT: Duration = Duration::from_secs(30);

/// A running process of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// Its number as the machine sees it.
    pub pid: i32,
    /// The component it was started for or inherited the mark of.
    pub component: String,
    /// The program file it runs.
    pub exe: PathBuf,
    /// Its number in the innermost process namespace it lives in: 1 for the node's first process.
    pub inner_pid: i32,
}

/// Every live process of the cluster in `dir`, this process excepted.
pub fn find(dir: &Path) -> Vec<Marked> {
    let me = std::process::id().cast_signed();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != me)
        .filter_map(|pid| read(pid, dir))
        .collect()
}

fn read(pid: i32, dir: &Path) -> Option<Marked> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let value = |name: &str| {
        environ.split(|b| *b == 0).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    };
    if value(DIR_MARK)? != dir.as_os_str().as_bytes() {
        return None;
    }
    let component = String::from_utf8_lossy(value(COMPONENT_MARK).unwrap_or_default()).into_owned();
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let inner_pid = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:")?.split_whitespace().last()?.parse().ok())
        .unwrap_or(pid);
    Some(Marked { pid, component, exe, inner_pid })
}

/// Sends `signal` to a process, unless it is no longer one of the cluster in `dir`.
pub(crate) fn signal(dir: &Path, process: &Marked, signal: Signal) {
    let Some(pid) = Pid::from_raw(process.pid) else { return };
    // The descriptor keeps meaning this process; only after that is it asked for its mark once more.
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    if read(process.pid, dir).is_some() {
        let _ = pidfd_send_signal(&handle, signal);
    }
}

/// Whether the process runs (one that has ended but not been waited for does not).
pub(crate) fn lives(dir: &Path, process: &Marked) -> bool {
    reap(process.pid);
    read(process.pid, dir).is_some()
}

/// Kills every process of the cluster in `dir` and returns when none is left.
pub(crate) fn end_all(dir: &Path) -> Result<()> {
    let begun = Instant::now();
    let mut killed = Vec::new();
    loop {
        let left = find(dir);
        if left.is_empty() {
            break;
        }
        if begun.elapsed() > END_LIMIT {
            bail!("these processes do not end after SIGKILL: {left:?}");
        }
        for process in &left {
            signal(dir, process, Signal::KILL);
            killed.push(process.pid);
        }
        std::thread::sleep(Duration::from_millis(10));
        killed.iter().copied().for_each(reap);
    }
    killed.into_iter().for_each(reap);
    Ok(())
}

/// Where the process was a child of this one, takes its exit status, so that no zombie stays. Anything else is an
/// error that means nothing here.
fn reap(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    }
}
