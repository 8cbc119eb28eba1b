//! The walk against whole runs of both networks, and the solving of layers that it serves.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::data::Array;
use crate::execute::fold::Pool;
use crate::execute::tests::RandomNetwork;
use crate::kernels::{Geometry, Gram, Moments, Sampling, Unfolded};
use crate::scheme::bit_plan::{LayerPlan, WeightBits};
use crate::solve::SolveError;
use crate::solve::layerwise::solve_layerwise;
use crate::solve::network::{Biases, Solved, quantize_graph, round_layers};
use crate::solve::round::Round;

/// Two blocks with sums around them, and a head.
const RESIDUAL: &str = "(float[N,3,8,8] x) => (float[N,5] y)
    <float[4,3,3,3] a = {}, float[4,4,3,3] b = {}, float[4,4,3,3] c = {}, float[5,4] d = {}, float[4] e = {}>
    {
        [first] t0 = Conv <pads = [1, 1, 1, 1]> (x, a, e)
        t1 = Relu (t0)
        [second] t2 = Conv <pads = [1, 1, 1, 1]> (t1, b)
        t3 = Add (t1, t2)
        t4 = Relu (t3)
        [third] t5 = Conv <pads = [1, 1, 1, 1]> (t4, c)
        t6 = Add (t4, t5)
        t7 = GlobalAveragePool (t6)
        t8 = Flatten (t7)
        [head] y = Gemm <transB = 1> (t8, d)
    }";

/// The number of rows is read off in front of the first layer and used behind it and behind the second.
const SHAPE_CHAIN: &str = "(float[N,8] x) => (float[N,8] y)
    <float[8,8] a = {}, float[4,4] b = {}, float[8,8] c = {}, int64[1] zero = {0}, int64[2] split = {2, 4},
     int64[1] joined = {8}>
    {
        s = Shape (x)
        n = Gather (s, zero)
        into = Concat <axis = 0> (n, split)
        back = Concat <axis = 0> (n, joined)
        [first] t0 = MatMul (x, a)
        t1 = Relu (t0)
        t2 = Reshape (t1, into)
        [second] t3 = MatMul (t2, b)
        t4 = Relu (t3)
        t5 = Reshape (t4, back)
        [third] y = MatMul (t5, c)
    }";

/// Layers in the middle whose products the kernels do not know.
const ODD_FORMS: &str = "(float[N,3,4,4] x) => (float[16,6] y)
    <float[4,3,3,3] a = {}, float[4,2,2,2] b = {}, float[4,2,3,3] c = {}, float[4,5] d = {}, float[5,6] e = {},
     int64[2] flat = {4, -1}>
    {
        [first] t0 = Conv <pads = [1, 1, 1, 1]> (x, a)
        t1 = Relu (t0)
        [up] t2 = ConvTranspose <strides = [2, 2]> (t1, b)
        t3 = Relu (t2)
        [second] t4 = Conv <strides = [4, 4], pads = [1, 1, 1, 1]> (t3, c)
        t5 = Reshape (t4, flat)
        [turned] t6 = Gemm <transA = 1> (t5, d)
        t7 = Relu (t6)
        [third] y = MatMul (t7, e)
    }";

/// A network, samples for it, and its layers rounded to nearest at 4 bits.
struct Case {
    network: RandomNetwork,
    solved: Solved,
}

impl std::ops::Deref for Case {
    type Target = RandomNetwork;

    fn deref(&self) -> &RandomNetwork {
        &self.network
    }
}

impl Case {
    fn new(network: &str) -> Self {
        let every = LayerPlan { weights: WeightBits::whole(4), ..LayerPlan::default() };
        let network = RandomNetwork::new(network, 9, every);
        let solved = round_layers(&network.model, &network.scheme, &network.observed, &Round::default()).unwrap();
        Self { network, solved }
    }

    /// The layers in the order they are solved.
    fn order(&self) -> Vec<Layer> {
        self.solved.keys().map(|name| self.scheme.layers().find(|layer| layer.name == *name).unwrap().clone()).collect()
    }

    fn quantized(&self) -> Model {
        let mut quantized = self.model.clone();
        quantize_graph(&mut quantized, &self.scheme, &self.observed, &self.solved, Biases::Exact, None).unwrap();
        quantized
    }

