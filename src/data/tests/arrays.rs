//! `.npy` files and folders, headers, element types.

use half::f16;
use msq_passes::ir::{DataType, TensorProto};

use super::support::*;
use crate::data::{Array, ArrayData, DataError, DataOptions, Dataset, InputSpec};

#[test]
fn rows_of_a_file() {
    let (_folder, path) = file("a.npy", &npy(&[3, 2], &[1_u16, 2, 3, 4, 5, 6]));
    let data = open(&path, &floats("in", &[0, 2])).unwrap();
    assert_eq!((data.len(), first(&data, 2)), (3, (vec![1, 2], vec![5.0, 6.0])));
    assert_eq!(data.range(0, 1).describe(), "1 sample from `a.npy`");
}

#[test]
fn an_input_of_unknown_shape_takes_rows_as_they_are() {
    let (_folder, path) = file("a.npy", &npy(&[3, 2], &count(&[3, 2])));
    let inputs = [InputSpec {
        name: "in".to_owned(),
        dtype: DataType::Float,
        shape: None,
        symbols: Vec::new(),
        image_size: None,
    }];
    assert_eq!(first(&open(&path, &inputs).unwrap(), 1), (vec![1, 2], vec![2.0, 3.0]));
}

#[test]
fn headers_that_are_refused() {
    let refuse = |bytes: &[u8]| {
        let (folder, path) = file("a.npy", bytes);
        message(open(&path, &floats("in", &[0, 2])), &folder)
    };
    let header = |descr: &str, order: &str, shape: &str| {
        npy_with_header(&format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"), &[0; 16])
    };
    let whole = npy(&[3, 2], &count(&[3, 2]));
    assert_eq!(
        refuse(&whole[..whole.len() - 12]),
        "`a.npy`: the array cannot be read: it ends after 12 of 24 bytes of data"
    );
    assert!(refuse(&header("'|O'", "False", "(2, 2)")).ends_with("save it again with a numeric dtype"));
    assert!(refuse(&header("'<c8'", "False", "(2,)")).contains("elements of type `<c8`"));
    assert!(refuse(&header("[('a', '<f4')]", "False", "(2,)")).contains("elements of type `record`"));
    assert!(refuse(&header("'<f4'", "Maybe", "(2, 2)")).contains("not valid at `Maybe, 'shape'"));
    assert!(refuse(&header("'<f4'", "False", "(((((((((")).contains("not valid at `(((((((("));
    assert!(refuse(&header("'<f4'", "False", "(-2, 2)")).contains("not valid at `-2, 2)"));
    assert!(refuse(&header("'é", "False", "(2, 2)")).contains("cannot be read"));
    assert!(refuse(&npy_with_header("{'descr': '<f4', 'shape': (1, 2), }", &[])).contains("a missing key"));
    assert!(refuse(b"").contains("does not start as an .npy file"));
    assert!(refuse(b"\x93NUMPY\x09\x00").contains("version 9.0"));
    assert!(refuse(b"\x93NUMPY\x02\x00\xff\xff\xff\xff").contains("4294967295 bytes long"));
}

#[test]
fn arrays_in_fortran_order_are_brought_into_rows() {
    // Row, then column, then depth; the row varies fastest in the file.
    let element = |row: usize, column: usize, depth: usize| (100 * row + 10 * column + depth) as f32;
    let mut bytes = Vec::new();
    for depth in 0..3 {
        for column in 0..2 {
            (0..4).for_each(|row| bytes.extend(element(row, column, depth).to_le_bytes()));
        }
    }
    let header = "{'descr': '<f4', 'fortran_order': True, 'shape': (4, 2, 3), }\n";
    let (_folder, path) = file("a.npy", &npy_with_header(header, &bytes));
    let data = open(&path, &floats("in", &[0, 2, 3])).unwrap();
    for row in 0..4 {
        let expected = (0..2).flat_map(|column| (0..3).map(move |depth| element(row, column, depth))).collect();
        assert_eq!(first(&data, row), (vec![1, 2, 3], expected));
    }
    let empty = "{'descr': '<f4', 'fortran_order': True, 'shape': (0, 2), }\n";
    let (folder, path) = file("b.npy", &npy_with_header(empty, &[]));
    assert!(message(open(&path, &floats("in", &[0, 2])), &folder).contains("is empty: shape"));
}

#[test]
fn big_endian_and_small_types() {
    let open_one = |descr: &str, data: &[u8], dtype| {
        let header = format!("{{'descr': '{descr}', 'fortran_order': True, 'shape': (2L,), }}\n");
        let (_folder, path) = file("a.npy", &npy_with_header(&header, data));
        let data = open(&path, &[input("in", dtype, &[])]).unwrap();
        let values: Vec<f32> = (0..2).flat_map(|i| first(&data, i).1).collect();
        values
    };
    assert_eq!(open_one(">i2", &[1, 2, 0xff, 0xff], DataType::Float), [258.0, -1.0]);
    assert_eq!(open_one("<f2", &[0, 0x3c, 0, 0xc0], DataType::Float16), [1.0, -2.0]);
    assert_eq!(open_one("|b1", &[0, 1], DataType::Int8), [0.0, 1.0]);
    assert_eq!(open_one("|u1", &[0, 1], DataType::Bool), [0.0, 1.0]);
    assert_eq!(open_one("<f8", &[[0; 8], 2.5_f64.to_le_bytes()].concat(), DataType::Double), [0.0, 2.5]);
}

#[test]
fn a_folder_of_files_in_natural_order() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in [("s10", 10.0_f32), ("s9", 9.0), ("s1", 1.0)] {
        std::fs::write(folder.path().join(format!("{name}.npy")), npy(&[2], &[value; 2])).unwrap();
    }
    let inputs = floats("in", &[0, 0]);
    let data = open(folder.path(), &inputs).unwrap();
    assert_eq!((0..3).map(|i| first(&data, i).1[0]).collect::<Vec<_>>(), [1.0, 9.0, 10.0]);
    assert_eq!(first(&data, 0).0, [1, 2]);
    // With the batch axis, and ragged.
    std::fs::write(folder.path().join("s9.npy"), npy(&[1, 4], &[8.0_f32; 4])).unwrap();
    assert_eq!(first(&open(folder.path(), &inputs).unwrap(), 1).0, [1, 4]);
    let text = message(open(folder.path(), &floats("in", &[0, 3])), &folder);
    assert_eq!(text, "`s1.npy`: the array has shape [1, 2], the model's input `in` wants [N, 3]");
    let text = message(open(folder.path(), &floats("in", &[2, 0])), &folder);
    assert_eq!(
        text,
        "`s9.npy`: the array has shape [1, 4], the model's input `in` wants [2, ?]; the files of a batch differ"
    );
    let two = [inputs.as_slice(), &floats("b", &[0, 1])].concat();
    let text = message(open(folder.path(), &two), &folder);
    assert!(
        text.ends_with(
            "feeds one input, the model has 2: `in`, `b`; give an .npz with one array an input, keyed by name"
        )
    );
}

