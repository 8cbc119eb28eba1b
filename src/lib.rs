//! msq-onnx makes float ONNX models small and fast without retraining: int8 activations, weights of 8 bits down to 1,
//! in plain ONNX that stock runtimes run on integers.
//!
//! The story is in `src/pipeline.rs`: a model is prepared by graph passes ([`msq_passes`]), run on calibration [`data`]
//! by the [`engine`], its activations reduced to mergeable statistics ([`calibrate`]), its weights rounded ([`quant`]),
//! and the result written as plain ONNX that runtimes run on integers.
//!
//! ```no_run
//! use msq_onnx::Quantizer;
//! use msq_onnx::data::{DataOptions, Dataset};
//! use msq_onnx::search::Target;
//!
//! let quantizer = Quantizer::open("model.onnx")?;
//! let data = Dataset::open("calib.npz".as_ref(), &quantizer.inputs(), &DataOptions::default())?;
//! let small = quantizer.calibration(data).target(Target::MaxDrop(0.01)).run()?;
//! small.save("small.onnx")?;
//! println!("{} of {} bytes", small.report.bytes, small.report.float_bytes);
//! # Ok::<(), msq_onnx::Error>(())
//! ```
//!
//! [`Options`] says how weights and activations are quantized, [`search::SearchOptions`] how bits are looked for,
//! [`report::Report`] what became of it. A [`progress::Progress`] hears where a long run is, a
//! [`progress::Cancellation`] ends it. Every function returns an [`Error`] that names the file, tensor or layer; nothing
//! prints or panics.
//!
//! The same is there step by step: [`data`] reads samples, [`evaluate`] measures a model, [`inspect`] lists its layers,
//! and the crate [`msq_passes`] holds the model itself and the passes over its graph.

pub mod calibrate;
pub mod data;
pub mod engine;
mod error;
pub mod exchange;
pub mod execute;
pub mod kernels;
mod lower;
pub mod measure;
mod pipeline;
pub mod prepare;
pub mod quant;
mod quantizer;
pub mod report;
pub mod runtime;
pub mod scheme;
pub mod search;
pub mod solve;

pub use calibrate::synthetic::made_up;
pub use error::Error;
pub use measure::{CustomMetric, ScoredOutputs, agreement, compare, evaluate, fix_alike, inspect, metrics};
pub use pipeline::Quantized;
pub use prepare::{FixedInput, contradicted};
pub use quant::BitRate;
pub use quant::weight_grid::WeightGrid;
pub use quantizer::{Quantizer, load};
pub use runtime::progress;
pub use scheme::bit_plan::{ActivationBits, BitPlan, LayerPlan, PackingForm, WeightBits};
pub use scheme::bits::{Activations, BitsOptions};
pub use scheme::ends::EndBits;
pub use scheme::gradient_code::{GradientCode, ParseGradientCodeError};
pub use scheme::metadata;
pub use scheme::options::{
    BatchNorm, CalibrateOptions, Float16, Format, MeasureOptions, Options, OutputOptions, PlacementMode,
    PrepareOptions, RepairOptions, RoundingMode, SchemeOptions, SolveOptions, VerifyOptions,
};
pub use scheme::output_kind::{OutputChoice, OutputChoiceError, OutputKind};
pub use scheme::solver_name::SolverName;
