//! Arrays that say something else than a constant of the same name.

use super::array::Array;
use super::extension;
use super::npz::Archive;
use std::path::Path;

/// Of these constants those for which an `.npz` has an array with other elements: an array of the constant's elements, once or
/// for each sample, agrees. An array that cannot be read says nothing.
pub(crate) fn contradicting(path: &Path, constants: &[(String, Array)]) -> Vec<String> {
    if constants.is_empty() || extension(path) != "npz" {
        return Vec::new();
    }
    let Ok(mut archive) = Archive::open(path) else { return Vec::new() };
    let mut says_otherwise = |(name, constant): &&(String, Array)| {
        if !archive.contains(name) {
            return false;
        }
        let Ok(array) = archive.rows(name).and_then(|rows| rows.read_all()) else { return false };
        let (found, wanted) = (array.to_f32(), constant.to_f32());
        !wanted.is_empty() && found.chunks(wanted.len()).any(|chunk| chunk != wanted)
    };
    constants.iter().filter(|constant| says_otherwise(constant)).map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::write_npz;

    #[test]
    fn only_other_elements_contradict() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.npz");
        let arrays = [("a", vec![3], vec![7.0; 3]), ("b", vec![2, 2], vec![1.0, 2.0, 1.0, 3.0])];
        write_npz(&path, &arrays.map(|(name, shape, values)| (name.to_owned(), shape, values))).unwrap();
        let constant = |name: &str, values: &[f32]| {
            (name.to_owned(), Array::from_f32(vec![values.len()], values.to_vec()).unwrap())
        };
        let found = |constants: &[(String, Array)]| contradicting(&path, constants);
        assert!(
            found(&[constant("a", &[7.0]), constant("b", &[1.0, 2.0, 1.0, 3.0]), constant("c", &[0.0])]).is_empty()
        );
        assert_eq!(found(&[constant("a", &[8.0]), constant("b", &[1.0, 2.0])]), ["a", "b"]);
        assert!(contradicting(&folder.path().join("none.npz"), &[constant("a", &[8.0])]).is_empty());
    }
}
