//! What the rules have in common: operands, constants, results near the name of the node's.

use crate::ir::{AttributeProto, Graph, Node, NodeId, NodeProto, TensorProto, ValueId};
use crate::pass::{Operand, Rewrite};

/// Writes the nodes that replace a fused one.
pub(super) struct Writer<'a> {
    pub(super) graph: &'a Graph,
    pub(super) node: &'a Node,
    /// The operator set of the model.
    pub(super) opset: i64,
    rewrite: Rewrite,
    stem: String,
}

impl<'a> Writer<'a> {
    pub(super) fn new(graph: &'a Graph, id: NodeId, opset: i64) -> Self {
        let node = graph.node(id);
        let output = node.outputs().iter().flatten().next();
        let stem = output.map_or_else(|| node.label(graph), |&value| graph.value(value).name()).to_owned();
        Self { graph, node, opset, rewrite: Rewrite::of(id), stem }
    }

    pub(super) fn done(self) -> Rewrite {
        self.rewrite
    }

    /// What the node reads at this place.
    pub(super) fn input(&self, slot: usize) -> Operand {
        self.node.input(slot).into()
    }

    /// What the node has to read at this place.
    pub(super) fn value(&self, slot: usize) -> Result<ValueId, String> {
        self.node.input(slot).ok_or_else(|| format!("its input {slot} is missing"))
    }

    pub(super) fn has_output(&self, slot: usize) -> bool {
        self.node.output(slot).is_some_and(|value| self.graph.is_used(value) || self.graph.is_output(value))
    }

    /// A node whose result is named after that of the fused one.
    pub(super) fn op(&mut self, op: &str, inputs: &[Operand], attributes: Vec<AttributeProto>, part: &str) -> Operand {
        self.rewrite.op(op, inputs, attributes, format!("{}_{part}", self.stem))
    }

    /// The same for the layer in the fused node, which keeps its name.
    pub(super) fn layer(
        &mut self,
        op: &str,
        inputs: &[Operand],
        attributes: Vec<AttributeProto>,
        part: &str,
    ) -> Operand {
        let proto = NodeProto::of(op, self.node.label(self.graph), attributes);
        self.rewrite.named_op(proto, inputs, format!("{}_{part}", self.stem))
    }

    /// The node that writes what the fused one wrote at this place; `part` goes into its name.
    pub(super) fn result(
        &mut self,
        op: &str,
        inputs: &[Operand],
        attributes: Vec<AttributeProto>,
        (slot, part): (usize, &str),
    ) {
        let name =
            if part.is_empty() { self.node.label(self.graph).to_owned() } else { format!("{}_{part}", self.stem) };
        self.rewrite.node(NodeProto::of(op, &name, attributes), inputs, self.node.output(slot));
    }

    /// A number, shared by all that ask for one of this name.
    pub(super) fn number(&mut self, name: &str, number: f32) -> Operand {
        self.rewrite.shared_constant(TensorProto::from_f32(name, &[], &[number]))
    }

    /// A number of this node alone.
    pub(super) fn own_number(&mut self, part: &str, number: f32) -> Operand {
        self.rewrite.constant(TensorProto::from_f32(&format!("{}_{part}", self.stem), &[], &[number]))
    }

    /// Whole numbers, shared by all that ask for the same.
    pub(super) fn ints(&mut self, numbers: &[i64]) -> Operand {
        let text: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        let name = format!("ints_{}", text.join("_"));
        self.rewrite.shared_constant(TensorProto::from_i64(&name, &[numbers.len()], numbers))
    }

    /// A whole number without axes.
    pub(super) fn int(&mut self, number: i64) -> Operand {
        self.rewrite.shared_constant(TensorProto::from_i64(&format!("int_{number}"), &[], &[number]))
    }

    /// The numbers from 0 on, as many as said.
    pub(super) fn counted(&mut self, count: usize) -> Operand {
        let numbers: Vec<i64> = (0..).take(count).collect();
        self.rewrite.shared_constant(TensorProto::from_i64(&format!("places_{count}"), &[count], &numbers))
    }

    /// The sum of what is given, of two at least.
    pub(super) fn sum(&mut self, first: Operand, others: &[Operand], part: &str) -> Operand {
        let others = others.iter().filter(|&&other| other != Operand::Absent);
        others.fold(first, |sum, &other| self.op("Add", &[sum, other], Vec::new(), part))
    }
}
