//! Pass `store-weights`: layers that compute in float store their weights as integers ("weight-only").
//!
//! ```text
//! W = Mul(Cast<float>(W_quantized), W_scale)
//! y = Conv(x, W, b)
//! ```
//!
//! W = float(q)·s with q int8 and s one scale, or one per channel in a shape that broadcasts along the layer's axis:
//! `[C, 1, 1, 1]` for `Conv`, `[1, C, 1, 1]` for `ConvTranspose`. float(q) is exact and the product is rounded once, so
//! W equals `DequantizeLinear` of the same integers. `DequantizeLinear` is not used because onnxruntime runs it at
//! every inference, even on constants, while it evaluates `Cast` and `Mul` of constants when it loads a model.
//!
//! A float bias passed to the pass becomes a new initializer: one number per channel, as `[C]`, or as `[C, 1]` where
//! the weight is the left operand of a `Gemm`, whose channels are rows. Layers with the same weight, integers and
//! scales share the written constants. Other readers of the float weight and bias still read these.
//!
//! Declined: a weight that is not float32, or is empty. Declined for the bias alone: a `MatMul`, which has none; a bias
//! that is computed, or not one number per channel; a `Gemm` that multiplies its bias. Layers without integers, and those
//! with one scale per block (`store-blocks`), are not changed.

use crate::analysis::{Layer, LayerOp, layers};
use crate::ir::{AttributeProto, DataType, Graph, Model, TensorProto, ValueId};
use crate::pass::{Outcome, Pass, PassError};
use crate::quantize::{Granularity, LayerBias, QuantizedLayer};
use indexmap::IndexMap;
use std::iter;

/// Stores float layers' weights as integers.
#[derive(Clone, Copy, Debug)]
pub struct StoreWeights<'a> {
    /// Weights, scales and float biases, by layer name. Scales lie along the layer's axis of the weight.
    pub layers: &'a IndexMap<String, QuantizedLayer>,
}

impl StoreWeights<'_> {
    /// The lowest opset whose `Mul` broadcasts.
    pub const LOWEST_OPSET: i64 = 7;
}

impl Pass for StoreWeights<'_> {
    fn name(&self) -> &'static str {
        "store-weights"
    }

    fn about(&self) -> &'static str {
        "layers that compute in float store their weights as integers"
    }

    fn requires(&self, model: &Model) -> Result<(), PassError> {
        match model.opset("") {
            Some(opset) if opset >= Self::LOWEST_OPSET => Ok(()),
            _ => Err(PassError::Requires { pass: "store-weights", earlier: "upgrade-opset" }),
        }
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let sites = self.sites(model, &mut outcome)?;
        let graph = &mut model.graph;
        let mut written: Vec<(&Site, ValueId)> = Vec::new();
        for site in &sites {
            let earlier = written.iter().find(|(other, _)| other.same_weight(site)).map(|&(_, product)| product);
            let product = earlier.unwrap_or_else(|| site.write_weight(graph));
            written.push((site, product));
            graph.set_input(site.layer.node, site.layer.weight_slot, Some(product));
            if let Some(bias) = &site.bias {
                let bias = graph.add_initializer(bias.clone());
                graph.set_input(site.layer.node, 2, Some(bias));
            }
            outcome.count();
        }
        Ok(outcome)
    }
}

impl StoreWeights<'_> {
    fn sites(self, model: &Model, outcome: &mut Outcome) -> Result<Vec<Site>, PassError> {
        let mut sites = Vec::new();
        for layer in layers(model) {
            let Some(quantized) = self.layers.get(&layer.name) else { continue };
            if matches!(quantized.granularity, Granularity::Block(_)) {
                continue;
            }
            if let Some(reason) = unfit(&model.graph, &layer) {
                outcome.decline(&layer.name, reason);
                continue;
            }
            let stem = model.graph.value(layer.weight).name();
            let (integers, scale) = weight(&layer, quantized, stem)?;
            let bias = match bias_values(&layer, quantized)? {
                None => None,
                Some(values) => match bias_unfit(&model.graph, &layer) {
                    None => Some(bias(&model.graph, &layer, values)?),
                    Some(reason) => {
                        outcome.decline(&layer.name, reason);
                        None
                    }
                },
            };
            sites.push(Site { layer, integers, scale, bias });
        }
        Ok(sites)
    }
}

/// A layer and its new tensors.
#[derive(Debug)]
struct Site {
    layer: Layer,
    integers: TensorProto,
    scale: TensorProto,
    bias: Option<TensorProto>,
}

impl Site {
    /// Whether the weight is the same value and gets the same integers and scales.
    fn same_weight(&self, other: &Self) -> bool {
        self.layer.weight == other.layer.weight && self.scale == other.scale && self.integers == other.integers
    }

