//! What a target that runs nothing but integers takes between quantizers, and what it leaves in float, with the reason.

#![allow(clippy::unwrap_used)]

use super::{Placement, Role};
use crate::ir::{Model, check, import, text};
use crate::target::Profile;

fn placed(body: &str, profile: &Profile) -> (Model, Placement) {
    let text = format!("<ir_version: 9, opset_import: [\"\": 18]> g {body}");
    let model = import(text::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"))).unwrap();
    check(&model).unwrap();
    let placement = Placement::new(&model, profile, |_, _, _| None);
    (model, placement)
}

/// Operators in float of `qnn`, each with a part of the reason.
#[track_caller]
fn kept(body: &str, expected: &[(&str, &str)]) {
    let (_, placement) = placed(body, &Profile::QNN);
    let found: Vec<(&str, &str)> = placement.kept.iter().map(|k| (k.op.as_str(), k.reason.as_str())).collect();
    let fits = found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, wanted)| found.0 == wanted.0 && found.1.contains(wanted.1));
    assert!(fits, "{found:?}");
}

/// A node between two convolutions of a 4-channel image.
fn between(nodes: &str, constants: &str) -> String {
    format!(
        "(float[1,4,8,8] x) => (float y)
         <float[4,4,1,1] w = {{}}, float[4,4,1,1] v = {{}} {constants}>
         {{ a = Conv (x, w) {nodes} y = Conv (b, v) }}"
    )
}

#[test]
fn movements_keep_the_parameters_of_their_input() {
    for (node, constants) in [
        ("Resize <mode = \"linear\"> (a, , scales)", ", float[4] scales = {1, 1, 2, 2}"),
        (
            "Resize <coordinate_transformation_mode = \"asymmetric\", nearest_mode = \"floor\"> (a, , scales)",
            ", float[4] scales = {1, 1, 2, 2}",
        ),
        ("ReduceMax (a, axes)", ", int64[2] axes = {2, 3}"),
        ("GlobalMaxPool (a)", ""),
        ("Expand (a, shape)", ", int64[4] shape = {2, 4, 8, 8}"),
        ("Tile (a, repeats)", ", int64[4] repeats = {1, 1, 2, 2}"),
        ("Pad (a, pads)", ", int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}"),
    ] {
        let (model, placement) = placed(&between(&format!("b = {node}"), constants), &Profile::QNN);
        assert_eq!(placement.kept, [], "{node}");
        let [a, b] = ["a", "b"].map(|name| model.graph.find(name).unwrap());
        assert_eq!(placement.root(b), a, "{node}");
    }
}

#[test]
fn arithmetic_has_ranges_of_its_own() {
    for (node, constants) in [
        ("Neg (a)", ""),
        ("Abs (a)", ""),
        ("Exp (a)", ""),
        ("Pow (a, e)", ", float e = {2}"),
        ("PRelu (a, slope)", ", float[4,1,1] slope = {0.1, 0.2, 0.3, 0.4}"),
        ("Max (a, x)", ""),
        ("LogSoftmax <axis = 1> (a)", ""),
        ("ReduceSum (a, axes)", ", int64[2] axes = {2, 3}"),
        ("ReduceMean (a, axes)", ", int64[2] axes = {2, 3}"),
        ("InstanceNormalization (a, scale, offset)", ", float[4] scale = {1, 2, 3, 4}, float[4] offset = {1, 0, 1, 2}"),
    ] {
        let (model, placement) = placed(&between(&format!("b = {node}"), constants), &Profile::QNN);
        assert_eq!(placement.kept, [], "{node}");
        let b = model.graph.find("b").unwrap();
        assert_eq!(placement.values.get(&b), Some(&b), "{node}");
        // Axes and offsets are no activations.
        let quantized = |name: &str| model.graph.find(name).is_some_and(|v| placement.values.contains_key(&v));
        assert!(!quantized("axes") && !quantized("offset"), "{node}");
    }
}

