//! From the QDQ graph to the file: form of operators, packing of weights, float16, names.

use crate::scheme::Scheme;
use crate::scheme::options::{Float16, Format};
use indexmap::IndexMap;
use msq_passes::analysis::{Layer, LayerOp};
use msq_passes::ir::{DataType, Model, NodeId, TensorProto};
use msq_passes::pipelines::{self, Finish, Form};
use msq_passes::{CleanNames, Declined, FuseNBits, HalfPrecision, Magnitude, PassError, PassObserver, WidenChannels};
use std::collections::HashSet;

/// Names that a file no longer has.
#[derive(Debug, Default)]
pub(crate) struct Shortened {
    /// Of inner values, with the names that they got.
    pub(crate) values: IndexMap<String, String>,
    /// Of nodes, in the order of the graph; `None` where nodes have their names.
    pub(crate) nodes: Option<Vec<String>>,
}

/// What became float16 or bfloat16.
#[derive(Debug)]
pub(crate) struct Halved {
    /// How many nodes compute in it.
    pub(crate) nodes: usize,
    /// How many constants are of it.
    pub(crate) constants: usize,
    /// Their bytes.
    pub(crate) bytes: usize,
    /// Nodes and constants of the float model that stay float.
    pub(crate) declined: Vec<Declined>,
}

/// What makes float16 of what stays float, as far as that is `wanted`. `float` is the prepared model, of whose values these
/// magnitudes were seen.
pub(crate) fn half_precision(
    float: &Model,
    scheme: &Scheme,
    wanted: Option<Float16>,
    magnitudes: &IndexMap<String, Magnitude>,
) -> Option<HalfPrecision> {
    let on_integers = scheme.placement.nodes.keys().map(|&node| float.graph.node(node).label(&float.graph).to_owned());
    wanted.map(|wanted| HalfPrecision {
        computation: wanted == Float16::All,
        bfloat16: wanted == Float16::Bfloat16,
        quantizers: scheme.target.half_quantizers,
        on_integers: on_integers.collect(),
        magnitudes: magnitudes.clone(),
        simulated: false,
    })
}

/// The QDQ graph with the numbers rounded as in float16, for an engine that computes in float32.
pub(crate) fn simulated(model: &Model, halves: HalfPrecision) -> Result<Model, PassError> {
    let mut rounded = model.clone();
    pipelines::halve(Some(HalfPrecision { simulated: true, ..halves })).run(&mut rounded)?;
    Ok(rounded)
}

/// Makes float16 of what stays float.
fn halve(
    model: &mut Model,
    float: &Model,
    halves: HalfPrecision,
    observer: Option<&dyn PassObserver>,
) -> Result<Halved, PassError> {
    let nodes = halves.nodes(model)?;
    // Those that quantizing or packing added are nobody's concern.
    let own: HashSet<&str> = float.graph.nodes().map(|(_, node)| node.label(&float.graph)).collect();
    let nodes = nodes.iter().filter(|&&node| own.contains(model.graph.node(node).label(&model.graph))).count();
    let is_own = |site: &str| own.contains(site) || float.graph.find(site).is_some();
    let records = pipelines::halve(Some(halves)).observed(observer).run(model)?;
    let declined = records.into_iter().flat_map(|record| record.outcome.declined).filter(|d| is_own(&d.site)).collect();
    let constants = model.graph.initializers().map(|(_, tensor)| tensor);
    let is_half = |tensor: &&TensorProto| matches!(tensor.element_type(), Some(DataType::Float16 | DataType::Bfloat16));
    let constants: Vec<&TensorProto> = constants.filter(is_half).collect();
    let bytes = constants.iter().filter_map(|tensor| tensor.byte_count()).sum();
    Ok(Halved { nodes, constants: constants.len(), bytes, declined })
}

/// Brings the QDQ graph of a float model into the form, the types and the size that the scheme requests. Returns the names
/// that were shortened, and what became float16.
pub(crate) fn finish(
    model: &mut Model,
    (float, scheme): (&Model, &Scheme),
    halves: Option<HalfPrecision>,
    observer: Option<&dyn PassObserver>,
) -> Result<(Shortened, Option<Halved>), PassError> {
    let (output, strip) = (&scheme.output, scheme.is_stripped());
    let form = match output.format {
        Format::Qdq => Form::Qdq,
        Format::Qlinear => Form::Qlinear { contrib: scheme.target.contrib },
        Format::Integer => Form::Integer,
        Format::Nbits => Form::NBits(FuseNBits { bits: bits_of_blocks(scheme), tables: bits_of_tables(scheme) }),
    };
    let (mut packings, functions) = (scheme.packings.clone(), output.functions);
    if let Form::NBits(FuseNBits { bits, .. }) = &form {
        // Tables that are not fused are packed.
        packings.retain(|name, _| !bits.contains_key(name));
    }
    let half_scales = output.half_scales;
    let widened = if form == Form::Integer { WidenChannels::default() } else { widened(float, scheme) };
    let wanted = Finish { packings, functions, form, widened, half_scales, strip };
    pipelines::finish(wanted, &scheme.target).observed(observer).run(model)?;
    let halved = halves.map(|halves| halve(model, float, halves, observer)).transpose()?;
    pipelines::sink(scheme.target.folds_in_subgraphs).observed(observer).run(model)?;
    let names = CleanNames { strip };
    let values = names.plan(model);
    let labels = || model.graph.nodes().map(|(_, node)| node.label(&model.graph).to_owned()).collect();
    let nodes = strip.then(labels);
    pipelines::rename(names).observed(observer).run(model)?;
    Ok((Shortened { values, nodes }, halved))
}

/// The output channels of convolutions that the target is faster with more of, by name.
fn widened(float: &Model, scheme: &Scheme) -> WidenChannels {
    let label = |node: NodeId| float.graph.node(node).label(&float.graph).to_owned();
    let layers = scheme.placement.widened.iter();
    let shape = |layer: &Layer| (layer.name.clone(), layer.shape.clone());
    WidenChannels {
        layers: layers.map(|(&node, &channels)| (label(node), channels)).collect(),
        weights: scheme.placement.layers().filter(|layer| layer.op == LayerOp::Conv).map(shape).collect(),
        records: !scheme.is_stripped(),
    }
}

/// Bits of the tables that have one scale per block, by name.
fn bits_of_tables(scheme: &Scheme) -> IndexMap<String, u8> {
    let tables = scheme.stored.iter().filter(|weight| weight.block.is_some());
    tables.map(|table| (table.name.clone(), scheme.stored_plan(table).weights.width())).collect()
}

/// Bits of the weights that have one scale per block, by layer name.
fn bits_of_blocks(scheme: &Scheme) -> IndexMap<String, u8> {
    let planned = scheme.layers().map(|layer| (layer, scheme.layer_plan(layer)));
    let blocks = planned.filter(|(_, plan)| plan.block().is_some());
    blocks.map(|(layer, plan)| (layer.name.clone(), plan.weights.width())).collect()
}
