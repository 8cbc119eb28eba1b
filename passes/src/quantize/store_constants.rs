//! Pass `store-constants`: weights beside the layers become integers: embedding tables, recurrent weights, weights of
//! sub-graphs.
//!
//! W = float(q)·s with q int8 and s in a shape that broadcasts over it. A `Gather` looks integers and scales up by the
//! same indices, and only what is looked up becomes float:
//!
//! ```text
//! y = Mul(Cast<float>(Gather(W, i)), Gather(W_scale, i))
//! ```
//!
//! The scales may lie along other axes as well: one per column of each matrix of a table `[experts, rows, columns]` has shape
//! `[experts, 1, columns]`, and what is looked up of it broadcasts over what is looked up of the integers, since both have the
//! same axes. Scales along axes behind the one that is looked up alone are not looked up: they broadcast over the result. A
//! table with one scale per block of consecutive values of a row is stored with blocks as an axis of their own,
//! `[rows, blocks, block]` and scales `[rows, blocks, 1]`; what is looked up along axis 0 gets its shape back:
//!
//! ```text
//! y = Reshape(Mul(Cast<float>(Gather(W, i)), Gather(W_scale, i)), [0, …, columns])
//! ```
//!
//! All other readers, sub-graphs among them, lookups in blocks by indices of unknown rank, and lookups in small tables that
//! would take a noticeable part of a run (`at_load`), read `Mul(Cast<float>(W), W_scale)`, which runtimes evaluate once, when
//! they load the model (see `store-weights`). Either way a product is rounded once, so that every reader sees the same numbers.
//!
//! Of a float16 tensor the product is cast to float16. The integers take the name of the float tensor. Declined: a
//! constant that is a graph output, or that nothing reads.

use crate::ir::{AttributeProto, DataType, Graph, Model, NodeId, NodeProto, TensorProto, Use, ValueId, axis_of};
use crate::pass::{Outcome, Pass, PassError};
use crate::quantize::{Integers, StoreWeights};
use indexmap::IndexMap;

/// Integers and scales of a constant.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTensor {
    /// Name of the float tensor.
    pub tensor: String,
    /// Integers, in the storage order of the float tensor.
    pub integers: Integers,
    /// Scales.
    pub scales: Vec<f32>,
    /// Shape of the scales, as many axes as the tensor has: its length along axes with scales, else 1. Along the last axis it
    /// may be the number of blocks of equal length that have a scale each.
    pub scale_shape: Vec<usize>,
    /// Whether lookups read the product of all integers too.
    pub at_load: bool,
}

/// Stores constants as integers.
#[derive(Clone, Copy, Debug)]
pub struct StoreConstants<'a> {
    /// The constants, by the names they have in bit plans.
    pub constants: &'a IndexMap<String, StoredTensor>,
}

impl Pass for StoreConstants<'_> {
    fn name(&self) -> &'static str {
        "store-constants"
    }

    fn about(&self) -> &'static str {
        "embedding tables, recurrent weights and weights of sub-graphs are stored as integers"
    }

    fn requires(&self, model: &Model) -> Result<(), PassError> {
        match model.opset("") {
            Some(opset) if opset >= StoreWeights::LOWEST_OPSET => Ok(()),
            _ => Err(PassError::Requires { pass: "store-constants", earlier: "upgrade-opset" }),
        }
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        for stored in self.constants.values() {
            let graph = &mut model.graph;
            let value = graph.find(&stored.tensor).filter(|&v| graph.constant(v).is_some());
            let Some(value) = value.filter(|&v| graph.is_used(v)) else {
                outcome.decline(&stored.tensor, "nothing reads it");
                continue;
            };
            if graph.is_output(value) {
                outcome.decline(&stored.tensor, "it is a graph output");
                continue;
            }
            write(graph, value, stored)?;
            outcome.count();
        }
        Ok(outcome)
    }
}

