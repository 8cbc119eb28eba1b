//! Mini-batches, and Adam.

use crate::data::random::Random;

/// Columns in a mini-batch.
const BATCH: usize = 64;
/// The stream of random numbers that mini-batches are drawn from.
const STREAM: u64 = 0x0062_6174_6368;

/// Mini-batches, drawn with replacement.
#[derive(Clone, Debug)]
pub(in crate::solve) struct Batches {
    random: Random,
}

impl Batches {
    pub(in crate::solve) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed, STREAM, 0) }
    }

    /// Some of so many columns; all where there are few.
    pub(super) fn draw(&mut self, count: usize, batch: &mut Vec<usize>) {
        batch.clear();
        if count <= BATCH {
            batch.extend(0..count);
        } else {
            batch.extend((0..BATCH).map(|_| self.random.below(count as u64) as usize));
        }
    }
}

/// Adam (Kingma and Ba, 2015): v ← v − η·m̂/(√ŝ + ε), m and s moving averages of the gradient and of its square, with
/// decays 0.9 and 0.999, freed from the bias of their start.
#[derive(Clone, Debug)]
pub(in crate::solve) struct Adam {
    first: Vec<f32>,
    second: Vec<f32>,
    steps: i32,
}

impl Adam {
    const DECAYS: [f32; 2] = [0.9, 0.999];
    const EPSILON: f32 = 1e-8;

    pub(in crate::solve) fn new(count: usize) -> Self {
        Self { first: vec![0.0; count], second: vec![0.0; count], steps: 0 }
    }

    /// Moves values along their gradients at the rate η.
    pub(in crate::solve) fn update(&mut self, values: &mut [f32], gradients: &[f32], rate: f32) {
        self.steps += 1;
        let [decay, slow] = Self::DECAYS;
        let rate = rate / (1.0 - decay.powi(self.steps));
        let root = (1.0 - slow.powi(self.steps)).sqrt();
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((value, &gradient), (first, second)) in values.iter_mut().zip(gradients).zip(moments) {
            *first += (1.0 - decay) * (gradient - *first);
            *second += (1.0 - slow) * (gradient * gradient - *second);
            *value -= rate * *first / (second.sqrt() / root + Self::EPSILON);
        }
    }
}
