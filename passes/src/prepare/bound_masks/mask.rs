//! Masks in front of a `Softmax`.

use crate::ir::{DataType, Graph, Node, NodeId, TensorProto, ValueId, axis_of};

/// An element at most this large leaves nothing: e⁻⁵⁰ is below every step of 16 bits.
pub(super) const LEAST: f32 = -50.0;

/// How far a mask is followed through what computes it.
const DEPTH: usize = 24;

/// Operators that move or repeat elements of their first input, or change their type.
const MOVES: &[&str] =
    &["Cast", "Expand", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze"];

/// A `Softmax` whose scores are masked.
#[derive(Clone, Debug)]
pub(super) struct Masked {
    pub(super) softmax: NodeId,
    /// What it reads.
    pub(super) value: ValueId,
    /// The masks, the last one first.
    pub(super) masks: Vec<Mask>,
    /// What it reads, and what is computed from the scores on the way.
    pub(super) path: Vec<ValueId>,
}

/// How scores are masked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mask {
    /// An `Add` of a mask to scores.
    Added { node: NodeId, scores: ValueId, mask: ValueId },
    /// A `Where` that fills in a number.
    Filled { node: NodeId, slot: usize },
}

/// The masks that a `Softmax` along the last axis reads; nothing where there are none.
pub(super) fn masked(graph: &Graph, softmax: NodeId) -> Option<Masked> {
    let node = graph.node(softmax);
    let value = node.input(0).filter(|_| node.is("Softmax") && node.domain().is_empty())?;
    let last = match node.int_or("axis", -1) {
        -1 => true,
        axis => graph.value(value).shape().is_some_and(|s| axis_of(axis, s.len()) == s.len().checked_sub(1)),
    };
    let (mut masks, mut path, mut at) = (Vec::new(), Vec::new(), value);
    while let Some((id, _)) = graph.value(at).producer().filter(|_| last) {
        let producer = graph.node(id);
        path.push(at);
        at = match mask_of(graph, id, producer) {
            Some(mask) => {
                masks.push(mask);
                match mask {
                    Mask::Added { scores, .. } => scores,
                    Mask::Filled { slot, .. } => producer.input(3 - slot)?,
                }
            }
            None if matches!(producer.op(), "Reshape" | "Identity") => producer.input(0)?,
            None => break,
        };
    }
    // What lies before the first mask may be read by anybody.
    let masking =
        |&value: &ValueId| graph.value(value).producer().is_some_and(|(id, _)| masks.iter().any(|m| m.node() == id));
    let count = path.iter().rposition(masking)? + 1;
    path.truncate(count);
    Some(Masked { softmax, value, masks, path })
}

impl Mask {
    fn node(self) -> NodeId {
        match self {
            Self::Added { node, .. } | Self::Filled { node, .. } => node,
        }
    }
}

fn mask_of(graph: &Graph, id: NodeId, node: &Node) -> Option<Mask> {
    if !node.domain().is_empty() {
        return None;
    }
    match node.op() {
        "Add" => {
            let [a, b] = node.two_inputs()?;
            let added = |scores: ValueId, mask: ValueId| {
                let dynamic = graph.constant(scores).is_none();
                (dynamic && is_mask(graph, mask, DEPTH)).then_some(Mask::Added { node: id, scores, mask })
            };
            added(a, b).or_else(|| added(b, a))
        }
        "Where" => [1, 2].into_iter().find_map(|slot| {
            let (scores, fill) = (node.input(3 - slot)?, graph.constant(node.input(slot)?)?);
            let axes = fill.shape().ok()?.len();
            let adds_none = axes <= 1 || graph.value(scores).shape().is_some_and(|shape| shape.len() >= axes);
            let dynamic = graph.constant(scores).is_none();
            (dynamic && adds_none && fill.scalar_f32()? <= LEAST).then_some(Mask::Filled { node: id, slot })
        }),
        _ => None,
    }
}

