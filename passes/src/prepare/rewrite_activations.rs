//! Pass `rewrite-activations`: piecewise linear activations become `Add`, `Clip` and `Mul`.
//!
//! * `HardSigmoid`: clip(αx + β, 0, 1) = α·clip(x + β/α, 0, 1/α), for α > 0.
//! * `HardSwish`: x·clip(x/6 + ½, 0, 1) = (x·clip(x + 3, 0, 6))·⅙.
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
use crate::pass::{Outcome, Pass, PassError};

/// Writes activations with operators that have integer kernels.
#[derive(Clone, Copy, Debug, Default)]
pub struct RewriteActivations;

impl Pass for RewriteActivations {
    fn name(&self) -> &'static str {
        "rewrite-activations"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let types = element_types(&model.graph);
        let mut sites = Vec::new();
        for (id, node) in model.graph.nodes().filter(|(_, n)| n.domain().is_empty()) {
            let float = node.input(0).and_then(|v| types.get(&v)) == Some(&DataType::Float);
            match site(&model.graph, id, node) {
                Ok(Some(site)) if float => sites.push((id, site)),
                Ok(Some(_)) => outcome.decline(node.label(&model.graph), "its input is not known to be float32"),
                Ok(None) => {}
                Err(reason) => outcome.decline(node.label(&model.graph), reason),
            }
        }
        let clip_has_inputs = model.opset("").is_none_or(|opset| opset >= 11);
        for (id, site) in sites {
            Rewrite::new(&mut model.graph, id, clip_has_inputs).apply(site);
            outcome.count();
        }
        Ok(outcome)
    }
}

/// What a node becomes.
enum Site {
    /// x·σ(αx).
    Swish { x: ValueId, alpha: f32 },
    /// value·factor.
    Scaled { value: Operand, factor: TensorProto },
    /// (x·gate)·factor, which is what `last` computes; it may be the node itself.
    Gated { x: ValueId, gate: Operand, factor: TensorProto, last: NodeId },
}

/// A value there is, or the gate clip(x + shift, 0, high) still to be written.
#[derive(Clone, Copy)]
enum Operand {
    Value(ValueId),
    Gate { x: ValueId, shift: f32, high: f32 },
}

fn site(graph: &Graph, id: NodeId, node: &Node) -> Result<Option<Site>, &'static str> {
    let (Some(x), Some(output)) = (node.input(0), node.output(0)) else { return Ok(None) };
    match node.op() {
        "Swish" => Ok(Some(Site::Swish { x, alpha: node.float_or("alpha", 1.0) })),
        "HardSwish" => {
            let gate = Operand::Gate { x, shift: 3.0, high: 6.0 };
            Ok(Some(Site::Gated { x, gate, factor: scalar(1.0 / 6.0), last: id }))
        }
        "HardSigmoid" => {
            let (alpha, beta) = (f64::from(node.float_or("alpha", 0.2)), f64::from(node.float_or("beta", 0.5)));
            if alpha <= 0.0 {
                return Err("its alpha is not positive");
            }
            let gate = Operand::Gate { x, shift: (beta / alpha) as f32, high: (1.0 / alpha) as f32 };
            Ok(Some(scaled(graph, output, x, gate, scalar(alpha))))
        }
        "Div" => divided(graph, node, output),
        "Mul" => Ok(multiplied(graph, node, output)),
        _ => Ok(None),
    }
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
        Some(x) => scaled(graph, output, x, Operand::Value(value), factor),
        None => Site::Scaled { value: Operand::Value(value), factor },
    }))
}

/// gate·m where the product with the gate's own input follows; every other product is fine as it is.
fn multiplied(graph: &Graph, node: &Node, output: ValueId) -> Option<Site> {
    let [a, b] = node.two_inputs()?;
    let (gate, factor) = if graph.constant(b).is_some() { (a, b) } else { (b, a) };
    let factor = graph.constant(factor).filter(|t| t.scalar_f32().is_some())?.clone();
    let x = gated_by(graph, gate)?;
    let last = product_with(graph, output, x)?;
    Some(Site::Gated { x, gate: Operand::Value(gate), factor, last })
}

