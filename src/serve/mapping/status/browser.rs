//! The page in a real browser, as wide as a phone.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use external_ip_core::mapping::{EntryState, External, Mapping};

use super::tests::behind_a_token;
use crate::serve::listener::Listener;
use crate::testing::{cluster, mapping};

/// A cluster whose pods are all there, and one with a pod that has no address and words that are none of ours.
fn some() -> Mapping {
    let mut waiting = cluster("data", "redis", 3);
    for (n, pod) in (0..).zip(&mut waiting.entries) {
        pod.internal.ips = vec![[198, 18, 1, n].into()];
        pod.external = Some(External { ips: vec![[203, 0, 113, 10 + n].into()], host: None });
        (pod.ports[0].internal, pod.ports[0].external) = (6379, 6379);
    }
    let pod = &mut waiting.entries[2];
    (pod.state, pod.external, pod.ready) = (EntryState::Pending, None, false);
    pod.reason = Some("NoLoadBalancer");
    pod.message = Some(
        "the load balancer has given no address for 2 minutes (Service redis-ext-2) <script>document.title='x'</script>: \
         check that a LoadBalancer controller is installed and has addresses left"
            .into(),
    );
    mapping([cluster("data", "infinispan", 3), waiting])
}

async fn browse(profile: &Path, arguments: &[&str]) -> Output {
    let mut browser = Command::new("chromium-headless-shell");
    browser
        .args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"])
        .arg("--window-size=390,844") // what a phone shows at once, in CSS pixels
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(arguments);
    let shown = tokio::task::spawn_blocking(move || browser.output()).await.unwrap();
    shown.expect("Debian's package chromium-headless-shell is installed")
}

#[tokio::test]
#[ignore = "needs a browser: make test-page"]
async fn a_browser_shows_the_page_to_who_has_a_token_and_runs_nothing_in_it() {
    let served = behind_a_token();
    served.publish(some(), 7);
    let listener = Listener::bind("mapping", "127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.address();
    let serving =
        tokio::spawn(listener.serve(served.router.clone(), Arc::clone(&served.metrics), served.stop.clone()));
    let profile = std::env::temp_dir().join(format!("page-{}", std::process::id()));
    std::fs::create_dir_all(&profile).unwrap();

    let refused = browse(&profile, &["--dump-dom", &format!("http://any:wrong@{address}/status")]).await;
    assert!(!String::from_utf8(refused.stdout).unwrap().contains("infinispan"), "a token that is not known");
    let url = format!("http://any:good@{address}/status");
    let shown = browse(&profile, &["--dump-dom", &url]).await;
    let dom = String::from_utf8(shown.stdout).unwrap();
    for text in
        ["data/infinispan", ">infinispan-0</a>", "203.0.113.2", "NoLoadBalancer", "no address for 2 minutes"]
    {
        assert!(dom.contains(text), "{text} in\n{dom}\n{}", String::from_utf8_lossy(&shown.stderr));
    }
    assert!(dom.contains("<title>External addresses</title>") && !dom.contains("<script"), "{dom}");

    let file = std::env::var_os("SCREENSHOT").map_or(profile.join("status.png"), Into::into);
    let shown = browse(&profile, &[&format!("--screenshot={}", file.display()), &url]).await;
    let picture = std::fs::read(&file).unwrap_or_else(|e| panic!("{e}: {shown:?}"));
    let width = u32::from_be_bytes(picture[16..20].try_into().unwrap());
    assert!(picture.starts_with(b"\x89PNG") && width == 390, "{width}");
    assert!(picture.len() > 10_000, "there is something on it: {} bytes", picture.len());
    served.stop.cancel();
    serving.await.unwrap();
    std::fs::remove_dir_all(&profile).unwrap();
}
