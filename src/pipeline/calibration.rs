//! The phase that calibrates: what is seen of the activations, for as much of the model as the engine runs.

use crate::calibrate::observe::{Seen, Watch, see, seen_by};
use crate::calibrate::{CalibrateError, ShardStatistics};
use crate::data::Dataset;
use crate::error::Error;
use crate::execute::coverage::{Coverage, refused_empty};
use crate::measure::CustomMetric;
use crate::runtime::Runtime;
use crate::scheme::Scheme;
use crate::scheme::bit_plan::BitPlan;
use crate::scheme::options::Options;
use crate::solve::Solver;
use msq_passes::ir::Model;

/// Factor that widens ranges observed on synthetic inputs: real inputs reach further.
const SYNTHETIC_MARGIN: f32 = 1.25;

/// Frames of a network with states that are compared at least, where there are as many.
const FRAMES: usize = 128;

/// The inputs of calibration and solving.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calibration<'a> {
    /// The samples.
    pub data: &'a Dataset,
    /// Whether the samples are synthetic.
    pub synthetic: bool,
    /// The solver that a library user gives, in the place of the one that the options name.
    pub solver: Option<&'a dyn Solver>,
    /// Why there are no samples, where nothing can feed the model.
    pub unfed: Option<&'a str>,
    /// The caller's own metric.
    pub metric: Option<&'a CustomMetric>,
    /// What was counted of the samples elsewhere, in parts, so that they are not run here for that.
    pub statistics: Option<&'a [ShardStatistics]>,
}

impl Calibration<'_> {
    /// Factor that widens ranges.
    pub(super) fn margin(&self) -> f32 {
        if self.synthetic { SYNTHETIC_MARGIN } else { 1.0 }
    }
}

/// Resolves the scheme and observes the activations, for as much of the model as the engine runs.
pub(super) fn calibrate(
    model: &Model,
    plan: &BitPlan,
    calibration: Calibration,
    options: &Options,
    runtime: &Runtime,
) -> Result<(Scheme, Seen), Error> {
    let (watch, data) = (watch(calibration, options), calibration.data);
    let see = |scheme: &Scheme| match calibration.statistics {
        Some(parts) => seen_by(parts, model, scheme, data, watch, runtime),
        None => see(model, scheme, data, watch, runtime),
    };
    seen_in_scheme(model, plan, calibration, options, runtime, see)
}

/// How activations are looked at.
pub(super) fn watch(calibration: Calibration, options: &Options) -> Watch {
    Watch {
        observer: options.calibrate.observer,
        margin: calibration.margin(),
        outputs: compared(calibration.data, options),
        distributions: options.verify.details,
    }
}

/// Samples that the result is compared on: of frames with states many in a row, because errors add up.
fn compared(data: &Dataset, options: &Options) -> usize {
    let asked = options.verify.verify;
    if asked == 0 || data.links().is_empty() { asked } else { asked.max(FRAMES) }
}

/// The scheme for as much of the model as the engine runs, and what `see` sees of it.
pub(super) fn seen_in_scheme<T>(
    model: &Model,
    plan: &BitPlan,
    calibration: Calibration,
    options: &Options,
    runtime: &Runtime,
    see: impl Fn(&Scheme) -> Result<T, CalibrateError>,
) -> Result<(Scheme, T), Error> {
    let mut coverage = match calibration.unfed {
        Some(reason) => Coverage::nothing(model, reason.to_owned()),
        None => Coverage::within(model, runtime.memory),
    };
    loop {
        let scheme = Scheme::within(model, plan, options, coverage)?;
        scheme.check_encodings(model)?;
        match see(&scheme) {
            Ok(seen) => {
                if let Some(note) = scheme.coverage.note() {
                    tracing::warn!("{note}");
                }
                return Ok((scheme, seen));
            }
            Err(error) => {
                let part = || scheme.coverage.part(model);
                if let Some(refused) = error.of_engine().and_then(|_| refused_empty(&part(), calibration.data, runtime))
                {
                    return Err(refused.into());
                }
                let less = error.of_engine().and_then(|e| scheme.coverage.less(model, calibration.data, runtime, e));
                coverage = less.ok_or(error)?;
            }
        }
    }
}
