//! What operators do to marked axes: element by element, products, convolutions, reductions, and what is cut or joined.
//! Reshapes have rules of their own, in [`reshape`](super::reshape).

use super::axis::{Axes, Axis, alike, broadcast, joined, positive};
use super::reshape::{expanded, integers, reshaped};
use msq_passes::ir::{Graph, Node};
use std::collections::HashMap;

/// Operators whose output has the shape of their first input.
const SAME: &[&str] = &[
    "Relu",
    "LeakyRelu",
    "PRelu",
    "Elu",
    "Selu",
    "Celu",
    "Gelu",
    "FastGelu",
    "QuickGelu",
    "BiasGelu",
    "Mish",
    "Swish",
    "Erf",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Tanh",
    "Softplus",
    "Softsign",
    "Softmax",
    "LogSoftmax",
    "Exp",
    "Log",
    "Sqrt",
    "Reciprocal",
    "Neg",
    "Abs",
    "Sign",
    "Floor",
    "Ceil",
    "Round",
    "Sin",
    "Cos",
    "Not",
    "IsNaN",
    "Cast",
    "CastLike",
    "Identity",
    "Dropout",
    "Clip",
    "LayerNormalization",
    "SimplifiedLayerNormalization",
    "RMSNormalization",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    "BatchNormalization",
    "LpNormalization",
    "QuantizeLinear",
    "DequantizeLinear",
    "RotaryEmbedding",
];

/// Operators that broadcast all their inputs.
const BROADCAST: &[&str] = &[
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Pow",
    "Mod",
    "Min",
    "Max",
    "Mean",
    "Sum",
    "Where",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "And",
    "Or",
    "Xor",
];

/// The axes of what a node writes, by output slot; `read` gives those of its inputs.
pub(super) fn outputs(graph: &Graph, node: &Node, read: &dyn Fn(usize) -> Option<Axes>) -> Vec<(usize, Axes)> {
    if node.is("LSTM") || node.is("GRU") || node.is("RNN") {
        // X [T, N, C] to Y [T, directions, N, H].
        let Some(axes) = read(0).filter(|axes| axes.len() == 3 && node.int_or("layout", 0) == 0) else {
            return Vec::new();
        };
        return vec![(0, vec![axes[0].clone(), Axis::plain(None), axes[1].clone(), Axis::plain(None)])];
    }
    if node.is("Split") {
        let Some(mut axes) = read(0) else { return Vec::new() };
        let Some(along) = positive(node.int_or("axis", 0), axes.len()) else { return Vec::new() };
        axes[along] = Axis::plain(None);
        return (0..node.outputs().len()).map(|slot| (slot, axes.clone())).collect();
    }
    let one = first_output(graph, node, read);
    one.map(|axes| (0, axes)).into_iter().collect()
}

fn first_output(graph: &Graph, node: &Node, read: &dyn Fn(usize) -> Option<Axes>) -> Option<Axes> {
    let op = node.op();
    if SAME.contains(&op) {
        return read(0);
    }
    if BROADCAST.contains(&op) {
        let all: Option<Vec<Axes>> = (0..node.inputs().len()).map(read).collect();
        return Some(broadcast(all?));
    }
    match op {
        "MatMul" | "FusedMatMul" => product(&read(0)?, &read(1)?),
        "Gemm" => {
            let rows = read(0)?;
            let row = rows.get(usize::from(node.int_or("transA", 0) != 0))?.clone();
            Some(vec![row, Axis::plain(None)])
        }
        "Conv" => convolution(node, &read(0)?),
        "Transpose" => transposed(node, &read(0)?),
        "Reshape" | "Flatten" | "Unsqueeze" | "Squeeze" => reshaped(graph, node, read(0)?),
        "ReduceSum" | "ReduceMean" | "ReduceMax" | "ReduceMin" | "ReduceL2" | "ReduceProd" | "ReduceLogSumExp"
        | "ReduceSumSquare" | "ReduceL1" | "ArgMax" | "ArgMin" => reduced(graph, node, read(0)?),
        "Gather" => gathered(graph, node, &read(0)?, read(1)?),
        "Concat" => {
            let all: Option<Vec<Axes>> = (0..node.inputs().len()).map(read).collect();
            concatenated(node, all?)
        }
        "Slice" => sliced(graph, node, read(0)?),
        "Expand" => expanded(graph, node, read(0)?),
        "Einsum" => einsum(node, read),
        "Attention" | "MultiHeadAttention" | "GroupQueryAttention" => read(0).filter(|axes| axes.len() == 3),
        "EmbedLayerNormalization" => {
            let mut axes = read(0)?;
            axes.push(Axis::plain(None));
            Some(axes)
        }
        _ => None,
    }
}

