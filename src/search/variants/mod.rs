//! Quantized variants of a network, one a bit plan, from weights that are solved once for each layer and width.
//!
//! A search compares hundreds of plans. Solving the layers anew for each, one after the other by what the network before
//! them makes of the data, would be the whole work of quantizing; so the search solves every layer by what it reads in
//! the *float* network (C = H in [`crate::solve::gram`]), whose moments are summed in one pass, and keeps what it has
//! solved. The plan that wins is then solved in full.

#[cfg(test)]
mod tests;

use crate::calibrate::observe::{self, Limits, Observed, Seen, Watch, see};
use crate::data::Dataset;
use crate::execute::ExecuteError;
use crate::execute::masks::Masked;
use crate::execute::segment::{Ran, Segment};
use crate::execute::stages::{Limit, Stages};
use crate::kernels::{Geometry, Keep};
use crate::lower::{finish, half_precision};
use crate::quant::BitRate;
use crate::runtime::Runtime;
use crate::scheme::Scheme;
use crate::scheme::bit_plan::{BitPlan, LayerPlan, WeightBits};
use crate::scheme::metadata;
use crate::scheme::options::Options;
use crate::search::SearchError;
use crate::solve::network::{Biases, Solved, agree, follow, quantize_graph, rebias_layer, solve_layer};
use crate::solve::round::Round;
use crate::solve::stored::round_stored;
use crate::solve::{LayerStatistics, Rounded, Solver, StatisticsCollector, StatisticsKind, quick_solver};
use indexmap::IndexMap;
use msq_passes::ActivationQuantizer;
use msq_passes::analysis::Layer;
use msq_passes::ir::{Model, ValueId};
use std::collections::HashMap;

/// Bytes that the moments of all layers may take together, twice over while they are summed.
const MOMENTS: usize = 1 << 30;
/// Bits from which on layers are rounded to nearest.
const WIDE: BitRate = BitRate::whole(6);

/// What a layer's integers depend on, besides the network: its plan, the scale of what it reads, whether scales are halves,
/// and whether integers are kept that were solved before.
type Key = (String, LayerPlan, Option<u32>, bool, bool);

/// What an activation's quantizer depends on, besides the network: the value, its bits, its observer if it is not the
/// usual one, and the bounds that follow from where it stands.
type QuantizerKey = (String, u8, Option<String>, [Option<u32>; 4]);

/// Builds variants.
#[derive(Debug)]
pub(crate) struct Variants<'a> {
    /// The prepared float network.
    pub(crate) model: &'a Model,
    options: &'a Options,
    seen: Seen,
    /// What each layer reads in the float network.
    statistics: HashMap<String, LayerStatistics>,
    solver: Box<dyn Solver>,
    solved: HashMap<Key, Rounded>,
    /// Layers that were solved before, by name: their plan, the scale of their input, and their integers, which stay.
    known: HashMap<String, (LayerPlan, f32, Rounded)>,
    quantizers: HashMap<QuantizerKey, ActivationQuantizer>,
    sizes: HashMap<String, u64>,
}

impl<'a> Variants<'a> {
    /// Calibrates: ranges and moments of what the layers of `plan` read.
    pub(crate) fn new(
        model: &'a Model,
        scheme: &Scheme,
        data: &Dataset,
        margin: f32,
        options: &'a Options,
        runtime: &Runtime,
    ) -> Result<Self, SearchError> {
        let watch = Watch {
            observer: options.calibrate.observer,
            margin,
            outputs: options.verify.verify,
            distributions: options.verify.details,
        };
        let seen = with_movements(model, scheme, see(model, scheme, data, watch, runtime)?);
        let solver = quick_solver(&options.solve)?;
        let statistics = match solver.statistics() {
            StatisticsKind::Nothing => HashMap::new(),
            kind => statistics(model, kind, scheme, data, runtime)?,
        };
        Ok(Self { statistics, ..Self::on(model, seen, options, solver) })
    }

