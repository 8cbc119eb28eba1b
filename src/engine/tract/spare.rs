//! Memory of tensors that nobody reads any more, kept for results of the same length.
//!
//! Activations are large and of many lengths. Given back and asked for again each time, they leave the heap full of holes
//! of the wrong size: twice the memory that is in use.

use std::cell::RefCell;
use std::collections::VecDeque;
use tract_onnx::prelude::{Arc, Datum, IntoArcTensor, TValue, Tensor};
use tract_onnx::tract_core::internal::TractResult;

/// Tensors of fewer elements find room anywhere.
const LEAST: usize = 1 << 12;
/// A thread keeps no more elements.
const MOST: usize = 8 << 20;

thread_local! {
    /// Those kept longest come first.
    static SPARE: RefCell<VecDeque<Tensor>> = RefCell::default();
}

/// A tensor of zeros.
pub(super) fn zeros(shape: &[usize]) -> TractResult<Tensor> {
    let length = shape.iter().product::<usize>();
    let kept = SPARE.with_borrow_mut(|spare| {
        let at = spare.iter().rposition(|tensor| tensor.len() == length)?;
        spare.remove(at)
    });
    let Some(kept) = kept else { return Tensor::zero::<f32>(shape) };
    let mut tensor = kept.into_shape(shape)?;
    tensor.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?.fill(0.0);
    Ok(tensor)
}

/// Keeps the memory of a value that has been read, where nobody else has the value.
pub(super) fn keep(value: TValue) {
    let Ok(tensor) = Arc::try_unwrap(value.into_arc_tensor()) else { return };
    if tensor.datum_type() != f32::datum_type() || !(LEAST..=MOST).contains(&tensor.len()) {
        return;
    }
    SPARE.with_borrow_mut(|spare| {
        spare.push_back(tensor);
        let mut kept: usize = spare.iter().map(Tensor::len).sum();
        while kept > MOST {
            kept -= spare.pop_front().map_or(kept, |oldest| oldest.len());
        }
    });
}

/// Lets go of all that this thread keeps.
pub(super) fn clear() {
    SPARE.with_borrow_mut(VecDeque::clear);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Vec<usize> {
        SPARE.with_borrow(|spare| spare.iter().map(Tensor::len).collect())
    }

    #[test]
    fn memory_is_used_again_for_the_same_length() {
        clear();
        let mut tensor = zeros(&[LEAST, 2]).unwrap();
        tensor.try_as_plain_ram_mut().unwrap().as_slice_mut::<f32>().unwrap().fill(7.0);
        let at = tensor.as_bytes().as_ptr();
        let value = TValue::from(tensor);
        let reader = value.clone();
        keep(value);
        assert!(kept().is_empty(), "somebody still reads it");
        keep(reader);
        assert_eq!(kept(), [2 * LEAST]);
        let other = zeros(&[LEAST, 3]).unwrap();
        let again = zeros(&[2, LEAST]).unwrap();
        assert_eq!((again.shape(), again.as_bytes().as_ptr()), (&[2, LEAST][..], at));
        assert!([&again, &other].iter().all(|t| t.as_bytes().iter().all(|&byte| byte == 0)));
    }

    #[test]
    fn the_oldest_give_way_and_few_elements_are_not_kept() {
        clear();
        keep(zeros(&[LEAST - 1]).unwrap().into());
        keep(Tensor::zero::<f64>(&[LEAST]).unwrap().into());
        assert!(kept().is_empty());
        for length in [MOST / 2, LEAST, MOST / 2] {
            keep(zeros(&[length]).unwrap().into());
        }
        assert_eq!(kept(), [LEAST, MOST / 2]);
        clear();
        assert!(kept().is_empty());
    }
}