fn write(graph: &mut Graph, value: ValueId, stored: &StoredTensor) -> Result<(), PassError> {
    let shape = graph.constant(value).map_or(Ok(Vec::new()), TensorProto::shape)?;
    let fits = stored.integers.len() == shape.iter().product::<usize>()
        && stored.scales.len() == stored.scale_shape.iter().product::<usize>()
        && stored.scale_shape.len() == shape.len()
        && stored.scale_shape.iter().zip(&shape).enumerate().all(|(axis, (&scales, &n))| {
            scales == 1 || scales == n || (axis + 1 == shape.len() && scales > 0 && n.is_multiple_of(scales))
        });
    if !fits {
        let reason = format!("constant `{}`: integers or scales do not fit its shape {shape:?}", stored.tensor);
        return Err(PassError::Input(reason));
    }
    let element = graph.constant(value).and_then(TensorProto::element_type).unwrap_or(DataType::Float);
    let block = block_of(&shape, &stored.scale_shape);
    let (held, scale_shape) = match block {
        None => (shape.clone(), stored.scale_shape.clone()),
        Some(block) => (in_blocks(&shape, block), [&stored.scale_shape[..], &[1]].concat()),
    };
    let integers = graph.add_initializer(stored.integers.to_tensor(&stored.tensor, &held));
    let mut scales = Scales { stored, stem: stored.tensor.clone(), written: IndexMap::new() };
    for Use { node, slot } in graph.value(value).uses().to_vec() {
        let form = match block {
            _ if stored.at_load => None,
            None => lookup(graph, node, slot, &stored.scale_shape),
            Some(_) => lookup_in_blocks(graph, node, slot, &shape, &scale_shape),
        };
        if let Some(form) = form {
            look_up(graph, node, (integers, element), form, &mut scales);
        }
    }
    if graph.is_used(value) {
        let scale = scales.value(graph, &scale_shape);
        let float = cast(graph, integers, DataType::Float, &format!("{}_float", stored.tensor));
        let name = format!("{}_dequantized", stored.tensor);
        let mut product = graph.add_op("Mul", &[Some(float), Some(scale)], Vec::new(), &name);
        if block.is_some() {
            let dims: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
            product = reshape(graph, product, &dims, &name);
        }
        if element != DataType::Float {
            product = cast(graph, product, element, &name);
        }
        graph.replace_uses(value, product);
    }
    graph.remove_value(value);
    graph.rename(integers, &stored.tensor);
    Ok(())
}

/// Values in a block, where blocks along the last axis have scales.
fn block_of(shape: &[usize], scale_shape: &[usize]) -> Option<usize> {
    let (&columns, &blocks) = (shape.last()?, scale_shape.last()?);
    (1 < blocks && blocks < columns).then(|| columns / blocks)
}

/// The shape with blocks of the last axis as an axis of their own.
fn in_blocks(shape: &[usize], block: usize) -> Vec<usize> {
    let (rows, columns) = shape.split_at(shape.len().saturating_sub(1));
    [rows, &[columns.iter().product::<usize>() / block.max(1), block]].concat()
}

/// The scales as initializers, one for each shape that readers need.
struct Scales<'a> {
    stored: &'a StoredTensor,
    stem: String,
    written: IndexMap<Vec<usize>, ValueId>,
}

impl Scales<'_> {
    fn value(&mut self, graph: &mut Graph, shape: &[usize]) -> ValueId {
        let shape = if self.stored.scales.len() == 1 { &[] } else { shape };
        *self.written.entry(shape.to_vec()).or_insert_with(|| {
            let name = format!("{}_scale", self.stem);
            graph.add_initializer(TensorProto::from_f32(&name, shape, &self.stored.scales))
        })
    }
}

/// How a `Gather` gets its scales.
enum Lookup {
    /// By the same indices, along this axis.
    Gathered(i64),
    /// As they are, in this shape.
    Broadcast(Vec<usize>),
    /// Scales of this shape by the same indices along axis 0; what is looked up gets this shape.
    Blocks(Vec<usize>, Vec<i64>),
}

/// How a reader looks scales up, if it does.
fn lookup(graph: &Graph, node: NodeId, slot: usize, scale_shape: &[usize]) -> Option<Lookup> {
    let node = graph.node(node);
    if !node.is("Gather") || slot != 0 || node.input(0) == node.input(1) {
        return None;
    }
    let given = node.int_or("axis", 0);
    let axis = axis_of(given, scale_shape.len())?;
    match scale_shape.iter().position(|&scales| scales > 1) {
        None => Some(Lookup::Broadcast(Vec::new())),
        // Whatever the other axes are: the indices replace this one by the same axes in integers and scales.
        Some(_) if scale_shape[axis] > 1 => Some(Lookup::Gathered(given)),
        // What is looked up keeps the axes behind.
        Some(first) if first > axis => Some(Lookup::Broadcast(scale_shape[axis + 1..].to_vec())),
        // How many axes the indices have would decide the shape of the scales.
        Some(_) => None,
    }
}

