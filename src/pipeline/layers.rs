//! The report's entries for layers, and the warnings that follow from a scheme.

use crate::lower::Halved;
use crate::quant::Sqnr;
use crate::quant::weight_grid::WeightGrid;
use crate::report::{HalfReport, LayerReport, LeftFloat, Report, StoredReport, numbers};
use crate::runtime::names;
use crate::scheme::Scheme;
use crate::scheme::bit_plan::{ActivationBits, LayerPlan, WeightBits};
use crate::scheme::options::{Float16, Format};
use crate::solve::network::Solved;
use indexmap::IndexMap;
use msq_passes::analysis::quantized::QuantizedGraph;
use msq_passes::analysis::{Kept, Layer, LayerOp, StoredWeight, layers};
use msq_passes::ir::{Model, Node, ValueId};
use msq_passes::lint::predict_float_on;
use msq_passes::ops::facts;
use msq_passes::{Choice, FuseLstm, Packing, WideActivations};
use std::collections::HashSet;

/// Layers that a note names.
const NAMED: usize = 4;

/// The layers with integer weights, in the order they were solved.
pub(super) fn reports(model: &Model, scheme: &Scheme, solved: &Solved) -> Vec<LayerReport> {
    let mut ordered: Vec<&Layer> = scheme.layers().collect();
    ordered.sort_by_key(|layer| solved.get_index_of(&layer.name));
    ordered.into_iter().map(|layer| report(model, layer, scheme, solved)).collect()
}

fn report(model: &Model, layer: &Layer, scheme: &Scheme, solved: &Solved) -> LayerReport {
    let planned = scheme.layer_plan(layer);
    let solved = solved.get(&layer.name);
    let decibels = |sqnr: Sqnr| Some(sqnr.decibels()).filter(|s| s.is_finite());
    let activation_bits = match planned.activations {
        ActivationBits::Bits(_) => scheme.bits_read(layer),
        ActivationBits::Dynamic if scheme.is_dynamic(layer) => Some(8),
        _ => None,
    };
    LayerReport {
        weight_bits: Some(planned.weights),
        activation_bits,
        weight_sqnr: solved.and_then(|s| decibels(s.weight_sqnr)),
        output_sqnr: solved.and_then(|s| decibels(s.output_sqnr?)),
        bytes: planned.packed_bytes(layer.weights(), layer.channels()),
        ..float_report(model, layer)
    }
}

/// The layers that stay in float with float weights.
pub(super) fn float_reports(model: &Model, scheme: &Scheme) -> Vec<LayerReport> {
    let float = |layer: &Layer| !scheme.is_on_integers(layer) && !scheme.is_weight_only(layer);
    let own = layers(model);
    let stay = own.iter().filter(|layer| float(layer)).map(|layer| float_report(model, layer));
    stay.chain(computed_reports(model)).collect()
}

/// Layers whose weight the graph computes from constants, which was not folded because the file would grow.
fn computed_reports(model: &Model) -> Vec<LayerReport> {
    let graph = &model.graph;
    let constants = QuantizedGraph::new(model);
    let report = |(_, node): (_, &Node)| {
        let op = LayerOp::of(node)?;
        let slots = facts(op.name()).operands?.weight;
        let computed = |&value: &ValueId| graph.constant(value).is_none() && constants.is_constant(value);
        let weight = slots.iter().filter_map(|&slot| node.input(slot)).find(computed)?;
        let shape: Vec<usize> = graph.value(weight).shape()?.into_iter().collect::<Option<_>>()?;
        Some(in_float(node.label(graph), op, shape, None))
    };
    graph.nodes().filter_map(report).collect()
}

