//! The validator: is the graph valid ONNX, and is the arena consistent with itself?

use super::{DataType, Graph, Model, Node, NodeId, TensorError, TensorProto, Use, ValueId};
use crate::ops::{first_opset, schema};
use std::collections::HashSet;

/// A fault of a model, with the node or value that has it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckError {
    /// A node reads a value that nothing defines.
    #[error("node `{node}` ({op}) reads `{value}`, which nothing defines")]
    Undefined {
        /// The reading node.
        node: String,
        /// Its operator.
        op: String,
        /// The value.
        value: String,
    },
    /// A node stands before one it depends on.
    #[error("node `{node}` ({op}) reads `{value}` before it is computed: the nodes form a cycle or are not sorted")]
    Order {
        /// The reading node.
        node: String,
        /// Its operator.
        op: String,
        /// The value.
        value: String,
    },
    /// Nothing defines a graph output.
    #[error("graph output `{value}` is defined by nothing")]
    UndefinedOutput {
        /// The value.
        value: String,
    },
    /// A node's domain is not imported.
    #[error("node `{node}` is of domain `{domain}`, which the model does not import")]
    DomainNotImported {
        /// The node.
        node: String,
        /// Its domain.
        domain: String,
    },
    /// The model states no operator set at all for the default domain.
    #[error("the model states no opset, which node `{node}` ({op}) needs")]
    NoOpset {
        /// The first node that needs it.
        node: String,
        /// Its operator.
        op: String,
    },
    /// An operator newer than the opset.
    #[error("node `{node}`: operator {op} needs opset {needed}, the model states {stated}")]
    OpsetTooOld {
        /// The node.
        node: String,
        /// Its operator.
        op: String,
        /// The opset that introduced it.
        needed: i64,
        /// The model's opset.
        stated: i64,
    },
    /// A node has more outputs than its operator: passes would lose them.
    #[error("node `{node}`: operator {op} has one output, the model wants {found}")]
    Outputs {
        /// The node.
        node: String,
        /// Its operator.
        op: String,
        /// The number of outputs stated.
        found: usize,
    },
    /// An initializer whose type differs from the declared one.
    #[error("initializer `{value}` is {found}, declared {declared}")]
    TypeMismatch {
        /// The value.
        value: String,
        /// Type of the tensor.
        found: DataType,
        /// Type declared.
        declared: DataType,
    },
    /// An initializer whose shape differs from the declared one.
    #[error("initializer `{value}` has shape {found:?}, declared {declared:?}")]
    ShapeMismatch {
        /// The value.
        value: String,
        /// Shape of the tensor.
        found: Vec<usize>,
        /// Shape declared; unknown axes are `None`.
        declared: Vec<Option<usize>>,
    },
    /// An initializer's message is damaged.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The arena is inconsistent: a bug in a pass.
    #[error("value `{value}`: definition and uses disagree with the nodes; this is a bug, please report it")]
    Inconsistent {
        /// The value.
        value: String,
    },
}

/// Checks a model: definitions and uses, order, operator sets, and initializers against their declared types.
pub fn check(model: &Model) -> Result<(), CheckError> {
    let graph = &model.graph;
    arena(graph)?;
    definitions(graph)?;
    graph.nodes().try_for_each(|(_, node)| opset(model, node).and_then(|()| outputs(model, node)))?;
    graph.initializers().try_for_each(|(value, tensor)| initializer(graph, value, tensor))
}

/// Checks the arena: names, producers, uses and captures mirror the nodes.
fn arena(graph: &Graph) -> Result<(), CheckError> {
    let mut uses: HashSet<(ValueId, Use)> = HashSet::new();
    let mut captures: HashSet<(ValueId, NodeId)> = HashSet::new();
    for (id, node) in graph.nodes() {
        for (slot, value) in node.inputs().iter().enumerate() {
            uses.extend(value.map(|v| (v, Use { node: id, slot })));
        }
        captures.extend(node.captures().iter().map(|&v| (v, id)));
        for (slot, &value) in node.outputs().iter().enumerate() {
            if let Some(value) = value.filter(|&v| graph.value(v).producer() != Some((id, slot))) {
                return Err(inconsistent(graph, value));
            }
        }
    }
    let mut used = 0;
    for (id, value) in graph.values() {
        used += value.uses().len();
        let mirrored = value.uses().iter().all(|&u| uses.contains(&(id, u)))
            && value.captures().iter().all(|&n| captures.contains(&(id, n)))
            && value.producer().is_none_or(|(n, s)| graph.contains_node(n) && graph.node(n).output(s) == Some(id))
            && graph.find(value.name()) == Some(id);
        if !mirrored {
            return Err(inconsistent(graph, id));
        }
    }
    match uses.iter().map(|&(v, _)| v).min() {
        Some(first) if used != uses.len() => Err(inconsistent(graph, first)),
        _ => Ok(()),
    }
}

