//! Weights of a trellis code ([`crate::quantize::trellis`]): strings of bits, and the operators that decode them.
//!
//! A weight `[outer, n, inner]`, n its output channels, is a matrix of outer·inner columns of n integers, each a circular
//! string of B bytes. The window of an element ends in one byte and begins in that byte or the one before it, so it is in
//! the word 256·previous + byte:
//!
//! ```text
//! table  = Gather(T, Range(0, 65536) / 2^(8 − end) mod 256)      [65536, m], once per rate
//! bytes  = Cast<int32>(strings)                                   [columns, B]
//! words  = Gather<axis = 1>(bytes, [B−1, 0, 1, …]) · 256 + bytes
//! pool   = Flatten(Gather(table, words))                          [columns, B·m]
//! ```
//!
//! For 1, 2 and 4 bits the m windows of a byte end at the same places in every byte, and `pool` holds the weights, with
//! those that fill the last byte at its end. For other rates m = 8: all windows, of which a `Gather` picks.
//!
//! Weights of one rate whose columns are equally long share a pool. Where channels come first, as for `Conv`, the pool is
//! transposed as a whole and then cut; where they come last, as for `MatMul`, it is cut as it is.

use super::function::{call_named, function_of};
use super::unpack::{cast, reshape, scalar, split};
use super::{DOMAIN, Weight};
use crate::ir::{AttributeProto, FunctionProto, Graph, Model, TensorProto, ValueId};
use crate::pass::PassError;
use crate::quantize::trellis::{TrellisCode, TrellisRate};
use indexmap::IndexMap;
use std::collections::HashMap;

/// A pool is closed when it holds this many weights, to bound what a runtime unpacks at once.
const POOL: usize = 1 << 20;

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

/// Writes decoding into a model; what several pools need is written once.
pub(super) struct Decoder<'a> {
    model: &'a mut Model,
    functions: bool,
    tables: HashMap<TrellisRate, ValueId>,
    vectors: HashMap<Vec<i32>, ValueId>,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(model: &'a mut Model, functions: bool) -> Self {
        Self { model, functions, tables: HashMap::new(), vectors: HashMap::new() }
    }

    /// Writes all weights, pool by pool.
    pub(super) fn write(mut self, weights: Vec<(Kind, Coded)>) -> Result<(), PassError> {
        let mut kinds: IndexMap<Kind, Vec<Coded>> = IndexMap::new();
        for (kind, coded) in weights {
            kinds.entry(kind).or_default().push(coded);
        }
        for (kind, coded) in kinds {
            let (mut start, mut held) = (0, 0);
            for (at, one) in coded.iter().enumerate() {
                if at > start && held + one.weight.integers.len() > POOL {
                    self.pool(kind, &coded[start..at])?;
                    (start, held) = (at, 0);
                }
                held += one.weight.integers.len();
            }
            self.pool(kind, &coded[start..])?;
        }
        Ok(())
    }

    fn pool(&mut self, kind: Kind, coded: &[Coded]) -> Result<(), PassError> {
        let bytes = kind.rate.bytes(kind.length);
        let columns: Vec<i64> = coded.iter().map(|one| one.columns as i64).collect();
        let strings: Vec<u8> = coded.iter().flat_map(|one| &one.strings).copied().collect();
        let stem = format!("trellis{}", kind.rate.quarters());
        let shape = [strings.len() / bytes, bytes];
        let strings = self.model.graph.add_initializer(TensorProto::from_u8(&stem, &shape, &strings));
        let previous = self.vector((0..bytes).map(|at| ((at + bytes - 1) % bytes) as i32).collect());
        let all = self.decode(strings, previous, kind.rate)?;
        let picked = self.picked(all, kind, bytes);
        let graph = &mut self.model.graph;
        let whole =
            if kind.first { graph.add_op("Transpose", &[Some(picked)], Vec::new(), "channels") } else { picked };
        let pieces = if let [_] = coded { vec![whole] } else { split(graph, whole, &columns, i64::from(kind.first)) };
        for (one, piece) in coded.iter().zip(pieces) {
            let arranged = one.arranged(graph, piece, kind.length);
            graph.replace_uses(one.weight.value, arranged);
            graph.remove_value(one.weight.value);
        }
        Ok(())
    }

    /// All windows of the words, as written or behind a function.
    fn decode(&mut self, strings: ValueId, previous: ValueId, rate: TrellisRate) -> Result<ValueId, PassError> {
        if !self.functions {
            let graph = &mut self.model.graph;
            let table = *self.tables.entry(rate).or_insert_with(|| table(graph, rate));
            return Ok(windows(graph, strings, previous, table));
        }
        let name = format!("Trellis{}", rate.quarters());
        if !self.model.is_function(DOMAIN, &name) {
            let function = define(&name, rate, self.model.opset("").unwrap_or_default())?;
            self.model.add_function(function);
            self.model.set_opset(DOMAIN, 1);
        }
        Ok(call_named(&mut self.model.graph, &name, &[strings, previous], "decoded"))
    }

    /// The columns `[columns, n]` out of all windows.
    fn picked(&mut self, all: ValueId, kind: Kind, bytes: usize) -> ValueId {
        let per_byte = ends(kind.rate).len();
        if per_byte < 8 && per_byte * bytes == kind.length {
            return all;
        }
        let place = |i: usize| if per_byte < 8 { i } else { kind.rate.end(i) - 1 };
        let places = self.vector((0..kind.length).map(|i| place(i) as i32).collect());
        gather(&mut self.model.graph, all, places, 1, "picked")
    }

    fn vector(&mut self, values: Vec<i32>) -> ValueId {
        if let Some(&found) = self.vectors.get(&values) {
            return found;
        }
        let tensor = TensorProto::from_i32("places", &[values.len()], &values);
        let added = self.model.graph.add_initializer(tensor);
        self.vectors.insert(values, added);
        added
    }
}

