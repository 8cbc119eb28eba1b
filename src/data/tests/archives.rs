//! `.npz` and `.npy`.

use msq_passes::ir::DataType;
use zip::CompressionMethod::{Deflated, Stored};

use super::support::*;
use crate::data::{DataOptions, Dataset, Layout, Preprocess, Preset};

fn options(preprocessing: Preprocess) -> DataOptions {
    DataOptions { preprocessing, ..DataOptions::default() }
}

#[test]
fn rows_of_an_archive_deflated_and_stored() {
    for method in [Deflated, Stored] {
        let shape = [5, 3, 2, 2];
        let (_folder, path) =
            npz(&[("input", npy(&shape, &count(&shape))), ("y", npy(&[5], &[4_i64, 3, 2, 1, 0]))], method);
        let data = open(&path, &floats("input", &[0, 3, 2, 2])).unwrap();
        assert_eq!((data.len(), data.label(1), data.has_labels()), (5, Some(3), true));
        assert_eq!(first(&data, 4), (vec![1, 3, 2, 2], (48..60).map(|i| i as f32).collect()));
        assert_eq!(data.describe(), "5 samples from `a.npz`");
    }
}

#[test]
fn several_inputs_by_name() {
    let ids = npy(&[2, 3], &[1_i64, 2, 3, 4, 5, 6]);
    let (folder, path) =
        npz(&[("ids", ids.clone()), ("x", npy(&[2, 1], &[0.5_f32, 1.5])), ("step", npy(&[], &[7_i64]))], Deflated);
    let mut inputs = vec![input("x", DataType::Float, &[0, 1]), input("ids", DataType::Int32, &[0, 0])];
    inputs.push(input("step", DataType::Int64, &[]));
    let sample = open(&path, &inputs).unwrap().sample(1).unwrap();
    assert_eq!(sample.arrays[0].to_f32(), [1.5]);
    assert_eq!((sample.arrays[1].dtype(), sample.arrays[1].to_f32()), (DataType::Int32, vec![4.0, 5.0, 6.0]));
    assert_eq!((sample.arrays[2].shape().len(), sample.arrays[2].to_f32()), (0, vec![7.0]));
    inputs.push(input("mask", DataType::Int64, &[0, 3]));
    let text = message(open(&path, &inputs), &folder);
    assert_eq!(text, "`a.npz`: no array `mask` for the model's input `mask`; there is `ids`, `x`, `step`");
    let (folder, path) = npz(&[("ids", ids), ("x", npy(&[3, 1], &[0.5_f32; 3]))], Deflated);
    let text = message(open(&path, &inputs[..2]), &folder);
    assert_eq!(text, "`a.npz`: array `x` has 3 samples, array `ids` has 2");
}

#[test]
fn the_array_of_a_single_input() {
    let one = |v: f32| npy(&[2, 1], &[v; 2]);
    let labels = npy(&[2], &[1_u8, 2]);
    let value = |arrays: &[(&str, Vec<u8>)], chosen: Option<&str>| {
        let (folder, path) = npz(arrays, Deflated);
        let options = DataOptions { input_array: chosen.map(str::to_owned), ..DataOptions::default() };
        match Dataset::open(&path, &floats("in", &[0, 1]), &options) {
            Ok(data) => first(&data, 0).1[0].to_string(),
            Err(error) => message(Err::<(), _>(error), &folder),
        }
    };
    assert_eq!(value(&[("z", one(1.0))], None), "1");
    assert_eq!(value(&[("label", labels), ("z", one(2.0))], None), "2");
    assert_eq!(value(&[("a", one(1.0)), ("b", one(2.0)), ("images", one(3.0))], None), "3");
    assert_eq!(value(&[("a", one(1.0)), ("in", one(2.0)), ("x", one(3.0))], None), "2");
    assert_eq!(value(&[("a", one(1.0)), ("in", one(2.0))], Some("a")), "1");
    let missing = "`a.npz`: no array `in` for the model's input `in`; there is `a`, `b`";
    assert_eq!(value(&[("a", one(1.0)), ("b", one(2.0))], None), missing);
    assert!(value(&[("a", one(1.0))], Some("q")).contains("no array `q`"));
}

