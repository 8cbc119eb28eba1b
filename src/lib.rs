//! msq-onnx quantizes float ONNX models to int8 without retraining.
//!
//! The story is in [`pipeline`]: a model is prepared by graph passes ([`msq_passes`]), run on calibration [`data`] by
//! the [`engine`], its activations reduced to mergeable statistics ([`calibrate`]), its weights rounded ([`quant`]),
//! and the result written as plain ONNX that runtimes run on integers.
//!
//! ```no_run
//! use msq_onnx::data::{DataOptions, Dataset};
//! use msq_onnx::{Options, load, pipeline, progress::Silent};
//!
//! let model = load("model.onnx".as_ref())?;
//! let data = Dataset::open("calib.npz".as_ref(), &pipeline::input_specs(&model), &DataOptions::default())?;
//! let quantized = pipeline::quantize(model, &data, false, &Options::default(), &Silent)?;
//! msq_passes::ir::save_model(&quantized.model, "small.onnx".as_ref())?;
//! # Ok::<(), msq_onnx::Error>(())
//! ```

pub mod agreement;
mod bit_plan;
pub mod calibrate;
mod comparison;
pub mod data;
mod ends;
pub mod engine;
mod error;
pub mod evaluate;
pub mod exchange;
pub mod inspect;
pub mod kernels;
mod lower;
pub mod metadata;
mod observe;
mod options;
pub mod pipeline;
mod prepare;
pub mod progress;
mod qdq;
pub mod quant;
mod reconstruct;
pub mod report;
pub mod search;
mod select;
mod sequential;
pub mod solve;
mod synthesize;
mod text_file;
mod weight_grid;
mod work;

pub use bit_plan::{ActivationBits, BitPlan, LayerPlan, PackingForm, WeightBits};
pub use ends::EndBits;
pub use error::Error;
pub use options::{BatchNorm, Format, Options, RoundingMode, Solver};
pub use synthesize::made_up;
pub use weight_grid::WeightGrid;

use msq_passes::ir::Model;
use std::path::Path;

/// Reads an ONNX model.
pub fn load(path: &Path) -> Result<Model, Error> {
    msq_passes::ir::load_model(path).map_err(|source| Error::Import { path: path.to_owned(), source })
}
