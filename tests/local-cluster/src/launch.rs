//! Starts, stops and watches the programs of a cluster.

use std::fs::{self, OpenOptions};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::component::{Component, call};
use crate::marked::{self, COMPONENT_MARK, DIR_MARK, Marked, Signalled};
use crate::node;
use crate::options::Level;
use crate::site::Site;

/// After SIGTERM. The API server waits for its watches to end, etcd hands over to nobody: neither needs long here.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Marks a command as one of the cluster's processes and cuts it off from the caller's environment and terminal:
/// proxies, tracing and locale settings of the user must not change what is tested.
pub(crate) fn marked_command(dir: &Path, component: &str, program: &Path) -> Result<Command> {
    let log = dir.join("logs").join(format!("{component}.log"));
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new(program);
    command
        .env_clear()
        .env(DIR_MARK, dir)
        .env(COMPONENT_MARK, component)
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", dir.join("home"))
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C in the terminal is for the command that runs there.
        .process_group(0);
    Ok(command)
}

/// The mark of commands that run for a moment: they must not outlive the cluster either.
const COMMAND: &str = "command";

/// Makes a command one of the cluster's processes, and leaves the rest of it as it is.
pub(crate) fn mark<'a>(command: &'a mut Command, dir: &Path) -> &'a mut Command {
    command.env(DIR_MARK, dir).env(COMPONENT_MARK, COMMAND)
}

/// Starts a component; returns at once.
pub(crate) fn start(site: &Site, component: Component) -> Result<()> {
    ensure!(component.runs_at(site.level), "there is no {component} at the {} level", site.level);
    ensure!(find(site, component).is_none(), "{component} runs already");
    let call = call(site, component);
    let mut command = match site.level {
        Level::ControlPlane => marked_command(&site.dir, component.as_str(), &call.program)?,
        Level::Node => node::entering(site, component, &call.program)?,
    };
    command.args(&call.args).envs(call.env);
    if component == Component::Gateway {
        // The listener belongs to the machine's network, the process that accepts on it to the node's.
        let listener = TcpListener::bind(("127.0.0.1", site.ports.outer_api))?;
        command.stdin(OwnedFd::from(listener));
    }
    command.spawn().with_context(|| format!("cannot start {component}: {}", call.program.display()))?;
    Ok(())
}

/// The component's own process: not what only inherited its mark (nsenter before it, container shims below it).
pub(crate) fn find(site: &Site, component: Component) -> Option<Marked> {
    let program = call(site, component).program;
    marked::find(&site.dir)
        .into_iter()
        .find(|process| process.component == component.as_str() && runs(process, &program))
}

fn runs(process: &Marked, program: &Path) -> bool {
    // The kernel appends " (deleted)" where the file was replaced since.
    let exe = process.exe.to_string_lossy();
    Path::new(exe.trim_end_matches(" (deleted)")) == program
}

/// Sends a signal to the component's own process.
pub(crate) fn signal(site: &Site, component: Component, signal: Signal) -> Result<Signalled> {
    find(site, component)
        .and_then(|process| marked::signal(&process, signal))
        .with_context(|| format!("{component} does not run"))
}

/// Ends a component and returns when it is gone.
pub(crate) fn stop(site: &Site, component: Component, first: Signal) -> Result<()> {
    let process = signal(site, component, first)?;
    // A frozen process takes no SIGTERM.
    process.send(Signal::CONT);
    if !process.wait(STOP_LIMIT) {
        process.send(Signal::KILL);
        ensure!(process.wait(STOP_LIMIT), "{component} does not end");
    }
    // nsenter above it ends with it, a moment later: the next start must not find its mark.
    let same = |other: &&Marked| other.component == component.as_str();
    for other in marked::find(&site.dir).iter().filter(same) {
        if other.exe.file_name().is_some_and(|name| name == "nsenter") {
            marked::signal(other, Signal::KILL);
        }
    }
    Ok(())
}

/// The last lines a component has written.
pub(crate) fn last_words(site: &Site, component: &str) -> String {
    let text = fs::read(site.log(component)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n    ")
}

/// An error that names the first of `components` that has ended.
pub(crate) fn require_alive(site: &Site, components: &[Component]) -> Result<()> {
    let running = marked::find(&site.dir);
    for component in components {
        if !running.iter().any(|process| process.component == component.as_str()) {
            bail!(
                "{component} has ended; its log {} ends with:\n    {}",
                site.log(component.as_str()).display(),
                last_words(site, component.as_str())
            );
        }
    }
    Ok(())
}
