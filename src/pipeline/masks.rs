//! Masked scores get a bound that a quantizer can hold, where the target runs nothing but integers: the bounds are found on
//! some of the samples, and written into the float model before it is calibrated.

use super::Calibration;
use super::plan::resolved_plan;
use crate::calibrate::masks::bounds;
use crate::error::Error;
use crate::execute::masks::Masks;
use crate::prepare::annotate;
use crate::runtime::Runtime;
use crate::scheme::options::Options;
use msq_passes::ir::Model;
use msq_passes::pipelines;

/// Bounds the masked scores of a prepared model. Where the engine runs a part of the model only, nothing changes.
pub(super) fn bound_masks(
    model: &mut Model,
    calibration: Calibration,
    options: &Options,
    runtime: &Runtime,
) -> Result<(), Error> {
    if !options.scheme.profile.integers_only || calibration.unfed.is_some() {
        return Ok(());
    }
    let bits = if resolved_plan(model, options)?.is_wide() { 16 } else { 8 };
    let masks = Masks::chosen(model, options.calibrate.masks);
    let found = match bounds(model, calibration.data, &masks, bits, runtime) {
        Err(error) if error.of_engine().is_some() => {
            tracing::info!(%error, "no mask gets a bound");
            return Ok(());
        }
        found => found?,
    };
    if !found.is_empty() {
        pipelines::bound_masks(found, &options.scheme.keep_float).observed(runtime.passes()).run(model)?;
        annotate(model, &*runtime.backend());
    }
    Ok(())
}
