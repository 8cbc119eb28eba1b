//! The guard: what loses too much is repaired, and said; and what would lose too much for a known reason is not placed so.

use crate::common::models;
use msq_onnx::data::{Dataset, InputSpec, SyntheticOptions};
use msq_onnx::search::{SearchOptions, Target};
use msq_onnx::{
    ActivationBits, BitPlan, LayerPlan, Options, PlacementMode, Quantized, Quantizer, SolverName, WeightBits,
};
use msq_passes::ir::{Model, check, encode_model, export, import};

fn model(text: &str) -> Model {
    let mut proto = models::parse(&format!("<ir_version: 8, opset_import: [\"\": 17]> {text}"));
    models::fill(&mut proto);
    import(proto).unwrap()
}

/// Features in two units: one of size 1,000 and one of size 1, which the first layer's weights make up for.
fn mixed_units() -> Model {
    model(
        "g (float[N,2,8,8] x) => (float[N,4,8,8] y)
         <float[1,2,1,1] unit = {1000.0, 1.0},
          float[4,2,1,1] first = {0.001, 1.0, -0.001, 1.0, 0.002, -1.0, 0.001, 0.5},
          float[8,4,3,3] a = {}, float[8,8,3,3] b = {}, float[4,8,3,3] c = {}>
         { n = Mul (x, unit)  t0 = Conv (n, first)  r0 = Relu (t0)
           t1 = Conv <pads = [1,1,1,1]> (r0, a)  r1 = Relu (t1)
           t2 = Conv <pads = [1,1,1,1]> (r1, b)  r2 = Relu (t2)
           y = Conv <pads = [1,1,1,1]> (r2, c) }",
    )
}

/// Gates by a sigmoid of a masked sum; `mask` is what the masked places get.
fn gated(mask: &str) -> Model {
    let row = format!("0.0, 0.0, 0.0, 0.0, 0.0, 0.0, {mask}, {mask}");
    model(&format!(
        "g (float[N,3,2,8] x) => (float[N,8,2,8] y)
         <float[16,3,1,3] a = {{}}, float[16,16,1,1] g = {{}}, float[1,1,2,8] mask = {{{row}, {row}}}, float[8,16,1,3] b = {{}}>
         {{ t0 = Conv <pads = [0,1,0,1]> (x, a)  r0 = Relu (t0)
            t1 = Conv (r0, g)  m = Add (t1, mask)  s = Sigmoid (m)  z = Mul (r0, s)
            y = Conv <pads = [0,1,0,1]> (z, b) }}"
    ))
}

/// Fields in physical units at the end.
fn fields() -> Model {
    model(
        "g (float[N,5,8,8] x) => (float[N,5,8,8] y)
         <float[16,5,3,3] a = {}, float[5,16,3,3] b = {},
          float[1,5,1,1] unit = {5000.0, 12.0, 8.0, 0.004, 0.3}, float[1,5,1,1] mean = {101325.0, 283.0, 1.0, 0.006, 0.5}>
         { t0 = Conv <pads = [1,1,1,1]> (x, a)  r0 = Relu (t0)  n = Conv <pads = [1,1,1,1]> (r0, b)
           u = Mul (n, unit)  y = Add (u, mean) }",
    )
}

fn data(model: &Model, count: usize) -> Dataset {
    let options = SyntheticOptions { count, seed: 1, ..SyntheticOptions::default() };
    Dataset::synthetic(&InputSpec::of(model), &options).unwrap()
}

fn run(model: &Model, change: impl FnOnce(&mut Options)) -> Quantized {
    let mut options = Options::default();
    // Networks as small as these run faster in float.
    options.scheme.placement = PlacementMode::All;
    change(&mut options);
    Quantizer::new(model.clone()).calibration(data(model, 32)).options(options).run().unwrap()
}

fn worst(quantized: &Quantized) -> f64 {
    quantized.report.quality.as_ref().unwrap().outputs[0].worst_sqnr.unwrap()
}

