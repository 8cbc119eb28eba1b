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

/// Replaces rounded layers by those of a solver that needs statistics of their inputs.
pub(crate) fn solve_layerwise(
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
    let order = order(model, scheme, solved);
    let masks = scheme.masks.or_repeats(model);
    let mut layerwise = Layerwise {
        model,
        scheme,
        solver,
        order: &order,
        samples: data.len(),
        masked: &Masked::new(&masks, data),
        walk: Walk::new([model, model], data, runtime),
        pending: HashMap::new(),
        last: None,
    };
    runtime.begin("solve", order.len() as u64);
    for (at, layer) in order.iter().enumerate() {
        // On given scales, or on one scale for layers along different axes, weights stay rounded to nearest.
        if scheme.given_weight_scales(model, layer).is_none() && !scheme.one_scale.contains_key(&layer.name) {
            layerwise.replace(at, observed, solved)?;
        }
        runtime.step(1)?;
    }
    runtime.end();
    Ok(())
}

/// The layers that the engine runs, in graph order.
fn order(model: &Model, scheme: &Scheme, solved: &Solved) -> Vec<Layer> {
    let seen =
        |layer: &Layer| scheme.coverage.sees(model, layer.input) && scheme.coverage.refusal(layer.node).is_none();
    let layers = solved.keys().filter_map(|name| scheme.layers().find(|l| l.name == *name).cloned());
    layers.filter(seen).collect()
}

/// A network whose layers are being solved.
struct Layerwise<'a> {
    model: &'a Model,
    scheme: &'a Scheme,
    solver: &'a dyn Solver,
    order: &'a [Layer],
    samples: usize,
    masked: &'a Masked<'a>,
    walk: Walk,
    /// Of each group with one weight, the statistics of the readers that have been passed.
    pending: HashMap<&'a [String], LayerStatistics>,
    /// What the last layer read, for the next one.
    last: Option<Read>,
}

impl<'a> Layerwise<'a> {
    /// Puts the solved layer in the place of the rounded one. A layer that cannot be solved stays rounded to nearest.
    fn replace(&mut self, at: usize, observed: &mut Observed, solved: &mut Solved) -> Result<(), SolveError> {
        let layer = &self.order[at];
        match self.solve(at, observed, solved) {
            // Rounded to nearest until the last reader of the weight has been seen.
            Ok(None) => {}
            Ok(Some(rounded)) => {
                let quantizer = self.scaled_input(layer).and_then(|name| observed.activations.get_mut(name));
                if let (Some(quantizer), Some(scale)) = (quantizer, rounded.input_scale) {
                    quantizer.scale = scale;
                }
                solved.insert(layer.name.clone(), rounded);
                agree(self.model, self.scheme, observed, layer, solved)?;
                follow(self.scheme, solved);
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
        Ok(())
    }

    /// Solves a layer; `None` where others of its group are still to come.
    fn solve(&mut self, at: usize, observed: &Observed, solved: &Solved) -> Result<Option<Rounded>, SolveError> {
        let (scheme, layer, later) = (self.scheme, &self.order[at], &self.order[at + 1..]);
        let mut read = self.read(at, observed, solved)?;
        if let Some(group) = scheme.group_of(&layer.name) {
            if let Some(earlier) = self.pending.remove(group) {
                read.statistics.add(&earlier)?;
            }
            if later.iter().any(|later| group.contains(&later.name)) {
                self.pending.insert(group, read.statistics);
                return Ok(None);
            }
        }
        let rounded = solve_layer(self.model, scheme, observed, layer, self.solver, Some(&read.statistics))?;
        let next_reads_it = later.first().is_some_and(|next| next.input == layer.input);
        if next_reads_it && self.scaled_input(layer).is_none() && !scheme.is_stored_elsewhere(&layer.name) {
            self.last = Some(read);
        }
        Ok(Some(rounded))
    }

    /// What a layer reads behind the layers solved so far.
    fn read(&mut self, at: usize, observed: &Observed, solved: &Solved) -> Result<Read, SolveError> {
        let (model, layer, masked) = (self.model, &self.order[at], self.masked);
        let group = self.scheme.group_of(&layer.name);
        let readers = group.map_or(1, <[String]>::len);
        let empty = StatisticsCollector::new(self.solver.statistics(), model, layer, readers * self.samples)?;
        let empty = if group.is_some() { empty.of_float() } else { empty };
        if empty.blocks() > 1 {
            let (layer, blocks) = (&layer.name, empty.blocks());
            tracing::info!(layer, blocks, "long columns: correlations between blocks are left out");
        }
        let mut quantized = model.clone();
        quantize_graph(&mut quantized, self.scheme, observed, solved, Biases::Exact, None)?;
        let input = model.graph.value(layer.input).name();
        let quantized_input = quantized.graph.value(input_of(&quantized.graph, layer)?).name();
        let values = [input.to_owned(), quantized_input.to_owned()];
        let shared = self.last.take().filter(|read| read.values == values && group.is_none());
        if let Some(statistics) = shared.and_then(|read| read.statistics.of_reader(empty.geometry().clone())) {
            return Ok(Read { values, statistics });
        }
        let layer = (layer, self.scaled_input(layer));
        let empty = || Collecting { collector: empty.clone(), masked, input };
        let found = self.walk.read(model, &quantized, layer, &self.order[at..], empty)?;
        Ok(Read { values, statistics: found.collector.finish() })
    }

    /// The input whose scale the solver chooses with the layer.
    fn scaled_input(&self, layer: &Layer) -> Option<&'a str> {
        let own = self.scheme.own_input(&self.model.graph, layer).filter(|_| self.solver.scales_input());
        own.map(|value| self.model.graph.value(value).name())
    }
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
