//! The guard: what a quantized network loses too much is repaired, at least cost.
//!
//! Most repairs change what activations are, not the weights: the way in which ranges are chosen, which costs nothing where the
//! model runs, and which layers and operators compute in float, which costs speed. All are entries of the bit plan, so a
//! repaired network is one more plan, and running it again needs no guard.
//!
//! A repair is judged by what the whole network's outputs then lose, not by the value or the layer that it changes: noise
//! adds up over a network, so no single layer may be to blame, and ranks of single layers mislead. Neighbours are tried
//! together.
//!
//! 0. [`stored`]: where weights beside the layers, such as recurrent ones, have few bits and hardly anything is left of the
//!    outputs, 8 bits for them; then floats for what recurrent layers would quantize at run time, and floats for weights.
//! 1. [`ranges`]: one observer for all values, then one for each stretch of the network.
//! 2. [`float`], where the target has kernels for activations of 16 bits: stretches of layers that read such, if all
//!    layers with them lose little enough.
//! 3. [`float`]: weights of layers for which 8 bits are not enough, because their inputs differ in size by far; then
//!    stretches of layers, and all nodes of an operator, by gain per work that is done in float: together as many as it
//!    takes, then as little of each as it takes.
//!
//! Few bits are asked for, not a fault: where all activations in float lose nearly as much, nothing else is tried, unless
//! hardly anything is left of the outputs. Then a few layers may be to blame for which few bits are not enough: they get 8
//! bits, or float weights where 8 bits are not enough either.
//!
//! Of many choices that lose about as much, the one with the fewest wrong answers has been lucky: one is taken only if what
//! it loses is little by its distance too, judged by all trials ([`Guard::is_met_again`]).
//!
//! What is tried is limited by a budget of counted work ([`trials`]).

mod choice;
mod float;
mod ranges;
mod stored;
mod trials;
mod units;

use super::evaluator::{Evaluator, with_outputs};
use super::journal::Journal;
use super::variants::Variants;
use crate::calibrate::ObserverKind;
use crate::calibrate::observe::{Observed, Seen};
use crate::data::Groups;
use crate::measure::CustomMetric;
use crate::measure::metrics::{Metrics, OutputMetrics};
use crate::measure::outputs::Outputs;
use crate::report::repair::Repair;
use crate::runtime::{MACS_PER_SECOND, Runtime};
use crate::scheme::Scheme;
use crate::scheme::bit_plan::BitPlan;
use crate::scheme::options::Options;
use crate::scheme::output_kind::OutputKind;
use crate::search::SearchError;
use crate::solve::Solved;
use choice::Choice;
use msq_passes::ir::Model;
use msq_passes::{InsertQdq, WideActivations, pipelines};
use std::collections::BTreeSet;
pub(in crate::search) use trials::Measure;
use trials::{OVERHEAD, Trials};
use units::{Unit, Units};

/// Samples that repairs are measured on, at least where there are as many and at most.
const SAMPLES: [usize; 2] = [16, 128];
/// Trials that the budget is to have room for, if fewer samples give it.
const TRIALS: f64 = 48.0;
/// Samples of which a share of answers can be told from [`Goal::allowed`], and trials that are enough then.
const TELLING: (usize, f64) = (64, 18.0);
/// Samples from which on some are spared for what is stated of the result: of one group, and of several.
const ENOUGH: [usize; 2] = [16, 64];
/// How many are spared at least; otherwise a quarter.
const SPARED: usize = 8;
/// Seconds of work that repairs may take at least and at most, where no budget is given.
const SECONDS: [f64; 2] = [20.0, 60.0];
/// What outputs lose from which on weights of few bits are no longer what was asked for: of values, and of answers.
pub(crate) const SEVERE: [f64; 2] = [0.1, 0.5];
/// As [`SEVERE`], for layers with more than [`FEW_WEIGHTS`] of all weights.
const RUINED: [f64; 2] = [0.5, 0.5];
/// Share of the weights that get more bits at less cost.
const FEW_WEIGHTS: f64 = 0.1;
/// How much better a network has to be for a change that costs nothing where it runs.
const BETTER: f64 = 0.98;

