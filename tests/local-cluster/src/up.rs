//! Starts a cluster: tools, keys, programs, in the order they need each other.

use std::fmt::Write as _;
use std::io::PipeWriter;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cluster::output;
use crate::component::Component;
use crate::launch::{self, require_alive};
use crate::options::{Level, Lifetime, Options};
use crate::progress::Progress;
use crate::site::{LB_RANGE, LB_RANGE_V6, Site};
use crate::tools::{Maker, Tools};
use crate::{down, guard, marked, node, pki};

/// Starting takes 6 to 10 s alone on two cores, five times that beside a compiler.
const STEP_LIMIT: Duration = Duration::from_secs(120);

/// What MetalLB's controller watches.
const METALLB_TYPES: &str =
    "addresspools,bfdprofiles,bgpadvertisements,bgppeers,communities,ipaddresspools,l2advertisements";

/// The started cluster and, for [`Lifetime::ThisProcess`], what keeps it running.
pub(crate) fn up(options: &Options, progress: &Progress) -> Result<(Site, Option<PipeWriter>)> {
    let dir = options.resolved_dir()?;
    // Before the lock: a first build takes minutes, and `down` need not wait for it.
    let tools = Tools::ensure(options.level, &Maker { owner: Some(&dir), progress })?;
    let _lock = down::lock(&dir)?;
    down::clear(&dir).context("what an earlier cluster left could not be cleared")?;
    let site = Site::plan(options, tools)?;
    site.write()?;
    let guard = match options.lifetime {
        Lifetime::ThisProcess => Some(guard::watch(&site.dir)?),
        Lifetime::UntilDown => None,
    };
    progress.say(&format!("{} level, in {}", site.level, site.dir.display()));
    match start(&site, progress) {
        Ok(()) => Ok((site, guard)),
        Err(error) => {
            // The logs stay for whoever looks into it; `down` or the next `up` removes them.
            marked::end_all(&site.dir)?;
            node::remove_cgroups(&site.cgroup())?;
            Err(error
                .context(format!("the cluster did not start; its logs are in {}/logs", site.dir.display())))
        }
    }
}

fn start(site: &Site, progress: &Progress) -> Result<()> {
    pki::write(site)?;
    std::fs::write(site.config("audit-policy.yaml"), include_str!("../config/audit-policy.yaml"))?;
    if site.level == Level::Node {
        node::prepare(site, progress)?;
    }
    progress.say("keys and configuration written");

    let mut running = Vec::new();
    let mut run = |components: &[Component]| {
        for component in components.iter().filter(|component| component.runs_at(site.level)) {
            launch::start(site, *component)?;
            running.push(*component);
        }
        anyhow::Ok(running.clone())
    };
    let first = run(&[Component::Etcd, Component::Containerd, Component::ApiServer, Component::Gateway])?;
    if site.level == Level::Node {
        node::import_images(site, progress)?;
    }
    let ask = |what: &str, components: &[Component], args: &[&str]| {
        let mut refused = String::new();
        let waited = progress.wait(what, STEP_LIMIT, || {
            require_alive(site, components)?;
            let answer = kubectl(site, args);
            refused = answer.as_ref().err().map(|error| format!("{error:#}")).unwrap_or_default();
            Ok(answer.is_ok())
        });
        waited.with_context(|| format!("the last answer: {refused}"))
    };
    ask("API server ready", &first, &["get", "--raw", "/readyz"])?;

    let second = run(&[
        Component::ControllerManager,
        Component::Scheduler,
        Component::Kwok,
        Component::Kubelet,
        Component::KubeProxy,
    ])?;
    // Server-side applies, which may be repeated: on a starved machine a request can take longer than it is given.
    let first_objects = site.config("first-objects.yaml");
    std::fs::write(&first_objects, namespace_and_nodes(site))?;
    ask("first objects", &second, &["apply", "--server-side", "--validate=false", "-f", &first_objects])?;
    let types = site.tools.bin.join("metallb-crds").display().to_string();
    ask("load balancer's types", &second, &["apply", "--server-side", "--validate=false", "-f", &types])?;
    ask("nodes ready", &second, &["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=1s"])?;
    let published = ["get", "serviceaccount/default", "configmap/kube-root-ca.crt", "service/kubernetes"];
    ask("default account and CA published", &second, &published)?;
    // Server-side, which is a PATCH: the API server holds the first POST of a new type back for 2 s.
    let pool = site.config("pool.yaml");
    std::fs::write(&pool, pool_of_addresses(site.level))?;
    let make_pool = ["apply", "--server-side", "--validate=false", "-f", &pool];
    ask("load balancer has its addresses", &second, &make_pool)?;
    // It ends at its start where a single one of its types is not served yet.
    ask("load balancer's types served", &second, &["get", METALLB_TYPES, "--all-namespaces"])?;
    let all = run(&[Component::MetalLb])?;
    if site.level == Level::Node {
        node::wait_for_proxy(site, progress, STEP_LIMIT)?;
    }
    require_alive(site, &all)
}

fn kubectl(site: &Site, args: &[&str]) -> Result<String> {
    output(&mut kubectl_command(site, args), None)
}

fn kubectl_command(site: &Site, args: &[&str]) -> Command {
    let mut command = Command::new(site.tools.bin.join("kubectl"));
    launch::mark(&mut command, &site.dir)
        .env("KUBECONFIG", site.kubeconfig())
        .env("HOME", site.dir.join("home"))
        .args(args)
        .arg("--request-timeout=5s")
        .stdin(Stdio::null());
    command
}

/// Before the controllers have made anything: MetalLB's namespace and, where nodes are pretended, the nodes.
fn namespace_and_nodes(site: &Site) -> String {
    let mut yaml = "{apiVersion: v1, kind: Namespace, metadata: {name: metallb-system}}\n".to_owned();
    if site.level == Level::ControlPlane {
        // Two, so that a node can be drained.
        for n in 0..2 {
            let _ = writeln!(
                yaml,
                "---\n{{apiVersion: v1, kind: Node, metadata: {{name: {0}-{n}, labels: \
                 {{kubernetes.io/hostname: {0}-{n}, kubernetes.io/os: linux}}}}}}",
                site.name
            );
        }
    }
    yaml
}

fn pool_of_addresses(level: Level) -> String {
    let v6 = match level {
        Level::ControlPlane => format!(", \"{}-{}\"", LB_RANGE_V6.0, LB_RANGE_V6.1),
        Level::Node => String::new(),
    };
    format!(
        "{{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {{name: local-cluster, namespace: \
         metallb-system}}, spec: {{addresses: [\"{}-{}\"{v6}]}}}}\n",
        LB_RANGE.0, LB_RANGE.1
    )
}
