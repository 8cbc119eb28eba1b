//! Weights of a trellis code ([`crate::quantize::trellis`]): strings of bits, and the operators that decode them.
//!
//! A weight `[outer, n, inner]`, n its output channels, is a matrix of outer·inner columns of n integers, each a circular
//! string of B bytes. The window of an element ends in one byte and begins in that byte or the one before it, so it is in
//! the word 256·previous + byte:
//!
//! ```text
//! table  = Gather(T, Range(0, 65536) / 2^(8 − end) mod 256)           [65536, m], once per set of ends
//! triples = Gather(strings, [[B−1, B−1, 0], [0, 0, 1], …])             [B, 3, columns]
//! words  = MatMulInteger([[128, 128, 1]], triples)                     [B, 1, columns]: 256·previous + byte
//! windows = Gather(table, words)                                       [B, 1, columns, m]
//! pool   = Reshape(Transpose(windows))                                 [B·m, columns] or [columns, B·m]
//! ```
//!
//! Strings lie side by side, `[B, columns]`, so that the bytes of all columns move at once.
//!
//! Windows end at the same places in every P-th byte: P = 1 for 1, 2 and 4 bits, 3 for 3 bits. Where columns are whole
//! periods, the bytes of each of these P kinds are decoded apart, with a table of their own, and joined by `Concat`. Columns of
//! other lengths are decoded with all 8 windows of every byte, of which a `Gather` picks.
//!
//! Weights of one rate whose columns are equally long share a pool, unless they are large. Where channels come first, as for
//! `Conv`, channels are the first axis of the pool; where they come last, as for `MatMul`, the last.

use super::function::{call_named, function_of};
use super::unpack::{reshape, scalar, split};
use super::{ALONE, DOMAIN, Weight};
use crate::ir::{AttributeProto, FunctionProto, Graph, Model, TensorProto, ValueId};
use crate::pass::PassError;
use crate::quantize::trellis::{TrellisCode, TrellisRate};
use indexmap::IndexMap;
use std::collections::HashMap;

/// Words of two bytes.
const WORDS: i32 = 1 << 16;

/// The place of the channels among the axes of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Channels {
    First,
    Last,
    Between { outer: usize, inner: usize },
}

/// A weight as strings.
pub(super) struct Coded<'a> {
    weight: &'a Weight,
    channels: Channels,
    columns: usize,
    strings: Vec<u8>,
}

/// What the weights of a pool have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    rate: TrellisRate,
    /// Integers in a column.
    length: usize,
    /// Whether channels are the first axis.
    first: bool,
}

impl<'a> Coded<'a> {
    /// The weight as strings along whichever axis takes the fewest bytes of those that its integers are coded along;
    /// `None` where there is no such axis, or no byte is saved.
    pub(super) fn new(weight: &'a Weight, rate: TrellisRate) -> Option<(Kind, Self)> {
        let code = TrellisCode::new(rate);
        let bytes = |axis: usize| weight.integers.len() / weight.shape[axis] * rate.bytes(weight.shape[axis]);
        let mut axes: Vec<usize> = (0..weight.shape.len()).filter(|&a| bytes(a) < weight.integers.len()).collect();
        axes.sort_by_key(|&axis| bytes(axis));
        axes.into_iter().find_map(|axis| {
            let length = weight.shape[axis];
            let inner: usize = weight.shape[axis + 1..].iter().product();
            let (strings, columns) = strings(&code, &weight.integers, length, inner)?;
            let outer = columns / inner;
            let channels = match (outer, inner) {
                (1, _) => Channels::First,
                (_, 1) => Channels::Last,
                _ => Channels::Between { outer, inner },
            };
            let first = channels == Channels::First;
            Some((Kind { rate, length, first }, Self { weight, channels, columns, strings }))
        })
    }
}

/// The strings of all columns, and the number of these.
fn strings(code: &TrellisCode, integers: &[i8], length: usize, inner: usize) -> Option<(Vec<u8>, usize)> {
    let mut strings = Vec::with_capacity(integers.len() / 2);
    let columns = integers.chunks(length * inner).flat_map(|part| (0..inner).map(move |at| (part, at)));
    let mut count = 0;
    for (part, at) in columns {
        let column: Vec<i8> = part.iter().skip(at).step_by(inner).copied().collect();
        strings.extend(code.pack(&column)?);
        count += 1;
    }
    Some((strings, count))
}

