//! Input models that are no models, or none to quantize.

use super::{refused, refused_with};
use crate::common::models::{digits_proto, graph, initializer, parse, set_element, write};
use crate::common::{Scratch, args, digits, msq, quantize_digits};
use msq_passes::ir::{DataType, ModelProto};

/// Digits with a change, refused.
#[track_caller]
fn refused_change(change: impl FnOnce(&mut ModelProto), code: i32, parts: &[&str]) {
    let scratch = Scratch::new();
    let mut model = digits_proto();
    change(&mut model);
    refused(&scratch, &write(&scratch.path("model.onnx"), &model), code, parts);
}

/// Bytes that look random and are always the same.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn files_that_are_no_model() {
    let scratch = Scratch::new();
    refused(&scratch, &scratch.path("nosuch.onnx"), 3, &["nosuch.onnx"]);
    refused(&scratch, &scratch.path("out"), 3, &["out"]);
    refused(&scratch, &scratch.write("empty.onnx", ""), 3, &["empty.onnx", "empty"]);
    refused(&scratch, &scratch.write("noise.onnx", noise(5000)), 3, &["noise.onnx", "not an ONNX model"]);
    refused(&scratch, &scratch.write("text.onnx", "This is a text.\n"), 3, &["text.onnx", "not an ONNX model"]);
    refused(&scratch, &scratch.write("zeros.onnx", [0; 1000]), 3, &["zeros.onnx", "not an ONNX model"]);
    refused(&scratch, &digits("README.md"), 3, &["README.md", "not an ONNX model"]);
    refused(&scratch, &digits("calib.npz"), 3, &["calib.npz", "not an ONNX model"]);
    let magic = [b"\x89PNG\r\n\x1a\n".as_slice(), &noise(200)].concat();
    refused(&scratch, &scratch.write("magic.onnx", magic), 3, &["magic.onnx", "not an ONNX model"]);
}

#[test]
fn truncated_files() {
    let scratch = Scratch::new();
    let whole = std::fs::read(digits("digits.onnx")).unwrap();
    let mut lengths: Vec<usize> = (1..whole.len()).step_by(whole.len() / 40).collect();
    lengths.push(whole.len() - 1);
    for length in lengths {
        refused(&scratch, &scratch.write("cut.onnx", &whole[..length]), 3, &["cut.onnx"]);
    }
    let path = scratch.write("cut.onnx", &whole[..50_000]);
    refused(&scratch, &path, 3, &["the file ends inside `graph.initializer[", "byte 50,000 of 50,000"]);
}

/// Cut between two fields of the outermost message, the rest is a valid message without graph or opsets.
#[test]
fn messages_without_the_essentials() {
    refused_change(|m| m.graph = None, 3, &["model.onnx", "no graph"]);
    refused_change(|m| m.ir_version = None, 3, &["model.onnx", "IR version"]);
}

#[test]
fn operator_sets() {
    refused_change(|m| m.opset_import[0].version = Some(4), 3, &["opset", "4"]);
    refused_change(|m| m.opset_import.clear(), 3, &["opset"]);
}

#[test]
fn newer_than_known() {
    refused_change(|m| m.ir_version = Some(15), 3, &["model.onnx", "IR version is 15"]);
    refused_change(|m| m.opset_import[0].version = Some(99), 3, &["model.onnx", "opset is 99"]);
}

#[test]
fn graphs_that_contradict_themselves() {
    refused_change(|m| graph(m).node[3].input[0] = "nosuch".to_owned(), 3, &["`nosuch`", "`res.conv1.conv`"]);
    refused_change(|m| graph(m).output[0].name = Some("nosuch".to_owned()), 3, &["`nosuch`"]);
    refused_change(|m| graph(m).node[4].output[0] = "stem.relu_out".to_owned(), 3, &["`stem.relu_out`", "twice"]);
    refused_change(|m| graph(m).node[0].domain = Some("com.nosuch".to_owned()), 3, &["com.nosuch"]);
}

/// A pass that replaces the node would lose the second.
#[test]
fn more_outputs_than_the_operator_has() {
    refused_change(|m| graph(m).node[0].output.push("more".to_owned()), 3, &["Conv has one output", "wants 2"]);
}

#[test]
fn cycles() {
    let close = |m: &mut ModelProto| graph(m).node[0].input[0] = graph(m).node[2].output[0].clone();
    refused_change(close, 3, &["before it is computed", "form a cycle"]);
}