    fn on(model: &'a Model, seen: Seen, options: &'a Options, solver: Box<dyn Solver>) -> Self {
        Self {
            model,
            options,
            seen,
            statistics: HashMap::new(),
            solver,
            solved: HashMap::new(),
            known: HashMap::new(),
            quantizers: HashMap::new(),
            sizes: HashMap::new(),
        }
    }

    /// Variants of a network that is quantized already, whose weights keep their integers.
    pub(crate) fn of_quantized(
        model: &'a Model,
        scheme: &Scheme,
        (seen, observed, solved): (Seen, &Observed, &Solved),
        options: &'a Options,
    ) -> Self {
        let seen = with_movements(model, scheme, seen);
        let mut variants = Self::on(model, seen, options, Box::new(Round::default()));
        for layer in scheme.layers() {
            let Some(rounded) = solved.get(&layer.name) else { continue };
            let read = observed.read_by(model, &scheme.placement, layer).filter(|_| scheme.is_on_integers(layer));
            let known = (scheme.layer_plan(layer), read.map_or(1.0, |read| read.scale), rounded.clone());
            variants.known.insert(layer.name.clone(), known);
        }
        for value in scheme.placement.roots() {
            if let Some(&quantizer) = observed.activations.get(model.graph.value(value).name()) {
                variants.quantizers.insert(quantizer_key(model, scheme, value, quantizer.bits), quantizer);
            }
        }
        variants
    }

    /// The network quantized by a plan, as QDQ.
    pub(crate) fn build(&mut self, plan: &BitPlan) -> Result<Model, SearchError> {
        self.quantized(plan, Biases::Exact).map(|(_, model)| model)
    }

    /// The bytes of the file that a plan makes. What is solved in full later may differ by a few, where integers or
    /// scales happen to be alike.
    pub(crate) fn size(&mut self, plan: &BitPlan) -> Result<u64, SearchError> {
        let key = plan.to_json();
        if let Some(&size) = self.sizes.get(&key) {
            return Ok(size);
        }
        let (scheme, mut model) = self.quantized(plan, Biases::Half)?;
        // Without magnitudes nothing computes in float16, but weights are as large.
        let halves = half_precision(self.model, &scheme, scheme.output.float16, &IndexMap::new());
        let (shortened, _) = finish(&mut model, (self.model, &scheme), halves, None)?;
        metadata::write(&mut model, &scheme.carried_out(self.model), shortened.nodes.as_deref());
        let size = model.stored_bytes();
        self.sizes.insert(key, size);
        Ok(size)
    }

    fn quantized(&mut self, plan: &BitPlan, biases: Biases) -> Result<(Scheme, Model), SearchError> {
        let scheme = Scheme::new(self.model, plan, self.options)?;
        let observed = self.observed(&scheme)?;
        let keeps = self.keeps(&scheme);
        let mut solved = Solved::new();
        for layer in scheme.layers() {
            if solved.contains_key(&layer.name) {
                // It has the weight of an earlier one.
                continue;
            }
            let rounded = self.solve(&scheme, &observed, layer, keeps)?;
            solved.insert(layer.name.clone(), rounded);
            agree(self.model, &scheme, &observed, layer, &mut solved)?;
        }
        for weight in scheme.stored.iter().filter(|weight| !scheme.twins.contains_key(&weight.name)) {
            let key = (weight.name.clone(), scheme.stored_plan(weight), None, scheme.output.half_scales, keeps);
            if !self.solved.contains_key(&key) {
                let Some(rounded) = round_stored(self.model, &scheme, weight)? else { continue };
                self.solved.insert(key.clone(), rounded);
            }
            solved.insert(weight.name.clone(), self.solved[&key].clone());
        }
        follow(&scheme, &mut solved);
        let mut model = self.model.clone();
        quantize_graph(&mut model, &scheme, &observed, &solved, biases, None)?;
        Ok((scheme, model))
    }

