//! The bridge between ONNX files and the in-memory model: the only place that names prost.

pub(crate) mod messages;
