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
use crate::data::{Dataset, Groups};
use crate::error::Error;
use crate::report::Quality;
use crate::scheme::Scheme;
use crate::scheme::options::Options;
use crate::search::guard::Network;
use crate::solve::network::{Solved, rebiased};

/// Parts that the data are divided into.
const FOLDS: usize = 4;
/// Samples that are compared, unless more are asked for.
const COMPARED: usize = 512;
/// Share of the error that a statement may leave out, 0.5 dB.
const LEFT_OUT: f64 = 0.1;

/// A part of the data, and the network with ranges from all other parts.
struct Fold {
    /// The numbers of the samples compared among all that are.
    positions: Vec<usize>,
    /// What was seen of the other parts.
    seen: Seen,
    /// Their ranges.
    observed: Observed,
    /// The layers behind these ranges.
    solved: Solved,
}

/// All parts.
pub(super) struct Folds {
    /// The samples compared, and their places in the data.
    compared: Dataset,
    places: Vec<usize>,
    parts: Vec<Fold>,
}

impl Folds {
    /// The samples compared, part by part.
    pub(super) fn groups(&self) -> Groups {
        let lengths = self.parts.iter().map(|fold| fold.positions.len());
        Groups::new(self.compared.subset(&self.positions()), lengths)
    }

    /// The network of each part.
    pub(super) fn networks(&self) -> Vec<Network<'_>> {
        self.parts.iter().map(|Fold { seen, observed, solved, .. }| Network { seen, observed, solved }).collect()
    }

    /// Where some samples of [`groups`](Self::groups) stand in the data, in the order of the data.
    pub(super) fn places(&self, of_groups: impl IntoIterator<Item = usize>) -> Vec<usize> {
        let positions = self.positions();
        let mut places: Vec<usize> = of_groups.into_iter().map(|at| self.places[positions[at]]).collect();
        places.sort_unstable();
        places
    }

    fn positions(&self) -> Vec<usize> {
        self.parts.iter().flat_map(|fold| fold.positions.iter().copied()).collect()
    }
}

/// Whether ranges hold for other samples less than it seems. Not where a comparison with all ranges on the samples they are from
/// says the same, where it is on other samples anyway, and where none is wanted.
pub(super) fn is_needed(run: Run, scheme: &Scheme, seen: &Seen, observed: &Observed) -> Result<bool, Error> {
    let Run { float, calibration, validation, options, .. } = run;
    let unknown = calibration.synthetic || calibration.unfed.is_some() || !scheme.coverage.is_whole();
    let unwanted = validation.is_some() || options.verify.verify == 0 || calibration.data.len() < 2;
    if unknown || unwanted || seen.unseen_share(observed) <= LEFT_OUT {
        return Ok(false);
    }
    Ok(!fits(float, &scheme.plan, calibration.solver, options)?)
}

/// Divides the data; compared are the samples that the run says, or else all or as many as are enough.
pub(super) fn folds(run: Run, scheme: &Scheme, (observed, solved): (&Observed, &Solved)) -> Result<Folds, Error> {
    let Run { float, calibration, options, runtime, .. } = run;
    let data = calibration.data;
    let count = FOLDS.min(data.len());
    let data_of: Vec<Dataset> =
        (0..count).map(|fold| data.subset(&(fold..data.len()).step_by(count).collect::<Vec<_>>())).collect();
    let others = see_others(float, scheme, &data_of, watch(calibration, options), runtime)?;
    let places = run.compared.map_or_else(|| spread(data.len(), count, options), <[usize]>::to_vec);
    let mut parts = Vec::new();
    for (fold, seen) in others.into_iter().enumerate() {
        let own = seen.observed(float, scheme)?;
        let solved = rebiased(float, scheme, solved, [observed, &own])?;
        let positions = (0..places.len()).filter(|&at| places[at] % count == fold).collect();
        parts.push(Fold { positions, seen, observed: own, solved });
    }
    Ok(Folds { compared: data.subset(&places), places, parts })
}

/// The places of the samples that are compared: evenly spread, and as many of each part.
fn spread(samples: usize, parts: usize, options: &Options) -> Vec<usize> {
    let wanted = COMPARED.max(options.verify.verify).min(samples);
    let places = (0..wanted).map(|at| at / parts * samples / wanted * parts + at % parts);
    places.filter(|&place| place < samples).collect()
}

/// Compares each part with ranges from all others.
pub(super) fn quality(run: Run, scheme: &Scheme, folds: &Folds) -> Result<Quality, Error> {
    let Run { float, outputs, calibration, runtime, .. } = run;
    let mut total = verify::Compared::new(&outputs.on(folds.compared.len()));
    for fold in folds.parts.iter().filter(|fold| !fold.positions.is_empty()) {
        let model = run.lowered(scheme, &fold.observed, &fold.solved)?;
        let model = run.rounded(scheme, &model)?.unwrap_or(model);
        total.add([float, &model], (&folds.compared, &fold.positions), calibration.metric.is_some(), runtime)?;
    }
    Ok(total.quality(calibration.metric, true)?.cross_validated())
}
