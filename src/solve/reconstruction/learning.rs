//! Learning, block after block.

use super::cuts::cuts;
use super::network::{Network, Place, in_front_of_quantizers};
use super::parameters::{LearnedLayer, Parameters};
use super::part::{Between, Part};
use super::relaxed::Relaxed;
use crate::calibrate::observe::Observed;
use crate::data::random::Random;
use crate::data::{Array, Dataset, Sample};
use crate::execute::ExecuteError;
use crate::execute::fold::Pool;
use crate::execute::segment::{Ran, Segment, inputs, outputs};
use crate::runtime::{ErrorKind, MACS_PER_SECOND, Runtime};
use crate::scheme::Scheme;
use crate::solve::block::Learning;
use crate::solve::network::Solved;
use crate::solve::{SolveError, Solver};
use msq_passes::analysis::Layer;
use msq_passes::ir::{Model, NodeId};
use std::collections::HashSet;

/// Samples in a mini-batch.
const BATCH: usize = 32;
/// One sample in so many is held out.
const HELD_OUT: usize = 8;
/// Fewer samples than this say too little.
const LEAST_SAMPLES: usize = 16;
/// Bytes that the values between two blocks may take, unless the memory allowed says otherwise.
const STORED: u64 = 512 << 20;
/// Values held of each sample: x, x̂ and the targets, and what becomes of x̂.
const COPIES: u64 = 4;
/// Forward, and back by activations and by weights.
const PASSES: f64 = 3.0;
/// Seconds to build and load a block.
const OVERHEAD: f64 = 0.02;
/// The stream of random numbers.
const STREAM: u64 = 0x0062_6c6f_636b;

/// Learns and solves block after block. What comes of it takes the place of what the layers were solved to if it brings the
/// outputs nearer to those of the float network on samples held out.
pub(crate) fn learn(
    model: &Model,
    scheme: &Scheme,
    (observed, solved): (&mut Observed, &mut Solved),
    data: &Dataset,
    (solver, learning): (&dyn Solver, Learning),
    runtime: &Runtime,
) -> Result<(), SolveError> {
    if !scheme.coverage.is_whole() || scheme.placement.layers().next().is_none() {
        tracing::info!(
            "no block learns: no layer reads quantized activations, or the engine runs a part of the network"
        );
        return Ok(());
    }
    let places: HashSet<NodeId> = scheme.layers().map(|layer| layer.node).collect();
    let cuts = cuts(&model.graph, &places).into_iter().map(|value| vec![model.graph.value(value).name().to_owned()]);
    let ends: Vec<Vec<String>> = cuts.chain([outputs(model)]).collect();
    let Some((start, fitted)) = samples(model, &ends, data, runtime)? else { return Ok(()) };
    let mut layers: Vec<&Layer> = scheme.layers().filter(|layer| may_learn(model, scheme, layer)).collect();
    layers.sort_by_key(|layer| solved.get_index_of(&layer.name));
    let steps = steps(model, &layers, ends.len(), learning);
    let before = Network { model: model.clone(), observed: observed.clone(), solved: solved.clone() };
    let mut run = Run {
        float: model,
        scheme,
        solver,
        steps,
        layers,
        fitted,
        network: before.clone(),
        values: Values { float: start.clone(), quantized: start },
        runtime,
    };
    runtime.begin("learn", (ends.len() * steps) as u64);
    let mut read = inputs(model);
    let mut any = false;
    for (at, written) in ends.into_iter().enumerate() {
        match run.block(at, Between { read: &read, written: &written }) {
            Ok(better) => any |= better,
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            // The engine ran the network whole, but not this part of it.
            Err(reason) => {
                tracing::warn!(block = written.join("`, `"), %reason, "no block learns");
                return Ok(());
            }
        }
        read = written;
    }
    runtime.end();
    let after = run.network;
    if any && better(model, [&before.quantized(scheme)?, &after.quantized(scheme)?], data, runtime)? {
        (*observed, *solved) = (after.observed, after.solved);
    }
    Ok(())
}

