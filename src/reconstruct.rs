//! Solves layer after layer, each by what it reads once those before it are quantized.
//!
//! For every layer in graph order: the moments H = Σ x̂·x̂ᵀ and C = Σ x·x̂ᵀ of what it reads in the quantized network (x̂)
//! and in the float one (x) are summed over all samples ([`crate::kernels`]), and its weights become the integers that
//! change least what it computes ([`crate::solve::gram`]), making up for the errors of the layers before. Layers the
//! kernels do not know, or whose products are too large, and parts of the network the engine does not run alone,
//! keep the integers they were rounded to.

use crate::data::Dataset;
use crate::kernels::{Geometry, Gram, KernelError, Sampling};
use crate::lower::{Biases, quantize_graph};
use crate::observe::Observed;
use crate::progress::Progress;
use crate::sequential::{Reading, Summary, Walk};
use crate::solve::Rounded;
use crate::work::{Solved, Work};
use crate::{Error, Options};
use msq_passes::analysis::Layer;
use msq_passes::ir::Model;

/// Bytes the values between solved and unsolved layers may take, unless the memory allowed says otherwise.
const CUTS: u64 = 256 << 20;

/// Replaces rounded layers by better ones.
pub(crate) fn reconstruct(
    model: &Model,
    work: &Work,
    observed: &Observed,
    solved: &mut Solved,
    data: &Dataset,
    options: &Options,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let order: Vec<Layer> = solved.keys().filter_map(|name| work.layers().find(|l| l.name == *name).cloned()).collect();
    let budget = options.memory.map_or(CUTS, |memory| memory / 4);
    let mut walk = Walk::new(model, data, budget, options.threads);
    progress.begin("solve", order.len() as u64);
    for (at, layer) in order.iter().enumerate() {
        let mut one = || -> Result<Rounded, Error> {
            let (geometry, empty) = gram(model, layer)?;
            let mut quantized = model.clone();
            quantize_graph(&mut quantized, &work.placement, observed, solved, Biases::Exact)?;
            let sums = walk.step(model, &quantized, layer, &order[at..], || Sums(empty.clone()))?;
            work.round_layer(model, observed, options, layer, Some((&geometry, &sums.0.finish())))
        };
        match one() {
            Ok(rounded) => {
                solved.insert(layer.name.clone(), rounded);
            }
            // A form the kernels do not know; or the engine ran the model whole, but not this part of it.
            Err(reason @ (Error::Kernel(_) | Error::Engine(_))) => {
                tracing::warn!(layer = layer.name, %reason, "rounded to nearest");
            }
            Err(error) => return Err(error),
        }
        progress.advance(1);
    }
    progress.end();
    Ok(())
}

fn gram(model: &Model, layer: &Layer) -> Result<(Geometry, Gram), KernelError> {
    let geometry = Geometry::new(layer, model.graph.node(layer.node))?;
    let gram = Gram::new(geometry.clone(), Sampling::default())?;
    Ok((geometry, gram))
}

struct Sums(Gram);

impl Summary for Sums {
    fn observe(&mut self, reading: Reading) -> Result<(), Error> {
        let Reading { sample, shape, float, quantized } = reading;
        Ok(self.0.observe(sample, float, quantized, shape)?)
    }

    fn merge(&mut self, other: Self) -> Result<(), Error> {
        Ok(self.0.merge(other.0)?)
    }
}
