//! The command line: what can be done, with which defaults.

#![allow(clippy::doc_markdown)] // these comments are the help texts, shown as they are

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::resolve::NameServer;

/// Gives every pod of a clustered data store its own external address, and publishes the map.
///
/// Label a namespace `external-ip.dev/enabled=true` and a workload's pods `external-ip.dev/cluster=NAME`: each pod gets
/// a LoadBalancer Service of its own, and clients outside read which internal address is which external one from
/// https://THIS-SERVICE:8888/v1/mapping (or `/`, in the format of external-ip-proxy).
#[derive(Debug, Parser)]
#[command(name = "external-ip-controller", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How log lines are written to standard error. Which ones: RUST_LOG, for example `debug` or `info,kube=debug`.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "LOG_FORMAT")]
    pub log_format: LogFormat,
}

/// What the program is called as kubectl's plugin: `kubectl external-ip`.
const PLUGIN: &str = "kubectl-external_ip";

impl Cli {
    /// The process's arguments. Ends the process where they ask for help or cannot be read.
    pub fn from_process() -> Self {
        let arguments: Vec<_> = std::env::args_os().collect();
        let program = arguments.first().map(PathBuf::from).unwrap_or_default();
        let matches = command(&program).get_matches_from(arguments);
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// The command line of a program of this name. kubectl's plugin does not offer what only runs in a cluster.
fn command(program: &std::path::Path) -> clap::Command {
    let whole = Cli::command();
    if program.file_stem().is_none_or(|name| name != PLUGIN) {
        return whole;
    }
    let plugin = whole.name("kubectl external-ip").bin_name("kubectl external-ip");
    ["run", "cleanup"].into_iter().fold(plugin, |plugin, name| plugin.mut_subcommand(name, |c| c.hide(true)))
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run webhook, controller and mapping server. Talks to the cluster of KUBECONFIG, or of the pod it runs in.
    Run(Run),
    /// Say what a configuration file would put in force, or what is wrong with it. Needs no cluster.
    Check(Check),
    /// Delete everything this installation made: the first step of uninstalling it.
    ///
    /// Deletes Services and ConfigMaps that carry the installation's label and owner annotation. Their addresses go
    /// back to the load balancer. Stop the controller first (`kubectl -n external-ip-controller scale
    /// deployment/external-ip-controller --replicas=0`), or it makes them again.
    Cleanup(Cleanup),
    /// Say why a pod has its external address or not: state, reason, remedy, since when, and what has to happen next.
    ///
    /// Reads the API server with your own rights (pods, Services and EndpointSlices, in the pod's namespace at least) and
    /// decides as the controller does, so it needs no running controller. Pods that take no part are told why, too.
    Explain(Explain),
    /// Show which internal address is which external one, with the reason where there is none.
    Map(Map),
    /// Say what workloads would cost before they are there: load balancers, addresses, node ports, and limits in the way.
    ///
    /// Counts what a rolling update needs on top. With --config it needs no cluster; else the installation's
    /// configuration is read, and what other clusters use counts for the limits.
    Plan(Plan),
    /// Have Services made anew that cannot become what their class says, the new address first.
    ///
    /// A load balancer class, an exposure or a pool that has changed concerns new Services only: changing one that is
    /// there would take its pod's address away. This asks the controller for new ones, one after the other: each pod
    /// keeps its address until the new one leads to it, and the former Service goes when reuseAfter of its class is
    /// over. Needs the right to change Services in the cluster's namespace.
    Recreate(Recreate),
    /// Show the classes that pods may ask for with the annotation external-ip.dev/class.
    Classes(Classes),
}

/// Whom to ask, as whom, and with which configuration.
#[derive(Debug, Args)]
pub struct Source {
    /// Namespace; that of the kubeconfig's context where it is not given.
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Context of the kubeconfig.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Configuration file to answer with, in place of the one the installation runs with.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Namespace of the controller, whose Deployment says where its configuration is.
    #[arg(long, value_name = "NAME", default_value = external_ip_core::names::CONTROLLER_NAME)]
    pub controller_namespace: String,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// The pod, as NAMESPACE/POD, or POD in the namespace of --namespace.
    #[arg(value_name = "NAMESPACE/POD")]
    pub pod: String,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    pub output: Form,
    /// Where from.
    #[command(flatten)]
    pub source: Source,
}

/// Arguments of `map`.
#[derive(Debug, Args)]
pub struct Map {
    /// Only this cluster; with -o json or yaml, exactly its document.
    pub cluster: Option<String>,
    /// All namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    pub output: Form,
    /// Where from.
    #[command(flatten)]
    pub source: Source,
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub struct Plan {
    /// Manifests as for kubectl apply -f: StatefulSets, Deployments, ReplicaSets, DaemonSets, Pods. None or -: standard
    /// input.
    #[arg(value_name = "FILE", conflicts_with = "workload")]
    pub files: Vec<PathBuf>,
    /// A workload that is there, as sts/NAME, deploy/NAME, ds/NAME, rs/NAME or pod/NAME in the namespace.
    #[arg(long, value_name = "KIND/NAME")]
    pub workload: Option<String>,
    /// On how many nodes a DaemonSet runs.
    #[arg(long, value_name = "NUMBER")]
    pub nodes: Option<u32>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    pub output: Form,
    /// Where from.
    #[command(flatten)]
    pub source: Source,
}

/// Arguments of `recreate`.
#[derive(Debug, Args)]
pub struct Recreate {
    /// The cluster, as NAMESPACE/CLUSTER, or CLUSTER in the namespace of --namespace.
    #[arg(value_name = "NAMESPACE/CLUSTER")]
    pub cluster: String,
    /// Services that are as their class says, too.
    #[arg(long)]
    pub all: bool,
    /// Only say which.
    #[arg(long)]
    pub dry_run: bool,
    /// How many at a time; each needs one more load balancer or node port while its pod moves.
    #[arg(long, value_name = "NUMBER", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub at_once: u16,
    /// How long to wait for the next address, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "600")]
    pub timeout: u64,
    /// Where from.
    #[command(flatten)]
    pub source: Source,
}

/// Arguments of `classes`.
#[derive(Debug, Args)]
pub struct Classes {
    /// Form of the answer; json and yaml are the whole configuration in force.
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    pub output: Form,
    /// Where from.
    #[command(flatten)]
    pub source: Source,
}

/// Form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// For both.
    Yaml,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Configuration file; `check FILE` explains it.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/external-ip-controller/config.yaml",
        env = "CONFIG"
    )]
    pub config: PathBuf,
    /// What this process does. `controller` answers admission and, holding the Lease, writes; `mapping` serves the map
    /// and never writes. Apart, the controller hands the servers their certificate in a Secret.
    #[arg(long, value_name = "ROLE", value_enum, value_delimiter = ',', env = "ROLES",
        default_values_t = [Role::Controller, Role::Mapping])]
    pub roles: Vec<Role>,
    /// Where a process with the role `mapping` alone finds tls.crt and tls.key, unless the configuration names files.
    #[arg(long, value_name = "DIRECTORY", default_value = "/tls/mapping", env = "MAPPING_TLS")]
    pub mapping_tls: PathBuf,
    /// Where the mapping is served, by TLS.
    #[arg(long, value_name = "ADDR", default_value = "[::]:8888")]
    pub listen_mapping: SocketAddr,
    /// Where the API server's admission reviews are answered, by TLS.
    #[arg(long, value_name = "ADDR", default_value = "[::]:8443")]
    pub listen_admission: SocketAddr,
    /// Where /livez, /readyz and /metrics are served, without TLS: keep it inside the cluster.
    #[arg(long, value_name = "ADDR", default_value = "[::]:8080")]
    pub listen_admin: SocketAddr,
    /// Namespace of the controller's own objects: Lease, CA Secret, ConfigMaps.
    #[arg(long, value_name = "NAME", default_value = external_ip_core::names::CONTROLLER_NAME, env = "POD_NAMESPACE")]
    pub namespace: String,
    /// A name server to ask for load balancers that are known by name, as ADDRESS or ADDRESS:PORT; may be repeated. Where none is
    /// given, those of /etc/resolv.conf.
    #[arg(long = "name-server", value_name = "ADDRESS", env = "NAME_SERVERS", value_delimiter = ',')]
    pub name_servers: Vec<NameServer>,
    /// This replica's name in the Lease; the host's name where it is not given.
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pub name: Option<String>,
    /// A further DNS name or IP address for the self-managed certificates; may be repeated. For a webhook registered
    /// by URL, or a mapping address no Service knows.
    #[arg(long = "san", value_name = "NAME-OR-IP")]
    pub sans: Vec<String>,
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Answers admission, stands for leadership, writes.
    Controller,
    /// Serves the map from its own watch.
    Mapping,
}

