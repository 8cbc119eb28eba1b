//! The graph side of packing: the operators that turn words back into integers. These operators read only constants, so
//! runtimes evaluate them once, when they load a model.
//!
//! * table: `Range(rows)` divided by the powers of B, modulo B: row w holds the digits of the word w;
//! * `Gather(table, words)`: the digits of all words;
//! * groups: `MatMul(words / B^g, [1, 2^s, …])` is the word of the additional row.
//!
//! onnxruntime keeps what it folds until everything is folded, so every operator on all weights costs memory while a model
//! loads: the int32 indices 32 bits per word, each operator on the integers one byte per weight. Only operators that
//! every runtime supports for these types since opset 13 are used: no shifts, no arithmetic on 8 bits.

use super::code::Code;
use crate::ir::{AttributeProto, DataType, Graph, NodeProto, TensorProto, ValueId};
use std::collections::HashMap;

/// A table of digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Table {
    base: usize,
    digits: usize,
    rows: usize,
    /// The number added to every digit.
    offset: i32,
    /// int32 for a table of indices, int8 for a table of weights.
    element: DataType,
}

/// Writes unpacking into a graph; equal tables are written once.
#[derive(Debug, Default)]
pub(super) struct Unpacker {
    tables: HashMap<Table, ValueId>,
}

impl Unpacker {
    /// Adds the words of the digits to the graph.
    pub(super) fn words(graph: &mut Graph, name: &str, code: Code, digits: &[usize]) -> ValueId {
        let words = code.pack(digits);
        let raw: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes().into_iter().take(code.width)).collect();
        let element = if code.width == 1 { DataType::Uint8 } else { DataType::Uint16 };
        let flat = [words.len()];
        let groups = [words.len() / code.group.max(1), code.group];
        let shape = if code.group == 0 { &flat[..] } else { &groups };
        graph.add_initializer(TensorProto::from_raw(name, element, shape, raw))
    }

    /// Integers from words, q = digit + low, shape `[.., digits]`.
    pub(super) fn integers(&mut self, graph: &mut Graph, words: ValueId, code: Code, low: i32) -> ValueId {
        // Digits of what a word holds above its own are those of its own digits, again: any index has a row.
        let rows = 1 << (8 * code.width);
        let rows = if code.group == 0 { code.rows() } else { rows };
        let table = Table { base: code.base, digits: code.digits, rows, offset: low, element: DataType::Int8 };
        let table = self.table(graph, table);
        let words = cast(graph, words, DataType::Int32, "words");
        decoded(graph, table, words, words, code)
    }

    /// Entries of a codebook from words of their numbers, shape `[.., digits]`.
    pub(super) fn entries(&mut self, graph: &mut Graph, words: ValueId, code: Code, codebook: ValueId) -> ValueId {
        let Code { base, digits, .. } = code;
        let numbers = self.table(graph, Table { base, digits, rows: code.rows(), offset: 0, element: DataType::Int32 });
        let table = graph.add_op("Gather", &[Some(codebook), Some(numbers)], Vec::new(), "codebook_table");
        let words = cast(graph, words, DataType::Int32, "words");
        if code.group == 0 {
            return decoded(graph, table, words, words, code);
        }
        // The table belongs to one layer, so it is kept small.
        let rows = scalar(graph, "rows", code.rows() as i32);
        let own = graph.add_op("Mod", &[Some(words), Some(rows)], Vec::new(), "own");
        decoded(graph, table, words, own, code)
    }

    fn table(&mut self, graph: &mut Graph, table: Table) -> ValueId {
        *self.tables.entry(table).or_insert_with(|| table.write(graph))
    }
}

