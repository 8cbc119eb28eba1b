//! The layers of a network, solved: weights rounded layer by layer and written into the graph.

use super::agreed::Agreed;
use super::layer::{rebias, round_layer};
use super::round::Round;
use super::rounding::{LayerInput, Rounded, Rounding};
use super::stored::{of_twin, round_stored, tensor_of};
use super::{LayerStatistics, SolveError, Solver, StatisticsKind};
use crate::calibrate::observe::Observed;
use crate::quant::{Affine, minimum_weight_scales};
use crate::scheme::Scheme;
use indexmap::{IndexMap, IndexSet};
use msq_passes::analysis::{ChannelAffine, Layer, is_rectified};
use msq_passes::ir::Model;
use msq_passes::pipelines::{self, Decisions};
use msq_passes::{BiasForm, LayerBias, PassObserver, QuantizedLayer, StoredTensor};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};

/// Rounded layers by name, and weights beside the layers.
pub(crate) type Solved = IndexMap<String, Rounded>;

/// Which biases are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Biases {
    /// The biases that the kernels compute with.
    Exact,
    /// Half precision where the runtime rounds it to the same integers.
    Half,
}

impl Biases {
    fn layer(self, rounded: &Rounded) -> QuantizedLayer {
        let mut layer = rounded.layer.clone();
        if let Some(halves) = rounded.half_bias.as_ref().filter(|_| self == Self::Half) {
            layer.bias = Some(LayerBias::Float(halves.clone()));
        }
        layer
    }
}

/// Solves the weights of every layer without statistics, in parallel; the order of layers is the graph's. `solver` takes
/// layers whose scales are free, where it needs no statistics; all others are rounded to nearest.
pub(crate) fn round_layers(
    model: &Model,
    scheme: &Scheme,
    observed: &Observed,
    solver: &dyn Solver,
) -> Result<Solved, SolveError> {
    let position: HashMap<_, _> = model.graph.node_ids().enumerate().map(|(at, node)| (node, at)).collect();
    let mut layers: Vec<&Layer> = scheme.layers().collect();
    layers.sort_by_key(|layer| position.get(&layer.node));
    let nearest: &dyn Solver = &Round { mode: scheme.solve.rounding };
    let free = if solver.statistics() == StatisticsKind::Nothing { solver } else { nearest };
    let one = |layer: &&Layer| {
        let given = scheme.given_weight_scales(model, layer).is_some();
        let solver = if given { nearest } else { free };
        Ok((layer.name.clone(), solve_layer(model, scheme, observed, layer, solver, None)?))
    };
    // Of layers with the same weight the first is solved, and the others agree.
    let follows = |layer: &&&Layer| scheme.group_of(&layer.name).is_some_and(|group| group[0] != layer.name);
    let leaders: Vec<&Layer> = layers.iter().filter(|layer| !follows(layer)).copied().collect();
    let solved: Result<Vec<_>, SolveError> = leaders.par_iter().map(one).collect();
    let mut solved: Solved = solved?.into_iter().collect();
    for leader in leaders {
        agree(model, scheme, observed, leader, &mut solved)?;
    }
    let stored = scheme.stored.par_iter().filter(|weight| !scheme.twins.contains_key(&weight.name));
    let stored = stored.map(|weight| Ok(round_stored(model, scheme, weight)?.map(|r| (weight.name.clone(), r))));
    let stored: Result<Vec<_>, SolveError> = stored.collect();
    // In graph order again.
    solved.sort_by_cached_key(|name, _| layers.iter().position(|layer| layer.name == *name));
    solved.extend(stored?.into_iter().flatten());
    follow(scheme, &mut solved);
    Ok(solved)
}

/// Gives the integers of a layer to those with the same weight, each with its own bias.
pub(crate) fn agree(
    model: &Model,
    scheme: &Scheme,
    observed: &Observed,
    leader: &Layer,
    solved: &mut Solved,
) -> Result<(), SolveError> {
    let (Some(group), Some(rounded)) = (scheme.group_of(&leader.name), solved.get(&leader.name)) else {
        return Ok(());
    };
    let rounded = rounded.clone();
    for layer in scheme.layers().filter(|layer| layer.name != leader.name && group.contains(&layer.name)) {
        let reads = |layer: &Layer| observed.read_by(model, &scheme.placement, layer);
        let form = |layer: &Layer| (layer.bias, layer.axis, layer.shape.clone(), scheme.is_on_integers(layer));
        let rounded = if form(layer) == form(leader) && reads(layer) == reads(leader) {
            // Nothing is left that could differ, the bias included.
            rounded.clone()
        } else {
            let transposed = [leader, layer].map(|layer| scheme.one_scale.get(&layer.name).copied());
            let agreed = Agreed::new(leader, &rounded, layer, transposed);
            solve_layer(model, scheme, observed, layer, &agreed, None)?
        };
        solved.insert(layer.name.clone(), rounded);
    }
    Ok(())
}

