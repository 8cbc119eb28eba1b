//! Pass `rewrite-activations`: piecewise linear activations become `Add`, `Clip` and `Mul`.
//!
//! * `HardSigmoid`: clip(αx + β, 0, 1) = α·clip(x + β/α, 0, 1/α), for α > 0.
//! * `HardSwish`: x·clip(x/6 + ½, 0, 1) = (x·clip(x + 3, 0, 6))·⅙.
//! * `PRelu` with one slope for all elements, which is finite: `LeakyRelu`, the same function, which has integer kernels and
//!   which convolutions take in.
//! * `Swish`: x·σ(αx), that is `Mul(x, Sigmoid(Mul(x, α)))`; the inner `Mul` only for α ≠ 1.
//!
//! Exporters spell these out in several ways. With a gate g = clip(x + c, 0, h), written as `Clip` behind `Add` of
//! constants, and a positive constant k:
//!
//! * x·(g/k) and x·(g·m) become (x·g)·(1/k) and (x·g)·m when only that product reads the inner one; so does
//!   x·`HardSigmoid`(x);
//! * what else divides g or x·g by k multiplies it by 1/k.
//!
//! Integer kernels exist for `Add`, `Clip` and `Mul` but not for the fused operators and not for `Div`; the constant
//! comes last because there the next layer's weights can take it in. Results differ by rounding only. Before opset 11
//! the bounds of `Clip` are attributes.
//!
//! Declined: values not known to be float32, α ≤ 0, divisors that are not one positive constant.

use crate::analysis::element_types::element_types;
use crate::ir::{AttributeProto, DataType, Graph, Model, Node, NodeId, NodeProto, TensorProto, ValueId};
use crate::pass::{Operand, Outcome, Pass, PassError, Plan, Rewrite};

/// Writes activations with operators that have integer kernels.
#[derive(Clone, Copy, Debug, Default)]
pub struct RewriteActivations;

impl Pass for RewriteActivations {
    fn name(&self) -> &'static str {
        "rewrite-activations"
    }

    fn about(&self) -> &'static str {
        "piecewise linear activations become Add, Clip and Mul"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let types = element_types(&model.graph);
        let clip_has_inputs = model.opset("").is_none_or(|opset| opset >= 11);
        let graph = &model.graph;
        let mut plan = Plan::default();
        for (id, node) in graph.nodes().filter(|(_, n)| n.domain().is_empty()) {
            let float = node.input(0).and_then(|v| types.get(&v)) == Some(&DataType::Float);
            let found = match site(graph, id, node) {
                Ok(Some(_)) if !float => Err("its input is not known to be float32".into()),
                Ok(site) => Ok(site.map(|site| Writer::new(graph, id, clip_has_inputs).written(site))),
                Err(reason) => Err(reason.into()),
            };
            plan.add(graph, node.label(graph), found)?;
        }
        Ok(plan.apply(&mut model.graph))
    }
}

/// What a node becomes.
enum Site {
    /// x where x ≥ 0, and αx elsewhere.
    Leaky { x: ValueId, alpha: f32 },
    /// x·σ(αx).
    Swish { x: ValueId, alpha: f32 },
    /// value·factor.
    Scaled { value: Factor, factor: TensorProto },
    /// (x·gate)·factor, which is what `last` computes; it may be the node itself.
    Gated { x: ValueId, gate: Factor, factor: TensorProto, last: NodeId },
}

/// A value there is, or the gate clip(x + shift, 0, high) still to be written.
#[derive(Clone, Copy)]
enum Factor {
    Value(ValueId),
    Gate { x: ValueId, shift: f32, high: f32 },
}

fn site(graph: &Graph, id: NodeId, node: &Node) -> Result<Option<Site>, &'static str> {
    let (Some(x), Some(output)) = (node.input(0), node.output(0)) else { return Ok(None) };
    match node.op() {
        "Swish" => Ok(Some(Site::Swish { x, alpha: node.float_or("alpha", 1.0) })),
        "HardSwish" => {
            let gate = Factor::Gate { x, shift: 3.0, high: 6.0 };
            Ok(Some(Site::Gated { x, gate, factor: scalar(1.0 / 6.0), last: id }))
        }
        "HardSigmoid" => {
            let (alpha, beta) = (f64::from(node.float_or("alpha", 0.2)), f64::from(node.float_or("beta", 0.5)));
            if alpha <= 0.0 {
                return Err("its alpha is not positive");
            }
            let gate = Factor::Gate { x, shift: (beta / alpha) as f32, high: (1.0 / alpha) as f32 };
            Ok(Some(scaled(graph, output, x, gate, scalar(alpha))))
        }
        "PRelu" => Ok(one_slope(graph, node).map(|alpha| Site::Leaky { x, alpha })),
        "Div" => divided(graph, node, output),
        "Mul" => Ok(multiplied(graph, node, output)),
        _ => Ok(None),
    }
}

