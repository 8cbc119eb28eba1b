//! How what a network writes is compared with what the float one writes, as nodes of the graph that is differentiated.
//!
//! * Squares: `w·‖v − t‖² / n` over the n elements of a value.
//! * Beside them, of class scores, the prediction difference of PD-Quant (Liu et al. 2023, arXiv 2212.07048):
//!   `KL(softmax(t/T) ‖ softmax(v/T)) / λ`, the mean over rows, at the temperature T. Outputs that hold probabilities are
//!   compared as they are.

use super::reference::Reference;
use crate::data::{Array, Dataset, Sample};
use crate::execute::fold::Pool;
use crate::execute::segment::{Ran, Segment};
use crate::measure::agreement::{RowLayout, is_probabilities};
use crate::measure::outputs::{OutputSpec, Outputs};
use crate::runtime::Runtime;
use crate::scheme::output_kind::OutputKind;
use crate::solve::SolveError;
use msq_passes::ir::{AttributeProto, Graph, Model, TensorProto, ValueId};

/// The temperature at which class scores are compared, as in the authors' code.
const TEMPERATURE: f32 = 4.0;
/// What the divergence of an output counts beside the relative error of a block: 1/λ of the authors' code.
const PREDICTION: f64 = 10.0;
/// Logarithms are taken of no smaller probability.
const LEAST: f64 = 1e-12;

/// How one value is compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Loss {
    /// What the mean square error counts.
    squares: f64,
    /// Where it holds class scores.
    divergence: Option<Divergence>,
}

/// The divergence of rows of class scores.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Divergence {
    axis: usize,
    classes: usize,
    probabilities: bool,
}

impl Loss {
    /// Mean square errors that count so much.
    pub(super) fn squares(weight: f64) -> Self {
        Self { squares: weight, divergence: None }
    }

    /// Mean square errors relative to the mean square of what is compared, which count so much.
    pub(super) fn relative(weight: f64, signal: f64) -> Self {
        Self::squares(weight / signal.max(f64::MIN_POSITIVE))
    }

    /// What one element of the loss of a value counts.
    pub(super) fn share(&self, target: &Array) -> f32 {
        (self.squares / target.len().max(1) as f64) as f32
    }

    /// Writes the loss into a graph, element by element, and returns it. What is compared comes first, then its target.
    pub(super) fn write(&self, graph: &mut Graph, [written, wanted]: [ValueId; 2], name: &str) -> ValueId {
        let named = |what: &str| format!("{name}_{what}");
        let error = graph.add_op("Sub", &[Some(written), Some(wanted)], Vec::new(), &named("error"));
        let squares = graph.add_op("Mul", &[Some(error), Some(error)], Vec::new(), &named("squares"));
        let Some(Divergence { axis, classes, probabilities }) = self.divergence else { return squares };
        let mut constant = |what: &str, value: f64| {
            Some(graph.add_initializer(TensorProto::from_f32(&named(what), &[], &[value as f32])))
        };
        let factor = if probabilities { LEAST } else { f64::from(TEMPERATURE).recip() };
        let factor = constant("factor", factor);
        // A row counts once, whatever its length.
        let weight = constant("weight", PREDICTION * classes as f64 / self.squares);
        let mut logarithm = |what: &str, value| {
            if probabilities {
                let positive =
                    graph.add_op("Max", &[Some(value), factor], Vec::new(), &named(&format!("{what}_positive")));
                return graph.add_op("Log", &[Some(positive)], Vec::new(), &named(&format!("{what}_log")));
            }
            let soft = graph.add_op("Mul", &[Some(value), factor], Vec::new(), &named(&format!("{what}_soft")));
            let axis = vec![AttributeProto::int("axis", axis as i64)];
            graph.add_op("LogSoftmax", &[Some(soft)], axis, &named(&format!("{what}_log")))
        };
        let (found, target) = (logarithm("found", written), logarithm("sought", wanted));
        let share = graph.add_op("Exp", &[Some(target)], Vec::new(), &named("share"));
        let apart = graph.add_op("Sub", &[Some(target), Some(found)], Vec::new(), &named("apart"));
        let divergence = graph.add_op("Mul", &[Some(share), Some(apart)], Vec::new(), &named("divergence"));
        let weighed = graph.add_op("Mul", &[Some(divergence), weight], Vec::new(), &named("weighed"));
        graph.add_op("Add", &[Some(squares), Some(weighed)], Vec::new(), &named("loss"))
    }
}

/// How the outputs of a network are compared as predictions: by squares relative to `signals`, the mean squares, and scores by
/// their divergence too. What outputs hold is read off the samples.
pub(super) fn predictions(
    float: &Model,
    outputs: &Outputs,
    samples: &[Sample],
    signals: &[f64],
    runtime: &Runtime,
) -> Result<Vec<Loss>, SolveError> {
    let data = Dataset::stored(samples.to_vec());
    let outputs = Reference::new(float, outputs, &data, runtime)?.outputs;
    let Some(first) = samples.first() else { return Ok(Vec::new()) };
    let forms = |ran: Ran| -> Result<Vec<Loss>, SolveError> {
        let of = |(at, (spec, &signal)): (usize, (&OutputSpec, &f64))| {
            let values = ran.values(at).map_err(crate::execute::ExecuteError::from)?;
            Ok(Loss { divergence: divergence(spec, &values, ran.shape(at)), ..Loss::relative(1.0, signal) })
        };
        outputs.list.iter().zip(signals).enumerate().map(of).collect()
    };
    Pool::new(&Segment::whole(float), runtime).once(first, forms)?
}

/// The divergence by which an output of class scores is compared.
fn divergence(spec: &OutputSpec, values: &[f32], shape: &[usize]) -> Option<Divergence> {
    let scores = matches!(spec.kind(), Some(OutputKind::Scores | OutputKind::Sequence));
    let axis = spec.row_axis(shape).filter(|_| scores && !spec.is_whole && !spec.is_behind_sigmoid())?;
    let layout = RowLayout::of(shape, axis).filter(|layout| layout.width > 1)?;
    let probabilities = is_probabilities(&layout.row(values, 0));
    Some(Divergence { axis, classes: layout.width, probabilities })
}
