//! Whatever onnxruntime loads is taken: models that break the letter of the format, that compute in other types, that
//! hide their layers in functions. Each is quantized, and onnxruntime compares the file with the float model.

use crate::common::arrays::{Npy, write_npz};
use crate::common::python::{check_model, ran};
use crate::common::{Scratch, args, models, msq};
use msq_passes::ir::{DimValue, ModelProto, SparseTensorProto, StringStringEntryProto, TensorProto, TypeValue};
use serde_json::Value;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Two convolutions. Sides are open, so that nothing is known of which form would be faster.
const NETWORK: &str = "<ir_version: 8, opset_import: [\"\": 17]>
    net (float[N,3,H,W] x) => (float[N,4,H,W] y)
    <float[8,3,3,3] a = {}, float[8] b = {}, float[4,8,1,1] c = {}>
    {
        [first] t = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, a, b)
        [between] r = Relu (t)
        [last] y = Conv <kernel_shape = [1, 1]> (r, c)
    }";

struct Case {
    scratch: Scratch,
    float: PathBuf,
    data: PathBuf,
}

impl Case {
    fn new(proto: &ModelProto, arrays: &[(&str, Npy)]) -> Self {
        let scratch = Scratch::new();
        let float = models::write(&scratch.path("float.onnx"), proto);
        let data = scratch.path("data.npz");
        write_npz(&data, arrays);
        Self { scratch, float, data }
    }

    /// Of a network that reads images `x`.
    fn of_images(proto: &ModelProto) -> Self {
        Self::new(proto, &[("x", Npy::ramp(&[8, 3, 8, 8]))])
    }

    /// Quantizes with the data and returns the report; so many layers run on integers.
    #[track_caller]
    fn quantized(&self, on_integers: usize, more: &[OsString]) -> Value {
        let own = args![
            self.float,
            "-o",
            self.output(),
            "--calib",
            self.data,
            "--json",
            "--keep-names",
            "--placement",
            "all",
            "--no-repair"
        ];
        let report = msq(&[own, more].concat()).ok().json();
        let layers = report["layers"].as_array().unwrap();
        let integers = layers.iter().filter(|layer| !layer["activation_bits"].is_null()).count();
        // Small layers of known shape may be left in float because they are faster there; they were observed then.
        let slower = |node: &&Value| node["reason"].as_str().unwrap().contains("would be slower");
        let faster_in_float = report["kept"].as_array().unwrap().iter().filter(slower).count();
        assert_eq!(integers + faster_in_float, on_integers, "{report}");
        report
    }

    fn output(&self) -> PathBuf {
        self.scratch.out("out.onnx")
    }

    /// Asks onnxruntime for the outputs of both models, which have to be alike to so many decibels.
    #[track_caller]
    fn is_alike(&self, decibels: f64) {
        let (output, float) = (self.output(), self.float.clone());
        alike([&float, &output], &self.data, decibels);
    }
}

#[track_caller]
fn alike(models: [&Path; 2], data: &Path, decibels: f64) {
    let Some(ran) = ran("lenient", &models.map(|model| (model, data))) else { return };
    let valid = check_model(args!["check", models[1]]).unwrap();
    assert_eq!(valid["ok"], true, "{valid}");
    assert_eq!(ran[0].outputs.keys().collect::<Vec<_>>(), ran[1].outputs.keys().collect::<Vec<_>>());
    for (name, wanted) in &ran[0].outputs {
        let found = &ran[1].outputs[name];
        assert_eq!(wanted.len(), found.len(), "{name}");
        let power: f64 = wanted.iter().map(|&v| f64::from(v).powi(2)).sum();
        let noise: f64 = wanted.iter().zip(found).map(|(&a, &b)| f64::from(a - b).powi(2)).sum();
        let ratio = 10.0 * (power / noise.max(1e-30)).log10();
        assert!(power > 0.0 && ratio >= decibels, "`{name}` is {ratio:.1} dB from the float model");
    }
}

