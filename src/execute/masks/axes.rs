//! Which axes of which values count samples and positions of a sequence.
//!
//! A forward pass over the graph. An axis is a product of [`Part`]s: a Reshape that joins samples and positions to rows
//! gives an axis of both. Every rule is conservative: where an operator is not known, or moves positions, its output has
//! no marked axis. Sizes are checked again when a sample has run, see [`Positions`](super::Positions).

use super::source::Source;
use msq_passes::ir::{DimValue, Graph, Model, Node, TypeValue, ValueId};
use std::collections::HashMap;

/// What an axis counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Samples of a batch.
    Batch,
    /// Positions of the sequence that the mask of this number is for.
    Sequence(usize),
    /// Anything else, as many as the size says, where it is known.
    Other(Option<usize>),
}

/// One axis of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    pub(super) size: Option<usize>,
    /// What it counts, slowest first; empty where nothing is known of it.
    pub(super) parts: Vec<Part>,
}

impl Axis {
    fn plain(size: Option<usize>) -> Self {
        Self { size, parts: Vec::new() }
    }

    fn is_marked(&self) -> bool {
        !self.parts.is_empty()
    }

    /// Its parts, itself one of another kind where nothing is known of it.
    fn parts(&self) -> Vec<Part> {
        if self.is_marked() { self.parts.clone() } else { vec![Part::Other(self.size)] }
    }
}

/// The axes of a value of known rank.
pub(super) type Axes = Vec<Axis>;

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

/// Marked axes of every value that has any.
pub(super) fn propagate(model: &Model, sources: &[Source]) -> HashMap<String, Axes> {
    let graph = &model.graph;
    let mut known: HashMap<ValueId, Axes> = HashMap::new();
    for input in graph.runtime_inputs() {
        if let Some(axes) = input_axes(graph, input, sources) {
            known.insert(input, axes);
        }
    }
    for (_, node) in graph.nodes() {
        if node.subgraphs().next().is_some() {
            continue;
        }
        let found = outputs(graph, node, &known);
        for (slot, axes) in found {
            let Some(output) = node.output(slot) else { continue };
            known.insert(output, with_declared(graph, output, axes));
        }
    }
    let marked = known.into_iter().filter(|(_, axes)| axes.iter().any(Axis::is_marked));
    marked.map(|(value, axes)| (graph.value(value).name().to_owned(), axes)).collect()
}

/// Sizes that the graph declares take the place of unknown ones; a declared rank that differs is believed.
fn with_declared(graph: &Graph, value: ValueId, mut axes: Axes) -> Axes {
    let Some(declared) = graph.value(value).shape() else { return axes };
    if declared.len() != axes.len() {
        return declared.into_iter().map(Axis::plain).collect();
    }
    for (axis, size) in axes.iter_mut().zip(declared) {
        axis.size = size.or(axis.size);
    }
    axes
}

/// Names or lengths of the axes that a type declares.
fn symbols(graph: &Graph, value: ValueId) -> Vec<Option<DimValue>> {
    let ty = graph.value(value).ty().and_then(|ty| ty.value.as_ref());
    let Some(TypeValue::Tensor(tensor)) = ty else { return Vec::new() };
    tensor.shape.iter().flat_map(|shape| &shape.dim).map(|dim| dim.value.clone()).collect()
}

