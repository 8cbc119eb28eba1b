//! Weights that several readers share, by content: layers whose weights are the same rows, and weights beside the layers
//! that a layer reads too.
//!
//! A layer's rows are its weights for one output channel after another. Two layers share where these are equal, in
//! whatever layout and under whatever names the file holds them: a `Gemm` and a `MatMul` of the transpose, a `MatMul` and
//! a convolution of one tap. They get the same bits, integers and scales, so that one copy serves all.

use super::bit_plan::{BitPlan, LayerPlan, WeightBits};
use indexmap::IndexMap;
use msq_passes::analysis::{Layer, StoredWeight};
use msq_passes::ir::{Model, TensorProto};
use std::collections::HashMap;

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

/// Least signal-to-noise ratio of a weight on one scale, in decibels, for layers along different axes to share it.
const ONE_SCALE: f64 = 30.0;

/// Which layers share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sharing {
    /// Groups of two or more, of the names in graph order.
    pub groups: Vec<Vec<String>>,
    /// As in `Scheme`.
    pub one_scale: IndexMap<String, bool>,
}

/// Layers with the same weight. Where their channels lie along different axes of it they share only on one scale for
/// all of it, and only in 8 bits, if that is good enough.
pub(crate) fn groups(model: &Model, layers: &[&Layer], plan: &BitPlan, per_channel: bool) -> Sharing {
    let mut found = same_rows_groups(model, layers);
    let mut one_scale = IndexMap::new();
    let mut at = 0;
    while at < found.len() {
        let later = (at + 1..found.len()).find_map(|other| {
            let (a, b) = (found[at][0], found[other][0]);
            Some((other, crossed(model, a, b).filter(|_| fits_one_scale(model, a, b, plan, per_channel))?))
        });
        let Some((other, transposed)) = later else {
            at += 1;
            continue;
        };
        let joined = found.remove(other);
        let first = found[at][0];
        for layer in &found[at] {
            one_scale.entry(layer.name.clone()).or_insert(layer.axis != first.axis);
        }
        for layer in &joined {
            one_scale.insert(layer.name.clone(), transposed != (layer.axis != joined[0].axis));
        }
        found[at].extend(joined);
    }
    let shared = found.into_iter().filter(|group| group.len() > 1);
    let groups = shared.map(|group| group.into_iter().map(|layer| layer.name.clone()).collect()).collect();
    Sharing { groups, one_scale }
}

/// Whether two layers read the same elements with channels along different axes; then, whether one is stored as the
/// transpose of the other.
fn crossed(model: &Model, a: &Layer, b: &Layer) -> Option<bool> {
    if a.weights() != b.weights() || a.weights() < LEAST {
        return None;
    }
    let plain = |layer: &Layer| (layer.weight, Arrangement::new(&layer.shape, 0));
    let same = || a.weight == b.weight || same_elements(model, plain(a), plain(b));
    if a.shape == b.shape && a.axis != b.axis && same() {
        return Some(false);
    }
    let swapped = is_swapped(a, b);
    let other = (b.weight, Arrangement::new(&b.shape, b.shape.len().saturating_sub(1)));
    (swapped && a.axis == b.axis && same_elements(model, plain(a), other)).then_some(true)
}

fn fits_one_scale(model: &Model, a: &Layer, b: &Layer, plan: &BitPlan, per_channel: bool) -> bool {
    let eight = |layer: &Layer| plan.layer(&layer.name).unwrap_or_default() == plan_of_eight(plan, layer);
    if !eight(a) || !eight(b) {
        return false;
    }
    let Some(Ok(tensor)) = model.constant(a.weight) else { return false };
    let Ok(values) = tensor.to_f32() else { return false };
    let most = values.iter().fold(0.0_f64, |most, &v| most.max(f64::from(v).abs()));
    let power = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / values.len().max(1) as f64;
    // Rounding errors are uniform within a step.
    let noise = (most / 127.0).powi(2) / 12.0;
    !per_channel || 10.0 * (power / noise).log10() >= ONE_SCALE
}

fn plan_of_eight(plan: &BitPlan, layer: &Layer) -> LayerPlan {
    let own = plan.layer(&layer.name).unwrap_or_default();
    LayerPlan { activations: own.activations, ..LayerPlan::default() }
}

