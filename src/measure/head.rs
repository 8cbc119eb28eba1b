//! What the end of an output's branch says of it: the operator that makes it, and the axis of its channels.
//!
//! The walk goes from the output back through nodes that only move or convert elements (`Reshape`, `Transpose`,
//! `Identity`, `Cast`, `Squeeze` …), as far as an operator that says what the numbers are (`Softmax`, `Sigmoid`, a norm,
//! an index) or a layer. The axis of the channels is that of the layer or norm before the output, carried through what
//! moves axes.

use super::channels::{ChannelLayout, MOST};
use msq_passes::ir::{Graph, Node, TensorProto, ValueId};
use msq_passes::ops::facts;

/// Nodes that a walk passes at most.
const DEPTH: usize = 64;
/// Nodes before an output in which boxes are put together, at most.
const TAIL: usize = 200;
/// Columns up to which a matrix has numbers with a meaning each, where it could also have positions of one kind.
const FEW_COLUMNS: usize = 64;

/// What ends the branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// Probabilities or their logarithms, over an axis where it is known.
    Softmax(Option<usize>),
    /// Numbers between 0 and 1, each for itself.
    Sigmoid,
    /// Rows of length 1.
    Normalized,
    /// Rows brought to one mean and one length, each by itself: only their direction says anything.
    LayerNorm,
    /// Nothing that says anything.
    Open,
}

/// The axis of an output's channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChannelAxis {
    /// An axis counted from the front.
    Front(usize),
    /// An axis counted from the back, 0 being the last.
    Back(usize),
    /// The last axis holds channels and what was behind them: so many channels of so many elements each time.
    Merged { channels: usize, inner: usize },
    /// The output has one channel, whose axis was taken away.
    Gone,
    /// The graph does not tell.
    Unknown,
}

impl ChannelAxis {
    /// Where the channels of an output of some shape are.
    pub(crate) fn layout(self, shape: &[usize]) -> ChannelLayout {
        match self {
            Self::Merged { channels, inner } if shape.last().is_some_and(|&n| n.is_multiple_of(channels * inner)) => {
                if channels > MOST {
                    ChannelLayout::WHOLE
                } else {
                    ChannelLayout { channels, inner }
                }
            }
            _ => ChannelLayout::of(shape, self.of_rank(shape.len())),
        }
    }

    /// The axis in a shape of this rank; where the graph does not tell, axis 1 of matrices and images and the last of
    /// sequences.
    pub(crate) fn of_rank(self, rank: usize) -> Option<usize> {
        match self {
            Self::Front(axis) => (axis < rank).then_some(axis),
            Self::Back(behind) => rank.checked_sub(behind + 1),
            Self::Gone => None,
            Self::Unknown | Self::Merged { .. } => match rank {
                0 | 1 => None,
                3 => Some(2),
                _ => Some(1),
            },
        }
    }
}

/// What ends the branch of a value.
pub(crate) fn head(graph: &Graph, value: ValueId) -> Head {
    let mut at = value;
    // Transposes passed on the way, from the output inwards.
    let mut moved: Vec<Vec<i64>> = Vec::new();
    let mut reshaped = false;
    for _ in 0..DEPTH {
        let Some(node) = graph.value(at).producer().map(|(node, _)| graph.node(node)) else { return Head::Open };
        match node.op() {
            "Softmax" | "LogSoftmax" | "Hardmax" => {
                let rank = graph.value(at).shape().map(|shape| shape.len());
                return Head::Softmax(softmax_axis(node, rank, reshaped, &moved));
            }
            "Sigmoid" | "HardSigmoid" => return Head::Sigmoid,
            "LpNormalization" => return Head::Normalized,
            "Div" if is_softmax_division(graph, node) => return Head::Softmax(None),
            "Div" | "Mul" if is_normalization(graph, node) => return Head::Normalized,
            "Log" => {}
            "Transpose" => moved.push(node.ints("perm").to_vec()),
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => reshaped = true,
            op if is_passed(op) => {}
            _ => return if moved.is_empty() && is_layer_norm(graph, node) { Head::LayerNorm } else { Head::Open },
        }
        let Some(input) = node.input(0) else { return Head::Open };
        at = input;
    }
    Head::Open
}

/// Whether the operator only hands on elements of its first input, as they are or of another type.
fn is_passed(op: &str) -> bool {
    matches!(op, "Identity" | "Cast" | "Dropout" | "QuantizeLinear" | "DequantizeLinear" | "Clip")
}

