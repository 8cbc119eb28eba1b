//! Activations of 16 bits: what the file computes in onnxruntime is what our engine found and far closer to float than
//! with 8 bits; kernels read and write one width; what a target or a format does not have is refused.

use crate::common::arrays::{Npy, read_npz};
use crate::common::models::{self, Network};
use crate::common::python::{python, ran};
use crate::common::{args, msq};
use msq_onnx::data::{Dataset, InputSpec, SyntheticOptions};
use msq_onnx::{ActivationBits, Options, Quantized, Quantizer};
use msq_passes::Profile;
use msq_passes::ir::{DataType, Model, encode_model, export, import};
use std::path::{Path, PathBuf};

/// A residual block with a gate, behind it movements that are written on integers, a head, and a bias that is large
/// beside the steps of 16 bits.
const NETWORK: &str = r#"<ir_version: 8, opset_import: ["" : 17]>
network (float[N,3,8,8] x) => (float[N,10] y, float[N,8,8,8] z)
<float[8,3,3,3] a = {}, float[8] ab = {0.1, -0.2, 3.0, 0.0, 0.3, -0.1, 0.2, 0.05}, float[8,8,3,3] b = {}, float[8,8,1,1] g = {},
 float[8,8,3,3] c = {}, float[10,128] fc = {}, float[10] fcb = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10},
 int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}, int64[1] start = {0}, int64[1] end = {8}, int64[1] axis = {3}>
{
  [first] t0 = Conv <pads = [1,1,1,1]> (x, a, ab)
  r0 = Relu (t0)
  [second] t1 = Conv <pads = [1,1,1,1]> (r0, b)
  [gate] t2 = Conv (r0, g)
  s = Sigmoid (t2)
  m = Mul (t1, s)
  z = Add (m, r0)
  padded = Pad (z, pads)
  cut = Slice (padded, start, end, axis)
  [third] t3 = Conv (cut, c)
  r3 = Relu (t3)
  pooled = MaxPool <kernel_shape = [3,3], strides = [2,2], pads = [1,1,1,1]> (r3)
  flat = Flatten (pooled)
  [head] y = Gemm <transB = 1> (flat, fc, fcb)
}"#;

fn network() -> Network {
    let value = |i: u32| i.wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32 - 0.5;
    let network = NETWORK.replace("float[10,128]", "float[10,96]");
    Network::new(&network, Npy::floats(&[24, 3, 8, 8], &(0..24 * 192).map(value).collect::<Vec<f32>>()))
}

fn decibels(wanted: &[f32], found: &[f32]) -> f64 {
    assert_eq!(wanted.len(), found.len());
    let signal: f64 = wanted.iter().map(|&v| f64::from(v).powi(2)).sum();
    let noise: f64 = wanted.iter().zip(found).map(|(&w, &f)| (f64::from(w) - f64::from(f)).powi(2)).sum();
    10.0 * (signal / noise.max(f64::MIN_POSITIVE)).log10()
}

/// The types that quantizers of activations write.
fn types(model: &Model) -> Vec<DataType> {
    let zero = |slot: Option<_>| model.graph.initializer(slot?)?.element_type();
    model.graph.nodes().filter(|(_, n)| n.is("QuantizeLinear")).map(|(_, n)| zero(n.input(2)).unwrap()).collect()
}

