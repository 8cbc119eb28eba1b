//! The search for bits: targets are kept to, kept values change nothing, a killed search goes on.

use crate::common::{BINARY, Scratch, args, digits, msq};
use msq_onnx::data::{DataOptions, Dataset, InputSpec};
use msq_onnx::search::{Costs, Method, Outcome, SearchOptions, Target};
use msq_onnx::{ActivationBits, Options, PlacementMode, Quantizer, WeightBits, load};
use msq_passes::ir::import;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Digits with labels, in two parts.
fn parts(samples: usize) -> [Dataset; 2] {
    let model = load(&digits("digits.onnx")).unwrap();
    let options = DataOptions { samples: Some(samples), ..DataOptions::default() };
    let data = Dataset::open(&digits("calib.npz"), &InputSpec::of(&model), &options).unwrap();
    let (calibration, validation) = data.split(samples / 2);
    [calibration, validation]
}

fn method(name: &str) -> Method {
    name.parse().unwrap()
}

fn search(target: Target, method: Method, options: &Options, change: impl Fn(&mut SearchOptions)) -> Outcome {
    search_within(target, method, |quantizer| quantizer.options(options.clone()), change)
}

fn search_within(
    target: Target,
    method: Method,
    with: impl FnOnce(Quantizer<'static>) -> Quantizer<'static>,
    change: impl Fn(&mut SearchOptions),
) -> Outcome {
    let model = load(&digits("digits.onnx")).unwrap();
    let [calibration, validation] = parts(96);
    let mut search = SearchOptions { method, samples: 32, repairs: 6, ..SearchOptions::new(target) };
    change(&mut search);
    let quantizer = Quantizer::new(model).calibration(calibration).validation(validation);
    with(quantizer).search_options(search).search().unwrap()
}

/// What a search decided, without what it cost.
fn decisions(outcome: &Outcome) -> String {
    let mut json = serde_json::to_value(outcome).unwrap();
    json.as_object_mut().unwrap().remove("passes");
    serde_json::to_string_pretty(&json).unwrap()
}

/// With no memory to keep values in, every variant runs from the start: the naive loop.
#[test]
fn running_from_kept_values_changes_nothing_and_saves_passes() {
    let ladder = |search: &mut SearchOptions| {
        search.ladder = Some(vec![WeightBits::whole(8), WeightBits::whole(4), WeightBits::whole(2)]);
        search.activations = msq_onnx::Activations::Same;
    };
    for method in [method("msq"), method("auto")] {
        let kept = search(Target::Bits(3.0), method, &Options::default(), ladder);
        let naive = search_within(Target::Bits(3.0), method, |quantizer| quantizer.memory(Some(0)), ladder);
        assert_eq!(decisions(&kept), decisions(&naive));
        assert!((naive.passes.run - naive.passes.full).abs() < 1e-6 * naive.passes.full, "{:?}", naive.passes);
        assert!(kept.passes.run < 0.8 * kept.passes.full, "{:?}", kept.passes);
    }
}

#[test]
fn any_number_of_threads_decides_the_same() {
    let with = |threads| {
        decisions(&search_within(Target::Bits(3.0), method("auto"), |quantizer| quantizer.threads(threads), |_| {}))
    };
    let one = with(1);
    assert_eq!(one, with(2));
    assert_eq!(one, with(7));
}

#[test]
fn every_method_keeps_to_the_limit() {
    for method in [method("msq"), method("sensitivity"), method("ilp"), method("uniform"), method("auto")] {
        let found = search(Target::Bits(3.5), method, &Options::default(), |_| {});
        assert!(found.reached, "{}", found.method);
        assert!(found.bits <= 3.5, "{}: {}", found.method, found.bits);
        assert!(found.bits > 2.0, "{} wastes what it may use: {}", found.method, found.bits);
        assert_eq!(found.plan.layers.len(), 10);
    }
}

/// Quarters of a bit make a limit below two bits exact; other grids stay to be chosen.
#[test]
fn ladders_have_quarters_of_a_bit_and_other_grids() {
    let fractions = |found: &Outcome| {
        let weights = |bits: &&&str| found.plan.layers.values().any(|layer| layer.weights.to_string() == ***bits);
        ["2.5", "2.25", "1.75", "1.5", "1.25"].iter().filter(weights).count()
    };
    for method in [method("msq"), method("ilp")] {
        let trellis = Some("trellis".parse().unwrap());
        let found = search(Target::Bits(1.7), method, &Options::default(), |search| search.grid = trellis);
        assert!(found.reached && found.bits <= 1.7 && found.bits > 1.6, "{}: {}", found.method, found.bits);
        assert!(fractions(&found) > 0, "{}: {}", found.method, found.plan.to_json());
    }
    let of = |grid: &str| {
        let grid = Some(grid.parse().unwrap());
        search(Target::Bits(2.5), method("uniform"), &Options::default(), |search| search.grid = grid)
    };
    let grids = |found: &Outcome| found.plan.layers.values().map(|l| l.weight_grid().to_string()).collect::<Vec<_>>();
    assert_eq!(grids(&of("codebook")), ["codebook"; 10]);
    assert_eq!(grids(&of("full")), ["full"; 10]);
    assert_eq!(grids(&of("trellis")), ["trellis"; 10]);
}

/// The steps are those of algorithm 1: one layer at a time, that with the least difference to the one before.
#[test]
fn msq_lowers_the_layer_that_adds_least() {
    let found = search(Target::Bits(4.0), method("msq"), &Options::default(), |_| {});
    assert!(found.steps.len() > 10);
    for (step, next) in found.steps.iter().zip(&found.steps[1..]) {
        let names: Vec<&String> = step.plan.layers.keys().collect();
        let changed: Vec<&String> =
            names.iter().copied().filter(|n| step.plan.layer(n) != next.plan.layer(n)).collect();
        assert_eq!(changed, step.lowered.iter().collect::<Vec<_>>());
        let difference = |i: usize| (step.accuracies[i] - step.accuracies[i - 1]).abs();
        let lowest = |name: &str| step.plan.layer(name).unwrap().weights == WeightBits::Ternary;
        let at = names.iter().position(|name| **name == step.lowered[0]).unwrap();
        for other in (1..names.len()).filter(|&other| !lowest(names[other])) {
            assert!(difference(at) <= difference(other) + 1e-9, "{} against {}", names[at], names[other]);
        }
    }
    assert!(found.steps.iter().all(|step| step.plan.layers[0].weights == WeightBits::whole(8)), "the first stays");
    let accuracies = &found.steps[0].accuracies;
    assert!(accuracies[9] > 0.9 && accuracies[0] < accuracies[9], "{accuracies:?}");
}

/// Exchanges and the choice between proposals never make the plan worse.
#[test]
fn auto_is_no_worse_than_what_it_chooses_from() {
    let found = search(Target::Bits(2.5), method("auto"), &Options::default(), |search| search.repairs = 12);
    let proposals = found.proposals.iter().map(|p| p.metrics.distance);
    assert!(proposals.fold(f64::INFINITY, f64::min) >= found.metrics.distance - 1e-12);
    assert!(found.proposals.iter().any(|p| p.method == "msq") && found.proposals.iter().any(|p| p.method == "ilp"));
    let front: Vec<(u64, f64)> = found.front.iter().map(|p| (p.packed_bytes, p.metrics.distance)).collect();
    assert!(front.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 > pair[1].1), "{front:?}");
}

