//! Weights beside the layers: constants that operators without a kernel on integers read, and layers of sub-graphs.
//!
//! | kind | constant | scales lie along |
//! |---|---|---|
//! | embedding | the table of a `Gather`, which looks rows up | the axis that is looked up |
//! | embedding | the table of a `Gather`, which looks matrices up | all axes but one ([`matrices`](super::matrices)) |
//! | embedding | positions behind a `Slice` of computed length | all axes but the last |
//! | recurrent | inputs 1 and 2 of `LSTM`, `GRU`, `RNN`, `[directions, gates·hidden, …]` | both leading axes |
//! | branch | the weight of a layer or of one of these operators in the body of `If`, `Loop`, `Scan` | as outside |
//! | operator | the weight of `DeformConv`, `Einsum`, or a fused operator of onnxruntime | output channels |
//!
//! They compute in float and can be stored as integers. A table is left alone where what is looked up multiplies an
//! activation that does not depend on it (the cosines of rotary positions, gates): an error there is one of every
//! product. So is a constant that integers, scales and nodes would hardly make smaller, one that is a graph output, and one
//! that is neither float nor float16.

use super::matrices::axes_of_scales;
use super::{LayerOp, layers};
use crate::ir::{DataType, Graph, GraphProto, Model, Node, NodeProto, TensorProto, ValueId, axis_of};
use crate::ops::{Trait, facts};
use std::collections::{HashMap, HashSet};

/// What a stored weight is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StoredKind {
    /// A table that rows are looked up in.
    Embedding,
    /// A weight of `LSTM`, `GRU` or `RNN`.
    Recurrent,
    /// A weight of a layer in a sub-graph.
    Branch,
    /// A weight of another operator.
    Operator,
}

/// A constant that can be stored as integers beside float operators.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredWeight {
    /// The tensor's name: its name in bit plans and reports.
    pub name: String,
    /// What it is for.
    pub kind: StoredKind,
    /// The operator that reads it, the first of several.
    pub op: String,
    /// Names of the nodes of the main graph that read it, themselves or in a sub-graph.
    pub readers: Vec<String>,
    /// The constant.
    pub value: ValueId,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Bytes of its floats.
    pub float_bytes: usize,
    /// The axes along which scales lie.
    pub axes: Vec<usize>,
    /// The axis along which it is looked up, for a table.
    pub along: Option<usize>,
    /// Whether what is looked up is matrices that products read, as the experts of a mixture.
    pub matrices: bool,
    /// Values of a row that have a scale of their own, where whole blocks along the last axis of a table are to have one.
    pub block: Option<usize>,
    /// Whether what looks rows up reads floats, which the runtime makes of all integers when it loads the file: looking up
    /// integers would take a noticeable part of every run (`lookups`).
    pub at_load: bool,
    /// Why it is better left in float; `None` where it is not.
    pub refusal: Option<&'static str>,
}

impl StoredWeight {
    /// Number of weights.
    pub fn weights(&self) -> usize {
        self.shape.iter().product()
    }

    /// Shape of the scales: they broadcast over the weight, or over blocks along its last axis.
    pub fn scale_shape(&self) -> Vec<usize> {
        // Blocks are those of a row, whatever the axes.
        let has_scales = |axis: usize| self.axes.contains(&axis) || self.block.is_some();
        let of_axes = self.shape.iter().enumerate().map(|(axis, &n)| if has_scales(axis) { n } else { 1 });
        let mut shape: Vec<usize> = of_axes.collect();
        if let (Some(block), Some(&columns), Some(scales)) = (self.block, self.shape.last(), shape.last_mut()) {
            *scales = columns / block.max(1);
        }
        shape
    }

    /// Whether it is a table, looked up by a `Gather` along axis 0, whose rows consist of several whole blocks of so many
    /// values.
    pub fn has_blocks(&self, block: usize) -> bool {
        let is_first = self.along == Some(0) && self.axes.first() == Some(&0);
        let is_table = self.kind == StoredKind::Embedding && self.op == "Gather" && is_first;
        let columns = self.shape.last().copied().unwrap_or_default();
        is_table && block > 1 && columns > block && columns.is_multiple_of(block)
    }

    /// Number of scales.
    pub fn scales(&self) -> usize {
        self.scale_shape().iter().product()
    }
}

/// Bytes of the nodes and messages that storing a weight as integers adds.
const OVERHEAD: usize = 400;

