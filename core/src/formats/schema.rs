//! The JSON Schema of the documents, by type, as components of an `OpenAPI` description. It is made from the types that
//! the documents are written from; `UPDATE_GOLDENS=1 cargo test -p external-ip-core schema` makes it anew.

/// An object: a schema for each type's name.
pub const SCHEMAS: &str = include_str!("schemas.json");

#[cfg(test)]
mod tests {
    use std::fs;

    use schemars::generate::SchemaSettings;
    use serde_json::{Map, Value, json};

    use crate::explain::Explanation;
    use crate::formats::document::Aggregate;
    use crate::formats::nat_map::NatMap;

    /// References point to `place`.
    fn schemas(place: &'static str) -> Map<String, Value> {
        let settings = SchemaSettings::draft2020_12().for_serialize();
        let mut made = settings.with(|s| s.definitions_path = place.into()).into_generator();
        made.subschema_for::<Aggregate<'static>>();
        made.subschema_for::<NatMap>();
        made.subschema_for::<Explanation>();
        made.take_definitions(true)
    }

    fn assert_is(file: &str, schema: &Value) {
        let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
        let text = format!("{}\n", serde_json::to_string_pretty(schema).unwrap());
        if std::env::var_os("UPDATE_GOLDENS").is_some_and(|v| v == "1") {
            return fs::write(&path, text).unwrap();
        }
        assert!(
            fs::read_to_string(&path).unwrap() == text,
            "{path} is not what the types say; UPDATE_GOLDENS=1 writes it anew"
        );
    }

    #[test]
    fn the_schemas_are_those_of_the_types() {
        let components = schemas("/components/schemas");
        assert!(components["Entry"]["properties"]["external"].is_object());
        assert_is("src/formats/schemas.json", &Value::Object(components));
        assert_is(
            "../docs/mapping.schema.json",
            &json!({
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "title": "The map over all clusters; one cluster's document is #/$defs/ClusterMapping",
                "$ref": "#/$defs/Aggregate",
                "$defs": schemas("/$defs"),
            }),
        );
    }
}
