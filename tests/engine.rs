//! The engine: taps change nothing, runs do not depend on those before, results do not depend on threads,
//! memory does not depend on the number of samples.

use crate::common::arrays::Npy;
use crate::common::{Scratch, args, child, digits, models, msq, quantize_digits, repository};
use msq_onnx::data::InputSpec;
use msq_onnx::data::{Array, DataOptions, Dataset};
use msq_onnx::engine::{Output, Session, standard};
use msq_onnx::{Options, Quantized, Quantizer};
use msq_passes::ir::{DataType, Model};
use msq_passes::pipelines;
use std::ops::ControlFlow;
use std::path::Path;

fn samples(model: &Model, count: usize) -> Vec<Vec<Array>> {
    let data = Dataset::open(&digits("calib.npz"), &InputSpec::of(model), &DataOptions::default()).unwrap();
    (0..count).map(|i| data.sample(i).unwrap().arrays).collect()
}

fn session(model: &Model) -> Box<dyn Session> {
    standard().load(model, &[vec![1, 1, 8, 8]]).unwrap().session().unwrap()
}

fn bits(outputs: &[Output]) -> Vec<Vec<u32>> {
    outputs.iter().map(|o| o.as_f32().unwrap().iter().map(|v| v.to_bits()).collect()).collect()
}

/// Names of all float values computed in between.
fn inner_values(model: &Model) -> Vec<String> {
    let outputs = model.graph.nodes().flat_map(|(_, node)| node.outputs().iter().flatten().copied());
    let inner = outputs.filter(|&v| !model.graph.is_output(v));
    inner.map(|v| model.graph.value(v).name().to_owned()).collect()
}

fn tapped(model: &Model, values: Vec<String>) -> Model {
    let mut tapped = model.clone();
    pipelines::tap(values).run(&mut tapped).unwrap();
    tapped
}

fn weight(model: &Model, name: &str) -> Vec<f32> {
    model.graph.initializer(model.graph.find(name).unwrap()).unwrap().to_f32().unwrap()
}

