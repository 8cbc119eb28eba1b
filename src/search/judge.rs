//! How far a variant's outputs are from the float network's, on data it was not calibrated on.
//!
//! Distance of an output that looks like class scores, `[N, C]` of a network with one output, or rows of probabilities: the
//! mean of KL(float ‖ variant) over its rows, in nats (the measure of `ZeroQ`). Of any other: the squared error relative to the
//! output, Σ(a − b)²/Σa². A network's distance is the sum over its outputs. Lower is better; 0 is the float network.

use super::journal::Journal;
use super::prefix::{Prefixes, Spent};
use super::variants::Variants;
use crate::agreement::{argmax, divergence, is_probabilities};
use crate::data::{Array, Dataset};
use crate::engine::{Output, Pool, Visitor};
use crate::progress::Silent;
use crate::{BitPlan, Error};
use msq_passes::analysis::Layer;
use msq_passes::ir::Model;
use serde::{Deserialize, Serialize};

/// How good a variant is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Distance of the outputs from the float network's.
    pub distance: f64,
    /// Share of rows whose best class is the float network's; none where outputs are no class scores.
    pub agreement: Option<f64>,
    /// Share of rows whose best class is the label; none without labels.
    pub accuracy: Option<f64>,
}

/// What an output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Form {
    rank: usize,
    /// Length of the last axis.
    width: usize,
    /// Whether rows look like class scores.
    scores: bool,
}

/// Runs variants on samples whose float outputs are known.
#[derive(Debug)]
pub(crate) struct Judge {
    prefixes: Prefixes,
    /// Of each sample, of each output.
    reference: Vec<Vec<Vec<f32>>>,
    forms: Vec<Form>,
    /// Of each sample, one a row of its batch.
    labels: Option<Vec<Vec<i64>>>,
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
        threads: usize,
    ) -> Result<Self, Error> {
        let mut reference = Vec::new();
        let keep = |part: Vec<Vec<Vec<f32>>>| reference.extend(part);
        Pool::new(model, threads).run(data, &Silent, || Copier, keep)?;
        let labels = (0..data.len()).map(|i| data.labels(i).map(<[i64]>::to_vec)).collect();
        Ok(Self {
            prefixes: Prefixes::new(model, layers, vec![data.clone()], budget, threads)?,
            forms: forms(model, data, &reference)?,
            reference,
            labels,
            outputs: model.graph.outputs().map(|v| model.graph.value(v).name().to_owned()).collect(),
            name: name.to_owned(),
        })
    }

    /// Whether the network has one output, class scores `[N, C]`.
    pub(crate) fn is_classifier(&self) -> bool {
        matches!(self.forms[..], [Form { rank: 2, scores: true, .. }])
    }

    /// How much was run.
    pub(crate) fn spent(&self) -> Spent {
        self.prefixes.spent()
    }

    /// What the float network itself gets.
    pub(crate) fn float(&self) -> Verdict {
        let mut tally = Tally::default();
        for (sample, outputs) in self.reference.iter().enumerate() {
            let borrowed: Vec<&[f32]> = outputs.iter().map(Vec::as_slice).collect();
            tally.observe(self, sample, &borrowed);
        }
        tally.verdict(self)
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
        let mut total = Tally::default();
        self.prefixes.run(&mut segment, 0, || Comparer { judge: self }, |part: Tally| total.merge(&part))?;
        self.prefixes.keep(segment);
        let verdict = total.verdict(self);
        journal.put(&key, &verdict)?;
        Ok(verdict)
    }
}