fn bytes(quantized: &Quantized) -> Vec<u8> {
    encode_model(&export(&quantized.model))
}

#[test]
fn a_layer_that_loses_a_feature_computes_in_float() {
    let model = mixed_units();
    let left = run(&model, |options| options.repair.repair = false);
    assert!(left.report.repair.is_none() && worst(&left) < 20.0, "{}", worst(&left));
    let repaired = run(&model, |_| {});
    let report = repaired.report.repair.as_ref().unwrap();
    assert!(report.reached && worst(&repaired) >= 20.0, "{report:?}");
    assert!(report.before.lost > 0.01 && report.after.lost <= 0.01, "{report:?}");
    // The first layer is to blame, and little else is put in float.
    assert!(report.float_layers.contains(&"t0".to_owned()) && report.float_layers.len() <= 2, "{report:?}");
    assert_eq!(report.float_weights, ["t0"]);
    assert!(repaired.report.layers.iter().any(|layer| layer.activation_bits.is_some()));
    assert!(report.float_work > 0.0 && report.float_work < 0.5, "{}", report.float_work);
}

/// A layer with a large weight for a feature that is hardly there, beside which few bits leave nothing of the others.
fn lone_weights() -> Model {
    let text = "g (float[N,64,8,8] x) => (float[N,4,8,8] y)
         <float[1,64,1,1] unit = {}, float[8,64,1,1] a = {}, float[64,8,3,3] b = {}, float[4,64,3,3] c = {}>
         { n = Mul (x, unit)  t0 = Conv (n, a)  r0 = Relu (t0)
           t1 = Conv <pads = [1,1,1,1]> (r0, b)  r1 = Relu (t1)
           y = Conv <pads = [1,1,1,1]> (r1, c) }";
    let mut proto = models::parse(&format!("<ir_version: 8, opset_import: [\"\": 17]> {text}"));
    models::fill(&mut proto);
    models::set(&mut proto, "unit", (0..64).map(|channel| if channel == 0 { 0.01 } else { 1.0 }));
    let usual = |i: usize| ((i * 37) % 64) as f32 / 100.0 - 0.3;
    models::set(&mut proto, "a", (0..8 * 64).map(|i| if i % 64 == 0 { 12.0 } else { usual(i) }));
    import(proto).unwrap()
}

#[test]
fn a_layer_that_few_bits_ruin_gets_eight() {
    let model = lone_weights();
    let four = |options: &mut Options| {
        options.scheme.plan = BitPlan::uniform(LayerPlan { weights: WeightBits::whole(4), ..LayerPlan::default() });
        options.solve.solver = Some(SolverName::ROUND);
    };
    let left = run(&model, |options| {
        four(options);
        options.repair.repair = false;
    });
    let repaired = run(&model, four);
    let report = repaired.report.repair.as_ref().unwrap();
    assert_eq!(report.eight_bit_weights, ["t0"], "{report:?}");
    assert!(report.float_weights.is_empty() && report.float_layers.is_empty(), "{report:?}");
    assert!(worst(&repaired) > worst(&left) + 10.0, "{} → {} dB", worst(&left), worst(&repaired));
    let bits: Vec<_> = repaired.report.layers.iter().filter_map(|layer| layer.weight_bits).collect();
    assert_eq!(bits, [8, 4, 4].map(WeightBits::whole));
    let again = run(&model, |options| {
        four(options);
        options.scheme.plan = repaired.report.plan.clone();
    });
    assert_eq!(bytes(&repaired), bytes(&again));
}

