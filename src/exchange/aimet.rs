//! Encodings of AIMET in the versions 0.6.1 and 1.0.0, which store activations and parameters separately.
//!
//! x = (q + offset)·scale with q in 0 … 2^b − 1 for symmetric encodings too, so offset = −zero point for unsigned
//! integers and offset = −(zero point + 2^(b−1)) for signed ones. Encodings that are symmetric are read as signed,
//! others as unsigned. Neither version states an axis: several encodings of a tensor lie along its output channels.
//!
//! Tensors in float are ignored. Scales per block are an error.

use super::numbers::{integer, object};
use super::unique::Unique;
use super::{Encoding, Encodings};
use crate::quant::Range;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A file of version 0.6.1.
#[derive(Deserialize)]
struct Document0 {
    activation_encodings: Unique<Vec<Encoding0>>,
    param_encodings: Unique<Vec<Encoding0>>,
}

/// A channel.
#[derive(Deserialize)]
struct Encoding0 {
    bitwidth: u64,
    #[serde(default)]
    dtype: Option<String>,
    #[serde(default)]
    is_symmetric: Option<Flag>,
    offset: Option<f64>,
    scale: Option<f64>,
}

/// A truth value, which AIMET writes as a word.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Flag {
    Value(bool),
    Word(Word),
}

#[derive(Clone, Copy, Deserialize)]
enum Word {
    True,
    False,
}

/// A file of version 1.0.0.
#[derive(Deserialize)]
struct Document1 {
    activation_encodings: Vec<Encoding1>,
    param_encodings: Vec<Encoding1>,
}

/// A tensor.
#[derive(Deserialize)]
struct Encoding1 {
    name: String,
    dtype: String,
    bw: u64,
    enc_type: String,
    #[serde(default)]
    is_sym: bool,
    #[serde(default)]
    scale: Vec<f64>,
    #[serde(default)]
    offset: Vec<f64>,
}

pub(super) fn parse_0(text: &str) -> Result<Encodings, String> {
    let document: Document0 = serde_json::from_str(text).map_err(|e| e.to_string())?;
    collect([document.activation_encodings.0, document.param_encodings.0], |encodings| encoding_0(&encodings))
}

pub(super) fn parse_1(text: &str) -> Result<Encodings, String> {
    let document: Document1 = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let named = |list: Vec<Encoding1>| list.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
    collect([named(document.activation_encodings), named(document.param_encodings)], |entry| encoding_1(&entry))
}

fn collect<T>(
    [activations, parameters]: [Vec<(String, T)>; 2],
    read: impl Fn(T) -> Result<Option<Encoding>, String>,
) -> Result<Encodings, String> {
    let mut found = Encodings::default();
    let activations = activations.into_iter().map(|entry| (false, entry));
    for (parameter, (name, entry)) in activations.chain(parameters.into_iter().map(|entry| (true, entry))) {
        let encoding = read(entry).map_err(|reason| format!("tensor `{name}`: {reason}"))?;
        let Some(encoding) = encoding else { continue };
        if parameter {
            found.parameters.insert(name.clone());
        }
        found.add(name, encoding)?;
    }
    Ok(found)
}

fn encoding_0(channels: &[Encoding0]) -> Result<Option<Encoding>, String> {
    let Some(first) = channels.first() else { return Err("it has no encoding".to_owned()) };
    if first.dtype.as_deref() == Some("float") {
        return Ok(None);
    }
    if channels.iter().any(|channel| channel.bitwidth != first.bitwidth) {
        return Err("its channels differ in bitwidth".to_owned());
    }
    let number = |name: &'static str, number: Option<f64>| number.ok_or_else(|| format!("it has no `{name}`"));
    let scales: Result<Vec<f64>, String> = channels.iter().map(|channel| number("scale", channel.scale)).collect();
    let offsets: Result<Vec<f64>, String> = channels.iter().map(|channel| number("offset", channel.offset)).collect();
    let symmetric = matches!(first.is_symmetric, Some(Flag::Value(true) | Flag::Word(Word::True)));
    affine(&scales?, &offsets?, bits(first.bitwidth)?, symmetric).map(Some)
}

