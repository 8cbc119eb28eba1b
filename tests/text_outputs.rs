//! Outputs that are text, as classifiers with class names have: the others are measured.

use crate::common::arrays::Npy;
use crate::common::models::Network;
use crate::common::{args, msq};
use serde_json::json;

const TEXT: &str = "<ir_version: 8, opset_import: [\"\": 17, \"ai.onnx.ml\": 3]>
    net (float[N,16] x) => (string[N] label, float[N,4] scores)
    <float[16,32] a = {}, float[32,4] b = {}, string[4] names = {\"cat\", \"dog\", \"fish\", \"fly\"}, int64[1] all = {-1}>
    {
        h = MatMul (x, a)
        r = Relu (h)
        z = MatMul (r, b)
        scores = Softmax (z)
        best = ArgMax <axis = 1, keepdims = 0> (scores)
        picked = ai.onnx.ml.ArrayFeatureExtractor (names, best)
        label = Reshape (picked, all)
    }";

#[test]
fn scores_beside_class_names_are_measured() {
    let network = Network::new(TEXT, Npy::ramp(&[40, 16]));
    let (out, run) = network.run("--placement all --json");
    let report = run.ok().json();
    assert!(report["notes"].to_string().contains("`label` is text and not compared"), "{report}");
    let outputs = report["quality"]["outputs"].as_array().unwrap();
    assert_eq!((outputs.len(), &outputs[0]["name"], &outputs[0]["kind"]), (1, &json!("scores"), &json!("scores")));
    let call = args!["evaluate", out, "--reference", network.float, "--calib", network.data];
    let said = msq(call).ok().stdout;
    assert!(said.contains("`label` is text and not compared"), "{said}");
    let found = msq(&[call.as_slice(), args!["--json"]].concat()).ok().json();
    assert_eq!(found["text_outputs"], json!(["label"]));
    assert!(found["lost"].as_f64().unwrap() < 0.2, "{found}");
    let found = msq(args!["compare", network.float, out, "--calib", network.data, "--json"]).ok().json();
    assert_eq!(found["text_outputs"], json!(["label"]));
    let names: Vec<String> = load_outputs(&out);
    assert_eq!(names, ["label", "scores"], "the file has them all");
}

fn load_outputs(path: &std::path::Path) -> Vec<String> {
    let model = msq_onnx::load(path).unwrap();
    model.graph.outputs().map(|value| model.graph.value(value).name().to_owned()).collect()
}