#[test]
fn onnxruntime_computes_what_our_engine_found() {
    let network = network();
    for (profile, element) in [("ort-cpu", DataType::Uint16), ("ort-arm", DataType::Int16), ("qnn", DataType::Uint16)] {
        let file = |bits: u32| {
            let flags = format!(
                "--profile {profile} --placement all --no-repair --keep-names --act-bits {bits} --calib {}",
                network.data.display()
            );
            let (out, run) = network.run(&flags);
            let said = run.ok().stdout.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(said.contains("activations 16"), bits == 16, "{said}");
            assert_eq!(said.contains("compute in float between them"), bits == 16 && profile != "qnn", "{said}");
            out
        };
        let (wide, narrow) = (file(16), file(8));
        let model = msq_onnx::load(&wide).unwrap();
        assert_eq!(model.opset(""), Some(21));
        assert!(types(&model).iter().all(|ty| *ty == element), "{profile}: {:?}", types(&model));
        let ours = network.scratch.path("ours.npz");
        msq(args!["evaluate", &wide, "--calib", &network.data, "--save-outputs", &ours, "-q"]).ok();
        let models: Vec<(&Path, &Path)> =
            [&network.float, &wide, &narrow].map(|file| (file.as_path(), network.data.as_path())).to_vec();
        let Some(ran) = ran("survey", &models) else { return };
        for (name, ours) in read_npz(&ours) {
            let [float, wide, narrow] = [0, 1, 2].map(|at| &ran[at].outputs[&name]);
            let (same, close, coarse) = (decibels(wide, &ours), decibels(float, wide), decibels(float, narrow));
            // Sums in another order land on the other side of a tie now and then.
            assert!(same > 70.0, "{profile} {name}: {same:.1} dB from our engine");
            assert!(close > coarse + 4.0, "{profile} {name}: {close:.1} dB with 16 bits, {coarse:.1} with 8");
        }
    }
}

/// The integers of a bias are int32 in units of `s_x·s_w`, of which the first is 256 times smaller: a channel whose bias
/// would be too many of these units has a larger weight scale.
#[test]
fn biases_fit_into_int32() {
    let mut proto = models::parse(
        "<ir_version: 8, opset_import: [\"\": 17]> g (float[N,2,4,4] x) => (float[N,3,4,4] y)
         <float[3,2,1,1] a = {0.5, -0.25, 0.00001, 0.00002, 0.3, 0.1}, float[3] b = {1.0, 30000.0, -30000.0}>
         { y = Conv (x, a, b) }",
    );
    models::fill(&mut proto);
    let model = import(proto).unwrap();
    let quantized = run(&model, |options| bits(options, "qnn", ActivationBits::Bits(16)));
    let graph = &quantized.model.graph;
    let bias = graph.initializers().find(|(_, tensor)| tensor.element_type() == Some(DataType::Int32)).unwrap().1;
    let integers = bias.to_i64().unwrap();
    assert!(integers.iter().all(|q| q.abs() <= (1 << 30) + 1000) && integers[1] > 1 << 29, "{integers:?}");
    // A step of the output is 1.5·60,000/65,535.
    let outputs = &quantized.report.quality.as_ref().unwrap().outputs[0];
    assert!(outputs.constant_error.is_none_or(|error| error < 0.7), "{outputs:?}");
}

fn bits(options: &mut Options, profile: &str, activations: ActivationBits) {
    options.scheme.profile = Profile::by_name(profile).unwrap();
    options.repair.repair = false;
    let all = msq_onnx::LayerPlan { activations, ..msq_onnx::LayerPlan::default() };
    options.scheme.plan = msq_onnx::BitPlan::uniform(all);
}

fn data(model: &Model, count: usize) -> Dataset {
    let options = SyntheticOptions { count, seed: 1, ..SyntheticOptions::default() };
    Dataset::synthetic(&InputSpec::of(model), &options).unwrap()
}

fn run(model: &Model, change: impl FnOnce(&mut Options)) -> Quantized {
    let mut options = Options::default();
    change(&mut options);
    Quantizer::new(model.clone()).calibration(data(model, 32)).options(options).run().unwrap()
}

/// What a layer with a quantizer behind it reads and writes.
fn widths(model: &Model, layer: &str) -> [DataType; 2] {
    let graph = &model.graph;
    let zero = |node: &msq_passes::ir::Node| graph.initializer(node.input(2).unwrap()).unwrap().element_type().unwrap();
    let (_, node) = graph.nodes().find(|(_, node)| node.label(graph) == layer).unwrap();
    let read = graph.value(node.input(0).unwrap()).producer().unwrap().0;
    let written = graph.value(node.output(0).unwrap()).uses()[0].node;
    [zero(graph.node(read)), zero(graph.node(written))]
}

