//! Parameters of every activation: taps, calibration, ranges.

use super::collect::{Collected, Tap, Taps, collect};
use super::shard::{Counted, Origin, Shard, ShardStatistics, joined};
use super::{CalibrateError, alike, concat, mse};
use crate::calibrate::{FarOut, ObserverKind, Statistics, widen};
use crate::data::{Array, Dataset};
use crate::execute::fold::Pool;
use crate::execute::masks::Masked;
use crate::execute::segment::{Ran, Segment};
use crate::execute::stages::{Limit, Stages};
use crate::quant::{Affine, GridSpec, Range};
use crate::report::Distribution;
use crate::runtime::Runtime;
use crate::scheme::Scheme;
use indexmap::IndexMap;
use msq_passes::ActivationQuantizer;
use msq_passes::analysis::{Layer, LayerOp, Placement, content_hash};
use msq_passes::ir::{Graph, Model, ValueId};
use rayon::prelude::*;
use std::hash::{Hash, Hasher};

/// Factor that widens ranges of 16 bits: values beyond what was observed lose more than steps that are larger by so much.
const HEADROOM: f32 = 1.5;

/// How ranges are chosen, and what else a calibration run returns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    /// How ranges are chosen.
    pub observer: ObserverKind,
    /// Factor that widens ranges, for synthetic data.
    pub margin: f32,
    /// Number of samples whose outputs are returned.
    pub outputs: usize,
    /// Whether distributions of values are returned.
    pub distributions: bool,
}

/// The result of calibration.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    /// Parameters by value name.
    pub activations: IndexMap<String, ActivationQuantizer>,
    /// Parameters of a layer's input, by layer name, where they differ from those of the value.
    pub requantized: IndexMap<String, ActivationQuantizer>,
    /// Mean of each input channel of a layer, by the name of the layer's input value.
    pub means: IndexMap<String, Vec<f64>>,
    /// Values by name, without a grid, where details are requested.
    pub distributions: IndexMap<String, Distribution>,
}

/// Statistics of calibration, from which parameters for any number of bits can be chosen.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    statistics: IndexMap<String, Statistics>,
    /// As in [`Observed`].
    pub means: IndexMap<String, Vec<f64>>,
    /// The float model's outputs for the first samples.
    pub outputs: Vec<Vec<Vec<f32>>>,
    watch: Watch,
}

impl Observed {
    /// The parameters of a layer's input.
    pub(crate) fn read_by(&self, model: &Model, placement: &Placement, layer: &Layer) -> Option<ActivationQuantizer> {
        let own = || self.activations.get(model.graph.value(placement.root(layer.input)).name());
        self.requantized.get(&layer.name).or_else(own).copied()
    }
}

/// Runs the data through the model.
pub(crate) fn see(
    model: &Model,
    scheme: &Scheme,
    data: &Dataset,
    watch: Watch,
    runtime: &Runtime,
) -> Result<Seen, CalibrateError> {
    let counted = count(model, scheme, data, 0..data.len(), watch, runtime)?;
    Ok(Seen::new(counted, watch))
}

/// Runs folds of the data through the model: for each, what was seen of all others, without outputs.
pub(crate) fn see_others(
    model: &Model,
    scheme: &Scheme,
    folds: &[Dataset],
    watch: Watch,
    runtime: &Runtime,
) -> Result<Vec<Seen>, CalibrateError> {
    let watch = Watch { outputs: 0, distributions: false, ..watch };
    let count = |data: &Dataset| count(model, scheme, data, 0..data.len(), watch, runtime);
    let counted: Vec<Counted> = folds.iter().map(count).collect::<Result<_, _>>()?;
    let others = |fold: usize| {
        let mut sum = Counted::default();
        counted.iter().enumerate().filter(|(at, _)| *at != fold).for_each(|(_, part)| sum.append(part.clone()));
        Seen::new(sum, watch)
    };
    Ok((0..folds.len()).map(others).collect())
}

