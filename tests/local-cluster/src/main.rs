//! The command line of the local cluster: `local-cluster --help`.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use local_cluster::dockerfile;
use local_cluster::image::{self, Image};
use local_cluster::{Cluster, Component, Level, Options};

/// A real Kubernetes on this machine, for the tests and the demo.
///
/// Two levels. `control-plane`: API server, controllers, scheduler, a load balancer that gives addresses, and kwok, which
/// pretends that nodes and pods run; any user, about 6 s. `node`: one whole node whose pods run, with a client outside
/// that reaches external addresses only; root on Linux, about 10 s.
///
/// The first `up` builds Kubernetes from its pinned Go modules, which takes ten minutes or more. Several clusters run
/// side by side under different names. `down` removes everything, also after a killed `up`.
#[derive(Parser)]
#[command(name = "local-cluster", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

/// Which cluster.
#[derive(Args, Clone)]
struct Which {
    /// Tells clusters apart
    #[arg(long, default_value = "local", global = true)]
    name: String,
    /// The cluster's directory [default: clusters/<name> in the cache directory]
    #[arg(long, global = true)]
    dir: Option<PathBuf>,
}

impl Which {
    fn options(&self, level: Level) -> Options {
        let mut options = Options::new(&self.name, level);
        options.dir.clone_from(&self.dir);
        options
    }

    fn dir(&self) -> Result<PathBuf> {
        self.options(Level::best()).resolved_dir()
    }

    fn cluster(&self) -> Result<Cluster> {
        Cluster::attach(&self.dir()?)
    }
}