fn product(a: &[Axis], b: &[Axis]) -> Option<Axes> {
    let (rows, columns) = (a.len().checked_sub(2), b.len().checked_sub(2));
    match (rows, columns) {
        (Some(rows), Some(columns)) => {
            let mut axes = broadcast(vec![a[..rows].to_vec(), b[..columns].to_vec()]);
            axes.extend([a[rows].clone(), b[columns + 1].clone()]);
            Some(axes)
        }
        // A vector on one side.
        (Some(_), None) if b.len() == 1 => Some(a[..a.len() - 1].to_vec()),
        _ => None,
    }
}

/// A convolution over a sequence whose output has as many positions as its input.
fn convolution(node: &Node, axes: &[Axis]) -> Option<Axes> {
    let mut out = vec![axes.first()?.clone(), Axis::plain(None)];
    let kept = |at: usize| {
        let item = |name: &str, default: i64| node.ints(name).get(at).copied().unwrap_or(default);
        let spatial = axes.len() - 2;
        let pads = item("pads", 0) + node.ints("pads").get(at + spatial).copied().unwrap_or(0);
        let same = node.string("auto_pad").is_some_and(|pad| pad.starts_with("SAME"));
        let kernel = node.ints("kernel_shape").get(at).copied();
        item("strides", 1) == 1 && (same || kernel.is_some_and(|k| pads == (k - 1) * item("dilations", 1)))
    };
    for (at, axis) in axes.iter().skip(2).enumerate() {
        out.push(if kept(at) { axis.clone() } else { Axis::plain(None) });
    }
    Some(out)
}

fn transposed(node: &Node, axes: &[Axis]) -> Option<Axes> {
    let order: Vec<usize> = match node.ints("perm") {
        [] => (0..axes.len()).rev().collect(),
        order => order.iter().map(|&at| usize::try_from(at).unwrap_or(usize::MAX)).collect(),
    };
    order.iter().map(|&at| axes.get(at).cloned()).collect()
}

/// Nothing is known of the axis along which values are joined.
fn concatenated(node: &Node, all: Vec<Axes>) -> Option<Axes> {
    let mut axes = alike(all)?;
    let along = positive(node.int_or("axis", 0), axes.len())?;
    axes[along] = Axis::plain(None);
    Some(axes)
}

/// Nothing is known of the axes that are cut.
fn sliced(graph: &Graph, node: &Node, mut axes: Axes) -> Option<Axes> {
    let named = node.input(3).map(|value| integers(graph, value)).or_else(|| {
        let listed = node.ints("axes");
        (!listed.is_empty()).then(|| Some(listed.to_vec()))
    });
    for at in named.flatten()? {
        let along = positive(at, axes.len())?;
        axes[along] = Axis::plain(None);
    }
    Some(axes)
}

fn reduced(graph: &Graph, node: &Node, axes: Axes) -> Option<Axes> {
    let keeps = node.int_or("keepdims", 1) != 0;
    let listed = if node.op().starts_with("Arg") {
        vec![node.int_or("axis", 0)]
    } else {
        match node.input(1) {
            Some(value) => integers(graph, value)?,
            None => node.ints("axes").to_vec(),
        }
    };
    let gone: Vec<usize> = if listed.is_empty() {
        (0..axes.len()).collect()
    } else {
        listed.iter().map(|&at| positive(at, axes.len())).collect::<Option<_>>()?
    };
    let axis =
        |(at, axis): (usize, Axis)| if gone.contains(&at) { keeps.then(|| Axis::plain(Some(1))) } else { Some(axis) };
    Some(axes.into_iter().enumerate().filter_map(axis).collect())
}

fn gathered(graph: &Graph, node: &Node, data: &[Axis], indices: Axes) -> Option<Axes> {
    let along = positive(node.int_or("axis", 0), data.len())?;
    let constant = node.input(1).is_some_and(|value| graph.constant(value).is_some());
    let picked = indices.into_iter().map(|axis| if constant { Axis::plain(axis.size) } else { axis });
    let (before, behind) = (data[..along].to_vec(), data[along + 1..].to_vec());
    Some(before.into_iter().chain(picked).chain(behind).collect())
}

fn einsum(node: &Node, read: &dyn Fn(usize) -> Option<Axes>) -> Option<Axes> {
    let equation: String = node.string("equation")?.chars().filter(|c| !c.is_whitespace()).collect();
    let (operands, result) = equation.split_once("->")?;
    let mut letters: HashMap<char, Axis> = HashMap::new();
    for (slot, operand) in operands.split(',').enumerate() {
        let axes = read(slot)?;
        if operand.len() != axes.len() || operand.contains('.') {
            return None;
        }
        for (letter, axis) in operand.chars().zip(axes) {
            let merged = letters.remove(&letter).map_or(axis.clone(), |old| joined(old, axis));
            letters.insert(letter, merged);
        }
    }
    result.chars().map(|letter| letters.get(&letter).cloned()).collect()
}
