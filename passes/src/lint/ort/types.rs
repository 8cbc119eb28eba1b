//! The element types that integer kernels take.

use crate::ir::DataType;

/// Whether integers of this type have kernels; a type that is not known may.
pub(super) fn is_byte(element: Option<DataType>) -> bool {
    matches!(element, None | Some(DataType::Int8 | DataType::Uint8))
}

/// Whether two types may be the same.
pub(super) fn same_type(a: Option<DataType>, b: Option<DataType>) -> bool {
    a.is_none() || b.is_none() || a == b
}

/// Why types differ that the file states as one: only int8 changes, see `links`.
pub(super) const TYPES_DIFFER: &str =
    "its operands and output differ in type (on x86, int8 becomes uint8 unless it is constant or read twice)";
