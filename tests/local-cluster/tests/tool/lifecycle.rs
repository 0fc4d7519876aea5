//! A cluster comes completely and goes completely, whatever happens in between.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use local_cluster::{Cluster, Level, Options, marked_processes};

use crate::traces::Seen;
use crate::{eventually, node_level, place, turn};

/// The command, free of what the caller's environment would change.
fn tool(args: &[&str], dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_local-cluster"));
    command.args(args).arg("--dir").arg(dir).env_remove("KUBECONFIG").env_remove("CLUSTER");
    command
}

fn down(dir: &Path) {
    let out = tool(&["down"], dir).output().unwrap();
    assert!(out.status.success(), "down failed: {}", String::from_utf8_lossy(&out.stderr));
}

fn up_and_down_leaves_nothing(level: Level) {
    let dir = place(&format!("whole-{level}"));
    let mut seen = Seen::before(&dir);
    let out = tool(&["up", "--level", level.as_str(), "--name", "whole"], &dir).output().unwrap();
    assert!(out.status.success(), "up failed: {}", String::from_utf8_lossy(&out.stderr));
    let told = String::from_utf8_lossy(&out.stdout).into_owned();
    for part in ["export KUBECONFIG=", " down --dir "] {
        assert!(told.contains(part), "up does not tell '{part}': {told}");
    }
    seen.note();
    let (ports, namespaces, cgroups) = seen.counts();
    assert!(ports > 3);
    assert_eq!((namespaces > 0, cgroups > 0), (level == Level::Node, level == Level::Node));
    assert!(
        !seen.left().is_empty(),
        "the cluster runs: its traces must be found, else this test sees nothing"
    );
    down(&dir);
    assert_eq!(seen.left(), Vec::<String>::new());
    down(&dir); // a second one finds nothing and is content
}

#[test]
fn up_and_down_of_the_control_plane_leave_nothing() {
    let _turn = turn();
    up_and_down_leaves_nothing(Level::ControlPlane);
}

#[test]
fn up_and_down_of_the_node_leave_nothing() {
    let _turn = turn();
    if let Some(level) = node_level() {
        up_and_down_leaves_nothing(level);
    }
}

/// When `up` is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// After it has said this many lines.
    Lines(usize),
    /// This long after its start.
    After(Duration),
}

