//! How much of a weight shares a scale.

/// How much of a weight shares a scale, and a zero point where there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Granularity {
    /// All of it.
    Tensor,
    /// Each output channel.
    #[default]
    Channel,
    /// Each block of so many consecutive values of an output channel; the last block of a channel may be shorter.
    Block(usize),
}

impl Granularity {
    /// The number of scales of a weight of so many channels, each of `size` values.
    pub fn scales(self, channels: usize, size: usize) -> usize {
        match self {
            Self::Tensor => 1,
            Self::Channel => channels,
            Self::Block(block) => channels * size.div_ceil(block.max(1)),
        }
    }
}
