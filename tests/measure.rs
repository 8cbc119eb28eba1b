//! One measure everywhere: what a run, an evaluation and `--max-drop` say of outputs that hold no scores.

use crate::common::{Scratch, args, digits, models, msq};
use msq_onnx::data::{Dataset, InputSpec, SyntheticOptions};
use msq_onnx::evaluate::evaluate;
use msq_onnx::runtime::Runtime;
use msq_onnx::search::{SearchOptions, Target};
use msq_onnx::{
    BitPlan, CustomMetric, LayerPlan, MeasureOptions, Options, OutputKind, Quantizer, ScoredOutputs, SolverName,
    WeightBits,
};
use msq_passes::ir::{Model, import};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A network for depth: a map of 200 with a little detail.
fn depth() -> Model {
    let mut proto = models::parse(
        "<ir_version: 8, opset_import: [\"\": 17]>
         g (float[N,2,8,8] x) => (float[N,1,8,8] depth)
         <float[8,2,3,3] a = {}, float[8,8,3,3] b = {}, float[1,8,3,3] c = {}, float[1] mean = {200.0}>
         { t0 = Conv <pads = [1,1,1,1]> (x, a)  t1 = Relu (t0)
           t2 = Conv <pads = [1,1,1,1]> (t1, b)  t3 = Relu (t2)
           depth = Conv <pads = [1,1,1,1]> (t3, c, mean) }",
    );
    models::fill(&mut proto);
    import(proto).unwrap()
}

fn data(model: &Model, count: usize, seed: u64) -> Dataset {
    let options = SyntheticOptions { count, seed, ..SyntheticOptions::default() };
    Dataset::synthetic(&InputSpec::of(model), &options).unwrap()
}

/// The share of variance that is lost, of all elements about their mean, by the outputs themselves.
fn share_lost(float: &Model, other: &Model, data: &Dataset) -> f64 {
    let scratch = Scratch::new();
    let outputs = |model: &Model, name: &str| -> Vec<f64> {
        let path = scratch.path(name);
        evaluate(model, None, data, &MeasureOptions::default(), Some(&path), &Runtime::default()).unwrap();
        let read = crate::common::arrays::read_npz(&path);
        read.into_values().next().unwrap().iter().map(|&v| f64::from(v)).collect()
    };
    let (a, b) = (outputs(float, "a.npz"), outputs(other, "b.npz"));
    let mean = a.iter().sum::<f64>() / a.len() as f64;
    let signal: f64 = a.iter().map(|v| (v - mean).powi(2)).sum();
    a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / signal
}

/// One per cent of the output's power is a hundred times its detail: the drop is one of the detail.
#[test]
fn a_drop_of_values_is_a_share_of_their_variance() {
    let model = depth();
    let quantizer = Quantizer::new(model.clone()).calibration(data(&model, 48, 1));
    let search = SearchOptions { repairs: 4, samples: 8, ..SearchOptions::new(Target::MaxDrop(0.02)) };
    let small = quantizer.search_options(search).run().unwrap();
    let quality = small.report.quality.as_ref().unwrap();
    assert_eq!(quality.outputs[0].kind, OutputKind::Values);
    assert!(small.report.search.as_ref().unwrap().reached && quality.lost <= 0.02, "{quality:?}");
    let lost = share_lost(&model, &small.model, &data(&model, 32, 2));
    assert!(lost < 0.03, "{lost}");
}

/// The same figures in the run, in `evaluate` and by hand.
#[test]
fn a_run_and_an_evaluation_agree() {
    let model = depth();
    let held_out = data(&model, 24, 3);
    let int8 = Quantizer::new(model.clone()).calibration(data(&model, 16, 1)).run().unwrap();
    let found =
        evaluate(&int8.model, Some(&model), &held_out, &MeasureOptions::default(), None, &Runtime::default()).unwrap();
    let lost = share_lost(&model, &int8.model, &held_out);
    assert!((found.lost.unwrap() / lost - 1.0).abs() < 1e-3, "{:?} {lost}", found.lost);
    let quality = int8.report.quality.unwrap();
    assert!(!quality.held_out && (quality.lost / lost).log10().abs() < 0.3, "{} {lost}", quality.lost);
    // With its mean the output is far above its error.
    let (plain, centred) = (found.agreement.unwrap().sqnr.unwrap(), found.outputs[0].sqnr.unwrap());
    assert!(plain > centred + 20.0 && centred < 60.0, "{plain} {centred}");
}

