//! What takes the place of a node.

use crate::analysis::quantized::Quantized;
use crate::ir::{AttributeProto, DataType, Graph, NodeId, NodeProto, TensorProto, ValueId};
use crate::pass::{Operand, Rewrite};

/// An input of the new node.
#[derive(Clone, Debug)]
pub(super) enum Input {
    /// A value there is.
    Value(ValueId),
    /// A zero point of 0, shared by all nodes that need one.
    Zero(DataType),
    /// A constant to be stored.
    Tensor(Box<TensorProto>),
    /// Left out.
    Absent,
}

impl Input {
    pub(super) fn tensor(tensor: TensorProto) -> Self {
        Self::Tensor(Box::new(tensor))
    }
}

/// A node to be replaced.
#[derive(Clone, Debug)]
pub(super) struct Site {
    /// The float node.
    pub(super) node: NodeId,
    /// The quantizer of its output, which goes too.
    pub(super) quantizer: Option<NodeId>,
    /// Domain of the new operator.
    pub(super) domain: &'static str,
    /// The new operator.
    pub(super) operator: &'static str,
    /// Its attributes.
    pub(super) attributes: Vec<AttributeProto>,
    /// Its inputs.
    pub(super) inputs: Vec<Input>,
}

/// Scale and zero point of one grid for all elements.
pub(super) fn parameters(quantized: &Quantized) -> [Input; 2] {
    [Input::Value(quantized.scale), quantized.zero_point.map_or(Input::Zero(quantized.element), Input::Value)]
}

/// Integers, scale and zero point.
pub(super) fn triple(quantized: &Quantized) -> [Input; 3] {
    let [scale, zero_point] = parameters(quantized);
    [Input::Value(quantized.integers), scale, zero_point]
}

impl Site {
    /// The new node bears the old one's name and writes what the quantizer wrote, which goes with the float value.
    pub(super) fn rewrite(self, graph: &Graph) -> Rewrite {
        let node = graph.node(self.node);
        let float = node.output(0);
        let mut rewrite = Rewrite::of(self.node);
        let mut output = float;
        if let Some(quantizer) = self.quantizer {
            rewrite = float.into_iter().fold(rewrite.and(quantizer), Rewrite::private);
            output = graph.node(quantizer).output(0);
        }
        let inputs: Vec<Operand> = self.inputs.into_iter().map(|input| input.operand(&mut rewrite)).collect();
        let domain = (!self.domain.is_empty()).then(|| self.domain.to_owned());
        let proto = NodeProto { domain, ..NodeProto::of(self.operator, node.name(), self.attributes) };
        rewrite.node(proto, &inputs, output);
        rewrite
    }
}

impl Input {
    fn operand(self, rewrite: &mut Rewrite) -> Operand {
        match self {
            Self::Value(value) => value.into(),
            Self::Absent => Operand::Absent,
            Self::Tensor(tensor) => rewrite.constant(*tensor),
            Self::Zero(element) => {
                rewrite.shared_constant(TensorProto::from_raw(&format!("zero_{element}"), element, &[], vec![0; 1]))
            }
        }
    }
}