#[test]
fn a_wrong_shape_is_said_as_promised() {
    let shape = [4, 1, 32, 32];
    let (folder, path) = npz(&[("input", npy(&shape, &count(&shape)))], Deflated);
    let text = message(open(&path, &floats("input", &[0, 3, 32, 32])), &folder);
    assert_eq!(text, "`a.npz`: array `input` has shape [4, 1, 32, 32], the model's input `input` wants [N, 3, 32, 32]");
    let text = message(open(&path, &floats("input", &[1, 1, 32])), &folder);
    assert!(text.ends_with("wants [1, 1, 32]"), "{text}");
    let text = message(open(&path, &floats("input", &[8, 1, 32, 32])), &folder);
    assert_eq!(text, "`a.npz`: 4 samples do not fill the model's fixed batch of 8");
}

#[test]
fn fixed_batches_group_rows_and_labels() {
    let (_folder, path) =
        npz(&[("x", npy(&[7, 2], &count(&[7, 2]))), ("y", npy(&[7], &[0_i32, 1, 2, 3, 4, 5, 6]))], Stored);
    let data = open(&path, &floats("x", &[3, 2])).unwrap();
    assert_eq!((data.len(), data.labels(1)), (2, Some([3, 4, 5].as_slice())));
    assert_eq!(first(&data, 1), (vec![3, 2], (6..12).map(|i| i as f32).collect()));
    let four = DataOptions { samples: Some(3), ..DataOptions::default() };
    assert_eq!(Dataset::open(&path, &floats("x", &[3, 2]), &four).unwrap().len(), 1);
    // One axis more: whole inputs, their leading axis is no batch to fill.
    let (_folder, path) = npz(&[("x", npy(&[2, 3, 2], &count(&[2, 3, 2])))], Stored);
    assert_eq!(first(&open(&path, &floats("x", &[3, 2])).unwrap(), 1).0, [3, 2]);
}

#[test]
fn uint8_pixels_are_transposed_and_scaled() {
    let pixels: Vec<u8> = (0..24).collect();
    let (folder, path) = npz(&[("x", npy(&[2, 2, 2, 3], &pixels))], Deflated);
    let inputs = floats("input", &[0, 3, 2, 2]);
    let raw = open(&path, &inputs).unwrap();
    let planes = [12., 15., 18., 21., 13., 16., 19., 22., 14., 17., 20., 23.];
    assert_eq!(first(&raw, 1), (vec![1, 3, 2, 2], planes.to_vec()));
    let lite = options(Preprocess { preset: Some(Preset::Lite), ..Preprocess::default() });
    let scaled = first(&Dataset::open(&path, &inputs, &lite).unwrap(), 1).1;
    assert_eq!(scaled, planes.map(|p| (p - 127.0) / 128.0));
    let per_channel = options(Preprocess {
        mean: Some(vec![1.0, 2.0, 3.0]),
        std: Some(vec![2.0, 4.0, 8.0]),
        ..Preprocess::default()
    });
    let scaled = first(&Dataset::open(&path, &inputs, &per_channel).unwrap(), 1).1;
    assert_eq!((scaled[0], scaled[4], scaled[11]), (5.5, 11.0 / 4.0, 20.0 / 8.0));
    let bad = options(Preprocess { mean: Some(vec![1.0, 2.0]), ..Preprocess::default() });
    let text = message(Dataset::open(&path, &inputs, &bad), &folder);
    assert_eq!(text, "preprocessing of the model's input `input`: 2 values of `mean` for 3 channels");
    // A model with channels last takes rows with channels last unchanged, and transposes rows with channels first.
    let last = floats("input", &[0, 2, 2, 3]);
    assert_eq!(first(&open(&path, &last).unwrap(), 0).1, (0..12).map(|i| i as f32).collect::<Vec<_>>());
    let (_folder, path) = npz(&[("x", npy(&[2, 3, 2, 2], &pixels))], Deflated);
    assert_eq!(first(&open(&path, &last).unwrap(), 0).1[..3], [0.0, 4.0, 8.0]);
}

