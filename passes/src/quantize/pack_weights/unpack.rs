//! The graph side of packing: the operators that turn planes of bytes back into integers. These operators read only
//! constants, so runtimes evaluate them once, when they load a model.
//!
//! * table: `Range(B^g)` divided by the powers of B, modulo B: row w holds the digits of the word w;
//! * words: the low bytes, plus the higher planes unpacked by tables of the same kind;
//! * `Gather(table, words)`: the digits of all words.
//!
//! Indices are int32; per weight they take less memory than the resulting int8, except at 4 bits, where they take twice
//! as much. Only operators that every runtime supports for these types since opset 13 are used: no shifts, no
//! arithmetic on 8 bits.

use super::code::Code;
use crate::ir::{AttributeProto, DataType, Graph, NodeProto, TensorProto, ValueId};
use std::collections::HashMap;

/// A table of digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Table {
    base: usize,
    digits: usize,
    /// The factor of every digit.
    step: i32,
    /// The number added to the product.
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
    /// Adds the planes to the graph.
    pub(super) fn planes(graph: &mut Graph, stem: &str, planes: &[Vec<u8>]) -> Vec<ValueId> {
        const NAMES: [&str; 3] = ["low", "high", "top"];
        let named = planes.iter().zip(NAMES);
        named
            .map(|(plane, name)| {
                let tensor = TensorProto::from_u8(&format!("{stem}_{name}"), &[plane.len()], plane);
                graph.add_initializer(tensor)
            })
            .collect()
    }

    /// Integers from planes, q = digit + low, shape `[words, digits]`.
    pub(super) fn integers(&mut self, graph: &mut Graph, planes: &[ValueId], code: Code, low: i32) -> ValueId {
        let Code { base, digits, .. } = code;
        let table = self.table(graph, Table { base, digits, step: 1, offset: low, element: DataType::Int8 });
        let words = self.words(graph, planes, code);
        graph.add_op("Gather", &[Some(table), Some(words)], Vec::new(), "unpacked")
    }

    /// Entries of a codebook from planes of their numbers, shape `[words, digits]`.
    pub(super) fn entries(&mut self, graph: &mut Graph, planes: &[ValueId], code: Code, codebook: ValueId) -> ValueId {
        let Code { base, digits, .. } = code;
        let numbers = self.table(graph, Table { base, digits, step: 1, offset: 0, element: DataType::Int32 });
        let table = graph.add_op("Gather", &[Some(codebook), Some(numbers)], Vec::new(), "codebook_table");
        let words = self.words(graph, planes, code);
        graph.add_op("Gather", &[Some(table), Some(words)], Vec::new(), "unpacked")
    }

    /// The words as int32.
    fn words(&mut self, graph: &mut Graph, planes: &[ValueId], code: Code) -> ValueId {
        let mut words = cast(graph, planes[0], DataType::Int32, "words");
        let mut shift = 8;
        for (&plane, &bits) in planes[1..].iter().zip(code.high) {
            let (base, digits, step) = (1 << bits, 8 / bits, 1 << shift);
            let table = self.table(graph, Table { base, digits, step, offset: 0, element: DataType::Int32 });
            let indices = cast(graph, plane, DataType::Int32, "indices");
            let part = graph.add_op("Gather", &[Some(table), Some(indices)], Vec::new(), "part");
            let part = flatten(graph, part);
            words = graph.add_op("Add", &[Some(words), Some(part)], Vec::new(), "words");
            shift += bits;
        }
        words
    }

    fn table(&mut self, graph: &mut Graph, table: Table) -> ValueId {
        *self.tables.entry(table).or_insert_with(|| table.write(graph))
    }
}

impl Table {
    /// Digit k of the word w is w / B^k mod B: as `[digits, words]` and then transposed.
    fn write(self, graph: &mut Graph) -> ValueId {
        let rows = self.base.pow(self.digits as u32) as i32;
        let powers: Vec<i32> = (0..self.digits).map(|k| self.base.pow(k as u32) as i32).collect();
        let [start, limit, step] = [("zero", 0), ("rows", rows), ("one", 1)].map(|(n, v)| scalar(graph, n, v));
        let mut value = graph.add_op("Range", &[Some(start), Some(limit), Some(step)], Vec::new(), "row");
        let powers = graph.add_initializer(TensorProto::from_i32("powers", &[self.digits, 1], &powers));
        value = graph.add_op("Div", &[Some(value), Some(powers)], Vec::new(), "shifted");
        let base = scalar(graph, "base", self.base as i32);
        value = graph.add_op("Mod", &[Some(value), Some(base)], Vec::new(), "digit");
        if self.step != 1 {
            let step = scalar(graph, "step", self.step);
            value = graph.add_op("Mul", &[Some(value), Some(step)], Vec::new(), "scaled_digit");
        }
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
    graph.add_op("Cast", &[Some(value)], vec![AttributeProto::int("to", i64::from(to.number()))], output)
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