fn run(scratch: &Scratch, name: &str, more: &[&str]) -> (crate::common::Run, std::path::PathBuf) {
    let output = scratch.out(name);
    let mut all =
        args![digits("digits.onnx"), "-o", output, "--calib", digits("calib.npz"), "--samples", "96"].to_vec();
    all.extend(["--search-samples", "32", "--repairs", "4"].map(OsString::from));
    all.extend(more.iter().map(OsString::from));
    (msq(&all), output)
}

/// Layers that no search may touch are float in the plan that it finds, and in the file.
#[test]
fn layers_can_be_left_out_of_a_search() {
    let scratch = Scratch::new();
    for (out, target) in
        [("bits.onnx", "--target-bits=4"), ("size.onnx", "--target-size=24KB"), ("drop.onnx", "--max-drop=5%")]
    {
        for float in [["--skip", "head"], ["--keep-float", "Gemm"]] {
            let plan = scratch.path("plan.json");
            let more =
                [target, "--search", "uniform", "--ladder", "8,4", "--json", "--save-plan", plan.to_str().unwrap()];
            let (run, _) = run(&scratch, out, &[&float[..], &more].concat());
            let report = run.ok().json();
            assert!(report["layers"].as_array().unwrap().iter().all(|layer| layer["name"] != "head"), "{report}");
            assert!(report["float_layers"].to_string().contains("head"), "{report}");
            let plan: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&plan).unwrap()).unwrap();
            assert_eq!(plan["layers"]["head"]["weights"], "float", "{plan}");
        }
    }
}

