//! What the ONNX operator set says of each operator, as data.

mod opsets;

pub(crate) use opsets::has_one_output;
pub use opsets::{first_opset, ir_version_of_opset};
