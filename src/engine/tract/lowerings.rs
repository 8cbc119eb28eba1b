//! What is written anew before tract has a model, in order.

use super::lowering::Lowering;
use super::{attention, classical, dequantize, lookup, nbits, quantize, suppression, wide};
use crate::engine::EngineError;
use msq_passes::ir::{Graph, Model, NodeId};

/// Those that keep the types of all values, in their order: lookups before products, which take away words that a table may
/// share.
const KEEPING_TYPES: [&dyn Lowering; 8] = [
    &dequantize::Constants,
    &dequantize::Blocked,
    &lookup::Lookups,
    &nbits::Products,
    &classical::Classical,
    &attention::Attentions,
    &suppression::Limits,
    &quantize::ZeroPoints,
];

/// Whether a node of the main graph is written anew because tract would not run it or not compute it right.
pub(super) fn mends(graph: &Graph, node: NodeId) -> bool {
    KEEPING_TYPES.iter().any(|lowering| lowering.mends(graph, node)) || wide::Wide.mends(graph, node)
}

/// Writes anew what needs it; the types of all values stay.
pub(super) fn lower(model: &mut Model) -> Result<(), EngineError> {
    KEEPING_TYPES.iter().try_for_each(|lowering| lowering.lower(model))
}

/// The same for a model that is to be run: integers of 16 bits become floats.
pub(super) fn lower_to_run(model: &mut Model) -> Result<(), EngineError> {
    lower(model)?;
    wide::Wide.lower(model)
}
