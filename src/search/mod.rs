//! Searches for the bits of every layer.
//!
//! A search starts from a network with many bits, measures how much each layer matters, takes bits away where that
//! costs least, and keeps every configuration passed on the way: a front of size against accuracy. Searches differ in
//! the measure. [`imprint`] holds that of MSQ, how much a layer adds to what can be predicted from its activation.

pub mod imprint;
mod journal;
mod judge;
mod layer_accuracy;
mod prefix;
mod variants;
