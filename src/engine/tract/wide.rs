//! Quantizers of 16 bits as operators on floats, because tract has such of 8 bits alone.
//!
//! `QuantizeLinear` into uint16 or int16 becomes `clip(round(x / s) + z, l, u)`, l to u the range of the type, and
//! `DequantizeLinear` becomes `(q − z)·s`. Integers of 16 bits are floats as they stand, so that whatever moves, selects or
//! clips them in between computes the same numbers: constants of 16 bits beside them (bounds, what `Pad` fills in) become
//! floats as well. What is an input or an output of the graph keeps its type, behind or before a `Cast`.
//!
//! Not changed: quantizers with one scale per channel or block, and parameters that are no constants.

use super::lowering::Lowering;
use crate::engine::EngineError;
use msq_passes::ir::{AttributeProto, DataType, Graph, Model, Node, NodeId, NodeProto, TensorProto, ValueId};
use std::collections::HashSet;

/// The types.
const WIDE: [DataType; 2] = [DataType::Int16, DataType::Uint16];

/// Every quantizer and dequantizer of 16 bits.
pub(super) struct Wide;

impl Lowering for Wide {
    fn mends(&self, graph: &Graph, id: NodeId) -> bool {
        Site::of(graph, id).is_some()
    }

    fn lower(&self, model: &mut Model) -> Result<(), EngineError> {
        let graph = &model.graph;
        let nodes: Vec<NodeId> = graph.node_ids().collect();
        let sites: Vec<Site> = nodes.iter().filter_map(|&id| Site::of(graph, id)).collect();
        if sites.is_empty() {
            return Ok(());
        }
        let integers = integers(graph, &sites);
        let graph = &mut model.graph;
        for &(node, slot) in &constants_beside(graph, &integers) {
            let Some(value) = graph.node(node).input(slot) else { continue };
            if let Some(tensor) = graph.constant(value).and_then(as_floats) {
                let float = graph.add_initializer(tensor);
                graph.set_input(node, slot, Some(float));
            }
        }
        for site in sites {
            site.replace(graph);
        }
        hand_out(graph, &integers);
        graph.sort().map_err(EngineError::load)
    }
}

/// A quantizer or dequantizer of one scale.
struct Site {
    node: NodeId,
    quantizes: bool,
    element: DataType,
    scale: ValueId,
    zero_point: f32,
}

impl Site {
    fn of(graph: &Graph, id: NodeId) -> Option<Self> {
        let node = graph.node(id);
        let quantizes = node.op() == "QuantizeLinear";
        if !(quantizes || node.op() == "DequantizeLinear") || node.int_or("block_size", 0) != 0 {
            return None;
        }
        let zero = match node.input(2) {
            Some(value) => Some(graph.constant(value)?),
            None => None,
        };
        let element = zero.and_then(TensorProto::element_type).or_else(|| stated(graph, node))?;
        let scale = node.input(1)?;
        let one = |tensor: &TensorProto| tensor.element_count() == Ok(1);
        let fits = WIDE.contains(&element) && graph.constant(scale).is_some_and(one) && zero.is_none_or(one);
        let zero_point = zero.map_or(Some(0), |zero| zero.to_i64().ok()?.first().copied())? as f32;
        fits.then_some(Self { node: id, quantizes, element, scale, zero_point })
    }

    /// The ends of the type.
    fn ends(&self) -> (f32, f32) {
        if self.element == DataType::Int16 { (-32_768.0, 32_767.0) } else { (0.0, 65_535.0) }
    }

    fn replace(self, graph: &mut Graph) {
        let node = graph.node(self.node);
        let (Some(read), Some(written)) = (node.input(0), node.output(0)) else { return };
        let stem = graph.value(written).name().to_owned();
        graph.remove_node(self.node);
        let scalar = |graph: &mut Graph, name: &str, value: f32| {
            graph.add_initializer(TensorProto::from_f32(&format!("{stem}_{name}"), &[], &[value]))
        };
        let zero = (self.zero_point != 0.0).then(|| scalar(graph, "zero", self.zero_point));
        let scale = graph.constant(self.scale).and_then(TensorProto::scalar_f32).unwrap_or(1.0);
        let scale = scalar(graph, "step", scale);
        let op = |graph: &mut Graph, op: &str, inputs: &[ValueId]| {
            let inputs: Vec<Option<ValueId>> = inputs.iter().copied().map(Some).collect();
            graph.add_op(op, &inputs, Vec::new(), &format!("{stem}_{}", op.to_lowercase()))
        };
        let last = |graph: &mut Graph, op: &str, inputs: &[ValueId]| {
            let inputs: Vec<Option<ValueId>> = inputs.iter().copied().map(Some).collect();
            let name = graph.fresh_name(&format!("{stem}_last"));
            graph.add_node(NodeProto::of(op, &name, Vec::new()), &inputs, &[Some(written)]);
        };
        if !self.quantizes {
            let centered = zero.map_or(read, |zero| op(graph, "Sub", &[read, zero]));
            last(graph, "Mul", &[centered, scale]);
            return;
        }
        let (low, high) = self.ends();
        let (low, high) = (scalar(graph, "low", low), scalar(graph, "high", high));
        let steps = op(graph, "Div", &[read, scale]);
        let whole = op(graph, "Round", &[steps]);
        let shifted = zero.map_or(whole, |zero| op(graph, "Add", &[whole, zero]));
        last(graph, "Clip", &[shifted, low, high]);
    }
}

