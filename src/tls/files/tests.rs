use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use rcgen::KeyPair;
use tokio::task::JoinHandle;

use super::*;
use crate::map::{Current, Liveness};
use crate::tls::authority::Authority;
use crate::tls::testing::{authority, now};

/// A directory as a kubelet mounts a Secret: files are links through `..data` to a directory per version.
struct Mount(PathBuf);

impl Mount {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("external-ip-files-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        for file in ["tls.crt", "tls.key", "ca.crt"] {
            symlink(Path::new("..data").join(file), path.join(file)).unwrap();
        }
        Self(path)
    }

    /// Swaps the contents in one step, as a kubelet does.
    fn swap(&self, version: &str, certificate: &str, key: &str) {
        self.swap_all(version, certificate, key, "");
    }

    fn swap_all(&self, version: &str, certificate: &str, key: &str, ca: &str) {
        let directory = self.0.join(version);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("tls.crt"), certificate).unwrap();
        fs::write(directory.join("tls.key"), key).unwrap();
        fs::write(directory.join("ca.crt"), ca).unwrap();
        let link = self.0.join("..data_tmp");
        symlink(version, &link).unwrap();
        fs::rename(link, self.0.join("..data")).unwrap();
    }

    fn files(&self) -> Files {
        self.files_with(None)
    }

    fn files_with(&self, ca: Option<&str>) -> Files {
        let metrics = Metrics::new(Arc::new(Current::new()), Arc::new(Liveness::new()));
        let file = |name: &str| self.0.join(name);
        let files = CertificateFiles { certificate: file("tls.crt"), key: file("tls.key"), ca: ca.map(file) };
        Files::new("mapping", files, Arc::new(metrics))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Chain (leaf and CA) and key, PEM.
fn pair(authority: &Authority, life: i64) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    crate::tls::authority::set_life(&mut params, now() - 10 * 24 * 3600, now() + life);
    let leaf = params.signed_by(&key, authority.issuer()).unwrap();
    (format!("{}{}", leaf.pem(), authority.bundle()), key.serialize_pem())
}

/// Runs `files`; with the clock stopped, every look follows at once when nothing else is to do.
fn follow(files: Files) -> (Arc<Files>, JoinHandle<()>) {
    let files = Arc::new(files);
    let running = Arc::clone(&files);
    (files, tokio::spawn(async move { running.run(CancellationToken::new()).await }))
}