/// The rows of the words, `own` being the words whose digits count, and those of the groups.
fn decoded(graph: &mut Graph, table: ValueId, words: ValueId, own: ValueId, code: Code) -> ValueId {
    let rows = graph.add_op("Gather", &[Some(table), Some(own)], Vec::new(), "unpacked");
    if code.group == 0 {
        return rows;
    }
    let above = scalar(graph, "rows", code.rows() as i32);
    let free = graph.add_op("Div", &[Some(words), Some(above)], Vec::new(), "free");
    let powers: Vec<i32> = (0..code.group).map(|at| 1 << (at * code.free_bits())).collect();
    let powers = graph.add_initializer(TensorProto::from_i32("parts", &[code.group, 1], &powers));
    let more = graph.add_op("MatMul", &[Some(free), Some(powers)], Vec::new(), "more");
    let more = graph.add_op("Gather", &[Some(table), Some(more)], Vec::new(), "more_unpacked");
    graph.add_op("Concat", &[Some(rows), Some(more)], vec![AttributeProto::int("axis", 1)], "unpacked")
}

impl Table {
    /// Digit k of the word w is w / B^k mod B: as `[digits, words]` and then transposed.
    fn write(self, graph: &mut Graph) -> ValueId {
        let powers: Vec<i32> = (0..self.digits).map(|k| self.base.pow(k as u32) as i32).collect();
        let [start, limit, step] =
            [("zero", 0), ("rows", self.rows as i32), ("one", 1)].map(|(n, v)| scalar(graph, n, v));
        let mut value = graph.add_op("Range", &[Some(start), Some(limit), Some(step)], Vec::new(), "row");
        let powers = graph.add_initializer(TensorProto::from_i32("powers", &[self.digits, 1], &powers));
        value = graph.add_op("Div", &[Some(value), Some(powers)], Vec::new(), "shifted");
        let base = scalar(graph, "base", self.base as i32);
        value = graph.add_op("Mod", &[Some(value), Some(base)], Vec::new(), "digit");
        if self.offset != 0 {
            let offset = scalar(graph, "offset", self.offset);
            value = graph.add_op("Add", &[Some(value), Some(offset)], Vec::new(), "signed_digit");
        }
        value = graph.add_op("Transpose", &[Some(value)], Vec::new(), "table");
        if self.element == DataType::Int32 { value } else { cast(graph, value, self.element, "table") }
    }
}

pub(super) fn scalar(graph: &mut Graph, name: &str, value: i32) -> ValueId {
    graph.add_initializer(TensorProto::from_i32(name, &[], &[value]))
}

pub(super) fn cast(graph: &mut Graph, value: ValueId, to: DataType, output: &str) -> ValueId {
    graph.add_op("Cast", &[Some(value)], vec![AttributeProto::element("to", to)], output)
}

pub(super) fn flatten(graph: &mut Graph, value: ValueId) -> ValueId {
    reshape(graph, value, &[-1], "flat")
}

pub(super) fn reshape(graph: &mut Graph, value: ValueId, shape: &[i64], output: &str) -> ValueId {
    let shape = graph.add_initializer(TensorProto::from_i64("shape", &[shape.len()], shape));
    graph.add_op("Reshape", &[Some(value), Some(shape)], Vec::new(), output)
}

/// Cuts a value along an axis into pieces of these lengths.
pub(super) fn split(graph: &mut Graph, whole: ValueId, lengths: &[i64], axis: i64) -> Vec<ValueId> {
    let sizes = graph.add_initializer(TensorProto::from_i64("lengths", &[lengths.len()], lengths));
    let pieces: Vec<ValueId> = lengths.iter().map(|_| graph.add_value("piece")).collect();
    let outputs: Vec<Option<ValueId>> = pieces.iter().copied().map(Some).collect();
    let attributes = if axis == 0 { Vec::new() } else { vec![AttributeProto::int("axis", axis)] };
    // A name that no other split has: that of its first piece.
    let node = NodeProto::of("Split", graph.value(pieces[0]).name(), attributes);
    graph.add_node(node, &[Some(whole), Some(sizes)], &outputs);
    pieces
}
