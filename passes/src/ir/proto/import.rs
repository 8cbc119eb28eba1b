//! From file to model.

use super::messages::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use super::wire;
use crate::ir::external::Folder;
use crate::ir::value::Port;
use crate::ir::{Graph, Model, ValueId};
use bytes::Bytes;
use prost::Message;
use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// The newest version of the format whose every field is declared in this crate.
pub const NEWEST_IR_VERSION: i64 = 14;
/// The newest default operator set this crate knows.
pub const NEWEST_OPSET: i64 = 28;
/// Largest possible protobuf message; larger models have their weights in external files.
const LARGEST_MESSAGE: u64 = 0x7fff_ffff;

/// Why bytes or a file are not a model that this crate can read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file cannot be read.
    #[error("cannot read it: {0}")]
    Read(#[from] std::io::Error),
    /// The file is larger than a protobuf message can be.
    #[error("it has {bytes} bytes, more than an ONNX file can have; are these external weights?")]
    TooLarge {
        /// Size of the file.
        bytes: u64,
    },
    /// Not protobuf, or not ONNX.
    #[error("it is not an ONNX model: {reason}")]
    Malformed {
        /// Where decoding stopped and why.
        reason: String,
    },
    /// Written to a newer version of the format.
    #[error(
        "its IR version is {found}, newer than {NEWEST_IR_VERSION}, the newest known; reading it would lose fields"
    )]
    NewerIr {
        /// The file's version.
        found: i64,
    },
    /// Uses a newer operator set.
    #[error("its opset is {found}, newer than {NEWEST_OPSET}, the newest known; convert it to that or an older one")]
    NewerOpset {
        /// The file's version.
        found: i64,
    },
    /// Two definitions of one value.
    #[error("value `{name}` is defined twice")]
    DefinedTwice {
        /// The value.
        name: String,
    },
}

fn malformed(reason: impl Into<String>) -> ImportError {
    ImportError::Malformed { reason: reason.into() }
}

/// Reads a model file. External data stays in its files until it is needed. Nodes that stand before those they depend on,
/// which the format forbids and runtimes take, are put behind them; those of a sorted graph stay where they are.
pub fn load_model(path: &Path) -> Result<Model, ImportError> {
    let mut file = File::open(path)?;
    let bytes = file.metadata()?.len();
    if bytes > LARGEST_MESSAGE {
        return Err(ImportError::TooLarge { bytes });
    }
    let mut read = Vec::new();
    read.try_reserve_exact(bytes as usize).map_err(std::io::Error::from)?;
    // Pipes and devices state no length.
    file.by_ref().take(LARGEST_MESSAGE + 1).read_to_end(&mut read)?;
    if read.len() as u64 > LARGEST_MESSAGE {
        return Err(ImportError::TooLarge { bytes: read.len() as u64 });
    }
    let mut model = import(decode_model(read.into())?)?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    model.folder = Some(Folder::new(parent)?);
    // A cycle is for the validator, which names the nodes.
    let _cycle = model.graph.sort();
    Ok(model)
}

/// Decodes a model message. Errors say where in the file decoding stopped. Payloads share the buffer.
#[allow(clippy::needless_pass_by_value)]
pub fn decode_model(bytes: Bytes) -> Result<ModelProto, ImportError> {
    if bytes.is_empty() {
        return Err(malformed("the file is empty"));
    }
    match ModelProto::decode(bytes.clone()) {
        Ok(proto) => Ok(proto),
        Err(error) => Err(malformed(wire::locate(&bytes).unwrap_or_else(|| error.to_string()))),
    }
}

/// Decodes a tensor message, as found in the `.pb` files of ONNX test data.
pub fn decode_tensor(bytes: Bytes) -> Result<TensorProto, ImportError> {
    TensorProto::decode(bytes).map_err(|e| malformed(e.to_string()))
}

/// Builds the in-memory model.
pub fn import(mut proto: ModelProto) -> Result<Model, ImportError> {
    let ir = proto.ir_version();
    let Some(graph) = proto.graph.take() else { return Err(malformed("it has no graph")) };
    if ir < 1 {
        return Err(malformed("it states no IR version"));
    }
    if ir > NEWEST_IR_VERSION {
        return Err(ImportError::NewerIr { found: ir });
    }
    let opsets = proto.opset_import.iter().filter(|o| matches!(o.domain(), "" | "ai.onnx"));
    if let Some(found) = opsets.map(super::messages::OperatorSetIdProto::version).find(|&v| v > NEWEST_OPSET) {
        return Err(ImportError::NewerOpset { found });
    }
    Ok(Model { proto, graph: import_graph(graph)?, folder: None, typical_shapes: Arc::default() })
}

fn import_graph(mut proto: GraphProto) -> Result<Graph, ImportError> {
    let nodes = std::mem::take(&mut proto.node);
    let initializers = std::mem::take(&mut proto.initializer);
    let inputs = std::mem::take(&mut proto.input);
    let outputs = std::mem::take(&mut proto.output);
    let infos = std::mem::take(&mut proto.value_info);
    let mut graph = Graph { sparse: std::mem::take(&mut proto.sparse_initializer), proto, ..Graph::default() };
    graph.inputs = ports(&mut graph, inputs);
    let mut defined: HashSet<ValueId> = HashSet::new();
    for port in &graph.inputs {
        define(&graph, &mut defined, port.value)?;
    }
    for tensor in initializers {
        let value = graph.intern(tensor.name());
        if graph.initializers.insert(value, tensor).is_some() {
            return Err(ImportError::DefinedTwice { name: graph.value(value).name().to_owned() });
        }
        defined.insert(value);
    }
    for node in nodes {
        import_node(&mut graph, node, &mut defined)?;
    }
    graph.outputs = ports(&mut graph, outputs);
    graph.value_info = ports(&mut graph, infos);
    Ok(graph)
}

fn ports(graph: &mut Graph, infos: Vec<ValueInfoProto>) -> Vec<Port> {
    let port = |mut info: ValueInfoProto| {
        let value = graph.intern(info.name());
        info.name = info.name.map(|_| String::new());
        if graph.value(value).ty.is_none()
            && let Some(ty) = &info.r#type
        {
            graph.set_type(value, ty.clone());
        }
        Port { value, info }
    };
    infos.into_iter().map(port).collect()
}

fn define(graph: &Graph, defined: &mut HashSet<ValueId>, value: ValueId) -> Result<(), ImportError> {
    if defined.insert(value) {
        return Ok(());
    }
    Err(ImportError::DefinedTwice { name: graph.value(value).name().to_owned() })
}

fn import_node(graph: &mut Graph, mut node: NodeProto, defined: &mut HashSet<ValueId>) -> Result<(), ImportError> {
    let mut intern = |names: Vec<String>| -> Vec<Option<ValueId>> {
        names.into_iter().map(|n| (!n.is_empty()).then(|| graph.intern(&n))).collect()
    };
    let inputs = intern(std::mem::take(&mut node.input));
    let outputs = intern(std::mem::take(&mut node.output));
    for &value in outputs.iter().flatten() {
        define(graph, defined, value)?;
    }
    graph.add_node(node, &inputs, &outputs);
    Ok(())
}
