//! ONNX test data sets.

use std::fs;
use std::path::Path;

use msq_passes::ir::DataType;

use super::support::*;

/// A `TensorProto` of floats on the wire: dims, data type 1, name, raw data.
fn tensor(name: &str, shape: &[u8], data: &[f32]) -> Vec<u8> {
    let mut bytes: Vec<u8> = shape.iter().flat_map(|&dim| [0x08, dim]).collect();
    bytes.extend([0x10, 1, 0x42, name.len() as u8]);
    bytes.extend(name.bytes());
    bytes.extend([0x4a, 4 * data.len() as u8]);
    bytes.extend(data.iter().flat_map(|x| x.to_le_bytes()));
    bytes
}

fn write(folder: &Path, index: usize, bytes: &[u8]) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(format!("input_{index}.pb")), bytes).unwrap();
}

#[test]
fn one_set_and_several() {
    let folder = tempfile::tempdir().unwrap();
    for set in [0, 2, 10] {
        let inside = folder.path().join(format!("test_data_set_{set}"));
        // Ragged: free dimensions may differ from set to set.
        write(&inside, 0, &tensor("", &[1, 1 + set], &vec![f32::from(set); usize::from(set) + 1]));
        fs::write(inside.join("output_0.pb"), b"ignored").unwrap();
    }
    let inputs = floats("in", &[0, 0]);
    let data = open(folder.path(), &inputs).unwrap();
    assert_eq!((data.len(), first(&data, 1), first(&data, 2).0), (3, (vec![1, 3], vec![2.0; 3]), vec![1, 11]));
    assert!(!data.has_labels());
    let one = open(&folder.path().join("test_data_set_2"), &inputs).unwrap();
    assert_eq!((one.len(), one.describe()), (1, "1 sample from `test_data_set_2`".to_owned()));
    assert_eq!(open(&folder.path().join("test_data_set_2/input_0.pb"), &inputs).unwrap().len(), 1);
    let text = message(open(folder.path(), &floats("in", &[1, 1])).unwrap().sample(1), &folder);
    let wanted = "`test_data_set_2/input_0.pb`: the array has shape [1, 3], the model's input `in` wants [1, 1]";
    assert_eq!(text, wanted);
}

#[test]
fn inputs_by_name_or_in_order() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 0, &tensor("b", &[1], &[2.0]));
    write(folder.path(), 1, &tensor("a", &[1], &[1.0]));
    let values = |names: [&str; 2]| {
        let inputs = names.map(|n| input(n, DataType::Float, &[1]));
        open(folder.path(), &inputs)
            .unwrap()
            .sample(0)
            .unwrap()
            .arrays
            .iter()
            .map(|a| a.to_f32()[0])
            .collect::<Vec<_>>()
    };
    assert_eq!(values(["a", "b"]), [1.0, 2.0]);
    assert_eq!(values(["p", "q"]), [2.0, 1.0]);
    let three = ["p", "q", "r"].map(|n| input(n, DataType::Float, &[1]));
    let text = message(open(folder.path(), &three), &folder);
    assert!(
        text.contains("no array `input_2.pb` for the model's input `r`; there is `input_0.pb`, `input_1.pb`"),
        "{text}"
    );
}

/// An axis of open length may be of length zero, one of fixed length may not.
#[test]
fn a_sample_may_have_no_rows() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 0, &tensor("", &[0, 2], &[]));
    assert_eq!(first(&open(folder.path(), &floats("in", &[0, 2])).unwrap(), 0), (vec![0, 2], vec![]));
    let text = message(open(folder.path(), &floats("in", &[3, 2])), &folder);
    assert!(text.ends_with("the array has shape [0, 2], the model's input `in` wants [3, 2]"), "{text}");
}

#[test]
fn broken_tensors_are_named() {
    let refuse = |bytes: &[u8]| {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 0, bytes);
        message(open(folder.path(), &floats("in", &[0])), &folder)
    };
    assert!(refuse(b"\xff\xff\xff").starts_with("`input_0.pb` cannot be read as an ONNX tensor: "));
    assert!(refuse(&tensor("", &[2], &[1.0])).ends_with("shape [2] wants 8 bytes, there are 4"));
    let nan = refuse(&tensor("", &[1], &[f32::NEG_INFINITY]));
    assert_eq!(nan, "`input_0.pb`: the array, sample 0: element 0 is -inf");
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("test_data_set_0")).unwrap();
    let text = message(open(folder.path(), &floats("in", &[0])), &folder);
    assert_eq!(text, "`test_data_set_0/input_0.pb`: no such file or folder");
}