/// How a reader looks rows up that have one scale per block, if it does. The scales have an axis more than the table.
fn lookup_in_blocks(
    graph: &Graph,
    node: NodeId,
    slot: usize,
    shape: &[usize],
    scale_shape: &[usize],
) -> Option<Lookup> {
    let node = graph.node(node);
    let along_rows = axis_of(node.int_or("axis", 0), shape.len()) == Some(0);
    if !node.is("Gather") || slot != 0 || node.input(0) == node.input(1) || !along_rows {
        return None;
    }
    let indices = node.input(1)?;
    let rank = match graph.constant(indices) {
        Some(tensor) => tensor.dims.len(),
        None => graph.value(indices).shape()?.len(),
    };
    // Zeros stand for the lengths of the indices.
    let columns = shape[1..].iter().map(|&n| n as i64);
    let looked_up = std::iter::repeat_n(0, rank).chain(columns).collect();
    Some(Lookup::Blocks(scale_shape.to_vec(), looked_up))
}

fn look_up(
    graph: &mut Graph,
    node: NodeId,
    (integers, element): (ValueId, DataType),
    form: Lookup,
    scales: &mut Scales,
) {
    let Some(output) = graph.node(node).output(0) else { return };
    let name = graph.value(output).name().to_owned();
    graph.set_input(node, 0, Some(integers));
    let looked_up = graph.add_value(&format!("{name}_quantized"));
    graph.set_output(node, 0, looked_up);
    let float = cast(graph, looked_up, DataType::Float, &format!("{name}_float"));
    let mut steps = Vec::new();
    let scale = match form {
        Lookup::Broadcast(shape) => scales.value(graph, &shape),
        Lookup::Gathered(axis) => {
            let full = scales.stored.scale_shape.clone();
            let inputs = [Some(scales.value(graph, &full)), graph.node(node).input(1)];
            let attributes = if axis == 0 { Vec::new() } else { vec![AttributeProto::int("axis", axis)] };
            graph.add_op("Gather", &inputs, attributes, &format!("{name}_scale"))
        }
        Lookup::Blocks(full, shape) => {
            // The table has an axis more than it had: an axis counted from the end would be another one.
            graph.remove_attribute(node, "axis");
            let inputs = [Some(scales.value(graph, &full)), graph.node(node).input(1)];
            let gathered = graph.add_op("Gather", &inputs, Vec::new(), &format!("{name}_scale"));
            let shape = TensorProto::from_i64(&format!("{name}_shape"), &[shape.len()], &shape);
            steps.push(("Reshape", Some(graph.add_initializer(shape)), Vec::new()));
            gathered
        }
    };
    steps.insert(0, ("Mul", Some(scale), Vec::new()));
    if element != DataType::Float {
        steps.push(("Cast", None, vec![to(element)]));
    }
    let mut value = float;
    let last = steps.len() - 1;
    for (at, (op, operand, attributes)) in steps.into_iter().enumerate() {
        let inputs: Vec<Option<ValueId>> = [Some(value)].into_iter().chain(operand.map(Some)).collect();
        if at < last {
            value = graph.add_op(op, &inputs, attributes, &format!("{name}_product"));
        } else {
            let proto = NodeProto::of(op, &format!("{name}_dequantize"), attributes);
            graph.add_node(proto, &inputs, &[Some(output)]);
        }
    }
}

fn reshape(graph: &mut Graph, value: ValueId, dims: &[i64], name: &str) -> ValueId {
    let shape = graph.add_initializer(TensorProto::from_i64(&format!("{name}_shape"), &[dims.len()], dims));
    graph.add_op("Reshape", &[Some(value), Some(shape)], Vec::new(), name)
}

fn to(element: DataType) -> AttributeProto {
    AttributeProto::element("to", element)
}

fn cast(graph: &mut Graph, value: ValueId, element: DataType, name: &str) -> ValueId {
    graph.add_op("Cast", &[Some(value)], vec![to(element)], name)
}
