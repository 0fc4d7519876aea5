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
