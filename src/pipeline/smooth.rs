//! Channels of what products read are divided by factors where that loses less: the factors are found on some of the
//! samples, and written into the float model before it is calibrated.

use super::Calibration;
use crate::calibrate::smooth::factors;
use crate::error::Error;
use crate::execute::coverage::Coverage;
use crate::prepare::annotate;
use crate::runtime::Runtime;
use crate::scheme::Scheme;
use crate::scheme::bit_plan::BitPlan;
use crate::scheme::options::Options;
use msq_passes::ir::Model;
use msq_passes::pipelines;

/// Divides the channels of activations of a prepared model where that loses less; returns of how many activations.
/// Without real samples, and where the engine runs a part of the model only, nothing changes.
pub(super) fn smooth(
    model: &mut Model,
    plan: &BitPlan,
    calibration: Calibration,
    options: &Options,
    runtime: &Runtime,
) -> Result<usize, Error> {
    if !options.calibrate.smooth || calibration.synthetic || calibration.unfed.is_some() {
        return Ok(0);
    }
    let scheme = Scheme::within(model, plan, options, Coverage::within(model, runtime.memory))?;
    let found = match factors(model, &scheme, calibration.data, runtime) {
        Err(error) if error.of_engine().is_some() => {
            tracing::info!(%error, "no activation is smoothed");
            return Ok(0);
        }
        found => found?,
    };
    let count = found.len();
    if count > 0 {
        pipelines::smooth(found).observed(runtime.passes()).run(model)?;
        annotate(model, &*runtime.backend());
    }
    Ok(count)
}

/// What a user should know of it.
pub(super) fn note(smoothed: usize) -> Option<String> {
    let activations = if smoothed == 1 { "activation that products read" } else { "activations that products read" };
    (smoothed > 0).then(|| {
        format!("the channels of {smoothed} {activations} have factors of their own: they lose less so; option `no-smooth` leaves that out")
    })
}