/// Gives weights beside the layers the integers of the layers that read them too.
pub(crate) fn follow(scheme: &Scheme, solved: &mut Solved) {
    for weight in &scheme.stored {
        let Some(twin) = scheme.twins.get(&weight.name) else { continue };
        let Some(layer) = solved.get(&twin.layer) else { continue };
        let rounded = of_twin(weight, twin, layer);
        solved.insert(weight.name.clone(), rounded);
    }
}

/// The least scales with which the biases of all layers that share a weight fit into int32.
fn floors_of_group(model: &Model, scheme: &Scheme, observed: &Observed, layer: &Layer) -> Result<Vec<f32>, SolveError> {
    let (mut floors, one_scale): (Vec<f32>, bool) = (Vec::new(), scheme.one_scale.contains_key(&layer.name));
    let group = scheme.group_of(&layer.name).filter(|_| scheme.target.bias == BiasForm::Int32).unwrap_or_default();
    for member in scheme.placement.layers().filter(|member| group.contains(&member.name)) {
        let Some(read) = observed.read_by(model, &scheme.placement, member) else { continue };
        let Some(bias) = member.bias.and_then(|bias| model.constant(bias)) else { continue };
        let mut own = minimum_weight_scales(&bias?.to_f32()?, read.scale);
        if one_scale {
            own = vec![own.into_iter().fold(0.0, f32::max)];
        }
        if floors.is_empty() {
            floors = own;
        } else {
            floors.iter_mut().zip(own).for_each(|(floor, own)| *floor = floor.max(own));
        }
    }
    Ok(floors)
}

/// Solves the weights of a layer by the statistics of its input.
pub(crate) fn solve_layer(
    model: &Model,
    scheme: &Scheme,
    observed: &Observed,
    layer: &Layer,
    solver: &dyn Solver,
    statistics: Option<&LayerStatistics>,
) -> Result<Rounded, SolveError> {
    let parts = LayerParts::new(model, scheme, observed, layer)?;
    let rounding = parts.rounding(model, scheme, layer, solver, statistics);
    let own = scheme.own_input(&model.graph, layer).filter(|_| statistics.is_some() && solver.scales_input());
    let quantizer = own.and_then(|value| observed.activations.get(model.graph.value(value).name())).map(Affine::from);
    round_layer(model, layer, LayerInput { quantizer, ..parts.input() }, rounding)
}

/// A layer that was solved, `before` being the scale of its input then, with the quantizers that `observed` gives it now:
/// its integers stay, its bias is written anew.
pub(crate) fn rebias_layer(
    model: &Model,
    scheme: &Scheme,
    observed: &Observed,
    layer: &Layer,
    (solved, before): (&Rounded, f32),
) -> Result<Rounded, SolveError> {
    let parts = LayerParts::new(model, scheme, observed, layer)?;
    let solver = Round::default();
    let rounding = parts.rounding(model, scheme, layer, &solver, None);
    rebias(solved, layer, before, parts.input(), rounding)
}

/// Layers with the integers that they have behind the first quantizers, and biases for the second ones.
pub(crate) fn rebiased(
    model: &Model,
    scheme: &Scheme,
    solved: &Solved,
    [before, after]: [&Observed; 2],
) -> Result<Solved, SolveError> {
    let mut rebiased = solved.clone();
    for layer in scheme.placement.layers() {
        let read = |observed: &Observed| observed.read_by(model, &scheme.placement, layer).map(|grid| grid.scale);
        if let (Some(then), Some(now), Some(rounded)) = (read(before), read(after), solved.get(&layer.name))
            && then != now
        {
            let rounded = rebias_layer(model, scheme, after, layer, (rounded, then))?;
            rebiased.insert(layer.name.clone(), rounded);
        }
    }
    Ok(rebiased)
}

/// What a layer is solved with, besides a solver.
struct LayerParts {
    affine: Option<ChannelAffine>,
    scales: Option<Vec<f32>>,
    /// Scales that the group of layers with the same weight needs.
    least: Vec<f32>,
    means: Vec<f64>,
    scale: f32,
    output_scale: Option<f32>,
}

