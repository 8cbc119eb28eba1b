//! Labels: whole numbers, one per sample, from an array, a `.csv`, or the folders of images.
//!
//! A `.csv` has the label in the last of its columns; with several columns the first names the file. A first line
//! whose label is no number is a header. Fields may be quoted.

use std::collections::HashMap;
use std::path::Path;

use super::array::Array;
use super::error::DataError;
use super::npy::Rows;
use super::npz::Archive;

/// Usual names of label arrays.
pub(super) const NAMES: [&str; 3] = ["y", "label", "labels"];

/// The labels of a file.
#[derive(Debug)]
pub(super) struct LabelFile {
    values: Vec<i64>,
    /// The name of each label's image, where the file states it.
    names: Vec<String>,
}

impl LabelFile {
    /// Reads a `.csv`, `.npy` or `.npz`.
    pub(super) fn read(path: &Path) -> Result<Self, DataError> {
        if !path.exists() {
            return Err(DataError::Missing { path: path.to_owned() });
        }
        match super::extension(path).as_str() {
            "npy" => Ok(Self { values: integers(&Rows::open(path)?.read_all()?, path)?, names: Vec::new() }),
            "npz" => Ok(Self { values: from_archive(path)?, names: Vec::new() }),
            "csv" | "txt" => Self::read_csv(path),
            _ => Err(error(path, "give a .csv, .npy or .npz file")),
        }
    }

    fn read_csv(path: &Path) -> Result<Self, DataError> {
        let text = std::fs::read_to_string(path).map_err(|source| DataError::Io { path: path.to_owned(), source })?;
        let mut file = Self { values: Vec::new(), names: Vec::new() };
        let mut reader = csv::ReaderBuilder::new();
        let reader = reader.has_headers(false).flexible(true).trim(csv::Trim::All);
        for (at, record) in reader.from_reader(text.trim_start_matches('\u{feff}').as_bytes()).records().enumerate() {
            let record = record.map_err(|e| error(path, e.to_string()))?;
            let label = record.iter().next_back().unwrap_or_default();
            match label.parse() {
                Ok(value) => file.values.push(value),
                // A blank line is one field without text.
                Err(_) if at == 0 || (record.len() == 1 && label.is_empty()) => continue,
                Err(_) => {
                    let line = record.position().map_or(0, csv::Position::line);
                    return Err(error(path, format!("line {line}: `{label}` is not a whole number")));
                }
            }
            if record.len() > 1 {
                file.names.extend(record.get(0).map(str::to_owned));
            }
        }
        if !file.names.is_empty() && file.names.len() != file.values.len() {
            return Err(error(path, "some lines name a file and some do not"));
        }
        Ok(file)
    }

    /// The labels in the file's order.
    pub(super) fn into_values(self) -> Vec<i64> {
        self.values
    }

    /// The labels of images, by name where the file has names: `cat/1.png` or `1.png`.
    pub(super) fn of_images(self, images: &[impl AsRef<Path>], path: &Path) -> Result<Vec<i64>, DataError> {
        if self.names.is_empty() {
            check_count(self.values.len(), images.len(), path)?;
            return Ok(self.values);
        }
        let by_name: HashMap<String, i64> = self.names.iter().map(|n| n.replace('\\', "/")).zip(self.values).collect();
        let label = |image: &Path| {
            let text = image.to_string_lossy().replace('\\', "/");
            let mut tails = std::iter::successors(Some(text.as_str()), |t| t.split_once('/').map(|(_, tail)| tail));
            let found = tails.find_map(|tail| by_name.get(tail).copied());
            found.ok_or_else(|| error(path, format!("no line for `{}`", image.display())))
        };
        images.iter().map(|image| label(image.as_ref())).collect()
    }
}

/// Refuses a wrong number of labels.
fn check_count(labels: usize, samples: usize, path: &Path) -> Result<(), DataError> {
    if labels == samples { Ok(()) } else { Err(DataError::LabelCount { path: path.to_owned(), labels, samples }) }
}

/// The elements of an array of whole numbers, of shape `[n]` or `[n, 1]`.
pub(super) fn integers(array: &Array, path: &Path) -> Result<Vec<i64>, DataError> {
    if !is_label_shape(array.shape()) {
        return Err(error(path, format!("shape {:?}, wanted one number a sample", array.shape())));
    }
    let wide = array.clone().cast(msq_passes::ir::DataType::Int64).map_err(|e| error(path, e.to_string()))?;
    match wide.into_parts().1 {
        super::ArrayData::I64(values) => Ok(values),
        other => Err(error(path, format!("`{}` elements", other.dtype()))),
    }
}

/// Whether an array of this shape holds one number per sample.
pub(super) fn is_label_shape(shape: &[usize]) -> bool {
    matches!(shape, [_] | [_, 1])
}

/// The array with a usual label name, or the only array.
fn from_archive(path: &Path) -> Result<Vec<i64>, DataError> {
    let mut archive = Archive::open(path)?;
    let names = archive.names();
    let known = NAMES.iter().find(|n| archive.contains(n)).map(|&n| n.to_owned());
    let only = if names.len() == 1 { names.first().cloned() } else { None };
    let name = known.or(only).ok_or_else(|| error(path, "no array `y`, `label` or `labels`"))?;
    integers(&archive.rows(&name)?.read_all()?, path)
}

fn error(path: &Path, reason: impl Into<String>) -> DataError {
    DataError::Labels { path: path.to_owned(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_unquoted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("l.csv");
        std::fs::write(&path, r#""a, ""b"".png",3"#).unwrap();
        assert_eq!(LabelFile::read(&path).unwrap().names, [r#"a, "b".png"#]);
    }

    #[test]
    fn csv_by_name_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("l.csv");
        std::fs::write(&path, "\u{feff}file,label\r\nb.png,2\r\n\"sub/a.png\", 1\r\n\r\n").unwrap();
        let labels = LabelFile::read(&path).unwrap().of_images(&["x/sub/a.png", "x/b.png"], &path).unwrap();
        assert_eq!(labels, [1, 2]);
        let missing = LabelFile::read(&path).unwrap().of_images(&["x/c.png"], &path).unwrap_err();
        assert!(missing.to_string().ends_with("no line for `x/c.png`"), "{missing}");
        std::fs::write(&path, "5\n6\n").unwrap();
        assert_eq!(LabelFile::read(&path).unwrap().of_images(&["p", "q"], &path).unwrap(), [5, 6]);
        let count = LabelFile::read(&path).unwrap().of_images(&["p", "q", "r"], &path).unwrap_err();
        assert!(count.to_string().ends_with("2 labels for 3 samples"), "{count}");
    }

    #[test]
    fn text_labels_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("l.csv");
        std::fs::write(&path, "a.png,1\nb.png,cat\n").unwrap();
        let error = LabelFile::read(&path).unwrap_err();
        assert!(error.to_string().ends_with("line 2: `cat` is not a whole number"), "{error}");
    }
}