fn notes(report: &Value) -> String {
    report["notes"].to_string()
}

#[test]
fn nodes_in_any_order() {
    let mut proto = models::parse(NETWORK);
    models::graph(&mut proto).node.reverse();
    let case = Case::of_images(&proto);
    case.quantized(2, &[]);
    case.is_alike(25.0);
}

#[test]
fn names_that_collide() {
    for names in [["t", "r", "y"], ["r", "y", "t"], ["x", "a", "c"], ["", "t", ""], ["first", "", "t"]] {
        let mut proto = models::parse(NETWORK);
        for (node, name) in models::graph(&mut proto).node.iter_mut().zip(names) {
            node.name = Some(name.to_owned());
        }
        let case = Case::of_images(&proto);
        case.quantized(2, &[]);
        case.is_alike(25.0);
    }
}

/// In both types, with casts at the ends only.
#[test]
fn half_precision() {
    let text = NETWORK.replace("float[", "float16[");
    let case = Case::of_images(&models::parse(&text));
    let report = case.quantized(2, &[]);
    assert!(notes(&report).contains("the network computes in float16"), "{report}");
    let model = msq_onnx::load(&case.output()).unwrap();
    let ops: Vec<&str> = model.graph.nodes().map(|(_, node)| node.op()).filter(|op| *op == "Cast").collect();
    assert_eq!(ops.len(), 2, "{ops:?}");
    case.is_alike(25.0);
}

#[test]
fn half_precision_between_casts() {
    let text = NETWORK
        .replace("float[8,", "float16[8,")
        .replace("float[8]", "float16[8]")
        .replace("float[4,8", "float16[4,8")
        .replace("(x, a, b)", "(x16, a, b)")
        .replace("[first]", "x16 = Cast <to = 10> (x) [first]")
        .replace("[last] y", "[last] y16")
        .replace("(r, c)", "(r, c) y = Cast <to = 1> (y16)");
    let case = Case::of_images(&models::parse(&text));
    case.quantized(2, &[]);
    let model = msq_onnx::load(&case.output()).unwrap();
    assert!(model.graph.nodes().all(|(_, node)| node.op() != "Cast"), "a cast is left");
    case.is_alike(25.0);
}

/// onnxruntime has products of doubles, and no convolutions. The mask is the lowest double.
#[test]
fn doubles() {
    let text = "<ir_version: 8, opset_import: [\"\": 17]>
        net (double[N,8] x) => (double[N,4] y)
        <double[8,8] a = {}, double[8,4] b = {},
         double[8] mask = {0.0, -1.7976931348623157e308, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0}>
        { t = MatMul (x, a)  m = Add (t, mask)  s = Softmax <axis = -1> (m)  y = MatMul (s, b) }";
    let case = Case::new(&models::parse(text), &[("x", Npy::ramp(&[8, 8]))]);
    let report = case.quantized(2, &[]);
    assert!(notes(&report).contains("the network computes in double"), "{report}");
    case.is_alike(25.0);
}

#[test]
fn functions_in_functions_and_branches() {
    let text = "<ir_version: 8, opset_import: [\"\": 17, \"local\": 1]>
        net (float[1,3,8,8] x) => (float[1,4,8,8] y)
        <float[8,3,3,3] a = {}, float[8] b = {}, float[4,8,1,1] c = {}, float[4] d = {}, float zero = {0.0}>
        {
            [one] r = local.layer <slope = 0.1> (x, a, b)
            mean = ReduceMean <keepdims = 0> (x)
            positive = Greater (mean, zero)
            q = If (positive) <
                then_branch = yes () => (float[1,8,8,8] p) { p = local.twice (r) },
                else_branch = no () => (float[1,8,8,8] n) { n = Neg (r) }
            >
            y = Conv <kernel_shape = [1, 1]> (q, c, d)
        }
        <domain: \"local\", opset_import: [\"\": 17]>
        layer <slope> (v, w, bias) => (r)
        {
            t = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (v, w, bias)
            r = LeakyRelu <alpha: float = @slope> (t)
        }
        <domain: \"local\", opset_import: [\"\": 17, \"local\": 1]>
        twice (v) => (r) { t = local.doubled (v)  r = local.doubled (t) }
        <domain: \"local\", opset_import: [\"\": 17]>
        doubled (v) => (r) { r = Add (v, v) }";
    let case = Case::new(&models::parse(text), &[("x", Npy::ramp(&[8, 3, 8, 8]))]);
    case.quantized(2, &[]);
    let model = msq_onnx::load(&case.output()).unwrap();
    assert!(!model.has_functions());
    let run = msq(args!["evaluate", case.float, "--reference", case.float, "--calib", case.data, "--json"]).ok();
    assert_eq!(run.json()["samples"], 8);
    case.is_alike(25.0);
}

