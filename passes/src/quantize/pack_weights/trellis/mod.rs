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
//! A model of few weights needs no tables, whose operators would be much of its file:
//!
//! ```text
//! windows = Gather(T, words / 2^(8 − end) mod 256)                     [B, m, columns]
//! ```
//!
//! Where windows do not end at the same places in every byte, all 8 of each are decoded, and a `Gather` picks.
//!
//! Weights of one rate whose columns are equally long share a pool, unless they are large. Where channels come first, as for
//! `Conv`, channels are the first axis of the pool; where they come last, as for `MatMul`, the last.

mod parts;
mod tables;

use super::function::call_named;
use super::pieces::{self, Piece};
use super::unpack::reshape;
use super::{ALONE, DOMAIN, Weight};
use crate::ir::{AttributeProto, Graph, Model, TensorProto, ValueId};
use crate::pass::PassError;
use crate::quantize::trellis::{TrellisCode, TrellisRate};
use indexmap::IndexMap;
use parts::{Part, parts, period};
use tables::{Shared, define, gather};

/// A model of fewer weights of trellis codes than this is decoded without tables: their operators would be much of its file,
/// and the memory that decoding takes is little.
const FEW: usize = 1 << 19;

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
    /// The axis of the channels.
    axis: usize,
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
            Some((Kind { rate, length, first }, Self { weight, axis, channels, columns, strings }))
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
    shared: Shared,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(model: &'a mut Model, functions: bool) -> Self {
        Self { model, functions, shared: Shared::default() }
    }

    /// Writes all weights, pool by pool.
    pub(super) fn write(mut self, weights: Vec<(Kind, Coded)>) -> Result<(), PassError> {
        let count: usize = weights.iter().map(|(_, coded)| coded.weight.integers.len()).sum();
        let one_by_one = !self.functions && count < FEW;
        let mut kinds: IndexMap<Kind, Vec<Coded>> = IndexMap::new();
        for (kind, coded) in weights {
            kinds.entry(kind).or_default().push(coded);
        }
        for (kind, coded) in kinds {
            if one_by_one {
                self.pool(kind, &coded, true)?;
                continue;
            }
            let (alone, shared): (Vec<Coded>, Vec<Coded>) =
                coded.into_iter().partition(|one| one.weight.integers.len() >= ALONE);
            for pool in alone.chunks(1).chain([&shared[..]]).filter(|pool| !pool.is_empty()) {
                self.pool(kind, pool, false)?;
            }
        }
        Ok(())
    }

    fn pool(&mut self, kind: Kind, coded: &[Coded], one_by_one: bool) -> Result<(), PassError> {
        let groups = pieces::grouped(coded.iter().map(|one| (one, one.piece())));
        let ordered: Vec<&Coded> = groups.iter().flatten().map(|(one, _)| *one).collect();
        let strings = self.strings(kind, &ordered);
        let columns: usize = ordered.iter().map(|one| one.columns).sum();
        let whole = pieces::is_one(&groups, 0);
        let (pool, loose) = if one_by_one {
            self.computed(kind, strings, columns)
        } else {
            self.looked_up(kind, strings, columns, whole)?
        };
        let graph = &mut self.model.graph;
        // Columns are the last axis where channels come first, else the first.
        let axis = if !kind.first {
            0
        } else if loose {
            2
        } else {
            1
        };
        let alone = |graph: &mut Graph, one: &&Coded, value: ValueId| one.arranged(graph, value, kind.length, loose);
        let dealt = pieces::deal(graph, (pool, axis), &groups, 0, alone);
        for (one, integers) in ordered.into_iter().zip(dealt) {
            graph.replace_uses(one.weight.value, integers);
            graph.remove_value(one.weight.value);
        }
        Ok(())
    }

    /// The pool by tables, and whether it has more axes than channels and columns, which only a `whole` one may.
    fn looked_up(
        &mut self,
        kind: Kind,
        strings: ValueId,
        columns: usize,
        whole: bool,
    ) -> Result<(ValueId, bool), PassError> {
        let parts = parts(kind.rate, kind.length);
        let triples: Vec<ValueId> =
            parts.iter().map(|part| self.shared.triples(&mut self.model.graph, part, kind)).collect();
        let windows = self.decode(strings, &triples, &parts, kind.rate)?;
        let graph = &mut self.model.graph;
        let order = if kind.first { [0, 1, 3, 2] } else { [2, 0, 1, 3] };
        let order = vec![AttributeProto::ints("perm", &order)];
        let decoded = graph.add_op("Transpose", &[Some(windows)], order, "decoded");
        // All windows, as many as there are weights where none has to be picked.
        let count: usize = parts.iter().map(|part| part.bytes.len() * part.ends.len()).sum();
        if whole && count == kind.length {
            return Ok((decoded, true));
        }
        let all = [count as i64, columns as i64];
        let all = if kind.first { all } else { [all[1], all[0]] };
        let flat = reshape(graph, decoded, &all, "decoded");
        if count == kind.length {
            return Ok((flat, false));
        }
        // There is one part then: windows of every byte, at the same ends.
        let picked = self.picked(flat, kind, &parts[0].ends, i64::from(!kind.first));
        Ok((picked, false))
    }

    /// The pool one by one, and whether it has three axes.
    fn computed(&mut self, kind: Kind, strings: ValueId, columns: usize) -> (ValueId, bool) {
        let (windows, ends) = self.shared.computed(&mut self.model.graph, strings, kind);
        let graph = &mut self.model.graph;
        let count = kind.rate.bytes(kind.length) * ends.len();
        if count == kind.length {
            let order = vec![AttributeProto::ints("perm", &[2, 0, 1])];
            let last = !kind.first;
            return (if last { graph.add_op("Transpose", &[Some(windows)], order, "decoded") } else { windows }, true);
        }
        let flat = reshape(graph, windows, &[count as i64, columns as i64], "decoded");
        let picked = self.picked(flat, kind, &ends, 0);
        let graph = &mut self.model.graph;
        let last = !kind.first;
        (if last { graph.add_op("Transpose", &[Some(picked)], Vec::new(), "decoded") } else { picked }, false)
    }

    /// The strings of a pool side by side, `[B, columns]`.
    fn strings(&mut self, kind: Kind, coded: &[&Coded]) -> ValueId {
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
            return Ok(self.shared.looked_up(&mut self.model.graph, strings, triples, parts, rate));
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

    /// The windows that there are weights for, of all windows of every byte along an axis.
    fn picked(&mut self, all: ValueId, kind: Kind, ends: &[usize], axis: i64) -> ValueId {
        let place = |i: usize| {
            let last = kind.rate.end(i) - 1;
            last / 8 * ends.len() + ends.iter().position(|end| *end == last % 8 + 1).unwrap_or(0)
        };
        let places = (0..kind.length).map(|i| place(i) as i32).collect();
        let places = self.shared.places(&mut self.model.graph, vec![kind.length], places);
        gather(&mut self.model.graph, all, places, axis, "picked")
    }
}

impl Coded<'_> {
    /// Its place in a pool: a share of the columns, which are joined along the axis before or behind the channels.
    fn piece(&self) -> Piece {
        let axis = match self.channels {
            // Lengths of 1 before the channels leave them first in order, but not the first axis.
            Channels::First => (self.weight.shape.len() > 1 && self.axis == 0).then_some(1),
            Channels::Last => Some(0),
            Channels::Between { .. } => None,
        };
        Piece { share: self.columns, shape: self.weight.shape.clone(), axis }
    }

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
