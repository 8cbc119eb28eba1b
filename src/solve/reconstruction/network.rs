//! The network while its blocks are learned and solved: float weights, steps of quantizers, and what layers are solved to.

use super::parameters::Parameters;
use super::part::Between;
use super::relaxed::{Owner, Relaxed};
use crate::calibrate::observe::Observed;
use crate::data::{Dataset, Sample};
use crate::execute::ExecuteError;
use crate::execute::fold::{Pool, fold_pair};
use crate::execute::segment::{Ran, Segment};
use crate::execute::walk::{before_quantizer, input_of};
use crate::runtime::Runtime;
use crate::scheme::Scheme;
use crate::solve::network::{Biases, Solved, quantize_graph, solve_layer};
use crate::solve::{LayerStatistics, SolveError, Solver, StatisticsCollector};
use msq_passes::analysis::Layer;
use msq_passes::ir::Model;
use std::collections::HashSet;

/// A network so far.
#[derive(Clone, Debug)]
pub(super) struct Network {
    /// In float, with what was learned.
    pub(super) model: Model,
    pub(super) observed: Observed,
    pub(super) solved: Solved,
}

/// Where and how layers are solved.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) scheme: &'a Scheme,
    pub(super) solver: &'a dyn Solver,
    /// Names of the values that the block reads.
    pub(super) read: &'a [String],
    pub(super) runtime: &'a Runtime<'a>,
}

impl Network {
    /// As QDQ.
    pub(super) fn quantized(&self, scheme: &Scheme) -> Result<Model, SolveError> {
        let mut network = self.model.clone();
        quantize_graph(&mut network, scheme, &self.observed, &self.solved, Biases::Exact, None)?;
        Ok(network)
    }

    /// Takes over what a block has learned.
    pub(super) fn take(&mut self, parameters: &Parameters) {
        parameters.layers.iter().for_each(|layer| layer.put(&mut self.model));
        for quantizer in &parameters.quantizers {
            match &quantizer.owner {
                Owner::Value(name) => self.observed.activations.insert(name.clone(), quantizer.grid),
                Owner::Layer(name) => self.observed.requantized.insert(name.clone(), quantizer.grid),
            };
        }
    }

    /// Names of the values that are computed between two cuts. `samples` are what is read there.
    pub(super) fn layers_between(&self, between: Between, samples: &[Sample]) -> Result<HashSet<String>, SolveError> {
        let first = samples.first().ok_or(ExecuteError::NoSamples)?;
        let graph = Segment::between(&self.model, between.read, first, between.written)?.model.graph;
        let written = graph.nodes().flat_map(|(_, node)| node.outputs().to_vec()).flatten();
        Ok(written.map(|value| graph.value(value).name().to_owned()).collect())
    }

    /// Statistics of what a layer reads in two networks, each with what the block reads in it.
    fn statistics(
        &self,
        layer: &Layer,
        place: Place,
        networks: [(&Model, &[Sample]); 2],
    ) -> Result<LayerStatistics, SolveError> {
        let [(first, samples), (second, others)] = networks;
        let segments = [in_front_of(first, layer, place, samples)?, in_front_of(second, layer, place, others)?];
        let empty = StatisticsCollector::new(place.solver.statistics(), &self.model, layer, samples.len())?;
        let mut total = empty.clone();
        let visit = |sums: &mut StatisticsCollector, at: usize, [x, x_hat]: [Ran; 2]| -> Result<(), SolveError> {
            let float = x.values(0).map_err(ExecuteError::from)?;
            let quantized = x_hat.values(0).map_err(ExecuteError::from)?;
            Ok(sums.observe(at, &float, &quantized, x.shape(0), None)?)
        };
        let merge = |part: StatisticsCollector| -> Result<(), SolveError> { Ok(total.merge(part)?) };
        let [first, second] = segments.each_ref().map(|segment| Pool::new(segment, place.runtime));
        let data = [samples, others].map(|samples| Dataset::stored(samples.to_vec()));
        fold_pair([&first, &second], [&data[0], &data[1]], &place.runtime.silent(), || empty.clone(), visit, merge)?;
        Ok(total.finish())
    }

    /// Solves the layers of a block in turn, so that they compute what they do with float weights. `samples` are what the
    /// block reads.
    pub(super) fn solve(&mut self, layers: &[&Layer], place: Place, samples: &[Sample]) -> Result<(), SolveError> {
        let learned = Relaxed::rounded(&self.model, place.scheme, &self.observed)?;
        for layer in layers {
            let quantized = self.quantized(place.scheme)?;
            let statistics = self.statistics(layer, place, [(&learned, samples), (&quantized, samples)])?;
            let Self { model, observed, .. } = &*self;
            let rounded = solve_layer(model, place.scheme, observed, layer, place.solver, Some(&statistics))?;
            self.solved.insert(layer.name.clone(), rounded);
        }
        Ok(())
    }
}

/// Names in a quantized network of the values that a block reads, each in front of its quantizer: `Slice` and `Pad` read
/// the integers. A second rounding changes nothing.
pub(super) fn in_front_of_quantizers(network: &Model, read: &[String]) -> Vec<String> {
    let graph = &network.graph;
    let name = |name: &String| {
        let value = graph.find(name).map(|value| before_quantizer(graph, value));
        value.map_or_else(|| name.clone(), |value| graph.value(value).name().to_owned())
    };
    read.iter().map(name).collect()
}

/// From the start of a block to the input of a layer, found by its name.
fn in_front_of(model: &Model, layer: &Layer, place: Place, samples: &[Sample]) -> Result<Segment, SolveError> {
    let graph = &model.graph;
    let input = input_of(graph, layer)?;
    let first = samples.first().ok_or(ExecuteError::NoSamples)?;
    let read = in_front_of_quantizers(model, place.read);
    Ok(Segment::between(model, &read, first, &[graph.value(input).name().to_owned()])?)
}