/// Outputs that are shown while a model runs are those of a whole run, each once; an early end leaves nothing behind.
#[test]
fn shown_outputs_are_those_of_a_run() {
    let model = models::digits_model();
    let tapped = tapped(&model, inner_values(&model));
    let (mut whole, mut shown) = (session(&tapped), session(&tapped));
    for (at, inputs) in samples(&tapped, 4).into_iter().enumerate() {
        let wanted = bits(&whole.run(&inputs).unwrap());
        if at == 2 {
            let mut seen = 0;
            let mut stop = |_: usize, _: &Output| {
                seen += 1;
                if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            shown.show(&inputs, &mut stop).unwrap();
            assert_eq!(seen, 3);
        }
        let mut found = vec![None; wanted.len()];
        let mut look = |at: usize, output: &Output| {
            let values: Vec<u32> = output.as_f32().unwrap().iter().map(|v| v.to_bits()).collect();
            assert!(found[at].replace(values).is_none(), "output {at} is shown twice");
            ControlFlow::Continue(())
        };
        shown.show(&inputs, &mut look).unwrap();
        assert_eq!(found.into_iter().map(Option::unwrap).collect::<Vec<_>>(), wanted);
    }
}

/// Taps stop the engine from fusing across them, which rounds elsewhere: equal but for the last bits.
#[test]
fn taps_leave_the_outputs() {
    let model = models::digits_model();
    let values = inner_values(&model);
    assert_eq!(values.len(), 30);
    let mut plain = session(&model);
    let mut all = session(&tapped(&model, values.clone()));
    for inputs in samples(&model, 8) {
        let (wanted, found) = (plain.run(&inputs).unwrap(), all.run(&inputs).unwrap());
        assert_eq!(found.len(), 1 + values.len());
        for (a, b) in wanted[0].as_f32().unwrap().iter().zip(found[0].as_f32().unwrap()) {
            assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{a} became {b}");
        }
    }
}

/// A tap is the value it names: the tap before the last layer, run through that layer, gives the output.
#[test]
fn taps_are_the_values_they_name() {
    let model = models::digits_model();
    let mut session = session(&tapped(&model, vec!["flatten_out".to_owned()]));
    let (weight, bias) = (weight(&model, "head.weight"), weight(&model, "head.bias"));
    for inputs in samples(&model, 4) {
        let outputs = session.run(&inputs).unwrap();
        assert_eq!(outputs[1].shape(), [1, 40]);
        let features = outputs[1].as_f32().unwrap();
        for (class, &logit) in outputs[0].as_f32().unwrap().iter().enumerate() {
            let row = &weight[40 * class..40 * (class + 1)];
            let sum: f32 = row.iter().zip(features).map(|(w, x)| w * x).sum::<f32>() + bias[class];
            assert!((sum - logit).abs() < 1e-4, "{sum} is not {logit}");
        }
    }
}

/// What lies between a dequantizer and a quantizer is computed from all its elements, not from a table of single ones.
#[test]
fn operators_between_quantizers_see_all_elements() {
    for operator in
        ["Softmax <axis = 1> (d)", "LogSoftmax <axis = 1> (d)", "CumSum (d, one)", "Sigmoid (d)", "Relu (d)"]
    {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": 17]> g (float[1,16] x) => (float[1,16] y)
             <float s = {{0.05}}, uint8 z = {{128}}, int64 one = {{1}}> {{
               q = QuantizeLinear (x, s, z)  d = DequantizeLinear (q, s, z)  p = {operator}
               r = QuantizeLinear (p, s, z)  y = DequantizeLinear (r, s, z) }}"
        );
        let model = msq_passes::ir::import(models::parse(&text)).unwrap();
        let input: Vec<f32> = (0..16).map(|i| ((i * 7) % 16) as f32 / 4.0 - 2.0).collect();
        let arrays = [Array::from_f32(vec![1, 16], input).unwrap()];
        let run = |model: &Model| {
            let mut session = standard().load(model, &[vec![1, 16]]).unwrap().session().unwrap();
            bits(&session.run(&arrays).unwrap())[0].clone()
        };
        // With the operator's output read, nothing can be joined.
        let found = run(&model);
        assert_eq!(found, run(&tapped(&model, vec!["p".to_owned()])), "{operator}");
        assert!(found.iter().any(|&value| value != found[0]), "{operator}");
    }
}

#[test]
fn runs_repeat_bit_for_bit() {
    let model = models::digits_model();
    let mut one = session(&model);
    let mut other = session(&model);
    let inputs = samples(&model, 4);
    let first: Vec<_> = inputs.iter().map(|i| bits(&one.run(i).unwrap())).collect();
    // In another order, on a session with a past, and on a fresh one.
    for (i, sample) in inputs.iter().enumerate().rev() {
        assert_eq!(bits(&one.run(sample).unwrap()), first[i]);
        assert_eq!(bits(&other.run(sample).unwrap()), first[i]);
    }
}

/// A recurrent layer starts anew with each sample.
#[test]
fn nothing_is_left_of_the_sample_before() {
    let text = std::fs::read_to_string(repository("tests/networks/recurrent.onnxtxt")).unwrap();
    let mut proto = models::parse(&text);
    models::fill(&mut proto);
    let scratch = Scratch::new();
    let model = msq_onnx::load(&models::write(&scratch.path("recurrent.onnx"), &proto)).unwrap();
    let plan = standard().load(&model, &[vec![1, 6, 16]]).unwrap();
    let sample = |value: f32| [Array::from_f32(vec![1, 6, 16], vec![value; 96]).unwrap()];
    let mut kept = plan.session().unwrap();
    for value in [1.0, -2.0, 1.0] {
        let alone = plan.session().unwrap().run(&sample(value)).unwrap();
        assert_eq!(bits(&kept.run(&sample(value)).unwrap()), bits(&alone));
    }
}

#[test]
fn inputs_that_do_not_fit_are_an_error() {
    let model = models::digits_model();
    let mut session = session(&model);
    let wrong = Array::from_f32(vec![1, 1, 4, 4], vec![0.0; 16]).unwrap();
    assert!(session.run(&[wrong]).is_err());
    assert!(session.run(&[]).is_err());
}