/// One layer of 16 bits among others: it and the operators around it are wide, and every kernel reads what it writes.
#[test]
fn kernels_read_and_write_one_width() {
    let network = network();
    let plan = network.scratch.write(
        "plan.json",
        r#"{"version": 1, "default": {"weights": 8, "activations": 8},
            "layers": {"third": {"weights": 8, "activations": 16}}}"#,
    );
    let out = network.scratch.out("mixed.onnx");
    let flags = args!["--profile", "qnn", "--plan", plan, "--keep-names", "--calib", network.data];
    msq(&[args![&network.float, "-o", &out].as_slice(), flags].concat()).ok();
    let model = msq_onnx::load(&out).unwrap();
    let (narrow, wide) = ([DataType::Uint8; 2], [DataType::Uint16; 2]);
    // What `third` reads is a sum, of the product of two layers and the output of the first.
    let found = ["first", "second", "gate", "third", "head"].map(|layer| widths(&model, layer));
    assert_eq!(found, [wide, wide, wide, wide, narrow]);
    let inspected = msq(args!["inspect", &out, "--json"]).ok().json();
    let bits: Vec<&serde_json::Value> =
        inspected["layers"].as_array().unwrap().iter().map(|layer| &layer["activation_bits"]).collect();
    assert_eq!(bits, [16, 16, 16, 16, 8], "{inspected}");
    let linted = msq(args!["lint", "--profile", "qnn", &out, "--json"]).json();
    assert!(!linted.to_string().contains("bias-scale") && !linted.to_string().contains("activation-type"), "{linted}");
    let ours = network.scratch.path("ours.npz");
    msq(args!["evaluate", &out, "--calib", &network.data, "--save-outputs", &ours, "-q"]).ok();
    let Some(theirs) = ran("survey", &[(&out, &network.data)]) else { return };
    for (name, ours) in read_npz(&ours) {
        let same = decibels(&theirs[0].outputs[&name], &ours);
        assert!(same > 38.0, "{name}: {same:.1} dB");
    }
}

/// Parameters of 16 bits go to other tools and come back as the same file.
#[test]
fn encodings_of_16_bits() {
    let network = network();
    let flags = "--profile qnn --keep-names --no-repair";
    let (out, run) = network.run(&format!("{flags} --act-bits 16 --calib {}", network.data.display()));
    run.ok();
    for format in ["aimet-0.6.1", "aimet-1.0", "aimet-2", "ort"] {
        let file = network.scratch.path(&format!("{format}.json"));
        msq(args!["export-encodings", &out, "-o", &file, "--format", format, "-q"]).ok();
        let again = network.scratch.out(&format!("{format}.onnx"));
        let data = &network.data;
        let given = args![&network.float, "-o", &again, "--encodings", &file, "--calib", data];
        let flags: Vec<_> = flags.split_whitespace().map(std::ffi::OsString::from).collect();
        let run = msq(&[given.as_slice(), &flags].concat());
        let said = run.ok().stderr;
        let model = msq_onnx::load(&again).unwrap();
        assert!(types(&model).iter().all(|ty| *ty == DataType::Uint16), "{format}: {said}");
    }
    let file = network.scratch.path("aimet-1.0.json");
    let refused = msq(args![&network.float, "-o", &out, "--encodings", &file, "--profile", "openvino"]);
    assert!(refused.error(2).contains("`openvino` does not run activations of 16 bits"), "{}", refused.stderr);
}

/// Float between quantizers is not called int8.
#[test]
fn layers_between_16_bits_are_called_what_they_run_as() {
    let network = network();
    let (_, run) = network.run("--act-bits 16");
    let run = run.ok();
    assert!(
        run.stdout.contains("runs as    0 of 5 layers int8, 5 float with integer weights; stays float:"),
        "{}",
        run.stdout
    );
    let (_, run) = network.run("--act-bits 16 --profile qnn");
    let run = run.ok();
    assert!(run.stdout.contains("5 of 5 layers on integers with activations of 16 bits"), "{}", run.stdout);
}

