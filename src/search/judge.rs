//! How far a variant's outputs are from the float network's, on data it was not calibrated on.

use super::journal::Journal;
use super::variants::Variants;
use crate::data::{Array, Dataset};
use crate::engine::Output;
use crate::execute::prefix::{Prefixes, Spent};
use crate::execute::{Pool, Visitor};
use crate::measure::comparison::{Comparison, Found, Verdict};
use crate::runtime::Runtime;
use crate::{BitPlan, Error};
use msq_passes::analysis::Layer;
use msq_passes::ir::Model;

/// Bytes that the float network's outputs may take.
const REFERENCES: usize = 256 << 20;

/// The shape of an output.
type Form = Vec<usize>;

/// Runs variants on samples whose float outputs are known.
#[derive(Debug)]
pub(crate) struct Judge {
    prefixes: Prefixes,
    /// Of each sample, of each output.
    reference: Vec<Vec<Vec<f32>>>,
    forms: Vec<Form>,
    data: Dataset,
    outputs: Vec<String>,
    /// What tells its verdicts from those of other judges in a journal.
    name: String,
}

impl Judge {
    /// Runs the float network.
    pub(crate) fn new(
        name: &str,
        model: &Model,
        layers: &[(Layer, String)],
        data: &Dataset,
        budget: u64,
        runtime: &Runtime,
    ) -> Result<Self, Error> {
        let first = Pool::new(model, 1).lane().run(&data.sample(0)?.arrays)?;
        let forms = first.iter().map(|output| output.shape().to_vec()).collect();
        let data = affordable(data, &first);
        let mut reference = Vec::new();
        let keep = |part: Vec<Vec<Vec<f32>>>| reference.extend(part);
        Pool::new(model, runtime.threads).run(&data, &runtime.silent(), || Copier, keep)?;
        Ok(Self {
            prefixes: Prefixes::new(model, layers, vec![data.clone()], budget, runtime)?,
            reference,
            forms,
            data,
            outputs: model.graph.outputs().map(|v| model.graph.value(v).name().to_owned()).collect(),
            name: name.to_owned(),
        })
    }

    /// Whether the network has one output, class scores `[N, C]`.
    pub(crate) fn is_classifier(&self) -> bool {
        self.compared_with_itself().is_of_classifier()
    }

    /// How much was run.
    pub(crate) fn spent(&self) -> Spent {
        self.prefixes.spent()
    }

    /// What the float network itself gets.
    pub(crate) fn float(&self) -> Verdict {
        self.compared_with_itself().verdict()
    }

    fn compared_with_itself(&self) -> Comparison {
        let mut comparison = Comparison::default();
        for (sample, outputs) in self.reference.iter().enumerate() {
            let found = outputs.iter().zip(&self.forms).map(|(values, shape)| Found::of(values, shape));
            let found: Vec<Found> = found.collect();
            comparison.observe(outputs, &found, self.data.labels(sample));
        }
        comparison
    }

    /// Judges a plan; with `keep`, later plans may start from its inner values.
    pub(crate) fn judge(
        &mut self,
        variants: &mut Variants,
        plan: &BitPlan,
        keep: bool,
        journal: &mut Journal,
    ) -> Result<Verdict, Error> {
        let key = format!("{} {}", self.name, plan.to_json());
        if let Some(known) = journal.get(&key) {
            return Ok(known);
        }
        let variant = variants.build(plan)?;
        let mut segment = self.prefixes.segment(&variant, &self.outputs, keep)?;
        let mut total = Comparison::default();
        self.prefixes.run(&mut segment, 0, || Comparer { judge: self }, |part: Comparison| total.merge(&part))?;
        self.prefixes.keep(segment);
        let verdict = total.verdict();
        journal.put(&key, &verdict)?;
        Ok(verdict)
    }
}

/// As many samples as have outputs that take no more than [`REFERENCES`], evenly spread.
fn affordable(data: &Dataset, outputs: &[Output]) -> Dataset {
    let bytes: usize = outputs.iter().map(|output| 4 * output.shape().iter().product::<usize>()).sum();
    let most = (REFERENCES / bytes.max(1)).max(1);
    if data.len() <= most {
        return data.clone();
    }
    tracing::info!(samples = data.len(), taken = most, "outputs are large: plans are measured on fewer samples");
    data.split(most).1
}

struct Comparer<'a> {
    judge: &'a Judge,
}

impl Visitor for Comparer<'_> {
    type Shard = Comparison;
    type Error = Error;

    fn begin(&mut self) -> Comparison {
        Comparison::default()
    }

    fn visit(&mut self, shard: &mut Comparison, sample: usize, _: &[Array], outputs: &[Output]) -> Result<(), Error> {
        let values: Vec<Vec<f32>> = outputs.iter().map(Output::to_f32).collect::<Result<_, _>>()?;
        let found = values.iter().zip(outputs).map(|(values, output)| Found::of(values, output.shape()));
        shard.observe(&self.judge.reference[sample], &found.collect::<Vec<_>>(), self.judge.data.labels(sample));
        Ok(())
    }
}

/// Copies outputs.
struct Copier;

impl Visitor for Copier {
    type Shard = Vec<Vec<Vec<f32>>>;
    type Error = Error;

    fn begin(&mut self) -> Self::Shard {
        Vec::new()
    }

    fn visit(&mut self, shard: &mut Self::Shard, _: usize, _: &[Array], outputs: &[Output]) -> Result<(), Error> {
        let values: Result<Vec<Vec<f32>>, _> = outputs.iter().map(Output::to_f32).collect();
        shard.push(values?);
        Ok(())
    }
}