#[test]
fn float_arrays_are_moved_only_when_asked() {
    let shape = [2, 4, 5, 3];
    let (folder, path) = npz(&[("x", npy(&shape, &count(&shape)))], Deflated);
    let inputs = floats("input", &[0, 3, 4, 5]);
    let text = message(open(&path, &inputs), &folder);
    assert!(
        text.ends_with("wants [N, 3, 4, 5]; if its channels are at the other end, say so with option `layout`"),
        "{text}"
    );
    let asked =
        options(Preprocess { layout: Some(Layout::Nhwc), preset: Some(Preset::ImageNet), ..Preprocess::default() });
    let data = Dataset::open(&path, &inputs, &asked).unwrap();
    assert_eq!(first(&data, 0).1[..2], [0.0, 3.0]);
    let halved = options(Preprocess { layout: Some(Layout::Nhwc), scale: Some(0.5), ..Preprocess::default() });
    assert_eq!(first(&Dataset::open(&path, &inputs, &halved).unwrap(), 0).1[1], 1.5);
}

#[test]
fn a_missing_axis_of_one_is_put_in() {
    let (_folder, path) = npz(&[("x", npy(&[2, 4, 5], &[9_u8; 40]))], Deflated);
    assert_eq!(first(&open(&path, &floats("x", &[0, 1, 4, 5])).unwrap(), 0).0, [1, 1, 4, 5]);
    assert_eq!(first(&open(&path, &floats("x", &[0, 4, 5, 1])).unwrap(), 0).0, [1, 4, 5, 1]);
}

#[test]
fn values_must_fit_the_input() {
    let (folder, path) = npz(&[("x", npy(&[2, 2], &[1.0_f32, 2.0, 3.0, 4.5]))], Deflated);
    let data = open(&path, &[input("ids", DataType::Int32, &[0, 2])]).unwrap();
    assert_eq!(first(&data, 0).1, [1.0, 2.0]);
    let text = message(data.sample(1), &folder);
    assert_eq!(text, "`a.npz`: array `x`, sample 1: 4.5 does not fit `int32`, the type of the model's input `ids`");
    let (folder, path) = npz(&[("x", npy(&[2, 2], &[0.0_f32, 1.0, 2.0, f32::NAN]))], Stored);
    let text = message(open(&path, &floats("x", &[0, 2])).unwrap().sample(1), &folder);
    assert_eq!(text, "`a.npz`: array `x`, sample 1: element 1 is NaN");
    let (folder, path) = npz(&[("x", npy(&[1, 1], &[1e300_f64]))], Stored);
    let text = message(open(&path, &floats("x", &[0, 1])).unwrap().sample(0), &folder);
    assert_eq!(text, "`a.npz`: array `x`, sample 0: 1e300 does not fit `float`, the type of the model's input `x`");
    let (folder, path) = npz(&[("x", npy::<f32>(&[0, 1], &[]))], Stored);
    assert_eq!(message(open(&path, &floats("x", &[0, 1])), &folder), "`a.npz`: array `x` is empty: shape [0, 1]");
}

/// An axis of open length may be of length zero, as that of what came before at the begin of a text; the one that counts
/// samples may not, nor one of fixed length.
#[test]
fn rows_may_be_empty() {
    let (folder, path) = npz(&[("x", npy::<f32>(&[2, 3, 0, 4], &[]))], Stored);
    let data = open(&path, &floats("x", &[0, 3, 0, 4])).unwrap();
    assert_eq!((data.len(), first(&data, 1)), (2, (vec![1, 3, 0, 4], vec![])));
    let text = message(open(&path, &floats("x", &[0, 3, 5, 4])), &folder);
    assert_eq!(text, "`a.npz`: array `x` has shape [2, 3, 0, 4], the model's input `x` wants [N, 3, 5, 4]");
}

