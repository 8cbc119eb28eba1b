//! Learning, block after block.

use super::cuts::cuts;
use super::loss::{Loss, predictions};
use super::measure::{distance, run};
use super::network::{Network, Place};
use super::parameters::{LearnedLayer, Parameters};
use super::part::{Backward, Between, Part};
use super::reference::distances;
use super::relaxed::Relaxed;
use super::samples::{joined, mixed, samples};
use super::shares::{Shares, Traffic};
use super::teacher::{Teacher, signals};
use crate::calibrate::observe::Observed;
use crate::data::random::Random;
use crate::data::{Dataset, Sample};
use crate::execute::segment::{inputs, outputs};
use crate::measure::outputs::Outputs;
use crate::report::LearningReport;
use crate::runtime::{MACS_PER_SECOND, Runtime};
use crate::scheme::Scheme;
use crate::solve::block::{Learning, Reach};
use crate::solve::network::{Solved, rebias_layer};
use crate::solve::{SolveError, Solver};
use msq_passes::analysis::Layer;
use msq_passes::ir::{Model, NodeId};
use std::collections::HashSet;
use std::ops::Range;

/// Samples in a mini-batch.
const BATCH: usize = 32;
/// Forward, and back by activations and by weights.
const PASSES: f64 = 3.0;
/// Seconds to load the gradient of a block.
const OVERHEAD: f64 = 0.02;
/// The share of the full rates at which the rest of a network goes on learning once its first block is rounded.
const LATER: f32 = 0.3;
/// The stream of random numbers.
const STREAM: u64 = 0x0062_6c6f_636b;

/// Learns and solves block after block. What comes of it takes the place of what the layers were solved to if it brings the
/// outputs nearer to those of the float network on samples held out. What the outputs hold says how predictions are compared.
/// Says what was done, unless nothing can learn.
pub(crate) fn learn(
    (model, outputs_of_model): (&Model, &Outputs),
    scheme: &Scheme,
    (observed, solved): (&mut Observed, &mut Solved),
    data: &Dataset,
    (solver, learning): (&dyn Solver, Learning),
    runtime: &Runtime,
) -> Result<Option<LearningReport>, SolveError> {
    if !scheme.coverage.is_whole() || scheme.placement.layers().next().is_none() {
        tracing::info!(
            "nothing learns: no layer reads quantized activations, or the engine runs a part of the network"
        );
        return Ok(None);
    }
    let places: HashSet<NodeId> = scheme.layers().map(|layer| layer.node).collect();
    let cuts = cuts(&model.graph, &places).into_iter().map(|value| vec![model.graph.value(value).name().to_owned()]);
    let ends: Vec<Vec<String>> = cuts.chain([outputs(model)]).collect();
    let Some((start, fitted)) = samples(model, &ends, data, runtime)? else { return Ok(None) };
    let mut layers: Vec<&Layer> = scheme.layers().filter(|layer| may_learn(model, scheme, layer)).collect();
    layers.sort_by_key(|layer| solved.get_index_of(&layer.name));
    let steps = steps(model, &layers, ends.len(), learning);
    let before = Network { model: model.clone(), observed: observed.clone(), solved: solved.clone() };
    let signals = signals(model, &ends, &start, runtime)?;
    let judged = match learning.reach {
        Reach::Block | Reach::Network => None,
        Reach::Prediction => Some(Predictions {
            losses: predictions(model, outputs_of_model, &start, signals.last().map_or(&[], Vec::as_slice), runtime)?,
            names: outputs(model),
            held_out: run(
                model,
                Between { read: &inputs(model), written: &outputs(model) },
                &start[fitted..],
                runtime,
            )?,
        }),
    };
    let mut run = Run {
        float: model,
        scheme,
        solver,
        learning: Learning { steps, ..learning },
        layers,
        ends,
        signals,
        judged,
        fitted,
        network: before.clone(),
        learned: None,
        traffic: Traffic::default(),
        values: Values { float: start.clone(), quantized: start },
        runtime,
    };
    runtime.begin("learn", (0..run.ends.len()).map(|at| run.steps(at) as u64).sum());
    let mut read = inputs(model);
    let mut any = false;
    for at in 0..run.ends.len() {
        match run.block(at, &read) {
            Ok(better) => any |= better,
            Err(error) if error.ends_run() => return Err(error),
            // The engine ran the network whole, but not this part of it.
            Err(reason) => {
                tracing::warn!(block = run.ends[at].join("`, `"), %reason, "no block learns");
                return Ok(None);
            }
        }
        read.clone_from(&run.ends[at]);
    }
    runtime.end();
    let mut report = report(scheme, run.traffic);
    let mut after = run.network;
    after.rebias(model, scheme, &before)?;
    if any {
        let networks = [&before.quantized(scheme)?, &after.quantized(scheme)?];
        let [without, with] = distances((model, outputs_of_model), networks, data, runtime)?;
        (report.distance_without, report.distance_with, report.taken) = (Some(without), Some(with), with < without);
    }
    if report.taken {
        (*observed, *solved) = (after.observed, after.solved);
    }
    Ok(Some(report))
}