    fn geometry(&self, layer: &Layer) -> Geometry {
        Geometry::new(layer, self.model.graph.node(layer.node)).unwrap()
    }

    /// The moments a walk finds for each layer, and whether each step moved the cuts.
    fn walk(&self, budget: u64) -> Vec<(Vec<Moments>, bool)> {
        let (order, quantized) = (self.order(), self.quantized());
        let mut walk = Walk::new([&self.model, &self.model], &self.data, &Runtime::with_threads(2));
        walk.budget = budget;
        let mut steps = Vec::new();
        for (at, layer) in order.iter().enumerate() {
            let cuts = |walk: &Walk| walk.sides.each_ref().map(|side| side.cut.clone());
            let before = cuts(&walk);
            let empty = Gram::new(self.geometry(layer), Sampling::default()).unwrap();
            let sums =
                walk.read(&self.model, &quantized, (layer, None), &order[at..], || Products(empty.clone())).unwrap();
            steps.push((sums.0.finish(), cuts(&walk) != before));
        }
        steps
    }

    /// The layers solved by what they read, a budget given.
    fn reconstructed(&self, memory: Option<u64>) -> Solved {
        let mut solved = self.solved.clone();
        let runtime = Runtime::with_threads(2).memory(memory);
        let solver = crate::solve::solver(&self.scheme).unwrap();
        let observed = &mut self.observed.clone();
        solve_layerwise(&self.model, &self.scheme, observed, &mut solved, &self.data, solver.as_ref(), &runtime)
            .unwrap();
        solved
    }
}

#[derive(Debug)]
struct Products(Gram);

impl Summary for Products {
    type Error = SolveError;

    fn observe(&mut self, reading: Reading) -> Result<(), SolveError> {
        Ok(self.0.observe(reading.sample, reading.float, reading.quantized, reading.shape, None)?)
    }

    fn merge(&mut self, other: Self) -> Result<(), SolveError> {
        Ok(self.0.merge(other.0)?)
    }
}

/// What a layer reads for each sample, found by running a whole network.
fn readings(model: &Model, layer: &str, data: &Dataset) -> Vec<(Vec<usize>, Vec<f32>)> {
    let node = model.graph.nodes().find(|(_, node)| node.label(&model.graph) == layer).unwrap().1;
    let value = node.input(0).unwrap();
    let samples = (0..data.len()).map(|index| data.sample(index).unwrap().arrays);
    if model.graph.is_input(value) {
        return samples.map(|arrays| (arrays[0].shape().to_vec(), arrays[0].to_f32())).collect();
    }
    let name = model.graph.value(value).name().to_owned();
    let tapped = Segment::tapped(model, &[name]).unwrap();
    let pool = Pool::new(&tapped, &Runtime::with_threads(1));
    let read = |arrays: Vec<Array>| {
        let last = |ran: Ran| (ran.shape(ran.len() - 1).to_vec(), ran.values(ran.len() - 1).unwrap().into_owned());
        pool.once(&Sample { arrays }, last).unwrap()
    };
    samples.map(read).collect()
}

/// The values are within 1e-5 of the largest there is.
#[track_caller]
fn close(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
    for (found, expected) in found.iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() <= 1e-5 * largest, "{what}: {found} for {expected} of {largest}");
    }
}

#[test]
fn moments_are_those_of_whole_runs() {
    let case = Case::new(RESIDUAL);
    let quantized = case.quantized();
    for (layer, (moments, _)) in case.order().iter().zip(case.walk(u64::MAX)) {
        let geometry = case.geometry(layer);
        let [x, x_hat] = [&case.model, &quantized].map(|model| readings(model, &layer.name, &case.data));
        let size = geometry.inputs();
        let (mut product, mut cross) = (vec![0.0; size * size], vec![0.0; size * size]);
        for (sample, (x, x_hat)) in x.iter().zip(&x_hat).enumerate() {
            let unfold = |(shape, values): &(Vec<usize>, Vec<f32>)| {
                Unfolded::new(&geometry, values, shape, sample, Sampling::default()).unwrap()
            };
            let (x, x_hat) = (unfold(x), unfold(x_hat));
            let row = |of: &Unfolded, row: usize| {
                of.values[row * of.positions..][..of.positions].iter().map(|&v| f64::from(v)).collect::<Vec<_>>()
            };
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            for index in 0..size * size {
                let (left, right) = (index / size, row(&x_hat, index % size));
                product[index] += dot(&row(&x_hat, left), &right);
                cross[index] += dot(&row(&x, left), &right);
            }
        }
        assert_ne!(product, cross, "`{}` reads what the float network has", layer.name);
        let [moments] = &moments[..] else { panic!("one group") };
        close(&moments.product, &product, &format!("H of `{}`", layer.name));
        close(moments.cross.as_ref().unwrap(), &cross, &format!("C of `{}`", layer.name));
    }
}

