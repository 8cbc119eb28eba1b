//! What a user should know of the data and of the inputs.

use super::Calibration;
use crate::error::Error;
use crate::prepare::FixedInput;
use crate::report::HalfReport;
use crate::report::numbers::counted;

/// Samples compared to see whether all are the same.
const REPEATED: usize = 8;

/// What is to be known of the data.
pub(super) fn of_data(calibration: Calibration, float16: Option<&HalfReport>) -> Result<Vec<String>, Error> {
    let unseen = unseen_magnitudes(calibration.synthetic, float16);
    Ok(repetition(calibration)?.into_iter().chain(unseen).collect())
}

/// A note on data that is one sample, or one many times over, which mistakes in scripts leave.
fn repetition(Calibration { data, synthetic, .. }: Calibration) -> Result<Option<String>, Error> {
    let same = if synthetic {
        None
    } else if data.len() == 1 {
        Some("")
    } else {
        data.is_one_repeated(REPEATED)?.then_some("all that were looked at are the same, so ")
    };
    Ok(same.map(|same| format!("{}: {same}ranges come from one input", data.describe())))
}

/// A warning where float16 computes what only made-up inputs have shown to fit: squares and variances of real ones may not.
fn unseen_magnitudes(synthetic: bool, float16: Option<&HalfReport>) -> Option<String> {
    let computing = float16.filter(|halved| synthetic && halved.nodes > 0)?.nodes;
    let nodes = counted(computing, "node");
    Some(format!(
        "{nodes} in float16, by magnitudes seen on made-up samples only: larger inputs may become infinite, as squares and \
         variances do beyond 65504; give data with `--calib`"
    ))
}

/// What is said of the inputs that are constants.
pub(super) fn fixed(inputs: &[FixedInput]) -> Vec<String> {
    let said = |fixed: &FixedInput| format!("input `{}` is fixed at {} and not fed any more", fixed.input, fixed.value);
    inputs.iter().map(said).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn float16_on_made_up_samples_is_warned_of() {
        let computing = HalfReport { nodes: 3, constants: 1, bytes: 8, left: Vec::new() };
        let warned = unseen_magnitudes(true, Some(&computing)).unwrap();
        assert!(warned.starts_with("3 nodes in float16") && warned.contains("--calib"), "{warned}");
        assert_eq!(unseen_magnitudes(false, Some(&computing)), None);
        assert_eq!(unseen_magnitudes(true, Some(&HalfReport { nodes: 0, ..computing })), None);
        assert_eq!(unseen_magnitudes(true, None), None);
    }
}
