//! Writes the arrays that tests feed, in any element type, and reads what runtimes made of them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

/// An array as `.npy` bytes.
pub(crate) struct Npy {
    bytes: Vec<u8>,
}

impl Npy {
    /// From little-endian elements; `descr` is numpy's name of their type, for instance `<f4`.
    pub(crate) fn new(descr: &str, shape: &[usize], elements: &[u8]) -> Self {
        let axes: Vec<String> = shape.iter().map(ToString::to_string).collect();
        // A tuple of one needs the comma.
        let axes = format!("{}{}", axes.join(", "), if axes.len() == 1 { "," } else { "" });
        let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({axes}), }}");
        // The header, magic and length included, ends at a multiple of 64 with a line break.
        let width = (10 + text.len() + 1).next_multiple_of(64) - 10;
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend(u16::try_from(width).unwrap().to_le_bytes());
        bytes.extend(format!("{text:<0$}\n", width - 1).bytes());
        bytes.extend(elements);
        Self { bytes }
    }

    /// From floats.
    pub(crate) fn floats(shape: &[usize], values: &[f32]) -> Self {
        assert_eq!(values.len(), shape.iter().product::<usize>());
        let elements: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::new("<f4", shape, &elements)
    }

    /// Floats that follow from their index, all in 0..1.
    pub(crate) fn ramp(shape: &[usize]) -> Self {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|i| (i * 37 % 101) as f32 / 101.0).collect();
        Self::floats(shape, &values)
    }

    /// The bytes of the `.npy` file.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Writes an `.npz`.
pub(crate) fn write_npz(path: &Path, arrays: &[(&str, Npy)]) {
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, array) in arrays {
        zip.start_file(format!("{name}.npy"), options).unwrap();
        zip.write_all(array.bytes()).unwrap();
    }
    zip.finish().unwrap();
}

/// The arrays of an `.npz` of floats, or of integers as floats, by name.
pub(crate) fn read_npz(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let mut zip = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut arrays = BTreeMap::new();
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).unwrap();
        let name = entry.name().unwrap().trim_end_matches(".npy").to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        arrays.insert(name, read_npy(&bytes));
    }
    arrays
}

fn read_npy(bytes: &[u8]) -> Vec<f32> {
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let (header, elements) = bytes.split_at(start);
    let header = String::from_utf8_lossy(header);
    let (_, after) = header.split_once("'descr': '").unwrap();
    match after.split_once('\'').unwrap().0 {
        "<f4" => elements.as_chunks().0.iter().map(|&v| f32::from_le_bytes(v)).collect(),
        "<f8" => elements.as_chunks().0.iter().map(|&v| f64::from_le_bytes(v) as f32).collect(),
        "<i8" => elements.as_chunks().0.iter().map(|&v| i64::from_le_bytes(v) as f32).collect(),
        "<f2" => elements.as_chunks().0.iter().map(|&v| half::f16::from_le_bytes(v).to_f32()).collect(),
        "|u1" => elements.iter().map(|&v| f32::from(v)).collect(),
        "|i1" => elements.iter().map(|&v| f32::from(v.cast_signed())).collect(),
        other => panic!("elements of type {other}"),
    }
}