/// Layers with the same rows, in groups of one or more.
fn same_rows_groups<'a>(model: &Model, layers: &[&'a Layer]) -> Vec<Vec<&'a Layer>> {
    let mut groups: Vec<Vec<&Layer>> = Vec::new();
    let mut alike: HashMap<(usize, usize), Vec<usize>> = HashMap::new();
    for &layer in layers.iter().filter(|layer| layer.axis.is_some() && layer.weights() >= LEAST) {
        let key = (layer.axis.map_or(0, |axis| layer.shape[axis]), layer.weights());
        let known = alike.entry(key).or_default();
        if let Some(&group) = known.iter().find(|&&group| same_rows(model, groups[group][0], layer)) {
            groups[group].push(layer);
        } else {
            known.push(groups.len());
            groups.push(vec![layer]);
        }
    }
    groups
}

fn is_swapped(a: &Layer, b: &Layer) -> bool {
    matches!((&a.shape[..], &b.shape[..]), ([m, n], [k, l]) if m == l && n == k)
}

fn same_rows(model: &Model, a: &Layer, b: &Layer) -> bool {
    if a.weight == b.weight {
        return a.axis == b.axis;
    }
    // Elements in files are read only where a matrix may be one in memory transposed.
    let outside = |layer: &Layer| model.graph.constant(layer.weight).is_some_and(TensorProto::is_external);
    if outside(a) != outside(b) && !is_swapped(a, b) {
        return false;
    }
    let at = |layer: &Layer| Arrangement::new(&layer.shape, layer.axis.unwrap_or(0));
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

/// Whether two float constants have the same bits, each read in its arrangement. Two constants in other files are not
/// read: they are the same where they are the same part of a file.
fn same_elements(
    model: &Model,
    (a, at_a): (msq_passes::ir::ValueId, Arrangement),
    (b, at_b): (msq_passes::ir::ValueId, Arrangement),
) -> bool {
    let (Some(a), Some(b)) = (model.graph.constant(a), model.graph.constant(b)) else { return false };
    if a.is_external() && b.is_external() {
        let part = |tensor: &TensorProto| (tensor.data_type, tensor.external_data.clone());
        return part(a) == part(b) && at_a == at_b;
    }
    let (Ok(a), Ok(b)) = (model.loaded(a), model.loaded(b)) else { return false };
    let (Some(a), Some(b)) = (Floats::of(&a), Floats::of(&b)) else { return false };
    let same = |at: usize| a.bits(at_a.place(at)) == b.bits(at_b.place(at));
    let count = a.len();
    count == b.len() && count > 0 && (0..PROBES).all(|i| same(i * (count - 1) / (PROBES - 1))) && (0..count).all(same)
}

/// The elements of a float tensor, in either form of the file.
#[derive(Clone, Copy)]
enum Floats<'a> {
    Raw(&'a [u8]),
    Typed(&'a [f32]),
}

impl<'a> Floats<'a> {
    fn of(tensor: &'a TensorProto) -> Option<Self> {
        if tensor.element_type() != Some(msq_passes::ir::DataType::Float) {
            return None;
        }
        Some(tensor.raw_data.as_ref().map_or(Self::Typed(&tensor.float_data), |raw| Self::Raw(raw)))
    }

    fn len(self) -> usize {
        match self {
            Self::Raw(raw) => raw.len() / 4,
            Self::Typed(values) => values.len(),
        }
    }

    fn bits(self, at: usize) -> [u8; 4] {
        match self {
            Self::Raw(raw) => [raw[4 * at], raw[4 * at + 1], raw[4 * at + 2], raw[4 * at + 3]],
            Self::Typed(values) => values[at].to_le_bytes(),
        }
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
        let Some(most) = most.reduce(|a, b| if b.weights.twentieths() > a.weights.twentieths() { b } else { a }) else {
            continue;
        };
        for name in group {
            let own = of(name);
            let entry = LayerPlan { activations: own.activations, ..most };
            if entry != own {
                agreed.layers.insert(name.clone(), entry);
            }
        }
    }
    agreed
}
