//! Synthetic data.

use std::collections::BTreeMap;

use msq_passes::ir::DataType;

use super::support::*;
use crate::data::{Array, Dataset, InputSpec, Size, SyntheticOptions, SyntheticScale, SyntheticValues};

fn make(inputs: &[InputSpec], options: &SyntheticOptions) -> Dataset {
    Dataset::synthetic(inputs, options).unwrap()
}

fn options(values: &[(&str, SyntheticValues)]) -> SyntheticOptions {
    let values: BTreeMap<_, _> = values.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect();
    SyntheticOptions {
        count: 8,
        seed: 5,
        image_size: Size { width: 20, height: 12 },
        length: 6,
        values,
        non_negative: false,
    }
}

#[test]
fn magnitudes_have_no_sign() {
    let inputs = [input("noise", DataType::Float, &[64, 32]), input("image", DataType::Float, &[1, 3, 16, 16])];
    let signed = make(&inputs, &options(&[])).sample(0).unwrap().arrays;
    let magnitudes = make(&inputs, &SyntheticOptions { non_negative: true, ..options(&[]) }).sample(0).unwrap().arrays;
    for (signed, magnitudes) in signed.iter().zip(&magnitudes) {
        let (signed, magnitudes) = (signed.to_f32(), magnitudes.to_f32());
        assert!(signed.iter().any(|v| *v < 0.0));
        assert!(signed.iter().zip(&magnitudes).all(|(a, b)| a.abs() == *b));
    }
}

#[test]
fn shapes_and_types_are_the_models() {
    let inputs = [
        input("a", DataType::Float, &[0, 3, 0, 0]),
        input("b", DataType::Uint8, &[2, 10, 11, 1]),
        input("c", DataType::Int64, &[0, 0]),
        input("d", DataType::Float16, &[0, 0, 40]),
        input("e", DataType::Bool, &[5]),
        input("f", DataType::Int8, &[1, 1, 8, 8]),
    ];
    let data = make(&inputs, &options(&[]));
    let sample = data.sample(3).unwrap();
    let shapes: Vec<&[usize]> = sample.arrays.iter().map(Array::shape).collect();
    assert_eq!(shapes, [&[1, 3, 12, 20][..], &[2, 10, 11, 1], &[1, 6], &[1, 6, 40], &[5], &[1, 1, 8, 8]]);
    assert!(sample.arrays.iter().zip(&inputs).all(|(a, i)| a.dtype() == i.dtype));
    assert!(sample.arrays[2].to_f32().iter().all(|id| (0.0..128.0).contains(id)));
    let pixels = sample.arrays[1].to_f32();
    assert!(pixels.iter().any(|&p| p > 100.0) && pixels[..110] != pixels[110..]);
    assert_eq!((data.len(), data.describe().as_str()), (8, "8 synthetic samples"));
}

/// Decoders with a past: masks reach over it and the present, unless their axis is called otherwise.
#[test]
fn masks_reach_over_past_and_present() {
    let named = |name: &str, dtype, axes: [(&str, usize); 4], rank: usize| InputSpec {
        name: name.to_owned(),
        dtype,
        shape: Some(axes[..rank].iter().map(|&(_, length)| (length > 0).then_some(length)).collect()),
        symbols: axes[..rank].iter().map(|&(name, _)| Some(name.to_owned())).collect(),
        image_size: None,
    };
    let mask_shape = |mask: &str, ids: usize| {
        let inputs = [
            named("input_ids", DataType::Int64, [("batch", 0), ("sequence", ids), ("", 0), ("", 0)], 2),
            named("attention_mask", DataType::Int64, [("batch", 0), (mask, 0), ("", 0), ("", 0)], 2),
            named("past_key_values.0.key", DataType::Float, [("batch", 0), ("", 2), ("past", 0), ("", 8)], 4),
        ];
        make(&inputs, &options(&[])).sample(0).unwrap().arrays[1].shape().to_vec()
    };
    assert_eq!(mask_shape("total_sequence_length", 0), [1, 12]);
    assert_eq!(mask_shape("kv", 1), [1, 7]);
    assert_eq!(mask_shape("past + 1", 1), [1, 7]);
    assert_eq!(mask_shape("sequence", 0), [1, 6]);
    assert_eq!(mask_shape("past", 1), [1, 6]);
}

