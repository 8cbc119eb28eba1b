//! The in-memory model.
//!
//! A [`Model`] is a [`Graph`] and the other fields of the file. The graph holds nodes and values in arenas with typed
//! handles and up-to-date definitions and uses; attributes, tensors and sub-graphs stay in their imported messages.
//! [`import`] followed by [`export`] gives the same message, field for field.

mod check;
mod documentation;
mod dtype;
pub mod external;
mod files;
mod graph;
mod hoist;
mod model;
mod node;
mod order;
pub(crate) mod proto;
mod save;
mod sink;
mod subgraph;
mod tensor;
pub mod text;
mod value;

pub use check::{CheckError, check};
pub use dtype::DataType;
pub use external::ExternalError;
pub use files::{FileSet, SaveError, check_writable, write_file, write_file_with};
pub use graph::Graph;
pub use model::Model;
pub(crate) use node::normal_domain;
pub use node::{Node, NodeId};
pub use order::CycleError;
pub(crate) use proto::encoded;
pub use proto::messages::*;
pub use proto::{
    ImportError, NEWEST_IR_VERSION, NEWEST_OPSET, decode_model, decode_tensor, encode_model, encoded_len, export,
    function_body, import, load_model,
};
pub use save::save_model;
pub(crate) use subgraph::{all_names, rename_free};
pub use tensor::TensorError;
pub use value::{Use, Value, ValueId, axis_of};