/// The axis of the classes in the output, where nothing between changes the shape.
fn softmax_axis(node: &Node, rank: Option<usize>, reshaped: bool, moved: &[Vec<i64>]) -> Option<usize> {
    let axis = node.int_or("axis", -1);
    let rank = rank.or_else(|| moved.last().filter(|perm| !perm.is_empty()).map(Vec::len))?;
    let mut axis = usize::try_from(if axis < 0 { axis + rank as i64 } else { axis }).ok()?;
    for perm in moved.iter().rev() {
        axis = if perm.is_empty() {
            rank.checked_sub(axis + 1)?
        } else {
            perm.iter().position(|&from| from == axis as i64)?
        };
    }
    (!reshaped).then_some(axis)
}

/// exp(x) / Σ exp(x), written out.
fn is_softmax_division(graph: &Graph, node: &Node) -> bool {
    let maker = |slot: usize| Some(graph.node(graph.value(node.input(slot)?).producer()?.0));
    let (Some(above), Some(below)) = (maker(0), maker(1)) else { return false };
    above.op() == "Exp" && below.op() == "ReduceSum" && below.input(0) == node.input(0)
}

/// x / ‖x‖, written out: the divisor comes from a norm of the dividend.
fn is_normalization(graph: &Graph, node: &Node) -> bool {
    let Some(own) = node.input(0) else { return false };
    let Some((norm, _)) = node.input(1).and_then(|divisor| made_of(graph, divisor)) else { return false };
    match norm.op() {
        "ReduceL2" | "ReduceSumSquare" => norm.input(0) == Some(own),
        "ReduceSum" => {
            let square = norm.input(0).and_then(|v| graph.value(v).producer());
            square.is_some_and(|(node, _)| graph.node(node).input(0) == Some(own))
        }
        _ => false,
    }
}

/// A layer norm over the last axis, or one written out: (x − mean(x))/√(mean((x − mean(x))²) + ε), times a constant, plus
/// a constant.
fn is_layer_norm(graph: &Graph, node: &Node) -> bool {
    let maker = |value: ValueId| graph.value(value).producer().map(|(node, _)| graph.node(node));
    let is_last = |axes: Option<Vec<i64>>, rank: Option<usize>| match axes.as_deref() {
        Some(&[axis]) => axis == -1 || rank.is_some_and(|rank| axis == rank as i64 - 1),
        _ => false,
    };
    let rank = |value: Option<ValueId>| graph.value(value?).shape().map(|shape| shape.len());
    let mut at = node;
    for _ in 0..3 {
        match at.op() {
            "LayerNormalization" | "RMSNormalization" | "SimplifiedLayerNormalization" => {
                return is_last(Some(vec![at.int_or("axis", -1)]), rank(at.input(0)));
            }
            "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" | "EmbedLayerNormalization" => return true,
            "Add" | "Mul" if at.inputs().iter().flatten().any(|&v| graph.constant(v).is_some()) => {
                let computed = at.inputs().iter().flatten().find(|&&v| graph.constant(v).is_none());
                let Some(next) = computed.and_then(|&v| maker(v)) else { return false };
                at = next;
            }
            "Div" | "Mul" => {
                // Of the two, one is the deviation and the other comes from the mean of its squares.
                return at.input(1).and_then(|below| made_of(graph, below)).is_some_and(|(mean, rooted)| {
                    rooted && mean.is("ReduceMean") && is_last(axes(graph, mean), rank(mean.input(0)))
                });
            }
            _ => return false,
        }
    }
    false
}

/// The node that a divisor comes from, past what takes roots and reciprocals and keeps it from being 0; whether there is a
/// root among these.
fn made_of(graph: &Graph, divisor: ValueId) -> Option<(&Node, bool)> {
    let (mut at, mut rooted) = (divisor, false);
    for _ in 0..8 {
        let node = graph.node(graph.value(at).producer()?.0);
        match node.op() {
            "Sqrt" => rooted = true,
            "Clip" | "Max" | "Add" | "Div" | "Expand" | "Reciprocal" | "Unsqueeze" | "Cast" | "Identity" => {}
            _ => return Some((node, rooted)),
        }
        at = node.inputs().iter().flatten().copied().find(|&value| graph.constant(value).is_none())?;
    }
    None
}

/// Whether the value is put together behind the last layers from several parts, some of them between 0 and 1: boxes and
/// their scores, as the heads of detectors write them.
pub(crate) fn joins_scores(graph: &Graph, value: ValueId) -> bool {
    let (mut open, mut seen) = (vec![value], std::collections::HashSet::new());
    let (mut joined, mut scored) = (false, false);
    while let Some(value) = open.pop() {
        let Some((id, _)) = graph.value(value).producer() else { continue };
        if !seen.insert(id) || seen.len() > TAIL {
            continue;
        }
        let node = graph.node(id);
        joined |= node.op() == "Concat";
        scored |= matches!(node.op(), "Sigmoid" | "Softmax" | "HardSigmoid");
        if !is_layer(graph, node) {
            open.extend(node.inputs().iter().flatten());
        }
    }
    joined && scored
}

