//! Samples that are never used to calibrate or solve, where the solver could fit them: what is said of the result would
//! otherwise be too good, by 10 to 25 dB for weights of 4 bits solved on few samples.

use super::Calibration;
use crate::data::Dataset;
use crate::error::Error;
use crate::scheme::Scheme;
use crate::scheme::bit_plan::BitPlan;
use crate::scheme::options::Options;
use crate::solve::{Solver, StatisticsKind, solver};
use msq_passes::ir::Model;

/// Samples from which on some are held out.
const ENOUGH: usize = 32;
/// Samples compared, unless more are asked for.
const COMPARED: usize = 64;

/// Samples held out.
pub(super) struct HeldOut {
    /// Those that are compared.
    pub compared: Dataset,
    /// As many others, or as many as there are.
    pub others: Dataset,
}

/// The data to calibrate and solve on, and a quarter that is held out: where there is enough data, the solver fits it,
/// there is none to validate on, and a comparison is wanted.
pub(super) fn split(
    float: &Model,
    plan: &BitPlan,
    calibration: Calibration,
    validation: Option<&Dataset>,
    options: &Options,
) -> Result<(Dataset, Option<HeldOut>), Error> {
    let data = calibration.data;
    let wanted = validation.is_none() && options.verify.verify > 0 && data.len() >= ENOUGH;
    if !wanted || !fits(float, plan, calibration.solver, options)? {
        return Ok((data.clone(), None));
    }
    let (kept, held_out) = data.split(data.len() / 4);
    // Evenly spread over those held out.
    let wanted = COMPARED.max(options.verify.verify);
    let (rest, compared) = held_out.split(wanted.min(held_out.len()));
    let others = rest.split(wanted.min(rest.len())).1;
    Ok((kept, Some(HeldOut { compared, others })))
}

/// Whether the solver of these options looks at the data.
pub(super) fn fits(
    float: &Model,
    plan: &BitPlan,
    given: Option<&dyn Solver>,
    options: &Options,
) -> Result<bool, Error> {
    let statistics = match given {
        Some(given) => given.statistics(),
        None => solver(&Scheme::new(float, plan, options)?)?.statistics(),
    };
    Ok(statistics != StatisticsKind::Nothing)
}
