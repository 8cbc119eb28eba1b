//! What a user should know of the data and of the inputs.

use super::Calibration;
use crate::error::Error;
use crate::prepare::FixedInput;

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
