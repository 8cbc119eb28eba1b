//! Writes float16 into the graph, or the rounding that it would do.

use super::eligibility::huge_of;
use super::types::types;
use super::{Huge, Numbers, halves};
use crate::ir::{AttributeProto, DataType, Graph, Model, NodeId, NodeProto, TensorProto, TypeValue, Use, ValueId};
use crate::ops::{Half, schema};
use crate::pass::PassError;
use half::f16;
use indexmap::IndexSet;
use std::collections::{HashMap, HashSet};

/// Makes these nodes compute in float16. Returns the number of nodes and constants changed.
pub(super) fn computation(model: &mut Model, nodes: &IndexSet<NodeId>, simulated: bool) -> Result<usize, PassError> {
    let mut work = Work { types: types(&model.graph), nodes, simulated, changed: 0, halved: HashSet::new() };
    let values: Vec<ValueId> = model.graph.values().map(|(id, _)| id).collect();
    for value in values {
        if work.types.get(&value) != Some(&DataType::Float) {
            continue;
        }
        match model.constant(value).transpose()? {
            Some(tensor) => {
                let tensor = tensor.into_owned();
                work.constant(&mut model.graph, value, &tensor)?;
            }
            None => work.value(&mut model.graph, value),
        }
    }
    let (halved, changed) = (work.halved, work.changed);
    model.graph.drop_value_info(&halved);
    Ok(changed)
}

/// Stores a constant in 16 bits behind a cast.
pub(super) fn weight(graph: &mut Graph, value: ValueId, numbers: &Numbers, simulated: bool) -> Result<(), PassError> {
    let Some(tensor) = graph.initializer(value) else { return Ok(()) };
    let (name, shape) = (tensor.name().to_owned(), tensor.shape()?);
    if simulated {
        graph.set_initializer(value, TensorProto::from_f32(&name, &shape, &numbers.floats()));
        return Ok(());
    }
    graph.take_initializer(value);
    let name = format!("{name}_half");
    let stored = graph.add_initializer(match numbers {
        Numbers::Halves(halves) => stored(&name, &shape, halves),
        Numbers::Brains(brains) => {
            let raw: Vec<u8> = brains.iter().flat_map(|brain| brain.to_le_bytes()).collect();
            TensorProto::from_raw(&name, DataType::Bfloat16, &shape, raw)
        }
    });
    add_cast(graph, stored, value, DataType::Float);
    Ok(())
}

struct Work<'a> {
    types: HashMap<ValueId, DataType>,
    nodes: &'a IndexSet<NodeId>,
    simulated: bool,
    changed: usize,
    /// Values whose type changed in place.
    halved: HashSet<ValueId>,
}

/// Where a node that computes in float16 has it.
fn slots(graph: &Graph, node: NodeId) -> Option<Half> {
    schema(graph.node(node).op()).and_then(|schema| schema.half)
}

