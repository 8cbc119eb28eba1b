//! Figures by cross-validation (Stone, 1974), where ranges are chosen from few values.
//!
//! Ranges end near the largest values seen. Samples that they were chosen from are clipped nowhere, other samples are, and
//! with few samples that is most of what they lose: perceptrons calibrated on 16 rows state 30 dB and have 15. So the data
//! are divided into folds. For each, ranges are chosen from all other folds, the biases of the layers follow, and the
//! network with them is compared on this fold. What is stated is the comparison over all folds, of a network with slightly
//! fewer samples than the one that is written.
//!
//! Where ranges come from many values that makes no difference, and is left out: the error that other samples are likely
//! to have beyond the ranges is estimated from the largest values of the samples ([`Peaks`](crate::calibrate::Peaks)).

use super::calibration::watch;
use super::held_out::fits;
use super::{Run, verify};
use crate::calibrate::observe::{Observed, Seen, see_others};
use crate::data::Dataset;
use crate::error::Error;
use crate::report::Quality;
use crate::scheme::Scheme;
use crate::solve::network::{Solved, rebiased};

/// Parts that the data are divided into.
const FOLDS: usize = 4;
/// Samples that are compared, unless more are asked for.
const COMPARED: usize = 512;
/// Share of the error that a statement may leave out, 0.5 dB.
const LEFT_OUT: f64 = 0.1;

/// A part of the data, and the network with ranges from all other parts.
pub(super) struct Fold {
    /// The numbers of the samples compared among all that are.
    positions: Vec<usize>,
    /// What was seen of the other parts.
    pub seen: Seen,
    /// Their ranges.
    pub observed: Observed,
    /// The layers behind these ranges.
    pub solved: Solved,
}

/// All parts.
pub(super) struct Folds {
    /// The samples compared.
    compared: Dataset,
    folds: Vec<Fold>,
}

impl Folds {
    /// The first part and its samples.
    pub(super) fn first(&self) -> Option<(&Fold, Dataset)> {
        let fold = self.folds.first()?;
        Some((fold, self.compared.subset(&fold.positions)))
    }
}

/// Divides the data where ranges hold for other samples less than it seems; `None` where a comparison with all ranges on
/// the samples they are from says the same, where it is on other samples anyway, and where none is wanted.
pub(super) fn folds(
    run: Run,
    scheme: &Scheme,
    seen: &Seen,
    (observed, solved): (&Observed, &Solved),
) -> Result<Option<Folds>, Error> {
    let Run { float, calibration, validation, options, runtime, .. } = run;
    let data = calibration.data;
    let unknown = calibration.synthetic || calibration.unfed.is_some() || !scheme.coverage.is_whole();
    let unwanted = validation.is_some() || options.verify.verify == 0 || data.len() < 2;
    if unknown || unwanted || seen.unseen_share(observed) <= LEFT_OUT {
        return Ok(None);
    }
    if fits(float, &scheme.plan, calibration.solver, options)? {
        return Ok(None);
    }
    let count = FOLDS.min(data.len());
    let parts: Vec<Dataset> =
        (0..count).map(|fold| data.subset(&(fold..data.len()).step_by(count).collect::<Vec<_>>())).collect();
    let others = see_others(float, scheme, &parts, watch(calibration, options), runtime)?;
    let wanted = COMPARED.max(options.verify.verify).min(data.len());
    // Evenly spread, and as many of each part.
    let places: Vec<usize> = (0..wanted).map(|at| at / count * data.len() / wanted * count + at % count).collect();
    let places: Vec<usize> = places.into_iter().filter(|&place| place < data.len()).collect();
    let mut folds = Vec::new();
    for (fold, seen) in others.into_iter().enumerate() {
        let own = seen.observed(float, scheme)?;
        let solved = rebiased(float, scheme, solved, [observed, &own])?;
        let positions = (0..places.len()).filter(|&at| places[at] % count == fold).collect();
        folds.push(Fold { positions, seen, observed: own, solved });
    }
    Ok(Some(Folds { compared: data.subset(&places), folds }))
}

/// Compares each part with ranges from all others.
pub(super) fn quality(run: Run, scheme: &Scheme, folds: &Folds) -> Result<Quality, Error> {
    let Run { float, outputs, calibration, runtime, .. } = run;
    let mut total = verify::Compared::new(&outputs.on(folds.compared.len()));
    // The first part has chosen the repairs.
    for fold in folds.folds.iter().skip(usize::from(run.repaired)) {
        let model = run.lowered(scheme, &fold.observed, &fold.solved)?;
        let model = run.rounded(scheme, &model)?.unwrap_or(model);
        total.add([float, &model], (&folds.compared, &fold.positions), calibration.metric.is_some(), runtime)?;
    }
    Ok(total.quality(calibration.metric, true)?.cross_validated())
}
