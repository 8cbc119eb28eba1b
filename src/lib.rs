//! msq-onnx.

pub mod agreement;
pub mod calibrate;
pub mod data;
pub mod engine;
mod error;
pub mod evaluate;
pub mod inspect;
mod observe;
mod options;
pub mod pipeline;
mod prepare;
pub mod progress;
pub mod quant;
pub mod report;
mod select;
mod solve;
mod synthesize;

pub use error::Error;
pub use options::Options;
pub use synthesize::made_up;

use msq_passes::ir::Model;
use std::path::Path;

/// Reads an ONNX model.
pub fn load(path: &Path) -> Result<Model, Error> {
    msq_passes::ir::load_model(path).map_err(|source| Error::Import { path: path.to_owned(), source })
}