impl Work<'_> {
    /// The readers of a value that want float16, those that want float, and whether anybody else wants float.
    fn readers(&self, graph: &Graph, value: ValueId) -> (Vec<Use>, Vec<Use>, bool) {
        let half = |reader: &Use| {
            self.nodes.contains(&reader.node) && slots(graph, reader.node).is_some_and(|half| half.reads(reader.slot))
        };
        let (half, float): (Vec<Use>, Vec<Use>) = graph.value(value).uses().iter().copied().partition(half);
        (half, float, !graph.value(value).captures().is_empty() || graph.is_output(value))
    }

    /// Gives readers that compute in float16 a constant of that type.
    fn constant(&mut self, graph: &mut Graph, value: ValueId, tensor: &TensorProto) -> Result<(), PassError> {
        let (half, float_uses, float) = self.readers(graph, value);
        let float = float || !float_uses.is_empty();
        if half.is_empty() {
            return Ok(());
        }
        let (floats, shape) = (tensor.to_f32()?, tensor.shape()?);
        // Readers that take infinity for a bound and readers that take it for a mask are told apart.
        let (bounds, others): (Vec<Use>, Vec<Use>) =
            half.into_iter().partition(|reader| huge_of(graph.node(reader.node)) == Huge::End);
        let alone = !float && (bounds.is_empty() || others.is_empty());
        for (readers, huge) in [(bounds, Huge::End), (others, Huge::StandIn)] {
            if readers.is_empty() {
                continue;
            }
            let numbers = halves(&floats, huge).map_err(PassError::Input)?;
            self.changed += 1;
            let made = |name: &str| {
                if self.simulated { rounded(name, &shape, &numbers) } else { stored(name, &shape, &numbers) }
            };
            if alone {
                graph.set_initializer(value, made(tensor.name()));
                return Ok(());
            }
            let copy = graph.add_initializer(made(&format!("{}_half", tensor.name())));
            for reader in readers {
                graph.set_input(reader.node, reader.slot, Some(copy));
            }
        }
        Ok(())
    }

    /// Gives a computed value or an input the types that its readers want.
    fn value(&mut self, graph: &mut Graph, value: ValueId) {
        let (half, float_uses, float) = self.readers(graph, value);
        let producer = graph.value(value).producer().filter(|&(node, slot)| {
            self.nodes.contains(&node) && slots(graph, node).is_some_and(|half| half.writes(slot))
        });
        let Some((node, slot)) = producer else {
            if !half.is_empty() {
                let copy = self.narrowed(graph, value);
                for reader in half {
                    graph.set_input(reader.node, reader.slot, Some(copy));
                }
            }
            return;
        };
        self.changed += 1;
        // A cast to float16, of an output say, has nothing to do then.
        let (more, float_uses): (Vec<Use>, Vec<Use>) =
            float_uses.into_iter().partition(|reader| casts_to(graph, reader.node, DataType::Float16));
        let float = float || !float_uses.is_empty();
        if self.simulated {
            let exact = graph.add_value(&format!("{}_exact", graph.value(value).name()));
            graph.set_output(node, slot, exact);
            let half = cast_of(graph, exact, DataType::Float16, "rounded");
            add_cast(graph, half, value, DataType::Float);
            return;
        }
        retype_cast(graph, node);
        if !float {
            self.halve(graph, value);
            return;
        }
        let copy = graph.add_value(&format!("{}_half", graph.value(value).name()));
        graph.set_output(node, slot, copy);
        add_cast(graph, copy, value, DataType::Float);
        for reader in half.into_iter().chain(more) {
            graph.set_input(reader.node, reader.slot, Some(copy));
        }
    }

    /// A value in float16, for nodes that compute so.
    fn narrowed(&self, graph: &mut Graph, value: ValueId) -> ValueId {
        // It may be a float16 input that was made float.
        let cast = graph.value(value).producer().map(|(node, _)| graph.node(node)).filter(|node| node.is("Cast"));
        if let Some(wide) =
            cast.and_then(|node| node.input(0)).filter(|v| self.types.get(v) == Some(&DataType::Float16))
        {
            return if self.simulated { value } else { wide };
        }
        let half = cast_of(graph, value, DataType::Float16, "half");
        if self.simulated { cast_of(graph, half, DataType::Float, "float") } else { half }
    }

    fn halve(&mut self, graph: &mut Graph, value: ValueId) {
        self.halved.insert(value);
        let Some(mut ty) = graph.value(value).ty().cloned() else { return };
        if let Some(TypeValue::Tensor(tensor)) = &mut ty.value {
            tensor.elem_type = Some(DataType::Float16.number());
        }
        graph.set_type(value, ty);
    }
}

/// A `Cast` to float writes float16 instead.
fn retype_cast(graph: &mut Graph, node: NodeId) {
    if graph.node(node).is("Cast") {
        graph.set_attribute(node, to(DataType::Float16));
    }
}

fn casts_to(graph: &Graph, node: NodeId, element: DataType) -> bool {
    graph.node(node).is("Cast") && graph.node(node).int("to") == Some(i64::from(element.number()))
}

fn to(element: DataType) -> AttributeProto {
    AttributeProto::element("to", element)
}

fn cast_of(graph: &mut Graph, value: ValueId, element: DataType, suffix: &str) -> ValueId {
    let name = format!("{}_{suffix}", graph.value(value).name());
    graph.add_op("Cast", &[Some(value)], vec![to(element)], &name)
}

fn add_cast(graph: &mut Graph, from: ValueId, value: ValueId, element: DataType) {
    let name = format!("{}_to_{element}", graph.value(value).name());
    graph.add_node(NodeProto::of("Cast", &name, vec![to(element)]), &[Some(from)], &[Some(value)]);
}

fn stored(name: &str, shape: &[usize], halves: &[f16]) -> TensorProto {
    let raw: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
    TensorProto::from_raw(name, DataType::Float16, shape, raw)
}

fn rounded(name: &str, shape: &[usize], halves: &[f16]) -> TensorProto {
    let floats: Vec<f32> = halves.iter().map(|half| half.to_f32()).collect();
    TensorProto::from_f32(name, shape, &floats)
}
