//! Pass `insert-qdq`: writes a placement of quantizers into the graph as `QuantizeLinear` / `DequantizeLinear`.
//!
//! * Outputs of an integer kernel: `x = kernel(…)` becomes `r = kernel(…); q = Q(r); x = DQ(q)`: every reader, the
//!   caller included, reads the dequantized value under the old name.
//!   Those that ask for its shape alone read `q`.
//! * Outputs of a float node, and graph inputs: `q = Q(x); d = DQ(q)`, and only integer kernels read `d`.
//! * A weight becomes int8 with one scale per channel, `DQ(W, s_w, axis)`; a bias int32 at scale `s_x·s_w` exactly,
//!   without which runtimes do not fuse, or stays float. A constant that arithmetic reads is quantized like an
//!   activation.
//! * An absorbed clamp is removed: the quantizer saturates in its place. An absorbed factor c is removed:
//!   x = DQ(Q(r, s/c), s). An absorbed batch-norm is removed: the layer's scales and bias contain it.
//! * Where the target joins a product and a sum (`joins_sums`), the vector or row that is added to a `MatMul` becomes int32
//!   like a bias. So does what a normalization adds, at scale `s_x·s_γ`.
//! * Fewer bits than 8 clip the integers: `q = Clip(Q(x), 0, 2^b − 1)`, which runtimes fuse as well. More than 8 are integers
//!   of 16 bits, which quantizers have from operator set 21 on.
//! * A layer that reads fewer bits than other readers of a value has a second quantizer behind the value (per-consumer
//!   requantization): `p = Clip(Q(x)); l = DQ(p)`, and the layer reads `l`. Layers with equal parameters share it.
//! * Where the target needs graph outputs in float (`quantized_outputs` is false), all values get the second form.
//! * What the target's table says is written on integers (`Pad`, `Slice`) runs on the integers themselves, `Pad` with
//!   the zero point as its value: runtimes do not fuse it otherwise. Integers of 16 bits are moved between quantizers, since
//!   onnxruntime has no such `Pad`.
//!
//! Runtimes that recognise the pattern run the node in between on integers; for other runtimes the graph is plain ONNX.

use crate::analysis::{Absorbed, Layer, LayerOp, Placement, Role};
use crate::ir::{AttributeProto, Graph, Model, Node, NodeId, NodeProto, TensorProto, ValueId};
use crate::ops::{Trait, facts, reads_shape};
use crate::pass::{Outcome, Pass, PassError};
use crate::quantize::constants::{in_units, quantize_constant};
use crate::quantize::{ActivationQuantizer, Granularity, Integers};
use indexmap::IndexMap;
use std::collections::HashMap;

/// A layer's bias.
#[derive(Clone, Debug, PartialEq)]
pub enum LayerBias {
    /// In units of input scale × weight scale.
    Int32(Vec<i32>),
    /// In float.
    Float(Vec<f32>),
}

/// A layer's weights as integers.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedLayer {
    /// Weights, in the storage order of the float weight.
    pub weight: Integers,
    /// How much of the weight shares a scale.
    pub granularity: Granularity,
    /// As many scales as the granularity says, channel after channel.
    pub scales: Vec<f32>,
    /// The integers that stand for 0, as many as there are scales; empty where all are 0.
    pub zero_points: Vec<i8>,
    /// Bias, for layers that have one or absorb a batch-norm.
    pub bias: Option<LayerBias>,
}

/// Inserts quantizers.
#[derive(Clone, Debug)]
pub struct InsertQdq<'a> {
    /// Where quantizers go, as placed on this very model.
    pub placement: &'a Placement,
    /// Parameters of every value that has its own, by value name.
    pub activations: &'a IndexMap<String, ActivationQuantizer>,
    /// Parameters of a layer's input, by layer name, where they differ from those of the value.
    pub requantized: &'a IndexMap<String, ActivationQuantizer>,
    /// Weights of every layer placed, by layer name.
    pub layers: &'a IndexMap<String, QuantizedLayer>,
}

