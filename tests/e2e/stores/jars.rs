//! The programs of `tests/stores/java`, with our Java module.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use super::images::run;
use crate::rig::root;

/// What they and our module were compiled to, and what they stand on: a class path.
pub(super) struct Jars(String);

impl Jars {
    /// Once for all tests: they would write the same files.
    pub(super) fn built() -> &'static Self {
        static BUILT: LazyLock<Jars> = LazyLock::new(Jars::build);
        &BUILT
    }

    pub(super) fn build() -> Self {
        let (ours, programs) = (root().join("clients/java"), root().join("tests/stores/java"));
        let maven = |directory: &Path, goals: &[&str]| {
            run(Command::new("mvn").current_dir(directory).args(["-q", "-B"]).args(goals))
        };
        maven(&ours, &["compile"]);
        maven(&programs, &["dependency:build-classpath", "-Dmdep.outputFile=target/classpath"]);
        let others = std::fs::read_to_string(programs.join("target/classpath")).unwrap();
        let classes = |directory: &Path| directory.join("target/classes").display().to_string();
        let path = [classes(&programs), classes(&ours), others.trim().to_owned()].join(":");
        run(Command::new("javac")
            .args(["--release", "17", "-d"])
            .arg(classes(&programs))
            .args(["-cp", &path])
            .args(sources(&programs)));
        Self(path)
    }

    /// To run one of the programs with; its own arguments follow.
    pub(super) fn arguments<'a>(&'a self, program: &'a str) -> [&'a str; 5] {
        ["-Xmx256m", "-XX:+UseSerialGC", "-cp", &self.0, program]
    }
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|extension| extension == "java")).collect()
}
