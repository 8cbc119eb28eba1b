//! A node on the way back, and what rules write there.

use crate::ir::{AttributeProto, DataType, Graph, Node, TensorProto, ValueId};
use std::collections::HashMap;

/// What a node hands to each of its inputs; nothing to one whose gradient is not wanted or is 0.
pub(super) type Handed = Result<Vec<Option<ValueId>>, String>;

/// A node with the gradients of its outputs, in the graph that its rule adds to.
pub(super) struct Site<'g> {
    pub(super) graph: &'g mut Graph,
    /// The node.
    pub(super) node: Node,
    given: Vec<Option<ValueId>>,
    wants: Vec<bool>,
    /// Constants of one element, by type and bits.
    scalars: HashMap<(DataType, u32), ValueId>,
}

impl<'g> Site<'g> {
    pub(super) fn new(graph: &'g mut Graph) -> Self {
        let node = Node::default();
        Self { graph, node, given: Vec::new(), wants: Vec::new(), scalars: HashMap::new() }
    }

    /// Moves on to a node. At least one output has a gradient.
    pub(super) fn enter(&mut self, node: Node, given: Vec<Option<ValueId>>, wants: Vec<bool>) {
        (self.node, self.given, self.wants) = (node, given, wants);
    }

    /// The gradient of output `slot`.
    pub(super) fn given(&self, slot: usize) -> Option<ValueId> {
        self.given.get(slot).copied().flatten()
    }

    /// The gradient of the first output, of an operator none of whose other outputs can have one.
    pub(super) fn gradient(&self) -> Result<ValueId, String> {
        if self.given.iter().skip(1).any(Option::is_some) {
            return Err("an output other than the first is differentiated".to_owned());
        }
        self.given(0).ok_or_else(|| "its first output is not there".to_owned())
    }

    /// Whether the gradient of input `slot` is wanted.
    pub(super) fn wants(&self, slot: usize) -> bool {
        self.wants.get(slot).copied().unwrap_or(false)
    }

    /// Refuses a node where the gradient of any input from `slot` on is wanted.
    pub(super) fn only_before(&self, slot: usize) -> Result<(), String> {
        match (slot..self.wants.len()).find(|&slot| self.wants(slot)).and_then(|slot| self.node.input(slot)) {
            Some(value) => Err(format!("there is no rule for the gradient of its input `{}`", self.name(value))),
            None => Ok(()),
        }
    }

    /// Input `slot`.
    pub(super) fn input(&self, slot: usize) -> Result<ValueId, String> {
        self.node.input(slot).ok_or_else(|| format!("its input {slot} is missing"))
    }

    /// The first output.
    pub(super) fn output(&self) -> Result<ValueId, String> {
        self.node.output(0).ok_or_else(|| "its first output is missing".to_owned())
    }

    pub(super) fn name(&self, value: ValueId) -> &str {
        self.graph.value(value).name()
    }

    /// The shape of a value, in full.
    pub(super) fn shape(&self, value: ValueId) -> Result<Vec<usize>, String> {
        let of_tensor = self.graph.initializer(value).and_then(|tensor| tensor.shape().ok());
        let declared = || self.graph.value(value).shape()?.into_iter().collect();
        of_tensor.or_else(declared).ok_or_else(|| {
            format!(
                "the shape of `{}` is not known; fix the shapes of the inputs and infer types first",
                self.name(value)
            )
        })
    }

    /// The axes an attribute or, from some operator set on, a constant input gives, counted from the front.
    pub(super) fn axes(&self, slot: usize, rank: usize) -> Result<Option<Vec<usize>>, String> {
        let numbers = match self.node.input(slot) {
            Some(value) => self.integers(value)?,
            None if self.node.attribute("axes").is_none() => return Ok(None),
            None => self.node.ints("axes").to_vec(),
        };
        numbers.into_iter().map(|axis| axis_at(axis, rank)).collect::<Result<_, _>>().map(Some)
    }