/// What was exchanged while blocks learned, before it is known what came of it.
fn report(scheme: &Scheme, traffic: Traffic) -> LearningReport {
    let (processes, gradient_code) = (scheme.solve.solver_processes, scheme.solve.gradient_code);
    let Traffic { steps, bytes, float_bytes } = traffic;
    tracing::info!(processes, code = %gradient_code, steps, bytes, float_bytes, "gradients that were exchanged");
    LearningReport {
        processes,
        gradient_code,
        steps,
        exchanged_bytes: bytes,
        float_bytes,
        distance_without: None,
        distance_with: None,
        taken: false,
    }
}

/// Whether the weight of a layer is its own, on scales that are free.
fn may_learn(model: &Model, scheme: &Scheme, layer: &Layer) -> bool {
    !scheme.is_stored_elsewhere(&layer.name)
        && !scheme.one_scale.contains_key(&layer.name)
        && scheme.given_weight_scales(model, layer).is_none()
}

/// Steps within the time allowed: per block, or of the whole network before its first block is rounded.
pub(super) fn steps(model: &Model, layers: &[&Layer], blocks: usize, learning: Learning) -> usize {
    let Some(seconds) = learning.seconds else { return learning.steps };
    let macs: f64 = layers.iter().filter_map(|layer| layer.macs_per_sample(&model.graph)).map(|macs| macs as f64).sum();
    let pass = BATCH as f64 * macs / MACS_PER_SECOND;
    let each = match learning.reach {
        Reach::Block => PASSES * pass + OVERHEAD * blocks as f64,
        // Half of the network for each block, forward in float and with its block quantized, and back.
        Reach::Prediction => PASSES * pass * (0.5 * blocks as f64 + 1.0) + OVERHEAD * blocks as f64,
        // The float network runs along, and half of the network as often again while blocks are rounded.
        Reach::Network => 1.5 * ((PASSES + 1.0) * pass + OVERHEAD * blocks as f64),
    };
    learning.steps.min((seconds / each) as usize)
}

/// What every sample is at the present cut.
struct Values {
    float: Vec<Sample>,
    quantized: Vec<Sample>,
}

/// The outputs of the network, where blocks learn by them too.
struct Predictions {
    losses: Vec<Loss>,
    names: Vec<String>,
    /// What the float network makes of the samples held out.
    held_out: Vec<Sample>,
}

/// A walk through the blocks.
struct Run<'a> {
    float: &'a Model,
    scheme: &'a Scheme,
    solver: &'a dyn Solver,
    learning: Learning,
    /// The layers that may learn, in graph order.
    layers: Vec<&'a Layer>,
    /// Names of the values at the ends of blocks.
    ends: Vec<Vec<String>>,
    /// The mean square of each of them in the float network.
    signals: Vec<Vec<f64>>,
    judged: Option<Predictions>,
    /// How many samples are learned from; the others, behind them, are held out.
    fitted: usize,
    /// The network as it is so far.
    network: Network,
    /// What the rest of the network has learned, where it learns as a whole.
    learned: Option<Parameters>,
    /// What was exchanged so far.
    traffic: Traffic,
    values: Values,
    runtime: &'a Runtime<'a>,
}

impl<'a> Run<'a> {
    /// Learns and solves a block, and goes on behind it. Says whether it was taken.
    fn block(&mut self, at: usize, read: &[String]) -> Result<bool, SolveError> {
        let written = self.ends[at].clone();
        let between = Between { read, written: &written };
        let targets = run(self.float, between, &self.values.float, self.runtime)?;
        let block = || between.written.join("`, `");
        let mut taken = false;
        match self.solved(at, between, &targets) {
            Ok(Ok((network, [before, after]))) => {
                tracing::info!(block = block(), before, after, "error of a block on held-out samples");
                taken = after < before || self.learning.reach == Reach::Network;
                if taken {
                    self.network = network;
                }
            }
            Err(error) if error.ends_run() => return Err(error),
            Ok(Err(reason)) => tracing::info!(block = block(), reason, "block does not learn"),
            // The engine ran the network whole, but not this part of it or its gradient.
            Err(reason) => tracing::warn!(block = block(), %reason, "block does not learn"),
        }
        let quantized = run(&self.network.quantized(self.scheme)?, between, &self.values.quantized, self.runtime)?;
        self.values = Values { quantized, float: targets };
        Ok(taken)
    }