/// A quantized network, and what it was made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guarded<'a> {
    /// The prepared float network.
    pub model: &'a Model,
    /// Its outputs, as they are compared, and the caller's own metric.
    pub compared: (&'a Outputs, Option<&'a CustomMetric>),
    /// What was done.
    pub scheme: &'a Scheme,
    /// The quantized network that runs each group of samples.
    pub networks: &'a [Network<'a>],
    /// The options it was quantized with.
    pub options: &'a Options,
}

/// A network's ranges, and what follows from them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network<'a> {
    /// Statistics of its activations.
    pub seen: &'a Seen,
    /// Their parameters.
    pub observed: &'a Observed,
    /// Its layers.
    pub solved: &'a Solved,
}

/// A plan that loses less, and how it was found.
#[derive(Clone, Debug)]
pub(crate) struct Repaired {
    /// The plan.
    pub plan: BitPlan,
    /// What was done.
    pub report: Repair,
    /// The places of the samples that had no part in it.
    pub spared: Vec<usize>,
}

/// What may be lost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    /// The share.
    pub allowed: f64,
    /// Whether a share of answers counts as it is; otherwise it may be larger by its standard error.
    pub strict: bool,
}

/// What repairs are measured on, and how many samples were calibrated on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work<'a> {
    /// The samples, in groups that have each their own ranges.
    pub samples: &'a Groups,
    /// The number of those calibrated on.
    pub calibrated: usize,
    /// Whether some of them are to be left for what is stated of the result.
    pub spares: bool,
}

/// Looks for a plan that loses no more than `goal`; all that is measured is the samples of `work`, or some of them.
pub(crate) fn repair<'a>(
    guarded: Guarded<'a>,
    work: Work,
    goal: Goal,
    runtime: &Runtime,
) -> Result<Repaired, SearchError> {
    let Guarded { model, compared, scheme, networks, options } = guarded;
    let units = Units::of(model, scheme, work.samples.data(), runtime)?;
    let budget = Budget::of(&units, options, work)?;
    let most = work.samples.data().len() - if work.spares { spared(work.samples) } else { 0 };
    let (probe, others) = work.samples.spread(budget.samples.min(most));
    let layers = with_outputs(model, scheme);
    let mut evaluator = Evaluator::new("repair", model, &layers, &probe, compared, runtime)?;
    let variants = |network: &Network<'a>| {
        let made_of = (network.seen.without_outputs(), network.observed, network.solved);
        Variants::of_quantized(model, scheme, made_of, options)
    };
    let mut variants: Vec<Variants> = networks.iter().map(variants).collect();
    let mut journal = Journal::default();
    // Trials differ from the best plan so far in one part: what lies before it is computed once. Often there is but one,
    // the plan as it is, which loses less on more samples.
    let mut keeps = false;
    let mut measure = |plan: &BitPlan| {
        let keeps = std::mem::replace(&mut keeps, true);
        evaluator.evaluate_groups(&mut variants, plan, keeps, &mut journal)
    };
    let work = Work { samples: &probe, ..work };
    let found =
        mended((&units, can_widen(model, scheme)?), scheme, options, (budget, work), goal, &mut measure, runtime)?;
    Ok(Repaired { spared: others, ..found })
}

/// How many of the samples are spared. Of groups only where there are many: each group shows what ranges lose that are not
/// from it, and few samples say more of a plan together, though they have chosen it, than some of them that have not.
fn spared(samples: &Groups) -> usize {
    let (count, enough) = (samples.data().len(), ENOUGH[usize::from(samples.count() > 1)]);
    if count < enough { 0 } else { (count / 4).max(SPARED) }
}

