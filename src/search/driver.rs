//! From a target to a plan.

use super::allocate::{self, Front, Problem, greedy, ilp, swaps};
use super::imprint::{Candidate, search_step};
use super::journal::Journal;
use super::judge::{Judge, Verdict};
use super::layer_accuracy::LayerAccuracy;
use super::options::{Method, SearchOptions, Target};
use super::prefix::Spent;
use super::report::{FrontPoint, Outcome, Passes, Proposal, Sensitivity, Step};
use super::space::{Choice, Measure, Space, ladder};
use super::variants::Variants;
use crate::data::Dataset;
use crate::progress::Progress;
use crate::work::Work;
use crate::{BitPlan, Error, Options};
use msq_passes::analysis::{Layer, Placement};
use msq_passes::ir::Model;
use std::collections::HashMap;

/// Bytes that inner values kept to start from may take, for each of those who keep some, unless the memory allowed says
/// otherwise.
const KEPT: u64 = 320 << 20;
/// How often the program's limit is lowered until the file keeps to it.
const ATTEMPTS: usize = 12;
/// Samples a class below which images are copied for MSQ, and how often.
const LEAST_A_CLASS: usize = 2;
const COPIES: usize = 3;
/// Plans of the greedy path that are measured for the front.
const FRONT: usize = 12;

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