    /// The network with a block that has learned and is solved, and the error on held-out samples before and after, of the
    /// block, and, where it learns by them, of the outputs with all behind it in float; or why it does not learn.
    fn solved(
        &mut self,
        at: usize,
        between: Between,
        targets: &[Sample],
    ) -> Result<Result<(Network, [f64; 2]), String>, SolveError> {
        let start = std::time::Instant::now();
        let learned = match self.learning.reach {
            Reach::Block | Reach::Prediction => self.learned(at, at..at + 1, between.read)?,
            Reach::Network => self.learned(at, at..self.ends.len(), between.read)?,
        };
        let parameters = match learned {
            Ok(parameters) => parameters,
            Err(reason) => return Ok(Err(reason)),
        };
        let learning = start.elapsed().as_secs_f64();
        let mut network = self.network.clone();
        network.take(&parameters);
        let learns = |name: &str| parameters.layers.iter().any(|learned| learned.output == name);
        let mut layers = self.inside(between)?;
        layers.retain(|layer| learns(self.float.graph.value(layer.output).name()));
        let place = Place { scheme: self.scheme, solver: self.solver, read: between.read, runtime: self.runtime };
        network.solve(&layers, place, &self.values.quantized[..self.fitted])?;
        tracing::debug!(learning, solving = start.elapsed().as_secs_f64() - learning, "seconds");
        let checked = |network: &Network| -> Result<f64, SolveError> {
            let samples = &self.values.quantized[self.fitted..];
            let found = run(&network.quantized(self.scheme)?, between, samples, self.runtime)?;
            let own = distance(&targets[self.fitted..], &found);
            let Some(outputs) = self.judged.as_ref().filter(|_| at + 1 < self.ends.len()) else { return Ok(own) };
            // Layers behind the block were solved for what it was before: they would hide what it gains.
            let behind = Between { read: between.written, written: &outputs.names };
            Ok(own + distance(&outputs.held_out, &run(self.float, behind, &found, self.runtime)?))
        };
        let errors = [checked(&self.network)?, checked(&network)?];
        self.learned = Some(parameters).filter(|_| self.learning.reach == Reach::Network);
        Ok(Ok((network, errors)))
    }

