//! Solves layer after layer, each by statistics of its input once the layers before it are quantized.
//!
//! For every layer in graph order: the statistics that the solver needs of the layer's input, in the quantized network
//! (x̂) and in the float network (x), are collected over all samples ([`crate::kernels`]); then the weights become the
//! integers with which the layer's output changes least, which makes up for the errors of the layers before. A solver may
//! also choose another scale for the layer's input, where no other node has that input ([`Scheme::own_input`]). Layers
//! stay rounded to nearest where the kernels do not know their form, where their moments are too large, or where the
//! engine does not run that part of the network alone; [`Rounded::unsolved`] says why.
//!
//! Layers with the same weight ([`Scheme::group_of`]) are solved once, at the last of them, by the sum of the statistics of
//! all their inputs in the float network; until then the weight is rounded to nearest.
//!
//! Layers one after another that read the same value, as query, key and value of attention do, share its statistics.

use super::network::{Biases, Solved, agree, follow, quantize_graph, solve_layer};
use crate::calibrate::observe::Observed;
use crate::data::Dataset;
use crate::execute::ExecuteError;
use crate::execute::masks::Masked;
use crate::execute::walk::{Reading, Summary, Walk, input_of};
use crate::kernels::Keep;
use crate::runtime::{ErrorKind, Runtime};
use crate::scheme::Scheme;
use crate::solve::{LayerStatistics, Rounded, SolveError, Solver, StatisticsCollector, StatisticsKind};
use msq_passes::analysis::Layer;
use msq_passes::ir::Model;
use std::collections::HashMap;

/// Bytes the values between solved and unsolved layers may take, unless the memory allowed says otherwise.
const CUTS: u64 = 256 << 20;