#[derive(Subcommand)]
enum Action {
    /// Start a cluster and say how to reach it
    Up {
        #[command(flatten)]
        which: Which,
        /// control-plane or node [default: node for root on Linux, else control-plane]
        #[arg(long)]
        level: Option<Level>,
    },
    /// Stop a cluster and remove everything it left
    Down {
        #[command(flatten)]
        which: Which,
        /// Every cluster in the cache directory
        #[arg(long)]
        all: bool,
    },
    /// Build and fetch what a level needs, so that `up` starts at once
    Build {
        /// control-plane or node [default: node for root on Linux, else control-plane]
        #[arg(long)]
        level: Option<Level>,
    },
    /// Show the clusters of the cache directory and their processes
    List,
    /// Run kubectl as administrator: local-cluster kubectl -- get pods
    #[command(alias = "k")]
    Kubectl {
        #[command(flatten)]
        which: Which,
        /// Arguments of kubectl
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Run a command outside the cluster, beyond the load balancer (node level)
    Client {
        #[command(flatten)]
        which: Which,
        /// The program and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Run a command inside the node (node level)
    Node {
        #[command(flatten)]
        which: Which,
        /// The program and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Stop a component: kube-apiserver, etcd, metallb, ...
    Stop(Target),
    /// Start a stopped component again
    Start(Target),
    /// Freeze a component
    Pause(Target),
    /// Let a frozen component go on
    Resume(Target),
    /// Give an image archive to the node
    Load {
        #[command(flatten)]
        which: Which,
        /// As written by `local-cluster image`
        archive: PathBuf,
    },
    /// Print the path of a kubeconfig for any user name
    User {
        #[command(flatten)]
        which: Which,
        /// `alice`, or `system:serviceaccount:NAMESPACE:NAME`
        user: String,
        /// A group the user is in; at most two
        #[arg(long = "group")]
        groups: Vec<String>,
    },
    /// Pack a directory as a container image archive
    Image(Pack),
    /// Build the final stage of a Dockerfile as a container image archive, without Docker
    ImageFromDockerfile(FinalStage),
}

#[derive(Args)]
struct Target {
    #[command(flatten)]
    which: Which,
    /// The component
    component: Component,
}

#[derive(Args)]
struct Pack {
    /// The directory that becomes the image's root
    rootfs: PathBuf,
    /// registry/path:tag
    image: String,
    /// The archive to write
    out: PathBuf,
    /// A word of the entrypoint; repeat for more
    #[arg(long, allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// A default argument; repeat for more
    #[arg(long, allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// NAME=value; repeat for more
    #[arg(long)]
    env: Vec<String>,
    /// UID[:GID]
    #[arg(long, default_value = "")]
    user: String,
    /// Where the program starts
    #[arg(long, default_value = "")]
    workdir: String,
    /// key=value; repeat for more
    #[arg(long)]
    label: Vec<String>,
}

#[derive(Args)]
struct FinalStage {
    /// Its final stage starts from scratch and uses the instructions that are understood; others are an error
    dockerfile: PathBuf,
    /// STAGE=DIR: what an earlier stage would have left, as its root directory; repeat for more
    #[arg(long, value_parser = stage_dir)]
    stage_dir: Vec<(String, PathBuf)>,
    /// The archive to write
    #[arg(long)]
    out: PathBuf,
    /// registry/path:tag
    #[arg(long)]
    name: String,
}

fn stage_dir(text: &str) -> Result<(String, PathBuf), String> {
    let (stage, dir) = text.split_once('=').ok_or("write STAGE=DIR")?;
    if Path::new(dir).is_dir() {
        Ok((stage.to_owned(), dir.into()))
    } else {
        Err(format!("{dir} is no directory"))
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("local-cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(action: Action) -> Result<()> {
    match action {
        Action::Up { which, level } => up(&which, level.unwrap_or_else(Level::best)),
        Action::Down { which, all } => down(&which, all),
        Action::Build { level } => local_cluster::build(level.unwrap_or_else(Level::best)),
        Action::List => list(),
        Action::Kubectl { which, args } => become_program(which.cluster()?.kubectl_command(&args)),
        Action::Client { which, command } => inside(&which, &command, Cluster::in_client),
        Action::Node { which, command } => inside(&which, &command, Cluster::in_node),
        Action::Stop(target) => target.which.cluster()?.stop(target.component),
        Action::Start(target) => target.which.cluster()?.start(target.component),
        Action::Pause(target) => target.which.cluster()?.pause(target.component),
        Action::Resume(target) => target.which.cluster()?.resume(target.component),
        Action::Load { which, archive } => which.cluster()?.load_image(&archive),
        Action::User { which, user, groups } => {
            let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
            println!("{}", which.cluster()?.user_kubeconfig(&user, &groups)?.display());
            Ok(())
        }
        Action::Image(pack) => pack_image(pack),
        Action::ImageFromDockerfile(FinalStage { dockerfile, stage_dir, out, name }) => {
            println!("{}", dockerfile::build(&dockerfile, &stage_dir.into_iter().collect(), &name, &out)?);
            Ok(())
        }
    }
}

fn up(which: &Which, level: Level) -> Result<()> {
    let mut cluster = Cluster::up(&which.options(level))?;
    cluster.keep();
    let flag = match &which.dir {
        Some(dir) => format!("--dir {}", dir.display()),
        None => format!("--name {}", which.name),
    };
    let me = "cargo run -q -p local-cluster --";
    println!("\nThe cluster runs. To use it:\n");
    println!("  export KUBECONFIG={}", cluster.kubeconfig().display());
    println!("  {me} kubectl {flag} -- get nodes");
    if level == Level::Node {
        println!("  {me} client {flag} -- curl http://203.0.113.1:8080   # as a client outside");
    }
    let stop = if which.dir.is_some() {
        format!("{me} down {flag}")
    } else {
        format!("make cluster-down NAME={}", which.name)
    };
    println!("\nTo stop it:\n\n  {stop}");
    Ok(())
}

fn down(which: &Which, all: bool) -> Result<()> {
    let dirs = if all { local_cluster::all()? } else { vec![which.dir()?] };
    for dir in dirs {
        local_cluster::down(&dir)?;
        println!("stopped and removed: {}", dir.display());
    }
    Ok(())
}

fn list() -> Result<()> {
    for dir in local_cluster::all()? {
        println!("{}", dir.display());
        for process in local_cluster::marked_processes(&dir) {
            let program = process.exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
            println!("  {:8}  {:24} {program}", process.pid, process.component);
        }
    }
    Ok(())
}

fn inside(which: &Which, words: &[String], enter: fn(&Cluster, &str) -> Result<Command>) -> Result<()> {
    let (program, args) = words.split_first().context("no program given")?;
    let mut command = enter(&which.cluster()?, program)?;
    command.args(args);
    become_program(command)
}

/// Its exit status and its terminal are the caller's.
fn become_program(mut command: Command) -> Result<()> {
    let error = command.exec();
    Err(error).with_context(|| format!("cannot run {command:?}"))
}

fn pack_image(pack: Pack) -> Result<()> {
    let labels = pack.label.iter().map(|pair| {
        let (key, value) =
            pair.split_once('=').with_context(|| format!("--label {pair}: write key=value"))?;
        Ok((key.to_owned(), value.to_owned()))
    });
    let image = Image {
        name: pack.image,
        entrypoint: pack.entrypoint,
        cmd: pack.cmd,
        env: pack.env,
        user: pack.user,
        workdir: pack.workdir,
        exposed: Vec::new(),
        labels: labels.collect::<Result<_>>()?,
    };
    println!("{}", image::pack(&pack.rootfs, &image, &pack.out)?);
    Ok(())
}
