//! Finds the position at which decoding of a damaged file fails, for the error message, by walking the protobuf wire
//! format along the fields of model and graph.

use prost::encoding::{WireType, decode_key, decode_varint};

const GRAPH: u32 = 7;

/// Where and why the bytes stop being an ONNX model; `None` when the outer structure is sound.
pub(super) fn locate(bytes: &[u8]) -> Option<String> {
    let mut walk = Walk { bytes, at: 0, end: bytes.len() };
    while walk.at < walk.end {
        let (field, range) = match walk.field() {
            Ok(found) => found,
            Err(Stop::Garbage) => return Some(format!("byte {} is no field of a model", grouped(walk.at))),
            Err(Stop::Overrun { field, start }) if field == GRAPH => {
                return Some(locate_in_graph(bytes, start));
            }
            Err(Stop::Overrun { field, .. }) => return Some(ends(&format!("`{}`", model_field(field)), bytes.len())),
        };
        if field == GRAPH && range.is_none() {
            return Some(format!("byte {} is no field of a model", grouped(walk.at)));
        }
    }
    None
}

fn locate_in_graph(bytes: &[u8], start: usize) -> String {
    let mut walk = Walk { bytes, at: start, end: bytes.len() };
    let mut counts = [0_usize; 17];
    loop {
        match walk.field() {
            Ok((field, _)) => {
                if let Some(count) = counts.get_mut(field as usize) {
                    *count += 1;
                }
            }
            Err(Stop::Overrun { field, .. }) => {
                let index = counts.get(field as usize).copied().unwrap_or(0);
                return ends(&format!("`graph.{}[{index}]`", graph_field(field)), bytes.len());
            }
            Err(Stop::Garbage) if walk.at >= walk.end => return ends("`graph`", bytes.len()),
            Err(Stop::Garbage) => return format!("byte {} is no field of a graph", grouped(walk.at)),
        }
    }
}

fn ends(place: &str, length: usize) -> String {
    format!("the file ends inside {place} (byte {0} of {0})", grouped(length))
}

/// Digits in groups of three.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut text = digits[..first].to_owned();
    for group in digits.as_bytes()[first..].chunks(3) {
        if !text.is_empty() {
            text.push(',');
        }
        text.extend(group.iter().map(|&b| char::from(b)));
    }
    text
}

fn model_field(number: u32) -> String {
    match number {
        2 => "producer_name".to_owned(),
        8 => "opset_import".to_owned(),
        14 => "metadata_props".to_owned(),
        25 => "functions".to_owned(),
        other => format!("field {other}"),
    }
}

fn graph_field(number: u32) -> String {
    match number {
        1 => "node".to_owned(),
        5 => "initializer".to_owned(),
        11 => "input".to_owned(),
        12 => "output".to_owned(),
        13 => "value_info".to_owned(),
        other => format!("field {other}"),
    }
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

enum Stop {
    Garbage,
    Overrun { field: u32, start: usize },
}

impl Walk<'_> {
    /// Skips one field and returns its number and, if it is length-delimited, its range.
    fn field(&mut self) -> Result<(u32, Option<std::ops::Range<usize>>), Stop> {
        let mut rest = &self.bytes[self.at..self.end];
        let (field, wire) = decode_key(&mut rest).map_err(|_| Stop::Garbage)?;
        let length = match wire {
            WireType::Varint => {
                decode_varint(&mut rest).map_err(|_| Stop::Garbage)?;
                0
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::LengthDelimited => decode_varint(&mut rest).map_err(|_| Stop::Garbage)?,
            WireType::StartGroup | WireType::EndGroup => return Err(Stop::Garbage),
        };
        let start = self.end - rest.len();
        let end = usize::try_from(length).ok().and_then(|n| start.checked_add(n)).filter(|&e| e <= self.end);
        let Some(end) = end else { return Err(Stop::Overrun { field, start }) };
        self.at = end;
        Ok((field, (wire == WireType::LengthDelimited).then_some(start..end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_digits() {
        assert_eq!(["0", "999", "1,000", "51,200", "1,234,567"], [0, 999, 1000, 51_200, 1_234_567].map(grouped)[..]);
    }

    #[test]
    fn text_is_no_model() {
        assert!(locate(b"hello, this is not a model").is_some());
    }
}
