//! Runs a model, or a part of one, on many samples.
//!
//! ```text
//! partition   which values cross a cut, by liveness
//! segment     a part of a model: its inputs, its outputs, where each value is found
//! fold        every sample through a segment, or through two side by side; what is found is merged in order
//! stages      policy: cuts so that the weights of each stage fit a limit on memory
//! walk        policy: cuts behind one layer after the other, float network beside quantized network
//! prefixes    policy: cuts at which values are kept, so that variants of a network need not be run from the start
//! coverage    what of a model can be run at all
//! masks       positions that a mask among the inputs leaves out
//! unroll      sequences, frame by frame: the states that frames are fed with
//! ```

pub(crate) mod coverage;
mod error;
pub(crate) mod fold;
mod lengths;
pub(crate) mod masks;
pub(crate) mod partition;
pub(crate) mod prefixes;
pub(crate) mod segment;
pub(crate) mod stages;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod unroll;
pub(crate) mod walk;

pub use error::ExecuteError;
