//! The in-memory model.

mod dtype;
pub(crate) mod proto;

pub use dtype::DataType;
pub use proto::messages::*;
