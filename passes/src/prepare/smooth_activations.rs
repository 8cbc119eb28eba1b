//! Pass `smooth-activations`: channels that products read are divided by factors, rows of their weights multiplied.
//!
//! X·W = (X·S⁻¹)·(S·W), S = diag(s), s > 0 (Xiao et al., *`SmoothQuant`*, arXiv 2211.10438, equation (3)).
//!
//! One scale serves all channels of an activation: a channel a hundred times larger than the others leaves them one or two
//! integers. Weights have a scale per output channel, and rows of them that are somewhat larger than others lose little.
//! Which factors are best is found by whoever has seen the activations; the pass has them in its field.
//!
//! The factors of an activation go into the scale and offset that compute it, where these are vectors over its channels and
//! nothing else reads it: a `LayerNormalization`, or a product and a sum with constants as normalizations are written out.
//! Elsewhere a product with S⁻¹ is added, in float, in front of the quantizer. Each element is rounded once more: outputs
//! stay the same up to the precision of floats.
//!
//! Readers: `MatMul` and `Gemm` with a constant matrix on the right. Others go on reading the activation as it was.
//! Declined: activations that no such layer reads, factors that are not positive and normal or do not fit a layer's
//! rows, weights that are not single precision or that another node reads.

use super::names::rename;
use crate::analysis::{Layer, LayerOp, layers};
use crate::ir::{DataType, Graph, Model, Node, NodeId, TensorProto, ValueId};
use crate::pass::{Outcome, Pass, PassError, shared_with};
use crate::prepare::layer_affine::constant;
use indexmap::IndexMap;

/// Divides channels of activations and multiplies the rows of the weights that read them.
#[derive(Clone, Debug, Default)]
pub struct SmoothActivations {
    /// One factor per channel, the last axis, of each activation, by its name.
    pub factors: IndexMap<String, Vec<f32>>,
}

impl SmoothActivations {
    /// Whether a layer multiplies the last axis of what it reads with a matrix: only such layers read divided channels.
    pub fn is_product(graph: &Graph, layer: &Layer) -> bool {
        let plain = graph.node(layer.node).int_or("transA", 0) == 0;
        matches!(layer.op, LayerOp::MatMul | LayerOp::Gemm) && layer.weight_slot == 1 && layer.shape.len() == 2 && plain
    }
}

impl Pass for SmoothActivations {
    fn name(&self) -> &'static str {
        "smooth-activations"
    }

    fn about(&self) -> &'static str {
        "channels that products read are divided by factors, rows of their weights multiplied"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let mut sites = Vec::new();
        let layers = layers(model);
        for (name, factors) in &self.factors {
            match site(&model.graph, name, factors, &layers) {
                Ok(site) => sites.push((site, factors)),
                Err(reason) => outcome.decline(name, reason),
            }
        }
        for (site, factors) in sites {
            multiply_rows(model, &site.readers, factors)?;
            divide(model, &site, factors)?;
            outcome.count();
        }
        Ok(outcome)
    }
}

/// An activation and the layers that are to read it divided.
struct Site {
    value: ValueId,
    readers: Vec<Layer>,
    /// Constants of a scale and an offset that compute it for these readers alone, and the values they compute.
    affine: Option<(Vec<ValueId>, Vec<ValueId>)>,
}

fn site(graph: &Graph, name: &str, factors: &[f32], layers: &[Layer]) -> Result<Site, String> {
    let value = graph.find(name).ok_or("there is no such value")?;
    if !factors.iter().all(|factor| *factor > 0.0 && factor.is_normal() && factor.recip().is_normal()) {
        return Err("its factors are not all positive and normal".to_owned());
    }
    let readers: Vec<Layer> = layers
        .iter()
        .filter(|layer| layer.input == value && SmoothActivations::is_product(graph, layer))
        .cloned()
        .collect();
    if readers.is_empty() {
        return Err("no product with a matrix reads it".to_owned());
    }
    for layer in &readers {
        check(graph, layer, factors.len(), &readers)?;
    }
    let own = |node: NodeId| readers.iter().any(|layer| layer.node == node);
    let entry = graph.value(value);
    let alone = !graph.is_output(value) && entry.captures().is_empty() && entry.uses().iter().all(|u| own(u.node));
    let affine = if alone { affine(graph, value, factors.len()) } else { None };
    Ok(Site { value, readers, affine })
}