/// A model in a model in a model: read by recursion, it would exhaust the stack.
#[test]
fn graphs_nested_without_end() {
    let field = |number: u64, bytes: &[u8]| {
        let mut field = Vec::new();
        for mut varint in [number << 3 | 2, bytes.len() as u64] {
            while varint > 0x7f {
                field.push(varint as u8 | 0x80);
                varint >>= 7;
            }
            field.push(varint as u8);
        }
        [&field, bytes].concat()
    };
    let scratch = Scratch::new();
    // Fields of ONNX: a graph is 6 of an attribute, which is 5 of a node, which is 1 of a graph; 7 of the model.
    let graph = (0..2000).fold(Vec::new(), |graph, _| field(1, &field(5, &field(6, &graph))));
    let bytes = [vec![8, 8], field(7, &graph)].concat();
    refused(&scratch, &scratch.write("deep.onnx", bytes), 3, &["deep.onnx", "not an ONNX model", "recursion limit"]);
}

#[test]
fn damaged_tensors() {
    refused_change(|m| initializer(m, "stem.weight").dims[0] = 25, 3, &["`stem.weight`"]);
    refused_change(|m| initializer(m, "stem.weight").dims[0] = -1, 3, &["`stem.weight`"]);
    refused_change(|m| initializer(m, "stem.weight").dims = vec![i64::MAX, i64::MAX], 3, &["`stem.weight`"]);
    // Counted carelessly, the bits of 2^59 elements are none.
    refused_change(
        |m| {
            let tensor = initializer(m, "stem.weight");
            (tensor.dims, tensor.raw_data) = (vec![1 << 59], Some(Vec::new().into()));
        },
        3,
        &["`stem.weight`"],
    );
    // None in all, but beyond counting along two of the axes.
    refused_change(
        |m| {
            let tensor = initializer(m, "stem.weight");
            (tensor.dims, tensor.raw_data) = (vec![0, 1 << 40, 1 << 40], Some(Vec::new().into()));
        },
        3,
        &["`stem.weight`", "is not possible"],
    );
    refused_change(
        |m| {
            let raw = initializer(m, "stem.weight").raw_data.take().unwrap();
            initializer(m, "stem.weight").raw_data = Some(raw.slice(..raw.len() - 2));
        },
        3,
        &["`stem.weight`"],
    );
}

#[test]
fn unknown_element_types() {
    refused_change(|m| initializer(m, "stem.weight").data_type = None, 3, &["`stem.weight`"]);
    refused_change(|m| initializer(m, "stem.weight").data_type = Some(77), 3, &["`stem.weight`"]);
}

#[test]
fn weights_that_are_no_numbers() {
    for (value, text) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        refused_change(|m| set_element(m, "res.conv2.weight", 100, value), 3, &["`res.conv2.weight`", text, "100"]);
    }
    refused_change(|m| set_element(m, "head.bias", 3, f32::NAN), 3, &["`head.bias`", "NaN"]);
    refused_change(|m| set_element(m, "stem.bn.var", 0, f32::NAN), 3, &["`stem.bn.var`", "NaN"]);
}

/// Finite on their own, the statistics give infinite weights once folded.
#[test]
fn batch_norm_that_overflows() {
    let scratch = Scratch::new();
    let mut model = digits_proto();
    set_element(&mut model, "stem.bn.gamma", 0, f32::MAX);
    let path = write(&scratch.path("model.onnx"), &model);
    let run = msq(args![path, "-o", scratch.out("out.onnx"), "--calib", digits("calib.npz")]);
    assert!(matches!(run.code, Some(3 | 4)), "{run:?}");
    run.error(run.code.unwrap());
    assert_eq!(scratch.outputs(), Vec::<String>::new());
}

