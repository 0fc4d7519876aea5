//! A server that is measured: a child process, what it costs, and its end.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Longest wait for a server to listen or to be ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// The kernel counts a process's time in these (`sysconf(_SC_CLK_TCK)`, 100 on Linux).
const TICK: Duration = Duration::from_millis(10);

/// Killed when dropped.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Self(started.with_context(|| format!("{command:?}"))?))
    }

    /// Processor time it has used, its own and the kernel's for it.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        cpu(self.0.id())
    }

    /// Memory it holds now, in kB.
    pub(crate) fn resident(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }

    /// Waits until `look` answers true.
    pub(crate) fn until(&mut self, what: &str, mut look: impl FnMut() -> bool) -> Result<()> {
        let begun = Instant::now();
        while !look() {
            if let Some(status) = self.0.try_wait()? {
                bail!("it ended ({status}) before {what}");
            }
            if begun.elapsed() > PATIENCE {
                bail!("waited {PATIENCE:?} for: {what}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Waits until something listens.
    pub(crate) fn listening(&mut self, at: SocketAddr) -> Result<()> {
        self.until("it listens", || TcpStream::connect(at).is_ok())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // it may have ended
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Processor time a process has used, its own and the kernel's for it.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // proc(5): behind the name in parentheses, `utime` and `stime` are the 12th and 13th field
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<u32>().ok()).context("no such field");
    Ok(TICK * (ticks(11)? + ticks(12)?))
}

/// An address of the loopback nobody listens at now.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok((Ipv4Addr::LOCALHOST, local_cluster::free_port()?).into())
}
