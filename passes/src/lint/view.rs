//! What the rules look at: a model's constants, element types, quantizers and layers, found once.
//!
//! Weights may be written as a constant sub-graph that unpacks them: a value counts as constant when nothing but
//! constants goes into it, since runtimes compute such values once.

use crate::analysis::LayerOp;
use crate::analysis::element_types::element_types;
use crate::ir::{DataType, Graph, Model, Node, NodeId, TensorProto, ValueId};
use crate::ops::{Trait, facts};
use crate::target::Profile;
use std::collections::{HashMap, HashSet};

/// Integers that stand for floats: x ≈ (q − `zero_point`)·`scale`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quantized {
    /// The integers.
    pub(super) integers: ValueId,
    /// The scale input.
    pub(super) scale: ValueId,
    /// The zero point input.
    pub(super) zero_point: Option<ValueId>,
    /// The axis along which scales lie, where there are several.
    pub(super) axis: i64,
    /// Length of a block, 0 where scales are not blocked.
    pub(super) block: i64,
    /// The type of the integers, where it is known.
    pub(super) element: Option<DataType>,
}

/// The bias of a layer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bias {
    None,
    Float,
    Quantized(Quantized),
    /// int32 without a scale of its own, as `QLinearConv` has it.
    Implied,
}

/// A layer with at least one quantized operand.
#[derive(Clone, Debug)]
pub(super) struct QuantizedLayer {
    pub(super) op: LayerOp,
    pub(super) node: NodeId,
    pub(super) input: Option<Quantized>,
    /// Quantized weights that are constant.
    pub(super) weight: Option<Quantized>,
    pub(super) bias: Bias,
}

/// A model under inspection.
pub(super) struct View<'a> {
    pub(super) model: &'a Model,
    pub(super) graph: &'a Graph,
    pub(super) profile: &'a Profile,
    constants: HashSet<ValueId>,
    types: HashMap<ValueId, DataType>,
}

impl<'a> View<'a> {
    pub(super) fn new(model: &'a Model, profile: &'a Profile) -> Self {
        let graph = &model.graph;
        View { model, graph, profile, constants: constants(graph), types: element_types(graph) }
    }

    /// Whether there is anything quantized at all.
    pub(super) fn is_quantized(&self) -> bool {
        self.graph.nodes().any(|(_, node)| {
            let integers = ["QLinear", "ConvInteger", "MatMulInteger", "QGemm", "DynamicQuantizeLinear", "MatMulNBits"];
            is_quantizer(node) || is_dequantizer(node) || integers.iter().any(|op| node.op().starts_with(op))
        })
    }

    /// Whether nothing but constants goes into the value.
    pub(super) fn is_constant(&self, value: ValueId) -> bool {
        self.constants.contains(&value)
    }

    pub(super) fn element(&self, value: ValueId) -> Option<DataType> {
        self.types.get(&value).copied()
    }

    pub(super) fn name(&self, value: ValueId) -> String {
        self.graph.value(value).name().to_owned()
    }

    pub(super) fn label(&self, node: NodeId) -> String {
        self.graph.node(node).label(self.graph).to_owned()
    }

    pub(super) fn producer(&self, value: ValueId) -> Option<(NodeId, &'a Node)> {
        let (id, _) = self.graph.value(value).producer()?;
        Some((id, self.graph.node(id)))
    }

    /// The integers behind a value that a `DequantizeLinear` writes.
    pub(super) fn dequantized(&self, value: ValueId) -> Option<Quantized> {
        let (_, node) = self.producer(value)?;
        if is_dequantizer(node) { self.parameters(node, node.input(0)?) } else { None }
    }

    /// What a `QuantizeLinear` writes.
    pub(super) fn quantizer(&self, node: &Node) -> Option<Quantized> {
        if is_quantizer(node) { self.parameters(node, node.output(0)?) } else { None }
    }

