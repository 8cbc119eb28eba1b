//! What a model holds and what could be done with it.

use super::MeasureError;
use crate::engine::standard;
use crate::prepare::quantized::{self, Qdq};
use crate::prepare::{BatchNorm, FreezeInitializers, admit, prepare};
use crate::quant::BitRate;
use crate::scheme::bit_plan::BitPlan;
use crate::scheme::metadata;
use msq_passes::analysis::quantized::is_dequantizer;
use msq_passes::analysis::{Kept, LayerOp, Placement, layers};
use msq_passes::ir::{Graph, Model, Node, TensorProto, ValueId};
use msq_passes::ops::facts;
use msq_passes::{Profile, TrellisCode, TrellisRate};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::HashMap;

/// A model at a glance.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Inspection {
    /// The tool that wrote the model.
    pub producer: String,
    /// Version of that tool.
    pub producer_version: String,
    /// Version of ONNX's file format (IR version).
    pub ir_version: i64,
    /// Version of the operator set `ai.onnx`.
    pub opset: i64,
    /// Number of nodes.
    pub nodes: usize,
    /// Size of the model in bytes, with external data.
    pub bytes: u64,
    /// Inputs of the graph that a caller must feed.
    pub inputs: Vec<ValueInspection>,
    /// Outputs of the graph.
    pub outputs: Vec<ValueInspection>,
    /// Layers that can be quantized, in graph order.
    pub layers: Vec<LayerInspection>,
    /// Other nodes that would stay in float.
    pub kept: Vec<Kept>,
    /// The bit plan in the model's metadata, by names of layers in the float model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<BitPlan>,
}

/// A graph input or output.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ValueInspection {
    /// Name.
    pub name: String,
    /// Element type and shape, as far as declared.
    #[serde(rename = "type")]
    pub ty: String,
}

/// A layer.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LayerInspection {
    /// Name.
    pub name: String,
    /// Operator.
    pub op: LayerOp,
    /// Shape of the weight.
    pub shape: Vec<usize>,
    /// Number of weights.
    pub weights: usize,
    /// Multiply-accumulates for one sample, where the shapes are known.
    pub macs: Option<u64>,
    /// Bits of the weights by the plan in the metadata, or what the weights are stored as.
    pub bits: String,
    /// Bits of its input activation; absent if that is float.
    pub activation_bits: Option<u8>,
    /// Why it would stay in float; absent if it would be quantized.
    pub reason: Option<String>,
}

/// Why a layer of a quantized model computes in float with the weights it had.
const FLOAT_WEIGHT: &str = "its weight is float";

/// Why a layer with integer weights computes in float.
const STORED: &str = "it computes in float, its weight is stored as integers";

impl LayerInspection {
    /// Whether it is a layer of a quantized model with float weights.
    pub(crate) fn is_float(&self) -> bool {
        self.reason.as_deref() == Some(FLOAT_WEIGHT)
    }
}

/// Looks at a model. It is prepared as for quantization first, so that layers hidden behind constants show.
pub fn inspect(mut model: Model) -> Result<Inspection, MeasureError> {
    crate::prepare::check(&model)?;
    let value = |v: ValueId| {
        let value = model.graph.value(v);
        let ty = value.ty().and_then(msq_passes::ir::text::print_type).unwrap_or_else(|| "unknown".to_owned());
        ValueInspection { name: value.name().to_owned(), ty }
    };
    let mut found = Inspection {
        producer: model.producer().to_owned(),
        producer_version: model.producer_version().to_owned(),
        ir_version: model.ir_version(),
        opset: model.opset("").unwrap_or_default(),
        nodes: model.graph.node_ids().len(),
        bytes: model.stored_bytes(),
        inputs: model.graph.runtime_inputs().map(value).collect(),
        outputs: model.graph.outputs().map(value).collect(),
        layers: Vec::new(),
        kept: Vec::new(),
        plan: None,
    };
    found.plan = metadata::readable_plan(&model)?;
    let in_file = found.plan.as_ref().and_then(|plan| in_file(plan, &model));
    if let (Some(plan), Some(named)) = (&mut found.plan, &in_file) {
        *plan = named.compact();
    }
    let quantized = quantized_layers(&model, in_file.as_ref());
    if !quantized.is_empty() {
        found.layers = quantized;
        return Ok(found);
    }
    let backend = standard();
    admit(&mut model, FreezeInitializers::default(), None)?;
    prepare(&mut model, BatchNorm::Fold, &[], &*backend, None)?;
    if found.opset == 0 {
        // Nothing in the file is of the default domain.
        found.opset = model.opset("").unwrap_or_default();
    }
    if let Ok(facts) = backend.infer(&model) {
        facts.annotate(&mut model);
    }
    let placement = Placement::new(&model, &Profile::ORT_CPU, |_, _, _| None);
    let reasons: HashMap<&str, &str> = placement.kept.iter().map(|k| (k.node.as_str(), k.reason.as_str())).collect();
    found.layers = layers(&model)
        .iter()
        .map(|layer| LayerInspection {
            name: layer.name.clone(),
            op: layer.op,
            shape: layer.shape.clone(),
            weights: layer.weights(),
            macs: layer.macs_per_sample(&model.graph),
            bits: model.graph.constant(layer.weight).map_or_else(String::new, stored_as),
            activation_bits: None,
            reason: reasons.get(layer.name.as_str()).map(|&r| r.to_owned()),
        })
        .collect();
    let names: Vec<&str> = found.layers.iter().map(|l| l.name.as_str()).collect();
    found.kept = placement.kept.iter().filter(|k| !names.contains(&k.node.as_str())).cloned().collect();
    Ok(found)
}

