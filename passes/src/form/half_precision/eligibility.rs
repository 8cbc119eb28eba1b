//! Which nodes compute in float16, and which constants are weights.

use super::types::types;
use super::{HalfPrecision, Huge, halves};
use crate::ir::{DataType, Graph, Model, Node, NodeId, ValueId};
use crate::ops::{Half, Trait, facts, schema};
use crate::pass::PassError;
use half::f16;
use indexmap::IndexSet;
use std::collections::{HashMap, HashSet};

/// Magnitudes seen in calibration times this have to fit.
const TO_SPARE: f32 = 2.0;

/// What is decided of a graph.
pub(super) struct Decisions {
    /// The nodes that compute in float16.
    pub(super) nodes: IndexSet<NodeId>,
    /// The others, as far as there is a reason to name.
    pub(super) declined: Vec<(String, String)>,
}

/// Which nodes of a graph may compute in float16, and which of its constants are weights.
pub(super) struct Eligibility<'a> {
    pass: &'a HalfPrecision,
    model: &'a Model,
    types: HashMap<ValueId, DataType>,
    opset: i64,
    /// Whether quantizers of activations get float16 scales.
    quantizers: bool,
    /// Values computed from constants that stand for infinity.
    infinite: HashSet<ValueId>,
}

/// Why a node stays float: nothing where nobody would ask.
type Refusal = Option<String>;

/// Whether a node may compute in float16, and the reason if not.
enum Found {
    Half,
    Float(Refusal),
    Failed(PassError),
}

impl<'a> Eligibility<'a> {
    pub(super) fn new(pass: &'a HalfPrecision, model: &'a Model) -> Result<Self, PassError> {
        let opset = model.opset("").unwrap_or_default();
        let infinite = if pass.computation { infinite(model)? } else { HashSet::new() };
        let types = types(&model.graph);
        let mut eligibility = Self { pass, model, types, opset, quantizers: false, infinite };
        if pass.quantizers {
            eligibility.quantizers = eligibility.scales_fit()?;
        }
        Ok(eligibility)
    }

    fn graph(&self) -> &Graph {
        &self.model.graph
    }

    /// Decides of every node.
    pub(super) fn decide(&self) -> Result<Decisions, PassError> {
        let mut decisions = Decisions { nodes: IndexSet::new(), declined: Vec::new() };
        for (id, node) in self.graph().nodes() {
            match self.of_node(node) {
                Found::Half => {
                    decisions.nodes.insert(id);
                }
                Found::Float(None) => {}
                Found::Float(Some(reason)) => {
                    decisions.declined.push((node.label(self.graph()).to_owned(), format!("{}: {reason}", node.op())));
                }
                Found::Failed(error) => return Err(error),
            }
        }
        Ok(decisions)
    }

    fn of_node(&self, node: &Node) -> Found {
        let mut values = node.inputs().iter().chain(node.outputs()).flatten().chain(node.captures());
        if !values.any(|&value| self.is_float(value)) || self.stays_as_it_is(node) {
            return Found::Float(None);
        }
        if facts(node.op()).has(Trait::Quantized) {
            return self.of_quantizer(node);
        }
        let computes = node.outputs().iter().flatten().any(|&value| self.is_float(value));
        let half = match self.form(node) {
            Ok(half) => half,
            Err(reason) => return Found::Float(reason.filter(|_| computes)),
        };
        match self.fitting(node, half) {
            Ok(None) => Found::Half,
            Ok(Some(reason)) => Found::Float(Some(reason).filter(|_| computes)),
            Err(error) => Found::Failed(error),
        }
    }

    /// Whether a node is on integers, or a cast from or to float16.
    fn stays_as_it_is(&self, node: &Node) -> bool {
        let graph = self.graph();
        let on_integers = !self.quantizers && self.pass.on_integers.contains(node.label(graph));
        let is_half = |value: Option<ValueId>| value.is_some_and(|v| self.types.get(&v) == Some(&DataType::Float16));
        on_integers || node.is("Cast") && (is_half(node.input(0)) || is_half(node.output(0)))
    }