    fn observed(&mut self, scheme: &Scheme) -> Result<Observed, SearchError> {
        let (mut activations, mut requantized) = (IndexMap::new(), IndexMap::new());
        for value in scheme.placement.roots() {
            let name = self.model.graph.value(value).name();
            let chosen = self.quantizer(scheme, value, scheme.bits(value))?;
            activations.extend(chosen.map(|chosen| (name.to_owned(), chosen)));
        }
        observe::join(self.model, scheme, &mut activations);
        for layer in scheme.placement.layers() {
            let Some(bits) = scheme.requantized_bits(layer) else { continue };
            let chosen = self.quantizer(scheme, scheme.placement.root(layer.input), bits)?;
            requantized.extend(chosen.map(|chosen| (layer.name.clone(), chosen)));
        }
        let (means, distributions) = (self.seen.means.clone(), IndexMap::new());
        Ok(Observed { activations, requantized, means, distributions })
    }

    fn quantizer(
        &mut self,
        scheme: &Scheme,
        value: ValueId,
        bits: u8,
    ) -> Result<Option<ActivationQuantizer>, SearchError> {
        let key = quantizer_key(self.model, scheme, value, bits);
        if let Some(&known) = self.quantizers.get(&key) {
            return Ok(Some(known));
        }
        let chosen = self.seen.with_bits(self.model, scheme, value, bits)?;
        self.quantizers.extend(chosen.map(|chosen| (key, chosen)));
        Ok(chosen)
    }

    /// Whether the layers solved before have the weights that they had then. Solvers make up for what the layers before
    /// them lose, and where these lose something else, that makes it worse.
    fn keeps(&self, scheme: &Scheme) -> bool {
        let of = |layer: &Layer| Some((self.known.get(&layer.name)?.0, scheme.layer_plan(layer)));
        let as_before = scheme.layers().filter_map(of).filter(|&(known, plan)| is_solved_alike(known, plan));
        as_before.count() == self.known.len()
    }

    fn solve(
        &mut self,
        scheme: &Scheme,
        observed: &Observed,
        layer: &Layer,
        keeps: bool,
    ) -> Result<Rounded, SearchError> {
        let scale = observed.read_by(self.model, &scheme.placement, layer).map(|quantizer| quantizer.scale.to_bits());
        let plan = scheme.layer_plan(layer);
        // With many bits there is little to gain.
        let wide = matches!(plan.weights, WeightBits::Bits(rate) if rate >= WIDE);
        let keeps = keeps || !wide;
        let key = (layer.name.clone(), plan, scale, scheme.output.half_scales, keeps);
        if let Some(rounded) = self.solved.get(&key) {
            return Ok(rounded.clone());
        }
        let known = self.known.get(&layer.name).filter(|(known, ..)| keeps && is_solved_alike(*known, plan));
        if let Some((_, before, rounded)) = known {
            let rounded = rebias_layer(self.model, scheme, observed, layer, (rounded, *before))?;
            self.solved.insert(key, rounded.clone());
            return Ok(rounded);
        }
        let statistics = self.statistics.get(&layer.name).filter(|_| !wide);
        let solver: &dyn Solver = if statistics.is_some() { self.solver.as_ref() } else { &Round::default() };
        let rounded = solve_layer(self.model, scheme, observed, layer, solver, statistics)?;
        self.solved.insert(key, rounded.clone());
        Ok(rounded)
    }
}

/// Whether plans have the same integers, whatever the bits of activations.
fn is_solved_alike(known: LayerPlan, plan: LayerPlan) -> bool {
    LayerPlan { activations: plan.activations, ..known } == plan
}

fn quantizer_key(model: &Model, scheme: &Scheme, value: ValueId, bits: u8) -> QuantizerKey {
    let name = model.graph.value(value).name().to_owned();
    let observer = scheme.planned_observer(&name).map(|observer| observer.to_string());
    (name, bits, observer, Limits::of(model, scheme, value).key())
}

/// Statistics with those of what movements write: a movement that no integers reach moves floats, and its output gets a
/// quantizer of its own.
fn with_movements(model: &Model, scheme: &Scheme, mut seen: Seen) -> Seen {
    let values = scheme.placement.values.iter().filter(|(value, root)| value != root);
    let name = |value: ValueId| model.graph.value(value).name().to_owned();
    seen.borrow(values.map(|(&value, &root)| (name(value), name(root))));
    seen
}