/// A recurrent operator with a large weight for a feature that is hardly there.
fn recurrent_with_lone_weights() -> Model {
    let text = "g (float[N,6,16] x) => (float[N,4] y)
         <float[1,1,16] unit = {}, float[1,48,16] w = {}, float[1,48,16] r = {}, float[16,4] o = {}, int64[1] zero = {0}>
         { n = Mul (x, unit)  t = Transpose <perm = [1, 0, 2]> (n)
           all, last = GRU <hidden_size = 16> (t, w, r)  s = Squeeze (last, zero)  y = MatMul (s, o) }";
    let mut proto = models::parse(&format!("<ir_version: 8, opset_import: [\"\": 17]> {text}"));
    models::fill(&mut proto);
    models::set(&mut proto, "unit", (0..16).map(|channel| if channel == 0 { 0.01 } else { 1.0 }));
    let usual = |i: usize| ((i * 37) % 64) as f32 / 100.0 - 0.3;
    models::set(&mut proto, "w", (0..48 * 16).map(|i| if i % 16 == 0 { 12.0 } else { usual(i) }));
    models::set(&mut proto, "r", (0..48 * 16).map(usual));
    import(proto).unwrap()
}

/// No solver makes up for what few bits do to recurrent weights.
#[test]
fn recurrent_weights_that_few_bits_ruin_get_eight() {
    let repaired = run(&recurrent_with_lone_weights(), |options| {
        options.scheme.plan = BitPlan::uniform(LayerPlan { weights: WeightBits::whole(4), ..LayerPlan::default() });
        options.solve.solver = Some(SolverName::ROUND);
        // Inputs that are balanced lose less.
        options.calibrate.smooth = false;
    });
    let report = repaired.report.repair.as_ref().unwrap();
    assert!(report.eight_bit_weights.contains(&"w".to_owned()), "{report:?}");
    assert!(report.after.lost < 0.5 * report.before.lost, "{report:?}");
    let bits = repaired.report.stored.iter().find(|weight| weight.name == "w").unwrap().weight_bits;
    // Floats where eight are not enough either.
    assert!(bits.is_none_or(|bits| bits == WeightBits::whole(8)), "{bits:?}");
}

/// Few bits, and activations in float, do not keep a layer from float weights where without it hardly anything is left of
/// the outputs.
#[test]
fn a_layer_for_which_no_bits_are_enough_gets_float_weights_at_every_width() {
    let model = mixed_units();
    let eight = LayerPlan::default();
    let plans = [
        LayerPlan { weights: WeightBits::whole(7), ..eight },
        LayerPlan { activations: ActivationBits::Float, ..eight },
    ];
    for plan in plans {
        let change = |options: &mut Options| options.scheme.plan = BitPlan::uniform(plan);
        let left = run(&model, |options| {
            change(options);
            options.repair.repair = false;
        });
        let repaired = run(&model, change);
        let report = repaired.report.repair.as_ref().unwrap();
        assert_eq!(report.float_weights, ["t0"], "{plan:?}: {report:?}");
        assert!(worst(&left) < 10.0 && worst(&repaired) >= 20.0, "{plan:?}: {} dB", worst(&repaired));
    }
}

/// Layers side by side that lose a feature each, so that none of them alone is to blame.
#[test]
fn layers_that_lose_together_get_float_weights() {
    let first = "0.001, 1.0, -0.001, 1.0, 0.002, -1.0, 0.001, 0.5";
    let model = model(&format!(
        "g (float[N,2,8,8] x) => (float[N,4,8,8] y)
         <float[1,2,1,1] unit = {{1000.0, 1.0}}, float[4,2,1,1] a = {{{first}}}, float[4,2,1,1] b = {{{first}}},
          float[4,2,1,1] c = {{{first}}}, float[4,2,1,1] d = {{{first}}}, float[4,16,3,3] e = {{}}>
         {{ n = Mul (x, unit)  t0 = Conv (n, a)  t1 = Conv (n, b)  t2 = Conv (n, c)  t3 = Conv (n, d)
            r0 = Relu (t0)  r1 = Tanh (t1)  r2 = Relu (t2)  r3 = Tanh (t3)
            z = Concat <axis = 1> (r0, r1, r2, r3)  y = Conv <pads = [1,1,1,1]> (z, e) }}"
    ));
    let repaired = run(&model, |_| {});
    let report = repaired.report.repair.as_ref().unwrap();
    let mut freed = report.float_weights.clone();
    freed.sort();
    assert!(report.reached && worst(&repaired) >= 20.0, "{} dB: {report:?}", worst(&repaired));
    assert_eq!(freed, ["t0", "t1", "t2", "t3"], "{report:?}");
}

