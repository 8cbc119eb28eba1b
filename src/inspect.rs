//! What a model holds and what could be done with it.

use crate::engine::Facts;
use crate::prepare::prepare;
use crate::{BatchNorm, Error};
use msq_passes::Profile;
use msq_passes::analysis::{Kept, LayerOp, Placement, layers};
use msq_passes::ir::{Model, Node, TensorProto, ValueId, encoded_len, export};
use serde::Serialize;
use std::collections::HashMap;

/// A model at a glance.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// The tool that wrote it.
    pub producer: String,
    /// Version of the format.
    pub ir_version: i64,
    /// Operator set.
    pub opset: i64,
    /// Number of nodes.
    pub nodes: usize,
    /// Size of the model message.
    pub bytes: u64,
    /// What must be fed.
    pub inputs: Vec<ValueInspection>,
    /// What comes out.
    pub outputs: Vec<ValueInspection>,
    /// Layers in graph order.
    pub layers: Vec<LayerInspection>,
    /// Other nodes that would stay float.
    pub kept: Vec<Kept>,
}

/// A graph input or output.
#[derive(Clone, Debug, Serialize)]
pub struct ValueInspection {
    /// Name.
    pub name: String,
    /// Element type and shape, as far as declared.
    #[serde(rename = "type")]
    pub ty: String,
}

/// A layer.
#[derive(Clone, Debug, Serialize)]
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
    /// What the weights are stored as now.
    pub bits: String,
    /// Why it would stay float; absent when it would not.
    pub reason: Option<String>,
}

/// Looks at a model. It is prepared as for quantization first, so that layers hidden behind constants show.
pub fn inspect(mut model: Model) -> Result<Inspection, Error> {
    msq_passes::ir::check(&model)?;
    let proto = export(&model);
    let value = |v: ValueId| {
        let value = model.graph.value(v);
        let ty = value.ty().and_then(msq_passes::ir::text::print_type).unwrap_or_else(|| "unknown".to_owned());
        ValueInspection { name: value.name().to_owned(), ty }
    };
    let mut found = Inspection {
        producer: model.producer().to_owned(),
        ir_version: model.ir_version(),
        opset: model.opset("").unwrap_or_default(),
        nodes: model.graph.node_ids().len(),
        bytes: encoded_len(&proto) as u64,
        inputs: model.graph.runtime_inputs().map(value).collect(),
        outputs: model.graph.outputs().map(value).collect(),
        layers: Vec::new(),
        kept: Vec::new(),
    };
    drop(proto);
    let quantized = quantized_layers(&model);
    if !quantized.is_empty() {
        found.layers = quantized;
        return Ok(found);
    }
    prepare(&mut model, BatchNorm::Fold)?;
    if let Ok(facts) = Facts::infer(&model) {
        facts.annotate(&mut model);
    }
    let placement = Placement::new(&model, &Profile::ORT_CPU, |_, _| None);
    let reasons: HashMap<&str, &str> = placement.kept.iter().map(|k| (k.node.as_str(), k.reason.as_str())).collect();
    found.layers = layers(&model)
        .iter()
        .map(|layer| LayerInspection {
            name: layer.name.clone(),
            op: layer.op,
            shape: layer.shape.clone(),
            weights: layer.weights(),
            macs: output_shape(&model, layer.output).map(|s| layer.macs(&s)),
            bits: model.graph.constant(layer.weight).map_or_else(String::new, stored_as),
            reason: reasons.get(layer.name.as_str()).map(|&r| r.to_owned()),
        })
        .collect();
    let names: Vec<&str> = found.layers.iter().map(|l| l.name.as_str()).collect();
    found.kept = placement.kept.iter().filter(|k| !names.contains(&k.node.as_str())).cloned().collect();
    Ok(found)
}

/// Layers of a quantized model: their weight is what a `DequantizeLinear` makes of a constant.
fn quantized_layers(model: &Model) -> Vec<LayerInspection> {
    let graph = &model.graph;
    let integers = |value: ValueId| {
        let node = graph.node(graph.value(value).producer()?.0);
        graph.constant(node.is("DequantizeLinear").then(|| node.input(0)).flatten()?)
    };
    let layer = |node: &Node| {
        let op = LayerOp::of(node)?;
        let quantized = node.input(1).and_then(integers);
        let tensor = quantized.or_else(|| graph.constant(node.input(1)?))?;
        let reason = quantized.is_none().then(|| "its weight is float".to_owned());
        let (name, shape) = (node.label(graph).to_owned(), tensor.shape().ok()?);
        let weights = shape.iter().product();
        Some(LayerInspection { name, op, shape, weights, macs: None, bits: stored_as(tensor), reason })
    };
    let layers: Vec<LayerInspection> = graph.nodes().filter_map(|(_, node)| layer(node)).collect();
    if layers.iter().any(|l| l.reason.is_none()) { layers } else { Vec::new() }
}

fn stored_as(tensor: &TensorProto) -> String {
    tensor.element_type().map_or_else(String::new, |t| t.name().to_owned())
}

/// Shape of a layer's output for one sample; nothing where an axis besides the first is open.
pub(crate) fn output_shape(model: &Model, value: ValueId) -> Option<Vec<usize>> {
    let shape = model.graph.value(value).shape()?;
    shape.iter().enumerate().map(|(axis, n)| if axis == 0 { Some(n.unwrap_or(1)) } else { *n }).collect()
}
