//! What takes the place of a node.

use crate::analysis::qdq::Quantized;
use crate::ir::{AttributeProto, DataType, Graph, NodeId, NodeProto, TensorProto, ValueId};
use std::collections::HashMap;

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

/// Puts new nodes in.
#[derive(Debug, Default)]
pub(super) struct Writer {
    zeros: HashMap<DataType, ValueId>,
}

impl Writer {
    pub(super) fn write(&mut self, graph: &mut Graph, site: Site) {
        let inputs: Vec<Option<ValueId>> = site.inputs.into_iter().map(|i| self.value(graph, i)).collect();
        let node = graph.node(site.node);
        let (name, float) = (node.name().to_owned(), node.output(0));
        let output = site.quantizer.map_or(float, |quantizer| graph.node(quantizer).output(0));
        graph.remove_node(site.node);
        if let Some(quantizer) = site.quantizer {
            graph.remove_node(quantizer);
        }
        let domain = (!site.domain.is_empty()).then(|| site.domain.to_owned());
        let proto = NodeProto { domain, ..NodeProto::of(site.operator, &name, site.attributes) };
        graph.add_node(proto, &inputs, &[output]);
        if let Some(float) = float.filter(|_| site.quantizer.is_some()) {
            graph.remove_value(float);
        }
    }

    fn value(&mut self, graph: &mut Graph, input: Input) -> Option<ValueId> {
        match input {
            Input::Value(value) => Some(value),
            Input::Absent => None,
            Input::Tensor(tensor) => Some(graph.add_initializer(*tensor)),
            Input::Zero(element) => Some(*self.zeros.entry(element).or_insert_with(|| {
                let zero = TensorProto::from_raw(&format!("zero_{element}"), element, &[], vec![0; 1]);
                graph.add_initializer(zero)
            })),
        }
    }
}