/// Runs a part of the data through the model.
pub(crate) fn see_shard(
    model: &Model,
    scheme: &Scheme,
    (data, shard): (&Dataset, Shard),
    watch: Watch,
    runtime: &Runtime,
) -> Result<ShardStatistics, CalibrateError> {
    let samples = shard.samples(data.len());
    let counted = count(model, scheme, data, samples.clone(), watch, runtime)?;
    Ok(ShardStatistics::new(origin(model, scheme, data, watch)?, samples, counted))
}

/// What the parts saw, in the place of running the data.
pub(crate) fn seen_by(
    parts: &[ShardStatistics],
    model: &Model,
    scheme: &Scheme,
    data: &Dataset,
    watch: Watch,
    runtime: &Runtime,
) -> Result<Seen, CalibrateError> {
    // What the engine does not run shows here, as it did where statistics were counted.
    count(model, scheme, data, 0..data.len().min(1), watch, &runtime.silent())?;
    let counted = joined(parts, &origin(model, scheme, data, watch)?, &wanted(model, scheme))?;
    Ok(Seen::new(counted, watch))
}

fn origin(model: &Model, scheme: &Scheme, data: &Dataset, watch: Watch) -> Result<Origin, CalibrateError> {
    let mut hasher = twox_hash::XxHash3_64::new();
    data.sample(0)?.hash(&mut hasher);
    let (samples, outputs, masks) = (data.len(), watch.outputs, scheme.masks.notes());
    Ok(Origin { model: content_hash(&model.graph), data: hasher.finish(), samples, outputs, masks })
}

/// Runs some of the samples through the model.
fn count(
    model: &Model,
    scheme: &Scheme,
    data: &Dataset,
    samples: std::ops::Range<usize>,
    watch: Watch,
    runtime: &Runtime,
) -> Result<Counted, CalibrateError> {
    let mut counted = Counted::default();
    let wanted = wanted(model, scheme);
    if !scheme.coverage.is_whole() && wanted.is_empty() {
        return Ok(counted);
    }
    if data.is_empty() {
        return Err(CalibrateError::NoSamples);
    }
    let part = Segment::whole(&scheme.coverage.part(model));
    let stages = Stages::new(&part, Limit::of(model, runtime.memory))?;
    runtime.begin("calibrate", (stages.len() * samples.len()) as u64);
    scheme.masks.notes().iter().for_each(|note| tracing::info!("{note}"));
    let masked = Masked::new(&scheme.masks, data);
    // Where stages hand on more than there is room for, some samples after the other go through all of them.
    let at_once = if stages.len() > 1 { stages.at_once(data, runtime)? } else { data.len() };
    for first in samples.clone().step_by(at_once) {
        let end = first.saturating_add(at_once).min(samples.end);
        let part = Part { first, total: data.len(), data: data.range(first, end) };
        counted.append(count_part(&stages, &part, wanted.clone(), &masked, watch.outputs, runtime)?);
    }
    runtime.end();
    Ok(counted)
}

/// Samples that go through all stages together.
struct Part {
    /// The number of the first.
    first: usize,
    /// How many samples there are in all.
    total: usize,
    data: Dataset,
}

/// Runs some samples through all stages.
fn count_part(
    stages: &Stages,
    part: &Part,
    mut wanted: Vec<Tap>,
    masked: &Masked,
    outputs: usize,
    runtime: &Runtime,
) -> Result<Counted, CalibrateError> {
    let mut found = Counted::default();
    let mut data = part.data.clone();
    for at in 0..stages.len() {
        let first = data.sample(0)?;
        let stage = stages.stage(at, &first)?;
        let (last, handed) = (at + 1 == stages.len(), stage.names.len());
        let counted: Vec<Tap> = wanted.extract_if(.., |tap| stage.has(&tap.name)).collect();
        let stage = stage.into_owned().and_taps(&counted.iter().map(|tap| tap.name.clone()).collect::<Vec<_>>())?;
        let pool = Pool::new(&stage, runtime);
        if runtime.memory.is_some() && part.first == 0 {
            pool.once(&first, |ran| warn_of_memory(&pool, ran, runtime))?;
        }
        let samples = if last { outputs } else { part.total };
        let taps = Taps { kept: handed, samples, first: part.first, total: part.total, counted };
        let Collected { taps: sums, kept } = collect(&taps, &pool, &data, masked, runtime)?;
        let named = taps.counted.into_iter().zip(sums);
        found.taps.extend(named.map(|(tap, sums)| (tap.name.clone(), (tap, sums))));
        if last {
            let values = kept.iter().map(|sample| sample.arrays.iter().map(Array::to_f32).collect());
            found.outputs = values.collect();
        } else {
            data = Dataset::stored(kept);
        }
    }
    Ok(found)
}

