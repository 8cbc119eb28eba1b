//! Pass `compact-integers`: integer constants in the shorter of the format's two encodings. No value changes.
//!
//! A tensor's elements are raw bytes, 8 per int64 and 4 per int32, or a list in which a small number takes one byte and
//! a negative number ten. Shapes and lengths are small numbers. A constant in raw bytes is rewritten as a list where
//! the list is shorter; other types and external tensors are not changed.

use crate::ir::{DataType, Model, TensorProto, ValueId};
use crate::pass::{Outcome, Pass, PassError};

/// Stores integer constants in the shorter encoding.
#[derive(Clone, Copy, Debug, Default)]
pub struct CompactIntegers;

impl Pass for CompactIntegers {
    fn name(&self) -> &'static str {
        "compact-integers"
    }

    fn about(&self) -> &'static str {
        "integer constants are stored in the shorter of two encodings"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let sites: Vec<(ValueId, TensorProto)> =
            model.graph.initializers().filter_map(|(value, tensor)| Some((value, compact(tensor)?))).collect();
        for (value, tensor) in sites {
            model.graph.set_initializer(value, tensor);
            outcome.count();
        }
        Ok(outcome)
    }
}

/// The tensor with its elements as a list, if that is shorter.
fn compact(tensor: &TensorProto) -> Option<TensorProto> {
    let raw = tensor.raw_data.as_ref().filter(|_| !tensor.is_external())?;
    let element = tensor.element_type()?;
    if !matches!(element, DataType::Int64 | DataType::Int32) {
        return None;
    }
    let values = tensor.to_i64().ok()?;
    if values.iter().map(|&v| encoded_length(v)).sum::<usize>() >= raw.len() {
        return None;
    }
    let mut compact = TensorProto { raw_data: None, ..tensor.clone() };
    if element == DataType::Int64 {
        compact.int64_data = values;
    } else {
        compact.int32_data = values.into_iter().map(|v| v as i32).collect();
    }
    Some(compact)
}

/// Bytes of a number in the list: seven bits each, the sign extended to 64.
fn encoded_length(value: i64) -> usize {
    (64 - value.leading_zeros()).div_ceil(7).max(1) as usize
}

// The text form does not show how elements are encoded, so there are no snapshots.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{encoded_len, export, import, text};
    use crate::pass::run_pass;

    fn sizes(constant: TensorProto) -> (usize, usize) {
        let text = "<ir_version: 8, opset_import: [\"\": 17]>\ng (int64[2] x) => (int64[2] y)\n{ y = Add(x, x) }";
        let mut model = import(text::parse(text).unwrap()).unwrap();
        let value = model.graph.add_initializer(constant);
        let (before, elements) = (encoded_len(&export(&model)), model.graph.initializer(value).unwrap().to_i64());
        let changed = run_pass(&CompactIntegers, &mut model, true).unwrap().outcome.changed;
        let after = encoded_len(&export(&model));
        assert_eq!(changed > 0, after < before);
        assert_eq!(model.graph.initializer(value).unwrap().to_i64(), elements);
        assert_eq!(run_pass(&CompactIntegers, &mut model, true).unwrap().outcome.changed, 0);
        (before, after)
    }

    #[test]
    fn small_numbers_get_shorter() {
        let (before, after) = sizes(TensorProto::from_i64("shape", &[4], &[64, 3, 3, 300]));
        assert_eq!(before - after, 32 - 5);
        let (before, after) = sizes(TensorProto::from_i32("powers", &[3], &[1, 16, 256]));
        assert_eq!(before - after, 12 - 4);
    }

    #[test]
    fn negative_ones_stay() {
        let (before, after) = sizes(TensorProto::from_i64("flat", &[1], &[-1]));
        assert_eq!(before, after);
        let (before, after) = sizes(TensorProto::from_i32("bias", &[2], &[-1, i32::MIN]));
        assert_eq!(before, after);
    }

    #[test]
    fn other_types_stay() {
        let (before, after) = sizes(TensorProto::from_u8("bytes", &[3], &[1, 2, 3]));
        assert_eq!(before, after);
    }
}
