//! A running cluster and what a test does with it.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::Signal;

use crate::audit::{self, AuditEvent};
use crate::component::Component;
use crate::door::Door;
use crate::marked::Marked;
use crate::options::{Level, Options, absolute};
use crate::progress::Progress;
use crate::site::{self, Site};
use crate::tools::{Maker, on_path};
use crate::{down, go, launch, marked, node, pki, up};

/// A cluster: one that this crate started, or the user's own.
///
/// One that [`Cluster::up`] started stops when the value is dropped, also by a panic; with
/// [`Lifetime::ThisProcess`](crate::Lifetime::ThisProcess) also when the process is killed. One that was attached to
/// goes on.
#[derive(Debug)]
pub struct Cluster {
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    /// `None` for the user's own.
    site: Option<Site>,
    stop_on_drop: bool,
    /// Ends the guard's wait when this process ends. Held, never written.
    guard: Option<std::io::PipeWriter>,
}

impl Cluster {
    /// Starts a cluster and waits until it serves. What an earlier one left in the same directory is cleared first.
    pub fn up(options: &Options) -> Result<Self> {
        let (site, guard) = up::up(options, &Progress::new())?;
        let mut cluster = Self::of(site);
        cluster.stop_on_drop = true;
        cluster.guard = guard;
        Ok(cluster)
    }

    /// A cluster that runs already, by its directory.
    pub fn attach(dir: &Path) -> Result<Self> {
        Ok(Self::of(Site::read(&absolute(dir)?)?))
    }

    /// The cluster that the user names: by `KUBECONFIG`, or by `CLUSTER=current` the one kubectl would use. `None`
    /// where neither is set: then start one. A kubeconfig of ours (`make cluster-up` prints it) attaches fully.
    pub fn current() -> Result<Option<Self>> {
        let named = std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
        let kubeconfig = match (named, std::env::var("CLUSTER").as_deref()) {
            (Some(path), _) => path,
            (None, Ok("current")) => {
                home().context("CLUSTER=current, but HOME is not set: set KUBECONFIG")?
            }
            (None, Ok("") | Err(_)) => return Ok(None),
            (None, Ok(other)) => bail!("CLUSTER={other}: only 'current' has a meaning, or set KUBECONFIG"),
        };
        ensure!(kubeconfig.exists(), "KUBECONFIG names {}, which is not there", kubeconfig.display());
        if let Some(site) = kubeconfig.parent().and_then(|dir| Site::read(&absolute(dir).ok()?).ok()) {
            return Ok(Some(Self::of(site)));
        }
        let kubectl = if on_path("kubectl") {
            PathBuf::from("kubectl")
        } else {
            go::kubectl(&Maker { owner: None, progress: &Progress::new() })?
        };
        Ok(Some(Self { kubeconfig, kubectl, site: None, stop_on_drop: false, guard: None }))
    }

    /// What a test runs on: [`Cluster::current`], else a new one that ends with this process.
    pub fn for_tests(name: &str, level: Level) -> Result<Self> {
        match Self::current()? {
            Some(cluster) => Ok(cluster),
            None => Self::up(&Options::for_tests(name, level)),
        }
    }

