//! The interface of sources of samples, and the result of opening one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::InputSpec;
use super::array::Array;
use super::error::DataError;

/// A sequence of samples, which are loaded when they are needed and not held in memory.
pub(super) trait Source: Send + Sync {
    /// The number of samples.
    fn len(&self) -> usize;

    /// The arrays of a sample with an index below `len`, one per input.
    fn arrays(&self, index: usize) -> Result<Vec<Array>, DataError>;

    /// The shapes of a sample's arrays, where samples may differ in them; `None` where all are alike.
    fn shapes(&self, _: usize) -> Result<Option<Vec<Vec<usize>>>, DataError> {
        Ok(None)
    }

    /// Rows of data per sample: the model's fixed batch.
    fn batch(&self) -> usize {
        1
    }

    /// The files of a sample, one per row of its batch, as paths below the folder that was opened; none where rows of an
    /// array or generated values are the samples.
    fn files(&self, _: usize) -> Vec<String> {
        Vec::new()
    }

    /// How images become numbers, in words; none where the samples are no image files.
    fn preprocessing(&self) -> Option<String> {
        None
    }

    /// A noun for the samples, in the plural.
    fn noun(&self) -> &'static str {
        "samples"
    }
}

/// Labels of consecutive samples.
#[derive(Clone, Debug)]
pub(super) struct Labels {
    pub(super) values: Vec<i64>,
    /// Number of labels per sample: the model's batch.
    pub(super) per_sample: usize,
}

/// A skipped file, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// The error on reading it.
    pub reason: String,
}

/// An opened source.
pub(super) struct Opened {
    pub(super) source: Arc<dyn Source>,
    pub(super) labels: Option<Labels>,
    pub(super) skipped: Vec<Skipped>,
}

impl Opened {
    pub(super) fn new(source: impl Source + 'static) -> Self {
        Self { source: Arc::new(source), labels: None, skipped: Vec::new() }
    }
}

/// The model's input, for data that can feed only one.
pub(super) fn only_input<'a>(inputs: &'a [InputSpec], path: &Path) -> Result<&'a InputSpec, DataError> {
    match inputs {
        [spec] => Ok(spec),
        _ => Err(DataError::SeveralInputs {
            path: path.to_owned(),
            inputs: inputs.iter().map(|i| i.name.clone()).collect(),
        }),
    }
}

/// `wanted` of `len` indices, evenly spread; all of them when there are not more.
pub(super) fn spread(len: usize, wanted: usize) -> Vec<usize> {
    if wanted >= len {
        return (0..len).collect();
    }
    // The product may exceed 64 bits, the quotient is below `len`.
    (0..wanted).map(|i| (i as u128 * len as u128 / wanted as u128) as usize).collect()
}
