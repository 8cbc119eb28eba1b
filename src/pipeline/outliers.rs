//! Products read in float what quantizers clip of a few channels where that loses less: channels and ranges are found on
//! some of the samples before the others are calibrated, and the QDQ graph is written with them.

use super::Calibration;
use crate::calibrate::outliers::outliers;
use crate::error::Error;
use crate::execute::coverage::Coverage;
use crate::runtime::Runtime;
use crate::scheme::Scheme;
use crate::scheme::bit_plan::BitPlan;
use crate::scheme::options::{Float16, Options};
use msq_passes::ir::Model;
use std::sync::Arc;

/// The options with the channels to split of a prepared model. Without real samples, where the engine runs a part of the
/// model only, where encodings say what ranges are, where what stays float becomes float16, and for targets other than
/// onnxruntime, for which it was not measured, nothing is split.
pub(super) fn split(
    model: &Model,
    plan: &BitPlan,
    calibration: Calibration,
    options: &Options,
    runtime: &Runtime,
) -> Result<Options, Error> {
    let mut options = options.clone();
    let target = &options.scheme.profile;
    let fits = target.contrib && !target.integers_only && options.output.float16 != Some(Float16::All);
    let free = options.scheme.encodings.tensors.is_empty();
    if !options.calibrate.outliers || !fits || !free || calibration.synthetic || calibration.unfed.is_some() {
        return Ok(options);
    }
    let scheme = Scheme::within(model, plan, &options, Coverage::within(model, runtime.memory))?;
    match outliers(model, &scheme, calibration.data, runtime) {
        Err(error) if error.of_engine().is_some() => tracing::info!(%error, "no channel is split"),
        found => options.scheme.outliers = Arc::new(found?),
    }
    Ok(options)
}

/// What a user should know of it.
pub(super) fn note(options: &Options) -> Option<String> {
    let split = &options.scheme.outliers;
    let channels: usize = split.values().map(|outliers| outliers.channels.len()).sum();
    let [channels, activations] = [(channels, "channel"), (split.len(), "activation")]
        .map(|(count, noun)| format!("{count} {noun}{}", if count == 1 { "" } else { "s" }));
    (!split.is_empty()).then(|| {
        format!("products read in float what quantizers clip of {channels} in {activations}: they lose less so; option `no-outliers` leaves that out")
    })
}