#[test]
fn a_size_is_kept_to_by_the_file() {
    let scratch = Scratch::new();
    for size in [16_000, 13_500, 13_000] {
        let (run, output) = run(&scratch, "out.onnx", &["--target-size", &size.to_string(), "--json"]);
        let report = run.ok().json();
        let bytes = output.metadata().unwrap().len();
        assert!(bytes <= size && bytes > size * 9 / 10, "{bytes} for {size}");
        assert_eq!(report["search"]["reached"], true);
        // Every layer was measured, whether or not the search ran again for a file that was too large.
        let layers = report["search"]["sensitivities"].as_array().unwrap().len() as f64;
        let passes = report["search"]["passes"]["full"].as_f64().unwrap();
        assert!(layers > 0.0 && passes >= 32.0 * layers, "{passes} passes for {layers} layers");
        assert_eq!(report["quality"]["held_out"], true);
        assert!(report["quality"]["accuracy"].is_number(), "digits have labels");
    }
    assert_eq!(scratch.outputs(), ["out.onnx"], "neither journal nor plan is left");
}

/// Half of 96 samples measures layers, a quarter plans, and a quarter the plan that was chosen, which is solved on the rest.
#[test]
fn what_is_stated_comes_from_samples_that_nothing_was_chosen_by() {
    let scratch = Scratch::new();
    let plan = scratch.out("plan.json");
    let target = ["--target-bits", "3", "--search", "uniform", "--save-plan", plan.to_str().unwrap(), "--json"];
    let (searched, first) = run(&scratch, "first.onnx", &target);
    let report = searched.ok().json();
    let quality = &report["quality"];
    assert_eq!(report["search"]["samples"], serde_json::json!([48, 24]));
    assert_eq!((&report["samples"], &quality["samples"]), (&72.into(), &24.into()));
    assert!(quality["held_out"] == true && quality["chosen_by"].is_null(), "{quality}");
    assert!(quality["lost_at_most"].as_f64().unwrap() > quality["lost"].as_f64().unwrap(), "{quality}");
    // The same plan without a search is solved and compared on the same samples.
    let output = scratch.out("second.onnx");
    let data = args![digits("calib.npz"), "--samples", "96", "--plan", plan, "--json"];
    let again = msq(&[args![digits("digits.onnx"), "-o", &output, "--calib"].to_vec(), data.to_vec()].concat());
    assert_eq!(again.ok().json()["quality"]["outputs"], quality["outputs"]);
    assert_eq!(std::fs::read(first).unwrap(), std::fs::read(&output).unwrap());
    let target = args!["--samples", "40", "--target-bits", "3", "--search", "uniform", "--json"];
    let few =
        msq(&[args![digits("digits.onnx"), "-o", output, "--calib", digits("calib.npz")].to_vec(), target.to_vec()]
            .concat());
    let quality = &few.ok().json()["quality"];
    assert!(quality["chosen_by"] == true && quality["samples"] == 16, "{quality}");
}

#[test]
fn a_target_out_of_reach_gives_the_nearest_model_and_code_5() {
    let scratch = Scratch::new();
    let (run, output) = run(&scratch, "out.onnx", &["--target-size", "2KB", "--search", "ilp"]);
    assert_eq!(run.code, Some(5), "{}", run.stderr);
    assert!(run.stdout.contains("out of reach"), "{}", run.stdout);
    assert!(load(&output).is_ok());
}