#[test]
fn initializers_that_are_inputs() {
    let listed = "net (float[N,3,H,W] x, float[8,3,3,3] a, float[8] b, float[4,8,1,1] c)";
    let text = NETWORK.replace("net (float[N,3,H,W] x)", listed);
    let case = Case::of_images(&models::parse(&text));
    let report = case.quantized(2, &[]);
    assert!(notes(&report).contains("3 inputs with defaults"), "{report}");
    assert_eq!(msq_onnx::load(&case.output()).unwrap().graph.inputs().len(), 1);
    case.is_alike(25.0);
    let run = msq(args![case.float, "-o", case.output(), "--calib", case.data, "--freeze-initializers", "none"]);
    assert!(run.error(3).contains("`first`"), "{}", run.stderr);
}

/// A gain is no weight: the caller may feed it as before.
#[test]
fn a_default_that_is_no_weight_stays_an_input() {
    let text = NETWORK
        .replace("net (float[N,3,H,W] x)", "net (float[N,3,H,W] x, float[8,3,3,3] a, float gain)")
        .replace("float[8] b = {}", "float[8] b = {}, float gain = {2.0}")
        .replace("[last] y", "[last] z")
        .replace("(r, c)", "(r, c) y = Mul (z, gain)");
    let case = Case::of_images(&models::parse(&text));
    case.quantized(2, &[]);
    let model = msq_onnx::load(&case.output()).unwrap();
    let inputs: Vec<&str> = model.graph.inputs().map(|value| model.graph.value(value).name()).collect();
    assert_eq!(inputs, ["x", "gain"]);
    case.is_alike(25.0);
}

/// Without data, whose scale is taken from the batch-norm behind a first convolution that a caller may override.
#[test]
fn a_first_weight_that_is_an_input() {
    let text = "<ir_version: 8, opset_import: [\"\": 17]>
        net (float[N,3,8,8] x, float[8,3,3,3] a) => (float[N,4,8,8] y)
        <float[8,3,3,3] a = {}, float[8] g = {}, float[8] m = {},  float[8] v = {},  # fill positive
         float[4,8,1,1] c = {}>
        {
            t = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, a)
            n = BatchNormalization (t, g, m, m, v)
            y = Conv <kernel_shape = [1, 1]> (n, c)
        }";
    let case = Case::of_images(&models::parse(text));
    for which in ["weights", "none"] {
        msq(args![case.float, "-o", case.output(), "--freeze-initializers", which]).ok();
    }
}

/// Moves the elements of all initializers to a file, as exporters do by default.
fn externalize(proto: &mut ModelProto, file: &Path) {
    let mut bytes = Vec::new();
    for tensor in &mut models::graph(proto).initializer {
        let raw = tensor.raw_data.clone().unwrap();
        let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let place = [("location", name), ("offset", bytes.len().to_string()), ("length", raw.len().to_string())];
        tensor.external_data = place.map(|(key, value)| entry(key, value)).to_vec();
        (tensor.data_location, tensor.raw_data) = (Some(1), None);
        bytes.extend_from_slice(&raw);
    }
    std::fs::write(file, bytes).unwrap();
}