/// Looks for the bits of every layer of a prepared model.
pub fn search(
    model: &Model,
    parts: Parts,
    options: &Options,
    search: &SearchOptions,
    progress: &dyn Progress,
) -> Result<Outcome, Error> {
    let mut driver = Driver::new(model, parts, options, search, progress)?;
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

struct Driver<'a> {
    options: &'a Options,
    search: &'a SearchOptions,
    progress: &'a dyn Progress,
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
    front: Front<(Verdict, String, Choice)>,
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
        progress: &'a dyn Progress,
    ) -> Result<Self, Error> {
        if parts.calibration.is_empty() || parts.validation.is_empty() {
            return Err(Error::NoSamples);
        }
        let rungs = ladder(&search.ladder, search.activations);
        let Some(&first) = rungs.first() else {
            return Err(Error::Search { reason: "the ladder of bits is empty".to_owned() });
        };
        let top = BitPlan::uniform(first);
        let work = Work::new(model, &options.with_plan(&top))?;
        let variants = Variants::new(model, &top, parts.calibration, parts.margin, options, progress)?;
        let position: HashMap<_, _> = model.graph.node_ids().enumerate().map(|(at, node)| (node, at)).collect();
        let mut layers: Vec<(Layer, String)> = work
            .layers()
            .map(|layer| {
                let written = work.placement.written_by(&model.graph, layer);
                (layer.clone(), model.graph.value(written).name().to_owned())
            })
            .collect();
        layers.sort_by_key(|(layer, _)| position.get(&layer.node));
        let only: Vec<Layer> = layers.iter().map(|(layer, _)| layer.clone()).collect();
        let space = Space::new(model, &only, rungs, options)?;
        let budget = options.memory.map_or(KEPT, |memory| memory / 6);
        let fewer = parts.validation.split(search.samples.min(parts.validation.len())).1;
        let judge = |name: &str, data: &Dataset| Judge::new(name, model, &layers, data, budget, options.threads);
        let journal = match &search.journal {
            Some(path) => Journal::open(path, &started(model, parts, options, search)?)?,
            None => Journal::default(),
        };
        Ok(Self {
            judge: judge("all", parts.validation)?,
            quick: judge("some", &fewer)?,
            options,
            search,
            progress,
            parts,
            model,
            placement: work.placement,
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

    /// What is limited, and to what; nothing where the drop is.
    fn limit(&self) -> Option<(Measure, u64)> {
        let sum = |of: &dyn Fn(usize) -> u64| (0..self.space.len()).map(of).sum::<u64>() as f64;
        Some(match self.search.target {
            Target::MaxDrop(_) => return None,
            Target::Ratio(ratio) => (Measure::PackedBytes, (self.space.float_bytes() as f64 / ratio) as u64),
            Target::Bits(bits) => {
                (Measure::TenthBits, (sum(&|layer| self.space.weights(layer) as u64) * bits * 10.0) as u64)
            }
            Target::Size(bytes) => (Measure::FileBytes, bytes),
            Target::MacBits(share) => {
                (Measure::MacBits, (sum(&|layer| self.space.macs(layer) * 80 * 8) * share) as u64)
            }
        })
    }

    /// The plan, and whether it keeps to the target.
    fn find(&mut self) -> Result<(Found, bool), Error> {
        let Some((measure, limit)) = self.limit() else { return self.smallest_within() };
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
        self.front.insert(size, -verdict.distance, (verdict, method.to_owned(), choice.clone()));
        let found = Found { choice, method: method.to_owned(), verdict };
        self.write_best(&found)?;
        Ok(found)
    }

    /// Writes the plan down if it is the best so far of those that keep to the target.
    fn write_best(&mut self, found: &Found) -> Result<(), Error> {
        let Some(path) = &self.search.best else { return Ok(()) };
        let (keeps, worth) = match (self.limit(), self.search.target) {
            (Some((measure, limit)), _) => (self.exact(measure, &found.choice)? <= limit, found.verdict.distance),
            (None, Target::MaxDrop(drop)) => {
                let size = self.space.total(Measure::PackedBytes, &found.choice);
                (lost(&self.judge.float(), &found.verdict) <= drop, size as f64)
            }
            (None, _) => return Ok(()),
        };
        if keeps && self.best.is_none_or(|best| worth < best) {
            self.best = Some(worth);
            self.space.plan(&found.choice).save(path)?;
        }
        Ok(())
    }

    /// What each layer adds to the distance on each rung, alone.
    fn costs(&mut self) -> Result<Vec<Vec<f64>>, Error> {
        if let Some(costs) = &self.costs {
            return Ok(costs.clone());
        }
        let (layers, rungs) = (self.space.len(), self.space.rungs());
        self.progress.begin("sensitivity", (layers * (rungs - 1)) as u64);
        let top = self.space.top();
        let base = self.quick.judge(&mut self.variants, &self.space.plan(&top), true, &mut self.journal)?.distance;
        let mut costs = vec![vec![0.0; rungs]; layers];
        for (layer, costs) in costs.iter_mut().enumerate() {
            for (rung, cost) in costs.iter_mut().enumerate().skip(1) {
                let mut choice = top.clone();
                choice[layer] = rung;
                let plan = self.space.plan(&choice);
                let verdict = self.quick.judge(&mut self.variants, &plan, false, &mut self.journal)?;
                // By chance a layer may do better with fewer bits; more bits are not worse for that.
                *cost = (verdict.distance - base).max(0.0);
                self.progress.advance(1);
            }
            let mut least = f64::INFINITY;
            for cost in costs.iter_mut().rev() {
                least = least.min(*cost);
                *cost = least;
            }
        }
        self.progress.end();
        self.costs = Some(costs.clone());
        Ok(costs)
    }

    /// The costs as a problem, in bytes of the file or whatever is limited.
    fn problem(&mut self, measure: Measure) -> Result<Problem, Error> {
        let costs = self.costs()?;
        let layers = costs.iter().enumerate().map(|(layer, costs)| {
            let choice =
                |(rung, &cost): (usize, &f64)| allocate::Choice { cost, budget: self.space.cost(measure, layer, rung) };
            allocate::Layer { choices: costs.iter().enumerate().map(choice).collect() }
        });
        let layers = layers.collect();
        let fixed = match measure {
            Measure::FileBytes => {
                let top = self.space.top();
                let weights = self.space.total(measure, &top);
                self.exact(measure, &top)?.saturating_sub(weights)
            }
            _ => 0,
        };
        Problem::new(layers, fixed).map_err(|error| Error::Search { reason: error.to_string() })
    }

    /// Sensitivities, greedily: the first plan on the way down that keeps to the limit.
    fn sensitivity(&mut self, measure: Measure, limit: u64) -> Result<Found, Error> {
        let problem = self.problem(measure)?;
        for allocation in greedy(&problem) {
            if self.exact(measure, &allocation.plan)? <= limit {
                return self.judged("sensitivity", allocation.plan);
            }
        }
        let bottom = self.space.bottom();
        self.judged("sensitivity", bottom)
    }

    /// Sensitivities, the plan of least total cost within the limit.
    fn program(&mut self, measure: Measure, limit: u64) -> Result<Found, Error> {
        let problem = self.problem(measure)?;
        let mut allowed = limit;
        for _ in 0..ATTEMPTS {
            let Ok(allocation) = ilp(&problem, allowed, None) else { break };
            let taken = self.exact(measure, &allocation.plan)?;
            if taken <= limit {
                return self.judged("ilp", allocation.plan);
            }
            // What packing adds is not linear.
            allowed = allowed.saturating_sub(taken - limit);
        }
        let bottom = self.space.bottom();
        self.judged("ilp", bottom)
    }

    /// The highest rung for all that keeps to the limit.
    fn uniform(&mut self, measure: Measure, limit: u64) -> Result<Found, Error> {
        for rung in 0..self.space.rungs() {
            let choice = vec![rung; self.space.len()];
            if self.exact(measure, &choice)? <= limit {
                return self.judged("uniform", choice);
            }
        }
        let bottom = self.space.bottom();
        self.judged("uniform", bottom)
    }

    /// Algorithm 1 of the MSQ paper, until the limit is kept to.
    fn msq(&mut self, measure: Measure, limit: u64) -> Result<Found, Error> {
        self.walk_msq(|driver, choice| {
            // Packing adds to what the weights take: far above the limit there is no need to write the file.
            Ok(driver.space.total(measure, choice) <= limit && driver.exact(measure, choice)? <= limit)
        })
    }

    fn walk_msq(&mut self, mut enough: impl FnMut(&mut Self, &[usize]) -> Result<bool, Error>) -> Result<Found, Error> {
        if !self.judge.is_classifier() {
            return Err(Error::NotAClassifier);
        }
        let budget = self.options.memory.map_or(KEPT, |memory| memory / 6);
        let more = self.enough_a_class()?;
        let mut accuracy = LayerAccuracy::new(
            self.model,
            &self.placement,
            &self.layers,
            [more.as_ref().unwrap_or(self.parts.calibration), self.parts.validation],
            &self.search.imprinting,
            budget,
            self.options.threads,
        )?;
        let chance = self.search.first_layer.then(|| 1.0 / accuracy.classes().max(1) as f64);
        let mut choice = self.space.top();
        self.progress.begin("msq", (self.space.len() * (self.space.rungs() - 1)) as u64);
        self.steps.clear();
        while !enough(self, &choice)? {
            let plan = self.space.plan(&choice);
            let accuracies = accuracy.measure(&mut self.variants, &plan, &mut self.journal)?;
            let candidate = |(layer, &accuracy): (usize, &f64)| Candidate {
                accuracy,
                weights: self.space.weights(layer),
                can_go_lower: choice[layer] + 1 < self.space.rungs(),
            };
            let candidates: Vec<Candidate> = accuracies.iter().enumerate().map(candidate).collect();
            let lowered = search_step(&candidates, chance, self.search.step);
            self.steps.push(Step {
                bits: self.space.average_bits(&choice),
                packed_bytes: self.space.total(Measure::PackedBytes, &choice),
                accuracies,
                lowered: lowered.iter().map(|&layer| self.space.name(layer).to_owned()).collect(),
                plan,
            });
            if lowered.is_empty() {
                // The first layer stays where it is; what is left to lower is it.
                break;
            }
            for &layer in &lowered {
                choice[layer] += 1;
            }
            self.progress.advance(lowered.len() as u64);
        }
        self.progress.end();
        let spent = accuracy.spent();
        self.spent.run += spent.run;
        self.spent.full += spent.full;
        self.judged("msq", choice)
    }

    /// More samples to imprint, moved and mirrored, where there are too few for the classes.
    fn enough_a_class(&self) -> Result<Option<Dataset>, Error> {
        let calibration = self.parts.calibration;
        let classes = LayerAccuracy::count_classes(self.model, calibration, self.options.threads)?;
        if calibration.len() >= LEAST_A_CLASS * classes {
            return Ok(None);
        }
        let more = calibration.augmented(COPIES, self.options.seed);
        let (samples, copied) = (calibration.len(), more.is_some());
        tracing::warn!(samples, classes, copied, "few samples a class: what MSQ finds about layers is vague");
        Ok(more)
    }

    /// Exchanges bits between layers while the whole plan gets better, by what is measured on the fewer samples.
    fn repair(&mut self, found: Found, measure: Measure, limit: u64) -> Result<Found, Error> {
        let problem = self.problem(measure)?;
        let mut choice = found.choice.clone();
        let mut best =
            self.quick.judge(&mut self.variants, &self.space.plan(&choice), true, &mut self.journal)?.distance;
        let mut left = self.search.repairs;
        self.progress.begin("repair", left as u64);
        let mut tried: Vec<Choice> = vec![choice.clone()];
        'improved: while left > 0 {
            for swap in swaps(&problem, &choice, limit) {
                let next = swap.apply(&choice);
                if left == 0 {
                    break 'improved;
                }
                if tried.contains(&next) || self.exact(measure, &next)? > limit {
                    continue;
                }
                left -= 1;
                self.progress.advance(1);
                tried.push(next.clone());
                let plan = self.space.plan(&next);
                let distance = self.quick.judge(&mut self.variants, &plan, false, &mut self.journal)?.distance;
                if distance < best {
                    (best, choice) = (distance, next);
                    continue 'improved;
                }
            }
            break;
        }
        self.progress.end();
        if choice == found.choice {
            return Ok(found);
        }
        let repaired = self.judged(&format!("{} + repair", found.method), choice)?;
        // What helps on some samples need not on all.
        Ok(if repaired.verdict.distance < found.verdict.distance { repaired } else { found })
    }

    /// The smallest plan on the way down that loses no more than the target allows.
    fn smallest_within(&mut self) -> Result<(Found, bool), Error> {
        let Target::MaxDrop(drop) = self.search.target else { return Err(Error::NoSamples) };
        let float = self.judge.float();
        let keeps = |verdict: &Verdict| lost(&float, verdict) <= drop;
        if self.search.method == Method::Msq {
            let mut last = None;
            self.walk_msq(|driver, choice| {
                let found = driver.judged("msq", choice.to_vec())?;
                let good = keeps(&found.verdict);
                if good {
                    last = Some(found);
                }
                Ok(!good)
            })?;
            let top = self.space.top();
            return Ok(last.map_or((self.judged("msq", top)?, false), |found| (found, true)));
        }
        let path: Vec<Choice> = if self.search.method == Method::Uniform {
            (0..self.space.rungs()).map(|rung| vec![rung; self.space.len()]).collect()
        } else {
            let problem = self.problem(Measure::PackedBytes)?;
            greedy(&problem).into_iter().map(|allocation| allocation.plan).collect()
        };
        let name = if self.search.method == Method::Uniform { "uniform" } else { "sensitivity" };
        let Some(first) = path.first() else { return Err(Error::NoSamples) };
        let mut best = self.judged(name, first.clone())?;
        if !keeps(&best.verdict) {
            return Ok((best, false));
        }
        // Less with every step down, but for chance.
        let (mut good, mut bad) = (0, path.len());
        while bad - good > 1 {
            let middle = usize::midpoint(good, bad);
            let found = self.judged(name, path[middle].clone())?;
            if keeps(&found.verdict) {
                (good, best) = (middle, found);
            } else {
                bad = middle;
            }
        }
        Ok((best, true))
    }

    /// Measures plans evenly along the way of the sensitivities.
    fn fill_front(&mut self) -> Result<(), Error> {
        if self.costs.is_none() {
            return Ok(());
        }
        let problem = self.problem(Measure::PackedBytes)?;
        let path = greedy(&problem);
        let last = path.len().saturating_sub(1);
        self.progress.begin("front", FRONT as u64);
        for point in 0..FRONT {
            let Some(allocation) = path.get(point * last / (FRONT - 1)) else { continue };
            let known = self.proposals.len();
            self.judged("sensitivity", allocation.plan.clone())?;
            // Not a proposal.
            self.proposals.truncate(known);
            self.progress.advance(1);
        }
        self.progress.end();
        Ok(())
    }

    fn outcome(mut self, found: Found, reached: bool) -> Result<Outcome, Error> {
        let bytes = self.variants.size(&self.space.plan(&found.choice))?;
        let (all, some) = (self.judge.spent(), self.quick.spent());
        let once: u64 = (0..self.space.len()).map(|layer| self.space.macs(layer)).sum::<u64>().max(1);
        let passes = |macs: u64| macs as f64 / once as f64;
        let point = |point: &allocate::Point<(Verdict, String, Choice)>| {
            let (verdict, method, choice) = &point.payload;
            FrontPoint {
                bits: self.space.average_bits(choice),
                packed_bytes: point.size,
                verdict: *verdict,
                method: method.clone(),
                plan: self.space.plan(choice),
            }
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

/// The share of answers lost: of the float network's accuracy with labels, of agreement with it without; of outputs that
/// are no class scores, their relative squared error.
pub(crate) fn lost(float: &Verdict, verdict: &Verdict) -> f64 {
    match (float.accuracy, verdict.accuracy, verdict.agreement) {
        (Some(float), Some(accuracy), _) => float - accuracy,
        (.., Some(agreement)) => 1.0 - agreement,
        _ => verdict.distance,
    }
}

/// What measurements follow from, besides the plan.
fn started(model: &Model, parts: Parts, options: &Options, search: &SearchOptions) -> Result<String, Error> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    let hashes = msq_passes::analysis::content_hashes(&model.graph);
    for output in model.graph.outputs() {
        hashes.get(&output).hash(&mut hasher);
    }
    for data in [parts.calibration, parts.validation] {
        data.len().hash(&mut hasher);
        for index in [0, data.len() / 2, data.len().saturating_sub(1)] {
            format!("{:?}", data.sample(index)?.arrays).hash(&mut hasher);
            data.label(index).hash(&mut hasher);
        }
    }
    // Neither the number of threads nor where the journal lies makes a difference.
    let options = Options { threads: 0, ..options.clone() };
    let search = SearchOptions { journal: None, best: None, ..search.clone() };
    format!("{options:?} {search:?}").hash(&mut hasher);
    Ok(format!("{} {:016x}", env!("CARGO_PKG_VERSION"), hasher.finish()))
}
