//! The task predictor of MSQ, by pyramid-pooled weight imprinting, and the choice made from what it finds.
//!
//! How well can the class of a sample be told from the activation F of one layer, without training anything? For
//! every scale d of a [`Pyramid`],
//!
//! * F is pooled to d×d and resized to one size for all scales: the feature `e^d` (9, 11);
//! * [`Templates`] are the means of the features of each class, weighed with the network's own confidence (10):
//!   `W^d[c] = Σ Conf·e^d / Σ Conf` over the samples of class c;
//! * a [`Predictor`] compares a sample with all templates, `S^d = W^d·e^d` (12), and takes the class with the largest
//!   mean of `S^d` over the scales, weighed by the entropy of softmax(`S^d`) (13-15).
//!
//! Where the share that is right ([`Accuracy`]) hardly changes from a layer to the next, the layer adds little, and
//! [`search_step`] takes bits away there (algorithm 1). Numbers in parentheses are the equations of the MSQ paper.
//!
//! Pooling and resizing are linear, so features and templates are kept pooled, C·(1 + 4 + 16) values for scales 1, 2
//! and 4, and never resized: with R the resizing, `(R·w)·(R·e) = w·(RᵀR·e)`, where `RᵀR` is at most d×d an axis.
//!
//! (12) multiplies a template of one scale with the features of all; it is read scale by scale. Features and templates
//! have length 1 unless [`Normalization::None`] asks for the literal reading. Logits are then cosines, and softmax of
//! numbers within [−1, 1] is nearly flat; the paper has no temperature, so there is none. Softmax is over the classes
//! that have a template.
//!
//! Sums are in double precision and in the order of the calls: the same parts merged in the same order give the same
//! bits, and other parts the same but for the last places.

mod axis_map;
mod predictor;
mod pyramid;
mod step;
mod templates;
#[cfg(test)]
mod tests;

pub use crate::measure::agreement::Accuracy;
pub use predictor::{Predictor, Query, ScaleWeight};
pub use pyramid::{Channels, Features, MAX_SCALE, Pyramid};
pub use step::{Candidate, search_step};
pub use templates::{Normalization, Templates};

use thiserror::Error;

/// Why an activation has no features, or features cannot be compared. The caller names the layer.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum ImprintError {
    /// Scales that cannot be pooled to.
    #[error("scales {scales:?} are not usable, give at least one and each from 1 to {MAX_SCALE}")]
    Scales {
        /// The scales given.
        scales: Vec<usize>,
    },
    /// Not the activation of one sample.
    #[error("an activation of shape {shape:?} with {length} values is not that of one sample")]
    Shape {
        /// The shape given.
        shape: Vec<usize>,
        /// The number of values given.
        length: usize,
    },
    /// The activation holds NaN or infinity.
    #[error("the activation holds values that are not finite")]
    NonFinite,
    /// A confidence that is no probability.
    #[error("{confidence} is no confidence, a probability is expected")]
    Confidence {
        /// The number given.
        confidence: f64,
    },
    /// Features of maps pooled to different sizes.
    #[error("features of shapes {found:?} cannot be compared with {expected:?}")]
    Layout {
        /// The pooled shapes so far, one a scale.
        expected: Vec<Vec<usize>>,
        /// The pooled shapes given.
        found: Vec<Vec<usize>>,
    },
    /// Sums of lengths 1 and sums of features as they are.
    #[error("templates of different normalizations cannot be merged")]
    Merge,
}