/// Replaces rounded layers by those of a solver that needs statistics of their inputs.
pub(crate) fn reconstruct(
    model: &Model,
    scheme: &Scheme,
    observed: &mut Observed,
    solved: &mut Solved,
    data: &Dataset,
    solver: &dyn Solver,
    runtime: &Runtime,
) -> Result<(), SolveError> {
    if solver.statistics() == StatisticsKind::Nothing {
        return Ok(());
    }
    let seen =
        |layer: &Layer| scheme.coverage.sees(model, layer.input) && scheme.coverage.refusal(layer.node).is_none();
    let layers = solved.keys().filter_map(|name| scheme.layers().find(|l| l.name == *name).cloned());
    let order: Vec<Layer> = layers.filter(seen).collect();
    let budget = runtime.memory.map_or(CUTS, |memory| memory / 4);
    let masks = scheme.masks.or_repeats(model);
    let masked = Masked::new(&masks, data);
    let mut walk = Walk::new([model, model], data, budget, runtime);
    // What the readers of a shared weight that have been passed read.
    let mut pending: HashMap<&[String], LayerStatistics> = HashMap::new();
    // What the last layer read, for the next one.
    let mut last: Option<Read> = None;
    runtime.begin("solve", order.len() as u64);
    for (at, layer) in order.iter().enumerate() {
        if scheme.given_weight_scales(model, layer).is_some() || scheme.one_scale.contains_key(&layer.name) {
            // Rounded to nearest on the scales given, or on one scale for layers along different axes.
            runtime.step(1)?;
            continue;
        }
        let own = scheme.own_input(&model.graph, layer).filter(|_| solver.scales_input());
        let own = own.map(|value| model.graph.value(value).name());
        let group = scheme.group_of(&layer.name);
        let mut one = || -> Result<Option<Rounded>, SolveError> {
            let readers = group.map_or(1, <[String]>::len);
            let empty = StatisticsCollector::new(solver.statistics(), model, layer, readers * data.len())?;
            let empty = if group.is_some() { empty.of_float() } else { empty };
            if empty.blocks() > 1 {
                let (layer, blocks) = (&layer.name, empty.blocks());
                tracing::info!(layer, blocks, "long columns: correlations between blocks are left out");
            }
            let mut quantized = model.clone();
            quantize_graph(&mut quantized, scheme, observed, solved, Biases::Exact, None)?;
            let input = model.graph.value(layer.input).name();
            let quantized_input = quantized.graph.value(input_of(&quantized.graph, layer)?).name();
            let values = [input.to_owned(), quantized_input.to_owned()];
            let shared = last.take().filter(|read| read.values == values && group.is_none());
            let shared = shared.and_then(|read| read.statistics.of_reader(empty.geometry().clone()));
            let mut sums = if let Some(shared) = shared {
                shared
            } else {
                let empty = || Collecting { collector: empty.clone(), masked: &masked, input };
                walk.read(model, &quantized, (layer, own), &order[at..], empty)?.collector.finish()
            };
            if let Some(group) = group {
                if let Some(earlier) = pending.remove(group) {
                    sums.add(&earlier)?;
                }
                if order[at + 1..].iter().any(|later| group.contains(&later.name)) {
                    pending.insert(group, sums);
                    return Ok(None);
                }
            }
            let rounded = solve_layer(model, scheme, observed, layer, solver, Some(&sums))?;
            let next_reads_it = order.get(at + 1).is_some_and(|next| next.input == layer.input);
            if next_reads_it && own.is_none() && !scheme.is_stored_elsewhere(&layer.name) {
                last = Some(Read { values, statistics: sums });
            }
            Ok(Some(rounded))
        };
        match one() {
            // Rounded to nearest until the last reader of the weight has been seen.
            Ok(None) => {}
            Ok(Some(rounded)) => {
                let quantizer = own.and_then(|name| observed.activations.get_mut(name));
                if let (Some(quantizer), Some(scale)) = (quantizer, rounded.input_scale) {
                    quantizer.scale = scale;
                }
                solved.insert(layer.name.clone(), rounded);
                agree(model, scheme, observed, layer, solved)?;
                follow(scheme, solved);
            }
            // A form the kernels do not know; or the engine ran the model whole, but not this part of it; or the layer's
            // input is no floats in the quantized network.
            Err(
                reason @ (SolveError::Kernel(_)
                | SolveError::Execute(ExecuteError::Engine(_) | ExecuteError::Sequence { .. })),
            ) if reason.kind() != ErrorKind::Cancelled => {
                tracing::info!(layer = layer.name, %reason, "rounded to nearest");
                if let Some(rounded) = solved.get_mut(&layer.name) {
                    rounded.unsolved = Some(unsolved(&reason));
                }
            }
            Err(error) => return Err(error),
        }
        runtime.step(1)?;
    }
    runtime.end();
    Ok(())
}

/// Why a layer is not solved, in words for the user; the engine's own are for its developers.
fn unsolved(reason: &SolveError) -> String {
    match reason {
        SolveError::Kernel(reason) => reason.to_string(),
        SolveError::Execute(ExecuteError::Sequence { .. }) => {
            "its input cannot be followed through the quantized network".to_owned()
        }
        _ => "the engine does not run that part of the model by itself".to_owned(),
    }
}

/// What a layer reads.
struct Read {
    /// Names of the value in the float network and in the quantized one.
    values: [String; 2],
    statistics: LayerStatistics,
}

/// A collector and what its samples leave out.
struct Collecting<'a> {
    collector: StatisticsCollector,
    masked: &'a Masked<'a>,
    /// Name of the layer's input in the float network.
    input: &'a str,
}

impl Summary for Collecting<'_> {
    type Error = SolveError;

    fn enough(&self, shape: &[usize]) -> usize {
        self.collector.enough(shape)
    }

    fn observe(&mut self, reading: Reading) -> Result<(), SolveError> {
        let Reading { sample, shape, float, quantized } = reading;
        let kept = self.masked.sample(sample).map_err(ExecuteError::from)?;
        let positions = kept.and_then(|kept| kept.of(self.input, shape));
        let keep = |element: usize| positions.as_ref().is_none_or(|positions| positions.keeps(element));
        let keep = positions.is_some().then_some(&keep as Keep);
        Ok(self.collector.observe(sample, float, quantized, shape, keep)?)
    }

    fn merge(&mut self, other: Self) -> Result<(), SolveError> {
        Ok(self.collector.merge(other.collector)?)
    }
}
