//! Quantizers before and behind a node, as onnxruntime sees them after it has moved them.
//!
//! A `DequantizeLinear` with one scale is moved forward, and a `QuantizeLinear` backward, across operators that only
//! move data: a layer behind a `Reshape` of dequantized values reads integers. A `Relu` or `Clip` that the quantizer
//! behind it makes redundant by saturating is removed.
//!
//! On x86 kernels take uint8 data: a pair of quantizer and dequantizer for int8 is made one for uint8, but only where
//! one node reads what it stands for, and never a constant. The parts say which type they end up with.

use super::super::view::View;
use crate::analysis::quantized::{Parameters, is_dequantizer, is_quantizer};
use crate::ir::{DataType, Node, NodeId, Use, ValueId};
use crate::ops::{Trait, facts};
use crate::target::ActivationGrid;

/// Where a node's output goes.
pub(super) enum Output {
    /// Into one quantizer and nowhere else.
    Quantized(Parameters),
    /// Nowhere near a quantizer.
    Float,
    /// Near a quantizer, but no kernel can write its integers.
    Blocked(String),
}

pub(super) struct Links<'a> {
    pub(super) view: &'a View<'a>,
}

impl Links<'_> {
    /// Whether onnxruntime moves quantizers across the node.
    pub(super) fn crosses(&self, node: &Node) -> bool {
        let old_pool = node.op() == "MaxPool" && self.view.model.opset("").is_some_and(|v| v < 12);
        let crossed = self.view.profile.kernel(node.op()).is_some_and(|kernel| kernel.crossed);
        node.domain().is_empty() && crossed && !old_pool
    }

    /// The integers a value stands for, with the type they end up with.
    pub(super) fn source(&self, value: ValueId) -> Option<Parameters> {
        let read_once = self.read_once(value);
        let mut found = self.stated_source(value)?;
        let own = self.view.dequantized(value).is_some();
        // Constants and integer inputs of the graph have no quantizer to change.
        let pair = self.view.producer(found.integers).is_some_and(is_quantizer);
        let alone = !own || (pair && self.view.graph.only_use(found.integers).is_some());
        found.element = self.final_type(&found, read_once && alone);
        Some(found)
    }

    fn stated_source(&self, value: ValueId) -> Option<Parameters> {
        if let Some(found) = self.view.dequantized(value) {
            return Some(found);
        }
        let node = self.view.producer(value)?;
        let before = node.input(0).filter(|_| self.crosses(node))?;
        self.stated_source(before).filter(|q| self.has_one_scale(q))
    }

    /// Whether one node reads the value, or the caller alone.
    fn read_once(&self, value: ValueId) -> bool {
        let v = self.view.graph.value(value);
        v.uses().len() + v.captures().len() + usize::from(self.view.graph.is_output(value)) == 1
    }

    /// int8 becomes uint8 on x86 where the pair is read once and has zero points.
    pub(super) fn final_type(&self, of: &Parameters, read_once: bool) -> Option<DataType> {
        let unsigned = self.view.profile.activations == ActivationGrid::Unsigned;
        let changes = of.element == Some(DataType::Int8) && unsigned && read_once && of.zero_point.is_some();
        if changes { Some(DataType::Uint8) } else { of.element }
    }

    /// The type that a moved pair behind the node's output ends up with.
    pub(super) fn moved_type(&self, node: &Node, of: &Parameters) -> Option<DataType> {
        self.final_type(of, node.output(0).is_some_and(|v| self.read_once(v)))
    }

    /// Where the first output of a node goes.
    pub(super) fn output(&self, node: &Node) -> Output {
        let Some(value) = node.output(0) else { return Output::Float };
        let graph = self.view.graph;
        if let Some(clamp) = self.clamp(value) {
            let Some(quantizer) = graph.node(clamp).output(0).and_then(|v| self.only_quantizer(v)) else {
                return Output::Blocked(format!("`{}` behind it is not quantized", self.view.label(clamp)));
            };
            if graph.is_output(value) {
                return Output::Blocked("its output is a graph output as well".to_owned());
            }
            return match self.redundant(graph.node(clamp), &quantizer) {
                Ok(()) => Output::Quantized(quantizer),
                Err(reason) => Output::Blocked(format!("`{}` behind it stays: {reason}", self.view.label(clamp))),
            };
        }
        if let Some(quantizer) = self.only_quantizer(value) {
            return Output::Quantized(quantizer);
        }
        let readers = graph.value(value).uses();
        if readers.iter().any(|u| is_quantizer(graph.node(u.node))) {
            return Output::Blocked("its output is read by more than its quantizer".to_owned());
        }
        Output::Float
    }

    /// The `Relu` or `Clip` that is all that reads the value and that one node reads.
    fn clamp(&self, value: ValueId) -> Option<NodeId> {
        let graph = self.view.graph;
        let [Use { node, slot: 0 }] = graph.value(value).uses()[..] else { return None };
        let clamp = graph.node(node);
        let one_reader = clamp.output(0).is_some_and(|v| graph.only_use(v).is_some());
        (clamp.domain().is_empty() && facts(clamp.op()).has(Trait::Clamp) && one_reader).then_some(node)
    }

    /// The quantizer that is all that reads a value, or what operators in between make of it.
    pub(super) fn only_quantizer(&self, value: ValueId) -> Option<Parameters> {
        let reader = self.view.graph.only_use(value).filter(|u| u.slot == 0)?;
        let node = self.view.graph.node(reader.node);
        if is_quantizer(node) {
            let mut found = self.view.quantizer(node)?;
            let dequantizer = self.view.graph.only_use(found.integers).map(|u| self.view.graph.node(u.node));
            let dequantized = dequantizer.filter(|n| is_dequantizer(n)).and_then(|n| n.output(0));
            found.element = self.final_type(&found, dequantized.is_some_and(|v| self.read_once(v)));
            return Some(found);
        }
        let next = node.output(0).filter(|_| self.crosses(node))?;
        let mut moved = self.only_quantizer(next).filter(|q| self.has_one_scale(q))?;
        // The pair in front of the operator is a new one, which nobody else reads.
        moved.element = self.final_type(&moved, true);
        Some(moved)
    }

    pub(super) fn has_one_scale(&self, quantized: &Parameters) -> bool {
        quantized.block == 0 && self.view.floats(quantized.scale).is_none_or(|s| s.len() == 1)
    }

    /// Whether saturating does what the clamp does.
    pub(super) fn redundant(&self, clamp: &Node, by: &Parameters) -> Result<(), String> {
        let Some(zero) = self.view.zero_points(by).and_then(|z| z.first().copied()) else {
            return Err("the quantizer's zero point is not constant".to_owned());
        };
        // The zero point is the one written, whatever the type will be.
        let (low, high) = match self.view.element_of_zero(by) {
            Some(DataType::Int8) => (-128, 127),
            Some(DataType::Uint16) => (0, 65_535),
            Some(DataType::Int16) => (-32_768, 32_767),
            _ => (0, 255),
        };
        if clamp.is("Relu") {
            return (zero == low).then_some(()).ok_or_else(|| format!("the zero point is {zero}, not {low}"));
        }
        let scale = self.view.float(by.scale).ok_or("the quantizer's scale is not one constant")?;
        let bound = |slot: usize, name: &str, open: f32| match clamp.input(slot) {
            Some(value) => self.view.float(value),
            None => Some(clamp.float_or(name, open)),
        };
        let (least, most) =
            bound(1, "min", f32::MIN).zip(bound(2, "max", f32::MAX)).ok_or("its bounds are computed")?;
        // As the runtime rounds: to the nearest step, ties to even.
        let step = |bound: f32| (bound / scale).round_ties_even() as i64;
        let covered = step(least).saturating_add(zero) <= low && step(most).saturating_add(zero) >= high;
        covered.then_some(()).ok_or_else(|| "the quantizer's range is wider".to_owned())
    }

    /// Whether a convolution on integers writes what the node reads, or reads what it writes, with nothing but
    /// quantizers and clamps in between.
    pub(super) fn is_beside_convolution(&self, node: &Node) -> bool {
        let before = node.input(0).is_some_and(|value| self.convolution_before(value));
        before || node.output(0).is_some_and(|value| self.convolution_behind(value))
    }

    fn convolution_before(&self, mut value: ValueId) -> bool {
        while let Some(node) = self.view.producer(value) {
            match node.input(0) {
                Some(input) if is_between(node) => value = input,
                _ => return self.is_integer_convolution(node),
            }
        }
        false
    }

    fn convolution_behind(&self, value: ValueId) -> bool {
        let graph = self.view.graph;
        graph.value(value).uses().iter().filter(|u| u.slot == 0).any(|u| {
            let node = graph.node(u.node);
            let next = node.output(0).filter(|_| is_between(node));
            next.map_or_else(|| self.is_integer_convolution(node), |value| self.convolution_behind(value))
        })
    }

    fn is_integer_convolution(&self, node: &Node) -> bool {
        let quantized = || node.input(1).is_some_and(|weight| self.source(weight).is_some());
        node.op() == "QLinearConv" || (node.is("Conv") && quantized())
    }
}

fn is_between(node: &Node) -> bool {
    let clamp = node.domain().is_empty() && facts(node.op()).has(Trait::Clamp);
    is_quantizer(node) || is_dequantizer(node) || clamp
}