/// The same with metrics that somebody else measures on the samples of `work`.
pub(in crate::search) fn mend(
    model: &Model,
    scheme: &Scheme,
    options: &Options,
    work: Work,
    goal: Goal,
    measure: &mut Measure,
    runtime: &Runtime,
) -> Result<Repaired, SearchError> {
    let units = Units::of(model, scheme, work.samples.data(), runtime)?;
    let budget = Budget::of(&units, options, work)?;
    mended((&units, can_widen(model, scheme)?), scheme, options, (budget, work), goal, measure, runtime)
}

/// Whether the target has kernels for activations of 16 bits, and the model an operator set with such quantizers or one
/// that can be raised.
fn can_widen(model: &Model, scheme: &Scheme) -> Result<bool, SearchError> {
    if scheme.target.wide_activations != WideActivations::Kernels || scheme.is_wide() {
        return Ok(false);
    }
    let records = pipelines::raise_opset(InsertQdq::WIDE_OPSET).run(&mut model.clone())?;
    Ok(records.iter().all(|record| record.outcome.declined.is_empty()))
}

fn mended(
    (units, may_widen): (&Units, bool),
    scheme: &Scheme,
    options: &Options,
    (budget, work): (Budget, Work),
    goal: Goal,
    measure: &mut Measure,
    runtime: &Runtime,
) -> Result<Repaired, SearchError> {
    let samples = work.samples.data().len();
    let cost = budget.of_trial(samples);
    runtime.begin("repair", (budget.seconds / cost) as u64);
    let trials = Trials::new(measure, cost, budget.seconds);
    let observer = options.calibrate.observer;
    let mut guard = Guard::new(scheme.plan.clone(), observer, units, trials, samples, (goal, may_widen), runtime)?;
    guard.repair()?;
    runtime.end();
    Ok(guard.finish())
}

/// Seconds of work.
#[derive(Clone, Copy, Debug)]
struct Budget {
    /// What repairs may take.
    seconds: f64,
    /// What the networks of a trial take that are built for it.
    networks: f64,
    /// What a sample takes.
    sample: f64,
    /// How many samples to measure on, where there are as many.
    samples: usize,
}

impl Budget {
    fn of(units: &Units, options: &Options, work: Work) -> Result<Self, SearchError> {
        let alone = units.work as f64 / MACS_PER_SECOND;
        let calibration = alone * work.calibrated as f64;
        // A network is prepared anew for each shape of its inputs.
        let (count, networks) = (work.samples.data().len(), work.samples.count());
        let shapes = work.samples.shapes()?.saturating_sub(networks);
        let sample = alone + OVERHEAD * shapes as f64 / count.max(1) as f64;
        let networks = OVERHEAD * networks as f64;
        let asked = options.repair.repair_time;
        let usual = (2.0 * calibration).clamp(SECONDS[0], SECONDS[1]);
        let room = |seconds: f64, trials: f64| ((seconds / trials - networks).max(0.0) / sample.max(1e-9)) as usize;
        let (enough, few) = TELLING;
        let telling = room(asked.unwrap_or(SECONDS[1]), few).min(enough);
        let samples = room(asked.unwrap_or(usual), TRIALS).max(telling).clamp(SAMPLES[0], SAMPLES[1]);
        let budget = Self { seconds: usual, networks, sample, samples };
        let seconds = asked.unwrap_or_else(|| usual.max(few * budget.of_trial(samples)).min(SECONDS[1]));
        Ok(Self { seconds, ..budget })
    }

    fn of_trial(self, samples: usize) -> f64 {
        self.networks + samples as f64 * self.sample
    }
}

/// Repairs under way.
struct Guard<'a, 'm> {
    base: BitPlan,
    /// How ranges were chosen.
    observer: ObserverKind,
    units: &'a Units,
    trials: Trials<'a, 'm>,
    samples: usize,
    goal: Goal,
    /// Whether layers may read 16 bits.
    may_widen: bool,
    before: Metrics,
    best: Choice,
    metrics: Metrics,
    /// Of all that was measured.
    measured: Vec<Metrics>,
    runtime: &'a Runtime<'a>,
}

