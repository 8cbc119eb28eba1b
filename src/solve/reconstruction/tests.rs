//! Blocks of a small residual network.

#![allow(clippy::unwrap_used)]

use super::learning::{learn, steps};
use super::loss::{Loss, predictions};
use super::measure::run;
use super::network::Network;
use super::parameters::{LearnedLayer, Parameters};
use super::part::{Between, Part};
use super::reference::distances;
use super::relaxed::{Relaxed, round};
use crate::data::{Array, Sample};
use crate::execute::masks::Masks;
use crate::execute::tests::RandomNetwork;
use crate::measure::outputs::Outputs;
use crate::runtime::Runtime;
use crate::scheme::bit_plan::{ActivationBits, LayerPlan, WeightBits};
use crate::solve::block::{Learning, Reach};
use crate::solve::gram::ClosedForm;
use crate::solve::layerwise::solve_layerwise;
use crate::solve::network::round_layers;
use msq_passes::analysis::Layer;
use msq_passes::ir::{Model, TensorProto};

/// Two blocks with sums around them, one past a `Slice`, which reads integers; and a head.
const RESIDUAL: &str = "(float[1,3,8,8] x) => (float[1,5] y)
    <float[4,3,3,3] a = {}, float[4,4,3,3] b = {}, float[4,4,3,3] c = {}, float[5,4] d = {}, float[4] e = {},
     int64[2] from = {0, 0}, int64[2] to = {8, 8}, int64[2] axes = {2, 3}, int64[2] stride = {2, 2}>
    {
        [first] t0 = Conv <pads = [1, 1, 1, 1]> (x, a, e)
        t1 = Relu (t0)
        [second] t2 = Conv <pads = [1, 1, 1, 1]> (t1, b, e)
        t3 = Add (t1, t2)
        t4 = Relu (t3)
        [third] t5 = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (t4, c)
        s = Slice (t4, from, to, axes, stride)
        t6 = Add (s, t5)
        t7 = GlobalAveragePool (t6)
        t8 = Flatten (t7)
        [head] y = Gemm <transB = 1> (t8, d)
    }";

/// A block whose operator has no gradient rule, between two that learn.
const WITHOUT_RULE: &str = "(float[1,6] x) => (float[1,5] y)
    <float[6,8] a = {}, float[8,8] b = {}, float[8,5] c = {}>
    {
        [first] t0 = MatMul (x, a)
        t1 = Relu (t0)
        [second] t2 = MatMul (t1, b)
        t3 = Atan (t2)
        [third] y = MatMul (t3, c)
    }";

/// A network on weights of 4 bits.
fn network(source: &str, samples: usize, activations: ActivationBits) -> RandomNetwork {
    RandomNetwork::new(
        source,
        samples,
        LayerPlan { weights: WeightBits::whole(4), activations, ..LayerPlan::default() },
    )
}

impl RandomNetwork {
    /// Solved by `gram`, then after so many steps of learning.
    fn solved(&self, reach: Reach, steps: usize, threads: usize) -> [Network; 2] {
        self.solved_at(reach, steps, threads, 0.01)
    }

    /// The same, at a rate of weights.
    fn solved_at(&self, reach: Reach, steps: usize, threads: usize, rate: f32) -> [Network; 2] {
        let runtime = Runtime::with_threads(threads);
        let (solver, learning) = (ClosedForm::default(), Learning { steps, seconds: None, reach, rate });
        let (model, mut observed) = (self.model.clone(), self.observed.clone());
        let mut solved = round_layers(&model, &self.scheme, &observed, &solver).unwrap();
        solve_layerwise(&model, &self.scheme, &mut observed, &mut solved, &self.data, &solver, &runtime).unwrap();
        let gram = Network { model, observed, solved };
        let Network { model, mut observed, mut solved } = gram.clone();
        let now = (&mut observed, &mut solved);
        learn((&model, &self.scores()), &self.scheme, now, &self.data, (&solver, learning), &runtime).unwrap();
        [gram, Network { model, observed, solved }]
    }

    /// The output, taken for class scores.
    pub(super) fn scores(&self) -> Outputs {
        Outputs::of(&self.model, &["y=scores".parse().unwrap()], Masks::default(), 0).unwrap()
    }

