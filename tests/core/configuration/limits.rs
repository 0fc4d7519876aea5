use std::fmt::Write as _;

use external_ip_core::settings::{FILE_MAX, Settings, parse};
use rustix::time::{ClockId, clock_gettime};

fn refused(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn an_empty_configuration_is_the_default() {
    assert_eq!(parse("version: 1").unwrap().settings, Settings::default());
}

#[test]
fn a_file_that_no_config_map_holds_is_refused_unread() {
    let text = format!("version: 1\n#{}", "x".repeat(FILE_MAX));
    assert!(refused(&text).contains("bytes"), "{}", refused(&text));
}

#[test]
fn aliases_of_aliases_are_refused_in_no_time() {
    let mut text = "version: 1\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..30 {
        let previous = format!("*a{}, ", i - 1).repeat(10);
        writeln!(text, "a{i}: &a{i} [{previous}]").unwrap();
    }
    let spent = || clock_gettime(ClockId::ThreadCPUTime).tv_sec; // not the clock on the wall: other tests run beside this one
    let start = spent();
    assert!(refused(&text).contains("aliases"), "{}", refused(&text));
    assert!(spent() - start < 5, "{} s", spent() - start);
}

#[test]
fn deep_nesting_is_refused() {
    for open in ["[", "{a: ", "- "] {
        let error = refused(&format!("version: 1\nclasses: {}", open.repeat(10_000)));
        assert!(!error.is_empty());
    }
}

#[test]
fn every_mistake_of_a_file_is_found_at_once_in_its_order() {
    let error =
        parse("version: 2\nlimits: {slotsPerCluster: 0}\nclasses: {default: {retention: x}}\n").unwrap_err();
    let lines: Vec<u64> = error.findings.iter().map(|f| f.place.unwrap().line).collect();
    assert_eq!(lines, [1, 2, 3]);
    assert!(error.findings.iter().all(|f| !f.rule.is_empty() && !f.remedy.is_empty() && !f.field.is_empty()));
}

#[test]
fn a_dedicated_class_may_route_locally() {
    let text = "version: 1\nclasses: {default: {service: {externalTrafficPolicy: Local}}}";
    assert!(parse(text).is_ok());
}
