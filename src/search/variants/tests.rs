use super::*;
use crate::data::{InputSpec, SyntheticOptions};
use msq_passes::ir::{import, text};

/// Gates of two kinds, and a movement between the second and the layer that reads it.
fn gated() -> Model {
    let numbers =
        |count: u32| (0..count).map(|i| format!("{}", (i * 7 % 11) as f32 - 5.0)).collect::<Vec<_>>().join(", ");
    let source = format!(
        "<ir_version: 8, opset_import: [\"\": 17]>
         g (float[1,4,6] x) => (float[1,6,3] y)
         <float[4,4,1] a = {{{}}}, float[4,4,1] b = {{{}}}, float[4,3] c = {{{}}},
          float three = {{3.0}}, float zero = {{0.0}}, float six = {{6.0}}>
         {{ t0 = Conv (x, a)  s0 = Add (t0, three)  g0 = Clip (s0, zero, six)  [gate0] h0 = Mul (t0, g0)
            t1 = Conv (h0, b)  g1 = Sigmoid (t1)  [gate1] h1 = Mul (t1, g1)
            m = Transpose <perm = [0,2,1]> (h1)  y = MatMul (m, c) }}",
        numbers(16),
        numbers(16),
        numbers(12)
    );
    import(text::parse(&source).unwrap()).unwrap()
}

/// A variant of a quantized network with nodes in float has the quantizers that the same plan gets by itself: of what a
/// movement writes as well, and of what a gate that stays float cuts off.
#[test]
fn variants_of_a_quantized_network_quantize_what_their_plan_does() {
    let (model, options, runtime) = (gated(), Options::default(), Runtime::default());
    let synthetic = SyntheticOptions { count: 16, seed: 3, ..SyntheticOptions::default() };
    let data = Dataset::synthetic(&InputSpec::of(&model), &synthetic).unwrap();
    let watch = Watch { observer: options.calibrate.observer, margin: 1.0, outputs: 0, distributions: false };
    let calibrated = |plan: &BitPlan| {
        let scheme = Scheme::new(&model, plan, &options).unwrap();
        let seen = see(&model, &scheme, &data, watch, &runtime).unwrap();
        let observed = seen.observed(&model, &scheme).unwrap();
        (scheme, seen, observed)
    };
    let plan = options.scheme.plan.clone();
    let (scheme, seen, observed) = calibrated(&plan);
    let mut variants = Variants::of_quantized(&model, &scheme, (seen, &observed, &Solved::new()), &options);
    let mut float = plan;
    float.float = vec!["gate0".to_owned(), "gate1".to_owned()];
    let (scheme, _, expected) = calibrated(&float);
    let found = variants.observed(&scheme).unwrap();
    assert!(expected.activations.contains_key("m"), "{:?}", expected.activations);
    assert_eq!(found.activations, expected.activations);
}