impl InsertQdq<'_> {
    /// The lowest opset whose quantizers have an axis.
    pub const LOWEST_OPSET: i64 = 13;
    /// The lowest opset whose quantizers have integers of 16 bits.
    pub const WIDE_OPSET: i64 = 21;
}

impl Pass for InsertQdq<'_> {
    fn name(&self) -> &'static str {
        "insert-qdq"
    }

    fn about(&self) -> &'static str {
        "quantizers and integer weights are written as QuantizeLinear and DequantizeLinear"
    }

    fn requires(&self, model: &Model) -> Result<(), PassError> {
        match model.opset("") {
            Some(opset) if opset >= Self::LOWEST_OPSET => Ok(()),
            _ => Err(PassError::Requires { pass: "insert-qdq", earlier: "upgrade-opset" }),
        }
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let external = external_constants(model, self.placement)?;
        let mut work = Work {
            external,
            graph: &mut model.graph,
            pass: self,
            parameters: HashMap::new(),
            sources: HashMap::new(),
            factors: HashMap::new(),
            narrowed: Vec::new(),
        };
        let offsets = work.offsets();
        for &value in self.placement.values.keys() {
            let factor = self.placement.factor_of(work.graph, value);
            work.factors.extend((factor != 1.0).then_some((value, factor)));
        }
        for (&node, absorbed) in &self.placement.absorbed {
            if !(self.placement.keeps_clamps() && matches!(absorbed, Absorbed::Clamp { .. })) {
                absorb(work.graph, node);
            }
        }
        for (&value, &root) in &self.placement.values {
            work.quantize_value(value, root)?;
        }
        for layer in self.placement.layers() {
            work.quantize_layer(layer)?;
        }
        for offset in offsets {
            work.quantize_offset(&offset)?;
        }
        let changed = self.placement.values.len() + work.narrowed.len() + self.placement.layers().count();
        Ok(Outcome { changed, declined: Vec::new() })
    }
}

/// The constants that get quantizers and whose elements are in other files, read from these.
fn external_constants(model: &Model, placement: &Placement) -> Result<HashMap<ValueId, TensorProto>, PassError> {
    let offsets = placement.nodes.keys().map(|&id| model.graph.node(id)).filter_map(offset_of);
    let read = placement.values.keys().copied().chain(offsets);
    let constants = read.filter_map(|value| Some((value, model.graph.constant(value)?)));
    let external = constants.filter(|(_, tensor)| tensor.is_external());
    external.map(|(value, tensor)| Ok((value, model.loaded(tensor)?.into_owned()))).collect()
}

/// What a normalization adds.
fn offset_of(node: &Node) -> Option<ValueId> {
    node.input(2).filter(|_| facts(node.op()).has(Trait::Normalization))
}

/// Removes an absorbed node: the preceding node writes its output.
fn absorb(graph: &mut Graph, absorbed: NodeId) {
    let node = graph.node(absorbed);
    let computed = node.inputs().iter().flatten().copied().find_map(|v| Some((v, graph.value(v).producer()?)));
    let (Some((input, (producer, slot))), Some(output)) = (computed, node.output(0)) else { return };
    graph.remove_node(absorbed);
    graph.set_output(producer, slot, output);
    graph.remove_value(input);
}

/// What a normalization on integers adds, a constant, and the values by whose scales it is written.
struct Offset {
    node: NodeId,
    input: ValueId,
    factor: ValueId,
    value: ValueId,
}

/// Scale and zero point of a value, as initializers.
#[derive(Clone, Copy)]
struct Parameters {
    quantizer: ActivationQuantizer,
    scale: ValueId,
    zero_point: ValueId,
}

struct Work<'a, 'b> {
    /// Constants to be quantized whose elements are in other files.
    external: HashMap<ValueId, TensorProto>,
    graph: &'a mut Graph,
    pass: &'a InsertQdq<'b>,
    /// By root value.
    parameters: HashMap<ValueId, Parameters>,
    /// The integer form of every value quantized so far.
    sources: HashMap<ValueId, ValueId>,
    /// The factor that the quantizer of a value has absorbed, where it is not 1.
    factors: HashMap<ValueId, f32>,
    /// Requantized copies: by value and the parameters of the layers that read it, where these differ from the value's.
    narrowed: Vec<(ValueId, ActivationQuantizer, ValueId)>,
}