impl<'a, 'm> Guard<'a, 'm> {
    fn new(
        base: BitPlan,
        observer: ObserverKind,
        units: &'a Units,
        mut trials: Trials<'a, 'm>,
        samples: usize,
        (goal, may_widen): (Goal, bool),
        runtime: &'a Runtime<'a>,
    ) -> Result<Self, SearchError> {
        let before = trials.metrics("as it is", &base)?.unwrap_or_default();
        let best = Choice::default();
        let (metrics, measured) = (before.clone(), vec![before.clone()]);
        Ok(Self { base, observer, units, trials, samples, goal, may_widen, before, best, metrics, measured, runtime })
    }

    fn repair(&mut self) -> Result<(), SearchError> {
        if self.is_met(&self.metrics) {
            return Ok(());
        }
        self.widen_stored()?;
        self.relieve_stored()?;
        if self.is_met(&self.metrics) {
            return Ok(());
        }
        if let Some((all, without)) = self.with_lossy_weights()?
            && self.free_weights(&all, &without)?.is_none()
        {
            return Ok(());
        }
        if self.observer == ObserverKind::default() && !self.units.values.is_empty() {
            self.choose_ranges()?;
        }
        if !self.is_met_again(&self.metrics) && !self.widen()? {
            self.leave_float()?;
        }
        if loss(&self.metrics) > loss(&self.before) {
            // The budget ended on the way.
            self.keep(Choice::default(), self.before.clone());
        }
        Ok(())
    }

    /// Metrics of a choice, if the budget has room for it.
    fn metrics_of(&mut self, what: &str, choice: &Choice) -> Result<Option<Metrics>, SearchError> {
        let plan = choice.plan(&self.base, self.units);
        let found = self.trials.metrics(what, &plan)?;
        self.runtime.step(1)?;
        self.measured.extend(found.clone());
        Ok(found)
    }

    /// Takes a choice over.
    fn keep(&mut self, choice: Choice, metrics: Metrics) {
        (self.best, self.metrics) = (choice, metrics);
    }

    fn note(&mut self, what: String, metrics: &Metrics, kept: bool) {
        self.trials.note(what, metrics, kept);
    }

    fn is_met(&self, metrics: &Metrics) -> bool {
        let Goal { allowed, strict } = self.goal;
        if strict || metrics.metric.is_some() {
            return metrics.lost <= allowed;
        }
        match metrics.accuracy {
            None => !metrics.outputs.iter().any(|output| is_worse(output, self.samples, allowed)),
            Some(_) => !exceeds(metrics.lost, Some(self.samples as u64), allowed),
        }
    }

    /// The same for a choice out of many. What an output loses is taken as the mean of the share of answers that differ
    /// and of what its distance lets expect, as if there had been twice as many answers: in all that was measured, answers
    /// lost per distance.
    fn is_met_again(&self, metrics: &Metrics) -> bool {
        let is_counted = metrics.metric.is_none() && metrics.accuracy.is_none() && !self.goal.strict;
        let is_lucky = |at: usize, output: &OutputMetrics| {
            let Some(answers) = answers(output, self.samples).filter(|_| is_counted) else { return false };
            let of = |metrics: &Metrics| metrics.outputs.get(at).map(|output| [output.lost, output.distance]);
            let sums = self.measured.iter().filter_map(of).fold([0.0, 0.0], |a, b| [a[0] + b[0], a[1] + b[1]]);
            let expected = sums[0] / sums[1].max(f64::MIN_POSITIVE) * output.distance;
            exceeds(f64::midpoint(output.lost, expected), Some(2 * answers), self.goal.allowed)
        };
        self.is_met(metrics) && !metrics.outputs.iter().enumerate().any(|(at, output)| is_lucky(at, output))
    }

