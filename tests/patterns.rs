//! Small networks, one a pattern of layers, quantized and run in onnxruntime: valid, close to float, what our own
//! emulation says, and on integers as far as the pattern can be.

use crate::common::arrays::{Npy, write_npz};
use crate::common::python::{check_model, python};
use crate::common::random_network::random_network;
use crate::common::{Scratch, args, models, msq, repository};
use std::path::{Path, PathBuf};

/// Least signal-to-noise ratio of the outputs against float, in decibels, for weights and inputs spread evenly.
const SQNR: f64 = 25.0;
/// Onnxruntime's outputs and ours may differ by this part of the largest output: steps of 8 bits that were rounded the
/// other way.
const DIFFERENCE: f64 = 0.03;

/// What a comment says of a network that tract does not run: it is held against the float network in onnxruntime.
const NO_ENGINE: &str = "# the engine does not know `Loop`";

/// Quantizes `tests/networks/<name>.onnxtxt` and checks it. A comment there says what of its compute stays float.
#[track_caller]
fn holds_up(name: &str) {
    let scratch = Scratch::new();
    let text = std::fs::read_to_string(repository("tests/networks").join(format!("{name}.onnxtxt"))).unwrap();
    let output = quantized(&scratch, &text);
    if python().is_some() {
        let report = check_model(args!["fusion", output]).unwrap();
        let left = report["float"].as_array().unwrap_or_else(|| panic!("{report}"));
        let left: Vec<&str> = left.iter().map(|node| node["op"].as_str().unwrap()).collect();
        let expected = text.lines().find_map(|line| line.strip_prefix("# left in float: ")).unwrap_or_default();
        assert_eq!(left.join(" "), expected, "{report}");
    }
}

/// Quantizes a network; what is written is close to float, and in onnxruntime what our own emulation says.
#[track_caller]
fn quantized(scratch: &Scratch, text: &str) -> PathBuf {
    let mut proto = models::parse(text);
    models::fill(&mut proto);
    let float = models::write(&scratch.path("float.onnx"), &proto);
    let data = write_data(scratch, &float);
    let (output, ours) = (scratch.out("out.onnx"), scratch.path("ours.npz"));
    msq(args![float, "-o", output, "--calib", data, "-q", "--placement", "all", "--no-repair"]).ok();
    if text.contains(NO_ENGINE) {
        if python().is_some() {
            run(&data, &float, &ours);
            runs_alike(scratch, &output, &data, &ours);
        }
        return output;
    }
    let compared = args!["evaluate", output, "--reference", float, "--calib", data, "--save-outputs", ours, "--json"];
    let report = msq(compared).ok().json();
    let sqnr = report["agreement"]["sqnr"].as_f64();
    assert!(sqnr.is_none_or(|s| s > SQNR), "only {sqnr:?} dB: {report}");
    if python().is_some() {
        runs_alike(scratch, &output, &data, &ours);
    }
    output
}

/// The text of a network's integer form; the form with quantizers is checked.
#[track_caller]
fn integer_form(text: &str) -> String {
    quantized(&Scratch::new(), text);
    let scratch = Scratch::new();
    let mut proto = models::parse(text);
    models::fill(&mut proto);
    let float = models::write(&scratch.path("float.onnx"), &proto);
    let (data, output) = (write_data(&scratch, &float), scratch.out("out.onnx"));
    let flags = args!["--placement", "all", "--format", "qlinear", "--no-repair", "-q"];
    msq(&[&args![float, "-o", output, "--calib", data][..], &flags[..]].concat()).ok();
    msq(args!["print", output]).ok().stdout
}

/// Depthwise convolutions of 40 and 24 channels, with a gate and a sum around.
const NARROW: &str = "<ir_version: 8, opset_import: [\"\": 17]> g (float[1,8,32,32] x) => (float[1,8,32,32] y)
    <float[40,8,1,1] e = {}, float[40] b = {}, float[40,1,5,5] d = {}, float[16,40,1,1] s = {}, float[40,16,1,1] t = {},
     float[24,40,1,1] p = {}, float[24,1,3,3] q = {}, float[8,24,1,1] r = {}> {
      [expand] h = Conv (x, e, b) i = HardSwish (h)
      [five] j = Conv <group = 40, pads = [2, 2, 2, 2]> (i, d) k = Relu (j)
      l = GlobalAveragePool (k) m = Conv (l, s) n = Relu (m) o = Conv (n, t) u = HardSigmoid (o) v = Mul (k, u)
      [project] w = Conv (v, p)
      [three] z = Conv <group = 24, pads = [1, 1, 1, 1]> (w, q) aa = Add (w, z)
      y = Conv (aa, r) }";