/// The axes of an input: positions are counted along the axis whose name or length is that of a mask.
fn input_axes(graph: &Graph, input: ValueId, sources: &[Source]) -> Option<Axes> {
    let shape = graph.value(input).shape()?;
    let mut axes: Axes = shape.iter().copied().map(Axis::plain).collect();
    let own = sources.iter().position(|source| source.value == input);
    if let Some(own) = own {
        mark(&mut axes, 0, Part::Batch);
        if !sources[own].is_lengths() {
            mark(&mut axes, sources[own].axis(), Part::Sequence(own));
        }
        return Some(axes);
    }
    let fits: Vec<(usize, usize)> = sources
        .iter()
        .enumerate()
        .filter_map(|(at, source)| Some((at, sequence_axis(graph, input, &shape, source)?)))
        .collect();
    let decodes = |name: &str| name.starts_with("decoder");
    let name = graph.value(input).name();
    let alike: Vec<&(usize, usize)> =
        fits.iter().filter(|(at, _)| decodes(&sources[*at].name) == decodes(name)).collect();
    let chosen = match (&fits[..], &alike[..]) {
        ([one], _) => Some(*one),
        (_, [one]) => Some(**one),
        // Several masks of one sequence: any of them says how long it is.
        ([first, rest @ ..], _)
            if rest.iter().all(|(at, axis)| *axis == first.1 && sources[*at].same(&sources[first.0])) =>
        {
            Some(*first)
        }
        _ => None,
    };
    if let Some((source, axis)) = chosen {
        mark(&mut axes, 0, Part::Batch);
        mark(&mut axes, axis, Part::Sequence(source));
    }
    Some(axes)
}

fn mark(axes: &mut Axes, at: usize, part: Part) {
    if let Some(axis) = axes.get_mut(at) {
        axis.parts = vec![part];
    }
}

/// The axis of an input along which the sequence of a mask lies.
fn sequence_axis(graph: &Graph, input: ValueId, shape: &[Option<usize>], source: &Source) -> Option<usize> {
    if shape.len() < 2 || shape.len() > 3 {
        return None;
    }
    if source.is_lengths() {
        // Channels of a convolution lie on axis 1, its positions behind them.
        let convolved = graph.value(input).uses().iter().any(|u| graph.node(u.node).is("Conv"));
        return Some(if shape.len() == 3 && convolved { 2 } else { 1 });
    }
    let own = symbols(graph, source.value).get(1).cloned().flatten();
    let dims = symbols(graph, input);
    match own {
        Some(wanted) => {
            let mut same = (1..shape.len()).filter(|&axis| dims.get(axis) == Some(&Some(wanted.clone())));
            let first = same.next()?;
            (same.next().is_none() && !matches!(wanted, DimValue::Value(0 | 1))).then_some(first)
        }
        // Without names: tokens and features of tokens; the lengths of the samples decide.
        None => dims.get(1).is_none_or(Option::is_none).then_some(1),
    }
}

