//! Evaluates plans: how far the outputs of a variant are from those of the float network, on data that it was not
//! calibrated on.

use super::journal::Journal;
use super::variants::Variants;
use crate::data::Dataset;
use crate::execute::prefixes::{Prefixes, Spent};
use crate::execute::segment::{Ran, Segment};
use crate::execute::stages::{Limit, Stages};
use crate::measure::comparison::Comparison;
use crate::measure::metrics::Metrics;
use crate::measure::outputs::Outputs;

use crate::runtime::Runtime;
use crate::scheme::bit_plan::BitPlan;
use crate::search::SearchError;
use msq_passes::analysis::Layer;
use msq_passes::ir::Model;

/// Bytes that the float network's outputs may take.
const REFERENCES: usize = 256 << 20;

/// The shape of an output.
type Form = Vec<usize>;

/// Runs variants on samples whose float outputs are known.
#[derive(Debug)]
pub(crate) struct Evaluator {
    prefixes: Prefixes,
    /// Of each sample, of each output.
    reference: Vec<Vec<Vec<f32>>>,
    data: Dataset,
    outputs: Vec<String>,
    compared: Outputs,
    /// What the float network gets.
    float: Metrics,
    is_classifier: bool,
    /// Tells the metrics of this evaluator from those of others in a journal.
    name: String,
}

impl Evaluator {
    /// Runs the float network.
    pub(crate) fn new(
        name: &str,
        model: &Model,
        layers: &[(Layer, String)],
        data: &Dataset,
        compared: &Outputs,
        budget: u64,
        runtime: &Runtime,
    ) -> Result<Self, SearchError> {
        let (whole, limit) = (Segment::whole(model), Limit::of(model, runtime.memory));
        let stages = Stages::new(&whole, limit)?;
        let forms: Vec<Form> =
            stages.once(data, runtime, |ran| (0..ran.len()).map(|at| ran.shape(at).to_vec()).collect())?;
        let data = affordable(data, &forms);
        let compared = compared.on(data.len());
        let mut reference = Vec::new();
        // The float network beside itself: what its outputs hold, and its accuracy.
        let mut itself = Comparison::new(&compared);
        let begin = || (Vec::new(), Comparison::new(&compared));
        let copy = |(copies, part): &mut (Vec<Vec<Vec<f32>>>, Comparison), at, ran: Ran| -> Result<(), SearchError> {
            let outputs = ran.first(ran.len())?;
            part.observe_run(at, &outputs, ran, data.labels(at))?;
            copies.push(outputs);
            Ok(())
        };
        let keep = |(copies, part): (Vec<Vec<Vec<f32>>>, Comparison)| {
            reference.extend(copies);
            itself.merge(&part);
            Ok(())
        };
        stages.fold(&data, &runtime.silent(), begin, copy, keep)?;
        Ok(Self {
            compared: compared.decided(itself.readings()),
            float: itself.metrics(),
            is_classifier: itself.is_of_classifier(),
            prefixes: Prefixes::new(model, layers, vec![data.clone()], budget, limit, runtime)?,
            reference,
            data,
            outputs: model.graph.outputs().map(|v| model.graph.value(v).name().to_owned()).collect(),
            name: name.to_owned(),
        })
    }

    /// Whether the network has one output, class scores `[N, C]`.
    pub(crate) fn is_classifier(&self) -> bool {
        self.is_classifier
    }

    /// The outputs, with what each holds.
    pub(crate) fn outputs(&self) -> &Outputs {
        &self.compared
    }

    /// How much was run.
    pub(crate) fn spent(&self) -> Spent {
        self.prefixes.spent()
    }

    /// What the float network itself gets.
    pub(crate) fn float(&self) -> &Metrics {
        &self.float
    }

    /// Measures a plan; with `keep`, later plans may start from its inner values.
    pub(crate) fn evaluate(
        &mut self,
        variants: &mut Variants,
        plan: &BitPlan,
        keep: bool,
        journal: &mut Journal,
    ) -> Result<Metrics, SearchError> {
        let key = format!("{} {}", self.name, plan.to_json());
        if let Some(known) = journal.get(&key) {
            return Ok(known);
        }
        let variant = variants.build(plan)?;
        let mut suffix = self.prefixes.suffix(&variant, &self.outputs, keep)?;
        let mut total = Comparison::new(&self.compared);
        let compare = |part: &mut Comparison, sample: usize, ran: Ran| -> Result<(), SearchError> {
            Ok(part.observe_run(sample, &self.reference[sample], ran, self.data.labels(sample))?)
        };
        let merge = |part: Comparison| {
            total.merge(&part);
            Ok(())
        };
        let begin = || Comparison::new(&self.compared);
        self.prefixes.run(&mut suffix, 0, begin, compare, merge)?;
        self.prefixes.keep(suffix);
        let metrics = total.metrics();
        journal.put(&key, &metrics)?;
        Ok(metrics)
    }
}

/// As many samples as have outputs that take no more than [`REFERENCES`], evenly spread.
fn affordable(data: &Dataset, forms: &[Form]) -> Dataset {
    let bytes: usize = forms.iter().map(|shape| 4 * shape.iter().product::<usize>()).sum();
    let most = (REFERENCES / bytes.max(1)).max(1);
    if data.len() <= most {
        return data.clone();
    }
    tracing::info!(samples = data.len(), taken = most, "outputs are large: plans are measured on fewer samples");
    data.split(most).1
}