#[test]
fn the_output_does_not_depend_on_threads() {
    let scratch = Scratch::new();
    for observer in ["mse", "entropy", "moving-average"] {
        let made = |name: &str, threads: &str| {
            let more = args!["--calib", digits("calib.npz"), "--observer", observer, "--threads", threads];
            std::fs::read(quantize_digits(&scratch, name, more)).unwrap()
        };
        let one = made("1.onnx", "1");
        assert!(one == made("again.onnx", "1"), "{observer}: a second run differs");
        for threads in ["2", "7"] {
            assert!(one == made("n.onnx", threads), "{observer}: {threads} threads differ from one");
        }
    }
}

#[test]
fn made_up_data_is_the_same_every_time() {
    let scratch = Scratch::new();
    let made = |more: &[std::ffi::OsString]| std::fs::read(quantize_digits(&scratch, "out.onnx", more)).unwrap();
    let first = made(args!["--threads", "1"]);
    assert!(first == made(args!["--threads", "2"]));
    assert!(first == made(args!["--seed", "0"]));
    assert!(first != made(args!["--seed", "1"]), "the seed changes nothing");
}

#[test]
fn figures_do_not_depend_on_threads() {
    let figures = |threads: &str| {
        let (float, test) = (digits("digits.onnx"), digits("test.npz"));
        let scratch = Scratch::new();
        let quantized = quantize_digits(&scratch, "out.onnx", args!["--calib", digits("calib.npz")]);
        let flags = args!["evaluate", quantized, "--reference", float, "--calib", test, "--json", "--threads", threads];
        let mut found = msq(flags).ok().json();
        // What says which run it was.
        for key in ["arguments", "model"] {
            found.as_object_mut().unwrap().remove(key);
        }
        found
    };
    assert_eq!(figures("1"), figures("5"));
}

/// A convolution on images large enough for their activations to show if they were kept: half a MiB a sample.
const IMAGES: &str = "<ir_version: 8, opset_import: [\"\": 17]>
    net (float[N,3,64,64] image) => (float[N,4] y) <float[32,3,3,3] w = {}, float[4,32] v = {}>
    {
        t = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (image, w)
        r = Relu (t)  g = GlobalAveragePool (r)  f = Flatten (g)  y = Gemm <transB = 1> (f, v)
    }";

#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_data() {
    let scratch = Scratch::new();
    let mut proto = models::parse(IMAGES);
    models::fill(&mut proto);
    models::write(&scratch.path("model.onnx"), &proto);
    let peak = |test: &str, count: usize| {
        let elements: Vec<u8> = (0..count * 3 * 64 * 64).map(|i| (i * 31 % 251) as u8).collect();
        let path = scratch.write(&format!("{count}.npy"), Npy::new("|u1", &[count, 3, 64, 64], &elements).bytes());
        child::peak_of(test, &path)
    };
    // Whatever is kept of samples shows from the first on. Repairs keep inner values of as many as 128 of those held out, a
    // quarter of all, to start from.
    for (test, few, many) in [("engine::child_quantizes", 64, 512), ("engine::child_repairs", 576, 1088)] {
        let peaks = [few, many].map(|count| peak(test, count));
        assert!(
            peaks[1] < peaks[0] + (3 << 20),
            "{test}: {few} samples take {} KiB, {many} take {} KiB",
            peaks[0] >> 10,
            peaks[1] >> 10
        );
    }
}

#[cfg(target_os = "linux")]
fn quantized(path: &Path, repair: bool) -> Quantized {
    let model = msq_onnx::load(&path.with_file_name("model.onnx")).unwrap();
    let specs = InputSpec::of(&model);
    assert_eq!(specs[0].dtype, DataType::Float);
    let data = Dataset::open(path, &specs, &DataOptions::default()).unwrap();
    let mut options = Options::default();
    options.repair.repair = repair;
    Quantizer::new(model).calibration(data).options(options).threads(2).run().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "run by memory_does_not_grow_with_the_data in a process of its own"]
fn child_quantizes() {
    child::report_peak(|path: &Path| assert!(quantized(path, false).report.repair.is_none()));
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "run by memory_does_not_grow_with_the_data in a process of its own"]
fn child_repairs() {
    child::report_peak(|path: &Path| assert!(quantized(path, true).report.repair.is_some()));
}
