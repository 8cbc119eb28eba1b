//! Passes that make a finished file smaller without changing what it computes.

mod clean_names;
mod compact_integers;
mod drop_defaults;
mod half_constants;
mod share_constants;
mod share_weights;

pub use clean_names::CleanNames;
pub use compact_integers::CompactIntegers;
pub use drop_defaults::DropDefaults;
pub use half_constants::HalfConstants;
pub use share_constants::ShareConstants;
pub use share_weights::ShareWeights;
