//! Decoding of words: by tables, or one by one.
//!
//! *Tables* have a row for each of the 65,536 words: one index per byte of the strings, whatever number of weights it holds.
//! *One by one*, the windows of every word are computed, as int32, which takes 8 bytes of memory and more per weight while a
//! model loads but fewer operators in the file.

use super::Kind;
use super::parts::{Part, period};
use crate::ir::{AttributeProto, FunctionProto, Graph, TensorProto, ValueId};
use crate::pass::PassError;
use crate::quantize::pack_weights::function::function_of;
use crate::quantize::pack_weights::unpack::scalar;
use crate::quantize::trellis::{TrellisCode, TrellisRate, WINDOWS};
use std::collections::HashMap;

/// Words of two bytes.
const WORDS: i32 = 1 << 16;

/// Constants and tables of a graph, each written once.
#[derive(Debug, Default)]
pub(super) struct Shared {
    tables: HashMap<(TrellisRate, Vec<usize>), ValueId>,
    entries: HashMap<TrellisRate, ValueId>,
    shifts: HashMap<Vec<usize>, ValueId>,
    places: HashMap<(Vec<usize>, Vec<i32>), ValueId>,
    factors: Option<ValueId>,
    windows: Option<ValueId>,
}

impl Shared {
    pub(super) fn places(&mut self, graph: &mut Graph, shape: Vec<usize>, values: Vec<i32>) -> ValueId {
        let new = |(shape, values): &(Vec<usize>, Vec<i32>)| {
            graph.add_initializer(TensorProto::from_i32("places", shape, values))
        };
        *self.places.entry((shape, values)).or_insert_with_key(new)
    }

    /// Twice the place of the byte before, and that of the byte.
    pub(super) fn triples(&mut self, graph: &mut Graph, part: &Part, kind: Kind) -> ValueId {
        let bytes = kind.rate.bytes(kind.length);
        let triple = |at: &usize| [(at + bytes - 1) % bytes, (at + bytes - 1) % bytes, *at].map(|at| at as i32);
        self.places(graph, vec![part.bytes.len(), 3], part.bytes.iter().flat_map(triple).collect())
    }

    /// 256·previous + byte, `[B, 1, columns]`.
    fn words(&mut self, graph: &mut Graph, strings: ValueId, triples: ValueId) -> ValueId {
        // A factor of 256 has no place in a byte, but in two. All are uint8: with int8 some processors saturate.
        let factors = *self
            .factors
            .get_or_insert_with(|| graph.add_initializer(TensorProto::from_u8("factors", &[1, 3], &[128, 128, 1])));
        let triples = gather(graph, strings, triples, 0, "triples");
        graph.add_op("MatMulInteger", &[Some(factors), Some(triples)], Vec::new(), "words")
    }

    /// The weights of all windows of the strings by tables, `[B / P, 1, columns, windows of P bytes]`.
    pub(super) fn looked_up(
        &mut self,
        graph: &mut Graph,
        strings: ValueId,
        triples: &[ValueId],
        parts: &[Part],
        rate: TrellisRate,
    ) -> ValueId {
        let mut decoded = Vec::with_capacity(parts.len());
        for (part, &triples) in parts.iter().zip(triples) {
            let key = (rate, part.ends.clone());
            let table = match self.tables.get(&key) {
                Some(&table) => table,
                None => self.table(graph, rate, &part.ends),
            };
            self.tables.insert(key, table);
            let words = self.words(graph, strings, triples);
            decoded.push(gather(graph, table, words, 0, "windows"));
        }
        if let [one] = decoded[..] {
            return one;
        }
        let decoded: Vec<Option<ValueId>> = decoded.into_iter().map(Some).collect();
        graph.add_op("Concat", &decoded, vec![AttributeProto::int("axis", 3)], "windows")
    }

    /// The weights of windows of every byte one by one, `[B, windows of a byte, columns]`, and the ends of those windows.
    pub(super) fn computed(&mut self, graph: &mut Graph, strings: ValueId, kind: Kind) -> (ValueId, Vec<usize>) {
        let ends = match &mut period(kind.rate)[..] {
            [only] => std::mem::take(only),
            _ => (1..=8).collect(),
        };
        let every = Part { bytes: (0..kind.rate.bytes(kind.length)).collect(), ends };
        let triples = self.triples(graph, &every, kind);
        let words = self.words(graph, strings, triples);
        let windows = self.of_words(graph, words, &every.ends);
        let entries = self.entries(graph, kind.rate);
        (gather(graph, entries, windows, 0, "windows"), every.ends)
    }

    /// The table of all words: row w holds the weights of the windows that end in the low byte of w.
    fn table(&mut self, graph: &mut Graph, rate: TrellisRate, ends: &[usize]) -> ValueId {
        let [start, limit, step] = [("zero", 0), ("words", WORDS), ("one", 1)].map(|(name, v)| scalar(graph, name, v));
        let words = graph.add_op("Range", &[Some(start), Some(limit), Some(step)], Vec::new(), "word");
        let windows = self.of_words(graph, words, ends);
        let windows = graph.add_op("Transpose", &[Some(windows)], Vec::new(), "window");
        let entries = self.entries(graph, rate);
        graph.add_op("Gather", &[Some(entries), Some(windows)], Vec::new(), "table")
    }

    /// The windows that end in the low bytes of words, along a new axis before the last.
    fn of_words(&mut self, graph: &mut Graph, words: ValueId, ends: &[usize]) -> ValueId {
        let shifts = *self.shifts.entry(ends.to_vec()).or_insert_with_key(|ends| {
            let shifts: Vec<i32> = ends.iter().map(|end| 1 << (8 - end)).collect();
            graph.add_initializer(TensorProto::from_i32("shifts", &[shifts.len(), 1], &shifts))
        });
        let shifted = graph.add_op("Div", &[Some(words), Some(shifts)], Vec::new(), "shifted");
        let windows = *self.windows.get_or_insert_with(|| scalar(graph, "windows", WINDOWS as i32));
        graph.add_op("Mod", &[Some(shifted), Some(windows)], Vec::new(), "window")
    }

    fn entries(&mut self, graph: &mut Graph, rate: TrellisRate) -> ValueId {
        *self.entries.entry(rate).or_insert_with(|| {
            let (stem, entries) = (format!("table{}", rate.quarters()), TrellisCode::new(rate).table());
            graph.add_initializer(TensorProto::from_i8(&stem, &[entries.len()], entries))
        })
    }
}

pub(super) fn gather(graph: &mut Graph, of: ValueId, places: ValueId, axis: i64, output: &str) -> ValueId {
    let attributes = if axis == 0 { Vec::new() } else { vec![AttributeProto::int("axis", axis)] };
    graph.add_op("Gather", &[Some(of), Some(places)], attributes, output)
}

/// The function that decodes strings of a rate.
pub(super) fn define(name: &str, parts: &[Part], rate: TrellisRate, opset: i64) -> Result<FunctionProto, PassError> {
    let mut body = Graph::default();
    let strings = body.add_value("strings");
    let triples: Vec<ValueId> = parts.iter().map(|_| body.add_value("triples")).collect();
    let output = Shared::default().looked_up(&mut body, strings, &triples, parts, rate);
    let inputs: Vec<ValueId> = std::iter::once(strings).chain(triples).collect();
    function_of(name, body, &inputs, output, opset)
}
