//! `MatMul` of two vectors.
//!
//! tract 0.23 has no product of operands that both have one axis. Here the first becomes a matrix of one row, and the one
//! number that comes out loses its axis. Other products are left to tract.

use super::{Built, tracts_expansion};
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{OutletId, SpecialOps};
use tract_onnx::tract_core::internal::{StaticName, TVec, TractResult, TypedModel};
use tract_onnx::tract_core::ops::change_axes::AxisOp;
use tract_onnx::tract_hir::infer::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::{Expansion, expand};

/// tract's operator for products with a matrix.
#[derive(Clone, Debug)]
struct Product(Box<dyn Expansion>);

pub(super) fn build(context: &ParsingContext, node: &NodeProto) -> Built {
    Ok((expand(Product(tracts_expansion(context, node)?)), Vec::new()))
}

impl Expansion for Product {
    fn name(&self) -> StaticName {
        self.0.name()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        self.0.rules(solver, inputs, outputs)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let mut ranks = Vec::with_capacity(inputs.len());
        for &input in inputs {
            ranks.push(model.outlet_fact(input)?.rank());
        }
        let (&[first, second], [1, 1]) = (inputs, &ranks[..]) else { return self.0.wire(prefix, model, inputs) };
        let row = model.wire_node(format!("{prefix}.row"), AxisOp::Add(0), &[first])?[0];
        let product = self.0.wire(&format!("{prefix}.product"), model, &[row, second])?;
        model.wire_node(prefix, AxisOp::Rm(0), &product)
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::tract::testing::run;

    const A: (&[usize], &[f32]) = (&[3], &[1.0, -2.0, 0.5]);

    #[test]
    fn two_vectors_give_a_number() {
        let both = run("float[3] x, float[3] z", "", "y = MatMul (x, z)", &[A, (&[3], &[4.0, 1.0, 2.0])]);
        assert_eq!(both, [3.0]);
        assert_eq!(run("float[3] x", "float[3] w = {4, 1, 2}", "y = MatMul (x, w)", &[A]), [3.0]);
        assert_eq!(run("float[3] x", "float[3] w = {4, 1, 2}", "y = MatMul (w, x)", &[A]), [3.0]);
        // The number broadcasts as one without axes does.
        let nodes = "p = MatMul (x, x)\n y = Mul (p, x)";
        assert_eq!(run("float[3] x", "", nodes, &[A]), [5.25, -10.5, 2.625]);
    }

    #[test]
    fn other_ranks_are_as_before() {
        let matrix = "float[3,2] w = {1, 2, 3, 4, 5, 6}";
        assert_eq!(run("float[3] x", matrix, "y = MatMul (x, w)", &[A]), [-2.5, -3.0]);
        let row = "float[2] w = {1, 10}";
        assert_eq!(run("float[2,2] x", row, "y = MatMul (x, w)", &[(&[2, 2], &[1.0, 2.0, 3.0, 4.0])]), [21.0, 43.0]);
        let stack: [(&[usize], &[f32]); 1] = [(&[2, 1, 2], &[1.0, 2.0, 3.0, 4.0])];
        assert_eq!(run("float[2,1,2] x", row, "y = MatMul (x, w)", &stack), [21.0, 43.0]);
    }
}
