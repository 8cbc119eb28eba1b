//! The back end that is built in: tract. The only folder that names it.
//!
//! A plan is a model optimized for one set of input shapes, or for lengths that are symbols; one image at a time on every
//! thread is faster in tract than batches. What tract says of an error, and its panics, become [`EngineError`]s here and
//! go no further.

mod activation;
mod attention;
mod blowup;
mod bounded;
mod broadcast;
mod classical;
mod compare;
mod convolution;
mod dequantize;
mod differing;
mod facts;
mod fake_quantize;
mod load;
mod lookup;
mod lowering;
mod lowerings;
mod matmul;
mod nbits;
mod operators;
mod own;
mod plan;
mod processor;
mod quantize;
mod suppression;
mod symbolic;
mod tensor;
#[cfg(test)]
mod testing;
mod trees;
mod typed;
mod wide;

use super::contained::contained;
use super::{Backend, EngineError, Facts, Length, Plan};
use msq_passes::ir::{Model, NodeId};
use std::sync::Arc;

/// The version of tract, which has no constant for it.
const VERSION: &str = "0.23.9";

/// tract.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tract;

impl Backend for Tract {
    fn name(&self) -> &'static str {
        "tract"
    }

    fn version(&self) -> &'static str {
        VERSION
    }

    fn load(&self, model: &Model, shapes: &[Vec<usize>]) -> Result<Arc<dyn Plan>, EngineError> {
        processor::leave_out_unsound_kernels();
        let plan = contained(|| plan::TractPlan::new(model, shapes), |reason| EngineError::Load { reason })?;
        Ok(Arc::new(plan))
    }

    fn load_any_length(&self, model: &Model, shapes: &[Vec<Length>]) -> Result<Option<Arc<dyn Plan>>, EngineError> {
        processor::leave_out_unsound_kernels();
        if let Some(node) = symbolic::compares_lengths(&model.graph) {
            let node = model.graph.node(node).label(&model.graph);
            tracing::info!(node, "no plan for samples of any length: it compares lengths");
            return Ok(None);
        }
        let plan = contained(|| plan::TractPlan::of_lengths(model, shapes), |reason| EngineError::Load { reason });
        // What it cannot do with a length that is left open, it may do with one that is given.
        let failed = |error: &EngineError| tracing::info!(%error, "no plan for samples of any length");
        Ok(plan.inspect_err(failed).ok().map(|plan| Arc::new(plan) as Arc<dyn Plan>))
    }

    fn infer(&self, model: &Model) -> Result<Facts, EngineError> {
        processor::leave_out_unsound_kernels();
        contained(|| facts::infer(model), |reason| EngineError::Load { reason })
    }

    fn unknown(&self, model: &Model) -> Vec<(NodeId, String)> {
        processor::leave_out_unsound_kernels();
        load::unknown(model)
    }
}