/// The bytes of strings that windows end in at the same places.
#[derive(Clone, Debug)]
struct Part {
    /// Their places in a string.
    bytes: Vec<usize>,
    /// Bits of such a byte up to the end of a window, 1 to 8.
    ends: Vec<usize>,
}

/// Writes decoding into a model; what several pools need is written once.
pub(super) struct Decoder<'a> {
    model: &'a mut Model,
    functions: bool,
    shared: Shared,
}

/// Constants and tables of a graph, each written once.
#[derive(Debug, Default)]
struct Shared {
    tables: HashMap<(TrellisRate, Vec<usize>), ValueId>,
    places: HashMap<(Vec<usize>, Vec<i32>), ValueId>,
    factors: Option<ValueId>,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(model: &'a mut Model, functions: bool) -> Self {
        Self { model, functions, shared: Shared::default() }
    }

    /// Writes all weights, pool by pool.
    pub(super) fn write(mut self, weights: Vec<(Kind, Coded)>) -> Result<(), PassError> {
        let mut kinds: IndexMap<Kind, Vec<Coded>> = IndexMap::new();
        for (kind, coded) in weights {
            kinds.entry(kind).or_default().push(coded);
        }
        for (kind, coded) in kinds {
            let (alone, shared): (Vec<Coded>, Vec<Coded>) =
                coded.into_iter().partition(|one| one.weight.integers.len() >= ALONE);
            for pool in alone.chunks(1).chain([&shared[..]]).filter(|pool| !pool.is_empty()) {
                self.pool(kind, pool)?;
            }
        }
        Ok(())
    }

    fn pool(&mut self, kind: Kind, coded: &[Coded]) -> Result<(), PassError> {
        let columns: Vec<i64> = coded.iter().map(|one| one.columns as i64).collect();
        let parts = parts(kind.rate, kind.length);
        let strings = self.strings(kind, coded);
        let triples: Vec<ValueId> =
            parts.iter().map(|part| self.shared.triples(&mut self.model.graph, part, kind)).collect();
        let windows = self.decode(strings, &triples, &parts, kind.rate)?;
        let graph = &mut self.model.graph;
        let order = if kind.first { [0, 1, 3, 2] } else { [2, 0, 1, 3] };
        let order = vec![AttributeProto::ints("perm", &order)];
        let decoded = graph.add_op("Transpose", &[Some(windows)], order, "decoded");
        // All windows, as many as there are weights where none has to be picked.
        let count: usize = parts.iter().map(|part| part.bytes.len() * part.ends.len()).sum();
        let whole = coded.len() == 1 && count == kind.length;
        let pieces = if whole {
            vec![decoded]
        } else {
            let all = [count as i64, columns.iter().sum()];
            let all = if kind.first { all } else { [all[1], all[0]] };
            let flat = reshape(graph, decoded, &all, "decoded");
            let picked = self.picked(flat, kind, &parts, count);
            let graph = &mut self.model.graph;
            if let [_] = coded { vec![picked] } else { split(graph, picked, &columns, i64::from(kind.first)) }
        };
        let graph = &mut self.model.graph;
        for (one, piece) in coded.iter().zip(pieces) {
            let arranged = one.arranged(graph, piece, kind.length, whole);
            graph.replace_uses(one.weight.value, arranged);
            graph.remove_value(one.weight.value);
        }
        Ok(())
    }

    /// The strings of a pool side by side, `[B, columns]`.
    fn strings(&mut self, kind: Kind, coded: &[Coded]) -> ValueId {
        let bytes = kind.rate.bytes(kind.length);
        let strings: Vec<&[u8]> = coded.iter().flat_map(|one| one.strings.chunks(bytes)).collect();
        let across: Vec<u8> = (0..bytes).flat_map(|at| strings.iter().map(move |string| string[at])).collect();
        let stem = format!("trellis{}", kind.rate.quarters());
        self.model.graph.add_initializer(TensorProto::from_u8(&stem, &[bytes, strings.len()], &across))
    }

