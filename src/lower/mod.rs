//! From decisions to a file: quantizers and integers into the graph, then the form, the packing, the names.

use crate::calibrate::observe::Observed;
use crate::pipeline::work::Solved;
use crate::scheme::bit_plan::BitPlan;
use crate::solve::Rounded;
use crate::{Error, Format, Options};
use indexmap::IndexMap;
use msq_passes::analysis::{Layer, Placement};
use msq_passes::ir::Model;
use msq_passes::{
    CleanNames, CompactIntegers, DropDefaults, EliminateDeadNodes, FuseQlinear, HalfConstants, InsertQdq, LayerBias,
    LowerInteger, Manager, PackWeights, Packing, QuantizedLayer, ShareConstants, StoreWeights,
};

/// Which biases are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Biases {
    /// Those the kernels compute with.
    Exact,
    /// Half precision where the runtime rounds it to the same.
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

/// Writes quantizers and integer weights into the graph, as QDQ: the form that says what it computes.
pub(crate) fn quantize_graph(
    model: &mut Model,
    placement: &Placement,
    observed: &Observed,
    solved: &Solved,
    biases: Biases,
) -> Result<(), Error> {
    let on_integers: Vec<&str> = placement.layers().map(|layer| layer.name.as_str()).collect();
    let written = solved.iter().map(|(name, rounded)| (name.clone(), biases.layer(rounded)));
    let (layers, stored): (IndexMap<String, QuantizedLayer>, IndexMap<String, QuantizedLayer>) =
        written.partition(|(name, _)| on_integers.contains(&name.as_str()));
    Manager::new()
        .with(InsertQdq {
            placement,
            activations: &observed.activations,
            narrower: &observed.narrower,
            layers: &layers,
        })
        // The placement's handles are not needed any more.
        .with(StoreWeights { layers: &stored })
        // The float weights are unread now.
        .with(EliminateDeadNodes)
        .run(model)?;
    Ok(())
}

/// How each layer is packed; empty where nothing is.
pub(crate) fn packings<'a>(layers: impl Iterator<Item = &'a Layer>, plan: &BitPlan) -> IndexMap<String, Packing> {
    let packing = |layer: &Layer| Some((layer.name.clone(), plan.layer(&layer.name)?.packing(layer.weights())?));
    layers.filter_map(packing).collect()
}

/// Whether the file is to be as small as it can be.
pub(crate) fn is_stripped(options: &Options, packings: &IndexMap<String, Packing>) -> bool {
    options.output.strip_names.unwrap_or(!packings.is_empty())
}

/// Brings the QDQ graph into the form and size wanted. Returns the names of inner values that were shortened.
pub(crate) fn finish(
    model: &mut Model,
    packings: IndexMap<String, Packing>,
    options: &Options,
) -> Result<IndexMap<String, String>, Error> {
    let strip = is_stripped(options, &packings);
    let mut passes = Manager::new();
    if !packings.is_empty() {
        // Before the form: it looks for a layer's integers behind its name.
        passes = passes.with(PackWeights { layers: packings, functions: options.output.functions });
    }
    match options.output.format {
        Format::Qdq => {}
        Format::Qlinear => passes = passes.with(FuseQlinear { contrib: options.scheme.profile.contrib }),
        Format::Integer => passes = passes.with(LowerInteger),
    }
    // What the form has taken in is unread.
    passes = passes.with(EliminateDeadNodes);
    if options.output.half_scales {
        passes = passes.with(HalfConstants);
    }
    if strip {
        passes = passes
            // Constants of the passes before are many and alike.
            .with(ShareConstants)
            .with(DropDefaults)
            .with(CompactIntegers);
    }
    passes.run(model)?;
    let names = CleanNames { strip };
    let shortened = names.plan(model);
    // Last: the passes before name what they make.
    Manager::new().with(names).run(model)?;
    Ok(shortened)
}