#[test]
fn labels_beside_and_inside() {
    let x = npy(&[3, 1], &[0.0_f32; 3]);
    let (folder, path) =
        npz(&[("x", x.clone()), ("y", npy(&[2], &[1_i64, 2])), ("k", npy(&[3, 1], &[7_i16, 8, 9]))], Deflated);
    let inputs = floats("x", &[0, 1]);
    assert!(!open(&path, &inputs).unwrap().has_labels());
    let named = DataOptions { label_array: Some("k".to_owned()), ..DataOptions::default() };
    assert_eq!(Dataset::open(&path, &inputs, &named).unwrap().label(2), Some(9));
    let short = DataOptions { label_array: Some("y".to_owned()), ..DataOptions::default() };
    assert_eq!(message(Dataset::open(&path, &inputs, &short), &folder), "labels in `a.npz`: 2 labels for 3 samples");
    for (name, bytes) in [("l.csv", b"label\n4\n5\n6\n".to_vec()), ("l.npy", npy(&[3], &[4_i64, 5, 6]))] {
        let (_other, labels) = file(name, &bytes);
        let options = DataOptions { labels: Some(labels), ..DataOptions::default() };
        assert_eq!(Dataset::open(&path, &inputs, &options).unwrap().label(1), Some(5));
    }
    let text = npy_with_header("{'descr': '<U1', 'fortran_order': False, 'shape': (3,), }\n", &[0; 12]);
    let (_folder, path) = npz(&[("x", x), ("label", text)], Deflated);
    assert!(!open(&path, &inputs).unwrap().has_labels());
}

/// Floats are labels where they are whole; neither others nor rows of scores are.
#[test]
fn labels_are_whole_numbers_of_any_type() {
    let x = npy(&[3, 1], &[0.0_f32; 3]);
    let label = |y| {
        let (_folder, path) = npz(&[("x", x.clone()), ("y", y)], Deflated);
        open(&path, &floats("x", &[0, 1])).unwrap().label(1)
    };
    assert_eq!(label(npy(&[3], &[4.0_f32, 5.0, 6.0])), Some(5));
    assert_eq!(label(npy(&[3, 1], &[4.0_f64, 5.0, 6.0])), Some(5));
    assert_eq!(label(npy(&[3], &[4.0_f32, 5.5, 6.0])), None);
    assert_eq!(label(npy(&[3, 2], &[1.0_f32, 0.0, 0.0, 1.0, 1.0, 0.0])), None);
}

#[test]
fn broken_archives_are_named() {
    for (bytes, reason) in [(&b"no archive at all"[..], "it is no zip file"), (b"", "the file is empty")] {
        let (folder, path) = file("a.npz", bytes);
        let text = message(open(&path, &floats("x", &[0, 1])), &folder);
        assert_eq!(text, format!("`a.npz` is not an .npz archive: {reason}"));
    }
    let header = |shape: &str| format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}\n");
    let lie = |shape: &str, bytes: usize| {
        let (folder, path) = npz(&[("x", npy_with_header(&header(shape), &vec![0; bytes]))], Deflated);
        message(open(&path, &floats("x", &[0, 1])), &folder)
    };
    assert_eq!(lie("4, 1", 12), "`a.npz`: array `x` cannot be read: it ends after 12 of 16 bytes of data");
    assert!(lie("2, 1", 12).ends_with("it has 12 bytes of data where its shape wants 8"));
    assert!(lie("99999999999, 1", 12).ends_with("declares shape [99999999999, 1], which is more than 64 GiB"));
    assert!(lie("18446744073709551615, 9223372036854775807", 12).ends_with("which is more than 64 GiB"));
    // Of a file that was not copied whole the list of members is missing.
    for method in [Stored, Deflated] {
        let (folder, path) = npz(&[("x", npy(&[40, 1], &count(&[40, 1])))], method);
        let bytes = std::fs::read(&path).unwrap();
        for length in [10, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let text = message(open(&path, &floats("x", &[0, 1])), &folder);
            assert!(text.starts_with("`a.npz` is not an .npz archive: the file ends too early"), "{length}: {text}");
        }
    }
    // A damaged stream: the checksum or the inflater notices.
    let noise: Vec<f32> = (0..4000).map(|i| (i * 7919 % 1009) as f32).collect();
    let (folder, path) = npz(&[("x", npy(&[4000, 1], &noise))], Deflated);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[2000] ^= 0xff;
    std::fs::write(&path, bytes).unwrap();
    assert!(message(open(&path, &floats("x", &[0, 1])), &folder).starts_with("`a.npz`: array `x` cannot be read: "));
}

