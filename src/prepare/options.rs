//! What a caller can choose about the canonical form.

/// What becomes of a batch-norm behind a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchNorm {
    /// It is multiplied into the weights, which are rounded then.
    #[default]
    Fold,
    /// The weights keep their own grid; its factors go into the scales.
    Affine,
}

/// How the float graph is brought into its canonical form.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PrepareOptions {
    /// What becomes of batch-norms.
    pub batch_norm: BatchNorm,
    /// Whether channels between two layers are scaled to equal ranges; where `None`, only for targets whose weights have
    /// one scale per tensor.
    pub equalize: Option<bool>,
}