impl Seen {
    pub(super) fn new(counted: Counted, watch: Watch) -> Self {
        let Counted { taps, outputs } = counted;
        let ranges = taps.iter().filter(|(_, (tap, _))| tap.range);
        let statistics = ranges.map(|(name, (_, sums))| (name.clone(), sums.statistics())).collect();
        let means = taps.iter().map(|(name, (_, sums))| (name.clone(), sums.means())).collect();
        Self { statistics, means, outputs, watch }
    }

    /// The parameters of every value that needs its own.
    pub(crate) fn observed(&self, model: &Model, scheme: &Scheme) -> Result<Observed, CalibrateError> {
        let roots: Vec<ValueId> = scheme.placement.roots().collect();
        let one = |value| self.quantizer(model, scheme, value);
        let chosen: Result<Vec<_>, CalibrateError> = roots.into_par_iter().map(one).collect();
        let mut activations = chosen?.into_iter().flatten().collect();
        join(model, scheme, &mut activations);
        let requantizing: Vec<&Layer> =
            scheme.placement.layers().filter(|layer| scheme.requantized_bits(layer).is_some()).collect();
        let one = |layer| self.requantizer(model, scheme, layer);
        let chosen: Result<Vec<_>, CalibrateError> = requantizing.into_par_iter().map(one).collect();
        let requantized = chosen?.into_iter().flatten().collect();
        let distributions = if self.watch.distributions { self.distributions() } else { IndexMap::new() };
        Ok(Observed { activations, requantized, means: self.means.clone(), distributions })
    }

    /// These statistics without the outputs of the float model.
    pub(crate) fn without_outputs(&self) -> Self {
        let (statistics, means) = (self.statistics.clone(), self.means.clone());
        Self { statistics, means, outputs: Vec::new(), watch: self.watch }
    }

    /// The share of the error of activations that values have which other samples are likely to have beyond the extremes:
    /// the mean over all values with ranges.
    pub(crate) fn unseen_share(&self, observed: &Observed) -> f64 {
        let one = |(name, quantizer): (&String, &ActivationQuantizer)| {
            Some(mse::unseen_share(self.statistics.get(name)?, &Affine::from(quantizer)))
        };
        let all: Vec<_> = observed.activations.iter().collect();
        let shares: Vec<f64> = all.into_par_iter().filter_map(one).collect();
        shares.iter().sum::<f64>() / shares.len().max(1) as f64
    }

    /// Samples in which a value reaches very much farther than in all others.
    pub(crate) fn far_out(&self, value: &str) -> Option<FarOut> {
        self.statistics.get(value)?.peaks.far_out()
    }

    /// Whether there are statistics of a value.
    pub(crate) fn has(&self, value: &str) -> bool {
        self.statistics.contains_key(value)
    }

    /// Values that were not observed take the statistics of others, which hold them: by name, what a movement writes and
    /// what it moves.
    pub(crate) fn borrow(&mut self, aliases: impl IntoIterator<Item = (String, String)>) {
        for (value, source) in aliases {
            if let Some(statistics) = self.statistics.get(&source).filter(|_| !self.has(&value)) {
                let statistics = statistics.clone();
                self.statistics.insert(value, statistics);
            }
        }
    }

    fn distributions(&self) -> IndexMap<String, Distribution> {
        let one = |(name, statistics): (&String, &Statistics)| {
            let histogram = &statistics.histogram;
            let range = histogram.range()?;
            let bins = histogram.bins().map(|bin| (f64::midpoint(bin.lower, bin.upper), bin.count));
            let values = bins.chain([(0.0, histogram.zeros())]);
            Some((name.clone(), Distribution::count(range.min.into(), range.max.into(), values)))
        };
        self.statistics.iter().filter_map(one).collect()
    }

