//! What is learned of a block: weights, biases and steps of quantizers, and how they move.

use super::relaxed::{Quantizer, state_grid};
use crate::kernels::Geometry;
use crate::quant::normal_scale;
use crate::solve::SolveError;
use crate::solve::gradient::Adam;
use msq_passes::Differentiate;
use msq_passes::analysis::{Layer, LayerOp};
use msq_passes::ir::{Model, TensorProto, ValueId};
use std::hash::Hasher;
use twox_hash::XxHash3_64;

/// The rate of biases, relative to their root mean square, as a share of that of weights.
const OF_BIASES: f32 = 0.3;
/// The rate of the logarithms of steps.
const STEPS_RATE: f32 = 0.003;

/// A layer whose weights are learned.
#[derive(Clone, Debug)]
pub(super) struct LearnedLayer {
    pub(super) geometry: Geometry,
    /// Name of its output.
    pub(super) output: String,
    /// Name of its input, behind the quantizer.
    pub(super) input: String,
    weight: Tensor,
    /// Where it is one number per channel that no other node reads.
    bias: Option<Tensor>,
}

/// An initializer while it is learned.
#[derive(Clone, Debug)]
struct Tensor {
    name: String,
    shape: Vec<usize>,
    values: Vec<f32>,
    /// The root mean square at the start.
    size: f32,
    adam: Adam,
}

/// Sums of gradients.
#[derive(Clone, Debug, Default)]
pub(super) struct Gradients {
    /// Of each layer's weight, in storage order.
    pub(super) weights: Vec<Vec<f32>>,
    /// Of each layer's bias.
    pub(super) biases: Vec<Vec<f32>>,
    /// By the logarithm of each step.
    pub(super) steps: Vec<f64>,
    /// The loss.
    pub(super) loss: f64,
}

/// All that is learned of a block.
#[derive(Clone, Debug)]
pub(super) struct Parameters {
    pub(super) layers: Vec<LearnedLayer>,
    pub(super) quantizers: Vec<Quantizer>,
    adam: Vec<Adam>,
}

impl Tensor {
    fn new(model: &Model, value: ValueId) -> Result<Option<Self>, SolveError> {
        let alone = model.graph.only_use(value).is_some();
        let Some(tensor) = model.constant(value).filter(|_| alone).transpose()? else { return Ok(None) };
        if !tensor.is_float() {
            return Ok(None);
        }
        let (shape, values) = (tensor.shape()?, tensor.to_f32()?);
        let mean = values.iter().map(|v| f64::from(v * v)).sum::<f64>() / values.len().max(1) as f64;
        let (size, adam) = (mean.sqrt() as f32, Adam::new(values.len()));
        Ok(Some(Self { name: model.graph.value(value).name().to_owned(), shape, values, size, adam }))
    }

    /// Writes the weight of a layer in so many groups, in every form in which a graph has it.
    fn put_weight(&self, model: &mut Model, groups: usize) {
        let tensor = TensorProto::from_f32(&self.name, &self.shape, &self.values);
        Differentiate::set_weight(&mut model.graph, &self.name, tensor, groups);
    }

    fn put(&self, model: &mut Model) {
        if let Some(value) = model.graph.find(&self.name) {
            model.graph.set_initializer(value, TensorProto::from_f32(&self.name, &self.shape, &self.values));
        }
    }

    fn step(&mut self, gradient: &[f32], rate: f32) {
        self.adam.update(&mut self.values, gradient, rate * self.size);
    }
}

impl LearnedLayer {
    /// Of a network with quantizers; none where the kernels do not know the layer's form, or others read its weight.
    pub(super) fn new(model: &Model, layer: &Layer) -> Result<Option<Self>, SolveError> {
        let graph = &model.graph;
        let node = graph.node(layer.node);
        let plain = layer.op == LayerOp::Conv || layer.is_matrix_product(graph);
        let Some(geometry) = Geometry::new(layer, node).ok().filter(|_| plain) else { return Ok(None) };
        let Some(weight) = Tensor::new(model, layer.weight)? else { return Ok(None) };
        let bias = node.input(2).map(|bias| Tensor::new(model, bias)).transpose()?.flatten();
        let channels = geometry.groups() * geometry.outputs();
        let bias = bias.filter(|bias| bias.shape == [channels]);
        let name = |value: ValueId| graph.value(value).name().to_owned();
        let Some(input) = node.input(0).map(name) else { return Ok(None) };
        Ok(Some(Self { geometry, output: name(layer.output), input, weight, bias }))
    }