    /// Where the operator may have float16, or why it may not.
    fn form(&self, node: &Node) -> Result<Half, Refusal> {
        if node.subgraphs().next().is_some() {
            return Err(Some("its sub-graphs compute in float".to_owned()));
        }
        if !node.domain().is_empty() {
            return Err(Some(format!("whether it has float16 is not known of an operator of `{}`", node.domain())));
        }
        if self.crashes_when_loaded(node) {
            return Err(Some(
                "onnxruntime crashes where it joins one in float16 with the product behind it".to_owned(),
            ));
        }
        if facts(node.op()).has(Trait::SinglePrecision) || facts(node.op()).has(Trait::Random) {
            return Err(Some(
                "it computes counts, ranks, coordinates or random numbers, which float16 rounds".to_owned(),
            ));
        }
        let row = schema(node.op()).and_then(|schema| Some((schema, schema.half?)));
        let Some((schema, half)) = row.filter(|(_, half)| half.since <= self.opset) else {
            return Err(Some(format!("operator set {} has no float16 for it", self.opset)));
        };
        // An attribute says the type of what such an operator writes.
        if schema.like_output.is_empty() && !half.outputs.is_empty() && !node.is("Cast") {
            return Err(Some("an attribute says its type".to_owned()));
        }
        let slots = |values: &[Option<ValueId>], has: &dyn Fn(usize) -> bool| -> Vec<ValueId> {
            values.iter().enumerate().filter(|(slot, _)| has(*slot)).filter_map(|(_, value)| *value).collect()
        };
        let reads = slots(node.inputs(), &|slot| half.reads(slot));
        let writes = slots(node.outputs(), &|slot| half.writes(slot));
        match reads.iter().chain(&writes).find(|value| !self.types.contains_key(value)) {
            Some(&unknown) => Err(Some(format!("the type of `{}` is not known", self.name(unknown)))),
            None => Ok(half),
        }
    }

    /// Whether onnxruntime (1.31) crashes when it optimizes a `Transpose` in float16: it moves the first axis to one of the
    /// last two places, the others stay in order, and a `MatMul` reads it whose other operand has fewer axes. That holds for
    /// a product in float32 behind a `Cast`, too; a `Transpose` in float32 is safe whatever stands behind it.
    fn crashes_when_loaded(&self, node: &Node) -> bool {
        let (perm, graph) = (node.ints("perm"), self.graph());
        let Some(place) = perm.iter().position(|&axis| axis == 0) else { return false };
        let in_order = perm.iter().filter(|&&axis| axis != 0).is_sorted();
        if !node.is("Transpose") || perm.len() < 3 || place == 0 || place + 2 < perm.len() || !in_order {
            return false;
        }
        node.output(0).is_some_and(|output| feeds_product(graph, output, perm.len()))
    }

    /// Why what a node reads and writes does not fit, if it does not.
    fn fitting(&self, node: &Node, half: Half) -> Result<Refusal, PassError> {
        for (slot, &value) in node.inputs().iter().enumerate() {
            let Some(value) = value.filter(|&v| half.reads(slot) && self.is_float(v)) else { continue };
            let refusal = match self.model.constant(value) {
                Some(tensor) => {
                    let huge = huge_of(node);
                    halves(&tensor?.to_f32()?, huge).err().map(|reason| format!("`{}`: {reason}", self.name(value)))
                }
                None => self.out_of_range(value),
            };
            if refusal.is_some() {
                return Ok(refusal);
            }
        }
        let writes = node.outputs().iter().enumerate().filter(|(slot, _)| half.writes(*slot)).filter_map(|(_, v)| *v);
        Ok(writes.filter(|&v| self.is_float(v) && self.graph().is_used(v)).find_map(|v| self.out_of_range(v)))
    }

    fn of_quantizer(&self, node: &Node) -> Found {
        let dequantizes = node.is("DequantizeLinear");
        if self.opset < HalfPrecision::QUANTIZERS_OPSET || !(dequantizes || node.is("QuantizeLinear")) {
            return Found::Float(None);
        }
        let fits = if self.quantizers { Ok(true) } else { self.is_weight_of_float(node) };
        match fits {
            Ok(true) => Found::Half,
            Ok(false) => Found::Float(None),
            Err(error) => Found::Failed(error),
        }
    }

    /// Whether the scales of all quantizers fit.
    fn scales_fit(&self) -> Result<bool, PassError> {
        for (_, node) in self.graph().nodes() {
            let quantizer = node.is("QuantizeLinear") || node.is("DequantizeLinear");
            if quantizer && !self.scale_fits(node)? {
                return Ok(false);
            }
        }
        Ok(self.opset >= HalfPrecision::QUANTIZERS_OPSET)
    }

    fn scale_fits(&self, node: &Node) -> Result<bool, PassError> {
        let Some(tensor) = node.input(1).and_then(|scale| self.model.constant(scale)) else { return Ok(false) };
        let tensor = tensor?;
        if tensor.element_type() == Some(DataType::Float16) {
            return Ok(true);
        }
        let scales = tensor.to_f32()?;
        let room = scales.iter().all(|scale| 255.0 * scale * TO_SPARE <= f16::MAX.to_f32());
        Ok(room && halves(&scales, Huge::Refused).is_ok())
    }