impl Work<'_, '_> {
    fn parameters(&mut self, root: ValueId) -> Result<Parameters, PassError> {
        if let Some(&found) = self.parameters.get(&root) {
            return Ok(found);
        }
        let name = self.graph.value(root).name().to_owned();
        let Some(&quantizer) = self.pass.activations.get(&name) else {
            return Err(PassError::Input(format!("value `{name}` has no quantization parameters")));
        };
        let parameters = self.stored(&name, quantizer);
        self.parameters.insert(root, parameters);
        Ok(parameters)
    }

    fn stored(&mut self, stem: &str, quantizer: ActivationQuantizer) -> Parameters {
        let scale = TensorProto::from_f32(&format!("{stem}_scale"), &[], &[quantizer.scale]);
        let zero = quantizer.tensor(&format!("{stem}_zero_point"), &[], &[quantizer.zero_point]);
        Parameters { quantizer, scale: self.graph.add_initializer(scale), zero_point: self.graph.add_initializer(zero) }
    }

    fn quantize_value(&mut self, value: ValueId, root: ValueId) -> Result<(), PassError> {
        let parameters = self.parameters(root)?;
        let producer = self.graph.value(value).producer();
        let everywhere = self.pass.placement.profile.quantized_outputs;
        let role = producer.and_then(|(node, _)| self.pass.placement.nodes.get(&node)).filter(|_| everywhere);
        let stem = self.graph.value(value).name().to_owned();
        match (producer, role) {
            (Some((node, _)), Some(Role::Movement))
                if self.is_written_on_integers(node) && !parameters.quantizer.is_wide() =>
            {
                self.move_integers(node, value, parameters)
            }
            (Some((node, slot)), Some(_)) => {
                let raw = self.graph.add_value(&format!("{stem}_float"));
                self.graph.set_output(node, slot, raw);
                let before = self.before_factor(value, &stem, parameters);
                let integers = self.quantize(raw, &stem, before);
                self.dequantize_into(integers, value, parameters);
                self.sources.insert(value, integers);
                Ok(())
            }
            _ => self.quantize_foreign(value, &stem, parameters),
        }
    }

    /// A value that no integer kernel computes: an input, a constant, the result of a float node.
    fn quantize_foreign(&mut self, value: ValueId, stem: &str, parameters: Parameters) -> Result<(), PassError> {
        let readers = self.graph.value(value).uses().to_vec();
        let integers = match self.external.get(&value).or_else(|| self.graph.constant(value)) {
            Some(tensor) => {
                let integers = quantize_constant(tensor, &format!("{stem}_quantized"), parameters.quantizer)?;
                self.graph.add_initializer(integers)
            }
            None => self.quantize(value, stem, parameters),
        };
        let inputs = [Some(integers), Some(parameters.scale), Some(parameters.zero_point)];
        let dequantized = self.graph.add_op("DequantizeLinear", &inputs, Vec::new(), &format!("{stem}_dequantized"));
        self.sources.insert(value, integers);
        for reader in readers {
            let reads = match self.pass.placement.nodes.get(&reader.node) {
                Some(Role::Layer(layer)) => layer.input == value && reader.slot == 1 - layer.weight_slot,
                Some(Role::Arithmetic) => facts(self.graph.node(reader.node).op()).is_data(reader.slot),
                Some(Role::Product) => true,
                Some(&Role::ResidualSum { quantized }) => reader.slot == quantized,
                Some(Role::Movement | Role::Index) => reader.slot == 0,
                None => false,
            };
            if reads {
                self.graph.set_input(reader.node, reader.slot, Some(dequantized));
            }
        }
        Ok(())
    }

    /// Parameters to quantize a value with before the factor it has absorbed.
    fn before_factor(&mut self, value: ValueId, stem: &str, parameters: Parameters) -> Parameters {
        let Some(factor) = self.factors.get(&value) else { return parameters };
        let scale =
            TensorProto::from_f32(&format!("{stem}_unscaled_scale"), &[], &[parameters.quantizer.scale / factor]);
        Parameters { scale: self.graph.add_initializer(scale), ..parameters }
    }

