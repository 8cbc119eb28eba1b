//! Pass `fuse-affine`: folds products and sums with constants into the layer before them.
//!
//! `Mul`, `Div`, `Add` and `Sub` of a layer's output with a constant that is one number or one per channel are a
//! per-channel affine y = a·x + b, which the layer takes into weights and bias exactly as it does a batch-norm:
//! y = (a·W)·u + (a·c + b). Networks with learnable affine blocks have two of them after every convolution; left in
//! place, each would be rounded to 8 bits of its own.
//!
//! Layers: `Conv`, `ConvTranspose`, `Gemm`. Declined: a layer output somebody else reads, weights or biases shared or
//! not constant, a constant that varies along another axis than the channels, division by zero, and operators that the
//! caller wants left in float.
//!
//! **Units at the end of a network.** A network whose last product and sum turn channels into quantities of different
//! units, y = σ·x + μ with σ from 0.004 to 5,000, has channels of one size before and of very different sizes after. What
//! an integer kernel writes has one scale for all channels, so the affine stays behind the kernel, in float: where no
//! layer reads y, and the weights of the channels would differ by more than [`SPREAD`] times, or the offset exceeds what
//! they make of inputs of size 1 by as much.

use crate::analysis::{ChannelAffine, LayerOp};
use crate::ir::{Graph, Model, Node, NodeId, TensorProto, ValueId};
use crate::ops::{Trait, facts};
use crate::pass::{Outcome, Pass, PassError, in_turn};
use crate::prepare::layer_affine::{Site, channel_of, constant, fold, site_before};
use std::collections::HashSet;

/// Ratio of channels, or of an offset to its channel, from which on units stay behind the layer.
const SPREAD: f64 = 16.0;

/// Folds elementwise constants into the layers before them.
#[derive(Clone, Copy, Debug, Default)]
pub struct FuseAffine;

impl Pass for FuseAffine {
    fn name(&self) -> &'static str {
        "fuse-affine"
    }

    fn about(&self) -> &'static str {
        "products and sums with constants go into the layer before them"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        // The product after a layer must go before the sum after it can.
        let nodes = model.graph.node_ids().collect();
        in_turn(model, nodes, |model, id| {
            let Some((input, constant)) = operands(&model.graph, model.graph.node(id)) else { return Ok(None) };
            let (site, affine) = site(model, id, input, constant)?;
            refuse_units(model, id, &site, &affine)?;
            Ok(Some(fold(model, id, &site, &affine)?))
        })
    }
}

/// The computed and the constant operand, where the computed one comes from a layer.
fn operands(graph: &Graph, node: &Node) -> Option<(ValueId, ValueId)> {
    if !node.domain().is_empty() || !facts(node.op()).has(Trait::Arithmetic) {
        return None;
    }
    let (a, b) = (node.input(0)?, node.input(1)?);
    let (input, constant) = match (graph.constant(a).is_some(), graph.constant(b).is_some()) {
        (false, true) => (a, b),
        (true, false) if node.op() != "Div" => (b, a),
        _ => return None,
    };
    let (layer, _) = graph.value(input).producer()?;
    let takes_bias = LayerOp::of(graph.node(layer)).is_some_and(|op| facts(op.name()).takes_bias());
    takes_bias.then_some((input, constant))
}

fn site(model: &Model, id: NodeId, input: ValueId, operand: ValueId) -> Result<(Site, ChannelAffine), String> {
    let graph = &model.graph;
    let site = site_before(graph, input)?;
    let tensor = graph.constant(operand).ok_or("its constant is gone")?;
    let tensor = model.loaded(tensor).map_err(|e| e.to_string())?;
    let rank = graph.constant(site.weight).and_then(|t| t.shape().ok()).map_or(0, |s| s.len());
    let values = channel_values(&tensor, rank, site.channels)?;
    let node = graph.node(id);
    let constant_first = node.input(0) == Some(operand);
    let (factor, offset): (Vec<f64>, Vec<f64>) = match (node.op(), constant_first) {
        ("Mul", _) => values.iter().map(|&v| (v, 0.0)).unzip(),
        ("Div", _) if values.contains(&0.0) => return Err("it divides by zero".into()),
        ("Div", _) => values.iter().map(|&v| (v.recip(), 0.0)).unzip(),
        ("Sub", true) => values.iter().map(|&v| (-1.0, v)).unzip(),
        ("Sub", false) => values.iter().map(|&v| (1.0, -v)).unzip(),
        _ => values.iter().map(|&v| (1.0, v)).unzip(),
    };
    Ok((site, ChannelAffine { factor, offset }))
}

