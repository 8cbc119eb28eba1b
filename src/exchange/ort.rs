//! `TensorQuantOverrides` of onnxruntime's quantizer: per tensor a list of one entry, or of one entry per channel.
//!
//! x = (q − `zero_point`)·`scale` with q of type `quant_type`; or `rmin` and `rmax`, over which the grid of that type
//! is laid. Entries with neither, for instance a type alone, are ignored, and so are `convert` and `reduce_range`.
//!
//! onnxruntime has types of 4, 8 and 16 bits; other widths are written with the next larger type.

use super::numbers::{integer, object};
use super::unique::Unique;
use super::{Encoding, Encodings};
use crate::quant::{Affine, GridKind, GridSpec, Range};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct Entry {
    quant_type: Option<String>,
    scale: Option<f64>,
    zero_point: Option<f64>,
    rmin: Option<f64>,
    rmax: Option<f64>,
    #[serde(default)]
    symmetric: bool,
    axis: Option<i64>,
}

pub(super) fn parse(text: &str) -> Result<Encodings, String> {
    let document: Unique<Vec<Entry>> = serde_json::from_str(text)
        .map_err(|e| format!("it is no file of encodings, and no TensorQuantOverrides either: {e}"))?;
    let mut found = Encodings::default();
    for (name, entries) in document.0 {
        if let Some(encoding) = encoding(&entries).map_err(|reason| format!("tensor `{name}`: {reason}"))? {
            found.add(name, encoding)?;
        }
    }
    Ok(found)
}

fn encoding(entries: &[Entry]) -> Result<Option<Encoding>, String> {
    let Some(first) = entries.first() else { return Ok(None) };
    let (signed, bits) = integers(first.quant_type.as_deref())?;
    let channels: Result<Vec<_>, String> = entries.iter().map(|entry| channel(entry, first, signed, bits)).collect();
    let channels = channels?;
    let given = channels.iter().flatten().count();
    if given == 0 {
        return Ok(None);
    }
    if given < channels.len() {
        return Err("some of its channels have neither `scale` nor `rmin` and `rmax`".to_owned());
    }
    let (scales, zero_points) = channels.into_iter().flatten().unzip();
    Ok(Some(Encoding { scales, zero_points, signed, bits, axis: first.axis }))
}

/// Scale and zero point; `None` where neither they nor a range are given.
fn channel(entry: &Entry, first: &Entry, signed: bool, bits: u8) -> Result<Option<(f32, i32)>, String> {
    match (entry.scale, entry.zero_point, entry.rmin, entry.rmax) {
        (Some(scale), Some(zero_point), None, None) => Ok(Some((scale as f32, integer(zero_point)?))),
        (None, None, Some(low), Some(high)) => {
            let kind = match (signed, first.symmetric) {
                (true, true) => GridKind::Symmetric,
                (true, false) => GridKind::Signed,
                (false, false) => GridKind::Unsigned,
                (false, true) => {
                    return Err("`symmetric` with `rmin` and `rmax` wants a signed `quant_type`".to_owned());
                }
            };
            if low > high {
                return Err(format!("rmin {low} is above rmax {high}"));
            }
            let grid = GridSpec::new(kind, bits).map_err(|e| e.to_string())?;
            let Affine { scale, zero_point, .. } = grid.affine(Range::new(low as f32, high as f32));
            Ok(Some((scale, zero_point)))
        }
        (None, None, None, None) => Ok(None),
        (_, _, None, None) => Err("`scale` and `zero_point` go together".to_owned()),
        (None, None, ..) => Err("`rmin` and `rmax` go together".to_owned()),
        _ => Err("it has both a scale and a range".to_owned()),
    }
}

/// Whether the integers of a type are signed, and their bits.
fn integers(quant_type: Option<&str>) -> Result<(bool, u8), String> {
    let name = quant_type.unwrap_or("QUInt8");
    // Python writes the enumeration with its name.
    let plain = name.strip_prefix("QuantType.").unwrap_or(name);
    let (signed, bits) = match plain.strip_prefix("QUInt") {
        Some(bits) => (false, bits),
        None => (true, plain.strip_prefix("QInt").unwrap_or_default()),
    };
    let bits = bits.parse().map_err(|_| format!("quant_type `{name}` is not supported"))?;
    Ok((signed, bits))
}

pub(super) fn write(encodings: &Encodings) -> Value {
    let list = |encoding: &Encoding| -> Value {
        let bits = match encoding.bits {
            4 => 4,
            0..=8 => 8,
            _ => 16,
        };
        let kind = format!("{}{bits}", if encoding.signed { "QInt" } else { "QUInt" });
        let channel = |(&scale, &zero_point): (&f32, &i32)| {
            let mut entry =
                object([("quant_type", json!(kind)), ("scale", json!(scale)), ("zero_point", json!(zero_point))]);
            if let Some(axis) = encoding.axis {
                entry.insert("axis".to_owned(), json!(axis));
            }
            entry
        };
        encoding.scales.iter().zip(&encoding.zero_points).map(channel).collect::<Vec<_>>().into()
    };
    let entries = encodings.tensors.iter().map(|(name, encoding)| (name.clone(), list(encoding)));
    Value::Object(entries.collect::<Map<String, Value>>())
}