#[test]
fn the_smallest_model_within_a_drop() {
    let scratch = Scratch::new();
    let (run, _) = run(&scratch, "out.onnx", &["--max-drop", "3%", "--json"]);
    let report = run.ok().json();
    let (quality, search) = (&report["quality"], &report["search"]);
    let lost = quality["float_accuracy"].as_f64().unwrap() - quality["accuracy"].as_f64().unwrap();
    assert!(lost <= 0.03, "{quality}");
    assert!(search["bits"].as_f64().unwrap() < 6.0, "{search}");
}

/// With 3 bits of activations the most bits of weights are not enough: the layers that need it compute in float, others
/// do not, and weights lose bits all the same.
#[test]
fn layers_are_left_in_float_for_a_drop_out_of_reach() {
    let mut proto = crate::common::models::parse(
        "<ir_version: 8, opset_import: [\"\": 17]>
         g (float[1,2,8,8] x) => (float[1,4,8,8] y)
         <float[12,2,3,3] a = {}, float[12,12,3,3] b = {}, float[12,12,3,3] c = {}, float[4,12,1,1] d = {}>
         { t0 = Conv<pads: ints = [1,1,1,1]>(x, a)  t1 = Relu(t0)
           t2 = Conv<pads: ints = [1,1,1,1]>(t1, b)  t3 = Relu(t2)
           t4 = Conv<pads: ints = [1,1,1,1]>(t3, c)  t5 = Relu(t4)
           y = Conv(t5, d) }",
    );
    crate::common::models::fill(&mut proto);
    let model = import(proto).unwrap();
    let found = |drop| {
        let activations = msq_onnx::Activations::Fixed(ActivationBits::Bits(3));
        let wanted = SearchOptions { activations, ..SearchOptions::new(Target::MaxDrop(drop)) };
        let mut options = Options::default();
        // A network as small as this runs faster in float.
        options.scheme.placement = PlacementMode::All;
        Quantizer::new(model.clone()).options(options).search_options(wanted).search().unwrap()
    };
    let on_integers = |outcome: &Outcome| {
        let plans = outcome.plan.layers.values();
        plans.filter(|plan| plan.activations != ActivationBits::Float).count()
    };
    let (loose, tight, impossible) = (found(0.5), found(0.02), found(1e-9));
    assert_eq!((on_integers(&loose), loose.reached), (4, true), "{:?}", loose.metrics);
    assert!((1..4).contains(&on_integers(&tight)) && tight.reached, "{:?}", tight.plan);
    assert!(tight.metrics.distance <= 0.02 && tight.bits < 8.0, "{:?}", tight.metrics);
    // Not by float layers either: their weights are integers.
    assert_eq!((on_integers(&impossible), impossible.reached), (4, false));
}

/// The list alone, and the models of its points.
#[test]
fn the_front_is_listed_and_written() {
    let scratch = Scratch::new();
    let (list, models) = (scratch.path("front.json"), scratch.out(""));
    let all = args![
        "search",
        digits("digits.onnx"),
        "--calib",
        digits("calib.npz"),
        "--samples",
        "64",
        "--search-samples",
        "16",
        "--repairs",
        "0",
        "--search",
        "ilp",
        "--target-bits",
        "3",
        "--ladder",
        "8,4,2",
        "-o",
        list,
        "--front",
        models
    ];
    let run = msq(all).ok();
    assert!(run.stdout.contains("distance"), "{}", run.stdout);
    let found: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&list).unwrap()).unwrap();
    let points = found["front"].as_array().unwrap();
    assert!(points.len() > 2 && scratch.outputs().len() == points.len(), "{:?}", scratch.outputs());
    let sizes: Vec<u64> = points.iter().map(|point| point["packed_bytes"].as_u64().unwrap()).collect();
    for (point, size) in points.iter().zip(sizes) {
        let name = format!("{:.2}-bits-{size}.onnx", point["bits"].as_f64().unwrap());
        assert!(load(&scratch.out(&name)).is_ok(), "{name}");
    }
    assert!(!scratch.path("front.json.search.jsonl").exists());
}