/// The sum's operands are large enough to stay in their file until they are written.
#[test]
fn constants_of_sums_in_other_files() {
    let text = "<ir_version: 8, opset_import: [\"\": 17]>
        net (float[N,S,64] x) => (float[N,S,8] y)
        <float[64,2048] a = {}, float[2048] b = {}, float[2048,8] c = {}, float[8] d = {}>
        { t = MatMul (x, a)  s = Add (t, b)  r = Relu (s)  p = MatMul (r, c)  y = Add (p, d) }";
    let mut proto = models::parse(text);
    let data = || [("x", Npy::ramp(&[8, 4, 64]))];
    let inline = Case::new(&proto, &data());
    inline.quantized(2, &[]);
    let scratch = Scratch::new();
    externalize(&mut proto, &scratch.path("float.data"));
    let case = Case { float: models::write(&scratch.path("float.onnx"), &proto), data: inline.data.clone(), scratch };
    case.quantized(2, &[]);
    alike([&case.float, &case.output()], &case.data, 25.0);
}

#[test]
fn sparse_weights() {
    let mut proto = models::parse(NETWORK);
    let graph = models::graph(&mut proto);
    let dense = graph.initializer.pop().unwrap();
    let values = dense.to_f32().unwrap();
    let places: Vec<i64> = (0..values.len() as i64).step_by(3).collect();
    let kept: Vec<f32> = values.into_iter().step_by(3).collect();
    graph.sparse_initializer.push(SparseTensorProto {
        values: Some(TensorProto::from_f32("c", &[kept.len()], &kept)),
        indices: Some(TensorProto::from_i64("", &[places.len()], &places)),
        dims: dense.dims,
    });
    let case = Case::of_images(&proto);
    case.quantized(2, &[]);
    case.is_alike(25.0);
}

/// Dimensions without a name, of a length that cannot be, or no shape at all.
#[test]
fn inputs_that_say_little_of_their_shape() {
    for change in ["empty", "negative", "none"] {
        let mut proto = models::parse(&NETWORK.replace("float[N,4,H,W] y", "float[M,4,h,w] y"));
        let input = &mut models::graph(&mut proto).input[0];
        let Some(TypeValue::Tensor(tensor)) = input.r#type.as_mut().and_then(|ty| ty.value.as_mut()) else { panic!() };
        match change {
            "empty" => tensor.shape.as_mut().unwrap().dim[0].value = Some(DimValue::Param(String::new())),
            "negative" => tensor.shape.as_mut().unwrap().dim[0].value = Some(DimValue::Value(-1)),
            _ => tensor.shape = None,
        }
        let case = Case::of_images(&proto);
        case.quantized(2, &[]);
        let run = msq(args![case.float, "-o", case.output(), "--samples", "2"]).ok();
        assert!(run.stdout.contains("2 of 2 layers int8"), "{change}: {}{}", run.stdout, run.stderr);
    }
}

/// Without data: one name has one length, whatever the axes are.
#[test]
fn free_dimensions_of_one_name() {
    let text = "<ir_version: 8, opset_import: [\"\": 17]>
        net (float[1,1,S,32] a, float[1,2,S,32] b, float[S,S + 1] e, float[S + 1,4] f) => (float[1,8,S,32] y, float[S,4] z)
        <float[8,1,1,1] v = {}, float[8,2,1,1] w = {}, float[4,4] u = {}>
        {
            c = Conv <kernel_shape = [1, 1]> (a, v)
            d = Conv <kernel_shape = [1, 1]> (b, w)
            y = Add (c, d)
            g = MatMul (e, f)
            z = MatMul (g, u)
        }";
    let text = text.replace("S + 1", "\"S + 1\"");
    let scratch = Scratch::new();
    let float = models::write(&scratch.path("float.onnx"), &models::parse(&text));
    let run = msq(args![float, "-o", scratch.out("out.onnx")]).ok();
    assert!(!run.stderr.contains("only weights are quantized"), "{}{}", run.stdout, run.stderr);
}