/// The type that the file states for the integers, where there is no zero point.
fn stated(graph: &Graph, node: &Node) -> Option<DataType> {
    if node.op() == "QuantizeLinear" {
        return DataType::from_number(i32::try_from(node.int("output_dtype")?).ok()?);
    }
    let value = node.input(0)?;
    graph.constant(value).and_then(TensorProto::element_type).or_else(|| graph.value(value).element_type())
}

/// Values of 16 bits that become floats: what quantizers write, what nodes make of it, and what dequantizers read.
fn integers(graph: &Graph, sites: &[Site]) -> HashSet<ValueId> {
    let written = sites.iter().filter(|site| site.quantizes).filter_map(|site| graph.node(site.node).output(0));
    let mut found: HashSet<ValueId> = written.collect();
    let read = sites.iter().filter(|site| !site.quantizes).filter_map(|site| graph.node(site.node).input(0));
    found.extend(read.filter(|&value| graph.is_input(value)));
    for (_, node) in graph.nodes() {
        let ends = ["QuantizeLinear", "DequantizeLinear", "Cast", "Shape"].contains(&node.op());
        if !ends && node.input(0).is_some_and(|value| found.contains(&value)) {
            found.extend(node.outputs().iter().flatten());
        }
    }
    found
}

/// Constants of 16 bits that nodes read beside such values, and those that dequantizers read.
fn constants_beside(graph: &Graph, integers: &HashSet<ValueId>) -> Vec<(NodeId, usize)> {
    let wide = |value: ValueId| {
        graph.constant(value).and_then(TensorProto::element_type).is_some_and(|element| WIDE.contains(&element))
    };
    let mut found = Vec::new();
    for (id, node) in graph.nodes().filter(|(_, node)| !["QuantizeLinear", "DequantizeLinear"].contains(&node.op())) {
        let beside = node.inputs().iter().flatten().any(|value| integers.contains(value));
        let slots = node.inputs().iter().enumerate();
        let constants = slots.filter(|(_, value)| beside && value.is_some_and(wide));
        found.extend(constants.map(|(slot, _)| (id, slot)));
    }
    found
}

fn as_floats(tensor: &TensorProto) -> Option<TensorProto> {
    let values: Vec<f32> = tensor.to_i64().ok()?.into_iter().map(|value| value as f32).collect();
    Some(TensorProto::from_f32(tensor.name(), &tensor.shape().ok()?, &values))
}

/// Casts inputs and outputs of the graph that are of 16 bits.
fn hand_out(graph: &mut Graph, integers: &HashSet<ValueId>) {
    let cast = |to: DataType| vec![AttributeProto::element("to", to)];
    let inputs: Vec<ValueId> = graph.inputs().filter(|value| integers.contains(value)).collect();
    for input in inputs {
        let readers = graph.value(input).uses().to_vec();
        let name = format!("{}_float", graph.value(input).name());
        let float = graph.add_op("Cast", &[Some(input)], cast(DataType::Float), &name);
        for reader in readers {
            graph.set_input(reader.node, reader.slot, Some(float));
        }
    }
    let outputs: Vec<ValueId> = graph.outputs().filter(|value| integers.contains(value)).collect();
    for output in outputs {
        let Some((node, slot)) = graph.value(output).producer() else { continue };
        let element = graph.value(output).element_type().filter(|element| WIDE.contains(element));
        let float = graph.add_value(&format!("{}_float", graph.value(output).name()));
        graph.set_output(node, slot, float);
        for reader in graph.value(output).uses().to_vec() {
            graph.set_input(reader.node, reader.slot, Some(float));
        }
        let name = graph.fresh_name("cast_to_integers");
        let node = NodeProto::of("Cast", &name, cast(element.unwrap_or(DataType::Uint16)));
        graph.add_node(node, &[Some(float)], &[Some(output)]);
    }
}
