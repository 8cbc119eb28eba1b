//! Pass `fuse-layer-norm`: a layer normalization that is written out becomes `LayerNormalization`.
//!
//! y = γ·(x − μ)/√(σ² + ε) + β with μ the mean of x and σ² that of (x − μ)², over the last axis (Ba et al., arXiv
//! 1607.06450):
//!
//! ```text
//! d = Sub(x, ReduceMean(x))
//! y = Add(Mul(Div(d, Sqrt(Add(ReduceMean(Pow(d, 2)), ε))), γ), β)     becomes   y = LayerNormalization(x, γ, β)
//! ```
//!
//! The square may be a product of d with itself, d may be computed twice, and β may be missing. Targets with an integer
//! kernel for the whole need one quantizer in front of it and one behind. Between its nodes nine would stand, and no
//! quantizer of 8 bits holds squares.
//!
//! Declined: values in between that somebody else needs, values not known to be float32, means over other axes, a scale or
//! an offset that is no vector over the last axis, operator sets before 17, which have no `LayerNormalization`.

use crate::analysis::element_types::element_types;
use crate::ir::{AttributeProto, DataType, Graph, Model, Node, NodeId, NodeProto, TensorProto, ValueId};
use crate::pass::{Found, Operand, Outcome, Pass, PassError, Rewrite, in_turn};

/// Writes a layer normalization of nine nodes as one.
#[derive(Clone, Copy, Debug, Default)]
pub struct FuseLayerNorm;

impl FuseLayerNorm {
    /// The first operator set with `LayerNormalization`.
    pub const LOWEST_OPSET: i64 = 17;

    /// Whether a model has something to fuse, whatever its operator set.
    pub fn applies(model: &Model) -> bool {
        model.graph.node_ids().any(|id| matches!(described(model, id), Ok(Some(_))))
    }
}

impl Pass for FuseLayerNorm {
    fn name(&self) -> &'static str {
        "fuse-layer-norm"
    }

    fn about(&self) -> &'static str {
        "a layer normalization that is written out becomes one node"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let nodes = model.graph.node_ids().collect();
        in_turn(model, nodes, |model, id| {
            let found = described(model, id)?;
            let old = model.opset("").is_none_or(|opset| opset < Self::LOWEST_OPSET);
            if found.is_some() && old {
                return Err("`LayerNormalization` is in operator set 17 and later".into());
            }
            Ok(found)
        })
    }
}

/// A normalization without its scale and offset.
struct Site {
    x: ValueId,
    epsilon: f32,
    /// The nodes, the division among them.
    nodes: Vec<NodeId>,
    /// The means.
    means: [NodeId; 2],
}

fn described(model: &Model, division: NodeId) -> Found {
    let graph = &model.graph;
    let Some(site) = site(graph, division) else { return Ok(None) };
    if element_types(graph).get(&site.x) != Some(&DataType::Float) {
        return Err("its input is not known to be float32".into());
    }
    let rank = graph.value(site.x).shape().map(|shape| shape.len());
    if !site.means.iter().all(|&mean| is_over_last_axis(graph, graph.node(mean), rank)) {
        return Err("its means are over other axes than the last".into());
    }
    let Some(normal) = graph.node(division).output(0) else { return Ok(None) };
    let (scaling, scale, scaled) = affine(graph, normal, "Mul").ok_or("no product with a constant vector follows")?;
    let channels = vector(scale, rank).ok_or("its scale is no vector over the last axis")?;
    let known = graph.value(site.x).shape().and_then(|shape| *shape.last()?);
    if known.is_some_and(|known| known != channels) {
        return Err("its scale is no vector over the last axis".into());
    }
    let mut nodes = site.nodes;
    nodes.push(scaling);
    let stem = graph.value(scaled).name().to_owned();
    let mut last = scaling;
    let mut offset = None;
    if let Some((adding, tensor, _)) = affine(graph, scaled, "Add").filter(|_| graph.only_use(scaled).is_some())
        && vector(tensor, rank) == Some(channels)
    {
        nodes.push(adding);
        (last, offset) = (adding, Some(tensor));
    }
    let mut rewrite = Rewrite::of(nodes[0]);
    rewrite = nodes[1..].iter().fold(rewrite, |rewrite, &node| rewrite.and(node));
    let inner = nodes.iter().filter(|&&node| node != last).filter_map(|&node| graph.node(node).output(0));
    let inner: Vec<ValueId> = inner.collect();
    if let Some(reason) = inner.iter().find_map(|&value| needed_elsewhere(graph, value, &nodes)) {
        return Err(reason.into());
    }
    let read = nodes.iter().flat_map(|&node| graph.node(node).inputs().iter().flatten().copied());
    rewrite = rewrite.dropping(inner).dropping(read.filter(|&value| graph.constant(value).is_some()));
    let mut constant = |role: &str, tensor: &TensorProto| -> Result<Operand, crate::ir::TensorError> {
        let values = tensor.to_f32()?;
        Ok(rewrite.constant(TensorProto::from_f32(&format!("{stem}_{role}"), &[channels], &values)))
    };
    let mut operands = vec![Operand::from(site.x), constant("scale", scale)?];
    if let Some(offset) = offset {
        operands.push(constant("offset", offset)?);
    }
    let attributes = vec![AttributeProto::int("axis", -1), AttributeProto::float("epsilon", site.epsilon)];
    let node = graph.node(last);
    rewrite.node(NodeProto::of("LayerNormalization", node.label(graph), attributes), &operands, node.output(0));
    Ok(Some(rewrite))
}

