//! The story of a search: the plans to choose from, a method that proposes one, repair, and the front of all plans passed
//! on the way.

mod division;
mod drop;
mod front;
pub(super) mod methods;
pub(super) mod options;
mod outcome;
pub mod registry;
mod repair;
mod sensitivities;
mod started;

use crate::calibrate::Shard;
use crate::data::{Dataset, Groups};
use crate::execute::masks::Masks;
use crate::execute::prefixes::Spent;
use crate::measure::CustomMetric;
use crate::measure::metrics::Metrics;
use crate::measure::outputs::Outputs;
use crate::report::search::{Outcome, Proposal, Step};
use crate::runtime::Runtime;
use crate::scheme::Scheme;
use crate::scheme::bit_plan::BitPlan;
use crate::scheme::options::Options;
use crate::search::SearchError;
use crate::search::allocate::Front;
use crate::search::answers::AnswerRates;
use crate::search::evaluator::{Evaluator, budget, with_outputs};
use crate::search::journal::Journal;
use crate::search::space::{Ladder, Measure, Rungs, Space};
use crate::search::variants::Variants;
pub use division::Division;
pub use methods::SearchRow;

use front::FrontPlan;
use msq_passes::analysis::{Layer, Placement, StoredWeight, layers};
use msq_passes::ir::Model;
use options::{SearchOptions, Target};
use registry::Method;
use std::collections::HashMap;

/// The two parts of the data.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// What layers are solved and imprinted on.
    pub calibration: &'a Dataset,
    /// What plans are measured on.
    pub validation: &'a Dataset,
    /// By how much ranges are widened, where the data is synthetic.
    pub margin: f32,
    /// The caller's own metric, by which a drop is counted then.
    pub metric: Option<&'a CustomMetric>,
}

/// Looks for the bits of every layer of a prepared model.
pub fn search(
    model: &Model,
    parts: Parts,
    options: &Options,
    search: &SearchOptions,
    runtime: &Runtime,
) -> Result<Outcome, SearchError> {
    let mut driver = Driver::new(model, parts, options, search, runtime)?;
    let (found, reached) = match driver.goal() {
        Goal::Limit(limit) => driver.within_limit(limit)?,
        Goal::Drop(drop) => driver.within_drop(drop)?,
        Goal::OutOfReach => {
            let bottom = driver.space.bottom();
            (driver.evaluate("smallest", bottom)?, false)
        }
    };
    driver.fill_front()?;
    driver.outcome(found, reached)
}

/// Measures a part of what layers cost alone and leaves it at that: into the journal, whose file other machines'
/// searches take as [`SearchOptions::measurements`]. The target has no part in it. Returns how many costs were measured.
pub fn measure(
    model: &Model,
    parts: Parts,
    options: &Options,
    search: &SearchOptions,
    shard: Shard,
    runtime: &Runtime,
) -> Result<usize, SearchError> {
    Driver::new(model, parts, options, search, runtime)?.measure_part(shard)
}

/// A plan, measured on all validation samples.
#[derive(Clone, Debug)]
pub(in crate::search) struct EvaluatedPlan {
    /// The rung of each layer.
    pub rungs: Rungs,
    /// The name of the method that proposes it.
    pub method: String,
    /// How good it is.
    pub metrics: Metrics,
}

/// The most that a plan may take.
#[derive(Clone, Copy, Debug)]
pub(in crate::search) struct Limit {
    /// What is limited.
    pub measure: Measure,
    /// The most of it.
    pub most: u64,
}

/// What a plan has to keep to.
#[derive(Clone, Copy, Debug)]
enum Goal {
    /// The most that it may take.
    Limit(Limit),
    /// The share of answers that may be lost.
    Drop(f64),
    /// Something that no plan can do: what the search does not touch is more than the target allows.
    OutOfReach,
}

/// A search under way.
pub(in crate::search) struct Driver<'a> {
    pub options: &'a Options,
    pub search: &'a SearchOptions,
    pub runtime: &'a Runtime<'a>,
    pub parts: Parts<'a>,
    /// The prepared float network.
    pub model: &'a Model,
    pub placement: Placement,
    /// Layers in graph order, each with the name of the value it writes.
    pub layers: Vec<(Layer, String)>,
    pub space: Space,
    /// Bytes of the weights that no rung changes, as floats and as they are stored: embedding tables, recurrent weights,
    /// layers left in float.
    pub beside: [u64; 2],
    pub variants: Variants<'a>,
    pub journal: Journal,
    /// The way `msq` went.
    pub steps: Vec<Step>,
    /// Measures plans on all validation samples.
    evaluator: Evaluator,
    /// Measures plans on fewer samples.
    quick: Evaluator,
    sensitivities: Option<Vec<Vec<f64>>>,
    /// Answers lost in all that was measured.
    answers: AnswerRates,
    proposals: Vec<Proposal>,
    front: Front<FrontPlan>,
    spent: Spent,
    /// Distance of the best plan that keeps to the limit, or bytes of the smallest that keeps to the drop.
    best: Option<f64>,
}