/// They run with channels for which onnxruntime has a fast kernel, and compute what they did.
#[test]
fn depthwise_convolutions_get_whole_vectors_of_channels() {
    let scratch = Scratch::new();
    let output = quantized(&scratch, NARROW);
    let printed = msq(args!["print", output]).ok().stdout;
    assert!(printed.contains("group = 48") && printed.contains("group = 32"), "{printed}");
    let (float, data) = (scratch.path("float.onnx"), scratch.path("data.npz"));
    let found = msq(args!["evaluate", output, "--reference", float, "--calib", data, "--json"]).ok().json();
    let inner = |name: &str| {
        let values = found["values"].as_array().unwrap();
        values.iter().find(|value| value["name"] == name).and_then(|value| value["sqnr"].as_f64())
    };
    assert!(inner("k").unwrap() > SQNR && inner("w").unwrap() > SQNR, "{found}");
    let side = msq(args!["compare", float, output, "--calib", data, "--json"]).ok().json();
    assert_eq!(side["layers"].as_array().unwrap().len(), 7, "{side}");
    let encodings = scratch.path("out.encodings.json");
    msq(args!["export-encodings", output, "-o", encodings, "--format", "aimet-0.6.1"]).ok();
    let text = std::fs::read_to_string(&encodings).unwrap();
    let held: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(held["param_encodings"]["d"].as_array().unwrap().len(), 40, "{held}");
}

/// Weights that the graph decodes are made longer behind that, and operators on integers have as many channels.
#[test]
fn few_bits_and_operators_on_integers_get_channels_too() {
    let scratch = Scratch::new();
    let mut proto = models::parse(NARROW);
    models::fill(&mut proto);
    let float = models::write(&scratch.path("float.onnx"), &proto);
    let data = write_data(&scratch, &float);
    let fixed = args!["--placement", "all", "--no-repair", "-q"];
    for flags in [&args!["--weight-bits", "4"][..], &args!["--weight-bits", "3", "--format", "qlinear"][..]] {
        let (output, ours) = (scratch.out("out.onnx"), scratch.path("ours.npz"));
        msq(&[&args![float, "-o", output, "--calib", data][..], flags, &fixed[..]].concat()).ok();
        let printed = msq(args!["print", output]).ok().stdout;
        assert!(printed.contains("group = 48") && printed.contains("Pad ("), "{printed}");
        msq(args!["evaluate", output, "--calib", data, "--save-outputs", ours, "-q"]).ok();
        if python().is_some() {
            runs_alike(&scratch, &output, &data, &ours);
        }
        std::fs::remove_file(&output).unwrap();
    }
}

/// A hard swish that computes in float is one operator, as it was, which runtimes take into the convolution.
#[test]
fn activations_in_float_are_one_operator() {
    let text = "<ir_version: 8, opset_import: [\"\": 17]> g (float[N,8,12,12] x) => (float[N,8,12,12] y)
        <float[16,8,3,3] v = {}, float[16,16,1,1] w = {}, float[8,16,1,1] u = {}> {
          a = Conv <pads = [1, 1, 1, 1]> (x, v) b = HardSwish (a) c = GlobalAveragePool (b) d = Conv (c, w)
          e = HardSigmoid <alpha = 0.16666667> (d) f = Mul (b, e) y = Conv (f, u) }";
    let scratch = Scratch::new();
    let mut proto = models::parse(text);
    models::fill(&mut proto);
    let float = models::write(&scratch.path("float.onnx"), &proto);
    let (data, output) = (write_data(&scratch, &float), scratch.out("out.onnx"));
    msq(args![float, "-o", output, "--calib", data, "--act-bits", "float", "-q"]).ok();
    let printed = msq(args!["print", output]).ok().stdout;
    for (operator, count) in [("HardSwish (", 1), ("HardSigmoid <", 1), ("Clip (", 0), ("Add (", 0)] {
        assert_eq!(printed.matches(operator).count(), count, "{operator}: {printed}");
    }
    let report = msq(args!["evaluate", output, "--reference", float, "--calib", data, "--json"]).ok().json();
    assert!(report["agreement"]["sqnr"].as_f64().unwrap() > SQNR, "{report}");
    if python().is_some() {
        let ours = scratch.path("ours.npz");
        msq(args!["evaluate", output, "--reference", float, "--calib", data, "--save-outputs", ours, "-q"]).ok();
        runs_alike(&scratch, &output, &data, &ours);
    }
}

/// Integer kernels of a hard swish cost more than depthwise convolutions save, also where the model has one operator for it.
#[test]
fn operators_that_passes_write_have_prices() {
    let stack = |activation: &str| {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": 17]> g (float[N,32,56,56] x) => (float[N,32,56,56] y)
             <float[32,1,3,3] v = {{}}, float[32,1,3,3] w = {{}}> {{
               a = Conv <pads = [1, 1, 1, 1], group = 32> (x, v) b = {activation} (a)
               c = Conv <pads = [1, 1, 1, 1], group = 32> (b, w) y = {activation} (c) }}"
        );
        let scratch = Scratch::new();
        let mut proto = models::parse(&text);
        models::fill(&mut proto);
        let float = models::write(&scratch.path("float.onnx"), &proto);
        let (data, output) = (write_data(&scratch, &float), scratch.out("out.onnx"));
        msq(args![float, "-o", output, "--calib", data, "--no-repair", "-q"]).ok();
        let printed = msq(args!["print", output]).ok().stdout;
        (printed.matches(" QuantizeLinear").count(), printed.matches(&format!("{activation} (")).count())
    };
    assert_eq!(stack("HardSwish"), (0, 2));
}