    /// All windows of the words, as written or behind a function.
    fn decode(
        &mut self,
        strings: ValueId,
        triples: &[ValueId],
        parts: &[Part],
        rate: TrellisRate,
    ) -> Result<ValueId, PassError> {
        if !self.functions {
            return Ok(self.shared.windows(&mut self.model.graph, strings, triples, parts, rate));
        }
        let periodic = parts.len() == period(rate).len();
        let name = format!("Trellis{}{}", rate.quarters(), if periodic { "" } else { "Any" });
        if !self.model.is_function(DOMAIN, &name) {
            let function = define(&name, parts, rate, self.model.opset("").unwrap_or_default())?;
            self.model.add_function(function);
            self.model.set_opset(DOMAIN, 1);
        }
        let inputs: Vec<ValueId> = std::iter::once(strings).chain(triples.iter().copied()).collect();
        Ok(call_named(&mut self.model.graph, &name, &inputs, "windows"))
    }

    /// The windows that there are weights for.
    fn picked(&mut self, all: ValueId, kind: Kind, parts: &[Part], count: usize) -> ValueId {
        if count == kind.length {
            return all;
        }
        // Otherwise there is one part: windows of every byte, at the same ends.
        let ends = parts.first().map_or(&[][..], |part| &part.ends);
        let place = |i: usize| {
            let last = kind.rate.end(i) - 1;
            last / 8 * ends.len() + ends.iter().position(|end| *end == last % 8 + 1).unwrap_or(0)
        };
        let places = (0..kind.length).map(|i| place(i) as i32).collect();
        let places = self.shared.places(&mut self.model.graph, vec![kind.length], places);
        gather(&mut self.model.graph, all, places, i64::from(!kind.first), "picked")
    }
}

impl Shared {
    fn places(&mut self, graph: &mut Graph, shape: Vec<usize>, values: Vec<i32>) -> ValueId {
        let new = |(shape, values): &(Vec<usize>, Vec<i32>)| {
            graph.add_initializer(TensorProto::from_i32("places", shape, values))
        };
        *self.places.entry((shape, values)).or_insert_with_key(new)
    }

    /// Twice the place of the byte before, and that of the byte.
    fn triples(&mut self, graph: &mut Graph, part: &Part, kind: Kind) -> ValueId {
        let bytes = kind.rate.bytes(kind.length);
        let triple = |at: &usize| [(at + bytes - 1) % bytes, (at + bytes - 1) % bytes, *at].map(|at| at as i32);
        self.places(graph, vec![part.bytes.len(), 3], part.bytes.iter().flat_map(triple).collect())
    }

    /// The weights of all windows of the strings, `[B / P, 1, columns, windows of P bytes]`.
    fn windows(
        &mut self,
        graph: &mut Graph,
        strings: ValueId,
        triples: &[ValueId],
        parts: &[Part],
        rate: TrellisRate,
    ) -> ValueId {
        // A factor of 256 has no place in a byte, but in two. All are uint8: with int8 some processors saturate.
        let factors = *self
            .factors
            .get_or_insert_with(|| graph.add_initializer(TensorProto::from_u8("factors", &[1, 3], &[128, 128, 1])));
        let mut decoded = Vec::with_capacity(parts.len());
        for (part, &triples) in parts.iter().zip(triples) {
            let table = *self.tables.entry((rate, part.ends.clone())).or_insert_with(|| table(graph, rate, &part.ends));
            let triples = gather(graph, strings, triples, 0, "triples");
            let words = graph.add_op("MatMulInteger", &[Some(factors), Some(triples)], Vec::new(), "words");
            decoded.push(gather(graph, table, words, 0, "windows"));
        }
        if let [one] = decoded[..] {
            return one;
        }
        let decoded: Vec<Option<ValueId>> = decoded.into_iter().map(Some).collect();
        graph.add_op("Concat", &decoded, vec![AttributeProto::int("axis", 3)], "windows")
    }
}