#[test]
fn indices_are_read_from_integers() {
    let body = "(float[1,4,8,8] x) => (int64[1,1,16,16] y)
        <float[4,4,1,1] w = {}, float[4] scales = {1, 1, 2, 2}>
        { a = Conv (x, w) b = Resize <mode = \"linear\"> (a, , scales) y = ArgMax <axis = 1> (b) }";
    let (model, placement) = placed(body, &Profile::QNN);
    assert_eq!(placement.kept, []);
    let [b, y] = ["b", "y"].map(|name| model.graph.find(name).unwrap());
    let (finder, _) = model.graph.value(y).producer().unwrap();
    assert_eq!(placement.nodes.get(&finder), Some(&Role::Index));
    assert!(placement.values.contains_key(&b) && !placement.values.contains_key(&y));
    // Of integers that are no quantized values nothing is asked.
    kept("(int64[1,4] x) => (int64[1,1] y) { y = ArgMax <axis = 1> (x) }", &[("ArgMax", "not quantized")]);
}

#[test]
fn what_the_kernel_does_not_take_stays_float() {
    for (node, constants, reason) in [
        ("Resize <mode = \"cubic\"> (a, , scales)", ", float[4] scales = {1, 1, 2, 2}", "`mode` nearest, linear"),
        (
            "Resize <coordinate_transformation_mode = \"asymmetric\"> (a, , scales)",
            ", float[4] scales = {1, 1, 2, 2}",
            "without `mode` nearest and `coordinate_transformation_mode` asymmetric",
        ),
        ("Pow (a, e)", ", float e = {-1}", "where input 1 is one number above 0"),
        ("Max (a, x, a)", "", "with 2 inputs"),
        ("ReduceMax (a, a)", "", "where input 1 is constant"),
        ("LayerNormalization <axis = 1> (a, scale)", ", float[4,8,8] scale = {}", "over the last axis"),
    ] {
        let (_, placement) = placed(&between(&format!("b = {node}"), constants), &Profile::QNN);
        let said: Vec<&str> = placement.kept.iter().map(|kept| kept.reason.as_str()).collect();
        assert!(said.len() == 1 && said[0].contains(reason), "{node}: {said:?}");
    }
    kept(
        "(float[1,2,2,2,4] x) => (int64[1,2,2,2,1] y) { y = ArgMax <axis = 4> (x) }",
        &[("ArgMax", "with 1 to 4 axes, not 5")],
    );
}

#[test]
fn a_clamp_whose_input_others_read_is_a_node_on_integers() {
    let body = between("r = Relu (a) b = Add (r, a)", "");
    assert_eq!(placed(&body, &Profile::QNN).1.kept, []);
    assert!(placed(&body, &Profile::ORT_CPU).1.kept.iter().any(|kept| kept.op == "Relu"));
    // A quantizer stands for it where nothing else reads its input.
    let (model, placement) = placed(&between("b = Relu (a)", ""), &Profile::QNN);
    let (relu, _) = model.graph.value(model.graph.find("b").unwrap()).producer().unwrap();
    assert!(placement.absorbed.contains_key(&relu));
}

#[test]
fn roots_of_squares_stay_float() {
    let reason = "root of squares";
    let scaled = "(float[1,8,4] x) => (float[1,8,4] y) <float[4,4] w = {}, float[4,4] v = {}, float two = {2},
        float eps = {0.00001}, int64[1] axes = {-1}>";
    kept(
        &format!(
            "{scaled} {{ a = MatMul (x, w) p = Pow (a, two) m = ReduceMean (p, axes) e = Add (m, eps) r = Sqrt (e)
               i = Reciprocal (r) n = Mul (a, i) y = MatMul (n, v) }}"
        ),
        &["Pow", "ReduceMean", "Add", "Sqrt", "Reciprocal", "Mul"].map(|op| (op, reason)),
    );
    kept(
        &format!(
            "{scaled} {{ a = MatMul (x, w) p = Mul (a, a) m = ReduceSum (p, axes) r = Sqrt (m) c = Clip (r, eps)
               n = Div (a, c) y = MatMul (n, v) }}"
        ),
        &["Mul", "ReduceSum", "Sqrt", "Clip", "Div"].map(|op| (op, reason)),
    );
    // What is no square is an operator as any other, and so is the square of a number that nothing takes the root of.
    kept(
        &format!("{scaled} {{ a = MatMul (x, w) s = Sigmoid (a) r = Sqrt (s) n = Div (a, r) y = MatMul (n, v) }}"),
        &[],
    );
    kept(&format!("{scaled} {{ a = MatMul (x, w) p = Pow (a, two) n = Add (a, p) y = MatMul (n, v) }}"), &[]);
}

/// Halves of a vector change places, one of them with the other sign.
#[test]
fn rotations_are_on_integers() {
    kept(
        "(float[1,8,4] x) => (float[1,8,4] y)
         <float[4,4] w = {}, float[4,4] v = {}, float[8,4] cosine = {}, float[8,4] sine = {}, int64[1] axis = {-1},
          int64[1] zero = {0}, int64[1] two = {2}, int64[1] four = {4}>
         { a = MatMul (x, w) c = Mul (a, cosine) l = Slice (a, zero, two, axis) h = Slice (a, two, four, axis)
           m = Neg (h) r = Concat <axis = -1> (m, l) s = Mul (r, sine) b = Add (c, s) y = MatMul (b, v) }",
        &[],
    );
}