/// Kills `up` with SIGKILL, then `down` must find everything. Whether `up` ended before the moment came.
fn killed_up_leaves_nothing(level: Level, moment: Moment) -> bool {
    let dir = place(&format!("killed-{level}"));
    let mut seen = Seen::before(&dir);
    let mut up = tool(&["up", "--level", level.as_str(), "--name", "killed"], &dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ended = match moment {
        Moment::Lines(count) => {
            let lines = BufReader::new(up.stderr.as_mut().unwrap()).lines().map_while(Result::ok);
            lines.take(count).count() < count
        }
        Moment::After(time) => wait(&mut up, time),
    };
    up.kill().unwrap();
    up.wait().unwrap();
    seen.note();
    down(&dir);
    assert_eq!(seen.left(), Vec::<String>::new(), "up killed at {moment:?}");
    ended
}

fn wait(child: &mut Child, limit: Duration) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < limit {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// After each line it says, and at moments between them that differ from run to run.
fn killed_at_any_moment_leaves_nothing(level: Level) {
    let stages = (0..100).take_while(|lines| !killed_up_leaves_nothing(level, Moment::Lines(*lines))).count();
    assert!(stages > 4, "only {stages} lines before the end: are the stages told any more?");
    let seed = u64::from(std::process::id());
    for n in 0..6 {
        // A multiplicative hash: moments spread over the seconds that a start takes.
        let millis = (seed + n).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 51;
        killed_up_leaves_nothing(level, Moment::After(Duration::from_millis(millis)));
    }
}

#[test]
fn a_killed_up_of_the_control_plane_leaves_nothing_after_down() {
    let _turn = turn();
    killed_at_any_moment_leaves_nothing(Level::ControlPlane);
}

#[test]
fn a_killed_up_of_the_node_leaves_nothing_after_down() {
    let _turn = turn();
    if let Some(level) = node_level() {
        killed_at_any_moment_leaves_nothing(level);
    }
}

/// With an empty cache `up` builds first, for minutes: what it has started must end with `down` as well.
#[test]
fn an_up_killed_while_it_builds_leaves_no_compiler_behind() {
    let _turn = turn();
    let dir = place("building");
    let cache = place("building-cache");
    let mut seen = Seen::before(&dir);
    let mut up = tool(&["up", "--level", "control-plane", "--name", "building"], &dir);
    let mut up = up.env("XDG_CACHE_HOME", &cache).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(up.stderr.as_mut().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains("packages compiled")).expect("progress of the build");
    assert!(line.contains("kubectl"), "{line}");
    assert!(!marked_processes(&dir).is_empty(), "no compiler runs: this test sees nothing");
    up.kill().unwrap();
    up.wait().unwrap();
    seen.note();
    down(&dir);
    assert_eq!(seen.left(), Vec::<String>::new());
    std::fs::remove_dir_all(cache).unwrap();
}

#[test]
fn the_next_up_clears_what_a_killed_one_left() {
    let _turn = turn();
    let dir = place("again");
    let mut seen = Seen::before(&dir);
    let mut options = Options::new("again", Level::ControlPlane);
    options.dir = Some(dir.clone());
    std::mem::forget(Cluster::up(&options).unwrap()); // as a killed process would
    seen.note();
    let cluster = Cluster::up(&options).unwrap();
    let servers = cluster.processes().unwrap().iter().filter(|p| p.component == "kube-apiserver").count();
    assert_eq!(servers, 1);
    drop(cluster);
    assert_eq!(seen.left(), Vec::<String>::new());
}

#[test]
fn a_directory_that_is_not_a_clusters_is_left_alone() {
    let dir = place("foreign");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("thesis.txt"), "years of work").unwrap();
    for action in [&["down"][..], &["up", "--level", "control-plane"]] {
        let out = tool(action, &dir).output().unwrap();
        assert!(!out.status.success());
        assert!(String::from_utf8_lossy(&out.stderr).contains("not a cluster's directory"), "{out:?}");
    }
    assert_eq!(std::fs::read_to_string(dir.join("thesis.txt")).unwrap(), "years of work");
    assert!(!dir.with_extension("lock").exists(), "a lock beside a foreign directory");
    std::fs::remove_dir_all(dir).unwrap();
}

/// Two clusters of one level, at the same time, each with its own objects; the end of one is not the other's.
fn two_run_side_by_side(level: Level) {
    let start = |name: &'static str| {
        let mut options = Options::new(name, level);
        options.dir = Some(place(name));
        std::thread::spawn(move || Cluster::up(&options).unwrap())
    };
    let (left, right) = (start("left"), start("right"));
    let (left, right) = (left.join().unwrap(), right.join().unwrap());
    left.kubectl(&["create", "namespace", "only-left"]).unwrap();
    assert!(right.kubectl(&["get", "namespace", "only-left"]).is_err());
    drop(left);
    right.kubectl(&["get", "--raw", "/readyz"]).unwrap();
}

#[test]
fn two_control_planes_run_side_by_side() {
    let _turn = turn();
    two_run_side_by_side(Level::ControlPlane);
}

#[test]
fn two_nodes_run_side_by_side() {
    let _turn = turn();
    if let Some(level) = node_level() {
        two_run_side_by_side(level);
    }
}

/// Set in the process that the next test starts and kills; names the level.
const OWNER: &str = "LOCAL_CLUSTER_TEST_OWNER";

/// Not a test of its own: the owner that is killed by [`a_cluster_ends_with_the_killed_process_that_owns_it`].
#[test]
fn owner_that_is_killed() {
    let Ok(level) = std::env::var(OWNER) else { return };
    let cluster = Cluster::up(&Options::for_tests("owned", level.parse().unwrap())).unwrap();
    println!("OWNED {}", cluster.dir().unwrap().display());
    loop {
        std::thread::park();
    }
}

fn ends_with_its_owner(level: Level) {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lifecycle::owner_that_is_killed", "--nocapture"])
        .env(OWNER, level.as_str())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines().map_while(Result::ok);
    let dir =
        lines.find_map(|line| Some(line.split_once("OWNED ")?.1.to_owned())).expect("the owner's cluster");
    let mut seen = Seen::before(Path::new("/nonexistent"));
    seen.look_at(Path::new(&dir));
    seen.note();
    assert!(!seen.left().is_empty());
    owner.kill().unwrap();
    owner.wait().unwrap();
    eventually("the guard has cleared everything", || {
        let left = seen.left();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

#[test]
fn a_cluster_ends_with_the_killed_process_that_owns_it() {
    let _turn = turn();
    ends_with_its_owner(Level::ControlPlane);
    if let Some(level) = node_level() {
        ends_with_its_owner(level);
    }
}