#[test]
fn what_has_no_16_bits_is_refused() {
    let network = network();
    let refused = |flags: &str, part: &str| {
        let (out, run) = network.run(flags);
        let line = run.error(2);
        assert!(line.contains(part) && !out.exists(), "{part}: {line}");
    };
    for profile in ["tensorrt", "openvino", "tract"] {
        refused(
            &format!("--act-bits 16 --profile {profile}"),
            &format!("`{profile}` does not run activations of 16 bits (--weight-bits, --act-bits, --grid"),
        );
    }
    for format in ["qlinear", "integer"] {
        refused(
            &format!("--act-bits 16 --format {format}"),
            &format!("format `{format}` has no operators for activations of 16 bits"),
        );
    }
    let (_, run) = network.run("--act-bits 12");
    assert!(run.usage().contains("`12` is none of 2 to 8, 16, float, dynamic, same"), "{}", run.stderr);
}

/// Two channels are 300 times larger than the others, and nobody reads them: they leave 8 bits no steps for the rest.
fn mixed_channels() -> Model {
    let mut proto = models::parse(
        "<ir_version: 8, opset_import: [\"\": 17]> g (float[N,2,8,8] x) => (float[N,4,8,8] y)
         <float[4,2,3,3] first = {}, float[1,4,1,1] unit = {300, 300, 1, 1},
          float[4,4,1,1] a = {0, 0, 0.7, -0.4, 0, 0, -0.3, 0.8, 0, 0, 0.5, 0.5, 0, 0, -0.6, 0.2},
          float[8,4,3,3] b = {}, float[4,8,3,3] c = {}>
         { t0 = Conv <pads = [1,1,1,1]> (x, first)  r0 = Relu (t0)  u = Mul (r0, unit)
           t1 = Conv (u, a)  r1 = Relu (t1)
           t2 = Conv <pads = [1,1,1,1]> (r1, b)  r2 = Relu (t2)
           y = Conv <pads = [1,1,1,1]> (r2, c) }",
    );
    models::fill(&mut proto);
    import(proto).unwrap()
}

/// An NPU runs 16 bits, but no floats: repairs prefer them.
#[test]
fn repairs_for_npus_are_of_16_bits() {
    let model = mixed_channels();
    let of = |profile: &str, threads: usize| {
        let mut options = Options::default();
        options.scheme.profile = Profile::by_name(profile).unwrap();
        options.scheme.placement = msq_onnx::PlacementMode::All;
        Quantizer::new(model.clone()).calibration(data(&model, 32)).options(options).threads(threads).run().unwrap()
    };
    let npu = of("qnn", 1);
    let report = npu.report.repair.as_ref().unwrap();
    assert!(report.reached && report.after.lost <= 0.01 && report.before.lost > 0.01, "{report:?}");
    assert!(!report.wide_layers.is_empty() && report.float_layers.is_empty(), "{report:?}");
    assert!(report.wide_layers.len() < 4 && report.float_work == 0.0, "{report:?}");
    assert_eq!(npu.model.opset(""), Some(21));
    assert!(types(&npu.model).contains(&DataType::Uint16));
    assert_eq!(bytes(&npu), bytes(&of("qnn", 3)));
    let cpu = of("ort-cpu", 1);
    assert!(cpu.report.repair.as_ref().is_some_and(|r| r.wide_layers.is_empty()), "{:?}", cpu.report.repair);
    assert!(!types(&cpu.model).contains(&DataType::Uint16));
    // The plan that the run wrote down does the same again.
    let mut options = Options::default();
    options.scheme.profile = Profile::QNN;
    options.scheme.plan = npu.report.plan.clone();
    let again = Quantizer::new(model.clone()).calibration(data(&model, 32)).options(options).run().unwrap();
    assert_eq!(types(&again.model), types(&npu.model));
    let scratch = crate::common::Scratch::new();
    let (path, samples): (PathBuf, PathBuf) = (scratch.path("npu.onnx"), scratch.path("x.npz"));
    std::fs::write(&path, bytes(&npu)).unwrap();
    crate::common::arrays::write_npz(&samples, &[("x", Npy::ramp(&[4, 2, 8, 8]))]);
    if python().is_some() {
        ran("survey", &[(&path, &samples)]).unwrap();
    }
}

fn bytes(quantized: &Quantized) -> Vec<u8> {
    encode_model(&export(&quantized.model))
}