/// Marks the layers of a QDQ graph that the target's runtime computes in float all the same, by the judgement of the linter,
/// and lists them. Between activations of 16 bits that is so for all layers, or for none.
pub(super) fn mark_float(reports: &mut [LayerReport], model: &Model, scheme: &Scheme) -> Vec<Kept> {
    if scheme.output.format != Format::Qdq {
        return Vec::new();
    }
    let found = predict_float_on(model, &scheme.target);
    let computes_wide = scheme.target.wide_activations == WideActivations::Kernels;
    let mut kept = Vec::new();
    for report in reports {
        let predicted = || found.iter().find(|float| float.node == report.name).map(|float| float.reason.clone());
        let reason = match report.activation_bits {
            None => continue,
            Some(bits) if bits > 8 && computes_wide => continue,
            Some(bits) if bits > 8 => {
                Some(format!("`{}` has no kernels for activations of 16 bits", scheme.target.name))
            }
            Some(_) => predicted(),
        };
        let Some(reason) = reason else { continue };
        kept.push(Kept { node: report.name.clone(), op: report.op.name().to_owned(), reason: reason.clone() });
        report.stays_float = Some(reason);
    }
    kept
}

/// What stays float of a QDQ graph: not what quantizes its input at run time, around which no quantizers are placed.
pub(super) fn kept(scheme: &Scheme, model: &Model) -> Vec<Kept> {
    let recurrent: HashSet<&str> = model
        .graph
        .nodes()
        .filter(|(_, node)| node.op() == FuseLstm::OPERATOR)
        .map(|(_, node)| node.label(&model.graph))
        .collect();
    let dynamic = |name: &str| {
        recurrent.contains(name)
            || scheme.weight_only.iter().any(|layer| layer.name == name && scheme.is_dynamic(layer))
    };
    scheme.placement.kept.iter().filter(|kept| !dynamic(&kept.node)).cloned().collect()
}

/// What became float16.
pub(super) fn halved(halved: Halved) -> HalfReport {
    let Halved { nodes, constants, bytes, declined } = halved;
    let left = declined.into_iter().map(|left| LeftFloat { name: left.site, reason: left.reason }).collect();
    HalfReport { nodes, constants, bytes, left }
}

/// The weights beside the layers, those stored as integers first.
pub(super) fn stored_reports(scheme: &Scheme, solved: &Solved) -> Vec<StoredReport> {
    let float = |weight: &StoredWeight, reason: Option<String>| StoredReport {
        name: weight.name.clone(),
        kind: weight.kind,
        op: weight.op.clone(),
        shape: weight.shape.clone(),
        weights: weight.weights(),
        weight_bits: None,
        bytes: weight.float_bytes,
        weight_sqnr: None,
        reason,
    };
    let stored = scheme.stored.iter().map(|weight| {
        let planned = scheme.stored_plan(weight);
        let Some(rounded) = solved.get(&weight.name) else {
            let reason = "its numbers are not finite, as large as a mask's, or too far apart for 8 bits";
            return float(weight, Some(reason.to_owned()));
        };
        StoredReport {
            weight_bits: Some(planned.weights),
            bytes: planned.packed_bytes(weight.weights(), weight.scales()),
            weight_sqnr: Some(rounded.weight_sqnr.decibels()).filter(|sqnr| sqnr.is_finite()),
            ..float(weight, None)
        }
    });
    let left = scheme.stored_float.iter().map(|(weight, reason)| float(weight, Some(reason.clone())));
    stored.chain(left).collect()
}

/// Why the file is larger than the float model, where it is; `staying` says which large constants stay float.
pub(super) fn growth(report: &Report, staying: Option<&str>) -> Option<String> {
    let grown = report.bytes.checked_sub(report.float_bytes).filter(|&grown| grown > 0)?;
    let of_layers = report.layers.iter().map(|layer| 4 * layer.weights - layer.bytes.min(4 * layer.weights));
    let of_stored = report.stored.iter().map(|weight| 4 * weight.weights - weight.bytes.min(4 * weight.weights));
    let saved: usize = of_layers.chain(of_stored).sum();
    Some(format!(
        "the file is {} larger than the float model: quantizers, scales and names take more than the {} that integer \
         weights save{}; option `strip-names` makes it smaller, and a model as small as this may be better off in float",
        numbers::bytes(grown),
        numbers::bytes(saved as u64),
        staying.map_or_else(String::new, |staying| format!(", and {staying}"))
    ))
}