#[test]
fn samples_depend_on_seed_and_index_alone() {
    let inputs = floats("x", &[0, 3, 16, 16]);
    let data = make(&inputs, &options(&[]));
    let again = make(&inputs, &SyntheticOptions { count: 3, ..options(&[]) });
    assert_eq!(data.sample(2).unwrap(), again.sample(2).unwrap());
    assert_ne!(data.sample(2).unwrap(), data.sample(1).unwrap());
    let other = make(&inputs, &SyntheticOptions { seed: 6, ..options(&[]) });
    assert_ne!(data.sample(2).unwrap(), other.sample(2).unwrap());
    let two = make(&[floats("x", &[0, 3, 16, 16]), floats("y", &[0, 3, 16, 16])].concat(), &options(&[]));
    let sample = two.sample(0).unwrap();
    assert_ne!(sample.arrays[0], sample.arrays[1]);
    // The values are the same everywhere and for ever: reports are compared across versions.
    let ids = make(&[input("i", DataType::Int32, &[4])], &options(&[]));
    assert_eq!(first(&ids, 0).1, [56.0, 91.0, 81.0, 104.0]);
}

#[test]
fn values_as_handed_in() {
    let scale = SyntheticScale { mean: 3.0, std: 0.5 };
    let inputs = [
        input("image", DataType::Float, &[0, 3, 32, 32]),
        input("noise", DataType::Float, &[64, 32]),
        input("ids", DataType::Int32, &[1000]),
        input("mask", DataType::Int64, &[0, 0]),
    ];
    let values = [
        ("image", SyntheticValues::Images(scale)),
        ("noise", SyntheticValues::Noise(scale)),
        ("ids", SyntheticValues::Ids { limit: 3 }),
        ("mask", SyntheticValues::Constant(1.0)),
    ];
    let data = make(&inputs, &SyntheticOptions { count: 100, ..options(&values) });
    let (mut sums, n) = ([[0.0_f64; 3]; 2], 100);
    for index in 0..n {
        let arrays = data.sample(index).unwrap().arrays;
        for (sum, array) in sums.iter_mut().zip(&arrays) {
            for value in array.to_f32().into_iter().map(f64::from) {
                *sum = [sum[0] + 1.0, sum[1] + value, sum[2] + value * value];
            }
        }
        assert!(arrays[3].to_f32().iter().all(|&m| m == 1.0));
        let ids = arrays[2].to_f32();
        assert!([0.0, 1.0, 2.0].iter().all(|id| ids.contains(id)) && ids.iter().all(|&id| id < 3.0));
    }
    for [count, sum, squares] in sums {
        let mean = sum / count;
        let std = (squares / count - mean * mean).sqrt();
        assert!((mean - 3.0).abs() < 0.1 && (std - 0.5).abs() < 0.08, "{mean} {std}");
    }
}

#[test]
fn channels_last_interleaves() {
    let data = make(&floats("x", &[0, 24, 24, 3]), &options(&[]));
    let (_, values) = first(&data, 0);
    let difference = |stride: usize| {
        values.iter().zip(&values[stride..]).map(|(a, b)| (a - b).powi(2)).sum::<f32>() / values.len() as f32
    };
    // The next pixel of the same channel is closer than the next channel but one of a neighbour.
    assert!(difference(3) < 0.5, "{}", difference(3));
}

#[test]
fn masks_say_that_every_element_counts() {
    let masks = [
        ("attention_mask", DataType::Int64, 1.0),
        ("mask", DataType::Bool, 1.0),
        ("key_padding_mask", DataType::Bool, 0.0),
    ];
    for (name, dtype, value) in masks {
        let (_, values) = first(&make(&[input(name, dtype, &[1, 40])], &options(&[])), 0);
        assert_eq!(values, [value; 40], "{name}");
    }
    // One that is added to scores may hold anything.
    let (_, values) = first(&make(&floats("mask", &[1, 40]), &options(&[])), 0);
    assert!(values.iter().any(|&value| value != values[0]));
}

#[test]
fn what_cannot_be_made_up_is_said() {
    let unknown =
        InputSpec { name: "x".to_owned(), dtype: DataType::Float, shape: None, symbols: Vec::new(), image_size: None };
    let error = Dataset::synthetic(&[unknown], &options(&[])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "preprocessing of the model's input `x`: no data can be made up for an unknown shape"
    );
    let error = Dataset::synthetic(&floats("x", &[1 << 40]), &options(&[])).unwrap_err();
    assert!(error.to_string().ends_with("is too large to make data up for"), "{error}");
    assert!(Dataset::synthetic(&[], &options(&[])).is_err());
}
