//! Packs a directory as a container image archive, without a registry and without an image tool.
//!
//! The archive is an OCI layout that also carries Docker's `manifest.json`: `ctr images import`, `kind load
//! image-archive`, `docker load` and `podman load` take it. Equal files give equal bytes.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::cache::hex;

/// What an image says about its one layer.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// `registry/path:tag`.
    pub name: String,
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Arguments that a pod's `args` replace.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// `UID[:GID]`; empty is root.
    pub user: String,
    /// Where the program starts; empty is `/`.
    pub workdir: String,
    /// `PORT/PROTOCOL`: documentation, nothing opens by it.
    pub exposed: Vec<String>,
    /// `key`, `value`.
    pub labels: Vec<(String, String)>,
}

impl Image {
    /// An image of that name that says nothing else.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}

/// Packs what is under `root` (owned by root in the image, modes kept) and writes the archive to `out`. Returns the
/// image's digest.
pub fn pack(root: &Path, image: &Image, out: &Path) -> Result<String> {
    let layer = layer(root).with_context(|| format!("cannot read {}", root.display()))?;
    let layer_digest = digest(&layer);
    let config = serde_json::to_vec(&config(image, &layer_digest))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    }))?;
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    let tag = image.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    entry["annotations"] = json!({
        "io.containerd.image.name": qualified(&image.name),
        "org.opencontainers.image.ref.name": tag,
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    });
    let docker = json!([{
        "Config": blob(&digest(&config)),
        "RepoTags": [image.name],
        "Layers": [blob(&layer_digest)],
    }]);
    let files: [(String, &[u8]); 6] = [
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#),
        ("index.json".to_owned(), &serde_json::to_vec(&index)?),
        ("manifest.json".to_owned(), &serde_json::to_vec(&docker)?),
        (blob(&layer_digest), &layer),
        (blob(&digest(&config)), &config),
        (blob(&digest(&manifest)), &manifest),
    ];
    let file = File::create(out).with_context(|| format!("cannot write {}", out.display()))?;
    let mut archive = Builder::new(BufWriter::new(file));
    for (path, bytes) in files {
        let mut header = plain(EntryType::Regular, 0o644);
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, path, bytes)?;
    }
    archive.into_inner()?.flush()?;
    Ok(format!("sha256:{}", digest(&manifest)))
}

fn config(image: &Image, layer: &str) -> Value {
    let mut config = json!({ "Env": ["PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"] });
    if let Some(env) = config["Env"].as_array_mut() {
        env.extend(image.env.iter().map(|pair| json!(pair)));
    }
    if !image.entrypoint.is_empty() {
        config["Entrypoint"] = json!(image.entrypoint);
    }
    if !image.cmd.is_empty() {
        config["Cmd"] = json!(image.cmd);
    }
    if !image.user.is_empty() {
        config["User"] = json!(image.user);
    }
    if !image.workdir.is_empty() {
        config["WorkingDir"] = json!(image.workdir);
    }
    if !image.exposed.is_empty() {
        config["ExposedPorts"] = image.exposed.iter().map(|port| (port.clone(), json!({}))).collect();
    }
    if !image.labels.is_empty() {
        config["Labels"] = image.labels.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    }
    json!({
        "architecture": architecture(),
        "os": "linux",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
    })
}

/// The full form of a name, under which a kubelet looks for it: containerd takes the name of an archive as it stands,
/// but `image:` of a pod through Docker's rule for names without a registry.
fn qualified(name: &str) -> String {
    match name.split_once('/') {
        None => format!("docker.io/library/{name}"),
        Some((registry, _)) if registry == "localhost" || registry.contains(['.', ':']) => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
    }
}

/// Go's name of this machine's architecture, which images use.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn layer(root: &Path) -> Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    append(&mut archive, root, Path::new(""))?;
    Ok(archive.into_inner()?)
}

fn append(archive: &mut Builder<Vec<u8>>, root: &Path, below: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut names = fs::read_dir(root.join(below))?
        .map(|entry| entry.map(|entry| below.join(entry.file_name())))
        .collect::<io::Result<Vec<PathBuf>>>()?;
    names.sort();
    for name in names {
        let path = root.join(&name);
        let meta = fs::symlink_metadata(&path)?;
        let mode = meta.permissions().mode() & 0o7777;
        if meta.is_symlink() {
            let mut header = plain(EntryType::Symlink, 0o777);
            archive.append_link(&mut header, &name, fs::read_link(&path)?)?;
        } else if meta.is_dir() {
            let mut header = plain(EntryType::Directory, mode);
            archive.append_data(&mut header, name.join(""), io::empty())?;
            append(archive, root, &name)?;
        } else {
            let mut header = plain(EntryType::Regular, mode);
            header.set_size(meta.len());
            archive.append_data(&mut header, &name, File::open(&path)?)?;
        }
    }
    Ok(())
}

/// Owner root, time 0: the same files, the same digest.
fn plain(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

fn digest(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

fn blob(digest: &str) -> String {
    format!("blobs/sha256/{digest}")
}

fn descriptor(media: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media, "digest": format!("sha256:{}", digest(bytes)), "size": bytes.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_a_kubelet_completes_them() {
        for (short, full) in [
            ("program:1", "docker.io/library/program:1"),
            ("team/program:1", "docker.io/team/program:1"),
            ("localhost/program:1", "localhost/program:1"),
            ("registry.example/program:1", "registry.example/program:1"),
            ("registry:5000/program:1", "registry:5000/program:1"),
        ] {
            assert_eq!(qualified(short), full);
        }
    }

    #[test]
    fn equal_files_give_equal_archives_that_say_what_was_asked() {
        let dir = std::env::temp_dir().join(format!("image-{}", std::process::id()));
        let root = dir.join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/hello"), "hello").unwrap();
        std::os::unix::fs::symlink("etc/hello", root.join("link")).unwrap();
        let image = Image {
            entrypoint: vec!["/bin/program".to_owned()],
            user: "65532:65532".to_owned(),
            labels: vec![("a".to_owned(), "b".to_owned())],
            ..Image::new("localhost/hello:2")
        };
        let first = pack(&root, &image, &dir.join("1.tar")).unwrap();
        fs::write(root.join("etc/hello"), "hello").unwrap();
        let second = pack(&root, &image, &dir.join("2.tar")).unwrap();
        assert_eq!(first, second);
        let bytes = fs::read(dir.join("1.tar")).unwrap();
        assert_eq!(bytes, fs::read(dir.join("2.tar")).unwrap());
        let text = String::from_utf8_lossy(&bytes);
        for part in
            ["localhost/hello:2", "\"User\":\"65532:65532\"", "/bin/program", "\"Labels\":{\"a\":\"b\"}"]
        {
            assert!(text.contains(part), "{part}");
        }
        fs::remove_dir_all(dir).unwrap();
    }
}
