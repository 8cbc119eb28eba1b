//! From the QDQ graph to the file: form of operators, packing of weights, names.

use crate::scheme::Scheme;
use crate::scheme::options::Format;
use indexmap::IndexMap;
use msq_passes::ir::Model;
use msq_passes::pipelines::{self, Finish, Form};
use msq_passes::{CleanNames, PassError, PassObserver};

/// Names that a file no longer has.
#[derive(Debug, Default)]
pub(crate) struct Shortened {
    /// Of inner values, with the names that they got.
    pub(crate) values: IndexMap<String, String>,
    /// Of nodes, in the order of the graph; `None` where nodes have their names.
    pub(crate) nodes: Option<Vec<String>>,
}

/// Brings the QDQ graph into the form and size that the scheme requests. Returns the names that were shortened.
pub(crate) fn finish(
    model: &mut Model,
    scheme: &Scheme,
    observer: Option<&dyn PassObserver>,
) -> Result<Shortened, PassError> {
    let (output, strip) = (&scheme.output, scheme.is_stripped());
    let form = match output.format {
        Format::Qdq => Form::Qdq,
        Format::Qlinear => Form::Qlinear { contrib: scheme.target.contrib },
        Format::Integer => Form::Integer,
        Format::Nbits => Form::NBits { bits: bits_of_blocks(scheme) },
    };
    let (mut packings, functions) = (scheme.packings.clone(), output.functions);
    if let Form::NBits { bits } = &form {
        packings.retain(|name, _| !bits.contains_key(name));
    }
    let wanted = Finish { packings, functions, form, half_scales: output.half_scales, strip };
    pipelines::finish(wanted).observed(observer).run(model)?;
    let names = CleanNames { strip };
    let values = names.plan(model);
    let labels = || model.graph.nodes().map(|(_, node)| node.label(&model.graph).to_owned()).collect();
    let nodes = strip.then(labels);
    pipelines::rename(names).observed(observer).run(model)?;
    Ok(Shortened { values, nodes })
}

/// Bits of the weights that have one scale per block, by layer name.
fn bits_of_blocks(scheme: &Scheme) -> IndexMap<String, u8> {
    let planned = scheme.layers().map(|layer| (layer, scheme.layer_plan(layer)));
    let blocks = planned.filter(|(_, plan)| plan.block().is_some());
    blocks.map(|(layer, plan)| (layer.name.clone(), plan.weights.width())).collect()
}
