//! ONNX test data: `input_0.pb`, `input_1.pb`, … in a folder are one sample.
//!
//! Tensors feed the inputs of the same names where every input has one, else the inputs in order. Their values are not
//! changed, since preprocessing is for pixels.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use msq_passes::ir::decode_tensor;

use super::InputSpec;
use super::array::Array;
use super::error::{DataError, Place};
use super::feed::{finish, fits, shape_error};
use super::source::{Opened, Source};

/// Folders of tensors; those of one folder are a sample.
struct TestData {
    sets: Vec<Vec<PathBuf>>,
    inputs: Vec<InputSpec>,
}

/// Opens the `.pb` files of each folder.
pub(super) fn open(sets: Vec<Vec<PathBuf>>, inputs: &[InputSpec]) -> Result<Opened, DataError> {
    let source = TestData { sets, inputs: inputs.to_vec() };
    // A first sample that does not fit is an error on opening.
    source.arrays(0)?;
    Ok(Opened::new(source))
}

impl Source for TestData {
    fn len(&self) -> usize {
        self.sets.len()
    }

    fn arrays(&self, index: usize) -> Result<Vec<Array>, DataError> {
        let files = self.sets.get(index).ok_or(DataError::OutOfRange { index, len: self.len() })?;
        let tensors: Vec<Tensor> = files.iter().map(|file| read(file)).collect::<Result<_, _>>()?;
        let named = |spec: &InputSpec| tensors.iter().find(|t| t.name.as_deref() == Some(spec.name.as_str()));
        let by_name = self.inputs.iter().all(|spec| named(spec).is_some());
        let feed = |(position, spec): (usize, &InputSpec)| {
            let tensor = if by_name { named(spec) } else { tensors.get(position) };
            let tensor = tensor.ok_or_else(|| missing(position, spec, files))?;
            tensor.feed(spec, index)
        };
        self.inputs.iter().enumerate().map(feed).collect()
    }

    fn shapes(&self, index: usize) -> Result<Option<Vec<Vec<usize>>>, DataError> {
        Ok(Some(self.arrays(index)?.iter().map(|array| array.shape().to_vec()).collect()))
    }
}

/// A decoded file.
struct Tensor {
    name: Option<String>,
    array: Array,
    place: Place,
}

impl Tensor {
    fn feed(&self, spec: &InputSpec, sample: usize) -> Result<Array, DataError> {
        let shape = self.array.shape();
        if !fits(shape, spec.shape.as_deref()) {
            return Err(shape_error(spec, shape, &self.place, ""));
        }
        finish(self.array.clone(), spec.dtype, &spec.name, &self.place, sample)
    }
}

fn read(path: &Path) -> Result<Tensor, DataError> {
    let bytes = std::fs::read(path).map_err(|source| DataError::Io { path: path.to_owned(), source })?;
    let error = |reason: String| DataError::Tensor { path: path.to_owned(), reason };
    let tensor = decode_tensor(Bytes::from(bytes)).map_err(|e| error(e.to_string()))?;
    let array = Array::try_from(&tensor).map_err(|e| error(e.to_string()))?;
    Ok(Tensor { name: tensor.name, array, place: Place::file(path) })
}

fn missing(position: usize, spec: &InputSpec, files: &[PathBuf]) -> DataError {
    let folder = files.first().and_then(|f| f.parent()).unwrap_or(Path::new(""));
    let name = |f: &PathBuf| f.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    DataError::MissingArray {
        path: folder.to_owned(),
        wanted: format!("input_{position}.pb"),
        input: spec.name.clone(),
        present: files.iter().map(name).collect(),
    }
}