    fn layer(&self, name: &str) -> &Layer {
        self.scheme.layers().find(|layer| layer.name == name).unwrap()
    }

    fn weight(&self, model: &Model, name: &str) -> Vec<f32> {
        model.constant(self.layer(name).weight).unwrap().unwrap().to_f32().unwrap()
    }
}

/// What is learned of a layer behind the last quantizer moves the loss as its gradient says.
#[test]
fn gradients_are_slopes_of_the_loss() {
    let case = network(RESIDUAL, 16, ActivationBits::Bits(3));
    let relaxed = Relaxed::new(&case.model, &case.scheme, &case.observed).unwrap();
    let (read, written) = (["x".to_owned()], ["y".to_owned()]);
    let between = Between { read: &read, written: &written };
    let runtime = Runtime::with_threads(1);
    let samples: Vec<Sample> = (0..4).map(|at| case.data.sample(at).unwrap()).collect();
    let target = Sample { arrays: vec![Array::from_f32(vec![1, 5], vec![0.3, -0.5, 0.1, 0.0, 2.0]).unwrap()] };
    let joined = || {
        let join = |sample: &Sample| Sample { arrays: [&sample.arrays[..], &target.arrays].concat() };
        samples.iter().map(join).collect::<Vec<_>>()
    };
    let part = |model: &Model| {
        Part::new(model, &relaxed.quantizers, between, [&samples[0], &target], &[Loss::squares(1.0 / 0.7)], &runtime)
            .unwrap()
    };
    let whole = part(&relaxed.model);
    let layer = LearnedLayer::new(&relaxed.model, case.layer("head")).unwrap().unwrap();
    let parameters = whole.with_gradients(Parameters::new(vec![layer], whole.quantizers())).unwrap();
    let backward = whole.backward(&parameters, &joined()[0]).unwrap();
    let gradients = backward.gradients(&parameters, joined(), &runtime).unwrap();
    assert_eq!(gradients.steps.len(), relaxed.quantizers.len());
    assert!(gradients.steps.iter().any(|step| step.abs() > 1e-6));
    let weights = case.weight(&case.model, "head");
    let none = Parameters::new(Vec::new(), Vec::new());
    for at in 0..weights.len() {
        let moved = |by: f32| {
            let mut weights = weights.clone();
            weights[at] += by;
            let mut model = relaxed.model.clone();
            model.graph.set_initializer(case.layer("head").weight, TensorProto::from_f32("", &[5, 4], &weights));
            part(&model).error(&none, joined(), &runtime).unwrap()
        };
        let slope = (moved(0.01) - moved(-0.01)) / 0.02;
        let found = f64::from(gradients.weights[0][at]);
        assert!((slope - found).abs() < 1e-3 * (0.1 + slope.abs()), "{at}: {slope} {found}");
    }
}

