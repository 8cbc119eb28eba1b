//! Ranks and lengths of values that no engine has inferred yet, because fused nodes stand in front of them.

use crate::ir::{Graph, Node, ValueId};
use std::collections::HashMap;

/// The lengths of a value's axes as far as they are known.
type Axes = Option<Vec<Option<usize>>>;

/// How far back is looked; what is farther is known when the engine has inferred shapes again.
const FARTHEST: usize = 200;

/// Answers for one graph as it is.
pub(super) struct Lengths<'a> {
    graph: &'a Graph,
    known: HashMap<ValueId, Axes>,
}

impl<'a> Lengths<'a> {
    pub(super) fn of(graph: &'a Graph) -> Self {
        Self { graph, known: HashMap::new() }
    }

    pub(super) fn rank(&mut self, value: ValueId) -> Option<usize> {
        self.axes(value, 0).map(|axes| axes.len())
    }

    /// The length of the last axis.
    pub(super) fn width(&mut self, value: ValueId) -> Option<usize> {
        self.axes(value, 0)?.last().copied()?
    }

    pub(super) fn axes(&mut self, value: ValueId, depth: usize) -> Axes {
        if let Some(axes) = self.known.get(&value) {
            return axes.clone();
        }
        let constant = self.graph.constant(value).and_then(|tensor| tensor.shape().ok());
        let stated = constant.map(|shape| shape.into_iter().map(Some).collect());
        let stated: Axes = stated.or_else(|| self.graph.value(value).shape());
        let is_open = stated.as_ref().is_none_or(|axes| axes.last() == Some(&None));
        let axes = if is_open && depth < FARTHEST {
            let computed = self
                .graph
                .value(value)
                .producer()
                .and_then(|(id, slot)| self.computed(self.graph.node(id), slot, depth + 1));
            merged(stated, computed)
        } else {
            stated
        };
        self.known.insert(value, axes.clone());
        axes
    }

    fn computed(&mut self, node: &Node, slot: usize, depth: usize) -> Axes {
        let mut input = |slot: usize| node.input(slot).and_then(|value| self.axes(value, depth));
        match (node.op(), slot) {
            (op, 0) if KEEPING.contains(&op) => input(0),
            ("SkipLayerNormalization" | "SkipSimplifiedLayerNormalization", 0 | 3) => input(0),
            ("Add" | "Div" | "Mul" | "Sub", 0) => Some(broadcast(input(0)?, input(1)?)),
            ("MatMul", 0) => product(input(0)?, &input(1)?),
            ("EmbedLayerNormalization", 0 | 2) => Some(vec![None, None, *input(2)?.last()?]),
            ("MultiHeadAttention", 0) => Some(vec![None, None, input(2).filter(|v| v.len() == 3).and_then(|v| v[2])]),
            ("Attention", 0) if !node.domain().is_empty() => Some(vec![None; 3]),
            ("Reshape", 0) => {
                let to = self.graph.constant(node.input(1)?)?.to_i64().ok()?;
                Some(to.into_iter().map(|length| usize::try_from(length).ok().filter(|&length| length > 0)).collect())
            }
            _ => None,
        }
    }
}

/// Operators whose result has the axes of their first input.
const KEEPING: [&str; 16] = [
    "BiasGelu",
    "Cast",
    "Clip",
    "Dropout",
    "Erf",
    "FastGelu",
    "Gelu",
    "Identity",
    "LayerNormalization",
    "QuickGelu",
    "Relu",
    "Sigmoid",
    "SimplifiedLayerNormalization",
    "Softmax",
    "Sqrt",
    "Tanh",
];

/// What either says.
fn merged(one: Axes, other: Axes) -> Axes {
    match (one, other) {
        (Some(one), Some(other)) if one.len() == other.len() => {
            Some(one.into_iter().zip(other).map(|(one, other)| one.or(other)).collect())
        }
        (one, other) => one.or(other),
    }
}

fn broadcast(one: Vec<Option<usize>>, other: Vec<Option<usize>>) -> Vec<Option<usize>> {
    let (mut long, short) = if one.len() < other.len() { (other, one) } else { (one, other) };
    let offset = long.len() - short.len();
    for (length, other) in long[offset..].iter_mut().zip(short) {
        *length = match (*length, other) {
            (Some(1), other) => other,
            (length, Some(1)) => length,
            (length, other) => length.or(other),
        };
    }
    long
}

/// The axes of a product with a matrix.
fn product(mut left: Vec<Option<usize>>, right: &[Option<usize>]) -> Axes {
    let [_, columns] = right else { return None };
    *left.last_mut()? = *columns;
    (left.len() > 1).then_some(left)
}