#[test]
fn a_folder_groups_fixed_batches() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..5 {
        std::fs::write(folder.path().join(format!("{i}.npy")), npy(&[1, 2], &[i as f32; 2])).unwrap();
    }
    let (_other, labels) = file("l.csv", b"0\n1\n2\n3\n4\n");
    let options = DataOptions { labels: Some(labels), ..DataOptions::default() };
    let data = Dataset::open(folder.path(), &floats("in", &[2, 2]), &options).unwrap();
    assert_eq!((data.len(), first(&data, 1)), (2, (vec![2, 2], vec![2.0, 2.0, 3.0, 3.0])));
    assert_eq!(data.labels(1), Some([2, 3].as_slice()));
    let text = message(open(folder.path(), &floats("in", &[9, 2])), &folder);
    assert!(text.ends_with("5 samples do not fill the model's fixed batch of 9"), "{text}");
}

#[test]
fn paths_that_hold_nothing() {
    let inputs = floats("in", &[0, 1]);
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(message(open(&folder.path().join("no"), &inputs), &folder), "`no`: no such file or folder");
    assert!(message(open(folder.path(), &inputs), &folder).contains("holds no .npz or .npy file, no image"));
    let (folder, path) = file("a.txt", b"");
    assert!(message(open(&path, &inputs), &folder).starts_with("`a.txt` is not calibration data: give an .npz"));
    assert!(matches!(open(&path, &[]), Err(DataError::NoInputs)));
    let text = message(open(&path, &[input("s", DataType::String, &[1])]), &folder);
    assert_eq!(text, "the model's input `s` is `string`, which cannot be fed from data");
}