    fn parameters(&self, node: &Node, integers: ValueId) -> Option<Quantized> {
        let zero_point = node.input(2);
        let stated = node.int("output_dtype").and_then(|n| DataType::from_number(i32::try_from(n).ok()?));
        let element = zero_point.and_then(|z| self.element(z)).or(stated).or_else(|| self.element(integers));
        let (axis, block) = (node.int_or("axis", 1), node.int_or("block_size", 0));
        Some(Quantized { integers, scale: node.input(1)?, zero_point, axis, block, element })
    }

    fn tensor(&self, value: ValueId) -> Option<TensorProto> {
        match self.graph.constant(value) {
            Some(tensor) => self.model.loaded(tensor).ok().map(std::borrow::Cow::into_owned),
            None => self.producer(value).filter(|(_, n)| n.is("Constant")).and_then(|(_, n)| n.constant()),
        }
    }

    /// Number of axes of a constant tensor that is stored or cast.
    pub(super) fn shape(&self, value: ValueId) -> Option<Vec<usize>> {
        if let Some(tensor) = self.graph.constant(value) {
            return tensor.shape().ok();
        }
        let (_, node) = self.producer(value)?;
        match node.op() {
            "Cast" | "Identity" | "Sub" => self.shape(node.input(0)?),
            "Reshape" => {
                let shape = self.tensor(node.input(1)?)?.to_i64().ok()?;
                shape.into_iter().map(|n| usize::try_from(n).ok()).collect()
            }
            "Constant" => self.tensor(value)?.shape().ok(),
            _ => None,
        }
    }

