//! Pass `fuse-gelu`: a Gelu that is written out becomes `Gelu`.
//!
//! gelu(x) = ½·x·(1 + erf(x/√2)) (Hendrycks and Gimpel, arXiv 1606.08415), in any order of the three factors:
//!
//! ```text
//! y = Mul(Mul(x, Add(Erf(Div(x, √2)), 1)), ½)     becomes   y = Gelu(x)
//! ```
//!
//! The division may be a product with 1/√2, the product with ½ a division by 2. Constants may differ from these numbers by
//! a ten-thousandth, which is what half precision leaves of them. Targets with an integer kernel for `Gelu` have none for
//! `Erf`, and one quantizer behind the whole loses less than five inside it.
//!
//! Declined: values in between that somebody else needs, values not known to be float32, operator sets before 20, which have
//! no `Gelu`. Left alone: the form with a hyperbolic tangent.

use crate::analysis::element_types::element_types;
use crate::ir::{DataType, Graph, Model, NodeId, NodeProto, ValueId};
use crate::pass::{Found, Outcome, Pass, PassError, Rewrite, in_turn};

/// How far, relatively, a constant may be from what it stands for.
const TOLERANCE: f32 = 1e-4;

/// Writes a Gelu of five nodes as one.
#[derive(Clone, Copy, Debug, Default)]
pub struct FuseGelu;

impl FuseGelu {
    /// The first operator set with `Gelu`.
    pub const LOWEST_OPSET: i64 = 20;

    /// Whether a model has something to fuse, whatever its operator set.
    pub fn applies(model: &Model) -> bool {
        let graph = &model.graph;
        graph.node_ids().any(|id| site(graph, id).is_some_and(|site| is_float(graph, site.x)))
    }
}

impl Pass for FuseGelu {
    fn name(&self) -> &'static str {
        "fuse-gelu"
    }

    fn about(&self) -> &'static str {
        "a Gelu that is written out becomes one node"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let nodes = model.graph.node_ids().collect();
        in_turn(model, nodes, found)
    }
}

fn found(model: &Model, erf: NodeId) -> Found {
    let graph = &model.graph;
    let Some(Site { x, nodes, values, last }) = site(graph, erf) else { return Ok(None) };
    if !is_float(graph, x) {
        return Err("its input is not known to be float32".into());
    }
    if model.opset("").is_none_or(|opset| opset < FuseGelu::LOWEST_OPSET) {
        return Err("`Gelu` is in operator set 20 and later".into());
    }
    let mut rewrite = nodes.into_iter().fold(Rewrite::of(erf), Rewrite::and);
    rewrite = values.into_iter().fold(rewrite, Rewrite::private);
    let constants: Vec<ValueId> = constants(graph, &rewrite, x);
    let node = graph.node(last);
    rewrite = rewrite.dropping(constants);
    rewrite.node(NodeProto::of("Gelu", node.label(graph), Vec::new()), &[x.into()], node.output(0));
    Ok(Some(rewrite))
}

fn is_float(graph: &Graph, value: ValueId) -> bool {
    element_types(graph).get(&value) == Some(&DataType::Float)
}

/// The constants that replaced nodes read.
fn constants(graph: &Graph, rewrite: &Rewrite, x: ValueId) -> Vec<ValueId> {
    let read = rewrite.replaced().iter().flat_map(|&id| graph.node(id).inputs().iter().flatten().copied());
    read.filter(|&value| value != x && graph.constant(value).is_some()).collect()
}

/// A Gelu that is written out.
struct Site {
    x: ValueId,
    /// Its nodes beside `Erf`.
    nodes: Vec<NodeId>,
    /// The values between its nodes.
    values: Vec<ValueId>,
    /// The node that writes its result.
    last: NodeId,
}

fn site(graph: &Graph, erf: NodeId) -> Option<Site> {
    let node = graph.node(erf);
    if !node.is("Erf") || !node.domain().is_empty() {
        return None;
    }
    let (scaled, error) = (node.input(0)?, node.output(0)?);
    let (inner, x) = times(graph, scaled, std::f32::consts::FRAC_1_SQRT_2)?;
    let add = graph.only_use(error)?.node;
    let shifted = graph.node(add).output(0).filter(|_| graph.node(add).is("Add"))?;
    let other = other_operand(graph, add, error)?;
    number(graph, other).filter(|&one| near(one, 1.0))?;
    let (mut nodes, mut values) = (vec![inner, add], vec![scaled, error, shifted]);
    let product = graph.only_use(shifted)?.node;
    let factor = other_operand(graph, product, shifted).filter(|_| graph.node(product).is("Mul"))?;
    let result = graph.node(product).output(0)?;
    nodes.push(product);
    let last = if let Some((half, _)) = times(graph, factor, 0.5).filter(|&(_, halved)| halved == x) {
        nodes.push(half);
        values.push(factor);
        product
    } else {
        let next = graph.only_use(result)?.node;
        let halves = |&next: &NodeId| Some(times(graph, graph.node(next).output(0)?, 0.5)?.1 == result);
        let multiplies = graph.node(next).is("Mul") && other_operand(graph, next, result) == Some(x);
        let fits = if factor == x {
            halves(&next) == Some(true)
        } else {
            multiplies && number(graph, factor).is_some_and(|half| near(half, 0.5))
        };
        if !fits {
            return None;
        }
        nodes.push(next);
        values.push(result);
        next
    };
    Some(Site { x, nodes, values, last })
}

/// The node that computes a value as a product with this number, or as a division by its reciprocal, and what it
/// multiplies.
fn times(graph: &Graph, value: ValueId, factor: f32) -> Option<(NodeId, ValueId)> {
    let (id, _) = graph.value(value).producer()?;
    let node = graph.node(id);
    let [a, b] = node.two_inputs()?;
    match (node.op(), number(graph, a), number(graph, b)) {
        ("Mul", None, Some(k)) if near(k, factor) => Some((id, a)),
        ("Mul", Some(k), None) if near(k, factor) => Some((id, b)),
        ("Div", None, Some(k)) if near(k, factor.recip()) => Some((id, a)),
        _ => None,
    }
}

fn other_operand(graph: &Graph, node: NodeId, one: ValueId) -> Option<ValueId> {
    let [a, b] = graph.node(node).two_inputs()?;
    if a == one { Some(b) } else { Some(a) }
}

fn near(number: f32, wanted: f32) -> bool {
    (number / wanted - 1.0).abs() <= TOLERANCE
}

/// A single number that adds no axes.
fn number(graph: &Graph, value: ValueId) -> Option<f32> {
    let tensor = graph.constant(value)?;
    (tensor.shape().ok()?.len() <= 1).then(|| tensor.scalar_f32()).flatten()
}