/// Whether the weight of a layer is its own, on scales that are free.
fn may_learn(model: &Model, scheme: &Scheme, layer: &Layer) -> bool {
    !scheme.is_stored_elsewhere(&layer.name)
        && !scheme.one_scale.contains_key(&layer.name)
        && scheme.given_weight_scales(model, layer).is_none()
}

/// Steps per block within the time allowed.
pub(super) fn steps(model: &Model, layers: &[&Layer], blocks: usize, learning: Learning) -> usize {
    let Some(seconds) = learning.seconds else { return learning.steps };
    let macs: f64 = layers.iter().filter_map(|layer| layer.macs_per_sample(&model.graph)).map(|macs| macs as f64).sum();
    let each = PASSES * BATCH as f64 * macs / MACS_PER_SECOND + OVERHEAD * blocks as f64;
    learning.steps.min((seconds / each) as usize)
}

/// Whether a sample is held out.
fn is_held_out(sample: usize) -> bool {
    sample % HELD_OUT == HELD_OUT - 1
}

/// Samples of the shape of the first, as many as the memory allowed holds between two blocks: those to learn from, then
/// those held out, and how many the former are. Nothing where they are too few.
fn samples(
    model: &Model,
    ends: &[Vec<String>],
    data: &Dataset,
    runtime: &Runtime,
) -> Result<Option<(Vec<Sample>, usize)>, SolveError> {
    if data.len() < LEAST_SAMPLES {
        tracing::info!(samples = data.len(), "no block learns from so few samples");
        return Ok(None);
    }
    let first = data.sample(0).map_err(ExecuteError::from)?;
    let tapped = Segment::tapped(model, &ends.concat())?;
    let size = |ran: Ran| (0..ran.len()).map(|at| ran.shape(at).iter().product::<usize>()).max().unwrap_or(0);
    let most = Pool::new(&tapped, runtime).once(&first, size)?.max(first.arrays.iter().map(Array::len).sum());
    let room = runtime.memory.map_or(STORED, |memory| memory / 4) / (4 * COPIES * most.max(1) as u64);
    let wanted = usize::try_from(room).unwrap_or(usize::MAX).min(data.len());
    let shapes = |sample: &Sample| sample.arrays.iter().map(|array| array.shape().to_vec()).collect::<Vec<_>>();
    let parts: (Vec<usize>, Vec<usize>) = (0..data.len()).partition(|&sample| !is_held_out(sample));
    let (mut taken, mut fitted) = (Vec::with_capacity(wanted), 0);
    for part in [parts.0, parts.1] {
        fitted = taken.len();
        let count = part.len() * wanted / data.len();
        for at in 0..count {
            let sample = data.sample(part[at * part.len() / count]).map_err(ExecuteError::from)?;
            if shapes(&sample) == shapes(&first) {
                taken.push(sample);
            }
        }
    }
    let enough = taken.len() >= LEAST_SAMPLES && fitted > 0 && fitted < taken.len();
    if !enough {
        tracing::info!(samples = taken.len(), "no block learns: too few samples of one shape fit the memory");
    }
    Ok(enough.then_some((taken, fitted)))
}

/// What every sample is at the present cut.
struct Values {
    float: Vec<Sample>,
    quantized: Vec<Sample>,
}

/// A walk through the blocks.
struct Run<'a> {
    float: &'a Model,
    scheme: &'a Scheme,
    solver: &'a dyn Solver,
    steps: usize,
    /// Those that may learn, in graph order.
    layers: Vec<&'a Layer>,
    /// How many samples are learned from; the others, behind them, are held out.
    fitted: usize,
    /// The network as it is so far.
    network: Network,
    values: Values,
    runtime: &'a Runtime<'a>,
}