#[test]
fn casts_keep_values() {
    let cast = |data: ArrayData, dtype| array([1], data).cast(dtype).map(|a| a.data().clone());
    let refused = |data, dtype| cast(data, dtype).unwrap_err().to_string();
    assert_eq!(cast(ArrayData::I64(vec![-5]), DataType::Int8), Ok(ArrayData::I8(vec![-5])));
    assert_eq!(cast(ArrayData::F32(vec![3.0]), DataType::Uint64), Ok(ArrayData::U64(vec![3])));
    assert_eq!(cast(ArrayData::Bool(vec![true]), DataType::Float16), Ok(ArrayData::F16(vec![f16::ONE])));
    assert_eq!(cast(ArrayData::U8(vec![1]), DataType::Bool), Ok(ArrayData::Bool(vec![true])));
    assert_eq!(refused(ArrayData::U64(vec![u64::MAX]), DataType::Int64), "18446744073709551615 does not fit `int64`");
    assert_eq!(refused(ArrayData::F64(vec![0.5]), DataType::Int32), "0.5 does not fit `int32`");
    assert_eq!(refused(ArrayData::F32(vec![f32::NAN]), DataType::Int32), "NaN does not fit `int32`");
    assert_eq!(refused(ArrayData::I8(vec![2]), DataType::Bool), "2 does not fit `bool`");
    assert_eq!(refused(ArrayData::I8(vec![2]), DataType::String), "`int8` data does not fit `string`");
    let text = Array::new(vec![2, 2], ArrayData::I8(vec![0; 3])).unwrap_err().to_string();
    assert_eq!(text, "shape [2, 2] does not hold 3 elements");
    assert!(Array::new(vec![usize::MAX, 2], ArrayData::I8(vec![])).is_err());
}

#[test]
fn tensors_in_every_storage() {
    let convert = |tensor: TensorProto| Array::try_from(&tensor).map_err(|e| e.to_string());
    let tensor =
        |dtype: DataType| TensorProto { dims: vec![2], data_type: Some(dtype.number()), ..TensorProto::default() };
    let raw = |dtype, bytes: &'static [u8]| convert(TensorProto { raw_data: Some(bytes.into()), ..tensor(dtype) });
    assert_eq!(raw(DataType::Int16, &[1, 0, 0xff, 0xff]), Ok(array([2], ArrayData::I16(vec![1, -1]))));
    assert_eq!(raw(DataType::Int16, &[1]).unwrap_err(), "shape [2] wants 4 bytes, there are 1");
    let int32 = |dtype, data: &[i32]| convert(TensorProto { int32_data: data.to_vec(), ..tensor(dtype) });
    assert_eq!(int32(DataType::Uint8, &[7, 255]), Ok(array([2], ArrayData::U8(vec![7, 255]))));
    assert_eq!(int32(DataType::Bool, &[0, 1]), Ok(array([2], ArrayData::Bool(vec![false, true]))));
    assert_eq!(int32(DataType::Float16, &[0x3c00, 0]), Ok(array([2], ArrayData::F16(vec![f16::ONE, f16::ZERO]))));
    assert_eq!(int32(DataType::Int8, &[7, 300]).unwrap_err(), "an element of `int32_data` does not fit `int8`");
    assert_eq!(int32(DataType::Int32, &[7]).unwrap_err(), "shape [2] wants 2 elements, there are 1");
    let wide = TensorProto { uint64_data: vec![1, 2], ..tensor(DataType::Uint32) };
    assert_eq!(convert(wide), Ok(array([2], ArrayData::U32(vec![1, 2]))));
    let float = TensorProto { float_data: vec![0.5, 2.0], ..tensor(DataType::Float) };
    assert_eq!(convert(float), Ok(array([2], ArrayData::F32(vec![0.5, 2.0]))));
    assert_eq!(convert(tensor(DataType::Complex64)).unwrap_err(), "elements of type `complex64` are not read");
    let negative = TensorProto { dims: vec![-1], ..tensor(DataType::Float) };
    assert_eq!(convert(negative).unwrap_err(), "shape [-1] is not valid");
    let external = TensorProto { data_location: Some(1), ..tensor(DataType::Float) };
    assert!(convert(external).unwrap_err().contains("external file"));
}

#[test]
fn samples_of_one_shape_come_together() {
    let array = |length: usize| crate::data::Array::from_f32(vec![1, length], vec![length as f32; length]).unwrap();
    let lengths = [5, 3, 4, 5, 3, 9, 4, 3];
    let samples = lengths.map(|length| crate::data::Sample { arrays: vec![array(length)] });
    let data = crate::data::Dataset::stored(samples.to_vec());
    let found = |data: &crate::data::Dataset| -> Vec<usize> {
        (0..data.len()).map(|at| data.sample(at).unwrap().arrays[0].len()).collect()
    };
    assert_eq!(found(&data.grouped(0).unwrap()), [3, 3, 3, 4, 4, 5, 5, 9]);
    // The first ones stand for all.
    assert_eq!(found(&data.grouped(4).unwrap()), [3, 3, 4, 5, 3, 4, 5, 9]);
    let alike =
        crate::data::Dataset::stored([2, 2, 2].map(|n| crate::data::Sample { arrays: vec![array(n)] }).to_vec());
    assert_eq!(found(&alike.grouped(1).unwrap()), [2, 2, 2]);
}
