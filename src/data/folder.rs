//! The kind of data at a path, and the files of a folder in a fixed order.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::DataError;
use super::source::Opened;
use super::{DataOptions, InputSpec, archives, arrays, extension, images, test_data};

/// Opens a file or a folder by its kind.
pub(super) fn open(path: &Path, inputs: &[InputSpec], options: &DataOptions) -> Result<Opened, DataError> {
    if !path.exists() {
        return Err(DataError::Missing { path: path.to_owned() });
    }
    if path.is_dir() {
        return open_folder(path, inputs, options);
    }
    refuse_special([path])?;
    match extension(path).as_str() {
        "npz" => arrays::open_npz(path, inputs, options),
        "npy" => arrays::open_npy(path, inputs, options),
        "pb" => test_data::open(vec![vec![path.to_owned()]], inputs),
        _ if is_image(path) => images::open(path, &[path.to_owned()], None, inputs, options),
        _ => Err(DataError::UnknownKind { path: path.to_owned() }),
    }
}

fn open_folder(path: &Path, inputs: &[InputSpec], options: &DataOptions) -> Result<Opened, DataError> {
    let (folders, files) = entries(path)?;
    let sets = test_data_sets(path, &folders, &files)?;
    if !sets.is_empty() {
        refuse_special(sets.iter().flatten())?;
        return test_data::open(sets, inputs);
    }
    let (mut pictures, mut classes) = (files.clone(), None);
    pictures.retain(|file| is_image(file));
    let in_classes = images_in(&folders)?;
    if pictures.is_empty() && !in_classes.is_empty() {
        classes = Some(class_labels(&in_classes));
    }
    pictures.extend(in_classes.into_iter().flat_map(|(_, files)| files));
    if !pictures.is_empty() {
        refuse_special(&pictures)?;
        return images::open(path, &pictures, classes, inputs, options);
    }
    let of_kind = |kind: &str| -> Vec<PathBuf> {
        let is_data = |file: &&PathBuf| extension(file) == kind && options.labels.as_ref() != Some(*file);
        files.iter().filter(is_data).cloned().collect()
    };
    let (npy, npz) = (of_kind("npy"), of_kind("npz"));
    refuse_special(npy.iter().chain(&npz))?;
    // Of both kinds, archives can feed what has several inputs.
    match inputs.len() {
        _ if npy.is_empty() && npz.is_empty() => Err(DataError::EmptyFolder { path: path.to_owned() }),
        2.. if !npz.is_empty() => archives::open(&npz, inputs, options),
        _ if npy.is_empty() => archives::open(&npz, inputs, options),
        _ => arrays::open_folder(path, npy, inputs, options),
    }
}

/// The archive at a path, the first one of a folder of archives.
pub(super) fn archive(path: &Path) -> Result<Option<PathBuf>, DataError> {
    let files = if path.is_dir() { entries(path)?.1 } else { vec![path.to_owned()] };
    Ok(files.into_iter().find(|file| extension(file) == "npz" && file.is_file()))
}

/// Refuses pipes and devices: opening a pipe would wait for its other end, and reading a device may never end.
fn refuse_special<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> Result<(), DataError> {
    // A path without metadata causes an error when it is read.
    let special = |path: &P| fs::metadata(path).is_ok_and(|found| !found.is_file());
    match files.into_iter().find(special) {
        Some(path) => Err(DataError::NotAFile { path: path.as_ref().to_owned() }),
        None => Ok(()),
    }
}

/// The sub-folders and files of a folder, in natural order, without hidden ones.
fn entries(path: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), DataError> {
    let error = |source| DataError::Io { path: path.to_owned(), source };
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(path).map_err(error)? {
        let entry = entry.map_err(error)?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let path = entry.path();
        if path.is_dir() { folders.push(path) } else { files.push(path) }
    }
    for list in [&mut folders, &mut files] {
        list.sort_by(|a, b| natural_order(&a.to_string_lossy(), &b.to_string_lossy()));
    }
    Ok((folders, files))
}

/// The `input_*.pb` of the folder itself, or of each of its `test_data_set_*` folders.
fn test_data_sets(path: &Path, folders: &[PathBuf], files: &[PathBuf]) -> Result<Vec<Vec<PathBuf>>, DataError> {
    let inputs = |files: &[PathBuf]| -> Vec<PathBuf> {
        let is_input = |f: &&PathBuf| name(f).starts_with("input_") && extension(f) == "pb";
        files.iter().filter(is_input).cloned().collect()
    };
    let own = inputs(files);
    if !own.is_empty() {
        return Ok(vec![own]);
    }
    let mut sets = Vec::new();
    for folder in folders.iter().filter(|f| name(f).starts_with("test_data_set_")) {
        let set = inputs(&entries(folder)?.1);
        if set.is_empty() {
            return Err(DataError::Missing { path: folder.join("input_0.pb") });
        }
        sets.push(set);
    }
    tracing::debug!(folder = %path.display(), sets = sets.len(), "test data sets");
    Ok(sets)
}

/// Sub-folders that hold images, in byte order of their names, with their images.
fn images_in(folders: &[PathBuf]) -> Result<Vec<(String, Vec<PathBuf>)>, DataError> {
    let mut classes = Vec::new();
    for folder in folders {
        let mut files = entries(folder)?.1;
        files.retain(|file| is_image(file));
        if !files.is_empty() {
            classes.push((name(folder), files));
        }
    }
    classes.sort();
    Ok(classes)
}

/// One label per file: the folder's number where all names are numbers, else the folder's position.
fn class_labels(classes: &[(String, Vec<PathBuf>)]) -> Vec<i64> {
    let numbers: Result<Vec<i64>, _> = classes.iter().map(|(name, _)| name.parse()).collect();
    let labels = numbers.unwrap_or_else(|_| (0..classes.len() as i64).collect());
    let repeated = labels.iter().zip(classes).map(|(&label, (_, files))| std::iter::repeat_n(label, files.len()));
    repeated.flatten().collect()
}

fn name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

fn is_image(path: &Path) -> bool {
    matches!(extension(path).as_str(), "png" | "jpg" | "jpeg" | "bmp" | "webp")
}

/// Compares digits inside names as numbers: `img2` comes before `img10`.
fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut x, mut y) = (a, b);
    while let (Some(c), Some(d)) = (x.chars().next(), y.chars().next()) {
        let (m, n) = (digits(x), digits(y));
        let order = if m.is_empty() || n.is_empty() {
            (x, y) = (&x[c.len_utf8()..], &y[d.len_utf8()..]);
            c.cmp(&d)
        } else {
            (x, y) = (&x[m.len()..], &y[n.len()..]);
            let (m, n) = (m.trim_start_matches('0'), n.trim_start_matches('0'));
            m.len().cmp(&n.len()).then_with(|| m.cmp(n))
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    x.len().cmp(&y.len()).then_with(|| a.cmp(b))
}

/// The digits a text starts with.
fn digits(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_as_numbers() {
        let mut names = ["b1", "a10", "a2", "a02", "a", "a2b"];
        names.sort_by(|a, b| natural_order(a, b));
        assert_eq!(names, ["a", "a02", "a2", "a2b", "a10", "b1"]);
    }

    #[test]
    fn classes_are_numbered_or_counted() {
        let files = |n| vec![PathBuf::new(); n];
        let named = [("cat".to_owned(), files(2)), ("dog".to_owned(), files(1))];
        assert_eq!(class_labels(&named), [0, 0, 1]);
        let numbered = [("10".to_owned(), files(1)), ("3".to_owned(), files(1))];
        assert_eq!(class_labels(&numbered), [10, 3]);
    }
}