/// Four bits solved on 32 samples: a quarter is never looked at. With fewer, or without a solver that fits, the figures
/// are those of calibration samples.
#[test]
fn figures_come_from_samples_held_out_where_a_solver_fits() {
    let model = depth();
    let four = LayerPlan { weights: WeightBits::whole(4), ..LayerPlan::default() };
    let run = |count: usize, plan: LayerPlan, solver: Option<SolverName>| {
        let mut options = Options::default();
        options.scheme.plan = BitPlan::uniform(plan);
        options.solve.solver = solver;
        let quantizer = Quantizer::new(model.clone()).calibration(data(&model, count, 1));
        let report = quantizer.options(options).run().unwrap().report;
        let quality = report.quality.unwrap();
        (report.samples, quality.held_out, quality.samples)
    };
    assert_eq!(run(32, four, None), (24, true, 8));
    assert_eq!(run(31, four, None), (31, false, 16));
    assert_eq!(run(32, four, Some(SolverName::ROUND)), (32, false, 16));
    assert_eq!(run(32, LayerPlan::default(), None), (32, false, 16));
}

/// A metric that sees only the first output element decides, though the rest says otherwise.
#[test]
fn a_metric_of_the_callers_own_drives_the_drop() {
    let model = depth();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let metric = CustomMetric::new("constant", move |outputs: &ScoredOutputs| {
        counter.fetch_add(1, Ordering::Relaxed);
        assert!(outputs.names == ["depth"] && outputs.samples.iter().all(|sample| sample[0].1.len() == 64));
        Ok(0.5)
    });
    let search = SearchOptions { repairs: 0, samples: 4, ..SearchOptions::new(Target::MaxDrop(0.001)) };
    let quantizer = Quantizer::new(model.clone()).calibration(data(&model, 32, 1));
    let small = quantizer.metric(metric).search_options(search).run().unwrap();
    let quality = small.report.quality.unwrap();
    assert_eq!((quality.metric, quality.float_metric, quality.lost), (Some(0.5), Some(0.5), 0.0));
    // Nothing is lost by it, so the plan has the fewest bits of all.
    let search = small.report.search.unwrap();
    assert!(search.reached && search.bits < 2.5 && quality.outputs[0].lost > 0.01, "{} bits", search.bits);
    assert!(asked.load(Ordering::Relaxed) > 3);
}

#[cfg(unix)]
#[test]
fn a_command_is_a_metric() {
    let scratch = Scratch::new();
    let (model, data) = (digits("digits.onnx"), digits("calib.npz"));
    let run = |command: &str| {
        let out = scratch.path("out.onnx");
        let args = args![model, "-o", out, "--calib", data, "--samples", "16", "--metric-command", command, "--json"];
        msq(args)
    };
    let report = run("test -s {outputs} && test -s {labels} && echo 0.25").ok().json();
    assert_eq!((&report["quality"]["metric"], &report["quality"]["lost"]), (&0.25.into(), &0.0.into()));
    let failed = run("echo broken >&2; exit 3");
    assert_eq!(failed.code, Some(1));
    assert!(failed.stderr.contains("exit status: 3: broken"), "{}", failed.stderr);
    assert_eq!(failed.stderr.trim().lines().count(), 1, "{}", failed.stderr);
}

/// The kind of an output is asked for under either flag, and a name that is no output's is refused.
#[test]
fn the_kind_of_an_output_is_overridden() {
    let scratch = Scratch::new();
    let (model, data, out) = (digits("digits.onnx"), digits("calib.npz"), scratch.path("out.onnx"));
    let kind = |flags: [&str; 2]| {
        let args = args![model, "-o", out, "--calib", data, "--samples", "16", flags[0], flags[1], "--json"];
        msq(args).ok().json()["quality"]["outputs"][0]["kind"].as_str().unwrap().to_owned()
    };
    assert_eq!(kind(["--output-kind", "logits=values"]), "values");
    assert_eq!(kind(["--output", "logits=embedding"]), "embedding");
    let run = msq(args![model, "-o", out, "--calib", data, "--output-kind", "nothing=values"]);
    let said = run.usage();
    assert!(said.contains("--output-kind: no output is called `nothing`; there are `logits`"), "{said}");
}