    /// The parameters of a value; `None` for a value without statistics.
    pub(crate) fn quantizer(
        &self,
        model: &Model,
        scheme: &Scheme,
        value: ValueId,
    ) -> Result<Option<(String, ActivationQuantizer)>, CalibrateError> {
        let name = model.graph.value(value).name().to_owned();
        let bits = scheme.bits(value);
        Ok(self.with_bits(model, scheme, value, bits)?.map(|quantizer| (name, quantizer)))
    }

    /// The parameters of a layer's input, if they differ from those of the value.
    pub(crate) fn requantizer(
        &self,
        model: &Model,
        scheme: &Scheme,
        layer: &Layer,
    ) -> Result<Option<(String, ActivationQuantizer)>, CalibrateError> {
        let Some(bits) = scheme.requantized_bits(layer) else { return Ok(None) };
        let chosen = self.with_bits(model, scheme, scheme.placement.root(layer.input), bits)?;
        Ok(chosen.map(|quantizer| (layer.name.clone(), quantizer)))
    }

    /// The parameters of a value for this number of bits; `None` for a value without statistics.
    pub(crate) fn with_bits(
        &self,
        model: &Model,
        scheme: &Scheme,
        value: ValueId,
        bits: u8,
    ) -> Result<Option<ActivationQuantizer>, CalibrateError> {
        let grid = GridSpec::new(scheme.target.activations.into(), bits)?;
        if let Some(given) = scheme.given_quantizer(model, value, grid) {
            return Ok(Some(given));
        }
        let quantizer = if let Some(tensor) = model.constant(value) {
            let (mut statistics, values) = (Statistics::new(), tensor?.to_f32()?);
            statistics.observe(&values);
            let chosen = choose(&statistics, ObserverKind::MinMax, grid, 1.0, Limits::default());
            match values[..] {
                // The power of a negative number has no value where the exponent is rounded away from an integer.
                [exponent] if is_exponent(&model.graph, value) => {
                    ActivationQuantizer { scale: exponent, zero_point: 0, ..chosen }
                }
                _ => chosen,
            }
        } else {
            let name = model.graph.value(value).name();
            let Some(statistics) = self.statistics.get(name) else { return Ok(None) };
            let observer = scheme.planned_observer(name).unwrap_or(self.watch.observer);
            let margin = if bits > 8 { HEADROOM * self.watch.margin } else { self.watch.margin };
            choose(statistics, observer, grid, margin, Limits::of(model, scheme, value))
        };
        Ok(Some(quantizer))
    }
}

/// Whether a value is the exponent of a power, which placement takes only where it is one number above 0.
fn is_exponent(graph: &Graph, value: ValueId) -> bool {
    graph.value(value).uses().iter().any(|reader| reader.slot == 1 && graph.node(reader.node).is("Pow"))
}

/// Warns where not even one thread fits the memory allowed.
fn warn_of_memory(pool: &Pool, ran: Ran, runtime: &Runtime) {
    let (session, model) = pool.need(ran);
    if let Some(budget) = runtime.memory.filter(|&budget| budget.saturating_sub(model) < session.max(1)) {
        tracing::warn!(budget, needed = model + session, "one thread may take more than the memory allowed");
    }
}

