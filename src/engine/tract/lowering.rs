//! What writes nodes anew before tract has a model: those of operators that tract does not know, computes otherwise than the
//! operator set, or loads slowly.

use crate::engine::EngineError;
use msq_passes::ir::{Graph, Model, NodeId};

/// A kind of node that is written anew.
pub(super) trait Lowering: Sync {
    /// Whether a node is one that tract, as it stands, would not run or not compute right.
    fn mends(&self, graph: &Graph, node: NodeId) -> bool;

    /// Writes every node of the kind anew, in the main graph.
    fn lower(&self, model: &mut Model) -> Result<(), EngineError>;
}