    /// The one cluster of this test process and level, started by the first test that asks: [`Cluster::for_tests`]
    /// under the test binary's name. Tests that run on it side by side take a namespace each.
    pub fn shared(level: Level) -> Result<&'static Self> {
        static SHARED: [OnceLock<Result<Cluster, String>>; 2] = [OnceLock::new(), OnceLock::new()];
        let place = &SHARED[usize::from(level == Level::Node)];
        // Never dropped: the guard stops it when the process ends.
        place
            .get_or_init(|| Self::for_tests(&binary_name(), level).map_err(|error| format!("{error:#}")))
            .as_ref()
            .map_err(|error| anyhow!("{error}"))
    }

    fn of(site: Site) -> Self {
        Self {
            kubeconfig: site.kubeconfig(),
            kubectl: site.tools.bin.join("kubectl"),
            site: Some(site),
            stop_on_drop: false,
            guard: None,
        }
    }

    /// Stops it and removes everything it left. An error for the user's own cluster.
    pub fn down(mut self) -> Result<()> {
        self.stop_on_drop = false;
        down::down(&self.site()?.dir)
    }

    /// Lets it run on after the value is dropped: until `down`, or until this process ends where that was asked for.
    pub fn keep(&mut self) {
        self.stop_on_drop = false;
    }

    fn site(&self) -> Result<&Site> {
        self.site
            .as_ref()
            .context("this needs a cluster of ours: KUBECONFIG or CLUSTER names another one, unset them")
    }

    fn node(&self) -> Result<&Site> {
        let site = self.site()?;
        ensure!(site.level == Level::Node, "this needs the node level: start the cluster with LEVEL=node");
        Ok(site)
    }

    /// Whether it was started by this crate, so that its programs can be stopped and its audit log read.
    pub fn is_ours(&self) -> bool {
        self.site.is_some()
    }

    /// Its level; `None` for the user's own cluster (where pods do run).
    pub fn level(&self) -> Option<Level> {
        self.site.as_ref().map(|site| site.level)
    }

    /// Whether pods really run, so that an address can be connected to.
    pub fn runs_pods(&self) -> bool {
        self.level() != Some(Level::ControlPlane)
    }

    /// Its directory: `logs/`, `audit.log`, `kubeconfig`.
    pub fn dir(&self) -> Result<&Path> {
        Ok(&self.site()?.dir)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A kubeconfig for any user name, with a client certificate signed now. At most two groups. A name of the form
    /// `system:serviceaccount:NAMESPACE:NAME` is that account to RBAC.
    pub fn user_kubeconfig(&self, user: &str, groups: &[&str]) -> Result<PathBuf> {
        pki::user_kubeconfig(self.site()?, user, groups)
    }

    /// kubectl with the administrator's kubeconfig, for whoever wants the process itself.
    pub fn kubectl_command<A: AsRef<std::ffi::OsStr>>(&self, args: &[A]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.env("KUBECONFIG", &self.kubeconfig).args(args);
        if let Some(site) = &self.site {
            launch::mark(&mut command, &site.dir).env("HOME", site.dir.join("home"));
        }
        command
    }

    /// Runs kubectl; its standard output, or an error with its standard error.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        output(self.kubectl_command(args).stdin(Stdio::null()), None)
    }

    /// As [`Cluster::kubectl`] with a standard input: `kubectl_with(&["apply", "-f", "-"], yaml)`.
    pub fn kubectl_with(&self, args: &[&str], stdin: &str) -> Result<String> {
        output(self.kubectl_command(args).stdin(Stdio::piped()), Some(stdin))
    }

    /// Applies YAML documents.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        self.kubectl_with(&["apply", "-f", "-"], yaml)
    }

    /// The requests finished so far, oldest first. What is logged and what not: `config/audit-policy.yaml`.
    ///
    /// A request's line is written as its answer leaves: wait for the events you expect before you count.
    pub fn audit_events(&self) -> Result<Vec<AuditEvent>> {
        Ok(self.audit_events_since(0)?.0)
    }

    /// The end of the audit log, for [`Cluster::audit_events_since`].
    pub fn audit_position(&self) -> Result<u64> {
        audit::end(&self.site()?.audit_log())
    }

    /// The requests finished since a position, and the position after them.
    pub fn audit_events_since(&self, position: u64) -> Result<(Vec<AuditEvent>, u64)> {
        audit::read(&self.site()?.audit_log(), position)
    }

    /// Starts a component that was stopped; returns at once, see [`Cluster::wait_ready`].
    pub fn start(&self, component: Component) -> Result<()> {
        launch::start(self.site()?, component)
    }

    /// Ends a component (SIGTERM, after 10 s SIGKILL); returns when it is gone.
    pub fn stop(&self, component: Component) -> Result<()> {
        launch::stop(self.site()?, component, Signal::TERM)
    }

    /// Kills a component; returns when it is gone.
    pub fn kill(&self, component: Component) -> Result<()> {
        launch::stop(self.site()?, component, Signal::KILL)
    }

    /// Freezes a component: its connections stay open and silent.
    pub fn pause(&self, component: Component) -> Result<()> {
        launch::signal(self.site()?, component, Signal::STOP).map(drop)
    }

    /// Lets a frozen component go on.
    pub fn resume(&self, component: Component) -> Result<()> {
        launch::signal(self.site()?, component, Signal::CONT).map(drop)
    }

    /// Waits until the API server says it is ready.
    pub fn wait_ready(&self, limit: Duration) -> Result<()> {
        Progress::new().wait("API server ready", limit, || {
            Ok(self.kubectl(&["get", "--raw", "/readyz", "--request-timeout=2s"]).is_ok())
        })
    }

    /// The cluster's processes.
    pub fn processes(&self) -> Result<Vec<Marked>> {
        Ok(marked::find(&self.site()?.dir))
    }

    /// What a component has written so far.
    pub fn log(&self, component: Component) -> Result<String> {
        let bytes = fs::read(self.site()?.log(component.as_str()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Where etcd answers, for those who read the history or compact it. At the node level: inside the node.
    pub fn etcd_address(&self) -> Result<SocketAddr> {
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, self.site()?.ports.etcd)))
    }

    /// etcd's data directory. To go back in time: stop the API server and etcd, copy it, start both; later stop both,
    /// put the copy in its place, start both.
    pub fn etcd_data(&self) -> Result<PathBuf> {
        Ok(self.site()?.etcd_data())
    }

    /// Gives an image archive (see [`crate::image`]) to the node. Nothing happens at the control plane level: no pod
    /// needs its image there.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        let site = self
            .site()
            .context("load the image with your cluster's own means (kind load image-archive, ...)")?;
        if site.level == Level::Node { node::load_image(site, archive) } else { Ok(()) }
    }

    /// A command inside the node: its network, its mounts, its processes.
    pub fn in_node(&self, program: &str) -> Result<Command> {
        node::in_node(self.node()?, program)
    }

    /// A command outside the cluster, beyond the load balancer: it reaches external addresses and the node, and has no
    /// route to pods or `ClusterIP`s. Files are the machine's.
    pub fn in_client(&self, program: &str) -> Result<Command> {
        node::in_client(self.node()?, program)
    }

    /// A port of this machine's loopback that leads to `address` as the client outside would reach it: for tests that
    /// bring their own client.
    pub fn door_outside(&self, address: SocketAddr) -> Result<Door> {
        Door::open(self.in_client(&self.member()?.display().to_string())?, address)
    }

    /// First and last address the load balancer gives away; `None` for the user's own cluster.
    pub fn lb_range(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        self.site.as_ref().map(|_| site::LB_RANGE)
    }

    /// The static test program (`serve`, `get`, ...; see `member/main.rs`), to run with [`Cluster::in_client`].
    pub fn member(&self) -> Result<&Path> {
        Ok(&self.node()?.tools.member)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let (true, Some(site)) = (self.stop_on_drop, &self.site)
            && let Err(error) = down::down(&site.dir)
        {
            eprintln!("the cluster in {} did not stop: {error:#}", site.dir.display());
        }
    }
}

/// The test binary's name without the hash that cargo appends, shortened to leave room for the process id.
fn binary_name() -> String {
    let exe = std::env::current_exe().unwrap_or_default();
    let stem = exe.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = stem.rsplit_once('-').map_or(stem.as_str(), |(name, _)| name);
    let fits = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = name.chars().map(fits).take(24).collect();
    format!("test-{}", name.trim_matches('-'))
}

/// A command as one would type it: program and arguments, not the environment.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Runs a command to its end.
pub(crate) fn output(command: &mut Command, stdin: Option<&str>) -> Result<String> {
    let shown = shown(command);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {shown}"))?;
    let text = stdin.map(str::to_owned);
    let pipe = child.stdin.take();
    // In a thread of its own: a program that answers before it has read everything must not stop both.
    let writer = std::thread::spawn(move || {
        if let (Some(mut pipe), Some(text)) = (pipe, text) {
            let _ = pipe.write_all(text.as_bytes());
        }
    });
    let out = child.wait_with_output()?;
    let _ = writer.join();
    if !out.status.success() {
        bail!("{shown} failed ({}): {}", out.status, String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