/// A reading of a constant as a weight.
struct Reading {
    kind: StoredKind,
    op: String,
    reader: String,
    axes: Vec<usize>,
    refusal: Option<&'static str>,
}

/// The stored weights of a model, in the order of their first readers. Those with a [`refusal`](StoredWeight::refusal)
/// are listed too.
pub fn stored_weights(model: &Model) -> Vec<StoredWeight> {
    let graph = &model.graph;
    let layer_names: HashSet<String> = layers(model).into_iter().map(|layer| layer.name).collect();
    let mut found: Vec<StoredWeight> = Vec::new();
    let mut at: HashMap<ValueId, usize> = HashMap::new();
    let mut add = |value: ValueId, reading: Reading| {
        if let Some(&at) = at.get(&value) {
            let known = &mut found[at];
            known.refusal = known.refusal.or(reading.refusal);
            if !known.readers.contains(&reading.reader) {
                known.readers.push(reading.reader);
            }
            return;
        }
        let Some(shape) = shape_of(graph, value) else { return };
        let float_bytes = graph.constant(value).and_then(TensorProto::byte_count).unwrap_or_default();
        let name = graph.value(value).name();
        let name = if layer_names.contains(name) { format!("{name}_weight") } else { name.to_owned() };
        let Reading { kind, op, reader, axes, refusal } = reading;
        at.insert(value, found.len());
        let readers = vec![reader];
        found.push(StoredWeight {
            name,
            kind,
            op,
            readers,
            value,
            shape,
            float_bytes,
            axes,
            along: None,
            matrices: false,
            block: None,
            at_load: false,
            refusal,
        });
    };
    let bytes = |tensor: &TensorProto| if tensor.is_float() { tensor.byte_count().unwrap_or_default() } else { 0 };
    let all: usize = graph.initializers().map(|(_, tensor)| bytes(tensor)).sum();
    for (_, node) in graph.nodes() {
        let label = node.label(graph);
        for (slot, value) in node.inputs().iter().enumerate() {
            let Some(value) = value.filter(|&v| graph.constant(v).is_some()) else { continue };
            let Some(rank) = shape_of(graph, value).map(|shape| shape.len()) else { continue };
            let Some((kind, axes)) = role(&View::of(node), slot, rank, |_| false) else { continue };
            let gates = kind == StoredKind::Embedding && node.output(0).is_some_and(|v| is_gate(graph, v));
            // Of a table that is most of the model the caller wants integers, and is told what they cost.
            let most = || 2 * graph.constant(value).map_or(0, bytes) > all;
            let refusal = (gates && !most()).then_some("what is looked up multiplies an activation");
            add(value, Reading { kind, op: node.op().to_owned(), reader: label.to_owned(), axes, refusal });
        }
        for body in node.subgraphs() {
            branch_weights(graph, body, &mut |value, op, axes| {
                let reading = Reading {
                    kind: StoredKind::Branch,
                    op: op.to_owned(),
                    reader: label.to_owned(),
                    axes,
                    refusal: None,
                };
                add(value, reading);
            });
        }
    }
    for weight in &mut found {
        if let (&[along], "Gather" | "GatherND") = (&weight.axes[..], &*weight.op) {
            (weight.axes, weight.matrices) = axes_of_scales(graph, weight.value, &weight.shape, along);
            weight.along = Some(along);
        }
        weight.refusal = weight.refusal.or_else(|| refusal(graph, weight));
    }
    found
}

/// Shape of a float constant with at least two axes.
fn shape_of(graph: &Graph, value: ValueId) -> Option<Vec<usize>> {
    let tensor = graph.constant(value).filter(|tensor| tensor.is_float())?;
    tensor.shape().ok().filter(|shape| shape.len() >= 2)
}

fn refusal(graph: &Graph, weight: &StoredWeight) -> Option<&'static str> {
    let element = graph.constant(weight.value).and_then(TensorProto::element_type);
    if !matches!(element, Some(DataType::Float | DataType::Float16)) {
        return Some("it is neither of type float nor float16");
    }
    if graph.is_output(weight.value) {
        return Some("it is a graph output");
    }
    let stored = weight.weights() + 4 * weight.scales() + OVERHEAD;
    (10 * stored > 6 * weight.float_bytes).then_some("integers and scales would take more than 0.6 of its bytes")
}

/// Looks up an integer attribute by its name; the second argument where there is none.
type Integers<'a> = Box<dyn Fn(&str, i64) -> i64 + 'a>;