/// The divergence of scores and of probabilities is what its definition says, and moves as its gradient says.
#[test]
fn predictions_are_compared_by_their_divergence() {
    let probabilities = RESIDUAL
        .replace("[head] y = Gemm <transB = 1> (t8, d)", "[head] t9 = Gemm <transB = 1> (t8, d)\n y = Softmax (t9)");
    let runtime = Runtime::with_threads(1);
    for (source, temperature) in [(RESIDUAL, 4.0), (&probabilities[..], 1.0)] {
        let case = network(source, 16, ActivationBits::Bits(8));
        let samples: Vec<Sample> = (0..4).map(|at| case.data.sample(at).unwrap()).collect();
        let losses = predictions(&case.model, &case.scores(), &samples, &[1.0], &runtime).unwrap();
        let (read, written) = (["x".to_owned()], ["y".to_owned()]);
        let between = Between { read: &read, written: &written };
        let logits = [0.3, -0.5, 0.1, 0.0, 2.0];
        let softmax = |values: &[f32]| {
            let powers: Vec<f64> = values.iter().map(|&v| f64::from(v / temperature).exp()).collect();
            powers.iter().map(|power| power / powers.iter().sum::<f64>()).collect::<Vec<_>>()
        };
        let target =
            if temperature > 1.0 { logits.to_vec() } else { softmax(&logits).iter().map(|&p| p as f32).collect() };
        let target = Sample { arrays: vec![Array::from_f32(vec![1, 5], target).unwrap()] };
        let part = |model: &Model| Part::new(model, &[], between, [&samples[0], &target], &losses, &runtime).unwrap();
        let joined =
            || samples.iter().map(|s| Sample { arrays: [&s.arrays[..], &target.arrays].concat() }).collect::<Vec<_>>();
        let none = Parameters::new(Vec::new(), Vec::new());
        let found = part(&case.model).error(&none, joined(), &runtime).unwrap();
        let p = softmax(&logits);
        let divergence = |sample: &Sample| {
            let values =
                run(&case.model, between, std::slice::from_ref(sample), &runtime).unwrap()[0].arrays[0].to_f32();
            let q = if temperature > 1.0 { softmax(&values) } else { values.iter().map(|&v| f64::from(v)).collect() };
            let squares =
                values.iter().zip(target.arrays[0].to_f32()).map(|(y, t)| f64::from(y - t).powi(2)).sum::<f64>();
            squares / 5.0 + 10.0 * p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum::<f64>()
        };
        let wanted = samples.iter().map(divergence).sum::<f64>() / samples.len() as f64;
        assert!((found - wanted).abs() < 1e-4 * wanted, "{found} is not {wanted}");
        let layer = LearnedLayer::new(&case.model, case.layer("head")).unwrap().unwrap();
        let whole = part(&case.model);
        let parameters = whole.with_gradients(Parameters::new(vec![layer], Vec::new())).unwrap();
        let backward = whole.backward(&parameters, &joined()[0]).unwrap();
        let gradients = backward.gradients(&parameters, joined(), &runtime).unwrap();
        let weights = case.weight(&case.model, "head");
        for at in 0..weights.len() {
            let moved = |by: f32| {
                let mut weights = weights.clone();
                weights[at] += by;
                let mut model = case.model.clone();
                model.graph.set_initializer(case.layer("head").weight, TensorProto::from_f32("", &[5, 4], &weights));
                part(&model).error(&none, joined(), &runtime).unwrap()
            };
            let slope = (moved(0.01) - moved(-0.01)) / 0.02;
            let found = f64::from(gradients.weights[0][at]);
            assert!((slope - found).abs() < 2e-3 * (0.1 + slope.abs()), "{at}: {slope} {found}");
        }
    }
}

/// Outputs that hold values are compared by squares relative to their own.
#[test]
fn values_are_compared_by_squares() {
    let case = network(RESIDUAL, 16, ActivationBits::Bits(8));
    let samples: Vec<Sample> = (0..4).map(|at| case.data.sample(at).unwrap()).collect();
    let values = Outputs::of(&case.model, &["y=values".parse().unwrap()], Masks::default(), 0).unwrap();
    let found = predictions(&case.model, &values, &samples, &[0.25], &Runtime::with_threads(1)).unwrap();
    assert_eq!(found, [Loss::squares(4.0)]);
}

/// Behind a block that learns by predictions nothing is quantized.
#[test]
fn quantizers_stand_in_front_of_the_readers_asked_for() {
    let case = network(RESIDUAL, 16, ActivationBits::Bits(3));
    let second = case.layer("second").node;
    let relaxed = Relaxed::of(&case.model, &case.scheme, &case.observed, |node| node == second).unwrap();
    // One of the value, and one of the layer alone.
    let graph = &relaxed.model.graph;
    let mut read = graph.node(second).input(0).unwrap();
    for quantizer in relaxed.quantizers.iter().rev() {
        assert_eq!(graph.value(read).name(), quantizer.written);
        assert_eq!(graph.value(read).uses().len(), 1);
        read = graph.node(graph.value(read).producer().unwrap().0).input(0).unwrap();
    }
    assert_eq!(graph.value(read).name(), "t1");
    assert_eq!(graph.nodes().filter(|(_, node)| node.is("Clip")).count(), relaxed.quantizers.len());
}