impl<'a> Driver<'a> {
    fn new(
        model: &'a Model,
        parts: Parts<'a>,
        options: &'a Options,
        search: &'a SearchOptions,
        runtime: &'a Runtime<'a>,
    ) -> Result<Self, SearchError> {
        if parts.calibration.is_empty() || parts.validation.is_empty() {
            return Err(SearchError::NoSamples);
        }
        let ladder = Ladder {
            weights: search.ladder.as_deref(),
            activations: search.activations,
            grid: search.grid,
            trellis: options.takes_trellis(model),
        };
        let rungs = ladder.rungs();
        let Some(&first) = rungs.first() else {
            return Err(SearchError::Refused { reason: "the ladder of bits is empty".to_owned() });
        };
        let top = BitPlan::uniform(first);
        let scheme = Scheme::new(model, &top, options)?;
        let variants = Variants::new(model, &scheme, parts.calibration, parts.margin, options, runtime)?;
        let position: HashMap<_, _> = model.graph.node_ids().enumerate().map(|(at, node)| (node, at)).collect();
        let mut layers = with_outputs(model, &scheme);
        layers.sort_by_key(|(layer, _)| position.get(&layer.node));
        let only: Vec<Layer> = layers.iter().map(|(layer, _)| layer.clone()).collect();
        let space = Space::new(model, &only, rungs, options)?;
        let beside = beside(model, &scheme, &only);
        let fewer = parts.validation.split(search.samples.min(parts.validation.len())).1;
        let masks = Masks::chosen(model, options.calibrate.masks);
        let outputs = Outputs::of(model, &options.measure.output_kinds, masks, parts.validation.len())?;
        let outputs = outputs.fed_back(parts.calibration.links()).scored(parts.metric.is_some());
        let evaluator = |name: &str, data: &Dataset, outputs: &Outputs, metric: Option<&CustomMetric>| {
            Evaluator::new(name, model, &layers, &Groups::one(data.clone()), (outputs, metric), runtime)
        };
        let journal = journal(model, parts, options, search)?;
        let all = evaluator("all", parts.validation, &outputs, parts.metric)?;
        // Fewer samples show less of what an output holds. Layers are compared by distance, not by the caller's metric.
        let quick = evaluator("some", &fewer, all.outputs(), None)?;
        Ok(Self {
            evaluator: all,
            quick,
            options,
            search,
            runtime,
            parts,
            model,
            placement: scheme.placement,
            layers,
            space,
            beside,
            variants,
            journal,
            sensitivities: None,
            answers: AnswerRates::default(),
            steps: Vec::new(),
            proposals: Vec::new(),
            front: Front::new(),
            spent: Spent::default(),
            best: None,
        })
    }

    /// The target in numbers.
    fn goal(&self) -> Goal {
        let sum = |of: &dyn Fn(usize) -> u64| (0..self.space.len()).map(of).sum::<u64>() as f64;
        let (measure, most) = match self.search.target {
            Target::MaxDrop(drop) => return Goal::Drop(drop),
            Target::Ratio(ratio) => {
                let [float, stored] = self.beside;
                let all = (((self.space.float_bytes() + float) as f64) / ratio) as u64;
                match all.checked_sub(stored) {
                    Some(most) => (Measure::PackedBytes, most),
                    None => return Goal::OutOfReach,
                }
            }
            Target::Bits(bits) => {
                (Measure::TwentiethBits, (sum(&|layer| self.space.weights(layer) as u64) * bits * 20.0) as u64)
            }
            Target::Size(bytes) => (Measure::FileBytes, bytes),
            Target::MacBits(share) => {
                (Measure::MacBits, (sum(&|layer| self.space.macs(layer) * 160 * 8) * share) as u64)
            }
        };
        Goal::Limit(Limit { measure, most })
    }

    /// The plan, and whether it keeps to the limit; the plan with the fewest bits where none does.
    fn within_limit(&mut self, limit: Limit) -> Result<(EvaluatedPlan, bool), SearchError> {
        let bottom = self.space.bottom();
        if self.size(limit.measure, &bottom)? > limit.most {
            return Ok((self.evaluate("smallest", bottom)?, false));
        }
        let method = self.search.method.row();
        self.check_classes(method)?;
        let found = method.proposer.propose(self, limit)?;
        let found = if method.repairs { self.repair(found, limit)? } else { found };
        Ok((found, true))
    }

