//! Compiles the test member and packs the images the node level starts with.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::cache;
use crate::image::{self, Image};
use crate::tools::Maker;

const SOURCE: &str = include_str!("../member/main.rs");

/// What a pod's sandbox runs; containerd's configuration names it.
pub(crate) const PAUSE_IMAGE: &str = "localhost/pause:1";
/// What tests and the demo run in pods.
pub const MEMBER_IMAGE: &str = "localhost/member:1";

/// The static binary.
pub(crate) fn binary(maker: &Maker<'_>) -> Result<PathBuf> {
    let dir = cache::root()?.join(format!("member-{}", cache::key(&[SOURCE.as_bytes()])));
    cache::once(&dir, "the test member", |fresh| {
        let source = fresh.join("main.rs");
        fs::write(&source, SOURCE)?;
        let out = maker
            .command(&std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned()))
            .args([
                "--edition=2024",
                "--crate-name=member",
                "-Copt-level=s",
                "-Cpanic=abort",
                "-Cstrip=symbols",
            ])
            // Static, so that it runs in an image with nothing else in it.
            .arg("-Ctarget-feature=+crt-static")
            .arg("-o")
            .arg(fresh.join("member"))
            .arg(&source)
            .output()
            .context("cannot start rustc: install Rust (https://rustup.rs) and put it on the PATH")?;
        ensure!(out.status.success(), "rustc failed: {}", String::from_utf8_lossy(&out.stderr));
        Ok(())
    })?;
    Ok(dir.join("member"))
}

/// The folder with `pause.tar` and `member.tar`: the same binary, called differently.
pub(crate) fn images(member: &Path) -> Result<PathBuf> {
    let dir = member.with_file_name("images");
    cache::once(&dir, "the member's images", |fresh| {
        let root = fresh.join("root");
        fs::create_dir(&root)?;
        fs::copy(member, root.join("member"))?;
        let call = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let pause = Image { entrypoint: call(&["/member", "pause"]), ..Image::new(PAUSE_IMAGE) };
        image::pack(&root, &pause, &fresh.join("pause.tar"))?;
        let member = Image {
            entrypoint: call(&["/member"]),
            cmd: call(&["serve", "8080"]),
            user: "65532:65532".to_owned(),
            ..Image::new(MEMBER_IMAGE)
        };
        image::pack(&root, &member, &fresh.join("member.tar"))?;
        Ok(fs::remove_dir_all(root)?)
    })?;
    Ok(dir)
}
