//! What the shapes of results follow from, by the operator.

/// What the shapes of a node's results follow from, beside its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// The shapes of its operands.
    Shapes,
    /// The shapes of its operands, and the values of the operands at these places.
    Values(&'static [usize]),
    /// The values of its operands, in a way that only running it tells.
    Open,
    /// What its sub-graphs compute, which are run in steps themselves.
    Steps,
}

/// Operators of which nothing is said here have results of shapes that follow from those of their operands.
pub(super) fn extent(op: &str) -> Extent {
    match op {
        "NonZero" | "NonMaxSuppression" | "Unique" | "Compress" | "SequenceMap" => Extent::Open,
        "If" | "Loop" => Extent::Steps,
        "ConstantOfShape" | "BlackmanWindow" | "HammingWindow" | "HannWindow" => Extent::Values(&[0]),
        "Reshape" | "Expand" | "Tile" | "TopK" | "OneHot" | "Squeeze" | "Unsqueeze" | "Split" | "Upsample"
        | "AffineGrid" | "CenterCropPad" => Extent::Values(&[1]),
        "MaxUnpool" => Extent::Values(&[2]),
        "DFT" | "Col2Im" => Extent::Values(&[1, 2]),
        "Pad" | "STFT" => Extent::Values(&[1, 3]),
        "Range" => Extent::Values(&[0, 1, 2]),
        "Resize" => Extent::Values(&[1, 2, 3]),
        "Slice" => Extent::Values(&[1, 2, 3, 4]),
        "MelWeightMatrix" => Extent::Values(&[0, 1, 2, 3, 4]),
        _ if op.starts_with("Reduce") => Extent::Values(&[1]),
        _ => Extent::Shapes,
    }
}

/// Operators whose result depends on more than their operands.
pub(super) fn is_random(op: &str) -> bool {
    op.starts_with("Random") || matches!(op, "Multinomial" | "Bernoulli")
}

/// Operators that ask for a shape, not for values.
pub(super) fn asks_for_shape(op: &str) -> bool {
    matches!(op, "Shape" | "Size")
}
