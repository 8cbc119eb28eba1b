//! Pass `equalize-channels`: the channels between two layers are scaled so that both layers give them equal ranges.
//!
//! For layers a and b with nothing but positively homogeneous functions f between them, f(x/s) = f(x)/s for s > 0, each
//! channel i has a factor to choose freely:
//!
//! `W_b`·f(`W_a`·x + c) = (`W_b`·S)·f((S⁻¹·`W_a`)·x + S⁻¹·c), S = diag(s)
//!
//! With r1 and r2 the largest weight without sign of output channel i of a and of input channel i of b,
//! s = √(r1·r2)/r2 = √(r1/r2) makes both √(r1·r2), so that one scale for a whole tensor serves all of its channels (Nagel
//! et al., *Data-Free Quantization*, §4.1, equation (11)). s is rounded to a power of two. That leaves the ranges within
//! a factor of 2 of each other, and every product and sum of the network keeps its digits: outputs stay the same bit
//! for bit, as long as no number leaves the normal ones of single precision. Layers that belong to two pairs, depthwise
//! ones in the middle above all, pass factors on: all pairs are done in turns until none moves.
//!
//! Values between the two are others afterwards and get other names.
//!
//! Functions between: `Relu`, `LeakyRelu`, `PRelu`, `Identity`, poolings, and `Flatten` or a `Reshape` that does the same
//! before a matrix. Declined: any other operator, among them `Clip`, `Add` and batch-norms; values that are graph outputs
//! or read more than once; weights and biases that are not constant, not single precision or read elsewhere; constants
//! on the left and transposed activations. Channels left alone: those a layer has no weight for, and those whose
//! weights are negligible beside their bias.

mod factors;
mod pairs;

use crate::analysis::{Layer, layers};
use crate::ir::{Model, NodeId, ValueId};
use crate::pass::{Outcome, Pass, PassError};
use crate::prepare::layer_affine::constant;
use crate::prepare::names::rename;
use indexmap::IndexMap;
use pairs::{Pair, pair_after};
use std::collections::HashMap;

/// Gives the channels between two layers equal ranges in both.
#[derive(Clone, Copy, Debug, Default)]
pub struct EqualizeChannels;

impl Pass for EqualizeChannels {
    fn name(&self) -> &'static str {
        "equalize-channels"
    }

    fn about(&self) -> &'static str {
        "channels between two layers are scaled so that both layers give them equal ranges"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let layers = layers(model);
        let by_node: HashMap<NodeId, &Layer> = layers.iter().map(|layer| (layer.node, layer)).collect();
        let mut pairs = Vec::new();
        for layer in &layers {
            match pair_after(&model.graph, layer, &by_node) {
                Ok(pair) => pairs.extend(pair),
                Err(reason) => outcome.decline(&layer.name, reason),
            }
        }
        let mut elements = elements(model, &pairs)?;
        let moved = factors::equalize(&pairs, &mut elements);
        for (pair, _) in pairs.iter().zip(moved).filter(|(_, moved)| *moved) {
            for value in pair.constants() {
                let Some(elements) = elements.swap_remove(&value) else { continue };
                let tensor = constant(model, value)?;
                let tensor = tensor.with_f32(&tensor.shape()?, &elements);
                model.graph.set_initializer(value, tensor);
            }
            pair.between.iter().for_each(|&value| rename(&mut model.graph, value, "equalized"));
            outcome.count();
        }
        Ok(outcome)
    }
}

/// Elements of the constants of all pairs.
fn elements(model: &Model, pairs: &[Pair]) -> Result<IndexMap<ValueId, Vec<f32>>, PassError> {
    let values = pairs.iter().flat_map(Pair::constants);
    values.map(|value| Ok((value, constant(model, value)?.to_f32()?))).collect()
}
