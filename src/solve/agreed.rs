//! The integers and scales that layers with the same weight agree on, as a solver: what was solved for one of them, given
//! to the others, which have biases of their own.

use super::{Grid, Problem, Rounded, Solution, SolveError, Solver, StatisticsKind};
use crate::quant::{Granularity, Sqnr};
use crate::solve::rows::Rows;
use msq_passes::analysis::Layer;

/// What a layer takes over.
#[derive(Clone, Debug)]
pub(crate) struct Agreed {
    /// Rows of integers, `[O, K]`; in the order in which the layer stores them where one scale serves all.
    integers: Vec<i8>,
    scales: Vec<f32>,
    zero_points: Vec<i8>,
    ratio: Sqnr,
}

impl Agreed {
    /// What was solved for a leader, as the layer that follows takes it. Of layers that share on one scale alone, whether
    /// each is stored transposed.
    pub(crate) fn new(leader: &Layer, rounded: &Rounded, layer: &Layer, transposed: [Option<bool>; 2]) -> Self {
        let stored: Vec<i8> = rounded.layer.weight.iter().collect();
        let mut integers = Rows::Channels(&leader.shape, leader.axis).of(&stored, 0);
        if let [Some(a), Some(b)] = transposed {
            integers = if a == b {
                stored
            } else {
                Rows::Channels(&leader.shape, Some(leader.shape.len() - 1)).of(&stored, 0)
            };
        } else if rounded.layer.scales.len() == 1 {
            let rows = std::mem::replace(&mut integers, vec![0; stored.len()]);
            Rows::Channels(&layer.shape, layer.axis).put(&rows, 0, &mut integers);
        }
        Self {
            integers,
            scales: rounded.layer.scales.clone(),
            zero_points: rounded.layer.zero_points.clone(),
            ratio: rounded.weight_sqnr,
        }
    }
}

impl Solver for Agreed {
    fn name(&self) -> &'static str {
        "agreed"
    }

    fn statistics(&self) -> StatisticsKind {
        StatisticsKind::Nothing
    }

    fn takes(&self, _: &Grid) -> bool {
        true
    }

    fn takes_granularity(&self, _: Granularity) -> bool {
        true
    }

    fn solve(&self, _: &Problem) -> Result<Solution, SolveError> {
        Ok(Solution {
            integers: self.integers.clone(),
            scales: self.scales.clone(),
            zero_points: self.zero_points.clone(),
            bias_shift: None,
            input_scale: None,
            ratio: self.ratio,
            plain_ratio: self.ratio,
        })
    }
}