async fn until(mut condition: impl FnMut() -> bool) {
    let patience = std::time::Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(std::time::Instant::now() < patience, "nothing happened");
        tokio::time::advance(FILES_POLL).await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_swap_of_the_mounted_directory_is_served_with_its_chain() {
    let (mount, authority) = (Mount::new("swap"), authority());
    let (certificate, key) = pair(&authority, 3600);
    mount.swap("..1", &certificate, &key);
    let files = mount.files();
    files.load().await.unwrap();
    let first = files.served().get().unwrap();
    assert_eq!(first.cert.len(), 2, "the chain is sent");
    let (files, running) = follow(files);
    let (certificate, key) = pair(&authority, 7200);
    mount.swap("..2", &certificate, &key);
    until(|| files.served().get().unwrap().cert[0] != first.cert[0]).await;
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn every_certificate_that_is_served_says_when_it_ends() {
    let (mount, authority) = (Mount::new("expiry"), authority());
    let ends = |seconds: i64| {
        let at = now() + seconds;
        move |files: &Files| {
            let text = files.metrics.text();
            let line =
                text.lines().find(|l| l.contains("not_after_timestamp_seconds{certificate=\"mapping\"}"));
            let told: f64 = line.and_then(|l| l.rsplit(' ').next()?.parse().ok()).unwrap_or_default();
            #[allow(clippy::cast_precision_loss)]
            let wanted = at as f64;
            (told - wanted).abs() < 10.0
        }
    };
    let (certificate, key) = pair(&authority, 3600);
    mount.swap("..1", &certificate, &key);
    let (first, second) = (ends(3600), ends(7200));
    let files = mount.files();
    files.load().await.unwrap();
    assert!(first(&files));
    let (files, running) = follow(files);
    let (certificate, key) = pair(&authority, 7200);
    mount.swap("..2", &certificate, &key);
    until(|| second(&files)).await;
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_pair_that_does_not_match_keeps_the_last_good_one_and_is_counted_once() {
    let (mount, authority) = (Mount::new("mismatch"), authority());
    let (certificate, key) = pair(&authority, 3600);
    mount.swap("..1", &certificate, &key);
    let files = mount.files();
    files.load().await.unwrap();
    let good = files.served().get().unwrap();
    let (files, running) = follow(files);
    mount.swap("..2", &pair(&authority, 3600).0, &key);
    let failures =
        || files.metrics.text().contains("certificate_reload_failures_total{certificate=\"mapping\"} 1\n");
    until(failures).await;
    for _ in 0..3 {
        tokio::time::advance(FILES_POLL).await;
        tokio::task::yield_now().await;
    }
    assert!(failures(), "the same files are not counted again");
    assert!(Arc::ptr_eq(&good, &files.served().get().unwrap()));
    let (certificate, key) = pair(&authority, 3600);
    mount.swap("..3", &certificate, &key);
    until(|| !Arc::ptr_eq(&good, &files.served().get().unwrap())).await;
    running.abort();
}

#[tokio::test]
async fn files_that_cannot_be_used_at_start_say_which_and_what_to_do() {
    let (mount, authority) = (Mount::new("start"), authority());
    let failure = async || mount.files().load().await.unwrap_err().to_string();
    let text = failure().await;
    assert!(
        text.contains("tls.crt: No such file") && text.contains("mount the certificate's Secret"),
        "{text}"
    );
    let (certificate, key) = pair(&authority, -3 * 24 * 3600);
    mount.swap("..1", &certificate, &key);
    let text = failure().await;
    assert!(text.contains("expired 3 days ago: have it renewed"), "{text}");
    let (certificate, key) = pair(&authority, 3600);
    mount.swap("..2", "", &key);
    assert!(failure().await.contains("it shall hold the PEM chain, leaf first"));
    mount.swap("..3", &certificate, "nonsense");
    assert!(failure().await.contains("no readable private key"));
    let reversed = format!("{}{certificate}", authority.bundle());
    mount.swap("..4", &reversed, &key);
    let text = failure().await;
    assert!(text.contains("does not belong to the first certificate"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn the_ca_is_told_without_what_else_its_file_holds_and_follows_the_certificate() {
    let (mount, old, new) = (Mount::new("ca"), authority(), authority());
    let (certificate, key) = pair(&old, 3600);
    mount.swap_all(
        "..1",
        &certificate,
        &key,
        &format!("the CA, and its key\n{}{}", old.key_pem(), old.bundle()),
    );
    let files = mount.files_with(Some("ca.crt"));
    let mut trusted = files.trusted().unwrap();
    files.load().await.unwrap();
    assert_eq!(trusted.borrow_and_update().as_deref(), Some(old.bundle()));
    let (files, running) = follow(files);
    let (renewed, key) = pair(&old, 7200);
    mount.swap_all("..2", &renewed, &key, old.bundle());
    let first = files.served().get().unwrap();
    until(|| !Arc::ptr_eq(&first, &files.served().get().unwrap())).await;
    assert!(!trusted.has_changed().unwrap(), "the same CA is no news");
    let (certificate, key) = pair(&new, 3600);
    let both = format!("{}{}", old.bundle(), new.bundle());
    mount.swap_all("..3", &certificate, &key, &both);
    until(|| trusted.has_changed().unwrap()).await;
    assert_eq!(trusted.borrow_and_update().as_deref(), Some(&*both));
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_ca_that_did_not_issue_the_certificate_keeps_all_that_was_good() {
    let (mount, authority) = (Mount::new("unrelated"), authority());
    let (certificate, key) = pair(&authority, 3600);
    mount.swap_all("..1", &certificate, &key, authority.bundle());
    let files = mount.files_with(Some("ca.crt"));
    files.load().await.unwrap();
    let (good, trusted) = (files.served().get().unwrap(), files.trusted().unwrap());
    let (files, running) = follow(files);
    let (renewed, key) = pair(&authority, 7200);
    mount.swap_all("..2", &renewed, &key, crate::tls::testing::authority().bundle());
    let refused =
        || files.metrics.text().contains("certificate_reload_failures_total{certificate=\"mapping\"} 1\n");
    until(refused).await;
    assert!(Arc::ptr_eq(&good, &files.served().get().unwrap()));
    assert_eq!(trusted.borrow().as_deref(), Some(authority.bundle()));
    running.abort();
}

#[tokio::test]
async fn a_ca_file_that_cannot_be_used_at_start_says_what_to_do() {
    let (mount, authority) = (Mount::new("ca-start"), authority());
    let (certificate, key) = pair(&authority, 3600);
    mount.swap_all("..1", &certificate, &key, "");
    let failure = mount.files_with(Some("ca.crt")).load().await.unwrap_err().to_string();
    assert!(
        failure.contains("ca.crt: no readable CA certificate") && failure.contains("leave ca out"),
        "{failure}"
    );
    mount.swap_all("..2", &certificate, &key, crate::tls::testing::authority().bundle());
    let failure = mount.files_with(Some("ca.crt")).load().await.unwrap_err().to_string();
    assert!(failure.contains("is not issued by a CA of") && failure.contains("from one Secret"), "{failure}");
}