/// What is asked of a node, of the main graph or of a sub-graph.
struct View<'a> {
    op: &'a str,
    domain: &'a str,
    int: Integers<'a>,
    equation: Option<&'a str>,
}

impl<'a> View<'a> {
    fn of(node: &'a Node) -> Self {
        let int = Box::new(|name: &str, default| node.int_or(name, default));
        Self { op: node.op(), domain: node.domain(), int, equation: node.string("equation") }
    }

    fn of_message(node: &'a NodeProto) -> Self {
        let attribute = |name: &str| node.attribute.iter().find(move |a| a.name() == name);
        let int = Box::new(move |name: &str, default| {
            node.attribute.iter().find(|a| a.name() == name).and_then(|a| a.i).unwrap_or(default)
        });
        let equation = attribute("equation").and_then(|a| std::str::from_utf8(a.s.as_ref()?).ok());
        let domain = if node.domain() == "ai.onnx" { "" } else { node.domain() };
        Self { op: node.op_type(), domain, int, equation }
    }
}

/// What a constant of so many axes at an input of a node is, and the axes of its scales. Layers count where `layer` says
/// so.
fn role(node: &View, slot: usize, rank: usize, layer: impl Fn(LayerOp) -> bool) -> Option<(StoredKind, Vec<usize>)> {
    let known = facts(node.op);
    match (node.domain, node.op, slot) {
        ("", "Gather", 0) => Some((StoredKind::Embedding, vec![axis_of((node.int)("axis", 0), rank)?])),
        ("", "Slice", 0) => Some((StoredKind::Embedding, (0..rank - 1).collect())),
        ("", "GatherND", 0) if (node.int)("batch_dims", 0) == 0 => Some((StoredKind::Embedding, vec![0])),
        ("com.microsoft", "EmbedLayerNormalization", 2..=4) => Some((StoredKind::Embedding, vec![0])),
        ("", _, 1 | 2) if known.has(Trait::Recurrent) => Some((StoredKind::Recurrent, vec![0, 1])),
        ("", "DeformConv", 1) | ("com.microsoft", "FusedConv", 1) => Some((StoredKind::Operator, vec![0])),
        ("com.microsoft", "Attention", 1) if rank == 2 => Some((StoredKind::Operator, vec![1])),
        ("com.microsoft", "FusedMatMul" | "FusedGemm", 1) if rank == 2 => {
            Some((StoredKind::Operator, vec![usize::from((node.int)("transB", 0) == 0)]))
        }
        ("", "Einsum", _) => Some((StoredKind::Operator, einsum_axes(node.equation?, slot, rank)?)),
        ("", _, _) => {
            let op = known.float_layer().filter(|&op| layer(op))?;
            let operands = known.operands.filter(|operands| operands.weight.contains(&slot))?;
            let output = operands.layout.output_axis(slot, rank, |attribute| (node.int)(attribute, 0) != 0)?;
            // Convolutions have at most three spatial axes.
            (op != LayerOp::Gemm || rank == 2).then(|| (StoredKind::Branch, vec![output]))
        }
        _ => None,
    }
}

/// The axes of an operand that only it has of those in the result.
fn einsum_axes(equation: &str, slot: usize, rank: usize) -> Option<Vec<usize>> {
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (operands, result) = equation.split_once("->")?;
    let operands: Vec<&str> = operands.split(',').collect();
    let own = operands.get(slot).filter(|own| own.len() == rank && own.chars().all(char::is_alphabetic))?;
    let others = |letter: char| operands.iter().enumerate().any(|(at, o)| at != slot && o.contains(letter));
    let outputs = |(_, letter): &(usize, char)| result.contains(*letter) && !others(*letter);
    (operands.len() > 1).then(|| own.char_indices().filter(outputs).map(|(axis, _)| axis).collect())
}

/// Constants of the main graph that layers and other readers of weights in a sub-graph read, or in one nested in it.
fn branch_weights(graph: &Graph, body: &GraphProto, add: &mut impl FnMut(ValueId, &str, Vec<usize>)) {
    for node in &body.node {
        let view = View::of_message(node);
        for (slot, name) in node.input.iter().enumerate() {
            let Some(value) = graph.find(name).filter(|&v| !graph.is_reserved(name) && graph.constant(v).is_some())
            else {
                continue;
            };
            let Some(rank) = shape_of(graph, value).map(|shape| shape.len()) else { continue };
            if let Some((_, axes)) = role(&view, slot, rank, |_| true) {
                add(value, node.op_type(), axes);
            }
        }
        for nested in node.subgraphs() {
            branch_weights(graph, nested, add);
        }
    }
}