/// A layer and the values it stands between.
#[derive(Clone, Debug)]
pub(crate) struct Located {
    pub layer: LayerInspection,
    /// What it reads.
    pub input: ValueId,
    /// What it computes.
    pub output: ValueId,
}

/// Layers of a model, quantized or not, that compute in float or between quantizers.
pub(crate) fn located_layers(model: &Model) -> Vec<Located> {
    let plan = metadata::plan(model).and_then(Result::ok).and_then(|plan| in_file(&plan, model));
    let qdq = quantized::read(model);
    let located = |node: &Node| {
        LayerOp::of(node)?;
        let (layer, weight) = weighted(model, &qdq, plan.as_ref(), node)?;
        let constant = |value: &ValueId| *value == weight || qdq.is_constant(*value);
        let input = node.inputs().iter().take(2).flatten().copied().find(|value| !constant(value))?;
        Some(Located { layer, input, output: node.output(0)? })
    };
    model.graph.nodes().filter_map(|(_, node)| located(node)).collect()
}

/// The plan by the names that layers have in the file; `None` where it has other names, or another number of layers.
fn in_file(plan: &BitPlan, model: &Model) -> Option<BitPlan> {
    if plan.sequence.is_empty() {
        return (plan.layers.is_empty() || !metadata::is_stripped(model)).then(|| plan.clone());
    }
    let names: Vec<String> = quantized_layers(model, None).into_iter().map(|layer| layer.name).collect();
    plan.with_names(&names)
}

/// Layers of a quantized model: their weight is made of integers, stored as they are or packed.
fn quantized_layers(model: &Model, plan: Option<&BitPlan>) -> Vec<LayerInspection> {
    let qdq = quantized::read(model);
    let layers = model.graph.nodes().filter_map(|(_, node)| weighted(model, &qdq, plan, node));
    let layers: Vec<LayerInspection> = layers.map(|(layer, _)| layer).collect();
    if layers.iter().all(LayerInspection::is_float) { Vec::new() } else { layers }
}

/// A layer with constant weights, and these.
fn weighted(model: &Model, qdq: &Qdq, plan: Option<&BitPlan>, node: &Node) -> Option<(LayerInspection, ValueId)> {
    if node.output(0).is_some_and(|value| qdq.is_constant(value)) {
        // A product that unpacks weights.
        return None;
    }
    if node.op() == "MatMulNBits" {
        return product_of_blocks(model, qdq, node);
    }
    let (op, weight, on_integers) = weight_of(&model.graph, node)?;
    let element = qdq.element_of(weight).filter(|_| qdq.is_constant(weight))?;
    let integers = !element.is_float();
    let reason = match (integers, on_integers) {
        (false, _) => Some(FLOAT_WEIGHT),
        (true, false) => Some(STORED),
        (true, true) => None,
    };
    let (name, shape) = (node.label(&model.graph).to_owned(), qdq.shape(weight)?);
    let weights = shape.iter().product();
    let planned = plan.and_then(|plan| plan.layer(&name)).filter(|_| integers);
    let bits = match (planned, qdq.computed(weight)) {
        (Some(planned), _) => planned.weights.to_string(),
        (None, Some(packed)) if integers => levels(packed)?,
        _ => element.name().to_owned(),
    };
    let activation_bits = on_integers.then(|| activation_bits(qdq, node, weight)).flatten();
    let reason = reason.map(str::to_owned);
    Some((LayerInspection { name, op, shape, weights, macs: None, bits, activation_bits, reason }, weight))
}

/// A `MatMulNBits` of onnxruntime: a product in float whose weight has one scale per block.
fn product_of_blocks(model: &Model, qdq: &Qdq, node: &Node) -> Option<(LayerInspection, ValueId)> {
    let size = |name| node.int(name).and_then(|n| usize::try_from(n).ok());
    let (inputs, outputs) = (size("K")?, size("N")?);
    let weight = node.input(1).filter(|&value| qdq.is_constant(value))?;
    let layer = LayerInspection {
        name: node.label(&model.graph).to_owned(),
        op: LayerOp::MatMul,
        shape: vec![inputs, outputs],
        weights: inputs.checked_mul(outputs)?,
        macs: None,
        bits: node.int_or("bits", 4).to_string(),
        activation_bits: None,
        reason: Some(STORED.to_owned()),
    };
    Some((layer, weight))
}