    pub(super) fn weights(&self) -> usize {
        self.weight.values.len()
    }

    /// Writes weight and bias into a network that has the layer.
    pub(super) fn put(&self, model: &mut Model) {
        self.weight.put_weight(model, self.geometry.groups());
        self.bias.iter().for_each(|bias| bias.put(model));
    }
}

impl Gradients {
    /// Nothing summed up yet.
    pub(super) fn of(parameters: &Parameters) -> Self {
        let channels = |layer: &LearnedLayer| layer.geometry.groups() * layer.geometry.outputs();
        Self {
            weights: parameters.layers.iter().map(|layer| vec![0.0; layer.weights()]).collect(),
            biases: parameters.layers.iter().map(|layer| vec![0.0; channels(layer)]).collect(),
            steps: vec![0.0; parameters.quantizers.len()],
            loss: 0.0,
        }
    }

    /// The gradients of tensors: of each layer the weight, then the bias where one is learned.
    pub(super) fn tensors<'a>(&'a mut self, parameters: &'a Parameters) -> impl Iterator<Item = &'a mut Vec<f32>> {
        let sums = self.weights.iter_mut().zip(&mut self.biases).zip(&parameters.layers);
        sums.flat_map(|((weights, bias), layer)| [Some(weights), layer.bias.is_some().then_some(bias)]).flatten()
    }

    /// Adds the sums over other samples.
    pub(super) fn add(&mut self, other: &Self) {
        let sum = |to: &mut Vec<Vec<f32>>, from: &Vec<Vec<f32>>| {
            to.iter_mut().flatten().zip(from.iter().flatten()).for_each(|(to, from)| *to += from);
        };
        sum(&mut self.weights, &other.weights);
        sum(&mut self.biases, &other.biases);
        self.steps.iter_mut().zip(&other.steps).for_each(|(to, from)| *to += from);
        self.loss += other.loss;
    }
}

impl Parameters {
    pub(super) fn new(layers: Vec<LearnedLayer>, quantizers: Vec<Quantizer>) -> Self {
        let adam = quantizers.iter().map(|_| Adam::new(1)).collect();
        Self { layers, quantizers, adam }
    }

    /// The parameters of values that `has` says yes to.
    pub(super) fn within(mut self, has: impl Fn(&str) -> bool) -> Self {
        self.layers.retain(|layer| has(&layer.output));
        let steps = self.quantizers.into_iter().zip(self.adam).filter(|(quantizer, _)| has(&quantizer.written));
        (self.quantizers, self.adam) = steps.unzip();
        self
    }

    /// A number that tells them from others.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = XxHash3_64::new();
        for layer in &self.layers {
            let tensors = std::iter::once(&layer.weight).chain(&layer.bias);
            tensors.flat_map(|tensor| &tensor.values).for_each(|value| hasher.write_u32(value.to_bits()));
        }
        self.quantizers.iter().for_each(|quantizer| hasher.write_u32(quantizer.grid.scale.to_bits()));
        hasher.finish()
    }

    /// Writes them into a network with clamps, or with quantizers in their place.
    pub(super) fn put(&self, model: &mut Model) {
        self.layers.iter().for_each(|layer| layer.put(model));
        self.quantizers.iter().for_each(|quantizer| state_grid(model, quantizer));
    }

    /// Moves them along the gradients, `share` of the full rates. That of weights is relative to their root mean square.
    pub(super) fn step(&mut self, gradients: &Gradients, share: f32, rate: f32) {
        let rate = share * rate;
        let sums = gradients.weights.iter().zip(&gradients.biases);
        for (layer, (weights, bias)) in self.layers.iter_mut().zip(sums) {
            layer.weight.step(weights, rate);
            if let Some(tensor) = &mut layer.bias {
                tensor.step(bias, rate * OF_BIASES);
            }
        }
        let steps = self.quantizers.iter_mut().zip(&mut self.adam).zip(&gradients.steps);
        for ((quantizer, adam), &gradient) in steps.filter(|((quantizer, _), _)| quantizer.free) {
            let mut moved = [0.0];
            adam.update(&mut moved, &[gradient as f32], share * STEPS_RATE);
            quantizer.grid.scale = normal_scale(f64::from(quantizer.grid.scale) * f64::from(moved[0]).exp());
        }
    }
}