/// Whether the node multiplies by a constant, where the part of a branch ends that only arranges results.
fn is_layer(graph: &Graph, node: &Node) -> bool {
    facts(node.op()).layer.is_some() && node.inputs().iter().flatten().any(|&v| graph.constant(v).is_some())
}

/// The axis of the channels of a value: that of the layer or norm before it, else the only axis with a fixed size.
pub(crate) fn channel_axis(graph: &Graph, value: ValueId) -> ChannelAxis {
    match axis(graph, value, DEPTH) {
        ChannelAxis::Unknown => fixed_axis(graph, value).map_or(ChannelAxis::Unknown, ChannelAxis::Front),
        known => known,
    }
}

/// The axis of a fixed size, where it is the second or the last and all others but the batch are open: positions come in
/// any number, channels do not.
fn fixed_axis(graph: &Graph, value: ValueId) -> Option<usize> {
    let shape = graph.value(value).shape()?;
    let mut fixed = (1..shape.len()).filter(|&axis| shape[axis].is_some());
    let axis = fixed.next().filter(|_| shape.len() > 2 && fixed.next().is_none())?;
    (axis == 1 || axis + 1 == shape.len()).then_some(axis)
}

fn axis(graph: &Graph, value: ValueId, depth: usize) -> ChannelAxis {
    let Some(node) = graph.value(value).producer().map(|(node, _)| graph.node(node)) else {
        return ChannelAxis::Unknown;
    };
    let Some(depth) = depth.checked_sub(1) else { return ChannelAxis::Unknown };
    let of = |slot: usize| node.input(slot).map_or(ChannelAxis::Unknown, |input| axis(graph, input, depth));
    let shape = |value: Option<ValueId>| value.and_then(|value| graph.value(value).shape());
    let rank = |slot: usize| shape(node.input(slot)).map(|shape| shape.len());
    match node.op() {
        "Conv"
        | "ConvTranspose"
        | "BatchNormalization"
        | "InstanceNormalization"
        | "GroupNormalization"
        | "MaxPool"
        | "AveragePool"
        | "GlobalAveragePool"
        | "GlobalMaxPool"
        | "DepthToSpace"
        | "SpaceToDepth" => ChannelAxis::Front(1),
        "MatMul" if is_matrix_times_vector(graph, node) => ChannelAxis::Back(1),
        "MatMul"
        | "Gemm"
        | "LayerNormalization"
        | "SimplifiedLayerNormalization"
        | "SkipLayerNormalization"
        | "RMSNormalization"
        | "LSTM"
        | "GRU"
        | "RNN" => ChannelAxis::Back(0),
        "Transpose" => transposed(of(0), node.ints("perm"), rank(0)),
        "Squeeze" => squeezed(of(0), axes(graph, node), rank(0), shape(node.output(0)).as_deref()),
        "Unsqueeze" => unsqueezed(of(0), axes(graph, node), rank(0)),
        "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceL2" => {
            let found = of(0);
            if node.int_or("keepdims", 1) == 1 {
                found
            } else {
                squeezed(found, axes(graph, node), rank(0), shape(node.output(0)).as_deref())
            }
        }
        "Flatten" | "Reshape" => reshaped(graph, of(0), node),
        "Gather" | "GatherND" | "Einsum" | "Expand" | "Tile" | "Loop" | "If" | "Scan" => ChannelAxis::Unknown,
        // What works element by element hands the axis on, from whichever input has one.
        _ => {
            (0..node.inputs().len().min(4)).map(of).find(|a| *a != ChannelAxis::Unknown).unwrap_or(ChannelAxis::Unknown)
        }
    }
}

/// The axis counted from the front, where the rank is known.
fn front(axis: ChannelAxis, rank: Option<usize>) -> Option<usize> {
    match axis {
        ChannelAxis::Front(axis) => Some(axis),
        ChannelAxis::Back(behind) => rank?.checked_sub(behind + 1),
        _ => None,
    }
}

/// Whether the node multiplies a matrix by a vector, neither of them constant: each row of the matrix then gives a number
/// of its own, as in a bilinear layer.
fn is_matrix_times_vector(graph: &Graph, node: &Node) -> bool {
    let computed = node.inputs().iter().flatten().all(|&value| graph.constant(value).is_none());
    let shape = node.output(0).and_then(|value| graph.value(value).shape());
    computed && shape.is_some_and(|shape| matches!(shape[..], [_, .., Some(_), Some(1)]))
}