/// Statistics of the input of each layer in the float network, of as many layers as there is memory for.
fn statistics(
    model: &Model,
    kind: StatisticsKind,
    scheme: &Scheme,
    data: &Dataset,
    runtime: &Runtime,
) -> Result<HashMap<String, LayerStatistics>, SearchError> {
    let whole = Segment::whole(model);
    let mut collectors = affordable(model, kind, scheme.layers(), data.len());
    let masks = scheme.masks.or_repeats(model);
    let masked = Masked::new(&masks, data);
    let name = |layer: &Layer| model.graph.value(layer.input).name().to_owned();
    collectors.retain(|(layer, _)| whole.has(&name(layer)));
    // Layers that read one value as the same columns, as query, key and value of attention do, share a collector.
    let mut distinct: Vec<(String, StatisticsCollector)> = Vec::new();
    let mut readers = Vec::new();
    for (layer, collector) in collectors {
        let (value, geometry) = (name(layer), collector.geometry().clone());
        let same =
            |(other, of): &(String, StatisticsCollector)| *other == value && of.geometry().same_columns(&geometry);
        let at = distinct.iter().position(same).unwrap_or(distinct.len());
        if at == distinct.len() {
            distinct.push((value, collector));
        }
        readers.push((layer, geometry, at));
    }
    let (taps, empty): (Vec<String>, Vec<StatisticsCollector>) = distinct.into_iter().unzip();
    let mut total = empty.clone();
    let begin = |here: &[usize]| here.iter().map(|&tap| empty[tap].clone()).collect();
    let visit =
        |sums: &mut Vec<StatisticsCollector>, here: &[usize], sample: usize, ran: Ran| -> Result<(), SearchError> {
            let kept = masked.sample(sample).map_err(ExecuteError::from)?;
            for (at, sum) in sums.iter_mut().enumerate() {
                let values = ran.values(at)?;
                let positions = kept.as_ref().and_then(|kept| kept.of(&taps[here[at]], ran.shape(at)));
                let keep = |element: usize| positions.as_ref().is_none_or(|positions| positions.keeps(element));
                let keep = positions.is_some().then_some(&keep as Keep);
                sum.observe(sample, &values, &values, ran.shape(at), keep)?;
            }
            Ok(())
        };
    let merge = |here: &[usize], part: Vec<StatisticsCollector>| {
        here.iter().zip(part).try_for_each(|(&tap, part)| Ok(total[tap].merge(part)?))
    };
    runtime.begin("moments", data.len() as u64);
    Stages::new(&whole, Limit::of(model, runtime.memory))?.fold_taps(&taps, data, runtime, begin, visit, merge)?;
    runtime.end();
    let found: Vec<LayerStatistics> = total.into_iter().map(StatisticsCollector::finish).collect();
    let of_layer = |(layer, geometry, at): (&Layer, Geometry, usize)| {
        Some((layer.name.clone(), found[at].clone().of_reader(geometry)?))
    };
    Ok(readers.into_iter().filter_map(of_layer).collect())
}

/// Empty collectors for the layers whose form the kernels know, as long as together they fit [`MOMENTS`]. The other
/// layers are rounded to nearest.
fn affordable<'l>(
    model: &Model,
    kind: StatisticsKind,
    layers: impl Iterator<Item = &'l Layer>,
    samples: usize,
) -> Vec<(&'l Layer, StatisticsCollector)> {
    let mut left = MOMENTS;
    let mut found = Vec::new();
    for layer in layers {
        match StatisticsCollector::new(kind, model, layer, samples) {
            Ok(collector) if collector.bytes() <= left => {
                left -= collector.bytes();
                found.push((layer, collector));
            }
            Ok(_) => {
                tracing::info!(layer = layer.name, "rounded to nearest while searching: no memory for its moments");
            }
            Err(reason) => tracing::info!(layer = layer.name, %reason, "rounded to nearest while searching"),
        }
    }
    found
}
