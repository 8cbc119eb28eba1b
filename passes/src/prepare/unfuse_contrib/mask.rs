//! Masks of attention: what is added to scores.

use super::axes::Lengths;
use super::writer::Writer;
use crate::ir::{AttributeProto, DataType, Graph, ValueId};
use crate::pass::Operand;

/// Which keys a query sees, from what the node reads.
pub(super) struct Mask {
    /// Where the mask of padding stands among the inputs.
    pub(super) padding: usize,
    /// Whether a query sees no later key than itself.
    pub(super) looks_back: bool,
}

impl Mask {
    /// What is added to scores of axes batch, head, query, key. `queries` and `keys` are values with axes batch and length.
    pub(super) fn write(&self, writer: &mut Writer, queries: Operand, keys: Operand) -> Result<Operand, String> {
        let padding = match writer.node.input(self.padding) {
            None => None,
            Some(mask) => Some(padded(writer, mask, keys)?),
        };
        if !self.looks_back {
            return Ok(padding.unwrap_or(Operand::Absent));
        }
        let ahead = ahead(writer, queries, keys);
        let lowest = writer.number("mask_lowest", f32::MIN);
        let seen = padding.unwrap_or_else(|| writer.number("mask_none", 0.0));
        Ok(writer.op("Where", &[ahead, lowest, seen], Vec::new(), "mask"))
    }
}

/// The mask of padding for scores: nothing, or what fills it in.
fn padded(writer: &mut Writer, mask: ValueId, keys: Operand) -> Result<Operand, String> {
    let (counts, axes): (Operand, &[i64]) = match Lengths::of(writer.graph).rank(mask) {
        Some(1) if has_one_length_per_row(writer.graph, mask, writer.node.input(0)) => {
            (before(writer, mask, keys), &[1, 2])
        }
        Some(1) => return Err("its mask is not known to have one length per row".into()),
        Some(2) => (positive(writer, mask), &[1, 2]),
        Some(3) => (positive(writer, mask), &[1]),
        Some(_) => return Err("its mask has a form of its own".into()),
        None => return Err("the rank of its mask is not known".into()),
    };
    let filled = writer.node.float_or("mask_filter_value", -10_000.0);
    let none = writer.number("mask_none", 0.0);
    let filled = writer.own_number("masked", filled);
    let values = writer.op("Where", &[counts, none, filled], Vec::new(), "padding");
    let axes = writer.ints(axes);
    Ok(writer.op("Unsqueeze", &[values, axes], Vec::new(), "padding_by_head"))
}

/// Whether a mask of one axis has as many elements as the batch has rows; there are masks with two numbers per row, too.
fn has_one_length_per_row(graph: &Graph, mask: ValueId, read: Option<ValueId>) -> bool {
    let mut lengths = Lengths::of(graph);
    let batch = read.and_then(|value| lengths.axes(value, 0)?.first().copied()?);
    let count = lengths.width(mask);
    let symbol = |value: ValueId| graph.value(value).ty()?.symbols().first()?.clone();
    let is_symbol = || read.and_then(symbol).is_some_and(|batch| symbol(mask) == Some(batch));
    let producer = graph.value(mask).producer().map(|(id, slot)| (graph.node(id), slot));
    let is_counted = producer.is_some_and(|(node, slot)| {
        let counts = node.is("ReduceSum") && node.int_or("keepdims", 1) == 0;
        counts || (node.op() == "EmbedLayerNormalization" && slot == 1)
    });
    is_counted || (count.is_some() && count == batch) || is_symbol()
}

fn positive(writer: &mut Writer, mask: ValueId) -> Operand {
    let zero = writer.int(0);
    let mask = writer.op("Cast", &[mask.into()], vec![AttributeProto::element("to", DataType::Int64)], "mask_values");
    writer.op("Greater", &[mask, zero], Vec::new(), "is_seen")
}

/// Which keys stand before the length of their row.
fn before(writer: &mut Writer, mask: ValueId, keys: Operand) -> Operand {
    let axis = writer.ints(&[1]);
    let mask = writer.op("Cast", &[mask.into()], vec![AttributeProto::element("to", DataType::Int64)], "lengths");
    let mask = writer.op("Unsqueeze", &[mask, axis], Vec::new(), "lengths_by_row");
    let (places, _) = places(writer, keys, "key");
    writer.op("Less", &[places, mask], Vec::new(), "is_seen")
}

/// The numbers of a sequence's places, and how many there are.
fn places(writer: &mut Writer, sequence: Operand, part: &str) -> (Operand, Operand) {
    let [zero, one] = [writer.int(0), writer.int(1)];
    let shape = writer.op("Shape", &[sequence], Vec::new(), &format!("{part}_shape"));
    let count = writer.op("Gather", &[shape, one], Vec::new(), &format!("{part}_count"));
    (writer.op("Range", &[zero, count, one], Vec::new(), &format!("{part}_places")), count)
}

/// Which keys stand behind a query. The last query sees all keys, which makes a difference where there are more of them.
fn ahead(writer: &mut Writer, queries: Operand, keys: Operand) -> Operand {
    let (query, count) = places(writer, queries, "query");
    let (key, _) = if queries == keys { (query, count) } else { places(writer, keys, "key") };
    let axis = writer.ints(&[1]);
    let column = writer.op("Unsqueeze", &[query, axis], Vec::new(), "query_column");
    let later = writer.op("Greater", &[key, column], Vec::new(), "is_later");
    if queries == keys {
        return later;
    }
    let one = writer.int(1);
    let last = writer.op("Sub", &[count, one], Vec::new(), "last_query");
    let is_bound = writer.op("Less", &[column, last], Vec::new(), "is_bound");
    writer.op("And", &[later, is_bound], Vec::new(), "is_ahead")
}
