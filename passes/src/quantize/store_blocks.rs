//! Pass `store-blocks`: products in float whose weight has one scale per block read it from integers.
//!
//! ```text
//! W = DequantizeLinear<axis, block_size>(W_quantized, W_scale, W_zero_point)
//! y = Add(MatMul(x, W), b)
//! ```
//!
//! `W_kn = (q_kn − z_bn)·s_bn` with b = ⌊k / block⌋: each output channel n has one scale, and one zero point where these are
//! not all 0, for each block of consecutive inputs k. The integers are int8; `pack-weights` makes them narrower.
//! Runtimes that know the pattern keep the integers and run a kernel of their own (onnxruntime `MatMulNBits`); others
//! compute W when they load the model.
//!
//! A `Gemm` becomes `MatMul` and `Add`, the form that runtimes look for, and its transposed weight is transposed back. The
//! `MatMul` has its name. Layers with the same weight, integers and scales share the written constants.
//!
//! Layers without integers, or with scales of another granularity, are not changed. A layer that is no plain product with a
//! matrix ([`Layer::is_matrix_product`]) is an error, and so is a wrong number of integers or scales.

use super::insert_qdq::{LayerBias, QuantizedLayer};
use super::{Granularity, transposed};
use crate::analysis::{Layer, LayerOp, layers};
use crate::ir::{AttributeProto, Graph, Model, NodeProto, TensorProto, ValueId};
use crate::pass::{Outcome, Pass, PassError};
use indexmap::IndexMap;

/// Stores weights with one scale per block.
#[derive(Clone, Copy, Debug)]
pub struct StoreBlocks<'a> {
    /// Weights and scales by layer name.
    pub layers: &'a IndexMap<String, QuantizedLayer>,
}

impl StoreBlocks<'_> {
    /// The first opset whose `DequantizeLinear` has blocks.
    pub const LOWEST_OPSET: i64 = 21;
}

impl Pass for StoreBlocks<'_> {
    fn name(&self) -> &'static str {
        "store-blocks"
    }

    fn about(&self) -> &'static str {
        "products in float read weights with one scale per block from integers"
    }

    fn requires(&self, model: &Model) -> Result<(), PassError> {
        let any = self.layers.values().any(|layer| matches!(layer.granularity, Granularity::Block(_)));
        match model.opset("") {
            Some(opset) if !any || opset >= Self::LOWEST_OPSET => Ok(()),
            _ => Err(PassError::Requires { pass: "store-blocks", earlier: "upgrade-opset" }),
        }
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let mut sites = Vec::new();
        for layer in layers(model) {
            let Some(quantized) = self.layers.get(&layer.name) else { continue };
            if let Granularity::Block(block) = quantized.granularity {
                sites.push(Site::new(&model.graph, layer, quantized, block)?);
            }
        }
        let graph = &mut model.graph;
        let mut written: Vec<(&Site, ValueId)> = Vec::new();
        for site in &sites {
            let earlier = written.iter().find(|(other, _)| other.same_weight(site)).map(|&(_, value)| value);
            let weight = earlier.unwrap_or_else(|| site.write_weight(graph));
            written.push((site, weight));
            site.write_layer(graph, weight);
            outcome.count();
        }
        Ok(outcome)
    }
}

/// A layer and its new tensors, all with inputs along axis 0.
#[derive(Debug)]
struct Site {
    layer: Layer,
    block: usize,
    integers: TensorProto,
    scale: TensorProto,
    zero_point: Option<TensorProto>,
    bias: Option<TensorProto>,
}