/// The operators that read what `OpenVINO` gets quantized of a maximum over the rows of a float value, with these nodes behind
/// it, from m to s.
fn quantized_before(nodes: &str, skipped: &str) -> Vec<String> {
    let text = format!(
        "<ir_version: 8, opset_import: [\"\": 17]> g (float[1,8,6] x) => (float[1,5] y)
        <float[6,5] w = {{}}, int64[1] rows = {{1}}, float half = {{0.5}}, float[1,6] row = {{}}>
        {{ e = Exp (x) m = ReduceMax <axes = [1], keepdims = 0> (e) {nodes} y = MatMul (s, w) }}"
    );
    let model = import(text::parse(&text).unwrap()).unwrap();
    let skip = |node: &crate::ir::Node| (node.op() == skipped).then(|| "asked for".to_owned());
    let placement = Placement::new(&model, &Profile::OPENVINO, |_, node, _| skip(node));
    let readers = placement.roots().flat_map(|root| model.graph.value(root).uses().to_vec());
    let mut readers: Vec<String> = readers.map(|reader| model.graph.node(reader.node).op().to_owned()).collect();
    readers.sort();
    readers
}

#[test]
fn quantizers_stand_in_front_of_what_computes_them_wrong_behind() {
    let moved = "u = Unsqueeze (m, rows) s = Squeeze (u, rows)";
    assert_eq!(quantized_before(moved, ""), ["ReduceMax"]);
    assert_eq!(quantized_before(moved, "ReduceMax"), ["MatMul"]);
    // Joined across nodes in float.
    assert_eq!(quantized_before("s = Sigmoid (m)", ""), ["MatMul", "ReduceMax"]);
    assert_eq!(quantized_before("h = Mul (m, half) s = Elu (h)", ""), ["MatMul", "ReduceMax"]);
    assert_eq!(quantized_before("s = Concat <axis = 0> (m, row)", "Concat"), ["MatMul", "ReduceMax"]);
    // The runtime does not join what two activations make.
    assert_eq!(quantized_before("d = ReduceMean <axes = [1], keepdims = 0> (e) s = Sub (m, d)", ""), ["MatMul"]);
}

/// `OpenVINO` computes functions of a layer's output within the layer; onnxruntime has integer kernels for their nodes.
#[test]
fn activations_of_several_nodes_stay_within_layers() {
    let text = "<ir_version: 8, opset_import: [\"\": 17]> g (float[1,8,6,6] x) => (float[1,8,6,6] y)
        <float[8,8,1,1] w = {}, float[8,8,1,1] v = {}, float three = {3}, float low = {0}, float six = {6}, float sixth = {0.1666}>
        { c = Conv (x, w) a = Add (c, three) g = Clip (a, low, six) m = Mul (c, g) h = Mul (m, sixth)
          p = GlobalAveragePool (h) s = Mul (h, p) y = Conv (s, v) }";
    let model = import(text::parse(text).unwrap()).unwrap();
    let on_integers = |profile: &'static Profile| -> Vec<String> {
        let placement = Placement::new(&model, profile, |_, _, _| None);
        let nodes = model.graph.nodes().filter(|(id, _)| placement.nodes.contains_key(id));
        nodes.map(|(_, node)| node.op().to_owned()).collect()
    };
    assert_eq!(on_integers(&Profile::OPENVINO), ["Conv", "Conv"]);
    assert_eq!(on_integers(&Profile::QNN), ["Conv", "Add", "Mul", "GlobalAveragePool", "Mul", "Conv"]);
}

/// Below c/α nothing is left of a value of which a clamp from c reads α times as much.
#[test]
fn ranges_end_where_a_clamp_behind_a_slope_begins() {
    let floor = |nodes: &str| {
        let profile = Profile { leaves_slow: false, ..Profile::ORT_CPU };
        let (model, placement) = placed(&between(nodes, ", float low = {-0.5}"), &profile);
        let value = model.graph.find("a").unwrap();
        placement.floor_of(&model.graph, value)
    };
    assert_eq!(floor("c = LeakyRelu <alpha = 0.25> (a) b = Clip (c, low)"), Some(-2.0));
    assert_eq!(floor("b = Clip (a, low)"), Some(-0.5));
    assert_eq!(floor("c = LeakyRelu <alpha = 0.25> (a) b = Neg (c)"), None);
    assert_eq!(floor("c = LeakyRelu <alpha = 0.25> (a) d = Clip (c, low) b = Add (d, a)"), None);
}
