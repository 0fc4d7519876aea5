use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// Asks for everything the reader can give, and for nothing else.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Asked<'a> {
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    number: Option<i64>,
    truth: Option<bool>,
    pairs: Option<BTreeMap<String, String>>,
    list: Vec<Asked<'a>>,
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-zü/.:]{0,30}", "[\"\\\\{}\\[\\]\u{1}ü]{0,12}"]
}

/// What nobody asks for.
fn other() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        text().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null)
    ];
    leaf.prop_recursive(4, 30, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(text(), inner, 0..5)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

fn asked() -> impl Strategy<Value = Value> {
    let optional = |value: BoxedStrategy<Value>| prop_oneof![value, Just(Value::Null)];
    let leaf = (
        optional(text().prop_map(Value::from).boxed()),
        optional(any::<i64>().prop_map(Value::from).boxed()),
        optional(any::<bool>().prop_map(Value::from).boxed()),
        prop::collection::btree_map(text(), text(), 0..4),
        prop::collection::btree_map("(other|a\"b|)[0-9]", other(), 0..4),
    );
    let leaf = leaf.prop_map(|(text, number, truth, pairs, others)| {
        let mut object = json!({"text": text, "number": number, "truth": truth, "pairs": pairs});
        for (key, value) in others {
            object[key] = value;
        }
        object
    });
    leaf.prop_recursive(3, 12, 4, |inner| {
        (inner.clone(), prop::collection::vec(inner, 0..4)).prop_map(|(mut object, list)| {
            object["list"] = list.into();
            object
        })
    })
}

proptest! {
    #[test]
    fn what_is_asked_for_is_what_serde_json_reads(value in asked(), pretty in any::<bool>()) {
        let text = if pretty { format!(" {value:#}\n") } else { value.to_string() };
        prop_assert_eq!(read::<Asked>(&text).unwrap(), serde_json::from_str::<Asked>(&text).unwrap());
    }

    #[test]
    fn what_is_leapt_over_is_kept_as_it_stands(value in other(), behind in "[ ,}\\]]?") {
        let text = format!("{value}{behind}");
        let mut reader = Reader { text: &text, at: 0 };
        prop_assert_eq!(reader.leap().unwrap(), value.to_string());
    }

    #[test]
    fn what_breaks_off_is_an_error(value in asked(), at in any::<prop::sample::Index>()) {
        let text = value.to_string();
        let ends: Vec<usize> = text.char_indices().map(|(end, _)| end).collect();
        prop_assert!(read::<Asked>(&text[..ends[at.index(ends.len())]]).is_err());
    }
}

#[test]
fn an_error_says_what_and_where() {
    let cases = [
        (r#"{"text": 5}"#, "expected '\"' (at byte 9)"),
        (r#"{"number": 1.5}"#, "expected a whole number, not 1.5 (at byte 14)"),
        (r#"{"truth": "true"}"#, "expected a value (at byte 10)"),
        (r#"{"text": nothing}"#, "expected a value, not nothing (at byte 16)"),
        (r#"{"text": "\x"}"#, "invalid escape at line 1 column 3 (at byte 13)"),
        (r#"{"list": {}}"#, "expected '[' (at byte 9)"),
        (r#"{"text": "a" "number": 5}"#, "expected ',' (at byte 13)"),
        (r#"{"text" "a"}"#, "expected ':' (at byte 8)"),
        (r#"{"other": {"a": "}"}"#, "expected ',' (at byte 20)"),
        (r#"{"other": [1, 2"#, "a bracket does not close (at byte 10)"),
        (r#"{"other": "a\"}"#, "a string does not end (at byte 14)"),
        (r#"{"text": null, "text": null}"#, "duplicate field `text` (at byte 21)"),
        (r#"{"a": 1,}"#, "expected '\"' (at byte 8)"),
        ("{} x", "more follows (at byte 3)"),
        ("", "expected '{' (at byte 0)"),
    ];
    for (text, error) in cases {
        assert_eq!(read::<Asked>(text).unwrap_err().to_string(), error, "{text}");
    }
}

#[test]
fn depth_costs_no_stack() {
    let deep = |count: usize| format!(r#"{{"other": {}{}}}"#, "[".repeat(count), "]".repeat(count));
    assert!(read::<Asked>(&deep(1_000_000)).is_ok());
}
