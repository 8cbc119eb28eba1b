//! Pass `fuse-qlinear`: an operator between quantizers becomes one operator on integers.
//!
//! With x = (q − z)·s and w = (p − u)·t behind the operands and a quantizer of scale r and zero point v behind the
//! result:
//!
//! * `Conv` and `MatMul`: Σ x·w + b = s·t·acc with the integer acc = Σ (q − z)(p − u) + c for a bias c of zero point 0
//!   at scale s·t, so what is written is saturate(round(acc·s·t/r) + v): `QLinearConv` and `QLinearMatMul`. A constant
//!   bias on another grid is rounded to s·t, ties to even.
//! * Movements read and write the same grid, so round((q − z)·s/s) + z = q is written: the operator itself on the
//!   integers. `Pad` pads with what the quantizer makes of its value.
//! * With `contrib`, operators onnxruntime has in `com.microsoft`: `QLinearAdd` and its kin, which dequantize, compute
//!   and quantize within; `QGemm`, which without output scale writes the float s·t·acc.
//!
//! Only the pattern matters, not the tool that wrote it. The new node bears the old one's name, its output the name
//! the quantizer's had. What has no form on integers stays between its quantizers; a `DequantizeLinear` no longer read
//! is for `eliminate-dead-nodes`.
//!
//! Declined, when any operand is dequantized: an operand that is not, an output that something other than one
//! quantizer reads, scales or zero points that are not constant, integers of other than 8 bits, types mixed in ways no
//! kernel takes, scales along another axis than the outputs, a bias that is no constant vector or so large that sums
//! would wrap, movements that change the grid, attributes the integer operator lacks, and without `contrib` what only
//! `com.microsoft` has.

mod layers;
mod moves;
mod site;

use crate::analysis::quantized::Qdq;
use crate::ir::{Model, Node, NodeId};
use crate::ops::{IntegerForm, facts};
use crate::pass::{Miss, Outcome, Pass, PassError, Plan};
use site::Site;

/// The domain of onnxruntime's own operators.
const CONTRIB: &str = "com.microsoft";

/// Fuses quantizers into the operators between them.
#[derive(Clone, Copy, Debug, Default)]
pub struct FuseQlinear {
    /// Whether operators of `com.microsoft` may be written, which onnxruntime alone runs.
    pub contrib: bool,
}

impl Pass for FuseQlinear {
    fn name(&self) -> &'static str {
        "fuse-qlinear"
    }

    fn about(&self) -> &'static str {
        "operators between quantizers become operators on integers, as QLinearConv"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let fusion = Fusion { qdq: Qdq::new(model), contrib: self.contrib };
        let graph = &model.graph;
        let mut plan = Plan::default();
        for (id, node) in graph.nodes() {
            let found = fusion.site(id, node).transpose().map_err(Miss::from);
            plan.add(graph, node.label(graph), found.map(|site| site.map(|site| site.rewrite(graph))))?;
        }
        if plan.adds_domain(CONTRIB) && model.opset(CONTRIB).is_none() {
            model.set_opset(CONTRIB, 1);
        }
        Ok(plan.apply(&mut model.graph))
    }
}

/// Reads a graph for nodes to fuse. Errors are reasons to decline.
struct Fusion<'a> {
    qdq: Qdq<'a>,
    contrib: bool,
}

impl Fusion<'_> {
    fn site(&self, id: NodeId, node: &Node) -> Option<Result<Site, String>> {
        let facts = facts(node.op());
        let form = facts.integer.filter(|_| node.domain().is_empty())?;
        if !self.qdq.reads_dequantized(node) {
            return None;
        }
        if node.outputs().iter().flatten().count() > 1 {
            return Some(Err("it has more than one output".to_owned()));
        }
        Some(form.contrib().map_or(Ok(()), |name| self.wants(name)).and_then(|()| match form {
            IntegerForm::Convolution => self.convolution(id, node),
            IntegerForm::Product => self.product(id, node),
            IntegerForm::Layer => self.layer(id, node),
            IntegerForm::Movement => self.movement(id, node, facts.name),
            IntegerForm::Padding => self.padding(id, node),
            IntegerForm::Joining => self.joining(id, node),
            IntegerForm::Arithmetic { operator, operands, attributes } => {
                self.arithmetic(id, node, operator, operands, attributes)
            }
            IntegerForm::Softmax => self.softmax(id, node),
        }))
    }

    /// Declines an operator of onnxruntime's where these are not wanted.
    fn wants(&self, operator: &str) -> Result<(), String> {
        if self.contrib { Ok(()) } else { Err(format!("only `{CONTRIB}` has `{operator}`")) }
    }

    fn opset(&self) -> i64 {
        self.qdq.model.opset("").unwrap_or_default()
    }
}
