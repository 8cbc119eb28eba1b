//! The node tests of the Python package `onnx`, nearly two thousand: each goes through the in-memory form unchanged, and
//! quantizing it gives a model or an error. With their inputs made weights, those that quantize are valid, and run where
//! the float model does.

use crate::common::python::{check_model, python, script};
use crate::common::{args, files};
use msq_onnx::data::SyntheticOptions;
use msq_onnx::{Options, Quantizer, VerifyOptions};
use msq_passes::ir;
use serde_json::Value;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Two made-up samples: enough to go through everything.
fn quantized(path: &Path) -> Result<msq_onnx::Quantized, msq_onnx::Error> {
    let made_up = SyntheticOptions { count: 2, ..SyntheticOptions::default() };
    let options = Options { verify: VerifyOptions { verify: 1, details: false }, ..Options::default() };
    Quantizer::open(path)?.made_up(made_up).options(options).threads(1).run()
}

fn survey(triples: &[(PathBuf, PathBuf, PathBuf)]) -> Vec<Value> {
    let paths = triples.iter().flat_map(|(model, data, out)| [model, data, out].map(OsString::from));
    let args: Vec<OsString> = std::iter::once("survey".into()).chain(paths).collect();
    let report = check_model(&args).unwrap();
    report["results"].as_array().unwrap().clone()
}

#[test]
fn every_node_test() {
    if python().is_none() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let count = script("node_tests.py", args![scratch.path()]).unwrap();
    assert!(count["plain"].as_u64().unwrap() > 1500 && count["constant"].as_u64().unwrap() > 1000, "{count}");
    for path in files(&scratch.path().join("plain"), "onnx") {
        let proto = ir::decode_model(std::fs::read(&path).unwrap().into()).unwrap();
        let model = ir::import(proto.clone()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        // As bytes: NaN is not equal to itself.
        assert!(ir::encode_model(&ir::export(&model)) == ir::encode_model(&proto), "{} changed", path.display());
        let _ = quantized(&path);
    }
    let mut written = Vec::new();
    for float in files(&scratch.path().join("constant"), "onnx") {
        if let Ok(quantized) = quantized(&float) {
            let output = float.with_extension("quantized.onnx");
            quantized.save(&output).unwrap();
            written.push((float, output));
        }
    }
    assert!(written.len() > 100, "only {} can be quantized", written.len());
    let triple =
        |float: &Path, model: &Path| (model.to_owned(), float.with_extension("npz"), model.with_extension("out.npz"));
    let floats: Vec<_> = written.iter().map(|(float, _)| triple(float, float)).collect();
    let models: Vec<_> = written.iter().map(|(float, output)| triple(float, output)).collect();
    for ((before, after), (float, _)) in survey(&floats).iter().zip(survey(&models)).zip(&written) {
        assert!(before["ok"] == false || after["ok"] == true, "{}: {after}", float.display());
    }
}