#[test]
fn flags_that_contradict_each_other() {
    let scratch = Scratch::new();
    let refused = |more: &[&str]| run(&scratch, "out.onnx", more).0;
    assert!(refused(&["--target-bits", "3", "--weight-bits", "4"]).usage().contains("--weight-bits"));
    refused(&["--target-bits", "3", "--target-ratio", "4"]).usage();
    assert!(refused(&["--target-bits", "0"]).usage().contains("above 0"));
    assert!(refused(&["--max-drop", "200%"]).usage().contains("not between"));
    assert!(refused(&["--max-drop", "1"]).usage().contains("write 1%"));
    assert!(refused(&["--target-bits", "3", "--search", "best"]).usage().contains("auto, msq, sensitivity"));
    assert!(refused(&["--target-bits", "3", "--ladder", "8,float"]).error(2).contains("--ladder"));
    assert!(refused(&["--target-bits", "3", "--pyramid", "0"]).error(2).contains("--pyramid"));
    assert!(refused(&["--target-bits", "3", "--packing", "none"]).usage().contains("--packing"));
    let searched = msq(args!["search", digits("digits.onnx"), "--weight-bits", "4"]);
    assert!(searched.error(2).contains("--weight-bits says what weights become"));
    assert_eq!(scratch.outputs(), Vec::<String>::new());
}

/// Outputs that are no class scores: MSQ says what to use, and that works.
#[test]
fn networks_that_are_no_classifiers() {
    let scratch = Scratch::new();
    let mut model = crate::common::models::parse(
        "<ir_version: 8, opset_import: [\"\": 17]>
         g (float[1,2,8,8] x) => (float[1,3,8,8] y, float[1,2,8,8] z)
         <float[12,2,3,3] a = {}, float[3,12,3,3] b = {}, float[2,12,1,1] c = {}>
         { h = Conv<pads: ints = [1,1,1,1]>(x, a) r = Relu(h) y = Conv<pads: ints = [1,1,1,1]>(r, b) z = Conv(r, c) }",
    );
    crate::common::models::fill(&mut model);
    let path = crate::common::models::write(&scratch.path("two.onnx"), &model);
    let out = scratch.out("out.onnx");
    let msq_search = msq(args![path, "-o", out, "--target-bits", "4", "--search", "msq"]);
    assert!(
        msq_search.stderr.lines().last().unwrap().contains("use search `auto`, `sensitivity`"),
        "{}",
        msq_search.stderr
    );
    assert_eq!(msq_search.code, Some(3));
    let report = msq(args![path, "-o", out, "--target-bits", "4", "--json"]).ok().json();
    assert!(report["search"]["bits"].as_f64().unwrap() <= 4.0);
    assert!(report["search"]["verdict"]["agreement"].is_null());
}

