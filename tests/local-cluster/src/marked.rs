//! The cluster's processes, found by a mark in their environment.
//!
//! The mark is there from a process's first instruction, so nothing depends on a file that a killed `up` may not have
//! written, and a process number that was given to somebody else does not carry it.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
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
    /// When it started, in clock ticks since the machine's start: with the number it names one process for ever.
    started: u64,
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
    let started = started(pid)?;
    let environ = environment(pid)?;
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
    Some(Marked { pid, component, exe, inner_pid, started })
}

/// What the process was started with. For a moment at its start a program has none that could be read, although its
/// parent has already been told that it runs: a young process with an empty environment is asked again.
fn environment(pid: i32) -> Option<Vec<u8>> {
    /// The moment takes microseconds, or as long as a slow disk needs for the program or a loaded machine does not
    /// schedule it.
    const YOUNG: Duration = Duration::from_secs(10);
    loop {
        let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
        // Kernel threads and processes that have ended run no program.
        let settled = !environ.is_empty() || fs::read_link(format!("/proc/{pid}/exe")).is_err();
        if settled || age(pid).is_none_or(|age| age > YOUNG) {
            return Some(environ);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// When the process started. The directory's time is of no use: it is when somebody first looked.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything; the start is the 22nd.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// How long the process exists.
fn age(pid: i32) -> Option<Duration> {
    /// `sysconf(_SC_CLK_TCK)`: 100 wherever Linux runs, it is part of the interface.
    const TICKS: u64 = 100;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime = uptime.split('.').next()?.parse().ok().map(Duration::from_secs)?;
    Some(uptime.saturating_sub(Duration::from_secs(started(pid)? / TICKS)))
}

/// A process that got a signal: keeps meaning it, whoever gets its number next.
pub(crate) struct Signalled {
    pid: i32,
    handle: OwnedFd,
}

impl Signalled {
    /// Waits until the process has ended, its sockets and namespaces included: its environment is gone before them.
    /// Whether it has ended in time.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let limit = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() };
        let mut waiting = [PollFd::new(&self.handle, PollFlags::IN)];
        let ended = poll(&mut waiting, Some(&limit)).is_ok_and(|ready| ready > 0);
        reap(self.pid);
        ended
    }

    /// Sends one more.
    pub(crate) fn send(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.handle, signal);
    }
}

/// Sends `signal` to a process; `None` where it is gone. One that is just ending is there until it has ended.
pub(crate) fn signal(process: &Marked, signal: Signal) -> Option<Signalled> {
    let handle = pidfd_open(Pid::from_raw(process.pid)?, PidfdFlags::empty()).ok()?;
    // Compared now that the handle cannot come to mean another process.
    if started(process.pid)? != process.started {
        return None;
    }
    let signalled = Signalled { pid: process.pid, handle };
    signalled.send(signal);
    Some(signalled)
}

/// Kills every process of the cluster in `dir` and returns when none is left.
pub(crate) fn end_all(dir: &Path) -> Result<()> {
    let begun = Instant::now();
    loop {
        let left = find(dir);
        if left.is_empty() {
            return Ok(());
        }
        let killed: Vec<Signalled> =
            left.iter().filter_map(|process| signal(process, Signal::KILL)).collect();
        for process in killed {
            if !process.wait(END_LIMIT.saturating_sub(begun.elapsed())) {
                bail!("process {} does not end after SIGKILL; all of them: {left:?}", process.pid);
            }
        }
    }
}

/// Where the process was a child of this one, takes its exit status, so that no zombie stays. Anything else is an
/// error that means nothing here.
fn reap(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_that_has_no_environment_yet_is_found_once_it_has() {
        let dir = PathBuf::from(format!("/slow-to-start-{}", std::process::id()));
        // the shell has none, and becomes a program that has one: nothing comes between
        let marks = format!("{DIR_MARK}={} {COMPONENT_MARK}=slow", dir.display());
        let mut child = Command::new("sh")
            .args(["-c", &format!("sleep 1; export {marks}; exec sleep 30")])
            .env_clear()
            .spawn()
            .unwrap();
        let found = find(&dir);
        end_all(&dir).unwrap();
        let _ = child.wait(); // whoever ended it may have taken its status
        assert_eq!(found.iter().map(|p| p.component.as_str()).collect::<Vec<_>>(), ["slow"]);
    }
}