    /// Constant floats: stored, cast, or products of such.
    pub(super) fn floats(&self, value: ValueId) -> Option<Vec<f32>> {
        if let Some(tensor) = self.tensor(value) {
            return tensor.to_f32().ok();
        }
        let (_, node) = self.producer(value)?;
        match node.op() {
            "Cast" | "Identity" | "Reshape" => self.floats(node.input(0)?),
            "Mul" => {
                let (a, b) = (self.floats(node.input(0)?)?, self.floats(node.input(1)?)?);
                match (a.len(), b.len()) {
                    (_, 1) => Some(a.iter().map(|x| x * b[0]).collect()),
                    (1, _) => Some(b.iter().map(|x| x * a[0]).collect()),
                    (m, n) if m == n => Some(a.iter().zip(&b).map(|(x, y)| x * y).collect()),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The one constant float a value holds.
    pub(super) fn float(&self, value: ValueId) -> Option<f32> {
        match self.floats(value)?[..] {
            [only] => Some(only),
            _ => None,
        }
    }

    /// Zero points; 0 where there are none.
    pub(super) fn zero_points(&self, of: &Quantized) -> Option<Vec<i64>> {
        let Some(value) = of.zero_point else { return Some(vec![0]) };
        let tensor = self.tensor(value)?;
        tensor.to_i64().ok().or_else(|| {
            // Types below 8 bits: only whether all are zero is ever asked.
            let zero = tensor.raw_data.as_ref().map_or(&[][..], |raw| raw).iter().all(|&byte| byte == 0);
            Some(vec![i64::from(!zero || tensor.int32_data.iter().any(|&v| v != 0))])
        })
    }

    /// The type the file states for the integers.
    pub(super) fn element_of_zero(&self, of: &Quantized) -> Option<DataType> {
        of.zero_point.map_or(of.element, |zero| self.element(zero))
    }

    /// Whether two quantizers say the same.
    pub(super) fn alike(&self, a: &Quantized, b: &Quantized) -> bool {
        let same = |x: Option<Vec<f32>>, y: Option<Vec<f32>>| x.is_some() && x == y;
        let scales = a.scale == b.scale || same(self.floats(a.scale), self.floats(b.scale));
        let zeros = a.zero_point == b.zero_point || self.zero_points(a) == self.zero_points(b);
        let types = (self.element_of_zero(a), self.element_of_zero(b));
        scales && zeros && (types.0 == types.1 || types.0.is_none() || types.1.is_none())
    }

    /// Integers that a caller or a node provides, each once, in graph order.
    pub(super) fn activations(&self) -> Vec<Quantized> {
        let mut seen = HashSet::new();
        let mut found = Vec::new();
        for (_, node) in self.graph.nodes() {
            let read = node.input(0).filter(|_| is_dequantizer(node)).and_then(|v| self.parameters(node, v));
            let operands = qlinear_operands(self, node);
            for quantized in read.into_iter().chain(self.quantizer(node)).chain(operands) {
                if !self.is_constant(quantized.integers) && seen.insert(quantized.integers) {
                    found.push(quantized);
                }
            }
        }
        found
    }

    /// Layers with a quantized input or weight.
    pub(super) fn layers(&self) -> Vec<QuantizedLayer> {
        let layers = self.graph.nodes().filter_map(|(id, node)| {
            LayerOp::of(node).and_then(|op| self.layer(op, id, node)).or_else(|| self.qlinear_layer(id, node))
        });
        layers.collect()
    }

    fn layer(&self, op: LayerOp, node: NodeId, of: &Node) -> Option<QuantizedLayer> {
        let input = self.dequantized(of.input(0)?);
        let weight = self.dequantized(of.input(1)?).filter(|q| self.is_constant(q.integers));
        let bias = match of.input(2) {
            None => Bias::None,
            Some(value) => self.dequantized(value).map_or(Bias::Float, Bias::Quantized),
        };
        (input.is_some() || weight.is_some()).then_some(QuantizedLayer { op, node, input, weight, bias })
    }

    fn qlinear_layer(&self, node: NodeId, of: &Node) -> Option<QuantizedLayer> {
        let op = if of.is("QLinearConv") { LayerOp::Conv } else { LayerOp::MatMul };
        if !of.is("QLinearConv") && !of.is("QLinearMatMul") {
            return None;
        }
        let operand = |slot| triple(self, of, slot);
        let weight = operand(3).filter(|q| self.is_constant(q.integers));
        let bias = of.input(8).map_or(Bias::None, |_| Bias::Implied);
        Some(QuantizedLayer { op, node, input: operand(0), weight, bias })
    }
}

/// A `QuantizeLinear`, the default domain's or onnxruntime's own.
pub(super) fn is_quantizer(node: &Node) -> bool {
    node.op() == "QuantizeLinear" && matches!(node.domain(), "" | "com.microsoft")
}

/// A `DequantizeLinear`, the default domain's or onnxruntime's own.
pub(super) fn is_dequantizer(node: &Node) -> bool {
    node.op() == "DequantizeLinear" && matches!(node.domain(), "" | "com.microsoft")
}

/// Integers, scale and zero point in three inputs from `slot` on.
fn triple(view: &View, node: &Node, slot: usize) -> Option<Quantized> {
    let (integers, zero_point) = (node.input(slot)?, node.input(slot + 2));
    let element = zero_point.and_then(|z| view.element(z)).or_else(|| view.element(integers));
    Some(Quantized { integers, scale: node.input(slot + 1)?, zero_point, axis: 0, block: 0, element })
}

fn qlinear_operands(view: &View, node: &Node) -> Vec<Quantized> {
    if !node.is("QLinearConv") && !node.is("QLinearMatMul") {
        return Vec::new();
    }
    let written = node.output(0).zip(node.input(6)).map(|(integers, scale)| Quantized {
        integers,
        scale,
        zero_point: node.input(7),
        axis: 0,
        block: 0,
        element: node.input(7).and_then(|z| view.element(z)),
    });
    [triple(view, node, 0), triple(view, node, 3), written].into_iter().flatten().collect()
}

/// Values that only constants go into. Nodes are in topological order.
fn constants(graph: &Graph) -> HashSet<ValueId> {
    let mut found: HashSet<ValueId> =
        graph.initializers().map(|(v, _)| v).filter(|&v| graph.constant(v).is_some()).collect();
    for (_, node) in graph.nodes() {
        let random = facts(node.op()).has(Trait::Random);
        let reads = node.inputs().iter().flatten().chain(node.captures());
        if !random && reads.into_iter().all(|v| found.contains(v)) {
            found.extend(node.outputs().iter().flatten());
        }
    }
    found
}
