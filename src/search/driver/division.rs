//! The parts of the data in a search.
//!
//! The best of many plans on some samples is in part lucky there, and so is the smallest one that loses no more than it may.
//! What is stated of a plan is therefore measured on samples that had no part in its choice. Three parts:
//!
//! | part | share | |
//! |---|---|---|
//! | calibration | half | layers of every plan that is tried are solved and imprinted on it |
//! | validation | a quarter | plans are measured on it |
//! | unseen | a quarter | what is stated of the plan that was chosen is measured on it |
//!
//! Once the plan is chosen, validation samples are as good as any for calibration: the plan is solved on the first two parts.

use crate::data::Dataset;

/// Samples from which on some are left for the last part, and validation samples of the caller's own from which on.
const ENOUGH: usize = 48;
const ENOUGH_VALIDATION: usize = 24;

/// Data in parts.
#[derive(Clone, Debug)]
pub struct Division {
    /// What layers are solved and imprinted on while plans are compared.
    pub calibration: Dataset,
    /// What plans are measured on.
    pub validation: Dataset,
    /// What the chosen plan is solved on.
    pub solving: Dataset,
    /// What is stated of it is measured on these samples, which had no part in anything before; `None` where there are too
    /// few, and it is stated on those it was chosen by.
    pub unseen: Option<Dataset>,
}

impl Division {
    /// Divides the data; of samples that the caller gives for validation, half become the last part.
    pub fn of(data: &Dataset, validation: Option<&Dataset>) -> Self {
        let samples = data.len();
        if let Some(given) = validation {
            let few = given.len() < ENOUGH_VALIDATION;
            let (validation, unseen) = if few { (given.clone(), None) } else { halves(given) };
            return Self { calibration: data.clone(), validation, solving: data.clone(), unseen };
        }
        if samples < ENOUGH {
            let (kept, validation) = data.split((samples / 4).max(samples.min(32) / 2));
            return Self { calibration: kept.clone(), validation, solving: kept, unseen: None };
        }
        let (solving, unseen) = data.split(samples / 4);
        let (calibration, validation) = solving.split(samples / 4);
        Self { calibration, validation, solving, unseen: Some(unseen) }
    }
}

fn halves(data: &Dataset) -> (Dataset, Option<Dataset>) {
    let (kept, other) = data.split(data.len() / 2);
    (kept, Some(other))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::data::{InputSpec, SyntheticOptions};
    use msq_passes::ir::DataType;
    use std::collections::BTreeSet;

    fn numbered(count: usize) -> Dataset {
        let shape = Some(vec![Some(1), Some(2)]);
        let input =
            InputSpec { name: "x".to_owned(), dtype: DataType::Float, shape, symbols: Vec::new(), image_size: None };
        Dataset::synthetic(&[input], &SyntheticOptions { count, ..SyntheticOptions::default() }).unwrap()
    }

    fn numbers(data: &Dataset) -> BTreeSet<usize> {
        (0..data.len()).filter_map(|at| data.number(at)).collect()
    }

    #[test]
    fn what_is_stated_on_had_no_part_before() {
        for samples in [48, 50, 64, 1000] {
            let data = numbered(samples);
            let Division { calibration, validation, solving, unseen } = Division::of(&data, None);
            let unseen = numbers(&unseen.unwrap());
            assert_eq!(unseen.len(), samples / 4);
            assert_eq!(validation.len(), samples / 4);
            assert!(numbers(&solving).is_disjoint(&unseen) && solving.len() == samples - samples / 4);
            assert!(numbers(&calibration).is_disjoint(&numbers(&validation)));
            let both: BTreeSet<usize> = numbers(&calibration).union(&numbers(&validation)).copied().collect();
            assert_eq!(both, numbers(&solving));
        }
    }

    #[test]
    fn few_samples_are_divided_in_two() {
        let division = Division::of(&numbered(40), None);
        assert!(division.unseen.is_none());
        assert_eq!((division.calibration.len(), division.validation.len(), division.solving.len()), (24, 16, 24));
    }

    #[test]
    fn half_of_the_callers_samples_is_unseen() {
        let data = numbered(10);
        let division = Division::of(&data, Some(&numbered(32)));
        assert_eq!((division.calibration.len(), division.solving.len()), (10, 10));
        let unseen = division.unseen.unwrap();
        assert!(numbers(&unseen).is_disjoint(&numbers(&division.validation)) && unseen.len() == 16);
        assert!(Division::of(&data, Some(&numbered(20))).unseen.is_none());
    }
}