/// What is inflated is bounded by what the header declares, whatever the archive says of its sizes.
#[test]
fn archives_that_inflate_to_more_than_they_say() {
    let member = npy_with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }\n", &vec![0; 1 << 24]);
    let (folder, path) = npz(&[("x", member.clone())], Deflated);
    let (real, said) = ((member.len() as u32).to_le_bytes(), ((member.len() - (1 << 24) + 8) as u32).to_le_bytes());
    let mut bytes = std::fs::read(&path).unwrap();
    for at in 0..bytes.len() - 4 {
        if bytes[at..at + 4] == real {
            bytes[at..at + 4].copy_from_slice(&said);
        }
    }
    assert!(bytes.len() < 1 << 15);
    std::fs::write(&path, bytes).unwrap();
    let text = message(open(&path, &floats("x", &[0, 1])), &folder);
    assert_eq!(text, "`a.npz`: array `x` cannot be read: File is larger than its declared uncompressed size");
}

#[test]
fn selections() {
    let (_folder, path) =
        npz(&[("x", npy(&[10, 1], &count(&[10, 1]))), ("y", npy(&[10], &(0..10).collect::<Vec<i64>>()))], Stored);
    let inputs = floats("x", &[0, 1]);
    let data = open(&path, &inputs).unwrap();
    let labels = |data: &Dataset| (0..data.len()).filter_map(|i| data.label(i)).collect::<Vec<_>>();
    assert_eq!(labels(&data.range(7, 99)), [7, 8, 9]);
    assert_eq!(labels(&data.range(5, 2)), [0_i64; 0]);
    assert_eq!(labels(&data.subset(&[4, 2, 77]).subset(&[1, 0])), [2, 4]);
    let (kept, held) = data.split(3);
    assert_eq!((labels(&held), kept.len()), (vec![0, 3, 6], 7));
    let some = DataOptions { samples: Some(4), ..DataOptions::default() };
    assert_eq!(labels(&Dataset::open(&path, &inputs, &some).unwrap()), [0, 2, 5, 7]);
    assert_eq!(first(&held, 1).1, [3.0]);
    assert_eq!(held.sample(3).unwrap_err().to_string(), "sample 3 was asked for, there are 3");
}

#[test]
fn samples_are_read_from_many_threads() {
    for method in [Deflated, Stored] {
        let shape = [64, 16, 16];
        let (_folder, path) = npz(&[("x", npy(&shape, &count(&shape)))], method);
        let data = open(&path, &floats("x", &[0, 16, 16])).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let data = &data;
                scope.spawn(move || {
                    for index in (0..64).map(|i| (i * 7 + thread * 13) % 64) {
                        assert_eq!(first(data, index).1[0], (index * 256) as f32);
                    }
                });
            }
        });
    }
}