/// Operands of `Concat` that nothing else reads are on the grid of the result, and integers are copied; a `Relu` that a
/// quantizer stands for keeps its own where the result goes below zero.
#[test]
fn what_is_joined_has_one_quantizer() {
    let joined = |functions: [&str; 2]| {
        let [first, second] = functions;
        integer_form(&format!(
            "<ir_version: 8, opset_import: [\"\": 17]> g (float[N,8,12,12] x) => (float[N,8,12,12] y)
             <float[16,8,3,3] v = {{}}, float[8,8,1,1] w = {{}}, float[8,24,1,1] u = {{}}> {{
               a = Conv <pads = [1, 1, 1, 1]> (x, v) b = {first} (a) c = Conv (x, w) d = {second} (c)
               e = Concat <axis = 1> (b, d) f = Conv (e, u) y = Relu (f) }}"
        ))
    };
    for functions in [["Relu", "Relu"], ["Sigmoid", "LeakyRelu"], ["Identity", "Sigmoid"]] {
        let text = joined(functions);
        assert!(text.contains("= Concat <axis") && !text.contains("QLinearConcat"), "{functions:?}: {text}");
    }
    let text = joined(["Relu", "Identity"]);
    assert!(text.contains("QLinearConcat"), "{text}");
}

#[test]
fn random_networks_hold_up() {
    for seed in 0..16 {
        let scratch = Scratch::new();
        quantized(&scratch, &random_network(seed));
    }
}

/// 32 samples for every input, open axes of length 16.
fn write_data(scratch: &Scratch, model: &Path) -> PathBuf {
    let specs = msq_onnx::data::InputSpec::of(&msq_onnx::load(model).unwrap());
    let arrays: Vec<(String, Npy)> = specs
        .into_iter()
        .map(|spec| {
            let mut shape: Vec<usize> = spec.shape.unwrap().into_iter().map(|n| n.unwrap_or(16)).collect();
            shape[0] = 32;
            (spec.name, Npy::ramp(&shape))
        })
        .collect();
    let path = scratch.path("data.npz");
    write_npz(&path, &arrays.into_iter().map(|(name, array)| (name.leak() as &str, array)).collect::<Vec<_>>());
    path
}

/// Runs a model in onnxruntime.
#[track_caller]
fn run(data: &Path, model: &Path, outputs: &Path) {
    let batch = msq_onnx::data::InputSpec::of(&msq_onnx::load(model).unwrap())[0].shape.clone().unwrap()[0];
    let batch = batch.unwrap_or(32).to_string();
    let run = check_model(args!["run", model, data, outputs, "--batch", batch]).unwrap();
    assert_eq!(run["ok"], true, "{run}");
}

#[track_caller]
fn runs_alike(scratch: &Scratch, model: &Path, data: &Path, ours: &Path) {
    let valid = check_model(args!["check", model]).unwrap();
    assert_eq!(valid["ok"], true, "{valid}");
    let theirs = scratch.path("theirs.npz");
    run(data, model, &theirs);
    let compare = |step: f64| {
        let report = check_model(args!["compare", ours, theirs, "--step", step.to_string()]).unwrap();
        assert_eq!(report["ok"], true, "{report}");
        report["arrays"].as_object().unwrap().clone()
    };
    for (name, report) in compare(0.0) {
        let largest = report["max_value"].as_f64().unwrap();
        let apart = report["max_abs"].as_f64().unwrap();
        assert!(apart <= DIFFERENCE * largest, "`{name}`: {report}");
    }
}

macro_rules! networks {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                holds_up(stringify!($name));
            }
        )*

        #[test]
        fn every_network_is_tested() {
            let files = crate::common::files(&repository("tests/networks"), "onnxtxt");
            let names: Vec<_> = files.iter().map(|f| f.file_stem().unwrap().to_str().unwrap()).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

networks! {
    a_constant_added,
    additions,
    attention,
    batch_norms,
    batched_matrices,
    branches,
    channels_last,
    clips,
    computed_padding,
    concatenation,
    convolutions,
    einsum,
    enlarging,
    fixed_batch,
    gemm_flags,
    half_precision_weights,
    hard_swish,
    identities,
    initializers_as_inputs,
    initializers_unread,
    loops,
    matrix_products,
    names_of_any_kind,
    one_dimension,
    open_sizes,
    opset_11,
    opset_26,
    opset_7,
    opset_9,
    other_activations,
    padding,
    pools,
    products_of_transposed,
    recurrent,
    reshapes,
    scans,
    sequences,
    shared_weights,
    silu,
    softmax_at_the_end,
    splits,
    squeeze_and_excite,
    three_dimensions,
    transposed_convolution,
    two_inputs,
    two_outputs_one_read_inside,
    weights_in_constant_nodes,
}
