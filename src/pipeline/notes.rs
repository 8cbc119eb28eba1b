//! What a user should know of the data and of the inputs.

use super::Calibration;
use crate::error::Error;
use crate::prepare::FixedInput;
use crate::report::Report;

/// Samples compared to see whether all are the same.
const REPEATED: usize = 8;

/// A note on data that is one sample, or one many times over, which mistakes in scripts leave.
pub(super) fn repetition(Calibration { data, synthetic, .. }: Calibration) -> Result<Option<String>, Error> {
    let same = if synthetic {
        None
    } else if data.len() == 1 {
        Some("")
    } else {
        data.is_one_repeated(REPEATED)?.then_some("all that were looked at are the same, so ")
    };
    Ok(same.map(|same| format!("{}: {same}ranges come from one input", data.describe())))
}

/// What is said of the inputs that are constants.
pub(super) fn fixed(inputs: &[FixedInput]) -> Vec<String> {
    let said = |fixed: &FixedInput| format!("input `{}` is fixed at {} and not fed any more", fixed.input, fixed.value);
    inputs.iter().map(said).collect()
}

/// Samples from which on a plan that was chosen by them is about as good on others.
const ENOUGH: usize = 64;

/// What is to be said of a plan that few samples chose. The best of many on some samples is less good on others.
pub(super) fn chosen(report: &Report) -> Option<String> {
    let samples = report.quality.as_ref()?.samples;
    (report.is_chosen() && samples < ENOUGH).then(|| {
        format!(
            "the plan was chosen by the {samples} samples that its quality is stated on: on others it loses more, perhaps \
             several times as much; more calibration data help"
        )
    })
}
