use serde_json::{Value, json};

use super::{answered, operations, patched, review};
use crate::golden::{assert_golden, cases, folder};

/// Each `NAME.pod.json` is a pod as it arrives, `NAME.answer.json` what becomes of it.
#[test]
fn every_pod_of_the_golden_folder_is_answered_as_written_there() {
    for case in cases("stamp", ".pod.json") {
        let file = folder().join("stamp").join(format!("{case}.pod.json"));
        let pod: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let (answer, response) = answered(&review(&pod));
        let after = patched(&pod, &response);
        let mut shown = json!({
            "stamped": answer.stamped,
            "skipped": answer.skipped.map(|r| r.code.as_str()),
            "warnings": response["warnings"],
            "patch": operations(&response),
            "metadata": after["metadata"],
        });
        if after["spec"] != pod["spec"] {
            shown["spec"] = after["spec"].clone();
        }
        let text = format!("{}\n", serde_json::to_string_pretty(&shown).unwrap());
        assert_golden(&format!("stamp/{case}.answer.json"), &text);
    }
}