/// A folder of archives: each has one sample or several, as long as that file says; what was read last stays open.
#[test]
fn folders_of_archives() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = [input("ids", DataType::Int64, &[0, 0]), input("x", DataType::Float, &[0, 2])];
    let write = |name: &str, rows: usize, length: usize, method| {
        let ids = npy(&[rows as u64, length as u64], &(0..(rows * length) as i64).collect::<Vec<i64>>());
        let labels = npy(&[rows as u64], &vec![length as i64; rows]);
        let x = npy(&[rows as u64, 2], &vec![length as f32; 2 * rows]);
        let (_scratch, path) = npz(&[("ids", ids), ("x", x), ("labels", labels)], method);
        std::fs::copy(path, folder.path().join(name)).unwrap();
    };
    for (at, (rows, length)) in [(1, 3), (2, 5), (1, 4)].into_iter().enumerate() {
        write(&format!("s{}.npz", at + 9), rows, length, if at == 0 { Stored } else { Deflated });
    }
    let data = open(folder.path(), &inputs).unwrap();
    let read = |at: usize| {
        let arrays = data.sample(at).unwrap().arrays;
        (arrays[0].to_f32()[0], arrays[0].shape().to_vec(), arrays[1].to_f32(), data.label(at))
    };
    // s9, two rows of s10, s11.
    assert_eq!(data.len(), 4);
    assert_eq!(read(0), (0.0, vec![1, 3], vec![3.0; 2], Some(3)));
    assert_eq!(read(2), (5.0, vec![1, 5], vec![5.0; 2], Some(5)));
    assert_eq!(read(3), (0.0, vec![1, 4], vec![4.0; 2], Some(4)));
    assert_eq!(data.shapes().unwrap(), 3);
    let (fixed, text) = (input("ids", DataType::Int64, &[0, 3]), "`s10.npz`: array `ids`");
    assert!(message(open(folder.path(), &[fixed, inputs[1].clone()]), &folder).contains(text));
    for at in 0..12 {
        write(&format!("t{at}.npz"), 1, 20 + at, Stored);
    }
    let data = open(folder.path(), &inputs).unwrap();
    let lengths: Vec<usize> = (0..data.len()).map(|at| data.sample(at).unwrap().arrays[0].shape()[1]).collect();
    assert_eq!(lengths, [&[3, 5, 5, 4][..], &(20..32).collect::<Vec<_>>()].concat());
}

/// Where axes have nothing to do with each other, an archive is one sample.
#[test]
fn whole_inputs_of_one_sample() {
    let arrays = |nodes: u64, edges: u64| {
        [("x", npy(&[nodes, 2], &count(&[nodes, 2]))), ("edges", npy(&[2, edges], &vec![0_i64; 2 * edges as usize]))]
    };
    let mut inputs = [input("x", DataType::Float, &[0, 2]), input("edges", DataType::Int64, &[2, 0])];
    let (scratch, path) = npz(&arrays(3, 5), Stored);
    assert_eq!(message(open(&path, &inputs), &scratch), "`a.npz`: array `x` has 3 samples, array `edges` has 1");
    inputs[0].symbols = vec![Some("nodes".to_owned()), None];
    let folder = tempfile::tempdir().unwrap();
    for (at, (nodes, edges)) in [(3, 5), (4, 2)].into_iter().enumerate() {
        let (_scratch, path) = npz(&arrays(nodes, edges), Stored);
        let one = open(&path, &inputs).unwrap();
        assert_eq!((one.len(), first(&one, 0).0), (1, vec![nodes as usize, 2]));
        std::fs::copy(path, folder.path().join(format!("{at}.npz"))).unwrap();
    }
    let data = open(folder.path(), &inputs).unwrap();
    let shapes: Vec<Vec<usize>> = data.sample(1).unwrap().arrays.iter().map(|array| array.shape().to_vec()).collect();
    assert_eq!((data.len(), data.shapes().unwrap()), (2, 2));
    assert_eq!(shapes, [[4, 2], [2, 2]]);
}
