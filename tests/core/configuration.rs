//! The configuration file: golden results, limits, properties.

mod limits;
mod properties;

use external_ip_core::settings::{parse, render};

use crate::golden::{assert_golden, cases, folder};

/// Each `NAME.yaml` is a file; `NAME.result` what it means, or everything that is wrong with it.
#[test]
fn every_file_of_the_golden_folder_has_its_result() {
    for case in cases("configuration", ".yaml") {
        let file = folder().join("configuration").join(format!("{case}.yaml"));
        let text = std::fs::read_to_string(file).unwrap();
        let result = match parse(&text) {
            Err(error) => format!("REFUSED\n{error}\n"),
            Ok(parsed) => {
                let in_force = render(&parsed.settings);
                assert_eq!(parse(&in_force).unwrap().settings, parsed.settings, "{case}");
                let translation = parsed.origin_translation.map_or_else(String::new, |text| {
                    assert_eq!(parse(&text).unwrap().settings, parsed.settings, "{case}: {text}");
                    format!("TRANSLATED\n{text}\n")
                });
                let notes: String =
                    parsed.settings.notes().iter().flat_map(|note| ["NOTE ", note, "\n"]).collect();
                format!("{translation}{notes}IN FORCE\n{in_force}")
            }
        };
        assert_golden(&format!("configuration/{case}.result"), &result);
    }
}

#[test]
fn what_the_manifests_ship_is_accepted() {
    for file in ["base/config.yaml", "components/cert-manager/config.yaml"] {
        let path = folder().join("../../../manifests").join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        if let Err(error) = parse(&text) {
            panic!("{}: {error}", path.display());
        }
    }
}

#[test]
fn every_preset_is_accepted_as_it_is_and_listed_with_its_catch() {
    let project = folder().join("../../..");
    let listed = std::fs::read_to_string(project.join("docs/providers.md")).unwrap();
    let mut presets = 0;
    for file in std::fs::read_dir(project.join("manifests/examples/classes")).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let parsed = parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(parsed.settings.notes().is_empty(), "{}", path.display());
        assert!(
            text.starts_with("# ") && text.contains("https://") && text.contains("# The catch: "),
            "{text}"
        );
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(listed.contains(&format!("(../manifests/examples/classes/{name})")), "{name}");
        presets += 1;
    }
    assert_eq!(presets, listed.matches("(../manifests/examples/classes/").count());
    assert!(presets >= 7, "MetalLB, Cilium, kube-vip, AWS, Google, Azure, k3s");
}