/// Whether every element of a value is 0 or leaves its position out.
fn is_mask(graph: &Graph, value: ValueId, depth: usize) -> bool {
    if let Some(tensor) = graph.constant(value) {
        let elements =
            |values: Vec<f32>| values.iter().all(|&v| v == 0.0 || v <= LEAST) && values.iter().any(|&v| v != 0.0);
        return tensor.to_f32().is_ok_and(elements);
    }
    let Some((id, _)) = graph.value(value).producer() else { return false };
    let node = graph.node(id);
    let read = |slot: usize| node.input(slot);
    let (true, Some(depth)) = (node.domain().is_empty(), depth.checked_sub(1)) else { return false };
    let masks = |slot: usize| read(slot).is_some_and(|value| is_mask(graph, value, depth));
    let huge = |slot: usize| read(slot).is_some_and(|value| is_huge(graph, value, depth));
    let flags = |slot: usize| read(slot).is_some_and(|value| flag(graph, value, depth).is_some());
    match node.op() {
        "Where" => {
            let leaves_out = |slot: usize| masks(slot) || huge(slot);
            let zero = |slot: usize| read(slot).is_some_and(|value| is_number(graph, value, |v| v == 0.0));
            let fits = |slot: usize| leaves_out(slot) || zero(slot) || flags(slot);
            fits(1) && fits(2) && (leaves_out(1) || leaves_out(2))
        }
        "Mul" => [(0, 1), (1, 0)].into_iter().any(|(flag_slot, factor)| {
            let sign = read(flag_slot).and_then(|value| flag(graph, value, depth));
            let by = |wanted: fn(f32) -> bool| read(factor).is_some_and(|value| is_number(graph, value, wanted));
            match sign {
                Some(Flag::Positive) => by(|v| v <= LEAST),
                Some(Flag::Negative) => by(|v| v >= -LEAST),
                None => false,
            }
        }),
        "Add" | "Min" => node.two_inputs().is_some() && masks(0) && masks(1),
        // A lower bound for what several masks add up to.
        "Max" => node.two_inputs().is_some() && ((masks(0) && huge(1)) || (masks(1) && huge(0))),
        "Trilu" => huge(0) || masks(0),
        op if MOVES.contains(&op) => masks(0),
        _ => false,
    }
}

/// Whether every element of a value leaves its position out.
fn is_huge(graph: &Graph, value: ValueId, depth: usize) -> bool {
    if graph.constant(value).is_some() {
        return is_number(graph, value, |v| v <= LEAST);
    }
    let Some((id, _)) = graph.value(value).producer() else { return false };
    let (node, Some(depth)) = (graph.node(id), depth.checked_sub(1)) else { return false };
    match node.op() {
        "ConstantOfShape" => node.tensor("value").and_then(TensorProto::scalar_f32).is_some_and(|v| v <= LEAST),
        op if MOVES.contains(&op) => node.input(0).is_some_and(|value| is_huge(graph, value, depth)),
        _ => false,
    }
}

/// Whether all elements of a constant are such numbers.
fn is_number(graph: &Graph, value: ValueId, fits: fn(f32) -> bool) -> bool {
    let elements = graph.constant(value).and_then(|tensor| tensor.to_f32().ok());
    elements.is_some_and(|elements| !elements.is_empty() && elements.into_iter().all(fits))
}

/// What a value is that is 0 or a number of magnitude 1.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flag {
    /// 0 or 1.
    Positive,
    /// 0 or −1.
    Negative,
}

/// 1 − m, m − 1, or a condition as a number. Integers among the inputs that are subtracted so are flags.
fn flag(graph: &Graph, value: ValueId, depth: usize) -> Option<Flag> {
    let (id, _) = graph.value(value).producer()?;
    let (node, depth) = (graph.node(id), depth.checked_sub(1)?);
    let one = |slot: usize| node.input(slot).is_some_and(|value| is_number(graph, value, |v| v == 1.0));
    match node.op() {
        "Sub" if one(0) => Some(Flag::Positive),
        "Sub" if one(1) => Some(Flag::Negative),
        "Cast" if is_condition(graph, node.input(0)?, depth) => Some(Flag::Positive),
        op if MOVES.contains(&op) => flag(graph, node.input(0)?, depth),
        _ => None,
    }
}

fn is_condition(graph: &Graph, value: ValueId, depth: usize) -> bool {
    if graph.value(value).element_type() == Some(DataType::Bool) {
        return true;
    }
    let Some((id, _)) = graph.value(value).producer() else { return false };
    let (node, Some(depth)) = (graph.node(id), depth.checked_sub(1)) else { return false };
    match node.op() {
        "And" | "Or" | "Not" | "Xor" | "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" => true,
        "Cast" => node.int("to") == Some(i64::from(DataType::Bool.number())),
        op if MOVES.contains(&op) => node.input(0).is_some_and(|value| is_condition(graph, value, depth)),
        _ => false,
    }
}
