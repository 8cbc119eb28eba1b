//! Spelling of names, strings, numbers and types.

use std::fmt::Write as _;

use super::lex::is_float_word;
use crate::ir::{DataType, DimValue, TensorShapeProto, TensorTypeProto, TypeProto, TypeValue};

/// Words that start a type where a name may stand as well.
pub(super) const TYPE_KEYWORDS: [&str; 5] = ["seq", "map", "optional", "sparse_tensor", "opaque"];

/// Whether a word starts a type.
pub(super) fn is_type_word(word: &str) -> bool {
    TYPE_KEYWORDS.contains(&word) || DataType::from_name(word).is_some()
}

fn is_plain(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A name, quoted unless it is a plain identifier that cannot be taken for a type.
pub(super) fn name(name: &str) -> String {
    if is_plain(name) && !is_type_word(name) { name.to_owned() } else { quoted(name.as_bytes()) }
}

/// A name where a type cannot stand.
pub(super) fn word(name: &str) -> String {
    if is_plain(name) { name.to_owned() } else { quoted(name.as_bytes()) }
}

/// A dotted domain; quoted as a whole when a part is no identifier.
pub(super) fn domain(domain: &str) -> String {
    if domain.split('.').all(is_plain) { domain.to_owned() } else { quoted(domain.as_bytes()) }
}

/// The nearest name that can stand unquoted where a value may stand as well; `None` when the name itself can stand
/// there.
///
/// `onnx.parser` takes a word for a number when its leading letters spell `inf`, `infinity` or `nan`.
pub(super) fn unquoted_name(name: &str) -> Option<String> {
    let letters = name.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(name.len());
    if is_plain(name) && !is_type_word(name) && !is_float_word(&name[..letters]) {
        return None;
    }
    let cleaned: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    Some(format!("_{cleaned}"))
}

/// A string literal: quotes and backslashes escaped, bytes that are not UTF-8 as `\xHH`.
pub(super) fn quoted(bytes: &[u8]) -> String {
    quoted_unless(bytes, |_| false)
}

/// A string literal that stays on its line, for comments.
pub(super) fn quoted_on_line(bytes: &[u8]) -> String {
    quoted_unless(bytes, char::is_control)
}

fn quoted_unless(bytes: &[u8], escape: impl Fn(char) -> bool) -> String {
    let mut out = String::from('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if escape(c) {
                let mut buffer = [0; 4];
                push_hexadecimal(&mut out, c.encode_utf8(&mut buffer).as_bytes());
                continue;
            }
            if matches!(c, '"' | '\\') {
                out.push('\\');
            }
            out.push(c);
        }
        push_hexadecimal(&mut out, chunk.invalid());
    }
    out.push('"');
    out
}

fn push_hexadecimal(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(out, "\\x{byte:02x}");
    }
}

/// The shortest literal that reads back as the same number, always with a point or an exponent.
pub(super) fn single(value: f32) -> String {
    if value.is_nan() { not_a_number(value.is_sign_negative()) } else { format!("{value:?}") }
}

/// The shortest literal of a double, in the form of [`single`].
pub(super) fn double(value: f64) -> String {
    if value.is_nan() { not_a_number(value.is_sign_negative()) } else { format!("{value:?}") }
}

fn not_a_number(negative: bool) -> String {
    if negative { "-nan" } else { "nan" }.to_owned()
}

/// A number rounded to three significant digits.
pub(super) fn rounded(value: f64) -> String {
    let three_digits = format!("{value:.2e}").parse().unwrap_or(value);
    match three_digits {
        v if v == 0.0 || (1e-4..1e7).contains(&v.abs()) => format!("{v}"),
        v if v.is_finite() => format!("{v:e}"),
        v => double(v),
    }
}

/// A type, or `None` where the syntax cannot state it.
pub(super) fn type_text(value: &TypeProto) -> Option<String> {
    Some(match value.value.as_ref()? {
        TypeValue::Tensor(tensor) => tensor_type(tensor)?,
        TypeValue::SparseTensor(tensor) => format!("sparse_tensor({})", tensor_type(tensor)?),
        TypeValue::Sequence(sequence) => format!("seq({})", type_text(sequence.elem_type.as_deref()?)?),
        TypeValue::Optional(optional) => format!("optional({})", type_text(optional.elem_type.as_deref()?)?),
        TypeValue::Map(map) => {
            let key = DataType::from_number(map.key_type?)?;
            format!("map({key}, {})", type_text(map.value_type.as_deref()?)?)
        }
        TypeValue::Opaque(opaque) => match (opaque.domain.as_deref(), opaque.name.as_deref()) {
            (None, None) => "opaque()".to_owned(),
            (None, Some(name)) if name.split('.').all(is_plain) => format!("opaque({name})"),
            (Some(domain), Some(name)) if domain.split('.').all(is_plain) && is_plain(name) => {
                format!("opaque({domain}, {name})")
            }
            _ => return None,
        },
    })
}

fn tensor_type(tensor: &TensorTypeProto) -> Option<String> {
    let element = DataType::from_number(tensor.elem_type?)?;
    Some(match &tensor.shape {
        None => format!("{element}[]"),
        Some(shape) if shape.dim.is_empty() => element.to_string(),
        Some(shape) => format!("{element}[{}]", shape_text(shape)),
    })
}

fn shape_text(shape: &TensorShapeProto) -> String {
    let axis = |value: &Option<DimValue>| match value {
        None => "?".to_owned(),
        Some(DimValue::Value(length)) => length.to_string(),
        Some(DimValue::Param(symbol)) => word(symbol),
    };
    shape.dim.iter().map(|dim| axis(&dim.value)).collect::<Vec<_>>().join(",")
}
