//! Files and inputs for the tests.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use msq_passes::ir::DataType;
use tempfile::TempDir;
use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

use crate::data::{Array, ArrayData, DataError, DataOptions, Dataset, InputSpec};

/// An input of a model; 0 for a free dimension.
pub(super) fn input(name: &str, dtype: DataType, shape: &[usize]) -> InputSpec {
    let shape = shape.iter().map(|&d| (d > 0).then_some(d)).collect();
    InputSpec { name: name.to_owned(), dtype, shape: Some(shape), symbols: Vec::new(), image_size: None }
}

pub(super) fn floats(name: &str, shape: &[usize]) -> Vec<InputSpec> {
    vec![input(name, DataType::Float, shape)]
}

/// An element type of arrays: its name in a header, and its bytes.
pub(super) trait Element: Copy {
    const DESCRIPTION: &'static str;
    fn bytes(self) -> Vec<u8>;
}

macro_rules! elements {
    ($($element:ty = $description:literal),*) => {
        $(impl Element for $element {
            const DESCRIPTION: &'static str = $description;

            fn bytes(self) -> Vec<u8> {
                self.to_le_bytes().to_vec()
            }
        })*
    };
}

elements!(f32 = "<f4", f64 = "<f8", i16 = "<i2", i32 = "<i4", i64 = "<i8", u8 = "|u1", u16 = "<u2");

/// The bytes of an `.npy` file as `NumPy` writes it.
pub(super) fn npy<T: Element>(shape: &[u64], data: &[T]) -> Vec<u8> {
    let axes: Vec<String> = shape.iter().map(u64::to_string).collect();
    // A tuple of one needs the comma.
    let axes = axes.join(", ") + if axes.len() == 1 { "," } else { "" };
    let header = format!("{{'descr': '{}', 'fortran_order': False, 'shape': ({axes}), }}\n", T::DESCRIPTION);
    npy_with_header(&header, &data.iter().flat_map(|element| element.bytes()).collect::<Vec<u8>>())
}

/// Counting numbers from 0.
pub(super) fn count(shape: &[u64]) -> Vec<f32> {
    (0..shape.iter().product::<u64>()).map(|i| i as f32).collect()
}

/// An `.npy` file with the given header.
pub(super) fn npy_with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00".as_slice(), &length, header.as_bytes(), data].concat()
}

/// A temporary folder with this file in it.
pub(super) fn file(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

/// An archive as `numpy.savez` writes it, deflated or stored.
pub(super) fn npz(arrays: &[(&str, Vec<u8>)], method: CompressionMethod) -> (TempDir, PathBuf) {
    let mut bytes = Cursor::new(Vec::new());
    let mut zip = zip::ZipWriter::new(&mut bytes);
    for (name, array) in arrays {
        zip.start_file(format!("{name}.npy"), SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(array).unwrap();
    }
    zip.finish().unwrap();
    file("a.npz", &bytes.into_inner())
}

pub(super) fn open(path: &Path, inputs: &[InputSpec]) -> Result<Dataset, DataError> {
    Dataset::open(path, inputs, &DataOptions::default())
}

/// The message, its temporary folder cut out.
pub(super) fn message<T>(result: Result<T, DataError>, folder: &TempDir) -> String {
    let Err(error) = result else { panic!("expected an error") };
    error.to_string().replace(&format!("{}/", folder.path().display()), "")
}

/// The first array of a sample: its shape and elements.
pub(super) fn first(dataset: &Dataset, index: usize) -> (Vec<usize>, Vec<f32>) {
    let array = &dataset.sample(index).unwrap().arrays[0];
    (array.shape().to_vec(), array.to_f32())
}

pub(super) fn array<const N: usize>(shape: [usize; N], data: ArrayData) -> Array {
    Array::new(shape.to_vec(), data).unwrap()
}
