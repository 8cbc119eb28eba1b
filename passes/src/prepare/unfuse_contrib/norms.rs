//! Normalizations of sums.

use super::writer::Writer;
use crate::ir::{AttributeProto, DataType};
use crate::pass::{Found, Operand};

/// ε where a node of `com.microsoft` does not state it.
const EPSILON: f32 = 1e-12;
/// The first operator set whose reductions read their axes.
const AXES_AS_INPUT: i64 = 18;

/// `SkipLayerNormalization`.
pub(super) fn skip(mut writer: Writer) -> Found {
    refuse_statistics(&writer, &[1, 2])?;
    let sum = skipped(&mut writer, 4)?;
    let [scale, shift] = [writer.input(2), writer.input(3)];
    layer_norm(&mut writer, [sum, scale, shift]);
    Ok(Some(writer.done()))
}

/// `SkipSimplifiedLayerNormalization`.
pub(super) fn skip_simplified(mut writer: Writer) -> Found {
    refuse_statistics(&writer, &[1, 2])?;
    let sum = skipped(&mut writer, 3)?;
    let scale = writer.input(2);
    root_mean_square(&mut writer, sum, scale, EPSILON);
    Ok(Some(writer.done()))
}

/// `SimplifiedLayerNormalization` over the last axis.
pub(super) fn simplified(mut writer: Writer) -> Found {
    refuse_statistics(&writer, &[1])?;
    if writer.node.int_or("axis", -1) != -1 {
        return Err("it does not normalize over the last axis".into());
    }
    let [x, scale] = [writer.input(0), writer.input(1)];
    root_mean_square(&mut writer, x, scale, 1e-5);
    Ok(Some(writer.done()))
}

fn refuse_statistics(writer: &Writer, slots: &[usize]) -> Result<(), String> {
    if slots.iter().any(|&slot| writer.has_output(slot)) {
        return Err("a mean or a deviation is read".to_owned());
    }
    Ok(())
}

/// The sum of the first two inputs and a bias; written where the node writes it.
fn skipped(writer: &mut Writer, bias: usize) -> Result<Operand, String> {
    let (x, other, bias) = (writer.value(0)?, writer.value(1)?, writer.input(bias));
    let Some(sum) = writer.node.output(3) else {
        return Ok(writer.sum(x.into(), &[other.into(), bias], "sum"));
    };
    let (first, second) = if bias == Operand::Absent {
        (x.into(), other.into())
    } else {
        (writer.sum(x.into(), &[other.into()], "skipped"), bias)
    };
    writer.result("Add", &[first, second], Vec::new(), (3, "sum"));
    Ok(sum.into())
}

/// Writes the first result from a sum, a scale and a shift.
fn layer_norm(writer: &mut Writer, inputs: [Operand; 3]) {
    let epsilon = writer.node.float_or("epsilon", EPSILON);
    let attributes = vec![AttributeProto::int("axis", -1), AttributeProto::float("epsilon", epsilon)];
    let count = if inputs[2] == Operand::Absent { 2 } else { 3 };
    writer.result("LayerNormalization", &inputs[..count], attributes, (0, ""));
}

/// Writes the first result: the value by the root of its mean square, in the order of operators that onnxruntime fuses
/// again.
fn root_mean_square(writer: &mut Writer, value: Operand, scale: Operand, epsilon: f32) {
    let epsilon = writer.node.float_or("epsilon", epsilon);
    let two = writer.number("exponent_two", 2.0);
    let squares = writer.op("Pow", &[value, two], Vec::new(), "squares");
    let mean = reduced(writer, "ReduceMean", squares, "mean");
    let epsilon = writer.own_number("epsilon", epsilon);
    let shifted = writer.op("Add", &[mean, epsilon], Vec::new(), "shifted");
    let root = writer.op("Sqrt", &[shifted], Vec::new(), "root");
    let normal = writer.op("Div", &[value, root], Vec::new(), "normal");
    writer.result("Mul", &[normal, scale], Vec::new(), (0, ""));
}

/// A reduction over the last axis, which stays.
fn reduced(writer: &mut Writer, op: &str, value: Operand, part: &str) -> Operand {
    if writer.opset >= AXES_AS_INPUT {
        let axes = writer.ints(&[-1]);
        return writer.op(op, &[value, axes], Vec::new(), part);
    }
    writer.op(op, &[value], vec![AttributeProto::ints("axes", &[-1])], part)
}

/// `EmbedLayerNormalization`.
pub(super) fn embedding(mut writer: Writer) -> Found {
    let (ids, words, places) = (writer.value(0)?, writer.value(2)?, writer.value(3)?);
    let graph = writer.graph;
    let rows = graph.constant(places).and_then(|table| table.shape().ok()?.first().copied());
    let rows = rows.ok_or("its table of positions is not constant")?;
    let word = writer.op("Gather", &[words.into(), ids.into()], Vec::new(), "words");
    let index = match writer.input(8) {
        Operand::Absent => first_places(&mut writer, ids.into(), rows),
        given => given,
    };
    let place = writer.op("Gather", &[places.into(), index], Vec::new(), "positions");
    let segment = match (writer.input(1), writer.input(4)) {
        (Operand::Absent, _) | (_, Operand::Absent) => Operand::Absent,
        (index, table) => writer.op("Gather", &[table, index], Vec::new(), "segments"),
    };
    let sum = summed(&mut writer, word, place, segment);
    let [scale, shift] = [writer.input(5), writer.input(6)];
    layer_norm(&mut writer, [sum, scale, shift]);
    if writer.has_output(1) {
        lengths(&mut writer);
    }
    Ok(Some(writer.done()))
}

/// The positions of ids: the first of them, as many as there are ids in a row.
fn first_places(writer: &mut Writer, ids: Operand, rows: usize) -> Operand {
    let all = writer.counted(rows);
    let [first, second, axis] = [writer.ints(&[0]), writer.ints(&[1]), writer.ints(&[0])];
    let shape = writer.op("Shape", &[ids], Vec::new(), "shape");
    let count = writer.op("Gather", &[shape, second], Vec::new(), "count");
    writer.op("Slice", &[all, first, count, axis], Vec::new(), "places")
}

/// The sum of what was looked up; written where the node writes it.
fn summed(writer: &mut Writer, word: Operand, place: Operand, segment: Operand) -> Operand {
    let Some(sum) = writer.node.output(2) else { return writer.sum(word, &[place, segment], "sum") };
    let (first, second) =
        if segment == Operand::Absent { (word, place) } else { (writer.sum(word, &[place], "placed"), segment) };
    writer.result("Add", &[first, second], Vec::new(), (2, "sum"));
    sum.into()
}

/// How many ones each row of the mask has; none without a mask.
fn lengths(writer: &mut Writer) {
    let attributes = || vec![AttributeProto::int("keepdims", 0)];
    let axes = writer.ints(&[1]);
    let is_one = match writer.input(7) {
        Operand::Absent => {
            let ids = writer.input(0);
            let same = writer.op("Equal", &[ids, ids], Vec::new(), "same");
            writer.op("Not", &[same], Vec::new(), "none")
        }
        mask => {
            let as_long = vec![AttributeProto::element("to", DataType::Int64)];
            let mask = writer.op("Cast", &[mask], as_long, "mask");
            let one = writer.int(1);
            writer.op("Equal", &[mask, one], Vec::new(), "counted")
        }
    };
    let ones = writer.op("Cast", &[is_one], vec![AttributeProto::element("to", DataType::Int32)], "ones");
    writer.result("ReduceSum", &[ones, axes], attributes(), (1, "length"));
}
