//! The schemas in `docs/schema` are those of the documents.

use crate::common::{args, digits, msq, repository};
use serde_json::Value;

#[test]
fn published_schemas_are_what_is_printed() {
    for command in ["quantize", "search", "inspect", "evaluate", "compare", "lint"] {
        let path = repository(&format!("docs/schema/{command}.schema.json"));
        let published = std::fs::read_to_string(&path).unwrap_or_default();
        let printed = msq(args!["schema", command]).ok().stdout;
        assert!(published == printed, "run `msq-onnx schema {command} > docs/schema/{command}.schema.json`");
    }
    assert_eq!(msq(args!["schema"]).ok().json()["title"], "msq-onnx --json");
}

/// Every key of a document is in its schema, and every key the schema requires is in the document.
#[test]
fn documents_have_the_keys_of_their_schema() {
    let document = msq(args!["inspect", digits("digits.onnx"), "--json"]).ok().json();
    let schema = msq(args!["schema", "inspect"]).ok().json();
    let required: Vec<&str> = schema["required"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(required.contains(&"schema_version") && required.contains(&"layers"));
    let keys: Vec<&String> = document.as_object().unwrap().keys().collect();
    assert!(keys.iter().all(|key| schema["properties"].get(key).is_some()), "{keys:?}");
    assert!(required.iter().all(|key| document.get(key).is_some()), "{required:?}");
    assert_eq!(document["schema_version"], 1);
    assert_eq!(document["arguments"][0], "inspect");
    assert_eq!(document["tool_version"], env!("CARGO_PKG_VERSION"));
}
