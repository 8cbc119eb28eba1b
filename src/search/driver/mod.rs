//! From a target to a plan.

mod costs;
mod drop;
mod msq;

use crate::data::Dataset;
use crate::execute::prefixes::Spent;
use crate::measure::comparison::Verdict;
use crate::report::search::{FrontPoint, Outcome, Passes, Proposal, Sensitivity, Step};
use crate::runtime::Runtime;
use crate::scheme::Scheme;
use crate::search::allocate::{self, Front};
use crate::search::journal::Journal;
use crate::search::judge::Judge;
use crate::search::options::{Method, SearchOptions, Target};
use crate::search::space::{Choice, Measure, Space, ladder};
use crate::search::variants::Variants;
use crate::{BitPlan, Error, Options};
use indexmap::IndexMap;
use msq_passes::analysis::{Layer, Placement};
use msq_passes::ir::Model;
use std::collections::HashMap;

/// Bytes that inner values kept to start from may take, for each of those who keep some, unless the memory allowed says
/// otherwise.
const KEPT: u64 = 320 << 20;

/// The two parts of the data.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// What layers are solved and imprinted on.
    pub calibration: &'a Dataset,
    /// What plans are measured on.
    pub validation: &'a Dataset,
    /// By how much ranges are widened, where the data is made up.
    pub margin: f32,
}

/// Data in two parts: what is calibrated, solved and imprinted on, and a quarter of it, at least 16 samples or half, that
/// plans are measured on.
pub fn parts(data: &Dataset) -> [Dataset; 2] {
    let (kept, held_out) = data.split((data.len() / 4).max(data.len().min(32) / 2));
    [kept, held_out]
}

/// Looks for the bits of every layer of a prepared model.
pub fn search(
    model: &Model,
    parts: Parts,
    options: &Options,
    search: &SearchOptions,
    runtime: &Runtime,
) -> Result<Outcome, Error> {
    let mut driver = Driver::new(model, parts, options, search, runtime)?;
    let (found, reached) = driver.find()?;
    driver.fill_front()?;
    driver.outcome(found, reached)
}

/// A plan and where it comes from.
#[derive(Clone, Debug)]
struct Found {
    choice: Choice,
    method: String,
    verdict: Verdict,
}

/// What a plan has to keep to.
#[derive(Clone, Copy, Debug)]
enum Goal {
    /// So much of a measure.
    Limit(Measure, u64),
    /// Such a share of answers lost.
    Drop(f64),
}

/// A plan on the way.
#[derive(Clone, Debug)]
struct Passed {
    verdict: Verdict,
    method: String,
    bits: f64,
    plan: BitPlan,
}