    /// Whether a node dequantizes a constant for nodes that are not on integers.
    fn is_weight_of_float(&self, node: &Node) -> Result<bool, PassError> {
        let graph = self.graph();
        let constant = node.is("DequantizeLinear") && node.input(0).is_some_and(|x| graph.constant(x).is_some());
        let on_integers = |value: ValueId| {
            let readers = graph.value(value).uses().iter();
            readers.map(|reader| graph.node(reader.node).label(graph)).any(|name| self.pass.on_integers.contains(name))
        };
        Ok(constant && !node.output(0).is_none_or(on_integers) && self.scale_fits(node)?)
    }

    /// Why a computed value does not fit into float16, if it does not.
    fn out_of_range(&self, value: ValueId) -> Refusal {
        let name = self.name(value);
        let dequantized = self.graph().value(value).producer().map(|(node, _)| self.graph().node(node));
        // What a quantizer holds is bounded by its scale.
        if let Some(scale) = dequantized.filter(|node| node.is("DequantizeLinear")).and_then(|node| node.input(1)) {
            let scales = self.model.constant(scale).and_then(Result::ok).and_then(|tensor| tensor.to_f32().ok());
            let largest = scales.map(|scales| 255.0 * scales.iter().fold(0.0, |most: f32, scale| most.max(*scale)));
            return largest.map_or(Some(format!("the range of `{name}` is not known")), |most| beyond(name, most));
        }
        // A quantizer saturates, whatever comes.
        let readers = self.graph().value(value).uses();
        if !readers.is_empty() && readers.iter().all(|reader| self.graph().node(reader.node).is("QuantizeLinear")) {
            return None;
        }
        match self.pass.magnitudes.get(name) {
            None => Some(format!("the range of `{name}` is not known")),
            Some(seen) if self.infinite.contains(&value) => beyond(name, seen.below_infinite),
            Some(seen) => beyond(name, seen.largest),
        }
    }

    fn name(&self, value: ValueId) -> &str {
        self.graph().value(value).name()
    }

    fn is_float(&self, value: ValueId) -> bool {
        self.types.get(&value).is_none_or(|&element| element == DataType::Float)
    }

    /// Whether a constant is stored in float16 behind a cast, if its elements allow.
    pub(super) fn is_weight(&self, value: ValueId) -> bool {
        let graph = self.graph();
        let Some(tensor) = graph.constant(value) else { return false };
        let long = tensor.element_count().is_ok_and(|count| count >= super::SHORTEST);
        let touched = |&reader: &crate::ir::Use| {
            let node = graph.node(reader.node);
            let facts = facts(node.op());
            facts.has(Trait::Quantized) || self.pass.on_integers.contains(node.label(graph))
        };
        tensor.element_type() == Some(DataType::Float)
            && long
            && !graph.is_output(value)
            && graph.is_used(value)
            && !graph.value(value).uses().iter().any(touched)
    }
}

/// Whether a product whose other operand has fewer axes reads a value, behind casts too.
fn feeds_product(graph: &Graph, value: ValueId, rank: usize) -> bool {
    graph.value(value).uses().iter().any(|reader| {
        let node = graph.node(reader.node);
        if node.is("Cast") {
            return node.output(0).is_some_and(|output| feeds_product(graph, output, rank));
        }
        let axes = node.input(1 - reader.slot.min(1)).and_then(|other| match graph.constant(other) {
            Some(tensor) => Some(tensor.dims.len()),
            None => graph.value(other).shape().map(|shape| shape.len()),
        });
        node.is("MatMul") && axes.is_none_or(|axes| axes < rank)
    })
}

/// What is computed from constants that stand for infinity.
fn infinite(model: &Model) -> Result<HashSet<ValueId>, PassError> {
    let mut found = HashSet::new();
    for (value, _) in model.graph.initializers() {
        let Some(tensor) = model.constant(value) else { continue };
        let tensor = tensor?;
        if tensor.element_type() == Some(DataType::Float)
            && tensor.to_f32()?.iter().any(|float| float.is_finite() && float.abs() >= HalfPrecision::INFINITE)
        {
            found.insert(value);
        }
    }
    for (_, node) in model.graph.nodes() {
        if node.inputs().iter().flatten().chain(node.captures()).any(|value| found.contains(value)) {
            found.extend(node.outputs().iter().flatten().copied());
        }
    }
    Ok(found)
}

/// Numbers that stand for infinity are bounds of these operators, and masks of others.
pub(super) fn huge_of(node: &Node) -> Huge {
    if ["Clip", "Min", "Max"].contains(&node.op()) { Huge::End } else { Huge::StandIn }
}

/// Why such a magnitude does not fit, if it does not.
fn beyond(name: &str, most: f32) -> Refusal {
    if most * TO_SPARE > f16::MAX.to_f32() {
        return Some(format!("`{name}` reaches {most:.0}, float16 ends at 65504"));
    }
    let small = most > 0.0 && most < f16::MIN_POSITIVE.to_f32();
    small.then(|| format!("`{name}` stays below {most:e}, too small for float16"))
}