    fn quantize(&mut self, value: ValueId, stem: &str, parameters: Parameters) -> ValueId {
        let inputs = [Some(value), Some(parameters.scale), Some(parameters.zero_point)];
        let integers = self.graph.add_op("QuantizeLinear", &inputs, Vec::new(), &format!("{stem}_quantized"));
        let quantizer = parameters.quantizer;
        if matches!(quantizer.bits, 8 | 16) {
            return integers;
        }
        let (low, high) = quantizer.interval();
        let mut end = |name: &str, value: i32| {
            let tensor = quantizer.tensor(&format!("{stem}_{name}"), &[], &[value]);
            self.graph.add_initializer(tensor)
        };
        let low = quantizer.signed.then(|| end("low", low));
        let high = end("high", high);
        self.graph.add_op("Clip", &[Some(integers), low, Some(high)], Vec::new(), &format!("{stem}_clipped"))
    }

    fn dequantize_into(&mut self, integers: ValueId, value: ValueId, parameters: Parameters) {
        let name = format!("{}_dequantize", self.graph.value(value).name());
        let proto =
            NodeProto { op_type: Some("DequantizeLinear".to_owned()), name: Some(name), ..NodeProto::default() };
        let inputs = [Some(integers), Some(parameters.scale), Some(parameters.zero_point)];
        // What asks for the shape alone needs no floats.
        for reader in self.graph.value(value).uses().to_vec() {
            let node = self.graph.node(reader.node);
            if reads_shape(node.domain(), node.op()) {
                self.graph.set_input(reader.node, reader.slot, Some(integers));
            }
        }
        self.graph.add_node(proto, &inputs, &[Some(value)]);
    }

    /// Whether the node reads and writes integers in the file.
    fn is_written_on_integers(&self, node: NodeId) -> bool {
        let kernel = self.pass.placement.profile.kernel(self.graph.node(node).op());
        kernel.is_some_and(|kernel| kernel.on_integers)
    }

    /// Makes a node read and write integers; a `Pad` pads with the zero point.
    fn move_integers(&mut self, node: NodeId, value: ValueId, parameters: Parameters) -> Result<(), PassError> {
        let source = self.graph.node(node).input(0).and_then(|v| self.source_of(v));
        let Some(source) = source else {
            return Err(PassError::Input(format!(
                "`{}` is moved before it is quantized",
                self.graph.value(value).name()
            )));
        };
        let moved = self.graph.add_value(&format!("{}_quantized", self.graph.value(value).name()));
        self.graph.set_input(node, 0, Some(source));
        if self.graph.node(node).is("Pad") {
            self.graph.set_input(node, 2, Some(parameters.zero_point));
        }
        self.graph.set_output(node, 0, moved);
        self.dequantize_into(moved, value, parameters);
        self.sources.insert(value, moved);
        Ok(())
    }

    /// The integers behind a value or behind its dequantized copy.
    fn source_of(&self, value: ValueId) -> Option<ValueId> {
        self.sources.get(&value).copied().or_else(|| {
            let (node, _) = self.graph.value(value).producer()?;
            let node = self.graph.node(node);
            node.is("DequantizeLinear").then(|| node.input(0)).flatten()
        })
    }

    /// Makes a layer read its input through a separate quantizer (per-consumer requantization).
    fn narrow(&mut self, layer: &Layer, quantizer: ActivationQuantizer) {
        let same =
            |(value, by, _): &&(ValueId, ActivationQuantizer, ValueId)| *value == layer.input && *by == quantizer;
        let read = if let Some(&(.., read)) = self.narrowed.iter().find(same) {
            read
        } else {
            let stem = format!("{}_{}_bits", self.graph.value(layer.input).name(), quantizer.bits);
            let parameters = self.stored(&stem, quantizer);
            let integers = self.quantize(layer.input, &stem, parameters);
            let inputs = [Some(integers), Some(parameters.scale), Some(parameters.zero_point)];
            let read = self.graph.add_op("DequantizeLinear", &inputs, Vec::new(), &format!("{stem}_dequantized"));
            self.narrowed.push((layer.input, quantizer, read));
            read
        };
        self.graph.set_input(layer.node, 1 - layer.weight_slot, Some(read));
    }

