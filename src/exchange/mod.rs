//! Exchange of quantization parameters with other tools: files of encodings, quantized models, float models.
//!
//! | format | per tensor | file |
//! |---|---|---|
//! | [`EncodingsFormat::Aimet061`] | x = (q + offset)·scale, q in 0 … 2^b − 1 | `aimet` |
//! | [`EncodingsFormat::Aimet1`] | x = (q + offset)·scale, as arrays | `aimet` |
//! | [`EncodingsFormat::Aimet2`] | x = (q − zero point)·scale, q of a named type | `aimet2` |
//! | [`EncodingsFormat::Ort`] | x = (q − zero point)·scale, q of a named type | `ort` |
//! | [`EncodingsFormat::TensorRt`] | x = q·scale, q in −127 … 127 | `tensorrt` |
//!
//! All formats are read into [`Encodings`]. `read` finds them in a quantized model; a [`Scheme`](crate::scheme) applies
//! them to a float model.

mod aimet;
mod aimet2;
mod error;
mod numbers;
mod ort;
mod read;
mod tensorrt;
#[cfg(test)]
mod tests;
mod unique;

pub use read::{LeftOut, read};

pub use crate::scheme::encodings::{Encoding, Encodings};
pub use error::ExchangeError;

use msq_passes::ir::write_file;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// A format of files that hold encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodingsFormat {
    /// AIMET, version 0.6.1.
    Aimet061,
    /// AIMET, version 1.0.0.
    Aimet1,
    /// AIMET, version 2.0.0.
    Aimet2,
    /// `TensorQuantOverrides` of onnxruntime's quantizer.
    Ort,
    /// A calibration cache of `TensorRT`.
    TensorRt,
}

impl EncodingsFormat {
    /// Every format.
    pub const ALL: [Self; 5] = [Self::Aimet061, Self::Aimet1, Self::Aimet2, Self::Ort, Self::TensorRt];
}

impl fmt::Display for EncodingsFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aimet061 => "aimet-0.6.1",
            Self::Aimet1 => "aimet-1.0",
            Self::Aimet2 => "aimet-2",
            Self::Ort => "ort",
            Self::TensorRt => "tensorrt",
        })
    }
}

impl FromStr for EncodingsFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(|format| format.to_string()).join(", ");
        let found = Self::ALL.into_iter().find(|format| format.to_string() == name);
        found.ok_or_else(|| format!("`{name}` is none of {}", names()))
    }
}

impl Encodings {
    /// Reads a file of any of the formats, detected by its content.
    pub fn load(path: &Path) -> Result<Self, ExchangeError> {
        let failed = |reason: String| ExchangeError::BadEncodings { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
        Self::parse(&text).map_err(failed)
    }

    /// Writes a file, which appears in one step when it is complete.
    pub fn save(&self, path: &Path, format: EncodingsFormat) -> Result<(), ExchangeError> {
        Ok(write_file(path, self.to_text(format).as_bytes())?)
    }

    /// The content of a file.
    pub fn to_text(&self, format: EncodingsFormat) -> String {
        let document = match format {
            EncodingsFormat::Aimet061 => aimet::write_0(self),
            EncodingsFormat::Aimet1 => aimet::write_1(self),
            EncodingsFormat::Aimet2 => aimet2::write(self),
            EncodingsFormat::Ort => ort::write(self),
            EncodingsFormat::TensorRt => return tensorrt::write(self),
        };
        // Strings, numbers and lists cannot fail to be written.
        format!("{}\n", serde_json::to_string_pretty(&document).unwrap_or_default())
    }

    /// Reads the content of a file.
    pub fn parse(text: &str) -> Result<Self, String> {
        let found = if text.trim_start().starts_with("TRT-") {
            tensorrt::parse(text)?
        } else {
            let json = |e: serde_json::Error| format!("it is no file of encodings: {e}");
            match version(text).map_err(json)? {
                None => ort::parse(text)?,
                Some(version) if version.starts_with("2.") => aimet2::parse(text)?,
                Some(version) if version.starts_with("1.") => aimet::parse_1(text)?,
                Some(version) if version.starts_with("0.5") || version.starts_with("0.6") => aimet::parse_0(text)?,
                Some(version) => {
                    return Err(format!("encodings of version {version} are not known; 0.5, 0.6, 1 and 2 are"));
                }
            }
        };
        match found.tensors.iter().find_map(|(name, encoding)| Some((name, encoding.fault()?))) {
            Some((name, fault)) => Err(format!("tensor `{name}`: {fault}")),
            None => Ok(found),
        }
    }
}

/// The version that AIMET's files state. Overrides of a tensor called `version` are a list.
fn version(text: &str) -> Result<Option<String>, serde_json::Error> {
    #[derive(serde::Deserialize)]
    struct Document {
        version: Option<serde_json::Value>,
    }
    let document: Document = serde_json::from_str(text)?;
    Ok(document.version.and_then(|version| version.as_str().map(str::to_owned)))
}