/// Both layers stay in float, being slower on integers. With the first out of the way the second alone costs too little more
/// to be told from noise, so that it would be placed on integers, for which it has no ranges.
#[test]
fn layers_that_are_slower_on_integers_get_float_weights_too() {
    const WIDTH: usize = 48;
    let listed = |values: Vec<f64>| values.iter().map(|v| format!("{v:?}")).collect::<Vec<_>>().join(", ");
    let unit = |row: usize| if row.is_multiple_of(2) { 1000.0 } else { 1.0 };
    let weight = |row: usize, column: usize| ((row * 7 + column * 5 + row * column) % 11) as f64 - 5.0;
    let all = (0..WIDTH * WIDTH).map(|at| (at / WIDTH, at % WIDTH));
    let first = all.map(|(row, column)| 0.03 * weight(row, column) / unit(row)).collect();
    let model = model(&format!(
        "g (float[1,{WIDTH}] x) => (float[1,{WIDTH}] y)
         <float[1,{WIDTH}] unit = {{{}}}, float[{WIDTH},{WIDTH}] a = {{{}}}, float[{WIDTH},{WIDTH}] b = {{}}>
         {{ n = Mul (x, unit)  t = MatMul (n, a)  r = Tanh (t)  e = Exp (r)  m = MatMul (e, b)  y = Tanh (m) }}",
        listed((0..WIDTH).map(unit).collect()),
        listed(first)
    ));
    let repaired = run(&model, |options| options.scheme.placement = PlacementMode::default());
    let report = repaired.report.repair.as_ref().unwrap();
    assert_eq!(report.float_weights, ["t"], "{report:?}");
    assert!(report.reached && repaired.report.on_integers() == 0, "{report:?}");
}

/// The same bytes with any number of threads, and by the plan that the run wrote down.
#[test]
fn repairs_are_reproducible() {
    let model = mixed_units();
    let of = |threads: usize| {
        let quantizer = Quantizer::new(model.clone()).calibration(data(&model, 32)).threads(threads);
        quantizer.run().unwrap()
    };
    let (one, three) = (of(1), of(3));
    assert!(one.report.repair.is_some());
    assert_eq!(bytes(&one), bytes(&three));
    let again = run(&model, |options| options.scheme.plan = one.report.plan.clone());
    assert!(again.report.repair.is_none());
    assert_eq!(bytes(&one), bytes(&again));
}

#[test]
fn nothing_is_repaired_where_nothing_is_lost_or_known() {
    let model = fields();
    assert!(run(&model, |_| {}).report.repair.is_none());
    let unseen = Quantizer::new(mixed_units()).run().unwrap();
    assert!(unseen.report.synthetic && unseen.report.repair.is_none());
}

#[test]
fn a_drop_is_kept_to_by_the_same_repairs() {
    let model = mixed_units();
    let search = SearchOptions { repairs: 2, samples: 8, ..SearchOptions::new(Target::MaxDrop(0.01)) };
    let small = Quantizer::new(model.clone()).calibration(data(&model, 48)).search_options(search).run().unwrap();
    assert!(small.report.search.as_ref().unwrap().reached, "{:?}", small.report.quality);
    let first = small.report.plan.layer("t0").unwrap();
    assert_eq!(first.activations, ActivationBits::Float);
}