fn float_report(model: &Model, layer: &Layer) -> LayerReport {
    in_float(&layer.name, layer.op, layer.shape.clone(), layer.macs_per_sample(&model.graph))
}

/// A layer with a float weight of this shape.
fn in_float(name: &str, op: LayerOp, shape: Vec<usize>, macs: Option<u64>) -> LayerReport {
    let weights = shape.iter().product();
    LayerReport {
        name: name.to_owned(),
        op,
        shape,
        weights,
        macs,
        weight_bits: None,
        activation_bits: None,
        stays_float: None,
        bytes: 4 * weights,
        weight_sqnr: None,
        output_sqnr: None,
        network_sqnr: None,
        weight_distribution: None,
        input_distribution: None,
    }
}

/// Layers whose solution was given up.
fn fallen_back(solved: &Solved) -> Option<String> {
    let layers: Vec<&str> =
        solved.iter().filter(|(_, rounded)| rounded.fell_back).map(|(name, _)| name.as_str()).collect();
    (!layers.is_empty()).then(|| {
        format!(
            "{} of {} weights are rounded to nearest, because what the solver found is worse than that on held-out \
             samples: {}; more samples may help",
            layers.len(),
            solved.len(),
            names::quoted(&layers)
        )
    })
}

/// Layers that a solver was to solve and could not take, by reason.
fn unsolved(solved: &Solved) -> Vec<String> {
    let mut by_reason: IndexMap<&str, Vec<&str>> = IndexMap::new();
    for (name, rounded) in solved {
        if let Some(reason) = &rounded.unsolved {
            by_reason.entry(reason).or_default().push(name);
        }
    }
    let note = |(reason, layers): (&str, Vec<&str>)| {
        let are = if layers.len() == 1 { "is" } else { "are" };
        format!(
            "{} {are} rounded to nearest, because the solver cannot take layers like this: {reason} ({})",
            numbers::counted(layers.len(), "layer"),
            names::first(NAMED, &layers)
        )
    };
    by_reason.into_iter().map(note).collect()
}

/// Warnings about how the target runtime will execute this file, and about what was not calibrated or not solved.
/// In the file, operators of the format are `used`, where it asks for any.
pub(super) fn notes(scheme: &Scheme, solved: &Solved, (model, used): (&Model, bool)) -> Vec<String> {
    let wide = |plan: LayerPlan| {
        let listed = matches!(plan.weight_grid(), WeightGrid::Codebook | WeightGrid::BinaryBases | WeightGrid::Trellis);
        plan.weights == WeightBits::whole(8) || listed
    };
    let narrow = !scheme.placement.layers().any(|layer| wide(scheme.layer_plan(layer)));
    let on_integers = scheme.placement.layers().next().is_some();
    let forms: Vec<Packing> = scheme.packings.values().copied().collect();
    let made = |choice| match choice {
        Choice::NarrowWeights => narrow && on_integers,
        Choice::IntegerFormat => scheme.output.format == Format::Integer && used,
        Choice::Functions => scheme.output.functions && !forms.is_empty(),
        Choice::WideActivations => scheme.is_wide(),
        Choice::Blocks => scheme.layers().any(|layer| scheme.layer_plan(layer).block().is_some()),
        Choice::Int4 => forms.contains(&Packing::Int4),
        Choice::Float16 => scheme.output.float16 == Some(Float16::All),
        Choice::Int2 => forms.contains(&Packing::Int2),
        Choice::OpenShapes => has_open_inputs(model),
        _ => false,
    };
    let notes = scheme.target.notes_about(made).map(str::to_owned);
    scheme.coverage.note().into_iter().chain(fallen_back(solved)).chain(unsolved(solved)).chain(notes).collect()
}

/// Whether the length of an axis of an input is not stated.
fn has_open_inputs(model: &Model) -> bool {
    let is_open = |value| model.graph.value(value).shape().is_none_or(|shape| shape.contains(&None));
    model.graph.runtime_inputs().any(is_open)
}
