//! Values: what flows between nodes.

use super::{NodeId, TypeProto, TypeValue, ValueInfoProto};
use crate::ir::{DataType, DimValue};

/// Handle of a [`Value`] within its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub(super) u32);

impl ValueId {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// One input slot that reads a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Use {
    /// The reading node.
    pub node: NodeId,
    /// The slot among its inputs.
    pub slot: usize,
}

/// A named value with its definition and uses, which the graph keeps current.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    pub(super) name: String,
    pub(super) ty: Option<TypeProto>,
    pub(super) producer: Option<(NodeId, usize)>,
    pub(super) uses: Vec<Use>,
    pub(super) captures: Vec<NodeId>,
}

impl Value {
    /// The name, unique in the graph.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The node and output slot that define the value; `None` for graph inputs and initializers.
    pub fn producer(&self) -> Option<(NodeId, usize)> {
        self.producer
    }

    /// Every input slot that reads the value, in the order the uses were made.
    pub fn uses(&self) -> &[Use] {
        &self.uses
    }

    /// Nodes whose sub-graphs read the value by name.
    pub fn captures(&self) -> &[NodeId] {
        &self.captures
    }

    /// The declared type, where the file states one.
    pub fn ty(&self) -> Option<&TypeProto> {
        self.ty.as_ref()
    }

    /// The declared element type of a tensor value.
    pub fn element_type(&self) -> Option<DataType> {
        self.ty.as_ref().and_then(TypeProto::element_type)
    }

    /// The declared shape of a tensor value; axes of unknown or symbolic length are `None`.
    pub fn shape(&self) -> Option<Vec<Option<usize>>> {
        self.ty.as_ref().and_then(TypeProto::shape)
    }
}

/// A graph input, output or value-info entry: the value and the message that declares it (its name is kept in the
/// value).
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Port {
    pub(super) value: ValueId,
    pub(super) info: ValueInfoProto,
}

impl TypeProto {
    /// A dense tensor type; axes that are `None` stay unknown.
    pub fn tensor(element: DataType, shape: &[Option<usize>]) -> Self {
        let dim = shape
            .iter()
            .map(|axis| super::DimensionProto { value: axis.map(|n| DimValue::Value(n as i64)), denotation: None })
            .collect();
        let tensor =
            super::TensorTypeProto { elem_type: Some(element.number()), shape: Some(super::TensorShapeProto { dim }) };
        Self { value: Some(TypeValue::Tensor(tensor)), denotation: None }
    }

    /// Element type, if this is a dense tensor type with a known one.
    pub fn element_type(&self) -> Option<DataType> {
        let Some(TypeValue::Tensor(tensor)) = &self.value else { return None };
        tensor.elem_type.and_then(DataType::from_number)
    }

    /// Shape, if this is a dense tensor type of known rank; axes of unknown or symbolic length are `None`.
    pub fn shape(&self) -> Option<Vec<Option<usize>>> {
        let Some(TypeValue::Tensor(tensor)) = &self.value else { return None };
        let axis = |d: &super::DimensionProto| match d.value {
            Some(DimValue::Value(n)) => usize::try_from(n).ok(),
            _ => None,
        };
        tensor.shape.as_ref().map(|shape| shape.dim.iter().map(axis).collect())
    }

    /// Whether no tensor has both types, because ranks or known lengths differ.
    pub(super) fn contradicts(&self, other: &Self) -> bool {
        let (Some(own), Some(other)) = (self.shape(), other.shape()) else { return false };
        let differ = |(own, other): (&Option<usize>, &Option<usize>)| own.is_some() && other.is_some() && own != other;
        own.len() != other.len() || own.iter().zip(&other).any(differ)
    }

    /// The names of symbolic axes; axes of known or unnamed length have none.
    pub fn symbols(&self) -> Vec<Option<String>> {
        let Some(TypeValue::Tensor(tensor)) = &self.value else { return Vec::new() };
        let symbol = |axis: &super::DimensionProto| match &axis.value {
            Some(DimValue::Param(name)) if !name.is_empty() => Some(name.clone()),
            _ => None,
        };
        tensor.shape.iter().flat_map(|shape| &shape.dim).map(symbol).collect()
    }
}

/// The axis that a number stands for among `rank` axes; negative numbers count from the end.
pub fn axis_of(number: i64, rank: usize) -> Option<usize> {
    let number = if number < 0 { number + rank as i64 } else { number };
    usize::try_from(number).ok().filter(|&axis| axis < rank)
}