fn check(graph: &Graph, layer: &Layer, channels: usize, readers: &[Layer]) -> Result<(), String> {
    let rows = layer.shape[row_axis(graph.node(layer.node))];
    if rows != channels {
        return Err(format!("it has {channels} factors, and `{}` reads {rows} channels", layer.name));
    }
    let tensor = graph.constant(layer.weight);
    if tensor.and_then(TensorProto::element_type) != Some(DataType::Float) {
        return Err(format!("the weight of `{}` is not single precision", layer.name));
    }
    // Layers that read one weight, each of which reads this activation, have the rows of all multiplied at once.
    let entry = graph.value(layer.weight);
    let shared = |node: NodeId| readers.iter().any(|other| other.node == node && other.weight == layer.weight);
    let twice = entry.uses().len() > 1 && entry.uses().iter().all(|u| shared(u.node));
    match shared_with(graph, layer.weight, shared) {
        Some(reason) if !twice => Err(reason),
        _ => Ok(()),
    }
}

/// The axis of a matrix along which the channels of the activation lie.
fn row_axis(node: &Node) -> usize {
    usize::from(node.is("Gemm") && node.int_or("transB", 0) != 0)
}

/// The constants of the scale and the offset that compute a value, each a vector over its channels, and the values that
/// they compute on the way, the last one first.
fn affine(graph: &Graph, value: ValueId, channels: usize) -> Option<(Vec<ValueId>, Vec<ValueId>)> {
    let (mut constants, mut values) = (Vec::new(), vec![value]);
    let vector = |value: ValueId, reader: NodeId| {
        let tensor = graph.constant(value).filter(|tensor| tensor.element_type() == Some(DataType::Float))?;
        let own = shared_with(graph, value, |node| node == reader).is_none();
        (own && tensor.shape().ok()? == [channels]).then_some(value)
    };
    loop {
        let (producer, slot) = graph.value(*values.last()?).producer()?;
        let node = graph.node(producer);
        if node.is("LayerNormalization") && slot == 0 && matches!(node.int_or("axis", -1), -1) {
            constants.push(vector(node.input(1)?, producer)?);
            if let Some(offset) = node.input(2) {
                constants.push(vector(offset, producer)?);
            }
            return Some((constants, values));
        }
        let [a, b] = node.two_inputs()?;
        let (input, own) = match (vector(a, producer), vector(b, producer)) {
            (None, Some(own)) => (a, own),
            (Some(own), None) => (b, own),
            _ => return None,
        };
        constants.push(own);
        match node.op() {
            "Mul" if node.domain().is_empty() => return Some((constants, values)),
            // The one before it has to be divided, too.
            "Add" if node.domain().is_empty() => {
                shared_with(graph, input, |node| node == producer).is_none().then_some(())?;
                values.push(input);
            }
            _ => return None,
        }
    }
}

fn multiply_rows(model: &mut Model, readers: &[Layer], factors: &[f32]) -> Result<(), PassError> {
    let mut done = Vec::new();
    for layer in readers.iter().filter(|layer| layer.shape.iter().all(|&n| n > 0)) {
        if done.contains(&layer.weight) {
            continue;
        }
        done.push(layer.weight);
        let tensor = constant(model, layer.weight)?;
        let (columns, transposed) = (layer.shape[1], row_axis(model.graph.node(layer.node)) == 1);
        let row = |at: usize| if transposed { at % columns } else { at / columns };
        let scaled: Vec<f32> = tensor.to_f32()?.iter().enumerate().map(|(at, w)| w * factors[row(at)]).collect();
        let tensor = tensor.with_f32(&layer.shape, &scaled);
        model.graph.set_initializer(layer.weight, tensor);
    }
    Ok(())
}

/// Divides the activation for its readers: in the constants that compute it, or by a product in front of them.
fn divide(model: &mut Model, site: &Site, factors: &[f32]) -> Result<(), PassError> {
    if let Some((constants, values)) = &site.affine {
        for &value in constants {
            let tensor = constant(model, value)?;
            let divided: Vec<f32> = tensor.to_f32()?.iter().zip(factors).map(|(v, factor)| v / factor).collect();
            model.graph.set_initializer(value, tensor.with_f32(&[factors.len()], &divided));
        }
        for &value in values {
            rename(&mut model.graph, value, "smoothed");
        }
        return Ok(());
    }
    let graph = &mut model.graph;
    let name = format!("{}_smoothed", graph.value(site.value).name());
    let reciprocals: Vec<f32> = factors.iter().map(|factor| factor.recip()).collect();
    let tensor = TensorProto::from_f32(&graph.fresh_name(&format!("{name}_factors")), &[factors.len()], &reciprocals);
    let by = graph.add_initializer(tensor);
    let ty = graph.value(site.value).ty().cloned();
    let divided = graph.add_op("Mul", &[Some(site.value), Some(by)], Vec::new(), &name);
    if let Some(ty) = ty {
        graph.set_type(divided, ty);
    }
    for layer in &site.readers {
        graph.set_input(layer.node, 0, Some(divided));
    }
    Ok(())
}