fn forms(model: &Model, data: &Dataset, reference: &[Vec<Vec<f32>>]) -> Result<Vec<Form>, Error> {
    let outputs = Pool::new(model, 1).lane().run(&data.sample(0)?.arrays)?;
    let form = |(at, output): (usize, &Output)| {
        let (rank, width) = (output.shape().len(), output.shape().last().copied().unwrap_or(0));
        let rows_are = |sample: &Vec<Vec<f32>>| sample[at].chunks(width.max(1)).all(is_probabilities);
        let matrix = outputs.len() == 1 && rank == 2;
        Form { rank, width, scores: width > 1 && (matrix || reference.iter().take(4).all(rows_are)) }
    };
    Ok(outputs.iter().enumerate().map(form).collect())
}

/// Sums over samples.
#[derive(Clone, Debug, Default)]
struct Tally {
    outputs: Vec<Sums>,
    /// Rows compared with labels, and those that are right.
    labelled: u64,
    right: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    rows: u64,
    same: u64,
    divergence: f64,
    signal: f64,
    noise: f64,
}

impl Tally {
    fn observe(&mut self, judge: &Judge, sample: usize, outputs: &[&[f32]]) {
        let reference = &judge.reference[sample];
        self.outputs.resize(reference.len(), Sums::default());
        for (at, ((sums, a), b)) in self.outputs.iter_mut().zip(reference).zip(outputs).enumerate() {
            for (&a, &b) in a.iter().zip(*b) {
                sums.signal += f64::from(a) * f64::from(a);
                sums.noise += (f64::from(a) - f64::from(b)).powi(2);
            }
            let Form { width, scores: true, .. } = judge.forms[at] else { continue };
            let labels = judge.labels.as_ref().filter(|_| at == 0).map(|labels| &labels[sample]);
            for (row, (a, b)) in a.chunks_exact(width).zip(b.chunks_exact(width)).enumerate() {
                sums.rows += 1;
                sums.same += u64::from(argmax(a) == argmax(b));
                sums.divergence += divergence(a, b);
                if let Some(&label) = labels.and_then(|labels| labels.get(row)) {
                    self.labelled += 1;
                    self.right += u64::from(i64::try_from(argmax(b)) == Ok(label));
                }
            }
        }
    }

    fn merge(&mut self, other: &Self) {
        self.outputs.resize(self.outputs.len().max(other.outputs.len()), Sums::default());
        for (sums, other) in self.outputs.iter_mut().zip(&other.outputs) {
            sums.rows += other.rows;
            sums.same += other.same;
            sums.divergence += other.divergence;
            sums.signal += other.signal;
            sums.noise += other.noise;
        }
        self.labelled += other.labelled;
        self.right += other.right;
    }

    fn verdict(&self, judge: &Judge) -> Verdict {
        let distance = |(sums, form): (&Sums, &Form)| match (form.scores, sums.signal > 0.0) {
            (true, _) => sums.divergence / sums.rows.max(1) as f64,
            (false, true) => sums.noise / sums.signal,
            (false, false) => sums.noise,
        };
        let scored = || self.outputs.iter().zip(&judge.forms).filter(|(_, form)| form.scores).map(|(sums, _)| sums);
        let (same, rows) = scored().fold((0, 0), |(same, rows), sums| (same + sums.same, rows + sums.rows));
        Verdict {
            distance: self.outputs.iter().zip(&judge.forms).map(distance).sum(),
            agreement: (rows > 0).then(|| same as f64 / rows as f64),
            accuracy: (self.labelled > 0).then(|| self.right as f64 / self.labelled as f64),
        }
    }
}

struct Comparer<'a> {
    judge: &'a Judge,
}

impl Visitor for Comparer<'_> {
    type Shard = Tally;
    type Error = Error;

    fn begin(&mut self) -> Tally {
        Tally::default()
    }

    fn visit(&mut self, shard: &mut Tally, sample: usize, _: &[Array], outputs: &[Output]) -> Result<(), Error> {
        let values: Result<Vec<Vec<f32>>, _> = outputs.iter().map(Output::to_f32).collect();
        let values = values?;
        shard.observe(self.judge, sample, &values.iter().map(Vec::as_slice).collect::<Vec<_>>());
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