fn inconsistent(graph: &Graph, value: ValueId) -> CheckError {
    CheckError::Inconsistent { value: graph.value(value).name().to_owned() }
}

/// Checks that every input is defined, before the node that reads it.
fn definitions(graph: &Graph) -> Result<(), CheckError> {
    let constants = graph.values().filter(|&(id, _)| graph.is_sparse_initializer(id)).map(|(id, _)| id);
    let mut defined: HashSet<ValueId> = graph.inputs().chain(graph.initializers().map(|(v, _)| v)).collect();
    defined.extend(constants);
    for (_, node) in graph.nodes() {
        let reads = node.inputs().iter().flatten().chain(node.captures());
        if let Some(&missing) = reads.copied().find(|v| !defined.contains(v)).as_ref() {
            let (node, op) = (node.label(graph).to_owned(), node.op().to_owned());
            let value = graph.value(missing).name().to_owned();
            return Err(match graph.value(missing).producer() {
                Some(_) => CheckError::Order { node, op, value },
                None => CheckError::Undefined { node, op, value },
            });
        }
        defined.extend(node.outputs().iter().flatten());
    }
    match graph.outputs().find(|v| !defined.contains(v)) {
        Some(value) => Err(CheckError::UndefinedOutput { value: graph.value(value).name().to_owned() }),
        None => Ok(()),
    }
}

fn opset(model: &Model, node: &Node) -> Result<(), CheckError> {
    let label = || node.label(&model.graph).to_owned();
    // Files of IR version 1 and 2 state no operator sets, which means operator set 1.
    let implied = (node.domain().is_empty() && model.ir_version() < 3).then_some(1);
    let Some(stated) = model.opset(node.domain()).or(implied) else {
        if node.domain().is_empty() {
            return Err(CheckError::NoOpset { node: label(), op: node.op().to_owned() });
        }
        return Err(CheckError::DomainNotImported { node: label(), domain: node.domain().to_owned() });
    };
    match first_opset(node.op()) {
        Some(needed) if node.domain().is_empty() && needed > stated && !model.is_function("", node.op()) => {
            Err(CheckError::OpsetTooOld { node: label(), op: node.op().to_owned(), needed, stated })
        }
        _ => Ok(()),
    }
}

fn outputs(model: &Model, node: &Node) -> Result<(), CheckError> {
    let found = node.outputs().iter().flatten().count();
    let known = node.domain().is_empty()
        && schema(node.op()).is_some_and(|schema| !schema.several_outputs)
        && !model.is_function("", node.op());
    if found < 2 || !known {
        return Ok(());
    }
    Err(CheckError::Outputs { node: node.label(&model.graph).to_owned(), op: node.op().to_owned(), found })
}

fn initializer(graph: &Graph, id: ValueId, tensor: &TensorProto) -> Result<(), CheckError> {
    let found_shape = tensor.shape()?;
    let value = graph.value(id);
    if tensor.element_type().is_none() {
        let (name, number) = (value.name().to_owned(), tensor.data_type.unwrap_or(0));
        return Err(CheckError::Tensor(TensorError::UnknownType { name, number }));
    }
    if let (Some(found), Some(declared)) = (tensor.element_type(), value.element_type())
        && found != declared
    {
        return Err(CheckError::TypeMismatch { value: value.name().to_owned(), found, declared });
    }
    if let (Some(raw), Some(expected)) = (&tensor.raw_data, tensor.byte_count())
        && raw.len() != expected
    {
        let element = tensor.element_type().unwrap_or(DataType::Uint8);
        let per = element.bits().unwrap_or(8);
        return Err(CheckError::Tensor(TensorError::WrongLength {
            name: value.name().to_owned(),
            dims: tensor.dims.clone(),
            element,
            expected: tensor.element_count()?,
            found: raw.len() * 8 / per,
        }));
    }
    let Some(declared) = value.shape() else { return Ok(()) };
    let fits = declared.len() == found_shape.len()
        && declared.iter().zip(&found_shape).all(|(d, &f)| d.is_none_or(|d| d == f));
    if fits {
        return Ok(());
    }
    Err(CheckError::ShapeMismatch { value: value.name().to_owned(), found: found_shape, declared })
}