/// The slope of a `PRelu` that has the same for all elements.
fn one_slope(graph: &Graph, node: &Node) -> Option<f32> {
    let slopes = graph.constant(node.input(1)?)?.to_f32().ok()?;
    let &first = slopes.first().filter(|slope| slope.is_finite())?;
    slopes.iter().all(|slope| slope.to_bits() == first.to_bits()).then_some(first)
}

fn scalar(value: f64) -> TensorProto {
    TensorProto::from_f32("", &[], &[value as f32])
}

/// value/k with a gate, or a product of one with its own input, as the value.
fn divided(graph: &Graph, node: &Node, output: ValueId) -> Result<Option<Site>, &'static str> {
    let Some([value, divisor]) = node.two_inputs() else { return Ok(None) };
    let gated = gated_by(graph, value);
    if gated.is_none() && !is_gated_product(graph, value) {
        return Ok(None);
    }
    let tensor = graph.constant(divisor).ok_or("its divisor is not constant")?;
    let k = tensor.scalar_f32().filter(|&k| k > 0.0).ok_or("its divisor is not one positive number")?;
    let shape = tensor.shape().map_err(|_| "its divisor is damaged")?;
    let factor = tensor.with_f32(&shape, &[(1.0 / f64::from(k)) as f32]);
    Ok(Some(match gated {
        Some(x) => scaled(graph, output, x, Factor::Value(value), factor),
        None => Site::Scaled { value: Factor::Value(value), factor },
    }))
}

/// gate·m where the product with the gate's own input follows; every other product is fine as it is.
fn multiplied(graph: &Graph, node: &Node, output: ValueId) -> Option<Site> {
    let [a, b] = node.two_inputs()?;
    let (gate, factor) = if graph.constant(b).is_some() { (a, b) } else { (b, a) };
    let factor = graph.constant(factor).filter(|t| t.scalar_f32().is_some())?.clone();
    let x = gated_by(graph, gate)?;
    let last = product_with(graph, output, x)?;
    Some(Site::Gated { x, gate: Factor::Value(gate), factor, last })
}

/// gate·factor, or (x·gate)·factor when the product with x is all that reads `output`.
fn scaled(graph: &Graph, output: ValueId, x: ValueId, gate: Factor, factor: TensorProto) -> Site {
    match product_with(graph, output, x) {
        Some(last) => Site::Gated { x, gate, factor, last },
        None => Site::Scaled { value: gate, factor },
    }
}

/// The node that multiplies `value` with `x` if nothing else reads it.
fn product_with(graph: &Graph, value: ValueId, x: ValueId) -> Option<NodeId> {
    let only = graph.only_use(value)?;
    let product = graph.node(only.node);
    let factors = product.two_inputs().filter(|_| product.is("Mul"))?;
    (factors[1 - only.slot] == x).then_some(only.node)
}

/// x if the value is clip(x + c, 0, h) with constants c and h.
fn gated_by(graph: &Graph, value: ValueId) -> Option<ValueId> {
    let clip = producer(graph, value, "Clip")?;
    let bound = |slot, name| match clip.input(slot) {
        Some(value) => number(graph, value),
        None => clip.attribute(name)?.f,
    };
    if bound(1, "min") != Some(0.0) || bound(2, "max").is_none() {
        return None;
    }
    let sum = producer(graph, clip.input(0)?, "Add")?;
    let [a, b] = sum.two_inputs()?;
    match (number(graph, a), number(graph, b)) {
        (None, Some(_)) => Some(a),
        (Some(_), None) => Some(b),
        _ => None,
    }
}