/// The axes of what a node writes, by output slot.
fn outputs(graph: &Graph, node: &Node, known: &HashMap<ValueId, Axes>) -> Vec<(usize, Axes)> {
    let read = |slot: usize| node.input(slot).and_then(|value| axes_of(graph, known, value));
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
    let one = first_output(graph, node, &read);
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
        "Transpose" => {
            let axes = read(0)?;
            let order: Vec<usize> = match node.ints("perm") {
                [] => (0..axes.len()).rev().collect(),
                order => order.iter().map(|&at| usize::try_from(at).unwrap_or(usize::MAX)).collect(),
            };
            order.iter().map(|&at| axes.get(at).cloned()).collect()
        }
        "Reshape" | "Flatten" | "Unsqueeze" | "Squeeze" => reshaped(graph, node, read(0)?),
        "ReduceSum" | "ReduceMean" | "ReduceMax" | "ReduceMin" | "ReduceL2" | "ReduceProd" | "ReduceLogSumExp"
        | "ReduceSumSquare" | "ReduceL1" | "ArgMax" | "ArgMin" => reduced(graph, node, read(0)?),
        "Gather" => gathered(graph, node, &read(0)?, read(1)?),
        "Concat" => {
            let all: Option<Vec<Axes>> = (0..node.inputs().len()).map(read).collect();
            let mut axes = alike(all?)?;
            let along = positive(node.int_or("axis", 0), axes.len())?;
            axes[along] = Axis::plain(None);
            Some(axes)
        }
        "Slice" => {
            let mut axes = read(0)?;
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
        "Expand" => {
            let own = read(0)?;
            let rank = declared_rank(graph, node)?;
            let missing = rank.checked_sub(own.len())?;
            let axes = (0..missing).map(|_| Axis::plain(None)).chain(own);
            Some(axes.map(|axis| if axis.size == Some(1) { Axis::plain(None) } else { axis }).collect())
        }
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

/// The axes of a value: those found, or plain ones where its rank is known.
fn axes_of(graph: &Graph, known: &HashMap<ValueId, Axes>, value: ValueId) -> Option<Axes> {
    if let Some(axes) = known.get(&value) {
        return Some(axes.clone());
    }
    let constant = graph.constant(value).and_then(|tensor| tensor.shape().ok());
    if let Some(shape) = constant {
        return Some(shape.into_iter().map(|size| Axis::plain(Some(size))).collect());
    }
    Some(graph.value(value).shape()?.into_iter().map(Axis::plain).collect())
}

fn positive(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}

fn integers(graph: &Graph, value: ValueId) -> Option<Vec<i64>> {
    graph.constant(value)?.to_i64().ok()
}

/// Two axes that are added or compared element by element.
fn joined(a: Axis, b: Axis) -> Axis {
    if a.size == Some(1) {
        return b;
    }
    if b.size == Some(1) {
        return a;
    }
    let size = a.size.or(b.size);
    let parts = match (a.is_marked(), b.is_marked()) {
        (true, true) if a.parts != b.parts => Vec::new(),
        (true, _) => a.parts,
        _ => b.parts,
    };
    Axis { size, parts }
}

fn broadcast(all: Vec<Axes>) -> Axes {
    let mut total: Axes = Vec::new();
    for mut axes in all {
        if axes.len() > total.len() {
            std::mem::swap(&mut axes, &mut total);
        }
        let offset = total.len() - axes.len();
        for (at, axis) in axes.into_iter().enumerate() {
            total[offset + at] = joined(total[offset + at].clone(), axis);
        }
    }
    total
}

/// Operands of one rank, of which each axis is marked where one marks it.
fn alike(all: Vec<Axes>) -> Option<Axes> {
    let rank = all.first()?.len();
    if all.iter().any(|axes| axes.len() != rank) { None } else { Some(broadcast(all)) }
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

/// The rank of a node's first output, as declared, or as its constant or concatenated shape says.
fn declared_rank(graph: &Graph, node: &Node) -> Option<usize> {
    let declared = node.output(0).and_then(|value| graph.value(value).shape());
    declared.map(|shape| shape.len()).or_else(|| Some(target_shape(graph, node)?.len()))
}

/// The shape that a Reshape or an Expand asks for; lengths that are computed are not known.
fn target_shape(graph: &Graph, node: &Node) -> Option<Vec<Option<i64>>> {
    let value = node.input(1)?;
    if let Some(shape) = integers(graph, value) {
        return Some(shape.into_iter().map(Some).collect());
    }
    let (producer, _) = graph.value(value).producer()?;
    let concat = graph.node(producer);
    if !concat.is("Concat") {
        return None;
    }
    let piece = |value: ValueId| {
        if let Some(numbers) = integers(graph, value) {
            Some(numbers.into_iter().map(Some).collect::<Vec<_>>())
        } else {
            let one = graph.value(value).shape() == Some(vec![Some(1)])
                || graph.value(value).producer().is_some_and(|(node, _)| graph.node(node).is("Unsqueeze"));
            one.then(|| vec![None])
        }
    };
    let pieces: Option<Vec<_>> = concat.inputs().iter().map(|value| piece((*value)?)).collect();
    Some(pieces?.concat())
}

fn reshaped(graph: &Graph, node: &Node, axes: Axes) -> Option<Axes> {
    let listed = |slot: usize| match node.input(slot) {
        Some(value) => integers(graph, value),
        None => Some(node.ints("axes").to_vec()),
    };
    match node.op() {
        "Unsqueeze" => {
            let added = listed(1)?;
            let rank = axes.len() + added.len();
            let places: Vec<usize> = added.iter().map(|&at| positive(at, rank)).collect::<Option<_>>()?;
            let mut rest = axes.into_iter();
            (0..rank).map(|at| if places.contains(&at) { Some(Axis::plain(Some(1))) } else { rest.next() }).collect()
        }
        "Squeeze" => {
            let listed = listed(1)?;
            let gone: Vec<usize> = listed.iter().map(|&at| positive(at, axes.len())).collect::<Option<_>>()?;
            if gone.is_empty() {
                return None;
            }
            Some(axes.into_iter().enumerate().filter(|(at, _)| !gone.contains(at)).map(|(_, axis)| axis).collect())
        }
        "Flatten" => {
            let at = positive(node.int_or("axis", 1), axes.len() + 1)?;
            let join = |part: &[Axis]| merge(part);
            Some(vec![join(&axes[..at]), join(&axes[at..])])
        }
        _ => {
            let declared = node.output(0).and_then(|value| graph.value(value).shape());
            let asked = target_shape(graph, node);
            let rank = declared.as_ref().map(Vec::len).or(asked.as_ref().map(Vec::len))?;
            let size = |at: usize| {
                let of_declared = declared.as_ref().and_then(|shape| shape.get(at).copied().flatten());
                let of_asked = asked.as_ref().and_then(|shape| shape.get(at).copied().flatten());
                let zero = || axes.get(at).and_then(|axis| axis.size).filter(|_| of_asked == Some(0));
                of_declared.or(of_asked.filter(|&n| n > 0).map(|n| n as usize)).or_else(zero)
            };
            Some(regrouped(&axes, &(0..rank).map(size).collect::<Vec<_>>()))
        }
    }
}

/// Several axes as one.
fn merge(axes: &[Axis]) -> Axis {
    let size = axes.iter().try_fold(1_usize, |size, axis| size.checked_mul(axis.size?));
    let axes: Vec<&Axis> = axes.iter().filter(|axis| axis.size != Some(1) || axis.is_marked()).collect();
    let parts = if axes.iter().any(|axis| axis.is_marked()) {
        axes.iter().flat_map(|axis| axis.parts()).collect()
    } else {
        Vec::new()
    };
    Axis { size, parts }
}

/// Axes after a Reshape to these sizes: equal ends stay, what lies between is joined, or taken apart again.
fn regrouped(axes: &[Axis], sizes: &[Option<usize>]) -> Axes {
    let (mut from, mut to) = (axes, sizes);
    let mut behind: Vec<Axis> = Vec::new();
    // From the end: an axis that stays, or a known length taken apart or joined.
    while let ([.., axis], [.., size]) = (from, to) {
        let alone = from.len() == 1 || to.len() == 1;
        if axis.size == *size && (axis.size.is_some() || !alone || from.len() == to.len()) {
            behind.push(axis.clone());
            (from, to) = (&from[..from.len() - 1], &to[..to.len() - 1]);
        } else if let Some((taken, made)) = run(from, to) {
            let (old, new) = (&from[from.len() - taken..], &to[to.len() - made..]);
            behind.extend(split(old, new).into_iter().rev());
            (from, to) = (&from[..from.len() - taken], &to[..to.len() - made]);
        } else {
            break;
        }
    }
    // From the front, where something between is not understood.
    let mut front: Vec<Axis> = Vec::new();
    while let ([axis, ..], [size, ..]) = (from, to) {
        if from.len() < 2 || to.len() < 2 || axis.size != *size || axis.size.is_none() {
            break;
        }
        front.push(axis.clone());
        (from, to) = (&from[1..], &to[1..]);
    }
    front.extend(split(from, to));
    front.extend(behind.into_iter().rev());
    front
}

/// How many axes at the end have the product of how many sizes there, all of them known.
fn run(from: &[Axis], to: &[Option<usize>]) -> Option<(usize, usize)> {
    let (mut taken, mut made) = (1, 1);
    let (mut old, mut new) = (from.last()?.size?, (*to.last()?)?);
    while old != new {
        if old < new {
            taken += 1;
            old = old.checked_mul(from.get(from.len().checked_sub(taken)?)?.size?)?;
        } else {
            made += 1;
            new = new.checked_mul((*to.get(to.len().checked_sub(made)?)?)?)?;
        }
    }
    Some((taken, made))
}

/// Axes that become others of the same number of elements.
fn split(from: &[Axis], to: &[Option<usize>]) -> Axes {
    if let [size] = to {
        return vec![Axis { size: *size, ..merge(from) }];
    }
    let parts: Vec<Part> = from.iter().flat_map(Axis::parts).collect();
    // Each part becomes an axis again; lengths of 1 are in no part.
    let places: Vec<usize> = (0..to.len()).filter(|&at| to[at] != Some(1)).collect();
    let marked = from.iter().any(Axis::is_marked);
    let fits = |(&place, part): (&usize, &Part)| match (to[place], part) {
        (Some(size), Part::Other(Some(known))) => size == *known,
        _ => true,
    };
    if !marked || parts.len() != places.len() || !places.iter().zip(&parts).all(fits) {
        return to.iter().copied().map(Axis::plain).collect();
    }
    let mut axes: Axes = to.iter().copied().map(Axis::plain).collect();
    for (place, part) in places.into_iter().zip(parts) {
        if !matches!(part, Part::Other(_)) {
            axes[place].parts = vec![part];
        }
    }
    axes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes(list: &[(Option<usize>, &[Part])]) -> Axes {
        list.iter().map(|&(size, parts)| Axis { size, parts: parts.to_vec() }).collect()
    }

    const B: Part = Part::Batch;
    const T: Part = Part::Sequence(0);

    fn parts(axes: &Axes) -> Vec<Vec<Part>> {
        axes.iter().map(|axis| axis.parts.clone()).collect()
    }

    #[test]
    fn reshapes_of_heads_and_rows() {
        let tokens = axes(&[(None, &[B]), (None, &[T]), (Some(384), &[])]);
        let heads = regrouped(&tokens, &[None, None, Some(12), Some(32)]);
        assert_eq!(parts(&heads), [vec![B], vec![T], vec![], vec![]]);
        assert_eq!(parts(&regrouped(&heads, &[None, None, Some(384)])), [vec![B], vec![T], vec![]]);
        let rows = regrouped(&tokens, &[None, Some(384)]);
        assert_eq!(parts(&rows), [vec![B, T], vec![]]);
        assert_eq!(parts(&regrouped(&rows, &[None, None, Some(12), Some(32)])), [vec![B], vec![T], vec![], vec![]]);
        // [N, H, T, D] to [N·H, T, D] and back.
        let scores = axes(&[(None, &[B]), (Some(12), &[]), (None, &[T]), (Some(32), &[])]);
        let flat = regrouped(&scores, &[None, None, Some(32)]);
        assert_eq!(parts(&flat), [vec![B, Part::Other(Some(12))], vec![T], vec![]]);
        assert_eq!(parts(&regrouped(&flat, &[None, Some(12), None, Some(32)])), [vec![B], vec![], vec![T], vec![]]);
        // All lengths known.
        let known = axes(&[(Some(2), &[B]), (Some(64), &[T]), (Some(96), &[])]);
        assert_eq!(
            parts(&regrouped(&known, &[Some(2), Some(64), Some(4), Some(24)])),
            [vec![B], vec![T], vec![], vec![]]
        );
        assert_eq!(parts(&regrouped(&known, &[Some(128), Some(96)])), [vec![B, T], vec![]]);
        // Positions and features in one axis, taken apart otherwise: nothing is known of the parts.
        let mixed = regrouped(&known, &[Some(2), Some(6144)]);
        assert_eq!(parts(&mixed), [vec![B], vec![T, Part::Other(Some(96))]]);
        assert_eq!(parts(&regrouped(&mixed, &[Some(2), Some(32), Some(192)])), [vec![B], vec![], vec![]]);
    }
}