    /// The layers of a block that may learn.
    fn inside(&self, between: Between) -> Result<Vec<&'a Layer>, SolveError> {
        let inside = self.network.layers_between(between, &self.values.quantized)?;
        let written = |layer: &&&Layer| inside.contains(self.float.graph.value(layer.output).name());
        Ok(self.layers.iter().filter(written).copied().collect())
    }

    /// Steps before a block is rounded.
    fn steps(&self, at: usize) -> usize {
        match self.learning.reach {
            Reach::Network if at > 0 => self.learning.steps / self.ends.len(),
            _ => self.learning.steps,
        }
    }

    /// The share of the full rates at which they begin.
    fn share(&self, at: usize) -> f32 {
        if at > 0 && self.learning.reach == Reach::Network { LATER } else { 1.0 }
    }

    /// The values by which some blocks learn, with how each is compared: those at their ends, the last of which count as
    /// much as all others, and the outputs where predictions count.
    fn compared(&self, blocks: Range<usize>) -> (Vec<String>, Vec<Loss>) {
        let last = blocks.end == self.ends.len();
        if let Some(outputs) = self.judged.as_ref().filter(|_| last) {
            return (outputs.names.clone(), outputs.losses.clone());
        }
        let others = (blocks.len() - 1).max(1) as f64;
        let of_end = |end: usize| {
            let share = if end + 1 == blocks.end { 1.0 } else { 1.0 / others };
            self.signals[end].iter().map(move |&signal| Loss::relative(share, signal))
        };
        let mut losses: Vec<Loss> = blocks.clone().flat_map(of_end).collect();
        let mut names = self.ends[blocks].concat();
        if let Some(outputs) = &self.judged {
            names.extend(outputs.names.iter().cloned());
            losses.extend(&outputs.losses);
        }
        (names, losses)
    }

    /// The network as it is so far with its activations quantized: all, or those that nodes read which write something of
    /// the names given.
    fn relaxed(&self, inside: Option<&HashSet<String>>) -> Result<Relaxed, SolveError> {
        let Network { model, observed, .. } = &self.network;
        let graph = &model.graph;
        let writes = |node| {
            let mut written = graph.node(node).outputs().iter().flatten();
            inside.is_none_or(|names| written.any(|&value| names.contains(graph.value(value).name())))
        };
        Relaxed::of(model, self.scheme, observed, writes)
    }

    /// What some blocks learn by the values behind each of them, or why they do not. `at` is the first of them.
    fn learned(
        &mut self,
        at: usize,
        blocks: Range<usize>,
        read: &[String],
    ) -> Result<Result<Parameters, String>, SolveError> {
        // What learns by predictions is one block: whatever is behind it is in float.
        let inside = match (&self.judged, self.ends[blocks.clone()].last()) {
            (Some(_), Some(written)) => {
                Some(self.network.layers_between(Between { read, written }, &self.values.quantized)?)
            }
            _ => None,
        };
        let (written, compared) = self.compared(blocks);
        let between = Between { read, written: &written };
        let [Some(float), Some(first)] = [self.values.float.first(), self.values.quantized.first()] else {
            return Ok(Err("there are no samples".to_owned()));
        };
        let teacher = Teacher::new(self.float, between, float)?;
        let target = teacher.once(float, self.runtime)?;
        if !Part::takes(&target) {
            return Ok(Err("what it writes is not all floats".to_owned()));
        }
        let Relaxed { model, quantizers } = self.relaxed(inside.as_ref())?;
        let part = Part::new(&model, &quantizers, between, [first, &target], &compared, self.runtime)?;
        let example = joined(first.clone(), &target);
        let parameters = self.parameters(&model, &part, inside.as_ref())?;
        let mut parameters = match part.with_gradients(parameters) {
            Ok(parameters) => parameters,
            Err(reason) => return Ok(Err(reason)),
        };
        let backward = part.backward(&parameters, &example)?;
        self.traffic += self.descend(at, backward, &teacher, &mut parameters)?;
        Ok(Ok(parameters))
    }

    /// What learns in a part: what has learned before, or every layer that may.
    fn parameters(
        &mut self,
        model: &Model,
        part: &Part,
        inside: Option<&HashSet<String>>,
    ) -> Result<Parameters, SolveError> {
        if let Some(parameters) = self.learned.take() {
            return Ok(parameters.within(|value| part.has(value)));
        }
        let mut layers = Vec::new();
        for layer in &self.layers {
            let output = model.graph.value(layer.output).name();
            let learns = part.has(output) && inside.is_none_or(|names| names.contains(output));
            layers.extend(if learns { LearnedLayer::new(model, layer)? } else { None });
        }
        Ok(Parameters::new(layers, part.quantizers()))
    }

    /// Learns on mini-batches, whose targets the float network computes, at a rate that falls to 0 by a cosine.
    fn descend(
        &self,
        at: usize,
        mut backward: Backward,
        teacher: &Teacher,
        parameters: &mut Parameters,
    ) -> Result<Traffic, SolveError> {
        let mut random = Random::new(self.scheme.seed, STREAM, at as u64);
        let (steps, share) = (self.steps(at), self.share(at));
        let mut taught = teacher.pool(self.runtime);
        let mut shares = Shares::new(&self.scheme.solve, parameters, [self.scheme.seed, at as u64], self.runtime)?;
        for step in 0..steps {
            let count = BATCH.min(self.fitted);
            let batch: Vec<usize> = (0..count).map(|_| random.below(self.fitted as u64) as usize).collect();
            let Values { float, quantized } = &self.values;
            let fed: Vec<Sample> = batch.iter().map(|&at| mixed(&float[at], &quantized[at], &mut random)).collect();
            backward.take(parameters);
            let now = &*parameters;
            let gradients = shares.gradients(now, count, |share| {
                let float: Vec<Sample> = batch[share.clone()].iter().map(|&at| float[at].clone()).collect();
                let targets = taught.targets(&float, self.runtime)?;
                let fed = fed[share].iter().zip(&targets).map(|(fed, targets)| joined(fed.clone(), targets));
                backward.gradients(now, fed.collect(), self.runtime)
            })?;
            tracing::trace!(step, loss = gradients.loss / count as f64, "mini-batch");
            let progress = step as f32 / steps as f32;
            let share = share * 0.5 * (1.0 + (std::f32::consts::PI * progress).cos());
            parameters.step(&gradients, share, self.learning.rate);
            self.runtime.step(1)?;
        }
        Ok(shares.traffic)
    }
}

impl Network {
    /// Writes the biases of layers anew that were solved for other quantizers of what they read.
    fn rebias(&mut self, model: &Model, scheme: &Scheme, before: &Self) -> Result<(), SolveError> {
        for layer in scheme.placement.layers() {
            let read =
                |network: &Self| network.observed.read_by(model, &scheme.placement, layer).map(|grid| grid.scale);
            let (Some(then), Some(now), Some(rounded)) = (read(before), read(self), before.solved.get(&layer.name))
            else {
                continue;
            };
            let same = self.solved.get(&layer.name).is_some_and(|solved| solved.layer == rounded.layer);
            if same && then != now {
                let rounded = rebias_layer(model, scheme, &self.observed, layer, (rounded, then))?;
                self.solved.insert(layer.name.clone(), rounded);
            }
        }
        Ok(())
    }
}
