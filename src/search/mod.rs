//! Searches for the bits of every layer.
//!
//! A search starts from a network with many bits, measures how much each layer matters, takes bits away where that
//! costs least, and keeps every configuration passed on the way: a front of size against accuracy. [`registry`] lists the
//! methods, which differ in the measure: MSQ's is how much a layer adds to what can be predicted from its activation
//! ([`imprint`]), that of the sensitivities how far the output moves when that layer alone loses bits, which [`allocate`]
//! turns into plans. Either only guesses at what a whole plan does; the default measures the plans of both on data not
//! calibrated on, takes the better and exchanges bits between layers while that helps.
//!
//! ```text
//! search ── space      the plans to choose from: a rung of one ladder for every layer
//!        ├─ registry   the methods by name
//!        ├─ methods    each proposes a plan
//!        ├─ driver     from a target to a plan: space, method, repair, front
//!        ├─ answers    the share of answers that a plan is likely to lose
//!        ├─ guard      repairs of what loses too much: ranges, layers in float
//!        ├─ variants   networks by plan, layers solved once per width
//!        ├─ evaluator  distance from float, agreement, accuracy
//!        ├─ layer_accuracy   MSQ's Acc_i
//!        ├─ gradient   costs of all layers from gradients
//!        ├─ allocate   plans from costs
//!        └─ journal    what was measured, on disk
//! ```

pub mod allocate;
pub(crate) mod answers;
mod driver;
mod error;
mod evaluator;
mod gradient;
pub(crate) mod guard;
pub mod imprint;
mod journal;
mod layer_accuracy;
mod space;
mod variants;

pub use crate::measure::metrics::Metrics;
pub use crate::report::search::{FrontPoint, Outcome, Passes, Proposal, Sensitivity, Step};
pub use driver::options::{Costs, SearchOptions, Target};
pub use driver::registry::{self, Method};
pub use driver::{Division, Parts, SearchRow, measure, search};
pub use error::SearchError;
pub use layer_accuracy::{Imprinting, TapPosition};
