//! Weights that several readers share, by content: layers whose weights are the same rows, and weights beside the layers
//! that a layer reads too.
//!
//! A layer's rows are its weights for one output channel after another. Two layers share where these are equal, in
//! whatever layout and under whatever names the file holds them: a `Gemm` and a `MatMul` of the transpose, a `MatMul` and
//! a convolution of one tap. They get the same bits, integers and scales, so that one copy serves all.

use super::bit_plan::{BitPlan, WeightBits};
use indexmap::IndexMap;
use msq_passes::analysis::{Layer, StoredWeight};
use msq_passes::ir::{Model, TensorProto};
use std::borrow::Cow;

/// The layer whose integers a stored weight has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Twin {
    /// The layer's name.
    pub layer: String,
    /// Whether the layer's weight is the transpose.
    pub transposed: bool,
}

/// Fewer weights are not worth a look.
const LEAST: usize = 256;
/// Elements compared before all of them are.
const PROBES: usize = 24;

/// Layers with the same rows: groups of two or more, of the names in graph order.
pub(crate) fn groups(model: &Model, layers: &[&Layer]) -> Vec<Vec<String>> {
    let mut alike: IndexMap<(usize, usize), Vec<Vec<&Layer>>> = IndexMap::new();
    let mut count: IndexMap<(usize, usize), usize> = IndexMap::new();
    let key = |layer: &Layer| Some((layer.shape[layer.axis?], layer.weights()));
    for layer in layers {
        *count.entry(key(layer).unwrap_or_default()).or_default() += 1;
    }
    for &layer in layers {
        let Some(key) = key(layer).filter(|key| key.1 >= LEAST && count[key] > 1) else { continue };
        let groups = alike.entry(key).or_default();
        match groups.iter_mut().find(|group| same_rows(model, group[0], layer)) {
            Some(group) => group.push(layer),
            None => groups.push(vec![layer]),
        }
    }
    let shared = alike.into_values().flatten().filter(|group| group.len() > 1);
    shared.map(|group| group.into_iter().map(|layer| layer.name.clone()).collect()).collect()
}

fn same_rows(model: &Model, a: &Layer, b: &Layer) -> bool {
    if a.weight == b.weight {
        return a.axis == b.axis;
    }
    let at = |layer: &Layer| {
        let axis = layer.axis.unwrap_or(0);
        Arrangement::new(&layer.shape, axis)
    };
    same_elements(model, (a.weight, at(a)), (b.weight, at(b)))
}

/// A tensor as rows along an axis.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Arrangement {
    channels: usize,
    inner: usize,
    size: usize,
}

impl Arrangement {
    fn new(shape: &[usize], axis: usize) -> Self {
        let all: usize = shape.iter().product();
        let (channels, inner) = (shape[axis], shape[axis + 1..].iter().product());
        Self { channels, inner, size: all / channels.max(1) }
    }

    /// Where an element of the rows stands.
    fn place(self, at: usize) -> usize {
        let (channel, within) = (at / self.size, at % self.size);
        let (outer, inner) = (within / self.inner, within % self.inner);
        (outer * self.channels + channel) * self.inner + inner
    }
}

/// Whether two float constants have the same bits, each read in its arrangement. Elements in other files are not read:
/// such constants are the same where they are the same part of a file.
fn same_elements(
    model: &Model,
    (a, at_a): (msq_passes::ir::ValueId, Arrangement),
    (b, at_b): (msq_passes::ir::ValueId, Arrangement),
) -> bool {
    let (Some(a), Some(b)) = (model.graph.constant(a), model.graph.constant(b)) else { return false };
    if a.is_external() || b.is_external() {
        let part = |tensor: &TensorProto| (tensor.data_type, tensor.external_data.clone());
        return a.is_external() && part(a) == part(b) && at_a == at_b;
    }
    let (Some(a), Some(b)) = (bits(a), bits(b)) else { return false };
    let same = |at: usize| a[4 * at_a.place(at)..][..4] == b[4 * at_b.place(at)..][..4];
    let count = a.len() / 4;
    a.len() == b.len() && (0..PROBES).all(|i| same(i * (count - 1) / (PROBES - 1))) && (0..count).all(same)
}

/// The bytes of a float tensor.
fn bits(tensor: &TensorProto) -> Option<Cow<'_, [u8]>> {
    if tensor.element_type() != Some(msq_passes::ir::DataType::Float) {
        return None;
    }
    match &tensor.raw_data {
        Some(raw) => Some(Cow::Borrowed(&raw[..])),
        None => Some(Cow::Owned(tensor.float_data.iter().flat_map(|v| v.to_le_bytes()).collect())),
    }
}

/// The layer that reads the same weight as a stored one, with the axis of the stored one along which its scales lie.
pub(crate) fn twin(model: &Model, weight: &StoredWeight, layers: &[&Layer]) -> Option<(Twin, usize)> {
    layers.iter().find_map(|layer| {
        let axis = layer.axis?;
        if layer.weights() != weight.weights() || weight.weights() < LEAST {
            return None;
        }
        let found = |transposed, axis| Some((Twin { layer: layer.name.clone(), transposed }, axis));
        let plain = Arrangement::new(&weight.shape, 0);
        if layer.shape == weight.shape {
            let same = layer.weight == weight.value
                || same_elements(model, (weight.value, plain), (layer.weight, Arrangement::new(&layer.shape, 0)));
            if same {
                return found(false, axis);
            }
        }
        let ([rows, columns], [own_rows, own_columns]) = (&layer.shape[..], &weight.shape[..]) else { return None };
        let other = Arrangement::new(&layer.shape, 1);
        let transposed = rows == own_columns
            && columns == own_rows
            && same_elements(model, (weight.value, plain), (layer.weight, other));
        if transposed { found(true, 1 - axis) } else { None }
    })
}

/// The plan with the most bits of any layer of a group for all of them.
pub(crate) fn agreed_plan(plan: &BitPlan, groups: &[Vec<String>]) -> BitPlan {
    let mut agreed = plan.clone();
    for group in groups {
        let of = |name: &String| plan.layer(name).unwrap_or_default();
        let most = group.iter().map(of).filter(|p| p.weights != WeightBits::Float);
        let Some(most) = most.reduce(|a, b| if b.weights.width() > a.weights.width() { b } else { a }) else {
            continue;
        };
        for name in group {
            let own = of(name);
            let entry = super::bit_plan::LayerPlan { activations: own.activations, ..most };
            if entry != own {
                agreed.layers.insert(name.clone(), entry);
            }
        }
    }
    agreed
}
