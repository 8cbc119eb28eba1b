//! Patterns of quantizers as passes rewrite them, of the default domain.
//!
//! Each value is dequantized by one `DequantizeLinear`, or quantized by the one `QuantizeLinear` that reads it. Scales
//! and zero points must be stored constants; the integers need not be.

use super::{Parameters, QuantizedGraph};
use crate::ir::{DataType, Model, Node, NodeId, TensorProto, ValueId};
use crate::ops::{Trait, facts};
use std::borrow::Cow;

/// Element types of activations and weights that integer kernels read.
pub(crate) const EIGHT_BITS: &[DataType] = &[DataType::Uint8, DataType::Int8];

/// Integers and their parameters.
#[derive(Clone, Debug)]
pub(crate) struct Quantized {
    /// The integers.
    pub(crate) integers: ValueId,
    /// Their type.
    pub(crate) element: DataType,
    /// The scales as a value of the graph.
    pub(crate) scale: ValueId,
    /// The zero points, where they are stated.
    pub(crate) zero_point: Option<ValueId>,
    /// One scale, or one for each slice along `axis`.
    pub(crate) scales: Vec<f32>,
    /// As many as scales.
    pub(crate) zero_points: Vec<i64>,
    /// Counts from the end if negative; without meaning where there is one scale.
    pub(crate) axis: i64,
}

impl Quantized {
    /// Whether one scale and zero point hold for all elements.
    pub(crate) fn per_tensor(&self) -> bool {
        self.scales.len() == 1
    }

    /// Whether the same integers mean the same numbers.
    pub(crate) fn same_grid(&self, other: &Self) -> bool {
        self.element == other.element && self.scales == other.scales && self.zero_points == other.zero_points
    }

    /// The zero point all slices share.
    pub(crate) fn common_zero_point(&self) -> Option<i64> {
        let &first = self.zero_points.first()?;
        self.zero_points.iter().all(|&z| z == first).then_some(first)
    }

    /// Whether the slices lie along `axis` of a tensor of `rank` axes.
    pub(crate) fn lies_along(&self, axis: usize, rank: Option<usize>) -> bool {
        let found = if self.axis < 0 { rank.map(|r| r as i64 + self.axis) } else { Some(self.axis) };
        found == Some(axis as i64)
    }
}

/// A constant as floats.
pub(crate) struct Constant {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// A model seen as integers and parameters. Errors are reasons to leave a node alone.
pub(crate) struct Qdq<'a> {
    pub(crate) model: &'a Model,
    graph: QuantizedGraph<'a>,
}

impl<'a> Qdq<'a> {
    pub(crate) fn new(model: &'a Model) -> Self {
        Self { model, graph: QuantizedGraph::new(model) }
    }