/// Once weights and steps have moved, gradients are those of the network as it is then.
#[test]
fn gradients_follow_what_is_learned() {
    let case = network(RESIDUAL, 16, ActivationBits::Bits(3));
    let relaxed = Relaxed::new(&case.model, &case.scheme, &case.observed).unwrap();
    let (read, written) = (["x".to_owned()], ["y".to_owned()]);
    let between = Between { read: &read, written: &written };
    let runtime = Runtime::with_threads(1);
    let target = Sample { arrays: vec![Array::from_f32(vec![1, 5], vec![0.3, -0.5, 0.1, 0.0, 2.0]).unwrap()] };
    let joined = || {
        let join = |at| Sample { arrays: [&case.data.sample(at).unwrap().arrays[..], &target.arrays].concat() };
        (0..4).map(join).collect::<Vec<_>>()
    };
    let first = case.data.sample(0).unwrap();
    let part =
        Part::new(&relaxed.model, &relaxed.quantizers, between, [&first, &target], &[Loss::squares(1.0)], &runtime)
            .unwrap();
    let layers = ["first", "second", "third", "head"];
    let layers = layers.map(|name| LearnedLayer::new(&relaxed.model, case.layer(name)).unwrap().unwrap());
    let mut parameters = part.with_gradients(Parameters::new(layers.to_vec(), part.quantizers())).unwrap();
    let mut backward = part.backward(&parameters, &joined()[0]).unwrap();
    let before = backward.gradients(&parameters, joined(), &runtime).unwrap();
    parameters.step(&before, 1.0, 0.3);
    backward.take(&parameters);
    let fresh = part.backward(&parameters, &joined()[0]).unwrap();
    let [found, expected] = [backward, fresh].map(|way| way.gradients(&parameters, joined(), &runtime).unwrap());
    assert_ne!(before.weights, expected.weights);
    assert_eq!(found.weights, expected.weights);
    assert_eq!(found.steps, expected.steps);
}

/// With clamps in the place of quantizers the network still computes what the quantized one does but for rounding, and
/// with quantizers on 8 bits nearly what the float one does.
#[test]
fn quantizers_stand_where_the_scheme_places_them() {
    let case = network(RESIDUAL, 16, ActivationBits::Bits(3));
    let relaxed = Relaxed::new(&case.model, &case.scheme, &case.observed).unwrap();
    let mut rounded = relaxed.model.clone();
    round(&mut rounded, &relaxed.quantizers).unwrap();
    let count = |op: &str| rounded.graph.nodes().filter(|(_, node)| node.is(op)).count();
    assert_eq!(count("QuantizeLinear"), relaxed.quantizers.len());
    assert_eq!(count("DequantizeLinear"), relaxed.quantizers.len());
    let narrow = relaxed.quantizers.iter().filter(|quantizer| quantizer.grid.bits == 3).count();
    assert!(narrow >= 4 && narrow < relaxed.quantizers.len(), "{narrow}");
}

/// Whether the network that has learned is nearer to the float one than that of `gram`, and the other way round.
fn nearer(case: &RandomNetwork, [gram, learned]: [&Network; 2]) -> [bool; 2] {
    let networks = [gram, learned].map(|network| network.quantized(&case.scheme).unwrap());
    let runtime = Runtime::with_threads(2);
    let [first, second] = networks.each_ref();
    [[first, second], [second, first]].map(|pair| {
        let of = (&case.model, &case.scores());
        let [before, after] = distances(of, pair, &case.data, &runtime).unwrap();
        after < before
    })
}

#[test]
fn outputs_are_nearer_on_samples_held_out() {
    let case = network(RESIDUAL, 160, ActivationBits::Bits(2));
    let [gram, block] = case.solved(Reach::Block, 40, 2);
    assert_eq!(nearer(&case, [&gram, &block]), [true, false]);
    assert_ne!(gram.observed.requantized, block.observed.requantized);
}

#[test]
fn a_network_that_learns_is_nearer_on_samples_held_out() {
    let case = network(RESIDUAL, 160, ActivationBits::Bits(2));
    let [gram, learned] = case.solved(Reach::Network, 80, 2);
    assert_eq!(nearer(&case, [&gram, &learned]), [true, false]);
    assert_ne!(gram.observed.requantized, learned.observed.requantized);
}

#[test]
fn predictions_are_nearer_on_samples_held_out() {
    let case = network(RESIDUAL, 160, ActivationBits::Bits(2));
    let [gram, learned] = case.solved_at(Reach::Prediction, 80, 2, 0.003);
    assert_eq!(nearer(&case, [&gram, &learned]), [true, false]);
    assert_ne!(gram.observed.requantized, learned.observed.requantized);
}