#[test]
fn cuts_that_may_not_move_change_nothing() {
    let case = Case::new(RESIDUAL);
    let (free, fixed) = (case.walk(u64::MAX), case.walk(0));
    let moved = |steps: &[(Vec<Moments>, bool)]| steps.iter().map(|(_, moved)| *moved).collect::<Vec<_>>();
    assert_eq!(moved(&free), [true; 4]);
    assert_eq!(moved(&fixed), [false; 4]);
    for ((free, _), (fixed, _)) in free.iter().zip(&fixed) {
        assert_eq!(free, fixed);
    }
    let (free, fixed) = (case.reconstructed(None), case.reconstructed(Some(0)));
    for (name, layer) in &free {
        assert!(layer.output_sqnr.is_some(), "`{name}` was not solved");
        assert_eq!(layer.layer, fixed[name].layer, "`{name}`");
    }
}

#[test]
fn a_shape_is_never_cut_at() {
    let case = Case::new(SHAPE_CHAIN);
    assert!(case.model.graph.nodes().any(|(_, node)| node.is("Shape")), "the chain was folded");
    // Behind the first layer the number of rows is known and still wanted.
    let steps = case.walk(u64::MAX);
    assert_eq!(steps.iter().map(|(_, moved)| *moved).collect::<Vec<_>>(), [true, false, true]);
    let solved = case.reconstructed(None);
    assert_eq!(solved.len(), 3);
    for (name, layer) in solved {
        assert!(layer.output_sqnr.is_some(), "`{name}` was not solved");
    }
}

#[test]
fn forms_without_products_are_rounded() {
    let case = Case::new(ODD_FORMS);
    let solved = case.reconstructed(None);
    let names = |known: bool| {
        solved
            .iter()
            .filter(|(_, l)| l.output_sqnr.is_some() == known)
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(true), ["first", "second", "third"]);
    assert_eq!(names(false), ["up", "turned"]);
    for name in names(false) {
        assert_eq!(solved[name].layer, case.solved[name].layer, "`{name}`");
    }
    // A layer that is worse on held-out samples than rounded stays rounded; random data leave few of them better.
    assert!(names(true).iter().any(|name| solved[*name].layer != case.solved[*name].layer), "nothing was solved");
}

/// The floats that a layer quantizes at run time, not the integers, which mean nothing without their scale.
#[test]
fn a_dynamic_layer_reads_floats() {
    let text = "<ir_version: 8, opset_import: [\"\": 17]> net (float[2,8] x) => (float[2,4] y) <float[8,4] w = {}>
        { r = Relu (x) [product] y = MatMul (r, w) }";
    let mut model = msq_passes::ir::import(msq_passes::ir::text::parse(text).unwrap()).unwrap();
    let layer = msq_passes::analysis::layers(&model).remove(0);
    let quantized = msq_passes::QuantizedLayer {
        weight: vec![1; 32].into(),
        granularity: msq_passes::Granularity::Tensor,
        scales: vec![0.5],
        zero_points: Vec::new(),
        bias: None,
    };
    let layers = [(layer.name.clone(), quantized)].into_iter().collect();
    msq_passes::Pass::run(&msq_passes::QuantizeDynamically { layers: &layers }, &mut model).unwrap();
    assert!(model.graph.nodes().any(|(_, node)| node.is("MatMulInteger")));
    assert_eq!(model.graph.value(input_of(&model.graph, &layer).unwrap()).name(), "r");
    let lost = Layer { name: "other".to_owned(), ..layer };
    assert!(matches!(input_of(&model.graph, &lost), Err(ExecuteError::Sequence { .. })));
}