impl LayerParts {
    fn new(model: &Model, scheme: &Scheme, observed: &Observed, layer: &Layer) -> Result<Self, SolveError> {
        let placement = &scheme.placement;
        let affine = placement.affine_of(model, layer).transpose()?;
        let read = observed.read_by(model, placement, layer).filter(|_| scheme.is_on_integers(layer));
        let scale = read.map_or(1.0, |quantizer| quantizer.scale);
        let written = model.graph.value(placement.written_by(&model.graph, layer)).name();
        let output_scale = observed.activations.get(written).map(|quantizer| quantizer.scale);
        let means = means(model, scheme, observed, layer);
        let scales = scheme.given_weight_scales(model, layer);
        let least = floors_of_group(model, scheme, observed, layer)?;
        Ok(Self { affine, scales, least, means, scale, output_scale })
    }

    fn input(&self) -> LayerInput<'_> {
        LayerInput { scale: self.scale, quantizer: None, means: &self.means, output_scale: self.output_scale }
    }

    fn rounding<'s>(
        &'s self,
        model: &Model,
        scheme: &Scheme,
        layer: &Layer,
        solver: &'s dyn Solver,
        statistics: Option<&'s LayerStatistics>,
    ) -> Rounding<'s> {
        Rounding {
            plan: scheme.layer_plan(layer),
            granularity: scheme.granularity(layer),
            half_scales: scheme.output.half_scales,
            bias_correction: scheme.solve.bias_correction,
            seed: scheme.seed,
            bias: if scheme.is_on_integers(layer) { scheme.target.bias } else { BiasForm::Float },
            bias_as_floats: scheme.leaves_out_bias_scales(layer),
            affine: self.affine.as_ref(),
            solver,
            statistics,
            rectified: is_rectified(&model.graph, layer),
            scales: self.scales.as_deref(),
            least: &self.least,
        }
    }
}

/// Mean of each channel of a layer's input; the mean over all layers with the same weight and bias, which can share the
/// corrected bias then. Empty if not known.
fn means(model: &Model, scheme: &Scheme, observed: &Observed, layer: &Layer) -> Vec<f64> {
    let of = |layer: &Layer| observed.means.get(model.graph.value(layer.input).name()).cloned().unwrap_or_default();
    let group = scheme.group_of(&layer.name).unwrap_or_default();
    let alike = |other: &&Layer| group.contains(&other.name) && other.bias == layer.bias && other.axis == layer.axis;
    let all: Vec<Vec<f64>> = scheme.layers().filter(alike).map(of).collect();
    let own = of(layer);
    if all.len() < 2 || all.iter().any(|means| means.len() != own.len()) {
        return own;
    }
    let mean = |at: usize| all.iter().map(|means| means[at]).sum::<f64>() / all.len() as f64;
    (0..own.len()).map(mean).collect()
}

/// Writes quantizers and integer weights into the graph, as QDQ: the form that says what it computes.
pub(crate) fn quantize_graph(
    model: &mut Model,
    scheme: &Scheme,
    observed: &Observed,
    solved: &Solved,
    biases: Biases,
    observer: Option<&dyn PassObserver>,
) -> Result<(), SolveError> {
    let placement = &scheme.placement;
    let placed: HashSet<&str> = placement.layers().map(|layer| layer.name.as_str()).collect();
    let stored = scheme.stored.iter().filter_map(|weight| {
        let rounded = solved.get(&weight.name)?;
        Some((weight.name.clone(), tensor_of(model, weight, rounded)))
    });
    let stored: IndexMap<String, StoredTensor> = stored.collect();
    let of_layers = solved.iter().filter(|(name, _)| !stored.contains_key(*name));
    let written = of_layers.map(|(name, rounded)| (name.clone(), biases.layer(rounded)));
    let (on_integers, weight_only): (IndexMap<String, QuantizedLayer>, IndexMap<String, QuantizedLayer>) =
        written.partition(|(name, _)| placed.contains(name.as_str()));
    let at_run_time: HashSet<&str> =
        scheme.weight_only.iter().filter(|layer| scheme.is_dynamic(layer)).map(|layer| layer.name.as_str()).collect();
    let (dynamic, weight_only): (IndexMap<String, QuantizedLayer>, IndexMap<String, QuantizedLayer>) =
        weight_only.into_iter().partition(|(name, _)| at_run_time.contains(name.as_str()));
    let outliers = scheme.split_channels();
    let recurrent: IndexSet<String> = scheme.recurrent_at_run_time().collect();
    let decisions = Decisions {
        placement,
        activations: &observed.activations,
        requantized: &observed.requantized,
        outliers: &outliers,
        on_integers: &on_integers,
        weight_only: &weight_only,
        dynamic: &dynamic,
        stored: &stored,
        recurrent: &recurrent,
    };
    pipelines::quantize(decisions).observed(observer).run(model)?;
    Ok(())
}