/// What is learned is taken only where it is nearer; else all stays as it was.
#[test]
fn what_is_farther_is_not_taken() {
    let case = network(RESIDUAL, 48, ActivationBits::Bits(2));
    for reach in [Reach::Block, Reach::Prediction, Reach::Network] {
        // At this rate weights are lost.
        let [gram, learned] = case.solved_at(reach, 4, 2, 10.0);
        assert_eq!(nearer(&case, [&gram, &learned]), [false, false], "{reach:?}");
        assert_eq!(gram.observed.requantized, learned.observed.requantized, "{reach:?}");
        for layer in ["first", "second", "third", "head"] {
            assert_eq!(gram.solved[layer].layer, learned.solved[layer].layer, "{reach:?} {layer}");
        }
    }
}

#[test]
fn what_is_learned_does_not_depend_on_threads() {
    let case = network(RESIDUAL, 48, ActivationBits::Bits(2));
    for reach in [Reach::Block, Reach::Prediction, Reach::Network] {
        let [one, three] = [1, 3].map(|threads| case.solved(reach, 12, threads)[1].clone());
        for layer in ["first", "second", "third", "head"] {
            assert_eq!(one.solved[layer].layer, three.solved[layer].layer, "{reach:?} {layer}");
        }
        assert_eq!(one.observed.activations, three.observed.activations);
        assert_eq!(one.observed.requantized, three.observed.requantized);
    }
}

#[test]
fn blocks_without_a_gradient_stay() {
    let case = network(WITHOUT_RULE, 32, ActivationBits::Bits(2));
    let [gram, block] = case.solved(Reach::Block, 8, 2);
    assert_eq!(gram.solved["second"].layer, block.solved["second"].layer);
    // Why: the operator behind the layer.
    let Relaxed { model, quantizers } = Relaxed::new(&case.model, &case.scheme, &case.observed).unwrap();
    let (read, written) = (["t1".to_owned()], ["t3".to_owned()]);
    let between = Between { read: &read, written: &written };
    let sample = Sample { arrays: vec![Array::from_f32(vec![1, 8], vec![0.5; 8]).unwrap()] };
    let part =
        Part::new(&model, &quantizers, between, [&sample, &sample], &[Loss::squares(1.0)], &Runtime::with_threads(1))
            .unwrap();
    let layer = LearnedLayer::new(&model, case.layer("second")).unwrap().unwrap();
    let reason = part.with_gradients(Parameters::new(vec![layer], part.quantizers())).unwrap_err();
    assert!(reason.contains("operator Atan has no gradient rule"), "{reason}");
}

#[test]
fn nothing_learns_from_few_samples_or_without_quantizers() {
    for (samples, activations) in [(12, ActivationBits::Bits(3)), (32, ActivationBits::Float)] {
        let [gram, block] = network(RESIDUAL, samples, activations).solved(Reach::Network, 5, 1);
        for layer in ["first", "second", "third", "head"] {
            assert_eq!(gram.solved[layer].layer, block.solved[layer].layer, "{layer}");
        }
        assert_eq!(gram.observed.activations, block.observed.activations);
    }
}

/// Work is counted: half the time is half the steps, and no more than what was asked for.
#[test]
fn time_is_counted_work() {
    let case = network(RESIDUAL, 16, ActivationBits::Bits(3));
    let layers: Vec<&Layer> = case.scheme.layers().collect();
    let learning = |seconds| Learning { steps: 1_000, seconds, reach: Reach::Network, rate: 0.01 };
    let of = |seconds| steps(&case.model, &layers, 3, learning(seconds));
    assert_eq!(of(None), 1_000);
    assert_eq!(of(Some(1e6)), 1_000);
    assert_eq!(of(Some(0.0)), 0);
    let [whole, half] = [of(Some(6.0)), of(Some(3.0))];
    assert!(whole > 50 && whole < 1_000 && whole.abs_diff(2 * half) <= 1, "{whole} {half}");
    let [block, prediction] = [Reach::Block, Reach::Prediction]
        .map(|reach| steps(&case.model, &layers, 3, Learning { reach, steps: 1_000_000, ..learning(Some(60.0)) }));
    assert!((1..block).contains(&prediction), "{prediction} of {block}: for each block, half of the network runs");
}
