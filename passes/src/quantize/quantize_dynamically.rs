//! Pass `quantize-dynamically`: products read their input as integers on a range that is found at run time.
//!
//! ```text
//! q, s, z = DynamicQuantizeLinear(x)
//! y = Add(Mul(Cast<float>(MatMulInteger(q, W_quantized, z, W_zero_point)), Mul(s, W_scale)), b)
//! ```
//!
//! With `x ≈ (q − z)·s`, q uint8, and `W ≈ W_quantized·W_scale`, int8 with one scale or one per output channel, the
//! product is Σ (q − z)·v, v the integers of W, exact in int32, times both scales. The range is that of the input's
//! smallest and largest value and of zero, so no calibration is needed; it holds for all rows of the input together.
//! Layers that read the same value share its quantizer. onnxruntime makes `DynamicQuantizeMatMul` or `MatMulIntegerToFloat` of these nodes in this order.
//!
//! A `Gemm` becomes a product and a sum, its transposed weight is transposed back. `MatMulInteger` has the name of the
//! layer. Layers without integers are not changed. A layer that is no plain product with a matrix
//! ([`Layer::is_matrix_product`]), scales per block, zero points, an int32 bias and wrong numbers of integers or scales are
//! errors.

use super::insert_qdq::{LayerBias, QuantizedLayer};
use super::{Granularity, transposed};
use crate::analysis::{Layer, LayerOp, layers};
use crate::ir::{AttributeProto, DataType, Graph, Model, NodeProto, TensorProto, ValueId};
use crate::pass::{Outcome, Pass, PassError};
use indexmap::IndexMap;

/// Writes products of integers on ranges found at run time.
#[derive(Clone, Copy, Debug)]
pub struct QuantizeDynamically<'a> {
    /// Weights, scales and float biases by layer name.
    pub layers: &'a IndexMap<String, QuantizedLayer>,
}

impl QuantizeDynamically<'_> {
    /// The first opset with `DynamicQuantizeLinear`.
    pub const LOWEST_OPSET: i64 = 11;
}

impl Pass for QuantizeDynamically<'_> {
    fn name(&self) -> &'static str {
        "quantize-dynamically"
    }

    fn about(&self) -> &'static str {
        "products read their input as integers on a range found at run time"
    }

    fn requires(&self, model: &Model) -> Result<(), PassError> {
        match model.opset("") {
            Some(opset) if self.layers.is_empty() || opset >= Self::LOWEST_OPSET => Ok(()),
            _ => Err(PassError::Requires { pass: "quantize-dynamically", earlier: "upgrade-opset" }),
        }
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let found = layers(model).into_iter().filter_map(|layer| Some((self.layers.get(&layer.name)?, layer)));
        let sites: Vec<Site> =
            found.map(|(quantized, layer)| Site::new(&model.graph, layer, quantized)).collect::<Result<_, _>>()?;
        let graph = &mut model.graph;
        let mut inputs: IndexMap<ValueId, Quantized> = IndexMap::new();
        for site in sites {
            let quantized = *inputs.entry(site.layer.input).or_insert_with_key(|&input| quantize(graph, input));
            site.write(graph, quantized);
            outcome.count();
        }
        Ok(outcome)
    }
}

/// What `DynamicQuantizeLinear` makes of a value.
#[derive(Clone, Copy)]
struct Quantized {
    integers: ValueId,
    scale: ValueId,
    zero_point: ValueId,
}

fn quantize(graph: &mut Graph, input: ValueId) -> Quantized {
    let stem = graph.value(input).name().to_owned();
    let [integers, scale, zero_point] =
        ["quantized", "scale", "zero_point"].map(|part| graph.add_value(&format!("{stem}_{part}")));
    let name = graph.fresh_name(&format!("{stem}_quantize"));
    let proto = NodeProto::of("DynamicQuantizeLinear", &name, Vec::new());
    graph.add_node(proto, &[Some(input)], &[Some(integers), Some(scale), Some(zero_point)]);
    Quantized { integers, scale, zero_point }
}

