//! Passes that cut a part out of a model, or add outputs to it, so that it can be run and observed.

mod extract_segment;
mod insert_taps;

pub use extract_segment::ExtractSegment;
pub use insert_taps::InsertTaps;