struct Driver<'a> {
    options: &'a Options,
    search: &'a SearchOptions,
    runtime: &'a Runtime<'a>,
    parts: Parts<'a>,
    model: &'a Model,
    placement: Placement,
    layers: Vec<(Layer, String)>,
    space: Space,
    variants: Variants<'a>,
    judge: Judge,
    /// On fewer samples.
    quick: Judge,
    journal: Journal,
    costs: Option<Vec<Vec<f64>>>,
    steps: Vec<Step>,
    proposals: Vec<Proposal>,
    front: Front<Passed>,
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
    ) -> Result<Self, Error> {
        if parts.calibration.is_empty() || parts.validation.is_empty() {
            return Err(Error::NoSamples);
        }
        let rungs = ladder(&search.ladder, search.activations);
        let Some(&first) = rungs.first() else {
            return Err(Error::Search { reason: "the ladder of bits is empty".to_owned() });
        };
        let top = BitPlan::uniform(first);
        let scheme = Scheme::new(model, &top, options)?;
        let variants = Variants::new(model, &scheme, parts.calibration, parts.margin, options, runtime)?;
        let position: HashMap<_, _> = model.graph.node_ids().enumerate().map(|(at, node)| (node, at)).collect();
        let mut layers: Vec<(Layer, String)> = scheme
            .layers()
            .map(|layer| {
                let written = scheme.placement.written_by(&model.graph, layer);
                (layer.clone(), model.graph.value(written).name().to_owned())
            })
            .collect();
        layers.sort_by_key(|(layer, _)| position.get(&layer.node));
        let only: Vec<Layer> = layers.iter().map(|(layer, _)| layer.clone()).collect();
        let space = Space::new(model, &only, rungs, options)?;
        let budget = runtime.memory.map_or(KEPT, |memory| memory / 6);
        let fewer = parts.validation.split(search.samples.min(parts.validation.len())).1;
        let judge = |name: &str, data: &Dataset| Judge::new(name, model, &layers, data, budget, runtime);
        let journal = match &search.journal {
            Some(path) => Journal::open(path, &started(model, parts, options, search)?)?,
            None => Journal::default(),
        };
        Ok(Self {
            judge: judge("all", parts.validation)?,
            quick: judge("some", &fewer)?,
            options,
            search,
            runtime,
            parts,
            model,
            placement: scheme.placement,
            layers,
            space,
            variants,
            journal,
            costs: None,
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
        match self.search.target {
            Target::MaxDrop(drop) => Goal::Drop(drop),
            Target::Ratio(ratio) => Goal::Limit(Measure::PackedBytes, (self.space.float_bytes() as f64 / ratio) as u64),
            Target::Bits(bits) => {
                Goal::Limit(Measure::TenthBits, (sum(&|layer| self.space.weights(layer) as u64) * bits * 10.0) as u64)
            }
            Target::Size(bytes) => Goal::Limit(Measure::FileBytes, bytes),
            Target::MacBits(share) => {
                Goal::Limit(Measure::MacBits, (sum(&|layer| self.space.macs(layer) * 80 * 8) * share) as u64)
            }
        }
    }

    /// The plan, and whether it keeps to the target.
    fn find(&mut self) -> Result<(Found, bool), Error> {
        let (measure, limit) = match self.goal() {
            Goal::Drop(drop) => return self.smallest_within(drop),
            Goal::Limit(measure, limit) => (measure, limit),
        };
        let bottom = self.space.bottom();
        if self.exact(measure, &bottom)? > limit {
            let found = self.judged("smallest", bottom)?;
            return Ok((found, false));
        }
        let found = match self.search.method {
            Method::Msq => self.msq(measure, limit)?,
            Method::Sensitivity => self.sensitivity(measure, limit)?,
            Method::Ilp => self.program(measure, limit)?,
            Method::Uniform => self.uniform(measure, limit)?,
            Method::Auto => {
                let mut best = self.program(measure, limit)?;
                if self.judge.is_classifier() {
                    let other = self.msq(measure, limit)?;
                    if other.verdict.distance < best.verdict.distance {
                        best = other;
                    }
                }
                self.repair(best, measure, limit)?
            }
        };
        Ok((found, true))
    }

    /// What a choice takes, to the byte.
    fn exact(&mut self, measure: Measure, choice: &[usize]) -> Result<u64, Error> {
        match measure {
            Measure::FileBytes => self.variants.size(&self.space.plan(choice)),
            _ => Ok(self.space.total(measure, choice)),
        }
    }

    /// Measures a proposal on the whole validation part.
    fn judged(&mut self, method: &str, choice: Choice) -> Result<Found, Error> {
        let verdict = self.judge.judge(&mut self.variants, &self.space.plan(&choice), false, &mut self.journal)?;
        self.proposals.push(Proposal { method: method.to_owned(), bits: self.space.average_bits(&choice), verdict });
        let size = self.space.total(Measure::PackedBytes, &choice);
        let (bits, plan) = (self.space.average_bits(&choice), self.space.plan(&choice));
        self.front.insert(size, -verdict.distance, Passed { verdict, method: method.to_owned(), bits, plan });
        let found = Found { choice, method: method.to_owned(), verdict };
        self.write_best(&found)?;
        Ok(found)
    }

    /// Writes the plan down if it is the best so far of those that keep to the target.
    fn write_best(&mut self, found: &Found) -> Result<(), Error> {
        let Some(path) = &self.search.best else { return Ok(()) };
        let (keeps, worth) = match self.goal() {
            Goal::Limit(measure, limit) => (self.exact(measure, &found.choice)? <= limit, found.verdict.distance),
            Goal::Drop(drop) => {
                let size = self.space.total(Measure::PackedBytes, &found.choice);
                (found.verdict.lost(self.judge.float().accuracy) <= drop, size as f64)
            }
        };
        // Of equal ones the later, which has fewer layers in float.
        if keeps && self.best.is_none_or(|best| worth <= best) {
            self.best = Some(worth);
            self.space.plan(&found.choice).save(path)?;
        }
        Ok(())
    }

    fn outcome(mut self, found: Found, reached: bool) -> Result<Outcome, Error> {
        let bytes = self.variants.size(&self.space.plan(&found.choice))?;
        let (all, some) = (self.judge.spent(), self.quick.spent());
        // As the runs were counted.
        let once = self.space.macs_at_least().max(1);
        let passes = |macs: u64| macs as f64 / once as f64;
        let point = |point: &allocate::Point<Passed>| {
            let Passed { verdict, method, bits, plan } = point.payload.clone();
            FrontPoint { bits, packed_bytes: point.size, verdict, method, plan }
        };
        let sensitivity = |(layer, costs): (usize, &Vec<f64>)| Sensitivity {
            layer: self.space.name(layer).to_owned(),
            costs: costs.iter().enumerate().map(|(rung, &cost)| (self.space.bits(rung).to_string(), cost)).collect(),
        };
        Ok(Outcome {
            method: self.search.method.name(),
            target: self.search.target.to_string(),
            reached,
            plan: self.space.plan(&found.choice),
            chosen: found.method,
            bits: self.space.average_bits(&found.choice),
            bytes,
            verdict: found.verdict,
            float: self.judge.float(),
            samples: [self.parts.calibration.len(), self.parts.validation.len()],
            proposals: self.proposals.clone(),
            steps: self.steps.clone(),
            sensitivities: self.costs.iter().flatten().enumerate().map(sensitivity).collect(),
            front: self.front.points().iter().map(point).collect(),
            passes: Passes {
                run: passes(self.spent.run + all.run + some.run),
                full: passes(self.spent.full + all.full + some.full),
            },
            resumed: self.journal.resumed(),
        })
    }
}

/// What measurements follow from, besides the plan: not from the target or the way to it, nor from threads and memory.
fn started(model: &Model, parts: Parts, options: &Options, search: &SearchOptions) -> Result<String, Error> {
    use std::hash::{Hash, Hasher};
    let mut hasher = twox_hash::XxHash3_64::new();
    let hashes = msq_passes::analysis::content_hashes(&model.graph);
    for output in model.graph.outputs() {
        hashes.get(&output).hash(&mut hasher);
    }
    for data in [parts.calibration, parts.validation] {
        data.len().hash(&mut hasher);
        for index in 0..data.len() {
            for array in data.sample(index)?.arrays {
                array.shape().hash(&mut hasher);
                array.to_f32().iter().for_each(|value| value.to_bits().hash(&mut hasher));
            }
            data.labels(index).hash(&mut hasher);
        }
    }
    let mut options = options.with_plan(&BitPlan::of_layers(IndexMap::new()));
    options.verify.details = false;
    format!("{options:?} {:?} {} {}", search.imprinting, search.samples, parts.margin).hash(&mut hasher);
    Ok(format!("{} {:016x}", env!("CARGO_PKG_VERSION"), hasher.finish()))
}