/// Refuses an affine that gives channels their units at the end of a network.
fn refuse_units(model: &Model, id: NodeId, site: &Site, affine: &ChannelAffine) -> Result<(), String> {
    let graph = &model.graph;
    let same = |values: &[f64]| values.iter().all(|value| *value == values[0]);
    if graph.node(site.layer).is("Gemm") || (same(&affine.factor) && same(&affine.offset)) || feeds_layer(graph, id) {
        return Ok(());
    }
    let norms = channel_norms(model, site)?;
    let sizes: Vec<f64> = norms.iter().zip(&affine.factor).map(|(norm, factor)| norm * factor.abs()).collect();
    let spread = |sizes: &[f64]| {
        let largest = sizes.iter().copied().fold(0.0, f64::max);
        largest / sizes.iter().copied().filter(|size| *size > 0.0).fold(largest, f64::min).max(f64::MIN_POSITIVE)
    };
    let (before, after) = (spread(&norms), spread(&sizes));
    let largest = sizes.iter().copied().fold(0.0, f64::max);
    let offset = affine.offset.iter().map(|offset| offset.abs()).fold(0.0, f64::max);
    if after > SPREAD.max(2.0 * before) {
        return Err(format!("it gives channels that nothing else reads units {after:.0} times apart"));
    }
    if offset > SPREAD * largest {
        return Err("it adds offsets, which nothing else reads, far larger than the layer's output".into());
    }
    Ok(())
}

/// Whether a layer, or arithmetic with another computed value, is among what reads a node's output, moved or not.
fn feeds_layer(graph: &Graph, id: NodeId) -> bool {
    let mut open = vec![id];
    let mut seen = HashSet::new();
    while let Some(id) = open.pop() {
        for value in graph.node(id).outputs().iter().flatten() {
            for reader in graph.value(*value).uses() {
                if !seen.insert(reader.node) {
                    continue;
                }
                let node = graph.node(reader.node);
                let computed = node.inputs().iter().flatten().filter(|v| graph.constant(**v).is_none()).count();
                if LayerOp::of(node).is_some() || computed > 1 {
                    return true;
                }
                open.push(reader.node);
            }
        }
    }
    false
}

/// Euclidean length of the weights of each output channel.
fn channel_norms(model: &Model, site: &Site) -> Result<Vec<f64>, String> {
    let weight = constant(model, site.weight).map_err(|e| e.to_string())?;
    let shape = weight.shape().map_err(|e| e.to_string())?;
    let channel = channel_of(model.graph.node(site.layer), &shape);
    let mut sums = vec![0.0; site.channels];
    for (at, &value) in weight.to_f32().map_err(|e| e.to_string())?.iter().enumerate() {
        sums[channel(at)] += f64::from(value).powi(2);
    }
    Ok(sums.into_iter().map(f64::sqrt).collect())
}

/// The constant for each channel of an output whose rank is that of the layer's weight, channels on axis 1.
fn channel_values(tensor: &TensorProto, rank: usize, channels: usize) -> Result<Vec<f64>, String> {
    let shape = tensor.shape().map_err(|e| e.to_string())?;
    let values: Vec<f64> = tensor.to_f32().map_err(|e| e.to_string())?.into_iter().map(f64::from).collect();
    if shape.len() > rank {
        return Err("its constant has more axes than the layer's output".into());
    }
    if let [only] = values[..] {
        return Ok(vec![only; channels]);
    }
    // Aligned at the last axis, axis 1 of the output is this axis of the constant.
    let axis = (shape.len() + 1).checked_sub(rank).ok_or("its constant does not reach the channels")?;
    let varies_elsewhere = shape.iter().enumerate().any(|(i, &n)| i != axis && n != 1);
    if varies_elsewhere || shape.get(axis) != Some(&channels) {
        return Err(format!("its constant of shape {shape:?} is not one number per channel"));
    }
    Ok(values)
}
