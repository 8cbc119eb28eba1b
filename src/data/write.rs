//! Writes arrays as an `.npz`.

use super::DataError;
use msq_passes::ir::write_file_with;
use std::io::{Seek, Write};
use std::path::Path;
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

/// Writes named float arrays; the file appears completely or not at all.
pub fn write_npz(path: &Path, arrays: &[(String, Vec<usize>, Vec<f32>)]) -> Result<(), DataError> {
    Ok(write_file_with(path, |file| write(file, arrays))?)
}

/// Writes named lists of integers and of texts; the file appears completely or not at all.
pub(crate) fn write_npz_of_labels(
    path: &Path,
    integers: &[(&str, Vec<i64>)],
    texts: &[(&str, Vec<String>)],
) -> Result<(), DataError> {
    let write = |file: &mut std::fs::File| {
        let mut zip = ZipWriter::new(file);
        for (name, values) in integers {
            zip.start_file(format!("{name}.npy"), SimpleFileOptions::default())?;
            zip.write_all(&header("<i8", &[values.len()]))?;
            zip.write_all(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())?;
        }
        for (name, values) in texts {
            // NumPy's texts have one length, in characters of four bytes, and end with zeros.
            let length = values.iter().map(|text| text.chars().count()).max().unwrap_or(0).max(1);
            let padded = |text: &String| text.chars().map(u32::from).chain(std::iter::repeat(0)).take(length).collect();
            let characters: Vec<u32> = values.iter().flat_map(|text| -> Vec<u32> { padded(text) }).collect();
            zip.start_file(format!("{name}.npy"), SimpleFileOptions::default())?;
            zip.write_all(&header(&format!("<U{length}"), &[values.len()]))?;
            zip.write_all(&characters.iter().flat_map(|c| c.to_le_bytes()).collect::<Vec<u8>>())?;
        }
        zip.finish()?.flush()
    };
    Ok(write_file_with(path, write)?)
}

fn write(file: impl Write + Seek, arrays: &[(String, Vec<usize>, Vec<f32>)]) -> std::io::Result<()> {
    let mut zip = ZipWriter::new(file);
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
    for (name, shape, values) in arrays {
        zip.start_file(format!("{name}.npy"), options)?;
        zip.write_all(&header("<f4", shape))?;
        for chunk in values.chunks(4096) {
            let bytes: Vec<u8> = chunk.iter().flat_map(|v| v.to_le_bytes()).collect();
            zip.write_all(&bytes)?;
        }
    }
    zip.finish()?.flush()
}

/// Version 1.0 header of an array, padded to 64 bytes as the format requires.
fn header(element: &str, shape: &[usize]) -> Vec<u8> {
    let axes = shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    // A Python tuple of one element needs its comma.
    let comma = if shape.len() == 1 { "," } else { "" };
    let mut text = format!("{{'descr': '{element}', 'fortran_order': False, 'shape': ({axes}{comma}), }}");
    let prefix = 10;
    let padding = 63 - (prefix + text.len()) % 64;
    text.push_str(&" ".repeat(padding));
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes
}