impl Run {
    /// Whether the process has this role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Configuration file, in this program's form or in external-ip-proxy's.
    pub file: PathBuf,
}

/// Arguments of `cleanup`.
#[derive(Debug, Args)]
pub struct Cleanup {
    /// Only in this namespace; everywhere where it is not given.
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Only say what would be deleted.
    #[arg(long)]
    pub dry_run: bool,
    /// The installation whose objects are meant: `installation` of its configuration.
    #[arg(long, value_name = "NAME", default_value = external_ip_core::names::CONTROLLER_NAME)]
    pub installation: String,
    /// Namespace of the controller's own objects.
    #[arg(long, value_name = "NAME", default_value = external_ip_core::names::CONTROLLER_NAME, env = "POD_NAMESPACE")]
    pub controller_namespace: String,
    /// Go on though a controller holds the Lease.
    #[arg(long)]
    pub force: bool,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_argument_is_declared_soundly() {
        Cli::command().debug_assert();
    }

    #[test]
    fn as_kubectls_plugin_it_is_called_so_and_offers_what_is_asked_at_a_terminal() {
        let plugin = command(std::path::Path::new("/usr/local/bin/kubectl-external_ip")).render_long_help();
        let plugin = plugin.to_string();
        assert!(plugin.contains("kubectl external-ip") && plugin.contains("\n  explain "), "{plugin}");
        assert!(!plugin.contains("\n  run ") && !plugin.contains("\n  cleanup "), "{plugin}");
        let own = command(std::path::Path::new("external-ip-controller")).render_long_help().to_string();
        assert!(own.contains("\n  run ") && own.contains("\n  explain "), "{own}");
    }

    #[test]
    fn pods_and_forms_are_read() {
        let read = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.command);
        let Ok(Command::Explain(args)) = read("x explain data/c-0 -o json --config f") else { panic!() };
        assert_eq!((args.pod.as_str(), args.output), ("data/c-0", Form::Json));
        let Ok(Command::Map(args)) = read("x map -n data c") else { panic!() };
        assert_eq!((args.cluster.as_deref(), args.source.namespace.as_deref()), (Some("c"), Some("data")));
        assert!(read("x explain").is_err() && read("x classes -o xml").is_err());
    }
}