impl Coded<'_> {
    /// The weight out of its columns, `[n, columns]` where channels come first, else `[columns, n]`.
    fn arranged(&self, graph: &mut Graph, piece: ValueId, length: usize) -> ValueId {
        let mut value = piece;
        if let Channels::Between { outer, inner } = self.channels {
            let split = [outer, inner, length].map(|n| n as i64);
            value = reshape(graph, value, &split, "columns");
            let order = vec![AttributeProto::ints("perm", &[0, 2, 1])];
            value = graph.add_op("Transpose", &[Some(value)], order, "channels");
        } else {
            let first = self.channels == Channels::First;
            let shape = if first { [length, self.columns] } else { [self.columns, length] };
            if self.weight.shape[..] == shape {
                return value;
            }
        }
        reshape(graph, value, &self.weight.dims(), "integers")
    }
}

/// The bits of a byte that windows end behind: those of every byte, or all 8.
fn ends(rate: TrellisRate) -> Vec<usize> {
    let step = usize::from(rate.quarters());
    if 32 % step == 0 && step % 4 == 0 {
        (1..=8).filter(|end| 4 * end % step == 0).collect()
    } else {
        (1..=8).collect()
    }
}

/// The table of all words: row w holds the weights of the windows that end in the low byte of w.
fn table(graph: &mut Graph, rate: TrellisRate) -> ValueId {
    let shifts: Vec<i32> = ends(rate).into_iter().map(|end| 1 << (8 - end)).collect();
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

/// The weights of all windows of the strings, `[columns, B·m]`.
fn windows(graph: &mut Graph, strings: ValueId, previous: ValueId, table: ValueId) -> ValueId {
    let bytes = cast(graph, strings, crate::ir::DataType::Int32, "bytes");
    let before = gather(graph, bytes, previous, 1, "previous");
    let factor = scalar(graph, "windows", 256);
    let high = graph.add_op("Mul", &[Some(before), Some(factor)], Vec::new(), "high");
    let words = graph.add_op("Add", &[Some(high), Some(bytes)], Vec::new(), "words");
    let decoded = gather(graph, table, words, 0, "decoded");
    graph.add_op("Flatten", &[Some(decoded)], Vec::new(), "decoded")
}

fn gather(graph: &mut Graph, of: ValueId, places: ValueId, axis: i64, output: &str) -> ValueId {
    let attributes = if axis == 0 { Vec::new() } else { vec![AttributeProto::int("axis", axis)] };
    graph.add_op("Gather", &[Some(of), Some(places)], attributes, output)
}

/// The function that decodes strings of a rate.
fn define(name: &str, rate: TrellisRate, opset: i64) -> Result<FunctionProto, PassError> {
    let mut body = Graph::default();
    let inputs = ["strings", "previous"].map(|input| body.add_value(input));
    let table = table(&mut body, rate);
    let output = windows(&mut body, inputs[0], inputs[1], table);
    function_of(name, body, &inputs, output, opset)
}
