//! Encodings of AIMET in the versions 2.x: x = (q − `y_zero_point`)·`y_scale` with q of type `output_dtype`, as in
//! `DequantizeLinear`. One list holds activations and parameters.
//!
//! Tensors in float are ignored. Scales per block are an error.

use super::numbers::{integer, object};
use super::{Encoding, Encodings};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Document {
    encodings: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    output_dtype: Option<String>,
    y_scale: Option<Value>,
    y_zero_point: Option<Value>,
    axis: Option<i64>,
    block_size: Option<IgnoredAny>,
    per_block_int_scale: Option<IgnoredAny>,
}

/// A number, or a list of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Numbers {
    One(f64),
    Many(Vec<f64>),
}

impl Numbers {
    fn list(self) -> Vec<f64> {
        match self {
            Self::One(number) => vec![number],
            Self::Many(numbers) => numbers,
        }
    }
}

pub(super) fn parse(text: &str) -> Result<Encodings, String> {
    let document: Document = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let mut found = Encodings::default();
    for entry in document.encodings {
        let name = entry.name.clone();
        if let Some(encoding) = encoding(entry).map_err(|reason| format!("tensor `{name}`: {reason}"))? {
            found.add(name, encoding)?;
        }
    }
    Ok(found)
}

fn encoding(entry: Entry) -> Result<Option<Encoding>, String> {
    let Some(dtype) = entry.output_dtype.filter(|dtype| !dtype.contains("float")) else { return Ok(None) };
    if entry.block_size.is_some() || entry.per_block_int_scale.is_some() {
        return Err("encodings in blocks are not supported".to_owned());
    }
    let (signed, bits) = match dtype.strip_prefix("uint") {
        Some(bits) => (false, bits),
        None => (true, dtype.strip_prefix("int").unwrap_or_default()),
    };
    let bits = bits.parse().map_err(|_| format!("output_dtype `{dtype}` is not supported"))?;
    let scales = numbers("y_scale", entry.y_scale)?.ok_or("it has no `y_scale`")?;
    let zero_points = numbers("y_zero_point", entry.y_zero_point)?.unwrap_or_else(|| vec![0.0; scales.len()]);
    let zero_points: Result<Vec<i32>, String> = zero_points.into_iter().map(integer).collect();
    let scales = scales.into_iter().map(|scale| scale as f32).collect();
    Ok(Some(Encoding { scales, zero_points: zero_points?, signed, bits, axis: entry.axis }))
}

fn numbers(key: &str, value: Option<Value>) -> Result<Option<Vec<f64>>, String> {
    let Some(value) = value else { return Ok(None) };
    let numbers: Result<Numbers, _> = serde_json::from_value(value);
    numbers
        .map(|numbers| Some(numbers.list()))
        .map_err(|_| format!("`{key}` is neither a number nor a list of numbers"))
}

pub(super) fn write(encodings: &Encodings) -> Value {
    let entry = |(name, encoding): (&String, &Encoding)| {
        let dtype = format!("{}{}", if encoding.signed { "int" } else { "uint" }, encoding.bits);
        let scale = one_or_many(&encoding.scales);
        let mut entry = object([("name", json!(name)), ("output_dtype", json!(dtype)), ("y_scale", scale)]);
        if encoding.zero_points.iter().any(|&zero_point| zero_point != 0) {
            entry.insert("y_zero_point".to_owned(), one_or_many(&encoding.zero_points));
        }
        if let Some(axis) = encoding.axis {
            entry.insert("axis".to_owned(), json!(axis));
        }
        entry
    };
    json!({ "version": "2.0.0", "encodings": encodings.tensors.iter().map(entry).collect::<Vec<_>>() })
}

/// The number of a list of length one, or the list.
fn one_or_many<T: serde::Serialize + Copy>(numbers: &[T]) -> Value {
    match numbers {
        [number] => json!(number),
        many => json!(many),
    }
}