    fn name(&self, value: ValueId) -> &'a str {
        self.graph.name(value)
    }

    fn dequantizer(&self, value: ValueId) -> Option<&'a Node> {
        self.graph.producer(value).filter(|node| node.is("DequantizeLinear"))
    }

    /// Whether the node reads any dequantized value.
    pub(crate) fn reads_dequantized(&self, node: &Node) -> bool {
        node.inputs().iter().flatten().any(|&v| self.dequantizer(v).is_some())
    }

    /// The 8-bit integers behind operand `slot` of a node.
    pub(crate) fn operand(&self, node: &Node, slot: usize) -> Result<Quantized, String> {
        let value = node.input(slot).ok_or_else(|| format!("operand {slot} is left out"))?;
        self.dequantized(value, EIGHT_BITS)?
            .ok_or_else(|| format!("its operand `{}` is not dequantized", self.name(value)))
    }

    /// The integers behind an operand that has one scale for all elements.
    pub(crate) fn activation(&self, node: &Node, slot: usize) -> Result<Quantized, String> {
        let quantized = self.operand(node, slot)?;
        if quantized.per_tensor() {
            return Ok(quantized);
        }
        Err(format!("`{}` has more than one scale", self.name(quantized.integers)))
    }

    /// The integers behind a value, if any are, which must be of a type in `elements`.
    pub(crate) fn dequantized(&self, value: ValueId, elements: &[DataType]) -> Result<Option<Quantized>, String> {
        let Some(node) = self.dequantizer(value) else { return Ok(None) };
        let Some(integers) = node.input(0) else { return Ok(None) };
        if ![0, i64::from(DataType::Float.number())].contains(&node.int_or("output_dtype", 0)) {
            return Err(format!("`{}` is not dequantized to float", self.name(integers)));
        }
        self.quantized(node, integers, elements).map(Some)
    }

    /// The quantizer that alone reads a node's output, and what it writes.
    pub(crate) fn quantizer(&self, node: &Node) -> Result<(NodeId, Quantized), String> {
        let output = node.output(0).ok_or("it writes nothing")?;
        let alone = || format!("its output `{}` is not read by one quantizer alone", self.name(output));
        let reader = self.model.graph.only_use(output).ok_or_else(alone)?;
        let quantizer = self.model.graph.node(reader.node);
        let integers = quantizer.output(0).filter(|_| quantizer.is("QuantizeLinear") && reader.slot == 0);
        let integers = integers.ok_or_else(alone)?;
        let quantized = self.quantized(quantizer, integers, EIGHT_BITS)?;
        if !quantized.per_tensor() {
            return Err(format!("`{}` has more than one scale", self.name(integers)));
        }
        Ok((reader.node, quantized))
    }

    /// What a `QuantizeLinear` or `DequantizeLinear` says about its integers.
    fn quantized(&self, node: &Node, integers: ValueId, elements: &[DataType]) -> Result<Quantized, String> {
        let name = self.name(integers);
        let element = self.graph.element(node, integers);
        let element = element.ok_or_else(|| format!("the element type of `{name}` is unknown"))?;
        if !elements.contains(&element) {
            return Err(format!("`{name}` holds {element}"));
        }
        let Some(Parameters { scale, zero_point, axis, block, .. }) = self.graph.parameters(node, integers) else {
            return Err(format!("`{name}` has no scale"));
        };
        if block != 0 {
            return Err(format!("`{name}` is quantized in blocks"));
        }
        let tensor = self.constant(scale)?;
        if tensor.element_type() != Some(DataType::Float) {
            return Err(format!("the scale `{}` is not of type float", self.name(scale)));
        }
        let scales = tensor.to_f32().map_err(|e| e.to_string())?;
        let zero_points = match zero_point {
            Some(value) => self.constant(value)?.to_i64().map_err(|e| e.to_string())?,
            None => vec![0; scales.len()],
        };
        if scales.is_empty() || zero_points.len() != scales.len() {
            return Err(format!("`{name}` has {} scales and {} zero points", scales.len(), zero_points.len()));
        }
        Ok(Quantized { integers, element, scale, zero_point, scales, zero_points, axis })
    }

    /// The tensor of a value no caller can change.
    pub(crate) fn constant(&self, value: ValueId) -> Result<Cow<'a, TensorProto>, String> {
        self.graph.stored(value).ok_or_else(|| format!("`{}` is not constant", self.name(value)))?
    }

    /// A constant vector or tensor as floats, whether stored so or dequantized. More than one scale is read for vectors
    /// only, where it can mean but one thing.
    pub(crate) fn floats(&self, value: ValueId) -> Result<Constant, String> {
        const INTEGERS: &[DataType] = &[DataType::Int32, DataType::Uint8, DataType::Int8];
        let Some(quantized) = self.dequantized(value, INTEGERS)? else {
            let tensor = self.constant(value)?;
            let (shape, values) =
                (tensor.shape().map_err(|e| e.to_string())?, tensor.to_f32().map_err(|e| e.to_string())?);
            return Ok(Constant { shape, values });
        };
        let tensor = self.constant(quantized.integers)?;
        let shape = tensor.shape().map_err(|e| e.to_string())?;
        if !quantized.per_tensor() && shape != [quantized.scales.len()] {
            return Err(format!("`{}` has more than one scale and is no vector", self.name(quantized.integers)));
        }
        let integers = tensor.to_i64().map_err(|e| e.to_string())?;
        let parameters = quantized.scales.iter().zip(&quantized.zero_points).cycle();
        let values = integers.iter().zip(parameters).map(|(&q, (&scale, &zero))| (q - zero) as f32 * scale).collect();
        Ok(Constant { shape, values })
    }

    /// Number of axes of a value, followed through nodes that keep it.
    pub(crate) fn rank(&self, mut value: ValueId) -> Option<usize> {
        let graph = &self.model.graph;
        loop {
            if let Some(tensor) = graph.initializer(value) {
                return Some(tensor.dims.len());
            }
            if let Some(shape) = graph.value(value).shape() {
                return Some(shape.len());
            }
            let node = graph.node(graph.value(value).producer()?.0);
            value = match node.op() {
                "Reshape" => return graph.constant(node.input(1)?)?.element_count().ok(),
                op if facts(op).has(Trait::Conversion) || matches!(op, "Slice" | "Transpose") => node.input(0)?,
                _ => return None,
            };
        }
    }
}
