//! Passes that choose the operators and types of a QDQ graph: on integers, in float16.

mod fuse_lstm;
mod fuse_nbits;
mod fuse_qlinear;
mod half_precision;
mod hold_quantizers;
mod lower_integer;
mod restore_activations;
mod sink_constants;
mod split_biases;
mod split_pads;
mod split_slopes;
mod widen_channels;

pub use fuse_lstm::FuseLstm;
pub use fuse_nbits::FuseNBits;
pub use fuse_qlinear::FuseQlinear;
pub use half_precision::{HalfPrecision, Magnitude};
pub use hold_quantizers::HoldQuantizers;
pub use lower_integer::LowerInteger;
pub use restore_activations::RestoreActivations;
pub use sink_constants::SinkConstants;
pub use split_biases::SplitBiases;
pub(crate) use split_biases::{bias_of, reads_open_shapes};
pub use split_pads::SplitPads;
pub use split_slopes::SplitSlopes;
pub use widen_channels::{WidenChannels, narrow_channels};