fn site(graph: &Graph, division: NodeId) -> Option<Site> {
    let node = graph.node(division);
    let [deviation, root] = node.two_inputs().filter(|_| node.is("Div"))?;
    let (sqrt, shifted) = producer(graph, root, "Sqrt")?;
    let (add, _) = producer(graph, shifted, "Add")?;
    let [a, b] = graph.node(add).two_inputs()?;
    let number = |value: ValueId| graph.constant(value)?.scalar_f32();
    let (variance, epsilon) = match (number(a), number(b)) {
        (None, Some(epsilon)) => (a, epsilon),
        (Some(epsilon), None) => (b, epsilon),
        _ => return None,
    };
    let (of_squares, square) = producer(graph, variance, "ReduceMean")?;
    let (squaring, squared) = squared(graph, square)?;
    let (x, of_x, subtraction) = deviation_of(graph, deviation)?;
    let (other, other_mean, again) = deviation_of(graph, squared)?;
    if other != x {
        return None;
    }
    let mut nodes = vec![division, sqrt, add, of_squares, squaring];
    for node in [subtraction, again, of_x, other_mean] {
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }
    // Where both deviations have means of their own, the one is as good as the other only over the same axis.
    let same = of_x == other_mean || {
        let rank = graph.value(x).shape().map(|shape| shape.len());
        is_over_last_axis(graph, graph.node(other_mean), rank)
    };
    (epsilon >= 0.0 && same).then_some(Site { x, epsilon, nodes, means: [of_x, of_squares] })
}

/// The node of this operator that computes a value, and its first input.
fn producer(graph: &Graph, value: ValueId, op: &str) -> Option<(NodeId, ValueId)> {
    let (id, _) = graph.value(value).producer()?;
    let node = graph.node(id);
    (node.is(op) && node.domain().is_empty()).then_some((id, node.input(0)?))
}

/// The node that squares, and what it squares.
fn squared(graph: &Graph, square: ValueId) -> Option<(NodeId, ValueId)> {
    if let Some((power, base)) = producer(graph, square, "Pow") {
        let exponent = graph.node(power).input(1).and_then(|value| graph.constant(value))?;
        let two = exponent.scalar_f32().or_else(|| Some(exponent.to_i64().ok()?.first().copied()? as f32));
        return (two == Some(2.0) && exponent.element_count() == Ok(1)).then_some((power, base));
    }
    let (product, factor) = producer(graph, square, "Mul")?;
    (graph.node(product).two_inputs()? == [factor; 2]).then_some((product, factor))
}

/// x, the node that takes its mean, and the one that subtracts it.
fn deviation_of(graph: &Graph, value: ValueId) -> Option<(ValueId, NodeId, NodeId)> {
    let (subtraction, x) = producer(graph, value, "Sub")?;
    let (mean, averaged) = producer(graph, graph.node(subtraction).input(1)?, "ReduceMean")?;
    (averaged == x).then_some((x, mean, subtraction))
}

/// Whether a `ReduceMean` is over the last axis alone, which it keeps.
fn is_over_last_axis(graph: &Graph, node: &Node, rank: Option<usize>) -> bool {
    let listed = node.input(1).and_then(|axes| graph.constant(axes)?.to_i64().ok());
    let axes = listed.unwrap_or_else(|| node.ints("axes").to_vec());
    let last = |axis: i64| axis == -1 || rank.is_some_and(|rank| axis + 1 == rank as i64);
    node.int_or("keepdims", 1) != 0 && matches!(axes[..], [axis] if last(axis))
}

/// The node that multiplies with, or adds, a constant, with that constant and its own output: of a value that it alone
/// reads.
fn affine<'a>(graph: &'a Graph, value: ValueId, op: &str) -> Option<(NodeId, &'a TensorProto, ValueId)> {
    let reader = graph.value(value).uses().iter().find(|reader| graph.node(reader.node).is(op))?;
    let node = graph.node(reader.node);
    let other = node.two_inputs()?[1 - reader.slot];
    Some((reader.node, graph.constant(other)?, node.output(0)?))
}

/// The length of a vector over the last axis; axes of 1 in front of it must not be more than there are.
fn vector(tensor: &TensorProto, rank: Option<usize>) -> Option<usize> {
    let shape = tensor.shape().ok()?;
    let (&length, before) = shape.split_last()?;
    let fits = before.iter().all(|&size| size == 1) && (before.is_empty() || rank.is_some_and(|r| shape.len() <= r));
    (tensor.element_type() == Some(DataType::Float) && fits).then_some(length)
}

/// Who besides these nodes needs a value.
fn needed_elsewhere(graph: &Graph, value: ValueId, nodes: &[NodeId]) -> Option<String> {
    let (entry, name) = (graph.value(value), graph.value(value).name());
    if graph.is_output(value) {
        return Some(format!("`{name}` is a graph output"));
    }
    if !entry.captures().is_empty() {
        return Some(format!("a sub-graph reads `{name}`"));
    }
    let other = entry.uses().iter().find(|reader| !nodes.contains(&reader.node))?;
    Some(format!("`{name}` is read by `{}` too", graph.node(other.node).label(graph)))
}
