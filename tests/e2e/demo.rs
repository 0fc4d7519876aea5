//! `make demo` on a cluster that is somebody's: nothing is known of it but a kubeconfig.

use crate::readme::Terminal;
use crate::rig::{Rig, root};
use crate::uninstall::all_objects;

#[test]
fn the_demo_leaves_a_given_cluster_as_it_found_it() {
    let Some(rig) = Rig::bare() else { return };
    let terminal = Terminal::new(&rig);
    let before = all_objects(&rig);
    let (done, said) = demo(&rig, &terminal);
    assert!(done, "{said}");
    for member in ["store-0", "store-1", "store-2"] {
        assert!(said.contains(&format!(":11222/ answers: {member}\n")), "{said}");
    }
    let after = all_objects(&rig);
    let differ: Vec<_> = after.symmetric_difference(&before).collect();
    assert!(differ.is_empty(), "{differ:#?}\n{said}");
}

#[test]
fn the_demo_refuses_a_cluster_where_it_would_delete_what_it_has_not_made() {
    let Some(rig) = Rig::bare() else { return };
    let terminal = Terminal::new(&rig);
    rig.made("namespace", "external-ip-demo");
    rig.kubectl(&["create", "namespace", "external-ip-demo"]);
    let before = all_objects(&rig);
    let (done, said) = demo(&rig, &terminal);
    assert!(
        !done && said.contains("has these already") && said.contains("namespace/external-ip-demo"),
        "{said}"
    );
    assert_eq!(all_objects(&rig), before);
}

/// Whether it got to its end, and all it said.
fn demo(rig: &Rig, terminal: &Terminal) -> (bool, String) {
    let mut shell = terminal.shell(rig, "examples/demo 2>&1");
    // of the two only the image is used, and that is with the nodes already
    shell.current_dir(root()).env("BINARY", "not-used").env_remove("LEVEL").env_remove("IMAGE_REF");
    let out = shell.output().unwrap();
    (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned())
}
