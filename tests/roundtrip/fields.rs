//! The messages declared in Rust are those of the `onnx` package: no field is lost, none has another type.

use crate::common::python::{check_model, script};
use crate::common::{Scratch, args};
use msq_passes::ir::{self, DataType};
use std::fs;
use std::path::Path;

/// Through the in-memory form and back, from file to file.
fn round_trip(from: &Path, to: &Path) {
    let proto = ir::decode_model(fs::read(from).unwrap().into()).unwrap();
    let model = ir::import(proto.clone()).unwrap();
    let exported = ir::export(&model);
    assert!(exported == proto, "{} changed", from.display());
    fs::write(to, ir::encode_model(&exported)).unwrap();
}

#[test]
fn no_field_is_lost() {
    let scratch = Scratch::new();
    let (values, defaults) = (scratch.path("values.onnx"), scratch.path("defaults.onnx"));
    let Some(made) = script("probe_fields.py", args!["make", values, defaults]) else { return };
    assert_eq!(made["missing"].as_array().unwrap().len(), 0, "{made}");
    for path in [values, defaults] {
        let back = scratch.path("back.onnx");
        round_trip(&path, &back);
        let compared = script("probe_fields.py", args!["compare", path, back]).unwrap();
        assert_eq!(compared["ok"], true, "{}: {compared}", path.display());
    }
}

#[test]
fn element_types_have_the_format_s_numbers() {
    let Some(table) = check_model(args!["fields"]) else { return };
    let enums = table["enums"].as_array().unwrap();
    let entries = enums.iter().filter(|e| e["enum"] == "TensorProto.DataType" && e["number"] != 0);
    let mut theirs: Vec<(i64, String)> =
        entries.map(|e| (e["number"].as_i64().unwrap(), e["name"].as_str().unwrap().to_lowercase())).collect();
    theirs.sort();
    let ours: Vec<(i64, String)> = DataType::ALL.iter().map(|t| (i64::from(t.number()), t.name().to_owned())).collect();
    assert_eq!(ours, theirs);
}

/// What the text printer writes of a model, the reference parser reads.
#[test]
fn the_reference_parser_reads_our_text() {
    let scratch = Scratch::new();
    let text = ir::text::print(&super::models::digits_proto());
    let path = scratch.write("digits.onnxtxt", text);
    let Some(parsed) = check_model(args!["parse", path]) else { return };
    assert_eq!(parsed["ok"], true, "{parsed}");
}
