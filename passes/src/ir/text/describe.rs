//! The data of a tensor as text: its elements, their location, or a description of them.

use super::elements::{Element, Elements, Layout};
use super::spell;
use crate::ir::{DataType, StringStringEntryProto, TensorProto};

/// The value of `data_location` for data in a separate file.
pub(super) const EXTERNAL: i32 = 1;

/// The type of a tensor; `None` when the format does not know its element type.
pub(super) fn tensor_type(tensor: &TensorProto) -> Option<String> {
    let element = tensor.data_type.and_then(DataType::from_number)?;
    if tensor.dims.is_empty() {
        return Some(element.to_string());
    }
    let dims: Vec<_> = tensor.dims.iter().map(ToString::to_string).collect();
    Some(format!("{element}[{}]", dims.join(",")))
}

/// The data of a tensor, and a comment about it.
///
/// At most `inline_limit` elements are written out. More become `{}`, with a comment that says how to generate similar
/// elements (see [`super::fill`]) and describes the original ones.
pub(super) fn tensor_data(tensor: &TensorProto, inline_limit: usize) -> (String, Option<String>) {
    if tensor.data_location == Some(EXTERNAL) && !tensor.external_data.is_empty() {
        return (format!("[{}]", entries(&tensor.external_data)), None);
    }
    let elements = match Elements::read(tensor) {
        Ok(elements) => elements,
        Err(reason) => return ("{}".to_owned(), Some(reason)),
    };
    if elements.len() / elements.layout().lanes > inline_limit {
        return ("{}".to_owned(), Some(summary(&elements)));
    }
    let literals: Vec<_> = elements.iter().map(literal).collect();
    (format!("{{{}}}", literals.join(", ")), coded_values(&elements))
}

/// Keys and values of metadata or of external data.
pub(super) fn entries(entries: &[StringStringEntryProto]) -> String {
    let quoted = |text: &Option<String>| spell::quoted(text.as_deref().unwrap_or_default().as_bytes());
    let pairs: Vec<_> = entries.iter().map(|e| format!("{}: {}", quoted(&e.key), quoted(&e.value))).collect();
    pairs.join(", ")
}

fn literal(element: Element<'_>) -> String {
    match element {
        Element::Integer(value) => value.to_string(),
        Element::Coded { code, .. } => code.to_string(),
        Element::Single(value) => spell::single(value),
        Element::Double(value) => spell::double(value),
        Element::Text(bytes) => spell::quoted(bytes),
    }
}

/// The numbers that the bits of 16-bit floats stand for.
fn coded_values(elements: &Elements<'_>) -> Option<String> {
    let values: Vec<_> = elements
        .iter()
        .filter_map(
            |element| if let Element::Coded { value, .. } = element { Some(spell::single(value)) } else { None },
        )
        .collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// Sums over the elements of a tensor.
#[derive(Default)]
struct Moments {
    sum: f64,
    squares: f64,
    least: f64,
    greatest: f64,
}

impl Moments {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let start = Self { least: f64::INFINITY, greatest: f64::NEG_INFINITY, ..Self::default() };
        values.fold(start, |moments, value| Self {
            sum: moments.sum + value,
            squares: moments.squares + value * value,
            // Unlike `f64::min`, comparing this way lets a NaN through to the statistics.
            least: if value >= moments.least { moments.least } else { value },
            greatest: if value <= moments.greatest { moments.greatest } else { value },
        })
    }
}

fn summary(elements: &Elements<'_>) -> String {
    let Layout { lanes, .. } = elements.layout();
    let count = elements.len() / lanes;
    let Some(first) = elements.iter().next().filter(|first| !matches!(first, Element::Text(_))) else {
        return format!("fill: {count} strings");
    };
    let moments = Moments::of(elements.iter().map(number));
    let len = elements.len() as f64;
    let rms = (moments.squares / len).sqrt();
    let absmax = spell::rounded(moments.least.abs().max(moments.greatest.abs()));
    let fill = fill(elements, first, &moments, rms);
    format!("fill {fill}: {count} elements, absmax {absmax}, rms {}", spell::rounded(rms))
}

/// The fill that is closest to the statistics.
fn fill(elements: &Elements<'_>, first: Element<'_>, moments: &Moments, rms: f64) -> String {
    if elements.is_uniform() {
        let value = if let Element::Coded { value, .. } = first { spell::single(value) } else { literal(first) };
        return format!("constant {value}");
    }
    if matches!(first, Element::Integer(_)) {
        return format!("uniform {} {}", moments.least, moments.greatest);
    }
    let usable = rms.is_finite() && rms > 0.0;
    match moments.least {
        least if least > 0.0 && usable => format!("positive {}", spell::rounded(moments.sum / elements.len() as f64)),
        _ if usable => format!("normal {}", spell::rounded(rms)),
        _ => "normal".to_owned(),
    }
}

fn number(element: Element<'_>) -> f64 {
    match element {
        Element::Integer(value) => value as f64,
        Element::Coded { value, .. } | Element::Single(value) => f64::from(value),
        Element::Double(value) => value,
        Element::Text(_) => 0.0,
    }
}
