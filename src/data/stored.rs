//! Samples held in memory.

use super::array::Array;
use super::error::DataError;
use super::source::{Opened, Source};
use super::{Dataset, Sample};

struct Stored(Vec<Sample>);

impl Source for Stored {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn arrays(&self, index: usize) -> Result<Vec<Array>, DataError> {
        let sample = self.0.get(index).ok_or(DataError::OutOfRange { index, len: self.0.len() })?;
        Ok(sample.arrays.clone())
    }

    fn shapes(&self, index: usize) -> Result<Option<Vec<Vec<usize>>>, DataError> {
        Ok(self.0.get(index).map(|sample| sample.arrays.iter().map(|array| array.shape().to_vec()).collect()))
    }
}

impl Dataset {
    /// Samples that are already in memory.
    pub fn stored(samples: Vec<Sample>) -> Self {
        Self::of(Opened::new(Stored(samples)), String::new())
    }
}