    /// Writes integers times scale.
    fn write_weight(&self, graph: &mut Graph) -> ValueId {
        let stem = graph.value(self.layer.weight).name().to_owned();
        let integers = graph.add_initializer(self.integers.clone());
        let scale = graph.add_initializer(self.scale.clone());
        let to = AttributeProto::element("to", DataType::Float);
        let float = graph.add_op("Cast", &[Some(integers)], vec![to], &format!("{stem}_float"));
        graph.add_op("Mul", &[Some(float), Some(scale)], Vec::new(), &format!("{stem}_dequantized"))
    }
}

/// Why the weight is not changed.
fn unfit(graph: &Graph, layer: &Layer) -> Option<String> {
    let element = graph.constant(layer.weight)?.element_type()?;
    if element != DataType::Float {
        return Some(format!("its weight is {element}, not float"));
    }
    (layer.weights() == 0).then(|| "its weight is empty".to_owned())
}

/// Output channels along the layer's axis of the weight: with groups, a `ConvTranspose` has more in all.
fn channels(layer: &Layer) -> usize {
    layer.axis.map_or(1, |axis| layer.shape[axis])
}

/// Integers and scale of the weight.
fn weight(layer: &Layer, quantized: &QuantizedLayer, stem: &str) -> Result<(TensorProto, TensorProto), PassError> {
    if !quantized.zero_points.is_empty() {
        let reason = format!("layer `{}`: weights stored beside float layers have no zero points", layer.name);
        return Err(PassError::Input(reason));
    }
    let (integers, scales) = (&quantized.weight, &quantized.scales);
    if integers.len() != layer.weights() {
        return Err(wrong_length(layer, "integers", integers.len(), layer.weights()));
    }
    let mut shape = vec![1; layer.shape.len()];
    match (scales.len(), layer.axis) {
        (1, _) => shape.clear(),
        (count, Some(axis)) if count == channels(layer) => shape[axis] = count,
        (count, _) => return Err(wrong_length(layer, "scales", count, channels(layer))),
    }
    let integers = integers.to_tensor(&format!("{stem}_quantized"), &layer.shape);
    Ok((integers, TensorProto::from_f32(&format!("{stem}_scale"), &shape, scales)))
}

fn wrong_length(layer: &Layer, what: &str, found: usize, expected: usize) -> PassError {
    PassError::Input(format!("layer `{}`: {found} {what} where {expected} are expected", layer.name))
}

fn bias_values<'a>(layer: &Layer, quantized: &'a QuantizedLayer) -> Result<Option<&'a [f32]>, PassError> {
    match &quantized.bias {
        None => Ok(None),
        Some(LayerBias::Float(values)) => Ok(Some(values)),
        Some(LayerBias::Int32(_)) => {
            Err(PassError::Input(format!("layer `{}`: its bias is int32, the layer computes in float", layer.name)))
        }
    }
}

/// Why the layer cannot take a bias of one number per channel.
fn bias_unfit(graph: &Graph, layer: &Layer) -> Option<&'static str> {
    let node = graph.node(layer.node);
    if layer.op == LayerOp::MatMul {
        return Some("a `MatMul` has no bias: it is left out");
    }
    if layer.op == LayerOp::Gemm && node.float_or("beta", 1.0) != 1.0 {
        return Some("its `beta` is not 1: its bias stays");
    }
    let old = layer.bias?;
    let Some(tensor) = graph.constant(old) else { return Some("its bias is not a constant: it stays") };
    let wanted = bias_shape(graph, layer);
    let expected = wanted.iter().rev().copied().chain(iter::repeat(1));
    let a_channel = tensor.dims.iter().rev().zip(expected).all(|(&n, wanted)| n == 1 || n == wanted as i64);
    (!a_channel).then_some("its bias is not one number per channel: it stays")
}

/// The shape in which one number per channel is added to the layer's output.
fn bias_shape(graph: &Graph, layer: &Layer) -> Vec<usize> {
    let channels = channels(layer);
    match layer.op {
        LayerOp::Gemm if layer.weight_slot == 0 => vec![channels, 1],
        LayerOp::ConvTranspose => {
            let groups = graph.node(layer.node).int_or("group", 1);
            vec![channels * usize::try_from(groups).unwrap_or(1)]
        }
        _ => vec![channels],
    }
}

fn bias(graph: &Graph, layer: &Layer, values: &[f32]) -> Result<TensorProto, PassError> {
    let shape = bias_shape(graph, layer);
    if values.len() != shape[0] {
        return Err(wrong_length(layer, "biases", values.len(), shape[0]));
    }
    let stem = match layer.bias {
        Some(bias) => graph.value(bias).name().to_owned(),
        None => format!("{}_bias", graph.value(layer.weight).name()),
    };
    Ok(TensorProto::from_f32(&format!("{stem}_rounded"), &shape, values))
}