/// Operators through which a value is only moved or joined with others.
const MOVES: [&str; 9] =
    ["Cast", "Concat", "Expand", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"];

/// Whether a node moves values.
fn moves(node: &Node) -> bool {
    node.domain().is_empty() && MOVES.contains(&node.op())
}

/// Whether a value, moved or joined, multiplies something that is computed without it: rotations by position, gates. What is
/// looked up as well is no such thing: users and items are as precise as each other.
fn is_gate(graph: &Graph, value: ValueId) -> bool {
    let (mut open, mut seen) = (vec![value], HashSet::new());
    while let Some(value) = open.pop() {
        if !seen.insert(value) {
            continue;
        }
        for reader in graph.value(value).uses() {
            let node = graph.node(reader.node);
            if node.is("Mul") {
                let other = node.input(1 - reader.slot.min(1));
                if other.is_some_and(|other| !depends_on(graph, other, &seen) && !is_looked_up(graph, other)) {
                    return true;
                }
            } else if moves(node) {
                open.extend(node.outputs().iter().flatten());
            }
        }
    }
    false
}

/// Whether a value comes, moved or joined, from tables alone.
fn is_looked_up(graph: &Graph, value: ValueId) -> bool {
    let (mut open, mut seen) = (vec![value], HashSet::new());
    while let Some(value) = open.pop() {
        let Some((producer, _)) = graph.value(value).producer() else { return false };
        let node = graph.node(producer);
        let looks_up = node.domain().is_empty() && ["Gather", "GatherND"].contains(&node.op());
        if looks_up && node.input(0).is_some_and(|table| graph.constant(table).is_some()) {
            continue;
        }
        if !moves(node) {
            return false;
        }
        // Axes and shapes beside what is moved are constants.
        let moved = node.inputs().iter().flatten().filter(|&&input| graph.constant(input).is_none());
        open.extend(moved.filter(|&&input| seen.insert(input)));
    }
    true
}

/// Whether a value is constant or computed from one of some values.
fn depends_on(graph: &Graph, value: ValueId, from: &HashSet<ValueId>) -> bool {
    let (mut open, mut seen, mut computed) = (vec![value], HashSet::new(), false);
    while let Some(value) = open.pop() {
        if from.contains(&value) {
            return true;
        }
        computed |= graph.initializer(value).is_none() && graph.value(value).producer().is_none();
        if let Some((producer, _)) = graph.value(value).producer().filter(|_| seen.insert(value)) {
            open.extend(graph.node(producer).inputs().iter().flatten());
        }
    }
    !computed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{import, text};

    fn found(body: &str) -> Vec<(String, StoredKind, Vec<usize>, Option<&'static str>)> {
        let text = format!("<ir_version: 8, opset_import: [\"\": 17, \"com.microsoft\": 1]>\n{body}");
        let model = import(text::parse(&text).unwrap()).unwrap();
        let weights = stored_weights(&model).into_iter();
        weights.map(|w| (w.name, w.kind, w.axes, w.refusal)).collect()
    }

    #[test]
    fn tables_have_scales_along_the_axis_looked_up() {
        let body = "g (int64[n] i, float[n, 80] x) => (float[n, 80] y, float[80, n] z)
<float[100, 80] t = {}, float[80, 100] u = {}> { y = Gather(t, i) z = Gather<axis = -1>(u, i) }";
        let embedding = |name: &str, axis| (name.to_owned(), StoredKind::Embedding, vec![axis], None);
        assert_eq!(found(body), [embedding("t", 0), embedding("u", 1)]);
    }

    #[test]
    fn blocks_are_whole_and_lie_along_rows() {
        let text = "<ir_version: 8, opset_import: [\"\": 17]> g (int64[n] i) => (float[n, 96] y, float[96, n] z)
<float[100, 96] t = {}, float[96, 100] u = {}> { y = Gather(t, i) z = Gather<axis = 1>(u, i) }";
        let mut found = stored_weights(&import(text::parse(text).unwrap()).unwrap());
        let fitting = |weight: &StoredWeight| [16, 32, 64, 96].map(|block| weight.has_blocks(block));
        assert_eq!([fitting(&found[0]), fitting(&found[1])], [[true, true, false, false], [false; 4]]);
        assert_eq!((found[0].scale_shape(), found[0].scales()), (vec![100, 1], 100));
        found[0].block = Some(32);
        assert_eq!((found[0].scale_shape(), found[0].scales()), (vec![100, 3], 300));
    }

    #[test]
    fn tables_of_matrices_have_scales_by_more_than_one_axis() {
        let text = "<ir_version: 8, opset_import: [\"\": 17]> g (int64[n] i, float[n,1,96] x) => (float[n,1,64] y)
<float[8,96,64] t = {}> { e = Gather(t, i) y = MatMul(x, e) }";
        let mut found = stored_weights(&import(text::parse(text).unwrap()).unwrap());
        let table = &mut found[0];
        assert_eq!((&table.axes[..], table.along, table.matrices), (&[0, 2][..], Some(0), true));
        assert_eq!((table.scale_shape(), table.scales()), (vec![8, 1, 64], 512));
        assert_eq!([16, 32, 64].map(|block| table.has_blocks(block)), [true, true, false]);
        table.block = Some(32);
        assert_eq!((table.scale_shape(), table.scales()), (vec![8, 96, 2], 1536));
    }

    #[test]
    fn rotations_and_small_tables_are_refused() {
        let body = "g (int64[n] i, float[n, 80] x) => (float[n, 80] y, float[n, 4] z)
<float[100, 80] t = {}, float[10, 4] small = {}, float[80, 200] w = {}>
{ c = Gather(t, i) d = Identity(c) y = Mul(x, d) z = Gather(small, i) p = MatMul(y, w) }";
        let refusals: Vec<_> = found(body).into_iter().map(|(.., refusal)| refusal.unwrap()).collect();
        assert_eq!(
            refusals,
            ["what is looked up multiplies an activation", "integers and scales would take more than 0.6 of its bytes"]
        );
    }

    #[test]
    fn tables_that_multiply_each_other_or_are_most_of_the_model_are_stored() {
        let users = "g (int64[n] i, int64[n] j, float[n, 80] x) => (float[n, 80] y, float[n, 200] p)
<float[100, 80] t = {}, float[100, 80] u = {}, float[80, 200] w = {}>
{ a = Gather(t, i) b = Gather(u, j) c = Identity(b) y = Mul(a, c) p = MatMul(x, w) }";
        assert_eq!(found(users).into_iter().map(|(.., refusal)| refusal).collect::<Vec<_>>(), [None, None]);
        let most = "g (int64[n] i, float[n, 80] x) => (float[n, 80] y) <float[100, 80] t = {}, float[80] w = {}>
{ a = Gather(t, i) b = Mul(x, w) y = Mul(a, b) }";
        assert_eq!(found(most)[0].3, None);
    }

    #[test]
    fn normalization_of_what_is_looked_up_is_no_gate() {
        let body = "g (int64[n] i) => (float[n, 80] y)
<float[100, 80] t = {}, float two = {2}, float[80] gain = {}> { c = Gather(t, i) p = Pow(c, two)
m = ReduceMean<axes = [-1]>(p) s = Sqrt(m) r = Reciprocal(s) n = Mul(c, r) y = Mul(n, gain) }";
        assert_eq!(found(body)[0].3, None);
    }

    #[test]
    fn recurrent_weights_and_einsum() {
        let body = "g (float[t, n, 32] x) => (float[t, 1, n, 32] y, float[t, n, 48] z)
<float[1, 128, 32] w = {}, float[1, 128, 32] r = {}, float[32, 48] e = {}>
{ y = LSTM<hidden_size = 32>(x, w, r) z = Einsum<equation = \"tnk,kj->tnj\">(x, e) }";
        let recurrent = |name: &str| (name.to_owned(), StoredKind::Recurrent, vec![0, 1], None);
        let einsum = ("e".to_owned(), StoredKind::Operator, vec![1], None);
        assert_eq!(found(body), [recurrent("w"), recurrent("r"), einsum]);
    }

    #[test]
    fn layers_in_branches_count_and_those_outside_do_not() {
        let body = "g (float[n, 32] x, bool c) => (float[n, 40] y)
<float[32, 32] v = {}, float[32, 40] w = {}> { h = MatMul(x, v)
y = If<then_branch = t () => (float[n, 40] a) { a = MatMul(h, w) }, else_branch = e () => (float[n, 40] b)
{ k = Relu(h) b = MatMul(k, w) }>(c) }";
        assert_eq!(found(body), [("w".to_owned(), StoredKind::Branch, vec![1], None)]);
    }
}