/// A layer and its new tensors, inputs along axis 0.
struct Site {
    layer: Layer,
    integers: TensorProto,
    scale: TensorProto,
    zero_point: TensorProto,
    bias: Option<TensorProto>,
}

impl Site {
    fn new(graph: &Graph, layer: Layer, quantized: &QuantizedLayer) -> Result<Self, PassError> {
        let refused = |reason: &str| Err(PassError::Input(format!("layer `{}`: {reason}", layer.name)));
        let Some(axis) = layer.axis.filter(|_| layer.is_matrix_product(graph)) else {
            return refused("it is no plain product with a matrix, it cannot quantize its input at run time");
        };
        if matches!(quantized.granularity, Granularity::Block(_)) || !quantized.zero_points.is_empty() {
            return refused("products of integers have no scales per block and no zero points");
        }
        let (channels, size) = (layer.shape[axis], layer.shape[1 - axis]);
        let scales = &quantized.scales;
        if quantized.weight.len() != channels * size {
            return refused(&format!("{} integers where {} are expected", quantized.weight.len(), channels * size));
        }
        if ![1, channels].contains(&scales.len()) {
            return refused(&format!("{} scales where {channels} are expected", scales.len()));
        }
        let stem = graph.value(layer.weight).name();
        let integers = if axis == 1 {
            quantized.weight.clone()
        } else {
            transposed(&quantized.weight.iter().collect::<Vec<i8>>(), channels).into()
        };
        let bias = match &quantized.bias {
            Some(LayerBias::Int32(_)) => return refused("its bias is int32, it is added in float"),
            // A `MatMul` has none.
            Some(LayerBias::Float(values)) if layer.op == LayerOp::Gemm => {
                Some(TensorProto::from_f32(&format!("{stem}_bias"), &[values.len()], values))
            }
            _ => None,
        };
        let shape: &[usize] = if scales.len() == 1 { &[] } else { &[channels] };
        Ok(Self {
            integers: integers.to_tensor(&format!("{stem}_quantized"), &[size, channels]),
            scale: TensorProto::from_f32(&format!("{stem}_scale"), shape, scales),
            zero_point: TensorProto::from_i8(&format!("{stem}_zero_point"), shape, &vec![0; scales.len()]),
            bias,
            layer,
        })
    }

    fn write(self, graph: &mut Graph, input: Quantized) {
        let Self { layer, integers, scale, zero_point, bias } = self;
        let stem = graph.value(layer.output).name().to_owned();
        let bias = bias.map(|bias| graph.add_initializer(bias)).or(layer.bias);
        let [integers, scale, zero_point] = [integers, scale, zero_point].map(|tensor| graph.add_initializer(tensor));
        graph.remove_node(layer.node);
        let sum = graph.add_value(&format!("{stem}_integers"));
        let operands = [Some(input.integers), Some(integers), Some(input.zero_point), Some(zero_point)];
        graph.add_node(NodeProto::of("MatMulInteger", &layer.name, Vec::new()), &operands, &[Some(sum)]);
        let to = AttributeProto::element("to", DataType::Float);
        let float = graph.add_op("Cast", &[Some(sum)], vec![to], &format!("{stem}_float"));
        let scales = graph.add_op("Mul", &[Some(input.scale), Some(scale)], Vec::new(), &format!("{stem}_scale"));
        let operands = [Some(float), Some(scales)];
        let Some(bias) = bias else {
            let name = graph.fresh_name(&format!("{stem}_mul"));
            graph.add_node(NodeProto::of("Mul", &name, Vec::new()), &operands, &[Some(layer.output)]);
            return;
        };
        let product = graph.add_op("Mul", &operands, Vec::new(), &format!("{stem}_product"));
        let name = graph.fresh_name(&format!("{stem}_add"));
        graph.add_node(NodeProto::of("Add", &name, Vec::new()), &[Some(product), Some(bias)], &[Some(layer.output)]);
    }
}