    /// The elements of a constant of integers.
    pub(super) fn integers(&self, value: ValueId) -> Result<Vec<i64>, String> {
        let elements = self.graph.constant(value).and_then(|tensor| tensor.to_i64().ok());
        elements.ok_or_else(|| format!("its input `{}` is not a constant in memory", self.name(value)))
    }

    /// The elements of a constant of floats.
    pub(super) fn floats(&self, value: ValueId) -> Result<Vec<f32>, String> {
        let elements = self.graph.constant(value).and_then(|tensor| tensor.to_f32().ok());
        elements.ok_or_else(|| format!("its input `{}` is not a constant in memory", self.name(value)))
    }

    /// The type of the node's floats.
    pub(super) fn element(&self) -> DataType {
        let values = self.given.iter().flatten().chain(self.node.inputs().iter().flatten());
        let mut types = values.filter_map(|&value| {
            let tensor = self.graph.initializer(value).and_then(TensorProto::element_type);
            tensor.or_else(|| self.graph.value(value).element_type())
        });
        types.find(|element| element.is_float()).unwrap_or(DataType::Float)
    }

    /// Adds a node and returns its output.
    pub(super) fn op(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        self.op_with(op, inputs, Vec::new())
    }

    /// Adds a node with attributes and returns its output.
    pub(super) fn op_with(&mut self, op: &str, inputs: &[ValueId], attributes: Vec<AttributeProto>) -> ValueId {
        let stem = format!("{}_{}_back", self.node.label(self.graph), op.to_lowercase());
        let inputs: Vec<Option<ValueId>> = inputs.iter().copied().map(Some).collect();
        self.graph.add_op(op, &inputs, attributes, &stem)
    }

    /// A constant.
    pub(super) fn constant(&mut self, mut tensor: TensorProto) -> ValueId {
        tensor.name = Some(format!("{}_constant_back", self.node.label(self.graph)));
        self.graph.add_initializer(tensor)
    }

    /// A constant of the type of the node's floats.
    pub(super) fn tensor(&mut self, shape: &[usize], values: &[f32]) -> ValueId {
        let like = TensorProto::from_raw("", self.element(), &[], Vec::new());
        self.constant(like.with_f32(shape, values))
    }

    /// A constant of integers.
    pub(super) fn vector(&mut self, values: &[i64]) -> ValueId {
        self.constant(TensorProto::from_i64("", &[values.len()], values))
    }

    /// A constant of one element and no axes, of the type of the node's floats; one for all nodes.
    pub(super) fn scalar(&mut self, value: f32) -> ValueId {
        let key = (self.element(), value.to_bits());
        if let Some(&known) = self.scalars.get(&key) {
            return known;
        }
        let made = self.tensor(&[], &[value]);
        self.scalars.insert(key, made);
        made
    }

    pub(super) fn mul(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.op("Mul", &[a, b])
    }

    pub(super) fn scale(&mut self, value: ValueId, factor: f32) -> ValueId {
        if factor == 1.0 {
            return value;
        }
        let factor = self.scalar(factor);
        self.mul(value, factor)
    }

    /// `offset − value`.
    pub(super) fn from(&mut self, offset: f32, value: ValueId) -> ValueId {
        let offset = self.scalar(offset);
        self.op("Sub", &[offset, value])
    }

    /// `value + offset`.
    pub(super) fn plus(&mut self, value: ValueId, offset: f32) -> ValueId {
        let offset = self.scalar(offset);
        self.op("Add", &[value, offset])
    }

    /// The value where a condition holds, else 0.
    pub(super) fn masked(&mut self, condition: ValueId, value: ValueId) -> ValueId {
        let zero = self.scalar(0.0);
        self.op("Where", &[condition, value, zero])
    }

    /// The sum of all parts, from the first to the last.
    pub(super) fn sum(&mut self, parts: Vec<ValueId>) -> Option<ValueId> {
        parts.into_iter().reduce(|a, b| self.op("Add", &[a, b]))
    }

    /// The value in another shape.
    pub(super) fn reshape(&mut self, value: ValueId, shape: &[usize]) -> ValueId {
        let shape: Vec<i64> = shape.iter().map(|&length| length as i64).collect();
        let shape = self.vector(&shape);
        self.op("Reshape", &[value, shape])
    }