impl Coded<'_> {
    /// The weight out of its columns, in the order of `[n, columns]` where channels come first, else of `[columns, n]`;
    /// `loose` where they do not have that shape.
    fn arranged(&self, graph: &mut Graph, piece: ValueId, length: usize, loose: bool) -> ValueId {
        let mut value = piece;
        if let Channels::Between { outer, inner } = self.channels {
            let split = [outer, inner, length].map(|n| n as i64);
            value = reshape(graph, value, &split, "columns");
            let order = vec![AttributeProto::ints("perm", &[0, 2, 1])];
            value = graph.add_op("Transpose", &[Some(value)], order, "channels");
        } else {
            let first = self.channels == Channels::First;
            let shape = if first { [length, self.columns] } else { [self.columns, length] };
            if !loose && self.weight.shape[..] == shape {
                return value;
            }
        }
        reshape(graph, value, &self.weight.dims(), "integers")
    }
}

/// The ends of windows in each byte of a period.
fn period(rate: TrellisRate) -> Vec<Vec<usize>> {
    let mut ends: Vec<Vec<usize>> = Vec::new();
    for i in 0.. {
        let end = rate.end(i);
        ends.resize(ends.len().max(end.div_ceil(8)), Vec::new());
        ends[(end - 1) / 8].push((end - 1) % 8 + 1);
        // Where windows end with a byte at a whole number of bits, everything begins anew.
        if end.is_multiple_of(8) && ((i + 1) * usize::from(rate.quarters())).is_multiple_of(4) {
            break;
        }
    }
    ends
}

/// The bytes of a column, by the ends of their windows.
fn parts(rate: TrellisRate, length: usize) -> Vec<Part> {
    let (bytes, period) = (rate.bytes(length), period(rate));
    let whole = bytes % period.len() == 0 && rate.end(length - 1) == 8 * bytes;
    if whole || period.len() == 1 {
        let every = period.len();
        let part = |(at, ends)| Part { bytes: (at..bytes).step_by(every).collect(), ends };
        return period.into_iter().enumerate().map(part).collect();
    }
    vec![Part { bytes: (0..bytes).collect(), ends: (1..=8).collect() }]
}

/// The table of all words: row w holds the weights of the windows that end in the low byte of w.
fn table(graph: &mut Graph, rate: TrellisRate, ends: &[usize]) -> ValueId {
    let shifts: Vec<i32> = ends.iter().map(|end| 1 << (8 - end)).collect();
    let stem = format!("table{}", rate.quarters());
    let entries = TrellisCode::new(rate).table();
    let entries = graph.add_initializer(TensorProto::from_i8(&stem, &[entries.len()], entries));
    let [start, limit, step] = [("zero", 0), ("words", WORDS), ("one", 1)].map(|(name, v)| scalar(graph, name, v));
    let mut value = graph.add_op("Range", &[Some(start), Some(limit), Some(step)], Vec::new(), "word");
    let shifts = graph.add_initializer(TensorProto::from_i32("shifts", &[shifts.len(), 1], &shifts));
    value = graph.add_op("Div", &[Some(value), Some(shifts)], Vec::new(), "shifted");
    let windows = scalar(graph, "windows", 256);
    value = graph.add_op("Mod", &[Some(value), Some(windows)], Vec::new(), "window");
    value = graph.add_op("Transpose", &[Some(value)], Vec::new(), "window");
    graph.add_op("Gather", &[Some(entries), Some(value)], Vec::new(), "table")
}

fn gather(graph: &mut Graph, of: ValueId, places: ValueId, axis: i64, output: &str) -> ValueId {
    let attributes = if axis == 0 { Vec::new() } else { vec![AttributeProto::int("axis", axis)] };
    graph.add_op("Gather", &[Some(of), Some(places)], attributes, output)
}

/// The function that decodes strings of a rate.
fn define(name: &str, parts: &[Part], rate: TrellisRate, opset: i64) -> Result<FunctionProto, PassError> {
    let mut body = Graph::default();
    let strings = body.add_value("strings");
    let triples: Vec<ValueId> = parts.iter().map(|_| body.add_value("triples")).collect();
    let output = Shared::default().windows(&mut body, strings, &triples, parts, rate);
    let inputs: Vec<ValueId> = std::iter::once(strings).chain(triples).collect();
    function_of(name, body, &inputs, output, opset)
}