    /// Refuses a method that needs classes where the network has none.
    fn check_classes(&self, method: &SearchRow) -> Result<(), SearchError> {
        if method.needs_classes && !self.evaluator.has_classes() {
            let others = Method::all().filter(|other| !other.row().needs_classes).map(|other| format!("`{other}`"));
            let others = others.collect::<Vec<_>>().join(", ");
            return Err(SearchError::NotAClassifier { method: method.name, others });
        }
        Ok(())
    }

    /// Whether the network has one output, class scores `[N, C]`.
    pub(in crate::search) fn is_classifier(&self) -> bool {
        self.evaluator.is_classifier()
    }

    /// Bytes of inner values that each of those who start runs from them may store.
    pub(in crate::search) fn budget(&self) -> u64 {
        budget(self.runtime)
    }

    /// Adds what a method ran beside evaluations.
    pub(in crate::search) fn count(&mut self, spent: Spent) {
        self.spent.run += spent.run;
        self.spent.full += spent.full;
    }

    /// How much of a measure a plan takes; of file bytes, to the byte.
    pub(in crate::search) fn size(&mut self, measure: Measure, rungs: &[usize]) -> Result<u64, SearchError> {
        match measure {
            Measure::FileBytes => self.variants.size(&self.space.plan(rungs)),
            _ => Ok(self.space.total(measure, rungs)),
        }
    }

    /// Measures a plan on all validation samples. It is listed as a proposal of the method and may come onto the front.
    pub(in crate::search) fn evaluate(&mut self, method: &str, rungs: Rungs) -> Result<EvaluatedPlan, SearchError> {
        let plan = self.space.plan(&rungs);
        let metrics = self.evaluator.evaluate(&mut self.variants, &plan, false, &mut self.journal)?;
        self.answers.observe(&metrics);
        let (method, bits) = (method.to_owned(), self.space.average_bits(&rungs));
        self.proposals.push(Proposal { method: method.clone(), bits, metrics: metrics.clone() });
        let size = self.space.packed_bytes(&rungs);
        let point = FrontPlan { metrics: metrics.clone(), method: method.clone(), bits, plan };
        self.front.insert(size, -metrics.distance, point);
        let found = EvaluatedPlan { rungs, method, metrics };
        self.write_best(&found)?;
        Ok(found)
    }

    /// Writes the plan down if it is the best so far of those that keep to the target.
    fn write_best(&mut self, found: &EvaluatedPlan) -> Result<(), SearchError> {
        let Some(path) = &self.search.best else { return Ok(()) };
        let (keeps, worth) = match self.goal() {
            Goal::Limit(limit) => {
                (self.size(limit.measure, &found.rungs)? <= limit.most, found.metrics.softened_distance())
            }
            Goal::Drop(drop) => (self.is_within(drop, found), self.space.packed_bytes(&found.rungs) as f64),
            Goal::OutOfReach => return Ok(()),
        };
        // Of equal ones the later, which has fewer layers in float.
        if keeps && self.best.is_none_or(|best| worth <= best) {
            self.best = Some(worth);
            self.space.plan(&found.rungs).save(path)?;
        }
        Ok(())
    }
}

/// What was measured before, here or elsewhere.
fn journal(model: &Model, parts: Parts, options: &Options, search: &SearchOptions) -> Result<Journal, SearchError> {
    if search.journal.is_none() && search.measurements.is_empty() {
        return Ok(Journal::default());
    }
    let started = started::key(model, parts, options, search)?;
    let mut journal = match &search.journal {
        Some(path) => Journal::open(path, &started)?,
        None => Journal::default(),
    };
    search.measurements.iter().try_for_each(|path| journal.add(path, &started))?;
    Ok(journal)
}

/// Bytes of the constant weights beside the layers that are searched, as floats and as they are stored.
fn beside(model: &Model, scheme: &Scheme, searched: &[Layer]) -> [u64; 2] {
    let is_searched = |layer: &Layer| searched.iter().any(|other| other.node == layer.node);
    let float_layers = layers(model).into_iter().filter(|layer| !is_searched(layer)).map(|layer| layer.weights());
    let floats = float_layers.chain(scheme.stored_float.iter().map(|(weight, _)| weight.weights()));
    let floats: u64 = floats.map(|weights| 4 * weights as u64).sum();
    let stored = scheme.stored.iter();
    let as_floats: u64 = stored.clone().map(|weight| 4 * weight.weights() as u64).sum();
    let packed = |weight: &StoredWeight| scheme.stored_plan(weight).packed_bytes(weight.weights(), weight.scales());
    let bytes: u64 = stored.map(|weight| packed(weight) as u64).sum();
    [floats + as_floats, floats + bytes]
}