#[test]
fn a_killed_search_goes_on_and_ends_the_same() {
    let scratch = Scratch::new();
    let arguments = |output: &Path| {
        let mut all =
            args![digits("digits.onnx"), "-o", output, "--calib", digits("calib.npz"), "--samples", "96"].to_vec();
        all.extend(["--target-bits", "3", "--search-samples", "32", "--repairs", "4", "--json"].map(OsString::from));
        all
    };
    let (whole, output) = (scratch.out("whole.onnx"), scratch.out("out.onnx"));
    msq(&arguments(&whole)).ok();
    let journal = scratch.out("out.onnx.search.jsonl");
    let measured = || std::fs::read_to_string(&journal).unwrap_or_default().lines().count().saturating_sub(1);
    let (mut killed, mut before) = (0, 0);
    for _ in 0..40 {
        // Until a few more measurements are written down than last time.
        let mut child = Command::new(BINARY)
            .args(arguments(&output))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while child.try_wait().unwrap().is_none() && measured() < before + 7 {
            std::thread::sleep(Duration::from_millis(5));
        }
        if child.try_wait().unwrap().is_some() {
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;
        before = measured();
        assert!(!output.exists(), "no model before it is done");
        if killed == 5 {
            let report = msq(&arguments(&output)).ok().json();
            assert!(report["search"]["resumed"].as_u64().unwrap() >= before as u64, "{}", report["search"]["resumed"]);
            break;
        }
    }
    assert!(killed >= 3, "killed only {killed} times");
    assert_eq!(std::fs::read(&whole).unwrap(), std::fs::read(&output).unwrap());
    assert_eq!(scratch.outputs(), ["out.onnx", "whole.onnx"]);
}

/// Costs of every layer and width, from the second width on.
fn costs(outcome: &Outcome) -> Vec<f64> {
    outcome.sensitivities.iter().flat_map(|layer| layer.costs[1..].iter().map(|(_, cost)| *cost)).collect()
}

/// Spearman's rank correlation.
fn rank_correlation(a: &[f64], b: &[f64]) -> f64 {
    let rank = |values: &[f64], value: f64| {
        let (below, same) = values.iter().fold((0, 0), |(below, same), &other| {
            (below + usize::from(other < value), same + usize::from(other == value))
        });
        f64::from(below as u32) + (f64::from(same as u32) - 1.0) / 2.0
    };
    let middle = (a.len() as f64 - 1.0) / 2.0;
    let centred = |values: &[f64]| values.iter().map(|&v| rank(values, v) - middle).collect::<Vec<f64>>();
    let (a, b) = (centred(a), centred(b));
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    product(&a, &b) / (product(&a, &a) * product(&b, &b)).sqrt()
}

/// To second order what is added to the distance is what gradients say; with more bits it is closer.
#[test]
fn costs_from_gradients_are_those_measured() {
    let widths = |search: &mut SearchOptions| {
        search.ladder = Some([8, 5, 4, 3].map(WeightBits::whole).to_vec());
        search.samples = 48;
    };
    let by = |how| {
        search(Target::Bits(4.0), method("ilp"), &Options::default(), |search| {
            widths(search);
            search.costs = how;
        })
    };
    let (measured, gradient) = (by(Costs::Measured), by(Costs::Gradient));
    let (a, b) = (costs(&measured), costs(&gradient));
    assert_ne!(a, b, "the costs are measured all the same");
    let alike = rank_correlation(&a, &b);
    // What is measured is softened, so that the sizes differ where the network is certain.
    assert!(alike > 0.8, "{alike}: measured {a:?}, from gradients {b:?}");
    assert!(b.iter().all(|cost| *cost > 0.0), "{b:?}");
}

/// Where there is no gradient the costs are measured.
#[test]
fn costs_are_measured_behind_an_operator_without_a_rule() {
    let mut proto = crate::common::models::parse(
        "<ir_version: 8, opset_import: [\"\": 17]>
         g (float[1,8] x) => (float[1,4] y)
         <float[8,12] a = {}, float[12,4] b = {}, int64 axis = {1}>
         { t0 = MatMul(x, a)  t1 = Relu(t0)  t2 = CumSum(t1, axis)
           y = MatMul(t2, b) }",
    );
    crate::common::models::fill(&mut proto);
    let model = import(proto).unwrap();
    let found = |costs| {
        let wanted = SearchOptions { method: method("ilp"), costs, ..SearchOptions::new(Target::Bits(4.0)) };
        decisions(&Quantizer::new(model.clone()).search_options(wanted).search().unwrap())
    };
    assert_eq!(found(Costs::Gradient), found(Costs::Measured));
}

#[test]
fn costs_from_gradients_do_not_depend_on_threads_or_memory() {
    let scratch = Scratch::new();
    let made = |name: &str, more: &[&str]| {
        let given = ["--target-bits", "3", "--search", "ilp", "--costs", "gradient"];
        let (run, output) = run(&scratch, name, &[&given, more].concat());
        run.ok();
        std::fs::read(output).unwrap()
    };
    let one = made("one.onnx", &["--threads", "1"]);
    assert!(one == made("three.onnx", &["--threads", "3"]));
    // Few samples go through at once.
    assert!(one == made("little.onnx", &["--memory", "64MB"]));
}
