//! Attention, with and without the projections in front of it.

use super::axes::Lengths;
use super::mask::Mask;
use super::writer::Writer;
use crate::ir::AttributeProto;
use crate::pass::{Found, Operand};

/// `Attention`: the projections to queries, keys and values are one product with a matrix of columns for each.
pub(super) fn packed(mut writer: Writer) -> Found {
    let node = writer.node;
    if [4, 6].iter().any(|&slot| node.input(slot).is_some()) || writer.has_output(1) {
        return Err("it has a past".into());
    }
    if node.int_or("do_rotary", 0) != 0 {
        return Err("it rotates queries and keys".into());
    }
    let heads = heads(&writer)?;
    let (x, weight) = (writer.value(0)?, writer.value(1)?);
    let Some(&[_, Some(columns)]) = Lengths::of(writer.graph).axes(weight, 0).as_deref() else {
        return Err("the shape of its weight is not known".into());
    };
    let widths = match *node.ints("qkv_hidden_sizes") {
        [] => [columns / 3; 3],
        [query, key, value] => [query, key, value].map(|width| usize::try_from(width).unwrap_or_default()),
        _ => return Err("it has not three widths".into()),
    };
    if widths.iter().sum::<usize>() != columns || widths.iter().any(|&width| width == 0 || width % heads != 0) {
        return Err("its heads do not divide the columns of its weight".into());
    }
    let bias = writer.input(2);
    let product = writer.layer("MatMul", &[x.into(), weight.into()], Vec::new(), "projected");
    let all = writer.sum(product, &[bias], "biased");
    let parts = columns_of(&mut writer, all, widths, 2);
    let mask = Mask { padding: 3, looks_back: node.int_or("unidirectional", 0) != 0 };
    let mask = mask.write(&mut writer, x.into(), x.into())?;
    let added = [writer.input(5), mask];
    attend(&mut writer, parts, &Shape { heads, width: widths[0], values: Some(widths[2]) }, added);
    Ok(Some(writer.done()))
}

/// `MultiHeadAttention` of three values of axes batch, length and width.
pub(super) fn multi_head(mut writer: Writer) -> Found {
    let node = writer.node;
    if (6..10).any(|slot| node.input(slot).is_some()) || (1..4).any(|slot| writer.has_output(slot)) {
        return Err("it has a past".into());
    }
    let heads = heads(&writer)?;
    let (Some(query), Some(key), Some(value)) = (node.input(0), node.input(1), node.input(2)) else {
        return Err("its queries, keys and values are packed".into());
    };
    let mut lengths = Lengths::of(writer.graph);
    if [query, key, value].iter().any(|&value| lengths.rank(value) != Some(3)) {
        return Err("its queries, keys and values are not known to have three axes".into());
    }
    let width =
        lengths.width(query).filter(|width| width % heads == 0).ok_or("the width of its queries is not known")?;
    let mut parts = [query, key, value].map(Operand::from);
    let mut values = lengths.width(value);
    if let Some(bias) = node.input(3) {
        let Some(&[Some(count)]) = lengths.axes(bias, 0).as_deref() else {
            return Err("the shape of its bias is not known".into());
        };
        let width_of_values = count.checked_sub(2 * width).ok_or("its bias is too short")?;
        values = Some(width_of_values);
        let biases = columns_of(&mut writer, bias.into(), [width, width, width_of_values], 0);
        for ((part, bias), name) in parts.iter_mut().zip(biases).zip(["query", "key", "value"]) {
            *part = writer.op("Add", &[*part, bias], Vec::new(), &format!("{name}_biased"));
        }
    }
    let mask = Mask { padding: 4, looks_back: node.int_or("unidirectional", 0) != 0 };
    let mask = mask.write(&mut writer, query.into(), key.into())?;
    let added = [writer.input(5), mask];
    attend(&mut writer, parts, &Shape { heads, width, values }, added);
    Ok(Some(writer.done()))
}

fn heads(writer: &Writer) -> Result<usize, String> {
    let heads = writer.node.int("num_heads").and_then(|heads| usize::try_from(heads).ok());
    heads.filter(|&heads| heads > 0).ok_or_else(|| "its number of heads is not known".to_owned())
}

/// Three parts of a value along an axis.
fn columns_of(writer: &mut Writer, value: Operand, widths: [usize; 3], axis: i64) -> [Operand; 3] {
    let mut start = 0;
    let names = ["query", "key", "value"];
    std::array::from_fn(|at| {
        let end = start + widths[at] as i64;
        let [first, last, axes] = [writer.ints(&[start]), writer.ints(&[end]), writer.ints(&[axis])];
        start = end;
        let part = if axis == 0 { format!("{}_bias", names[at]) } else { names[at].to_owned() };
        writer.op("Slice", &[value, first, last, axes], Vec::new(), &part)
    })
}

/// What heads have in common.
struct Shape {
    heads: usize,
    /// Of queries and keys, all heads together.
    width: usize,
    /// Of values, where it is known.
    values: Option<usize>,
}

/// Writes the result from queries, keys and values and what is added to scores.
fn attend(writer: &mut Writer, parts: [Operand; 3], shape: &Shape, added: [Operand; 2]) {
    let stated = writer.node.float_or("scale", 0.0);
    let scale = if stated == 0.0 { 1.0 / ((shape.width / shape.heads) as f32).sqrt() } else { stated };
    let to_heads = writer.ints(&[0, 0, shape.heads as i64, -1]);
    let orders: [[i64; 4]; 3] = [[0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]];
    let names = ["query", "key", "value"];
    let [query, key, value] = std::array::from_fn(|at| {
        let split = writer.op("Reshape", &[parts[at], to_heads], Vec::new(), &format!("{}_split", names[at]));
        let perm = vec![AttributeProto::ints("perm", &orders[at])];
        writer.op("Transpose", &[split], perm, &format!("{}_heads", names[at]))
    });
    let scale = writer.own_number("scale", scale);
    let product = writer.op("MatMul", &[query, key], Vec::new(), "product");
    let scaled = writer.op("Mul", &[product, scale], Vec::new(), "scores");
    let scores = writer.sum(scaled, &added, "masked_scores");
    let shares = writer.op("Softmax", &[scores], vec![AttributeProto::int("axis", -1)], "shares");
    let mixed = writer.op("MatMul", &[shares, value], Vec::new(), "mixed");
    let joined = writer.op("Transpose", &[mixed], vec![AttributeProto::ints("perm", &[0, 2, 1, 3])], "joined");
    let to_width = writer.ints(&[0, 0, shape.values.map_or(-1, |width| width as i64)]);
    writer.result("Reshape", &[joined, to_width], Vec::new(), (0, "reshape"));
}
