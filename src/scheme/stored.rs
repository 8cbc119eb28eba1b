//! Weights beside the layers, such as embedding tables and recurrent weights: which are stored as integers, in which bits and
//! blocks, and which have the integers of a layer that reads them too.

use super::bit_plan::{ActivationBits, BitPlan, LayerPlan, WeightBits};
use super::select::Selection;
use super::shared::{Twin, twin};
use crate::quant::BitRate;
use crate::quant::weight_grid::WeightGrid;
use indexmap::IndexMap;
use msq_passes::analysis::{Layer, StoredKind, StoredWeight, refuses_stored, stored_weights};
use msq_passes::ir::{DataType, Model};
use msq_passes::{Granularity, Packing, Profile};

/// The fewest bits of an embedding table in blocks, or of one of matrices, that the plan does not name.
const LEAST_OF_TABLES: u8 = 4;

/// Why a node or weight that the plan leaves in float is left there.
pub(super) const PLANNED_FLOAT: &str = "it is float in the plan";

/// The weights beside the layers that are stored as integers, and those that are not.
pub(super) fn stored(
    model: &Model,
    plan: &BitPlan,
    selection: &Selection,
    target: &Profile,
) -> (Vec<StoredWeight>, Vec<(StoredWeight, String)>) {
    let (mut found, mut float) = (Vec::new(), Vec::new());
    for mut weight in stored_weights(model) {
        let planned = stored_plan(plan, &weight).weights == WeightBits::Float;
        let reason = selection.refuses(&weight).or_else(|| planned.then(|| PLANNED_FLOAT.to_owned()));
        let reason = reason.or_else(|| weight.refusal.map(str::to_owned));
        match reason.or_else(|| refuses_stored(&target.forms, &model.graph, &weight)) {
            None => {
                weight.block = table_block(model, plan, &weight, target);
                found.push(weight);
            }
            Some(reason) => float.push((weight, reason)),
        }
    }
    (found, float)
}

/// The plan's entry for a weight beside the layers, else its entry for all layers, else 8 bits. An embedding table that
/// the plan does not name has 8 bits at least, and 4 in blocks: what is looked up is the input of all layers, and no solver
/// makes up for its errors. Matrices that products read are weights of layers in all but name, and have 4 bits at least.
pub(super) fn stored_plan(plan: &BitPlan, weight: &StoredWeight) -> LayerPlan {
    let named = plan.layers.get(&weight.name).copied();
    let of_all = match (weight.kind, plan.default) {
        (StoredKind::Embedding, Some(all)) if weight.matrices => Some(at_least(all, LEAST_OF_TABLES)),
        (StoredKind::Embedding, all) => all.filter(|all| all.weights == WeightBits::Float),
        (_, all) => all,
    };
    let entry = match weight.block {
        // Without zero points.
        Some(block) => {
            let entry = entry_in_blocks(plan, weight).unwrap_or_default().without_blocks();
            LayerPlan { granularity: Some(Granularity::Block(block)), ..entry }
        }
        None => named.or(of_all).unwrap_or_default().without_blocks(),
    };
    // The only operator beside the layers that quantizes at run time what it reads.
    let dynamic = weight.kind == StoredKind::Recurrent && weight.op == "LSTM";
    let activations = if dynamic && entry.activations == ActivationBits::Dynamic {
        ActivationBits::Dynamic
    } else {
        ActivationBits::Float
    };
    LayerPlan { activations, ..entry }
}

/// How a weight beside the layers is packed. Nothing reads its integers in fewer bits: they are unpacked like those of layers
/// without blocks.
pub(super) fn stored_packing(plan: &BitPlan, weight: &StoredWeight) -> Option<Packing> {
    stored_plan(plan, weight).without_blocks().packing(weight.weights())
}

/// What the plan says of a table that may have blocks.
fn entry_in_blocks(plan: &BitPlan, weight: &StoredWeight) -> Option<LayerPlan> {
    plan.layers.get(&weight.name).copied().or(plan.default.map(|all| at_least(all, LEAST_OF_TABLES)))
}

/// A plan with so many bits, where it has fewer.
fn at_least(plan: LayerPlan, bits: u8) -> LayerPlan {
    match plan.weights {
        WeightBits::Bits(rate) if rate >= BitRate::whole(bits) => plan,
        WeightBits::Float => plan,
        WeightBits::Bits(_) | WeightBits::Binary | WeightBits::Ternary => plan.with_weight_bits(bits),
    }
}

/// The values of a row of a table that have one scale, where the plan asks for blocks of 4 or 8 bits and the target runs
/// the forms in which tables are stored in blocks. Tables of float16 have one scale per row.
fn table_block(model: &Model, plan: &BitPlan, weight: &StoredWeight, target: &Profile) -> Option<usize> {
    let entry = entry_in_blocks(plan, weight)?;
    let block = entry.block().filter(|&block| weight.has_blocks(block))?;
    let whole = [4, 8].map(WeightBits::whole).contains(&entry.weights);
    let float = model.graph.constant(weight.value)?.element_type() == Some(DataType::Float);
    (whole && float && target.contrib && target.blocks.is_some()).then_some(block)
}

/// The layers that read stored weights too, by the names of these weights, which take the axis or the blocks of their layer.
/// `whole` are the layers that share weights without blocks.
pub(super) fn twins(
    model: &Model,
    plan: &BitPlan,
    stored: &mut [StoredWeight],
    [whole, in_blocks]: [&[&Layer]; 2],
) -> IndexMap<String, Twin> {
    let mut twins = IndexMap::new();
    for weight in stored {
        if let Some((twin, axis)) = twin(model, weight, whole) {
            weight.axes = vec![axis];
            weight.block = None;
            twins.insert(weight.name.clone(), twin);
        } else if let Some((twin, block)) = twin_in_blocks(model, plan, weight, in_blocks) {
            weight.block = Some(block);
            twins.insert(weight.name.clone(), twin);
        }
    }
    twins
}

/// The layer in blocks along the rows of a table that reads the same weight, and the values in its blocks.
fn twin_in_blocks(model: &Model, plan: &BitPlan, weight: &StoredWeight, layers: &[&Layer]) -> Option<(Twin, usize)> {
    weight.block?;
    let plan_of = |layer: &Layer| plan.layer(&layer.name).unwrap_or_default();
    // Zero points of blocks do not go with a table.
    let symmetric = layers.iter().filter(|layer| plan_of(layer).weight_grid() != WeightGrid::Asymmetric);
    let fits = |layer: &Layer| plan_of(layer).block().filter(|&block| weight.has_blocks(block));
    symmetric.filter_map(|&layer| Some((layer, fits(layer)?))).find_map(|(layer, block)| {
        let (twin, axis) = twin(model, weight, &[layer])?;
        (axis == 0).then_some((twin, block))
    })
}