    fn quantize_layer(&mut self, layer: &Layer) -> Result<(), PassError> {
        let Some(quantized) = self.pass.layers.get(&layer.name) else {
            return Err(PassError::Input(format!("layer `{}` has no quantized weights", layer.name)));
        };
        if let Granularity::Block(size) = quantized.granularity {
            let reason = format!("layer `{}`: weights in blocks of {size} cannot be written as QDQ", layer.name);
            return Err(PassError::Input(reason));
        }
        let input_scale = if let Some(&quantizer) = self.pass.requantized.get(&layer.name) {
            self.narrow(layer, quantizer);
            quantizer.scale
        } else {
            self.parameters(self.pass.placement.root(layer.input))?.quantizer.scale
        };
        let stem = self.graph.value(layer.weight).name().to_owned();
        let weight = quantized.weight.to_tensor(&format!("{stem}_quantized"), &layer.shape);
        let count = quantized.scales.len();
        let zero_points = match &quantized.zero_points[..] {
            [] => (layer.op != LayerOp::Conv).then(|| TensorProto::from_i8("", &[count], &vec![0; count])),
            zero_points => Some(TensorProto::from_i8("", &[count], zero_points)),
        };
        let axis = layer.axis.filter(|_| quantized.scales.len() > 1);
        let dequantized = self.constant(&stem, weight, &quantized.scales, zero_points, axis);
        self.graph.set_input(layer.node, layer.weight_slot, Some(dequantized));
        if let Some(bias) = &quantized.bias {
            let bias = self.bias(layer, bias, &quantized.scales, input_scale);
            self.graph.set_input(layer.node, 2, Some(bias));
        } else if self.pass.placement.profile.joins_sums && layer.op == LayerOp::MatMul {
            self.quantize_addend(layer, &quantized.scales, input_scale)?;
        }
        Ok(())
    }

    /// Writes the constant vector that is added to a product as int32 in units of input scale × weight scale, as the
    /// bias of a layer is. The runtime joins product and sum, and takes the layer in float where the vector is float.
    fn quantize_addend(&mut self, layer: &Layer, scales: &[f32], input_scale: f32) -> Result<(), PassError> {
        let shape = self.graph.value(layer.input).shape();
        // Products of three and more axes are joined only where every length is known.
        let joined = shape.as_ref().is_none_or(|shape| shape.len() == 2 || shape.iter().all(Option::is_some));
        let rank = shape.map(|shape| shape.len());
        let output = self.graph.node(layer.node).output(0).filter(|_| joined);
        let Some(reader) = output.and_then(|value| self.graph.only_use(value)) else { return Ok(()) };
        let sum = self.graph.node(reader.node);
        let addend = sum.two_inputs().filter(|_| sum.is("Add")).map(|operands| operands[1 - reader.slot]);
        let (Some(addend), Some(axis)) = (addend, layer.axis) else { return Ok(()) };
        let Some(tensor) = self.graph.constant(addend).filter(|tensor| tensor.is_float()) else { return Ok(()) };
        // A row of two axes is joined where the product has no more.
        let shape = tensor.shape()?;
        let outputs = layer.shape[axis];
        if shape != [outputs] && (rank.is_some_and(|rank| rank != 2) || shape != [1, outputs]) {
            return Ok(());
        }
        let units: Vec<f64> = scales.iter().map(|&scale| f64::from(scale) * f64::from(input_scale)).collect();
        let Some(integers) = in_units(&tensor.to_f32()?, &units) else { return Ok(()) };
        let stem = self.graph.value(addend).name().to_owned();
        let stem = format!("{stem}_{}", layer.name);
        let tensor = TensorProto::from_i32(&format!("{stem}_quantized"), &shape, &integers);
        let units: Vec<f32> = scales.iter().map(|scale| scale * input_scale).collect();
        let axis = (units.len() > 1).then_some(shape.len() - 1);
        let dequantized = self.constant(&stem, tensor, &units, None, axis);
        self.graph.set_input(reader.node, 1 - reader.slot, Some(dequantized));
        Ok(())
    }

