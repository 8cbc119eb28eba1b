//! Pass `hoist-constants`: large float constants of sub-graphs become initializers of the main graph.
//!
//! The body of an `If`, `Loop` or `Scan` reads values of the graph around it by name, so a constant may stand in either.
//! In the main graph it is stored once for all bodies, found by later passes, and computed from its integers once when a
//! runtime loads the model, not at every iteration. No value changes.
//!
//! Not changed: constants of fewer than 256 elements, vectors, other types than floats, and constants that are inputs or
//! outputs of their sub-graph.

use crate::ir::{Model, TensorProto};
use crate::pass::{Outcome, Pass, PassError};

/// Elements from which on a constant is a weight.
const LEAST: usize = 256;

/// Moves weights of sub-graphs to the main graph.
#[derive(Clone, Copy, Debug, Default)]
pub struct HoistConstants;

impl Pass for HoistConstants {
    fn name(&self) -> &'static str {
        "hoist-constants"
    }

    fn about(&self) -> &'static str {
        "large float constants of sub-graphs become initializers of the main graph"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let weight = |tensor: &TensorProto| {
            tensor.is_float() && tensor.dims.len() >= 2 && tensor.element_count().is_ok_and(|count| count >= LEAST)
        };
        let changed = model.graph.hoist_constants(weight);
        Ok(Outcome { changed, declined: Vec::new() })
    }
}