fn is_gated_product(graph: &Graph, value: ValueId) -> bool {
    let Some(product) = producer(graph, value, "Mul") else { return false };
    let Some([a, b]) = product.two_inputs() else { return false };
    gated_by(graph, a) == Some(b) || gated_by(graph, b) == Some(a)
}

fn producer<'a>(graph: &'a Graph, value: ValueId, op: &str) -> Option<&'a Node> {
    let (node, _) = graph.value(value).producer()?;
    Some(graph.node(node)).filter(|n| n.is(op))
}

fn number(graph: &Graph, value: ValueId) -> Option<f32> {
    graph.constant(value)?.scalar_f32()
}

/// Describes the rewrite of one site.
struct Writer<'a> {
    graph: &'a Graph,
    node: NodeId,
    rewrite: Rewrite,
    /// What the values made are named after.
    stem: String,
    clip_has_inputs: bool,
}

impl<'a> Writer<'a> {
    fn new(graph: &'a Graph, node: NodeId, clip_has_inputs: bool) -> Self {
        let stem = graph.node(node).output(0).map_or_else(String::new, |v| graph.value(v).name().to_owned());
        Self { graph, node, rewrite: Rewrite::of(node), stem, clip_has_inputs }
    }

    fn written(mut self, site: Site) -> Rewrite {
        let node = self.node;
        match site {
            Site::Leaky { x, alpha } => {
                let (name, output) = (self.graph.node(node).label(self.graph), self.graph.node(node).output(0));
                let attributes = vec![AttributeProto::float("alpha", alpha)];
                let mut rewrite = self.rewrite.dropping(self.graph.node(node).input(1));
                rewrite.node(NodeProto::of("LeakyRelu", name, attributes), &[x.into()], output);
                rewrite
            }
            Site::Swish { x, alpha } => {
                let scaled = if alpha == 1.0 {
                    x.into()
                } else {
                    let alpha = self.constant("alpha", scalar(f64::from(alpha)));
                    self.op("Mul", &[x.into(), alpha], "scaled")
                };
                let gate = self.op("Sigmoid", &[scaled], "gate");
                self.replace(node, [x.into(), gate])
            }
            Site::Scaled { value, factor } => {
                let value = self.factor(value);
                let factor = self.constant("factor", factor);
                self.replace(node, [value, factor])
            }
            Site::Gated { x, gate, factor, last } => {
                let gate = self.factor(gate);
                let product = self.op("Mul", &[x.into(), gate], "gated");
                let factor = self.constant("factor", factor);
                self.replace(last, [product, factor])
            }
        }
    }

    fn factor(&mut self, factor: Factor) -> Operand {
        match factor {
            Factor::Value(value) => value.into(),
            Factor::Gate { x, shift, high } => {
                let shift = self.constant("shift", scalar(f64::from(shift)));
                let shifted = self.op("Add", &[x.into(), shift], "shifted");
                self.clip(shifted, high)
            }
        }
    }

    fn clip(&mut self, value: Operand, high: f32) -> Operand {
        if self.clip_has_inputs {
            let low = self.constant("low", scalar(0.0));
            let high = self.constant("high", scalar(f64::from(high)));
            return self.op("Clip", &[value, low, high], "gate");
        }
        let bounds = vec![AttributeProto::float("min", 0.0), AttributeProto::float("max", high)];
        self.rewrite.op("Clip", &[value], bounds, format!("{}_gate", self.stem))
    }

    fn constant(&mut self, role: &str, mut tensor: TensorProto) -> Operand {
        tensor.name = Some(format!("{}_{role}", self.stem));
        self.rewrite.constant(tensor)
    }

    fn op(&mut self, op: &str, inputs: &[Operand], role: &str) -> Operand {
        self.rewrite.op(op, inputs, Vec::new(), format!("{}_{role}", self.stem))
    }

    /// Lets a product write what `last` wrote; it goes, and the node with what only they read.
    fn replace(self, last: NodeId, factors: [Operand; 2]) -> Rewrite {
        let (graph, node) = (self.graph, self.graph.node(self.node));
        let unread = node.inputs().iter().copied().flatten();
        let mut rewrite = self.rewrite.and(last).dropping(unread.chain(node.output(0)));
        let (output, name) = (graph.node(last).output(0), graph.node(last).label(graph));
        rewrite.node(NodeProto::of("Mul", name, Vec::new()), &factors, output);
        rewrite
    }
}
