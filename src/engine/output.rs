//! What a run yields.

use super::EngineError;
use crate::data::{Array, ArrayData};
use std::borrow::Cow;
use std::fmt::Debug;

/// A value in the hands of a back end.
pub trait Value: Debug {
    /// Shape.
    fn shape(&self) -> &[usize];

    /// The elements, if they are 32-bit floats in row-major order.
    fn as_f32(&self) -> Option<&[f32]>;

    /// The elements of any numeric type as 32-bit floats.
    fn to_f32(&self) -> Result<Vec<f32>, EngineError>;

    /// A copy with its own elements.
    fn to_array(&self) -> Result<Array, EngineError>;

    /// The elements of any numeric type as 32-bit floats, copied only if they are none.
    fn floats(&self) -> Result<Cow<'_, [f32]>, EngineError> {
        match self.as_f32() {
            Some(values) => Ok(Cow::Borrowed(values)),
            None => self.to_f32().map(Cow::Owned),
        }
    }
}

/// One output of a run, which may share its elements with the session that made it.
#[derive(Debug)]
pub struct Output(Box<dyn Value>);

impl Output {
    /// An output that a back end holds.
    pub fn new(value: impl Value + 'static) -> Self {
        Self(Box::new(value))
    }

    /// The value itself.
    pub fn value(&self) -> &dyn Value {
        &*self.0
    }

    /// Shape.
    pub fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    /// The elements, if they are 32-bit floats.
    pub fn as_f32(&self) -> Option<&[f32]> {
        self.0.as_f32()
    }

    /// The elements of any numeric type as 32-bit floats.
    pub fn to_f32(&self) -> Result<Vec<f32>, EngineError> {
        self.0.to_f32()
    }

    /// A copy with its own elements.
    pub fn to_array(&self) -> Result<Array, EngineError> {
        self.0.to_array()
    }
}

impl Value for Array {
    fn shape(&self) -> &[usize] {
        self.shape()
    }

    fn as_f32(&self) -> Option<&[f32]> {
        match self.data() {
            ArrayData::F32(values) => Some(values),
            _ => None,
        }
    }

    fn to_f32(&self) -> Result<Vec<f32>, EngineError> {
        Ok(self.to_f32())
    }

    fn to_array(&self) -> Result<Array, EngineError> {
        Ok(self.clone())
    }
}
