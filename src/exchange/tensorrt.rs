//! Calibration caches of `TensorRT`: a line that names version and calibrator, then `tensor: hex` for each activation,
//! the big-endian bits of a float32 scale. x = q·scale with q in −127 … 127, so scale = max |x| / 127.
//!
//! Only activations are written, asymmetric ones with a scale that covers their range. Tensors that `TensorRT`
//! generates, `(Unnamed Layer* 8) …`, are ignored.

use super::{Encoding, Encodings};
use std::fmt::Write;

/// The version that `TensorRT` 8.6 writes; other releases expect their own.
const HEADER: &str = "TRT-8601-EntropyCalibration2";
const BITS: u8 = 8;

pub(super) fn parse(text: &str) -> Result<Encodings, String> {
    let mut found = Encodings::default();
    let lines = text.lines().enumerate().skip_while(|(_, line)| line.trim().is_empty()).skip(1);
    for (at, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let entry = line.trim_end().rsplit_once(": ").and_then(|(name, hex)| Some((name, bits_of(hex)?)));
        let Some((name, scale)) = entry else {
            return Err(format!("line {} is not `tensor: hex` with eight digits", at + 1));
        };
        if !name.starts_with("(Unnamed ") {
            found.add(name.to_owned(), Encoding::per_tensor(f32::from_bits(scale), 0, true, BITS))?;
        }
    }
    Ok(found)
}

fn bits_of(hex: &str) -> Option<u32> {
    let digits = hex.len() == 8 && hex.bytes().all(|digit| digit.is_ascii_hexdigit());
    u32::from_str_radix(hex, 16).ok().filter(|_| digits)
}

pub(super) fn write(encodings: &Encodings) -> String {
    let mut text = format!("{HEADER}\n");
    for (name, encoding) in &encodings.tensors {
        if let (false, [scale], [zero_point]) =
            (encodings.parameters.contains(name), &encoding.scales[..], &encoding.zero_points[..])
        {
            let (low, high) = encoding.interval();
            // −128 is reached by clipping only.
            let low = if encoding.is_symmetric() { -high } else { low };
            let steps = [low, high].map(|end| (f64::from(end) - f64::from(*zero_point)).abs());
            let scale = (steps[0].max(steps[1]) * f64::from(*scale) / 127.0) as f32;
            let _ = writeln!(text, "{name}: {:08x}", scale.to_bits());
        }
    }
    text
}