impl Site {
    fn new(graph: &Graph, layer: Layer, quantized: &QuantizedLayer, block: usize) -> Result<Self, PassError> {
        let Some(axis) = layer.axis.filter(|_| layer.is_matrix_product(graph)) else {
            let reason =
                format!("layer `{}`: it is no plain product with a matrix, its weight has no blocks", layer.name);
            return Err(PassError::Input(reason));
        };
        let (channels, size) = (layer.shape[axis], layer.shape[1 - axis]);
        let blocks = size.div_ceil(block.max(1));
        let count = |what, found, expected| {
            let reason = format!("layer `{}`: {found} {what} where {expected} are expected", layer.name);
            if found == expected { Ok(()) } else { Err(PassError::Input(reason)) }
        };
        count("integers", quantized.weight.len(), channels * size)?;
        count("scales", quantized.scales.len(), channels * blocks)?;
        if !quantized.zero_points.is_empty() {
            count("zero points", quantized.zero_points.len(), channels * blocks)?;
        }
        let stem = graph.value(layer.weight).name();
        let integers = if axis == 1 {
            quantized.weight.clone()
        } else {
            transposed(&quantized.weight.iter().collect::<Vec<i8>>(), channels).into()
        };
        let scales = transposed(&quantized.scales, channels);
        let zero_points = transposed(&quantized.zero_points, channels);
        let zero_point = (!zero_points.is_empty())
            .then(|| TensorProto::from_i8(&format!("{stem}_zero_point"), &[blocks, channels], &zero_points));
        let bias = match &quantized.bias {
            None => None,
            Some(LayerBias::Float(values)) => {
                count("biases", values.len(), channels)?;
                Some(TensorProto::from_f32(&format!("{stem}_bias"), &[channels], values))
            }
            Some(LayerBias::Int32(_)) => {
                let reason = format!("layer `{}`: its bias is int32, the layer computes in float", layer.name);
                return Err(PassError::Input(reason));
            }
        };
        Ok(Self {
            integers: integers.to_tensor(&format!("{stem}_quantized"), &[size, channels]),
            scale: TensorProto::from_f32(&format!("{stem}_scale"), &[blocks, channels], &scales),
            zero_point,
            // Nothing but the bias of a `Gemm` is rewritten; a `MatMul` has none.
            bias: bias.filter(|_| layer.op == LayerOp::Gemm),
            layer,
            block,
        })
    }

    /// Whether the weight is the same value and gets the same integers and scales.
    fn same_weight(&self, other: &Self) -> bool {
        let parts = |site: &Self| (site.layer.weight, site.layer.axis, site.block);
        parts(self) == parts(other)
            && (&self.scale, &self.zero_point, &self.integers) == (&other.scale, &other.zero_point, &other.integers)
    }

    fn write_weight(&self, graph: &mut Graph) -> ValueId {
        let stem = graph.value(self.layer.weight).name().to_owned();
        let integers = graph.add_initializer(self.integers.clone());
        let scale = graph.add_initializer(self.scale.clone());
        let zero_point = self.zero_point.clone().map(|tensor| graph.add_initializer(tensor));
        let attributes = vec![AttributeProto::int("axis", 0), AttributeProto::int("block_size", self.block as i64)];
        let mut inputs = vec![Some(integers), Some(scale)];
        inputs.extend(zero_point.map(Some));
        graph.add_op("DequantizeLinear", &inputs, attributes, &format!("{stem}_dequantized"))
    }

    fn write_layer(&self, graph: &mut Graph, weight: ValueId) {
        let node = self.layer.node;
        let added = self.bias.clone().map(|bias| graph.add_initializer(bias)).or(self.layer.bias);
        if self.layer.op == LayerOp::MatMul {
            graph.set_input(node, 1, Some(weight));
            return;
        }
        let mut product = NodeProto::of("MatMul", graph.node(node).name(), Vec::new());
        graph.remove_node(node);
        let output = self.layer.output;
        let inputs = [Some(self.layer.input), Some(weight)];
        match added {
            None => {
                graph.add_node(product, &inputs, &[Some(output)]);
            }
            Some(bias) => {
                let stem = graph.value(output).name().to_owned();
                let sum = graph.add_value(&format!("{stem}_product"));
                // The layer is found by its name, or else by that of what it writes.
                product.name = Some(self.layer.name.clone());
                graph.add_node(product, &inputs, &[Some(sum)]);
                let add = NodeProto::of("Add", &graph.fresh_name(&format!("{stem}_sum")), Vec::new());
                graph.add_node(add, &[Some(sum), Some(bias)], &[Some(output)]);
            }
        }
    }
}