/// Text among the outputs is not observed; the layers are.
#[test]
fn text_among_the_outputs() {
    let text = NETWORK
        .replace("(float[N,4,H,W] y)", "(float[N,4,H,W] y, string[M] s)")
        .replace("(r, c)", "(r, c) s = Constant <value_string = \"cat\"> ()");
    let text = text.replace("string[M]", "string");
    let case = Case::of_images(&models::parse(&text));
    case.quantized(2, &[]);
}

/// Nothing can be made up for text: weights alone become integers.
#[test]
fn text_among_the_inputs() {
    let text = NETWORK.replace("net (float[N,3,H,W] x)", "net (float[N,3,H,W] x, string[N] s)");
    let scratch = Scratch::new();
    let float = models::write(&scratch.path("float.onnx"), &models::parse(&text));
    let run = msq(args![float, "-o", scratch.out("out.onnx")]).ok();
    assert!(run.stderr.contains("only weights are quantized"), "{}", run.stderr);
    assert!(run.stderr.contains("the model's input `s` is `string`"), "{}", run.stderr);
}

/// The logarithm of noise is no number: floats are made up without signs, and where that does not help, weights alone become
/// integers. Ids keep to the shortest of the tables that columns of them index.
#[test]
fn inputs_that_cannot_be_of_any_sign() {
    let run = |logarithm: &str| {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": 17]> net (float[N,16] x, int64[N,2] ids) => (float[N,8] y)
             <float[24,8] w = {{}}, float[90,4] a = {{}}, float[5,4] b = {{}}, int64 zero = {{0}}, int64 one = {{1}}>
             {{ {logarithm}
                i = Gather <axis = 1> (ids, zero) j = Gather <axis = 1> (ids, one) e = Gather (a, i) f = Gather (b, j)
                c = Concat <axis = 1> (l, e, f) y = MatMul (c, w) }}"
        );
        let scratch = Scratch::new();
        let mut proto = models::parse(&text);
        models::fill(&mut proto);
        let float = models::write(&scratch.path("float.onnx"), &proto);
        let run = msq(args![float, "-o", scratch.out("out.onnx")]).ok();
        run.stdout + &run.stderr
    };
    let positive = run("l = Log (x)");
    assert!(positive.contains("no floats below zero"), "{positive}");
    let never = run("p = Abs (x) n = Neg (p) l = Log (n)");
    assert!(never.contains("only weights are quantized") && never.contains("--calib"), "{never}");
}

/// The operator is one of the engine's; its mode is not. What stands before is on integers all the same.
#[test]
fn a_node_that_the_engine_fails_on() {
    let text = NETWORK
        .replace("\"\": 17", "\"\": 19")
        .replace("ir_version: 8", "ir_version: 9")
        .replace("(float[N,4,H,W] y)", "(float[N,4,H,W] y, float[N,4,M,K] q)")
        .replace("float[8] b = {}", "float[8] b = {}, int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}")
        .replace("(r, c)", "(r, c)  [around] q = Pad <mode = \"wrap\"> (y, pads)");
    let case = Case::of_images(&models::parse(&text));
    let report = case.quantized(2, &[]);
    let kept = report["kept"].as_array().unwrap();
    assert!(kept.iter().any(|node| node["node"] == "around"), "{report}");
    case.is_alike(25.0);
}

