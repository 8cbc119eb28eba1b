//! Tensors that layers of our own write, used again by later runs.
//!
//! A new tensor has to be filled with zeros, in pages that the system has to fill first. A layer writes every element, so
//! a tensor of the same shape that nothing else holds any more serves as well.

use std::sync::{Mutex, PoisonError};
use tract_onnx::prelude::{Arc, TValue, Tensor};
use tract_onnx::tract_core::internal::TractResult;

/// The tensors of one plan, shared by its layers and threads.
#[derive(Debug, Default)]
pub(super) struct Outputs(Mutex<Vec<Arc<Tensor>>>);

impl Outputs {
    /// A tensor of floats of which `write` writes every element.
    pub(super) fn written(&self, shape: &[usize], write: impl FnOnce(&mut [f32])) -> TractResult<TValue> {
        let mut tensor = match self.free(shape) {
            Some(tensor) => tensor,
            None => Arc::new(Tensor::zero::<f32>(shape)?),
        };
        // Not shared: nothing takes a tensor from the list but this, which has taken it out.
        if let Some(tensor) = Arc::get_mut(&mut tensor) {
            write(tensor.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?);
        }
        self.tensors(|tensors| tensors.push(Arc::clone(&tensor)));
        Ok(TValue::from_const(tensor))
    }

    /// Takes a tensor of this shape out of the list that nothing else holds.
    fn free(&self, shape: &[usize]) -> Option<Arc<Tensor>> {
        self.tensors(|tensors| {
            let free = |tensor: &Arc<Tensor>| tensor.shape() == shape && Arc::strong_count(tensor) == 1;
            tensors.iter().position(free).map(|at| tensors.swap_remove(at))
        })
    }

    fn tensors<R>(&self, with: impl FnOnce(&mut Vec<Arc<Tensor>>) -> R) -> R {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(tensor: &TValue) -> *const f32 {
        tensor.try_as_plain_ram().unwrap().as_ptr::<f32>().unwrap()
    }

    fn written(outputs: &Outputs, shape: &[usize], value: f32) -> TValue {
        outputs.written(shape, |to| to.fill(value)).unwrap()
    }

    #[test]
    fn a_tensor_is_used_again_once_nothing_holds_it() {
        let outputs = Outputs::default();
        let first = written(&outputs, &[2, 3], 1.0);
        let second = written(&outputs, &[2, 3], 2.0);
        assert_eq!(first.try_as_plain_ram().unwrap().as_slice::<f32>().unwrap(), [1.0; 6]);
        let at = place(&first);
        drop(first);
        assert_ne!(place(&written(&outputs, &[3, 2], 3.0)), at);
        let third = written(&outputs, &[2, 3], 4.0);
        assert_eq!(place(&third), at);
        assert_eq!(second.try_as_plain_ram().unwrap().as_slice::<f32>().unwrap(), [2.0; 6]);
    }
}