/// gate·factor, or (x·gate)·factor when the product with x is all that reads `output`.
fn scaled(graph: &Graph, output: ValueId, x: ValueId, gate: Operand, factor: TensorProto) -> Site {
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

/// Writes one site.
struct Rewrite<'a> {
    graph: &'a mut Graph,
    node: NodeId,
    /// What the values made are named after.
    stem: String,
    clip_has_inputs: bool,
}

impl<'a> Rewrite<'a> {
    fn new(graph: &'a mut Graph, node: NodeId, clip_has_inputs: bool) -> Self {
        let stem = graph.node(node).output(0).map_or_else(String::new, |v| graph.value(v).name().to_owned());
        Self { graph, node, stem, clip_has_inputs }
    }

    fn apply(mut self, site: Site) {
        match site {
            Site::Swish { x, alpha } => {
                let scaled = if alpha == 1.0 {
                    x
                } else {
                    let alpha = self.constant("alpha", scalar(f64::from(alpha)));
                    self.op("Mul", &[x, alpha], "scaled")
                };
                let gate = self.op("Sigmoid", &[scaled], "gate");
                self.replace(self.node, [x, gate]);
            }
            Site::Scaled { value, factor } => {
                let value = self.operand(value);
                let factor = self.constant("factor", factor);
                self.replace(self.node, [value, factor]);
            }
            Site::Gated { x, gate, factor, last } => {
                let gate = self.operand(gate);
                let product = self.op("Mul", &[x, gate], "gated");
                let factor = self.constant("factor", factor);
                self.replace(last, [product, factor]);
            }
        }
    }

    fn operand(&mut self, operand: Operand) -> ValueId {
        match operand {
            Operand::Value(value) => value,
            Operand::Gate { x, shift, high } => {
                let shift = self.constant("shift", scalar(f64::from(shift)));
                let shifted = self.op("Add", &[x, shift], "shifted");
                self.clip(shifted, high)
            }
        }
    }

    fn clip(&mut self, value: ValueId, high: f32) -> ValueId {
        if self.clip_has_inputs {
            let low = self.constant("low", scalar(0.0));
            let high = self.constant("high", scalar(f64::from(high)));
            return self.op("Clip", &[value, low, high], "gate");
        }
        let bounds = vec![AttributeProto::float("min", 0.0), AttributeProto::float("max", high)];
        self.graph.add_op("Clip", &[Some(value)], bounds, &format!("{}_gate", self.stem))
    }

    fn constant(&mut self, role: &str, mut tensor: TensorProto) -> ValueId {
        tensor.name = Some(format!("{}_{role}", self.stem));
        self.graph.add_initializer(tensor)
    }

    fn op(&mut self, op: &str, inputs: &[ValueId], role: &str) -> ValueId {
        let inputs: Vec<_> = inputs.iter().map(|&v| Some(v)).collect();
        self.graph.add_op(op, &inputs, Vec::new(), &format!("{}_{role}", self.stem))
    }

    /// Lets a product write what `last` wrote; it goes, and the node with what only they read.
    fn replace(&mut self, last: NodeId, factors: [ValueId; 2]) {
        let (output, name) = (self.graph.node(last).output(0), self.graph.node(last).label(self.graph).to_owned());
        let mut unread: Vec<ValueId> = self.graph.node(self.node).inputs().iter().copied().flatten().collect();
        unread.extend(self.graph.node(self.node).output(0));
        self.graph.remove_node(last);
        self.graph.remove_node(self.node);
        self.graph.add_node(NodeProto::of("Mul", &name, Vec::new()), &factors.map(Some), &[output]);
        for value in unread {
            self.graph.remove_value(value);
        }
    }
}