/// A mask of −1e4 or −∞ leaves all steps to what is not masked.
#[test]
fn masks_do_not_set_ranges() {
    for mask in ["-10000.0", "-inf"] {
        let found = run(&gated(mask), |options| options.repair.repair = false);
        assert!(worst(&found) > 28.0, "{mask}: {}", worst(&found));
        assert!(found.report.kept.iter().any(|kept| kept.op == "Add"), "{:?}", found.report.kept);
    }
}

/// What an integer kernel writes has one scale; units that nothing but the caller reads stay behind it.
#[test]
fn fields_in_units_of_their_own() {
    let model = fields();
    let found = run(&model, |options| options.repair.repair = false);
    assert!(worst(&found) > 28.0, "{}", worst(&found));
    assert!(found.report.on_integers() == 2);
}

/// An operator that passes would take away or write in another way can be kept, one that the model never had cannot.
#[test]
fn operators_that_passes_remove_can_be_kept() {
    let model = model(
        "g (float[N,3,8,8] x) => (float[N,4,8,8] y)
         <float[8,3,3,3] a = {}, float[4,8,1,1] b = {}, float[1,8,1,1] unit = {1, 2, 1, 2, 1, 2, 1, 2}>
         { t = Conv (x, a)  m = Mul (t, unit)  h = HardSwish (m)
           p = ReduceMean <axes = [2, 3], keepdims = 1> (h)  s = HardSigmoid (p)  g = Mul (h, s)  y = Conv (g, b) }",
    );
    let keeping = |op: &str| {
        let mut options = Options::default();
        options.scheme.keep_float = vec![op.to_owned()];
        // Weights of float layers are decoded by products.
        options.scheme.placement = PlacementMode::All;
        Quantizer::new(model.clone()).calibration(data(&model, 8)).options(options).run()
    };
    for op in ["Mul", "HardSwish", "HardSigmoid", "ReduceMean"] {
        let Quantized { model, .. } = keeping(op).unwrap();
        let count = model.graph.nodes().filter(|(_, node)| node.is(op)).count();
        assert_eq!(count, if op == "Mul" { 2 } else { 1 }, "{op}");
        assert_eq!(model.opset("sealed"), None);
        check(&model).unwrap();
    }
    assert!(keeping("Tanh").is_err_and(|error| error.to_string().contains("no node of operator `Tanh`")));
}

/// One product on features in units of their own: only floats keep it, and then nothing is left to quantize. The file is
/// written all the same, and says what it loses.
#[test]
fn a_model_whose_only_layer_loses_much_is_written() {
    let units: Vec<f32> = (0..8).map(|at| 10_f32.powf(at as f32 * 0.7 - 2.0)).collect();
    let list =
        |of: &dyn Fn(f32) -> f32| units.iter().map(|&unit| format!("{:e}", of(unit))).collect::<Vec<_>>().join(", ");
    let text = format!(
        "g (float[N,8] x) => (float[N,8] y) <float[8] unit = {{{}}}, float[8,8] w = {{}}, float[8,1] scale = {{{}}}>
         {{ n = Mul (x, unit)  v = Mul (w, scale)  y = MatMul (n, v) }}",
        list(&|unit| unit),
        list(&|unit| unit.recip())
    );
    let quantized = run(&model(&text), |options| {
        options.calibrate.smooth = false;
        options.calibrate.outliers = false;
    });
    let quality = quantized.report.quality.as_ref().unwrap();
    assert!(quality.lost > 0.01, "{}", quality.lost);
    let search = SearchOptions { samples: 8, ..SearchOptions::new(Target::MaxDrop(0.0001)) };
    let mut options = Options::default();
    options.calibrate.smooth = false;
    options.calibrate.outliers = false;
    let model = model(&text);
    let quantizer = Quantizer::new(model.clone()).calibration(data(&model, 64)).options(options);
    assert!(!quantizer.search_options(search).run().unwrap().report.search.unwrap().reached);
}