/// Bits of the activation a layer on integers reads.
fn activation_bits(qdq: &Qdq, node: &Node, weight: ValueId) -> Option<u8> {
    if LayerOp::of(node).is_none() {
        // Operators on integers read eight bits, of which a clip may leave some.
        return Some(qdq.bits(node.input(0)?).unwrap_or(8));
    }
    let read = node.inputs().iter().take(2).flatten().filter_map(|&value| qdq.producer(value));
    let mut integers = read.filter(|made| is_dequantizer(made)).filter_map(|made| made.input(0));
    qdq.bits(integers.find(|&value| value != weight)?)
}

/// The layer a node is, where its integers or float weights are, and whether it computes on integers.
fn weight_of(graph: &Graph, node: &Node) -> Option<(LayerOp, ValueId, bool)> {
    if let Some((op, slot)) = facts(node.op()).integer_layer() {
        return Some((op, node.input(slot)?, true));
    }
    let op = LayerOp::of(node)?;
    let behind = |value: ValueId| graph.value(value).producer().map(|(id, _)| graph.node(id));
    let computed = |value: &ValueId| {
        let made = behind(*value);
        graph.constant(*value).is_some() || made.is_some_and(|n| n.is("DequantizeLinear") || n.is("Mul"))
    };
    let weight = [1, 0].into_iter().filter_map(|slot| node.input(slot)).find(computed)?;
    let Some(scaled) = behind(weight) else { return Some((op, weight, false)) };
    let integers = scaled.input(0)?;
    match behind(integers) {
        Some(cast) if scaled.is("Mul") && cast.is("Cast") => Some((op, cast.input(0)?, false)),
        // Weights in blocks belong to products in float.
        _ => Some((op, integers, scaled.is("DequantizeLinear") && scaled.int_or("block_size", 0) == 0)),
    }
}

/// How many bits the integers of a packed weight take.
fn levels(tensor: &TensorProto) -> Option<String> {
    let mut values = tensor.to_i64().ok()?;
    values.sort_unstable();
    values.dedup();
    let (low, high) = (*values.first()?, *values.last()?);
    if low >= -1 && high <= 1 {
        return Some("ternary".to_owned());
    }
    let uniform = (2..=8).find(|bits| low >= -(1 << (bits - 1)) && high < 1 << (bits - 1)).unwrap_or(8);
    let codebook = values.len().next_power_of_two().ilog2().max(1);
    let coded = (uniform > 4).then(|| coded(&tensor.shape().ok()?, &tensor.to_i64().ok()?)).flatten();
    Some(match coded {
        Some(rate) => format!("{rate}, trellis"),
        None if codebook < uniform => format!("{codebook}, codebook"),
        None => uniform.to_string(),
    })
}

/// Bits per weight of the trellis code that integers are of, along whichever axis, if they are of one. Hardly any others
/// are: each integer allows few of the next.
fn coded(shape: &[usize], integers: &[i64]) -> Option<BitRate> {
    let integers: Vec<i8> = integers.iter().map(|&q| i8::try_from(q).ok()).collect::<Option<_>>()?;
    let is_of = |code: &TrellisCode, axis: usize| {
        let inner: usize = shape[axis + 1..].iter().product();
        let parts = integers.chunks((shape[axis] * inner).max(1));
        let mut columns = parts.flat_map(|part| (0..inner).map(|at| part.iter().skip(at).step_by(inner).copied()));
        columns.all(|column| code.pack(&column.collect::<Vec<i8>>()).is_some())
    };
    let axes: Vec<usize> = (0..shape.len()).filter(|&axis| shape[axis] >= TrellisCode::SHORTEST).collect();
    let rates = (0..=u8::MAX).filter_map(TrellisRate::of_quarters);
    let found = rates.map(TrellisCode::new).find(|code| axes.iter().any(|&axis| is_of(code, axis)))?;
    Some(BitRate::of_quarters(found.rate().quarters()))
}

fn stored_as(tensor: &TensorProto) -> String {
    tensor.element_type().map_or_else(String::new, |t| t.name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_weights_say_their_bits() {
        let said = |shape: &[usize], integers: &[i8]| levels(&TensorProto::from_i8("w", shape, integers)).unwrap();
        for rate in (0..=u8::MAX).filter_map(TrellisRate::of_quarters) {
            let code = TrellisCode::new(rate);
            let column = |at: usize| {
                let string: Vec<u8> = (0..rate.bytes(16)).map(|i| (i * 151 + at * 57 + 23) as u8).collect();
                code.unpack(&string, 16)
            };
            let columns: Vec<Vec<i8>> = (0..9).map(column).collect();
            let rows: Vec<i8> = (0..16).flat_map(|row| columns.iter().map(move |column| column[row])).collect();
            let expected = format!("{}, trellis", BitRate::of_quarters(rate.quarters()));
            assert_eq!(said(&[16, 1, 3, 3], &rows), expected);
            assert_eq!(said(&[9, 16], &columns.concat()), expected);
        }
        let any: Vec<i8> = (0..144_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 as i8).collect();
        assert_eq!(said(&[16, 9], &any), "8");
        assert_eq!(said(&[16, 9], &any.iter().map(|q| q >> 6).collect::<Vec<i8>>()), "2");
        assert_eq!(said(&[2, 72], &any.iter().map(|q| 100 + (q >> 7)).collect::<Vec<i8>>()), "1, codebook");
    }
}