#[test]
fn nothing_to_quantize() {
    let scratch = Scratch::new();
    let text = "<ir_version: 8, opset_import: [\"\": 17]> net (float[N,1,8,8] image) => (float[N,1,8,8] y)
        { y = Relu (image) }";
    let path = write(&scratch.path("relu.onnx"), &parse(text));
    refused(&scratch, &path, 3, &["no layer with float weights"]);
    let text = "<ir_version: 8, opset_import: [\"\": 17]> net (float[N,1,8,8] image) => (float[N,1,8,8] y)
        { y = MatMul (image, image) }";
    let path = write(&scratch.path("matmul.onnx"), &parse(text));
    refused(&scratch, &path, 3, &["no layer with float weights"]);
    // Of XGBoost, of CatBoost: nothing is of the default domain, and nothing imports it.
    let text = "<ir_version: 8, opset_import: [\"ai.onnx.ml\": 3]> net (float[N,1,8,8] image) => (float[N,1] y) {
        s = ai.onnx.ml.Scaler <offset = [0.0, 1.0], scale = [1.0, 0.5]> (image)
        [trees] y = ai.onnx.ml.TreeEnsembleRegressor <n_targets = 1, nodes_treeids = [0, 0, 0], nodes_nodeids = [0, 1, 2],
            nodes_featureids = [0, 0, 0], nodes_values = [1.0, 0.0, 0.0], nodes_modes = [\"BRANCH_LEQ\", \"LEAF\", \"LEAF\"],
            nodes_truenodeids = [1, 0, 0], nodes_falsenodeids = [2, 0, 0], target_treeids = [0, 0],
            target_nodeids = [1, 2], target_ids = [0, 0], target_weights = [1.0, 2.0]> (s)
    }";
    let path = write(&scratch.path("trees.onnx"), &parse(text));
    refused(&scratch, &path, 3, &["no layer with float weights", "`trees` (TreeEnsembleRegressor)"]);
    let text =
        "<ir_version: 8, opset_import: [\"\": 17]> net () => (float[2] y) <float[2] c = {1, 2}> { y = Relu (c) }";
    let path = write(&scratch.path("constant.onnx"), &parse(text));
    let run = msq(args![path, "-o", scratch.out("out.onnx"), "--quiet"]);
    assert!(matches!(run.code, Some(3 | 4)), "{run:?}");
    run.error(run.code.unwrap());
}

#[test]
fn quantized_already() {
    let scratch = Scratch::new();
    let made = quantize_digits(&scratch, "made.onnx", args!["--calib", digits("calib.npz")]);
    let path = scratch.path("quantized.onnx");
    std::fs::rename(made, &path).unwrap();
    refused(&scratch, &path, 3, &["quantized already", "QuantizeLinear", "float model"]);
    // The model is looked at before anything is said of the data.
    refused_with(&scratch, &path, &[], 3, &["quantized already"]);
    refused_with(&scratch, &path, args!["--calib", scratch.path("nosuch.npz")], 4, &["nosuch.npz"]);
    // Also where no quantizer says so.
    let weights = args!["--calib", digits("calib.npz"), "--weight-bits", "4", "--act-bits", "float"];
    let made = quantize_digits(&scratch, "weights.onnx", weights);
    let path = scratch.path("weights.onnx");
    std::fs::rename(made, &path).unwrap();
    refused(&scratch, &path, 3, &["quantized already", "float model"]);
}

/// Half precision has no int8 form here yet; whatever becomes of such a model, it is not a crash.
#[test]
fn half_precision_is_answered_in_one_line_or_quantized() {
    let scratch = Scratch::new();
    let mut model = digits_proto();
    let weight = initializer(&mut model, "head.weight");
    weight.data_type = Some(DataType::Float16.number());
    weight.raw_data = Some(weight.raw_data.take().unwrap().slice(..800));
    let path = write(&scratch.path("model.onnx"), &model);
    let run = msq(args![path, "-o", scratch.out("out.onnx"), "--calib", digits("calib.npz")]);
    if run.code != Some(0) {
        run.error(3);
        assert_eq!(scratch.outputs(), Vec::<String>::new());
    }
}

#[test]
fn shapes_that_contradict_each_other() {
    let scratch = Scratch::new();
    let of = |text: &str| write(&scratch.path("model.onnx"), &parse(text));
    let product = "<ir_version: 8, opset_import: [\"\": 17]> net (float[N,16] x) => (float[N,2] y)
        <float[3,2] w = {1, 2, 3, 4, 5, 6}> { [fc] y = MatMul (x, w) }";
    // Without data, which are looked at before.
    refused_with(&scratch, &of(product), &[], 3, &["node `fc` (MatMul)", "16 is not 3"]);
    let silent = "<ir_version: 8, opset_import: [\"\": 17]> net (float[N,3] x) => () { y = Relu (x) }";
    refused_with(&scratch, &of(silent), &[], 3, &["no outputs"]);
}

#[test]
fn other_commands_refuse_alike() {
    let scratch = Scratch::new();
    let broken = scratch.write("broken.onnx", noise(5000));
    assert!(msq(args!["inspect", broken]).error(3).contains("broken.onnx"));
    assert!(msq(args!["print", broken]).error(3).contains("broken.onnx"));
    assert!(msq(args!["evaluate", broken, "--calib", digits("test.npz")]).error(3).contains("broken.onnx"));
}