fn encoding_1(entry: &Encoding1) -> Result<Option<Encoding>, String> {
    match entry.enc_type.as_str() {
        _ if entry.dtype.eq_ignore_ascii_case("float") => Ok(None),
        "PER_TENSOR" | "PER_CHANNEL" => affine(&entry.scale, &entry.offset, bits(entry.bw)?, entry.is_sym).map(Some),
        other => Err(format!("enc_type {other} is not supported, PER_TENSOR and PER_CHANNEL are")),
    }
}

fn bits(number: u64) -> Result<u8, String> {
    u8::try_from(number).map_err(|_| format!("{number} bits are not supported"))
}

fn affine(scales: &[f64], offsets: &[f64], bits: u8, symmetric: bool) -> Result<Encoding, String> {
    let mut encoding = Encoding { scales: Vec::new(), zero_points: Vec::new(), signed: symmetric, bits, axis: None };
    let half = if symmetric { encoding.half() } else { 0 };
    for &offset in offsets {
        let zero_point = integer(-offset)?.saturating_sub(half);
        // Older versions exclude −2^(b−1) from symmetric grids, and count from the next integer.
        encoding.zero_points.push(if symmetric && zero_point == -1 { 0 } else { zero_point });
    }
    encoding.scales = scales.iter().map(|&scale| scale as f32).collect();
    Ok(encoding)
}

/// −zero point of unsigned integers.
fn offsets(encoding: &Encoding) -> Vec<i32> {
    let half = if encoding.signed { encoding.half() } else { 0 };
    encoding.zero_points.iter().map(|zero_point| zero_point.saturating_add(half).saturating_neg()).collect()
}

/// The tensors that are parameters, or those that are not.
fn part(encodings: &Encodings, parameters: bool) -> impl Iterator<Item = (&String, &Encoding)> {
    encodings.tensors.iter().filter(move |(name, _)| encodings.parameters.contains(*name) == parameters)
}

pub(super) fn write_0(encodings: &Encodings) -> Value {
    let list = |encoding: &Encoding| -> Value {
        let channel = |((range, offset), scale): ((Range, i32), &f32)| {
            object([
                ("bitwidth", json!(encoding.bits)),
                ("dtype", json!("int")),
                ("is_symmetric", json!(if encoding.is_symmetric() { "True" } else { "False" })),
                ("max", json!(range.max)),
                ("min", json!(range.min)),
                ("offset", json!(offset)),
                ("scale", json!(scale)),
            ])
        };
        encoding.ranges().zip(offsets(encoding)).zip(&encoding.scales).map(channel).collect::<Vec<_>>().into()
    };
    let part = |parameters| -> Map<String, Value> {
        part(encodings, parameters).map(|(name, encoding)| (name.clone(), list(encoding))).collect()
    };
    json!({ "version": "0.6.1", "activation_encodings": part(false), "param_encodings": part(true) })
}

pub(super) fn write_1(encodings: &Encodings) -> Value {
    let entry = |(name, encoding): (&String, &Encoding)| {
        let several = encoding.scales.len() > 1;
        object([
            ("name", json!(name)),
            ("enc_type", json!(if several { "PER_CHANNEL" } else { "PER_TENSOR" })),
            ("dtype", json!("INT")),
            ("bw", json!(encoding.bits)),
            ("is_sym", json!(encoding.is_symmetric())),
            ("scale", json!(encoding.scales)),
            ("offset", json!(offsets(encoding))),
        ])
    };
    let part = |parameters| part(encodings, parameters).map(entry).collect::<Vec<_>>();
    json!({ "version": "1.0.0", "activation_encodings": part(false), "param_encodings": part(true) })
}