/// Taps for the range of every value with its own parameters, and for the channel means of every layer's input.
fn wanted(model: &Model, scheme: &Scheme) -> Vec<Tap> {
    let Scheme { placement, weight_only, coverage, .. } = scheme;
    let mut wanted: IndexMap<ValueId, (bool, Option<isize>)> = IndexMap::new();
    for value in placement.roots().filter(|&v| model.graph.constant(v).is_none()) {
        wanted.entry(value).or_default().0 = true;
    }
    let dynamic = weight_only.iter().filter(|layer| model.graph.constant(layer.input).is_none());
    for layer in placement.layers().chain(dynamic) {
        let transposed = layer.op == LayerOp::Gemm && model.graph.node(layer.node).int_or("transA", 0) != 0;
        let axis = match layer.op {
            op if op.is_convolution() => 1,
            // A constant on the left multiplies the rows of what is on the right.
            LayerOp::MatMul if layer.weight_slot == 0 => -2,
            LayerOp::Gemm if transposed => 0,
            _ => -1,
        };
        wanted.entry(layer.input).or_default().1 = Some(axis);
    }
    let complete = |(value, (range, channels))| Tap {
        name: model.graph.value(value).name().to_owned(),
        range,
        floor: placement.floor_of(&model.graph, value),
        channels,
    };
    wanted.into_iter().filter(|&(value, _)| coverage.sees(model, value)).map(complete).collect()
}

/// Bounds of a value's range that follow from the graph.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    /// The quantizer's range must extend down to this bound if the data do, and no further.
    floor: Option<f32>,
    /// The quantizer replaces a clamp from below at this bound, where its range begins whether or not the data reach it.
    low: Option<f32>,
    /// The quantizer replaces a clamp at this bound, which its range must not exceed.
    bound: Option<f32>,
    /// Values of a larger magnitude have the effect of this one.
    saturation: Option<f32>,
    /// The value is written by a `Softmax`, whose integer kernels take the range for 0 to 1, whatever the quantizer says.
    shares: bool,
}

impl Limits {
    /// The bounds of a value where a scheme places its quantizer.
    pub(crate) fn of(model: &Model, scheme: &Scheme, value: ValueId) -> Self {
        Self {
            floor: scheme.placement.floor_of(&model.graph, value),
            low: scheme.placement.low_of(&model.graph, value),
            bound: scheme.placement.bound_of(&model.graph, value),
            saturation: scheme.placement.saturation_of(&model.graph, value, scheme.bits(value)),
            shares: is_softmax(model, scheme, value),
        }
    }

    /// A key by which equal bounds are found.
    pub(crate) fn key(self) -> [Option<u32>; 4] {
        if self.shares {
            return [None, None, None, Some(u32::MAX)];
        }
        [self.floor, self.low, self.bound, self.saturation].map(|bound| bound.map(f32::to_bits))
    }
}

/// Joins quantizers of values that are better off with one.
pub(crate) fn join(model: &Model, scheme: &Scheme, activations: &mut IndexMap<String, ActivationQuantizer>) {
    concat::join(model, scheme, activations);
    alike::join(model, scheme, activations);
}

/// Whether a `Softmax` on integers writes the value.
fn is_softmax(model: &Model, scheme: &Scheme, value: ValueId) -> bool {
    let producer = model.graph.value(value).producer();
    producer.is_some_and(|(id, _)| model.graph.node(id).is("Softmax") && scheme.placement.nodes.contains_key(&id))
}

/// Parameters from statistics.
fn choose(
    statistics: &Statistics,
    observer: ObserverKind,
    grid: GridSpec,
    margin: f32,
    limits: Limits,
) -> ActivationQuantizer {
    let range = widen(observer.range(statistics, grid), margin);
    let mut range = limits.bound.map_or(range, |bound| Range::new(range.min, range.max.min(bound)));
    if let Some(most) = limits.saturation {
        range = Range::new(range.min.max(-most), range.max.min(most));
    }
    if limits.shares {
        range = Range::new(0.0, 1.0);
    }
    let mut affine = grid.affine(range);
    let reached = limits.floor.filter(|&f| statistics.histogram.range().is_some_and(|r| r.min <= f));
    if let Some(floor) = limits.low.or(reached) {
        // Many values may lie at the lower bound, and a grid that ends above it would shift all of them.
        range.min = floor;
        affine = grid.affine(range);
        if affine.dequantize(affine.quantized_min) > floor {
            range.min = floor - affine.scale;
            affine = grid.affine(range);
        }
    }
    let signed = affine.quantized_min < 0;
    ActivationQuantizer { scale: affine.scale, zero_point: affine.zero_point, signed, bits: grid.bits() }
}