impl Run<'_> {
    /// Learns and solves a block, and goes on behind it. Says whether it is better than before.
    fn block(&mut self, at: usize, between: Between) -> Result<bool, SolveError> {
        let targets = run(self.float, between, &self.values.float, self.runtime)?;
        let block = || between.written.join("`, `");
        let mut better = false;
        match self.solved(at, between, &targets) {
            Ok(Ok((network, [before, after]))) => {
                tracing::info!(block = block(), before, after, "error of a block on held-out samples");
                better = after < before;
                if better {
                    self.network = network;
                }
            }
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Ok(Err(reason)) => tracing::info!(block = block(), reason, "block does not learn"),
            // The engine ran the network whole, but not this part of it or its gradient.
            Err(reason) => tracing::warn!(block = block(), %reason, "block does not learn"),
        }
        let quantized = run(&self.network.quantized(self.scheme)?, between, &self.values.quantized, self.runtime)?;
        self.values = Values { quantized, float: targets };
        Ok(better)
    }

    /// The network with a block that has learned and is solved, and the block's error on held-out samples before and
    /// after; or why it does not learn.
    fn solved(
        &self,
        at: usize,
        between: Between,
        targets: &[Sample],
    ) -> Result<Result<(Network, [f64; 2]), String>, SolveError> {
        let start = std::time::Instant::now();
        let parameters = match self.learned(at, between, targets)? {
            Ok(parameters) => parameters,
            Err(reason) => return Ok(Err(reason)),
        };
        let learning = start.elapsed().as_secs_f64();
        let mut network = self.network.clone();
        network.take(&parameters);
        let inside = |layer: &&&Layer| {
            let name = self.float.graph.value(layer.output).name();
            parameters.layers.iter().any(|learned| learned.output == name)
        };
        let layers: Vec<&Layer> = self.layers.iter().filter(inside).copied().collect();
        let place = Place { scheme: self.scheme, solver: self.solver, read: between.read, runtime: self.runtime };
        network.solve(&layers, place, &self.values.quantized[..self.fitted])?;
        tracing::debug!(learning, solving = start.elapsed().as_secs_f64() - learning, "seconds");
        let checked = |network: &Network| -> Result<f64, SolveError> {
            let samples = &self.values.quantized[self.fitted..];
            let found = run(&network.quantized(self.scheme)?, between, samples, self.runtime)?;
            Ok(distance(&targets[self.fitted..], &found))
        };
        Ok(Ok((network.clone(), [checked(&self.network)?, checked(&network)?])))
    }

    /// What a block learns, or why it does not.
    fn learned(
        &self,
        at: usize,
        between: Between,
        targets: &[Sample],
    ) -> Result<Result<Parameters, String>, SolveError> {
        let [Some(first), Some(target)] = [self.values.quantized.first(), targets.first()] else {
            return Ok(Err("there are no samples".to_owned()));
        };
        if !Part::takes(target) {
            return Ok(Err("what it writes is not all floats".to_owned()));
        }
        let Relaxed { model, quantizers } = Relaxed::new(&self.network.model, self.scheme, &self.network.observed)?;
        let part = Part::new(&model, &quantizers, between, [first, target], &mean_squares(targets), self.runtime)?;
        let mut layers = Vec::new();
        for layer in &self.layers {
            let inside = part.has(model.graph.value(layer.output).name());
            layers.extend(if inside { LearnedLayer::new(&model, layer)? } else { None });
        }
        let mut parameters = match part.with_gradients(Parameters::new(layers, part.quantizers())) {
            Ok(parameters) => parameters,
            Err(reason) => return Ok(Err(reason)),
        };
        let mut random = Random::new(self.scheme.seed, STREAM, at as u64);
        for step in 0..self.steps {
            let count = BATCH.min(self.fitted);
            let batch: Vec<usize> = (0..count).map(|_| random.below(self.fitted as u64) as usize).collect();
            let mut sample = |at: usize| {
                joined(mixed(&self.values.float[at], &self.values.quantized[at], &mut random), &targets[at])
            };
            let gradients = part.gradients(&parameters, batch.into_iter().map(&mut sample).collect(), self.runtime)?;
            let progress = step as f32 / self.steps as f32;
            parameters.step(&gradients, 0.5 * (1.0 + (std::f32::consts::PI * progress).cos()));
            self.runtime.step(1)?;
        }
        Ok(Ok(parameters))
    }
}