    /// What normalizations on integers add, before anything is quantized.
    fn offsets(&self) -> Vec<Offset> {
        let found = self.pass.placement.nodes.keys().filter_map(|&id| {
            let node = self.graph.node(id);
            let (value, input, factor) = (offset_of(node)?, node.input(0)?, node.input(1)?);
            self.graph.constant(value)?;
            Some(Offset { node: id, input, factor, value })
        });
        found.collect()
    }

    /// Writes the offset of a normalization as int32 in units of input scale × factor scale, the only form that
    /// onnxruntime matches; where it does not fit, it stays float.
    fn quantize_offset(&mut self, offset: &Offset) -> Result<(), PassError> {
        let placement = self.pass.placement;
        let [input, factor] = [offset.input, offset.factor].map(|value| placement.root(value));
        let scale = self.parameters(input)?.quantizer.scale * self.parameters(factor)?.quantizer.scale;
        let Some(tensor) = self.external.get(&offset.value).or_else(|| self.graph.constant(offset.value)) else {
            return Ok(());
        };
        let (values, shape) = (tensor.to_f32()?, tensor.shape()?);
        let Some(integers) = in_units(&values, &[f64::from(scale)]) else { return Ok(()) };
        let stem = self.graph.value(offset.value).name().to_owned();
        let stem = format!("{stem}_{}", self.graph.node(offset.node).label(self.graph));
        let tensor = TensorProto::from_i32(&format!("{stem}_quantized"), &shape, &integers);
        let dequantized = self.constant(&stem, tensor, &[scale], None, None);
        self.graph.set_input(offset.node, 2, Some(dequantized));
        Ok(())
    }

    fn bias(&mut self, layer: &Layer, bias: &LayerBias, weight_scales: &[f32], input_scale: f32) -> ValueId {
        let stem = match layer.bias {
            Some(bias) => self.graph.value(bias).name().to_owned(),
            None => format!("{}_bias", self.graph.value(layer.weight).name()),
        };
        match bias {
            LayerBias::Float(values) => {
                self.graph.add_initializer(TensorProto::from_f32(&format!("{stem}_rounded"), &[values.len()], values))
            }
            LayerBias::Int32(integers) => {
                let scales: Vec<f32> = weight_scales.iter().map(|s| s * input_scale).collect();
                let tensor = TensorProto::from_i32(&format!("{stem}_quantized"), &[integers.len()], integers);
                let axis = (scales.len() > 1).then_some(0);
                self.constant(&stem, tensor, &scales, None, axis)
            }
        }
    }

    /// `DQ(tensor, scales[, zero points], axis)` of constants.
    fn constant(
        &mut self,
        stem: &str,
        tensor: TensorProto,
        scales: &[f32],
        zero_points: Option<TensorProto>,
        axis: Option<usize>,
    ) -> ValueId {
        let shape: &[usize] = if axis.is_some() { &[scales.len()] } else { &[] };
        let tensor = self.graph.add_initializer(tensor);
        let scale = self.graph.add_initializer(TensorProto::from_f32(&format!("{stem}_scale"), shape, scales));
        let zero_point = zero_points.map(|mut zero| {
            zero.name = Some(format!("{stem}_zero_point"));
            zero.dims = shape.iter().map(|&n| n as i64).collect();
            self.graph.add_initializer(zero)
        });
        let attributes = axis.map(|axis| AttributeProto::int("axis", axis as i64)).into_iter().collect();
        let inputs = [Some(tensor), Some(scale), zero_point];
        let inputs = if zero_point.is_some() { &inputs[..] } else { &inputs[..2] };
        self.graph.add_op("DequantizeLinear", inputs, attributes, &format!("{stem}_dequantized"))
    }
}