#[test]
fn pools_and_paddings_that_onnxruntime_refuses_between_quantizers() {
    let between = [
        (19, "AveragePool <dilations = [2, 2], kernel_shape = [3, 3]> (t)"),
        (22, "AveragePool <ceil_mode = 1, dilations = [2, 2], kernel_shape = [2, 2], pads = [1, 1, 1, 1]> (t)"),
        (19, "AveragePool <count_include_pad = 1, dilations = [1, 2], kernel_shape = [3, 3], pads = [0, 1, 1, 2]> (t)"),
        (18, "Pad (t, pads, \"\", axes)"),
        (18, "Pad (t, pads, one, axes)"),
        (18, "Pad <mode = \"reflect\"> (t, pads, \"\", axes)"),
        (19, "Pad <mode = \"wrap\"> (t, pads, \"\", axes)"),
        (17, "Pad (t, crops)"),
        (17, "Pad <mode = \"edge\"> (t, crops)"),
    ];
    for (opset, node) in between {
        let constants = "float[8] b = {}, int64[4] pads = {1, 2, 0, 1}, int64[2] axes = {-1, 2}, float one = {1.0}, \
                         int64[8] crops = {0, 0, -1, 2, 0, 0, 1, -2}";
        let text = NETWORK
            .replace("\"\": 17", &format!("\"\": {opset}"))
            .replace("ir_version: 8", "ir_version: 10")
            .replace("float[N,3,H,W] x", if node.contains("wrap") { "float[N,3,8,8] x" } else { "float[N,3,H,W] x" })
            .replace("float[N,4,H,W] y", "float[M,4,h,w] y")
            .replace("float[8] b = {}", constants)
            .replace("Relu (t)", node);
        for format in ["qdq", "qlinear"] {
            let case = Case::of_images(&models::parse(&text));
            case.quantized(2, &["--format".into(), format.into()]);
            case.is_alike(25.0);
        }
    }
}

#[test]
fn a_fill_without_a_value() {
    let text = "<ir_version: 8, opset_import: [\"\": 17]>
        net (float[N,16] x) => (float[N,4] y)
        <float[16,16] a = {}, float[16,4] b = {}>
        { s = Shape (x)  z = ConstantOfShape (s)  t = Add (z, x)  h = MatMul (t, a)  r = Relu (h)  y = MatMul (r, b) }";
    let case = Case::new(&models::parse(text), &[("x", Npy::ramp(&[8, 16]))]);
    case.quantized(2, &[]);
    case.is_alike(25.0);
}

/// Where most weights are none of a layer, the target is missed, and said to be.
#[test]
fn a_ratio_counts_all_weights() {
    let text = "<ir_version: 8, opset_import: [\"\": 17]>
        net (float[N,16] x) => (float[N,4] y)
        <float[16,16] a = {}, float[16,4] b = {}, float[4,900] big = {}>
        {
            h = MatMul (x, a)  r = Relu (h)  t = MatMul (r, b)
            e = Einsum <equation = \"ij,jk->k\"> (t, big)
            l = ReduceMax <axes = [0]> (e)
            y = Add (t, l)
        }";
    let case = Case::new(&models::parse(text), &[("x", Npy::ramp(&[64, 16]))]);
    let asked = args![case.float, "-o", case.output(), "--calib", case.data, "--target-ratio", "4"];
    msq(asked).ok();
    let run = msq(&[&asked[..], args!["--skip", "big", "--json"]].concat());
    assert_eq!(run.code, Some(5), "{}", run.stderr);
    let search = &run.json()["search"];
    assert_eq!(search["reached"], false);
    let nearest = search["nearest"].as_str().unwrap();
    assert!(nearest.starts_with("weights packed 1.") && nearest.contains("14400 bytes"), "{nearest}");
}

/// Short names are not the reference's: what layers compute is compared instead.
#[test]
fn evaluation_pairs_layers_where_names_are_short() {
    let case = Case::of_images(&models::parse(NETWORK));
    let small = case.scratch.out("small.onnx");
    msq(args![case.float, "-o", small, "--calib", case.data, "--strip-names"]).ok();
    let run = msq(args!["evaluate", small, "--reference", case.float, "--calib", case.data, "--json"]).ok();
    let found = run.json();
    let values = found["values"].as_array().unwrap();
    let names: Vec<&str> = values.iter().map(|value| value["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["t", "y"], "{found}");
    assert!(values.iter().all(|value| value["sqnr"].as_f64().unwrap() > 25.0), "{found}");
}