/// What a network writes for samples at one cut, at the next.
fn run(model: &Model, between: Between, samples: &[Sample], runtime: &Runtime) -> Result<Vec<Sample>, SolveError> {
    let first = samples.first().ok_or(ExecuteError::NoSamples)?;
    let segment = Segment::between(model, &in_front_of_quantizers(model, between.read), first, between.written)?;
    let mut written = Vec::with_capacity(samples.len());
    let visit = |kept: &mut Vec<Sample>, _: usize, ran: Ran| -> Result<(), SolveError> {
        kept.push(ran.sample(ran.len()).map_err(ExecuteError::from)?);
        Ok(())
    };
    let merge = |part: Vec<Sample>| {
        written.extend(part);
        Ok::<(), SolveError>(())
    };
    let data = Dataset::stored(samples.to_vec());
    Pool::new(&segment, runtime).fold(&data, &runtime.silent(), Vec::new, visit, merge)?;
    Ok(written)
}

/// A sample with its targets.
fn joined(mut sample: Sample, targets: &Sample) -> Sample {
    sample.arrays.extend(targets.arrays.iter().cloned());
    sample
}

/// Each element of a sample as the float or as the quantized network has it, with probability ½ (`QDrop`).
fn mixed(float: &Sample, quantized: &Sample, random: &mut Random) -> Sample {
    let mut mix = |(x, y): (&Array, &Array)| {
        let values = x.to_f32().into_iter().zip(y.to_f32());
        if x == y || x.dtype() != msq_passes::ir::DataType::Float || x.shape() != y.shape() {
            return y.clone();
        }
        let values = values.map(|(x, y)| if random.unit() < 0.5 { x } else { y }).collect();
        Array::from_f32(y.shape().to_vec(), values).unwrap_or_else(|_| y.clone())
    };
    Sample { arrays: float.arrays.iter().zip(&quantized.arrays).map(&mut mix).collect() }
}

/// The mean square of the elements of each array.
fn mean_squares(samples: &[Sample]) -> Vec<f64> {
    let count = samples.first().map_or(0, |sample| sample.arrays.len());
    let of = |at: usize| {
        let (mut sum, mut elements) = (0.0, 0);
        for sample in samples {
            let values = sample.arrays[at].to_f32();
            sum += values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>();
            elements += values.len();
        }
        sum / elements.max(1) as f64
    };
    (0..count).map(of).collect()
}

/// Whether the outputs of the second of two networks are nearer to those of the float one, on samples that no block has
/// learned from.
pub(super) fn better(
    float: &Model,
    networks: [&Model; 2],
    data: &Dataset,
    runtime: &Runtime,
) -> Result<bool, SolveError> {
    let mut samples = Vec::new();
    for at in (0..data.len()).filter(|&at| is_held_out(at)) {
        samples.push(data.sample(at).map_err(ExecuteError::from)?);
    }
    let (read, written) = (inputs(float), outputs(float));
    let between = Between { read: &read, written: &written };
    let wanted = run(float, between, &samples, runtime)?;
    let mut errors = [0.0; 2];
    for (network, error) in networks.into_iter().zip(&mut errors) {
        let found = run(network, between, &samples, runtime)?;
        *error = distance(&wanted, &found);
    }
    let [before, after] = errors;
    tracing::info!(before, after, "error of the outputs on held-out samples without and with learning");
    Ok(after < before)
}

/// Σ over outputs of the squared error relative to the mean square.
fn distance(wanted: &[Sample], found: &[Sample]) -> f64 {
    let signals = mean_squares(wanted);
    let mut total = 0.0;
    for (wanted, found) in wanted.iter().zip(found) {
        for ((wanted, found), signal) in wanted.arrays.iter().zip(&found.arrays).zip(&signals) {
            let squares = wanted.to_f32().into_iter().zip(found.to_f32()).map(|(x, y)| f64::from(x - y).powi(2));
            total += squares.sum::<f64>() / (signal * wanted.len().max(1) as f64).max(f64::MIN_POSITIVE);
        }
    }
    total / wanted.len().max(1) as f64
}