    /// The value repeated to a shape.
    pub(super) fn expand(&mut self, value: ValueId, shape: &[usize]) -> ValueId {
        let shape: Vec<i64> = shape.iter().map(|&length| length as i64).collect();
        let shape = self.vector(&shape);
        self.op("Expand", &[value, shape])
    }

    /// The value, of length 1 along some axes of a shape, repeated along these and multiplied by a factor. A product does
    /// both at once, and the engine moves no layer in front of it, as it may do with `Expand`.
    pub(super) fn spread(&mut self, value: ValueId, shape: &[usize], axes: &[usize], factor: f32) -> ValueId {
        let length = |(axis, &length): (usize, &usize)| if axes.contains(&axis) { length } else { 1 };
        let repeated: Vec<usize> = shape.iter().enumerate().map(length).collect();
        let factors = self.tensor(&repeated, &vec![factor; repeated.iter().product()]);
        self.mul(value, factors)
    }

    /// The sum over axes, which keep length 1.
    pub(super) fn reduce(&mut self, value: ValueId, axes: &[usize]) -> ValueId {
        if axes.is_empty() {
            return value;
        }
        let axes: Vec<i64> = axes.iter().map(|&axis| axis as i64).collect();
        let axes = self.vector(&axes);
        self.op_with("ReduceSum", &[value, axes], vec![AttributeProto::int("keepdims", 1)])
    }

    /// The value with its axes in another order.
    pub(super) fn transpose(&mut self, value: ValueId, order: &[usize]) -> ValueId {
        if order.iter().copied().eq(0..order.len()) {
            return value;
        }
        let order: Vec<i64> = order.iter().map(|&axis| axis as i64).collect();
        self.op_with("Transpose", &[value], vec![AttributeProto::ints("perm", &order)])
    }

    /// What reaches an operand of shape `to` that was broadcast to `from`: the sum over the axes where it was repeated.
    pub(super) fn unbroadcast(&mut self, value: ValueId, from: &[usize], to: &[usize]) -> ValueId {
        let new = from.len() - to.len().min(from.len());
        let repeated = |&axis: &usize| axis < new || (to[axis - new] == 1 && from[axis] != 1);
        let axes: Vec<usize> = (0..from.len()).filter(repeated).filter(|&axis| from[axis] != 1).collect();
        let sum = if axes.is_empty() { value } else { self.reduce(value, &axes) };
        if new == 0 { sum } else { self.reshape(sum, to) }
    }

    /// What reaches input `slot` of a node whose operands are broadcast to the shape of its output.
    pub(super) fn for_input(&mut self, value: ValueId, slot: usize) -> Result<ValueId, String> {
        let (input, output) = (self.input(slot)?, self.output()?);
        // Of one type with named axes, without knowing their lengths.
        if self.graph.value(input).ty().is_some() && self.graph.value(input).ty() == self.graph.value(output).ty() {
            return Ok(value);
        }
        let (from, to) = (self.shape(output)?, self.shape(input)?);
        Ok(self.unbroadcast(value, &from, &to))
    }

    /// The product of a matrix with the value along one axis, of length `matrix` columns before and rows after.
    pub(super) fn along(
        &mut self,
        value: ValueId,
        shape: &[usize],
        axis: usize,
        (matrix, rows): (ValueId, usize),
    ) -> ValueId {
        let (before, after): (usize, usize) = (shape[..axis].iter().product(), shape[axis + 1..].iter().product());
        let flat = self.reshape(value, &[before, shape[axis], after]);
        let product = self.op("MatMul", &[matrix, flat]);
        let mut shape = shape.to_vec();
        shape[axis] = rows;
        self.reshape(product, &shape)
    }
}

/// The axis that a number stands for.
pub(super) fn axis_at(number: i64, rank: usize) -> Result<usize, String> {
    crate::ir::axis_of(number, rank).ok_or_else(|| format!("there is no axis {number} among {rank}"))
}