/// What is left where the axis of the channels, of which there is one, was taken away. Behind a convolution positions are
/// left, and behind a matrix product many may be positions too. A few columns of a fixed number are channels.
fn without_channels(axis: ChannelAxis, after: Option<&[Option<usize>]>) -> ChannelAxis {
    match (axis, after) {
        (ChannelAxis::Back(_), Some(&[_, Some(2..=FEW_COLUMNS)])) => ChannelAxis::Front(1),
        _ => ChannelAxis::Gone,
    }
}

/// The axis behind a node that makes a matrix of everything, or takes away an axis of one channel.
fn reshaped(graph: &Graph, axis: ChannelAxis, node: &Node) -> ChannelAxis {
    let shape = |value: Option<ValueId>| value.and_then(|value| graph.value(value).shape());
    let Some(before) = shape(node.input(0)) else { return ChannelAxis::Unknown };
    let Some(at) = front(axis, Some(before.len())) else {
        return if axis == ChannelAxis::Gone { axis } else { ChannelAxis::Unknown };
    };
    let Some(channels) = before.get(at).copied().flatten() else { return ChannelAxis::Unknown };
    let after = match node.op() {
        "Flatten" if node.int_or("axis", 1) == 1 => Some(2),
        _ => shape(node.output(0)).map(|shape| shape.len()),
    };
    let inner: Option<usize> = before[at + 1..].iter().copied().product();
    // Only what is behind the channels is merged or split.
    let kept = |after: &Vec<Option<usize>>| after.len() > 2 && after[..=at] == before[..=at];
    if at > 0 && shape(node.output(0)).is_some_and(|after| after.len() > at && kept(&after)) {
        return ChannelAxis::Front(at);
    }
    match (after, inner) {
        (_, Some(_)) if channels == 1 && at > 0 => without_channels(axis, shape(node.output(0)).as_deref()),
        (Some(2), Some(inner)) if at > 0 => ChannelAxis::Merged { channels, inner },
        // The sizes behind the channels are open.
        (Some(2), None) if at > 0 => ChannelAxis::Gone,
        _ => ChannelAxis::Unknown,
    }
}

fn transposed(axis: ChannelAxis, perm: &[i64], rank: Option<usize>) -> ChannelAxis {
    let rank = (!perm.is_empty()).then_some(perm.len()).or(rank);
    let Some(from) = front(axis, rank) else { return axis };
    let to = match (perm.is_empty(), rank) {
        (false, _) => perm.iter().position(|&p| p == from as i64),
        (true, Some(rank)) => rank.checked_sub(from + 1),
        (true, None) => None,
    };
    to.map_or(ChannelAxis::Unknown, ChannelAxis::Front)
}

fn squeezed(
    axis: ChannelAxis,
    axes: Option<Vec<i64>>,
    rank: Option<usize>,
    after: Option<&[Option<usize>]>,
) -> ChannelAxis {
    let (Some(axes), Some(from)) = (axes, front(axis, rank)) else {
        return if axis == ChannelAxis::Gone { axis } else { ChannelAxis::Unknown };
    };
    let axes: Option<Vec<usize>> = axes.iter().map(|&a| positive(a, rank)).collect();
    let Some(axes) = axes else { return ChannelAxis::Unknown };
    if axes.contains(&from) {
        return without_channels(axis, after);
    }
    ChannelAxis::Front(from - axes.iter().filter(|&&a| a < from).count())
}

fn unsqueezed(axis: ChannelAxis, axes: Option<Vec<i64>>, rank: Option<usize>) -> ChannelAxis {
    let (Some(axes), Some(mut at)) = (axes, front(axis, rank)) else {
        return if axis == ChannelAxis::Gone { axis } else { ChannelAxis::Unknown };
    };
    let rank = rank.map(|rank| rank + axes.len());
    let axes: Option<Vec<usize>> = axes.iter().map(|&a| positive(a, rank)).collect();
    let Some(mut axes) = axes else { return ChannelAxis::Unknown };
    axes.sort_unstable();
    for new in axes {
        at += usize::from(new <= at);
    }
    ChannelAxis::Front(at)
}

fn positive(axis: i64, rank: Option<usize>) -> Option<usize> {
    if axis >= 0 { usize::try_from(axis).ok() } else { usize::try_from(axis + rank? as i64).ok() }
}

/// The axes of an operator that states them as an attribute or, later, as a constant input.
fn axes(graph: &Graph, node: &Node) -> Option<Vec<i64>> {
    if node.attribute("axes").is_some() {
        return Some(node.ints("axes").to_vec());
    }
    let input = node.input(1)?;
    let made = || graph.value(input).producer().map(|(node, _)| graph.node(node))?.tensor("value");
    let tensor: &TensorProto = graph.constant(input).or_else(made)?;
    tensor.to_i64().ok()
}
