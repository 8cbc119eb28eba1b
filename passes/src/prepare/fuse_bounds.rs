//! Pass `fuse-bounds`: `Max` and `Min` with a constant number become `Clip`, several in a row one.
//!
//! ```text
//! y = Min(Max(x, 0), 6)     becomes   y = Clip(x, 0, 6)
//! y = Max(x, 0)             becomes   y = Relu(x)
//! ```
//!
//! With clip(x, l, h) = min(max(x, l), h):
//!
//! * max(clip(x, l, h), c) = clip(x, max(l, c), max(h, c)),
//! * min(clip(x, l, h), c) = clip(x, min(l, c), min(h, c)),
//!
//! for `Relu` with l = 0 and h = ∞, and for a plain x with bounds at infinity. Both hold for any bounds and exactly. Keras and
//! others write rectifiers so; quantizers stand for a `Clip` from zero, but for no `Min`. A `Relu` or `Clip` in between
//! that others read as well stays, and the bound alone becomes a `Clip`.
//!
//! Declined: values not known to be float32, constants of several numbers, or that add axes, and NaN. Not changed: operators
//! that the caller wants left in float. Before opset 11 the bounds of `Clip` are attributes.

use crate::analysis::element_types::element_types;
use crate::ir::{AttributeProto, DataType, Graph, Model, Node, NodeId, NodeProto, TensorProto, ValueId};
use crate::pass::{Found, Operand, Outcome, Pass, PassError, Rewrite, in_turn};

/// Writes `Max` and `Min` with constants as `Clip`.
#[derive(Clone, Copy, Debug, Default)]
pub struct FuseBounds;

impl Pass for FuseBounds {
    fn name(&self) -> &'static str {
        "fuse-bounds"
    }

    fn about(&self) -> &'static str {
        "Max and Min with a constant become Clip"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let has_inputs = model.opset("").is_none_or(|opset| opset >= 11);
        let nodes = model.graph.node_ids().collect();
        in_turn(model, nodes, |model, id| {
            let node = model.graph.node(id);
            if !node.domain().is_empty() {
                return Ok(None);
            }
            found(model, id, has_inputs)
        })
    }
}

/// The ends of an interval.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bounds {
    low: f32,
    high: f32,
}

impl Bounds {
    const NONE: Self = Self { low: f32::NEG_INFINITY, high: f32::INFINITY };
}

fn found(model: &Model, id: NodeId, has_inputs: bool) -> Found {
    let graph = &model.graph;
    let node = graph.node(id);
    let limit: fn(f32, f32) -> f32 = match node.op() {
        "Max" => f32::max,
        "Min" => f32::min,
        _ => return Ok(None),
    };
    let Some([a, b]) = node.two_inputs() else { return Ok(None) };
    let (value, bound) = match (graph.constant(a), graph.constant(b)) {
        (None, Some(bound)) => (a, bound),
        (Some(bound), None) => (b, bound),
        _ => return Ok(None),
    };
    if element_types(graph).get(&value) != Some(&DataType::Float) {
        return Err("its input is not known to be float32".into());
    }
    let number = bound.scalar_f32().filter(|number| !number.is_nan()).ok_or("its constant is not one number")?;
    let inner = inner(graph, value);
    // A bound keeps the shape of what it reads.
    let values = [Some(value), inner.map(|(_, read, _)| read)];
    let rank = values.into_iter().flatten().find_map(|value| Some(graph.value(value).shape()?.len()));
    let axes = bound.shape()?.len();
    if axes > 0 && rank.is_none_or(|rank| axes > rank) {
        return Err("its constant may add axes".into());
    }
    let mut rewrite = Rewrite::of(id);
    let (read, inner) = match inner {
        Some((inner, read, bounds)) => {
            rewrite = rewrite.and(inner).private(value);
            (read, bounds)
        }
        None => (value, Bounds::NONE),
    };
    let bounds = Bounds { low: limit(inner.low, number), high: limit(inner.high, number) };
    write(graph, node, &mut rewrite, read, bounds, has_inputs);
    Ok(Some(rewrite))
}

/// The bounds that a value has already by a node that nobody else needs, and what that node reads.
fn inner(graph: &Graph, value: ValueId) -> Option<(NodeId, ValueId, Bounds)> {
    graph.only_use(value)?;
    let (id, _) = graph.value(value).producer()?;
    let node = graph.node(id);
    let read = node.input(0)?;
    if node.is("Relu") {
        return Some((id, read, Bounds { low: 0.0, ..Bounds::NONE }));
    }
    let bound = |slot: usize, name: &str, open: f32| match node.input(slot) {
        Some(value) => graph.constant(value)?.scalar_f32().filter(|number| !number.is_nan()),
        None => Some(node.float_or(name, open)),
    };
    let is_clip = node.is("Clip") && node.domain().is_empty();
    let low = bound(1, "min", f32::NEG_INFINITY).filter(|_| is_clip)?;
    let high = bound(2, "max", f32::INFINITY)?;
    // Bounds that cross make a constant of everything, in one of two ways.
    (low <= high).then_some((id, read, Bounds { low, high }))
}

fn write(graph: &Graph, node: &Node, rewrite: &mut Rewrite, read: ValueId, bounds: Bounds, has_inputs: bool) {
    let (name, output) = (node.label(graph), node.output(0));
    let Bounds { low, high } = bounds;
    if low == 0.0 && high == f32::INFINITY {
        rewrite.node(NodeProto::of("Relu", name, Vec::new()), &[read.into()], output);
        return;
    }
    let stem = output.map_or(name, |value| graph.value(value).name()).to_owned();
    let ends = [("low", "min", low), ("high", "max", high)].map(|end| Some(end).filter(|end| end.2.is_finite()));
    if !has_inputs {
        let attributes = ends.into_iter().flatten().map(|(_, name, end)| AttributeProto::float(name, end)).collect();
        rewrite.node(NodeProto::of("Clip", name, attributes), &[read.into()], output);
        return;
    }
    let mut operands = vec![Operand::from(read)];
    operands.extend(ends.map(|end| match end {
        Some((end, _, value)) => rewrite.constant(TensorProto::from_f32(&format!("{stem}_{end}"), &[], &[value])),
        None => Operand::Absent,
    }));
    while operands.last() == Some(&Operand::Absent) {
        operands.pop();
    }
    rewrite.node(NodeProto::of("Clip", name, Vec::new()), &operands, output);
}
