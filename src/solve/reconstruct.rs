//! Solves layer after layer, each by what it reads once those before it are quantized.
//!
//! For every layer in graph order: what the solver has to see of what the layer reads, in the quantized network (x̂) and
//! in the float one (x), is collected over all samples ([`crate::kernels`]), and its weights become the integers that
//! change least what it computes ([`crate::solve`]), making up for the errors of the layers before. A solver may also
//! give the layer's input another scale, where nothing but the layer reads it ([`Scheme::own_input`]). Layers the kernels do not know, or whose products are too large, and parts of the network the engine does not run alone,
//! keep the integers they were rounded to.

use super::network::{Biases, Solved, quantize_graph, solve_layer};
use crate::Error;
use crate::calibrate::observe::Observed;
use crate::data::Dataset;
use crate::execute::walk::{Reading, Summary, Walk};
use crate::kernels::{ColumnSampler, Geometry, Gram, KernelError, Sampling};
use crate::runtime::Runtime;
use crate::scheme::Scheme;
use crate::solve::{Evidence, Rounded, Sights, solver};
use msq_passes::analysis::Layer;
use msq_passes::ir::Model;

/// Bytes the values between solved and unsolved layers may take, unless the memory allowed says otherwise.
const CUTS: u64 = 256 << 20;

/// Replaces rounded layers by better ones, if the solver has to see what they read.
pub(crate) fn reconstruct(
    model: &Model,
    scheme: &Scheme,
    observed: &mut Observed,
    solved: &mut Solved,
    data: &Dataset,
    runtime: &Runtime,
) -> Result<(), Error> {
    let solver = solver(scheme);
    if solver.evidence() == Evidence::Nothing {
        return Ok(());
    }
    let seen =
        |layer: &Layer| scheme.coverage.sees(model, layer.input) && scheme.coverage.refusal(layer.node).is_none();
    let layers = solved.keys().filter_map(|name| scheme.layers().find(|l| l.name == *name).cloned());
    let order: Vec<Layer> = layers.filter(seen).collect();
    let budget = runtime.memory.map_or(CUTS, |memory| memory / 4);
    let mut walk = Walk::new([model, model], data, budget, runtime);
    runtime.begin("solve", order.len() as u64);
    for (at, layer) in order.iter().enumerate() {
        if scheme.given_weight_scales(model, layer).is_some() {
            // Rounded to nearest on the scales given.
            runtime.step(1)?;
            continue;
        }
        let own = scheme.own_input(&model.graph, layer).filter(|_| solver.scales_input());
        let own = own.map(|value| model.graph.value(value).name());
        let mut one = || -> Result<Rounded, Error> {
            let empty = Summed::new(model, layer, solver.evidence(), data.len(), scheme.solve.position_step)?;
            let mut quantized = model.clone();
            quantize_graph(&mut quantized, scheme, observed, solved, Biases::Exact, None)?;
            let sums = walk.read(model, &quantized, (layer, own), &order[at..], || empty.clone())?;
            solve_layer(model, scheme, observed, layer, solver.as_ref(), Some(&sums.finish()))
        };
        match one() {
            Ok(rounded) => {
                let quantizer = own.and_then(|name| observed.activations.get_mut(name));
                if let (Some(quantizer), Some(scale)) = (quantizer, rounded.input_scale) {
                    quantizer.scale = scale;
                }
                solved.insert(layer.name.clone(), rounded);
            }
            // A form the kernels do not know; or the engine ran the model whole, but not this part of it.
            Err(reason @ (Error::Kernel(_) | Error::Engine(_))) => {
                tracing::warn!(layer = layer.name, %reason, "rounded to nearest");
            }
            Err(error) => return Err(error),
        }
        runtime.step(1)?;
    }
    runtime.end();
    Ok(())
}

/// What is collected of what a layer reads.
#[derive(Clone)]
struct Summed {
    geometry: Geometry,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Moments(Gram),
    Columns(ColumnSampler),
}

impl Summed {
    fn new(model: &Model, layer: &Layer, evidence: Evidence, samples: usize, step: usize) -> Result<Self, KernelError> {
        let geometry = Geometry::new(layer, model.graph.node(layer.node))?;
        let kind = match evidence {
            Evidence::Columns => Kind::Columns(ColumnSampler::new(geometry.clone(), samples)),
            Evidence::Moments | Evidence::Nothing => {
                let gram = Gram::new(geometry.clone(), Sampling { step, ..Sampling::default() })?;
                if gram.blocks() > 1 {
                    let (layer, blocks) = (&layer.name, gram.blocks());
                    tracing::info!(layer, blocks, "long columns: correlations between blocks are left out");
                }
                Kind::Moments(gram)
            }
        };
        Ok(Self { geometry, kind })
    }

    fn finish(self) -> Sights {
        match self.kind {
            Kind::Moments(gram) => Sights::Moments(self.geometry, gram.finish()),
            Kind::Columns(columns) => Sights::Columns(self.geometry, columns.finish()),
        }
    }
}

impl Summary for Summed {
    type Error = Error;

    fn observe(&mut self, reading: Reading) -> Result<(), Error> {
        let Reading { sample, shape, float, quantized } = reading;
        match &mut self.kind {
            Kind::Moments(gram) => gram.observe(sample, float, quantized, shape)?,
            Kind::Columns(columns) => columns.observe(sample, float, quantized, shape)?,
        }
        Ok(())
    }

    fn merge(&mut self, other: Self) -> Result<(), Error> {
        match (&mut self.kind, other.kind) {
            (Kind::Moments(gram), Kind::Moments(other)) => gram.merge(other)?,
            (Kind::Columns(columns), Kind::Columns(other)) => columns.merge(other)?,
            _ => return Err(KernelError::Merge.into()),
        }
        Ok(())
    }
}
