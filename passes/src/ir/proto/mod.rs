//! The bridge between ONNX files and the in-memory model: the only place that names prost.

mod export;
mod import;
pub(crate) mod messages;
mod wire;

pub(crate) use export::encoded;
pub use export::{encode_model, encoded_len, export, function_body};
pub use import::{ImportError, NEWEST_IR_VERSION, NEWEST_OPSET, decode_model, decode_tensor, import, load_model};
