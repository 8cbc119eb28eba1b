//! `NonMaxSuppression` of boxes whose number left is known while the graph is read: of none, and of constants.
//!
//! tract says of the result that it has x rows, and refuses a graph that then turns out to have 0. Nothing is said of the
//! rows here.

use super::{Built, tracts_expansion};
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{DatumType, OutletId, ToDim};
use tract_onnx::tract_core::internal::{StaticName, TVec, TractResult, TypedModel};
use tract_onnx::tract_hir::infer::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::{Expansion, check_output_arity, expand};

/// tract's operator without its word on the number of rows.
#[derive(Clone, Debug)]
struct Suppression(Box<dyn Expansion>);

pub(super) fn build(context: &ParsingContext, node: &NodeProto) -> Built {
    Ok((expand(Suppression(tracts_expansion(context, node)?)), Vec::new()))
}

impl Expansion for Suppression {
    fn name(&self) -> StaticName {
        self.0.name()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        _: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_output_arity(outputs, 1)?;
        solver.equals(&outputs[0].datum_type, DatumType::I64)?;
        solver.equals(&outputs[0].rank, 2)?;
        solver.equals(&outputs[0].shape[1], 3.to_dim())
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        self.0.wire(prefix, model, inputs)
    }
}
