//! How good a network is, and what is in it.
//!
//! ```text
//! comparison  outputs of a network beside those of the float one, sample by sample: the one measure of everything
//! ├─ outputs     the outputs of a float model, and what is known of them before it runs
//! │  ├─ head     what the end of an output's branch says
//! │  └─ whole    whole numbers: answers or rounded values
//! ├─ evidence    what the float network's numbers say
//! ├─ channels    errors of values, channel by channel, centred
//! ├─ agreement   rows of scores, sequences, decisions, cosines
//! ├─ boxes       detections: kept, lost, invented
//! └─ metrics     what was found
//! pairs          layers of two models that are the same
//! fixed          inputs that are constants of one model are constants of the other
//! custom_metric  the caller's own measure
//! evaluate, compare, inspect   the commands of these names
//! ```

pub mod agreement;
pub(crate) mod boxes;
pub(crate) mod channels;
pub mod compare;
pub(crate) mod comparison;
mod custom_metric;
mod divergence;
mod error;
pub mod evaluate;
mod evidence;
mod fixed;
mod head;
pub mod inspect;
pub mod metrics;
pub(crate) mod outputs;
mod pairs;
mod whole;

pub use custom_metric::{CustomMetric, ScoredOutputs};
pub use error::MeasureError;
pub use fixed::fix_alike;