    /// Share of the network's work that a choice does in float, or with 16 bits.
    fn work(&self, choice: &Choice) -> f64 {
        let of = |units: &[Unit], chosen: &BTreeSet<usize>| chosen.iter().map(|&at| units[at].work).sum::<u64>();
        let work = of(&self.units.layers, &choice.layers) + of(&self.units.operators, &choice.operators);
        work as f64 / self.units.work.max(1) as f64
    }

    fn finish(self) -> Repaired {
        let names = |units: &[Unit], chosen: &BTreeSet<usize>| -> Vec<String> {
            chosen.iter().map(|&at| units[at].name.clone()).collect()
        };
        let stored = |chosen: &BTreeSet<usize>| -> Vec<String> {
            chosen.iter().map(|&at| self.units.stored[at].name.clone()).collect()
        };
        let ranges = match self.best.observer {
            Some(_) => self.units.values.len(),
            None => self.best.ranges.len(),
        };
        let layers = names(&self.units.layers, &self.best.layers);
        let report = Repair {
            allowed: self.goal.allowed,
            samples: self.samples,
            before: self.before.clone(),
            reached: self.is_met(&self.metrics),
            after: self.metrics.clone(),
            ranges,
            wide_layers: if self.best.wide { layers.clone() } else { Vec::new() },
            float_layers: if self.best.wide { Vec::new() } else { layers },
            float_weights: [names(&self.units.layers, &self.best.weights), stored(&self.best.floats)].concat(),
            eight_bit_weights: [names(&self.units.layers, &self.best.eight), stored(&self.best.stored)].concat(),
            float_recurrent: self.best.recurrent.iter().map(|&at| self.units.recurrent[at].name.clone()).collect(),
            float_operators: names(&self.units.operators, &self.best.operators),
            float_work: if self.best.wide { 0.0 } else { self.work(&self.best) },
            cut_short: self.trials.cut_short,
            trials: self.trials.made,
        };
        Repaired { plan: self.best.plan(&self.base, self.units), report, spared: Vec::new() }
    }
}

/// Whether an output loses more than allowed.
pub(crate) fn is_worse(output: &OutputMetrics, samples: usize, allowed: f64) -> bool {
    exceeds(output.lost, answers(output, samples), allowed)
}

/// Whether an output loses so much, of values or of answers.
pub(crate) fn loses(outputs: &[OutputMetrics], [values, answers]: [f64; 2]) -> bool {
    let is_lost = |output: &OutputMetrics| match output.kind {
        OutputKind::Values | OutputKind::Embedding => output.lost >= values,
        OutputKind::Scores | OutputKind::Boxes | OutputKind::Sequence => output.lost >= answers,
    };
    outputs.iter().any(|output| is_lost(output) || !output.lost.is_finite())
}

/// How many answers an output holds, of which a share is lost; `None` where it holds no answers.
fn answers(output: &OutputMetrics, samples: usize) -> Option<u64> {
    match output.kind {
        OutputKind::Values | OutputKind::Embedding => None,
        OutputKind::Boxes => output.figures.boxes,
        OutputKind::Scores => output.figures.rows,
        // The rows of a sequence are one answer.
        OutputKind::Sequence => Some(samples as u64),
    }
}

/// Whether a loss is larger than allowed. A share of so many answers counts as larger only by more than its standard error:
/// of few answers one that differs is no evidence.
fn exceeds(lost: f64, answers: Option<u64>, allowed: f64) -> bool {
    let share = lost.clamp(0.0, 1.0);
    let error = answers.map_or(0.0, |answers| (share * (1.0 - share) / answers.max(1) as f64).sqrt());
    lost - error > allowed || !lost.is_finite()
}

/// What is made small: of values what the worst channel loses, of answers how far they have moved.
fn loss(metrics: &Metrics) -> f64 {
    let of = |output: &OutputMetrics| match output.kind {
        OutputKind::Values => output.lost,
        _ => output.distance,
    };
    metrics.outputs.iter().map(of).sum()
}
