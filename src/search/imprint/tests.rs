//! Against the definitions written out: pixels summed bin by bin, maps resized before anything is compared.

mod naive;

use super::*;
use naive::{SCALES, Sample, naive_feature, naive_query, product};
use proptest::prelude::*;

/// Values between −1 and 1, different for each seed.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let mix = |i: u32| (i.wrapping_add(seed.wrapping_mul(7919)).wrapping_mul(2_654_435_761) ^ seed) >> 8;
    (0..count as u32).map(|i| mix(i.wrapping_mul(97).wrapping_add(mix(i))) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn image(channels: usize, height: usize, width: usize, seed: u32) -> (Vec<f32>, [usize; 4]) {
    (values(channels * height * width, seed), [1, channels, height, width])
}

fn features(values: &[f32], shape: &[usize]) -> Features {
    Pyramid::default().features(values, shape, Channels::First).unwrap()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 2e-6 * (1.0 + a.abs().max(b.abs()))
}

fn all_close(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| close(a, b))
}

fn templates(samples: &[Sample], shape: &[usize], normalization: Normalization) -> Templates {
    let mut templates = Templates::new(normalization);
    for (class, confidence, values) in samples {
        templates.observe(*class, *confidence, &features(values, shape)).unwrap();
    }
    templates
}

/// Samples of classes 2, 5 and 7.
fn samples(count: usize, length: usize, seed: u32) -> Vec<Sample> {
    let sample = |i: usize| {
        let confidence = 0.1 + f64::from(values(1, seed + i as u32)[0].abs()) * 0.9;
        ([2, 5, 7][i % 3], confidence, values(length, seed.wrapping_mul(31) + 100 + i as u32))
    };
    (0..count).map(sample).collect()
}

#[test]
fn queries_follow_the_equations() {
    for (seed, [channels, height, width]) in
        [[3, 8, 8], [2, 7, 5], [1, 4, 4], [5, 3, 3], [2, 1, 1], [1, 2, 9], [4, 3, 6]].into_iter().enumerate()
    {
        for normalization in [Normalization::L2, Normalization::None] {
            for weight in [ScaleWeight::Entropy, ScaleWeight::Confidence] {
                let (asked, shape) = image(channels, height, width, 1000 + seed as u32);
                let seen = samples(8, asked.len(), 7 + seed as u32);
                let predictor = templates(&seen, &shape, normalization).finish(weight);
                let found = predictor.query(&features(&asked, &shape)).unwrap();
                let (logits, entropies, scores) = naive_query(&seen, &asked, shape, &[2, 5, 7], normalization, weight);
                assert_eq!(found.classes, [2, 5, 7]);
                for (found, expected) in found.logits.iter().zip(&logits) {
                    assert!(all_close(found, expected), "{shape:?}: {found:?} {expected:?}");
                }
                assert!(all_close(&found.entropies, &entropies), "{shape:?}");
                assert!(all_close(&found.scores, &scores), "{shape:?}: {:?} {scores:?}", found.scores);
                let best = (0..3).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap();
                assert_eq!(found.class(), Some([2, 5, 7][best]));
            }
        }
    }
}

#[test]
fn norms_are_those_of_resized_maps() {
    for (seed, (height, width)) in [(4, 4), (7, 7), (3, 3), (1, 1), (2, 3), (13, 5), (1, 6)].into_iter().enumerate() {
        let (values, shape) = image(2, height, width, seed as u32);
        let found = features(&values, &shape).norms;
        let expected = SCALES.map(|d| naive_feature(&values, shape, d, 4)).map(|e| product(&e, &e).sqrt());
        assert!(all_close(&found, &expected), "{shape:?}: {found:?} {expected:?}");
    }
}

#[test]
fn bins_of_a_five_by_five_map() {
    // Means of rows 0-2 and 2-4, and of rows 0-1, 1-2, 2-3 and 3-4, as the bins overlap; the same in columns.
    let map: Vec<f32> = (0..25).map(|i| (10 * (i / 5) + i % 5) as f32).collect();
    let found = features(&map, &[1, 1, 5, 5]).maps;
    assert_eq!(found[0], [22.0]);
    assert_eq!(found[1], [11.0, 13.0, 31.0, 33.0]);
    let quarter = |row: f32| [5.5, 6.5, 7.5, 8.5].map(|v| v + 10.0 * row);
    assert_eq!(found[2], [0.0, 1.0, 2.0, 3.0].map(quarter).concat());
}

#[test]
fn small_maps_are_pooled_to_what_they_have() {
    let (values, shape) = image(1, 3, 3, 4);
    let found = features(&values, &shape);
    assert_eq!(found.layout.shapes, [[1, 1, 1], [1, 2, 2], [1, 3, 3]]);
    assert_eq!(found.maps[2], values);
}

#[test]
fn two_values_are_resized_by_quarters() {
    // 0, 4 becomes 0, 1, 3, 4, of squared length 26; scale 1 becomes 2, 2, 2, 2, of squared length 16.
    let found = features(&[0.0, 4.0], &[1, 1, 2]).norms;
    assert!(all_close(&found, &[4.0, 26_f64.sqrt(), 26_f64.sqrt()]), "{found:?}");
}

#[test]
fn a_worked_example() {
    // Without spatial axes all scales agree. Means (3·(1, 0) + 1·(0, 1))/4 = (¾, ¼) and (0, 1).
    let mut templates = Templates::new(Normalization::None);
    for (class, confidence, vector) in [(0, 0.75, [1.0, 0.0]), (0, 0.25, [0.0, 1.0]), (9, 0.5, [0.0, 1.0])] {
        templates.observe(class, confidence, &features(&vector, &[1, 2])).unwrap();
    }
    let query = templates.finish(ScaleWeight::Entropy).query(&features(&[4.0, 8.0], &[1, 2])).unwrap();
    assert_eq!(query.logits, vec![[5.0, 8.0]; 3]);
    let p = 1.0 / (1.0 + 3_f64.exp());
    let entropy = -p * p.ln() - (1.0 - p) * (1.0 - p).ln();
    assert!(all_close(&query.entropies, &[entropy; 3]), "{query:?}");
    assert!(all_close(&query.scores, &[5.0, 8.0]), "{query:?}");
    assert_eq!(query.class(), Some(9));
}

#[test]
fn scales_are_weighed_by_entropy_or_by_its_inverse() {
    // A map and its mirror image have one mean, so scale 1 knows nothing: its logits are equal, its entropy ln 2.
    let (left, right) = (features(&[3.0, 1.0], &[1, 1, 2]), features(&[1.0, 3.0], &[1, 1, 2]));
    let scores = |weight| {
        let mut templates = Templates::default();
        templates.observe(0, 1.0, &left).unwrap();
        templates.observe(1, 1.0, &right).unwrap();
        templates.finish(weight).query(&left).unwrap().scores
    };
    // 3, 2.5, 1.5, 1: squared length 18.5; with its mirror image 13.5.
    let cosine = 13.5 / 18.5;
    let p = 1.0 / (1.0 + f64::exp(cosine - 1.0));
    let h = -p * p.ln() - (1.0 - p) * (1.0 - p).ln();
    let mean = |blind: f64, seeing: f64| (blind * 1.0 + 2.0 * seeing * cosine) / (blind + 2.0 * seeing);
    assert!(all_close(&scores(ScaleWeight::Entropy), &[1.0, mean(2_f64.ln(), h)]));
    assert!(all_close(&scores(ScaleWeight::Confidence), &[1.0, mean(1.0 / 2_f64.ln(), 1.0 / h)]));
}

#[test]
fn entropy_zero_does_not_divide() {
    // Softmax of (0, 10^6) is exactly (1, 0) the one way and (0, 1) the other.
    let mut templates = Templates::new(Normalization::None);
    templates.observe(0, 1.0, &features(&[1e6, 0.0], &[1, 1, 2])).unwrap();
    templates.observe(1, 1.0, &features(&[0.0, 2e6], &[1, 1, 2])).unwrap();
    for weight in [ScaleWeight::Entropy, ScaleWeight::Confidence] {
        let query = templates.clone().finish(weight).query(&features(&[0.0, 1.0], &[1, 1, 2])).unwrap();
        assert_eq!(query.entropies, [0.0; 3]);
        assert!(query.scores.iter().all(|score| score.is_finite()), "{query:?}");
        assert_eq!(query.class(), Some(1));
    }
    // Scales 2 and 4 are sure, scale 1 is not: by confidence only the sure ones count, by entropy only the other.
    let mut mirrored = Templates::new(Normalization::None);
    mirrored.observe(0, 1.0, &features(&[1e4, -1e4], &[1, 1, 2])).unwrap();
    mirrored.observe(1, 1.0, &features(&[-1e4, 1e4], &[1, 1, 2])).unwrap();
    let asked = features(&[0.0, 1.0], &[1, 1, 2]);
    let confident = mirrored.clone().finish(ScaleWeight::Confidence).query(&asked).unwrap();
    assert_eq!(confident.entropies[1..], [0.0; 2]);
    assert!(all_close(&confident.scores, &confident.logits[1]), "{confident:?}");
    let paper = mirrored.finish(ScaleWeight::Entropy).query(&asked).unwrap();
    assert_eq!((paper.scores, confident.class()), (vec![0.0; 2], Some(1)));
}

#[test]
fn channels_last_are_the_same_channels() {
    let (length, channels) = (7, 3);
    let first = values(length * channels, 5);
    let transpose = |values: &[f32]| -> Vec<f32> {
        (0..length * channels).map(|i| values[i % channels * length + i / channels]).collect()
    };
    let other = values(length * channels, 6);
    let pyramid = Pyramid::default();
    let logits = |a: &[f32], b: &[f32], shape: [usize; 3], channels: Channels| {
        let mut templates = Templates::default();
        templates.observe(0, 1.0, &pyramid.features(a, &shape, channels).unwrap()).unwrap();
        templates.finish(ScaleWeight::Entropy).query(&pyramid.features(b, &shape, channels).unwrap()).unwrap().logits
    };
    let a = logits(&first, &other, [1, channels, length], Channels::First);
    let b = logits(&transpose(&first), &transpose(&other), [1, length, channels], Channels::Last);
    assert!(all_close(&a.concat(), &b.concat()), "{a:?} {b:?}");
    assert!(a[1][0] != a[0][0]);
}

#[test]
fn volumes_pool_their_depth() {
    // Depth adds nothing where the volume does not change along it, and everything where it changes only along it.
    let cosines = |a: &Features, b: &Features| {
        let mut templates = Templates::default();
        templates.observe(0, 1.0, a).unwrap();
        templates.finish(ScaleWeight::Entropy).query(b).unwrap().logits.concat()
    };
    let (a, b) = (values(30, 1), values(30, 2));
    let flat = cosines(&features(&a, &[1, 1, 6, 5]), &features(&b, &[1, 1, 6, 5]));
    let deep = |values: &[f32]| features(&values.repeat(5), &[1, 1, 5, 6, 5]);
    assert!(all_close(&flat, &cosines(&deep(&a), &deep(&b))));
    let along = |values: &[f32]| -> Vec<f32> { values.iter().flat_map(|&v| [v; 4]).collect() };
    let line = cosines(&features(&a, &[1, 1, 30]), &features(&b, &[1, 1, 30]));
    let lines = |values: &[f32]| features(&along(values), &[1, 1, 30, 2, 2]);
    assert!(all_close(&line, &cosines(&lines(&a), &lines(&b))));
}

#[test]
fn zero_features_stay_zero() {
    let zero = features(&[0.0; 18], &[1, 2, 3, 3]);
    assert_eq!(zero.norms, [0.0; 3]);
    let other = features(&values(18, 3), &[1, 2, 3, 3]);
    let mut templates = Templates::default();
    templates.observe(4, 0.5, &zero).unwrap();
    let only_zero = templates.clone().finish(ScaleWeight::Entropy).query(&other).unwrap();
    assert_eq!((only_zero.scores, only_zero.entropies), (vec![0.0], vec![0.0; 3]));
    templates.observe(6, 0.5, &other).unwrap();
    for weight in [ScaleWeight::Entropy, ScaleWeight::Confidence] {
        let query = templates.clone().finish(weight).query(&zero).unwrap();
        assert_eq!(query.logits, vec![[0.0; 2]; 3]);
        assert_eq!((query.scores, query.classes[0]), (vec![0.0; 2], 4));
    }
    assert_eq!(templates.finish(ScaleWeight::Entropy).predict(&zero), Ok(Some(4)), "the lower of equals");
}

#[test]
fn classes_without_templates_are_not_predicted() {
    let (asked, shape) = image(1, 1, 1, 8);
    let asked = features(&asked, &shape);
    assert_eq!(Templates::default().finish(ScaleWeight::Confidence).predict(&asked), Ok(None));
    let mut templates = Templates::default();
    templates.observe(1, 0.0, &asked).unwrap();
    assert_eq!(templates.clone().finish(ScaleWeight::Entropy).predict(&asked), Ok(None), "confidence 0");
    templates.observe(3, 0.2, &features(&[-1.0], &shape)).unwrap();
    let query = templates.finish(ScaleWeight::Confidence).query(&asked).unwrap();
    assert_eq!((query.class(), query.entropies), (Some(3), vec![0.0; 3]));
}

#[test]
fn what_does_not_fit_is_declined() {
    let pyramid = Pyramid::default();
    for shape in [&[][..], &[1], &[2, 6], &[1, 3, 5], &[1, 12, 0], &[1, 1, 1, 1, 1, 12], &[12], &[1, usize::MAX, 2]] {
        let error = pyramid.features(&[1.0; 12], shape, Channels::First).unwrap_err();
        assert_eq!(error, ImprintError::Shape { shape: shape.to_vec(), length: 12 });
    }
    assert!(matches!(pyramid.features(&[], &[1, 0], Channels::First), Err(ImprintError::Shape { .. })));
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = pyramid.features(&[1.0, value], &[1, 1, 2], Channels::First);
        assert_eq!(error, Err(ImprintError::NonFinite));
    }
    for scales in [vec![], vec![1, 0], vec![65]] {
        assert_eq!(Pyramid::new(scales.clone()), Err(ImprintError::Scales { scales }));
    }
    assert_eq!(Pyramid::new(vec![4, 2]).unwrap().scales(), [4, 2]);

    let (wide, narrow) = (features(&[1.0; 8], &[1, 2, 4]), features(&[1.0; 6], &[1, 2, 3]));
    let mut templates = Templates::default();
    for confidence in [-0.1, f64::NAN, f64::INFINITY] {
        assert!(matches!(templates.observe(0, confidence, &wide), Err(ImprintError::Confidence { .. })));
    }
    templates.observe(0, 1.0, &wide).unwrap();
    let shapes = |last: usize| vec![vec![2, 1], vec![2, 2], vec![2, last]];
    let mixed = ImprintError::Layout { expected: shapes(4), found: shapes(3) };
    assert_eq!(templates.observe(0, 1.0, &narrow), Err(mixed.clone()));
    let mut other = Templates::default();
    other.observe(0, 1.0, &narrow).unwrap();
    assert_eq!(templates.merge(other), Err(mixed.clone()));
    assert_eq!(templates.merge(Templates::new(Normalization::None)), Err(ImprintError::Merge));
    assert_eq!(templates.finish(ScaleWeight::Entropy).predict(&narrow), Err(mixed));
}

#[test]
fn huge_and_tiny_values_stay_finite() {
    for value in [f32::MAX, f32::MIN_POSITIVE, f32::from_bits(1)] {
        for normalization in [Normalization::L2, Normalization::None] {
            let feature = features(&[value, value], &[1, 1, 2]);
            let mut templates = Templates::new(normalization);
            templates.observe(0, 1.0, &feature).unwrap();
            templates.observe(1, 1.0, &features(&[-value, value], &[1, 1, 2])).unwrap();
            for weight in [ScaleWeight::Entropy, ScaleWeight::Confidence] {
                let query = templates.clone().finish(weight).query(&feature).unwrap();
                assert!(query.scores.iter().chain(&query.entropies).all(|v| v.is_finite()), "{query:?}");
                assert!(query.class() == Some(0), "{query:?}");
            }
        }
    }
}

proptest! {
    #[test]
    fn merged_parts_give_what_the_whole_gives(
        labels in prop::collection::vec(0_usize..4, 0..12),
        cuts in prop::collection::vec(any::<bool>(), 12),
        seed in 0_u32..1000,
    ) {
        let sample = |(i, &class): (usize, &usize)| (class, 0.25 + 0.05 * i as f64, values(12, seed + i as u32));
        let samples: Vec<Sample> = labels.iter().enumerate().map(sample).collect();
        let whole = templates(&samples, &[1, 2, 3, 2], Normalization::L2);
        let merged = |parts: &[&[Sample]]| {
            let mut result = Templates::default();
            for part in parts {
 result.merge(templates(part, &[1, 2, 3, 2], Normalization::L2)).unwrap();
}
            result
        };
        // Samples one by one are the same sums; larger parts the same but for rounding, and always the same bits.
        prop_assert_eq!(&merged(&samples.chunks(1).collect::<Vec<_>>()), &whole);
        let mut cut = cuts.iter();
        let parts: Vec<&[Sample]> = samples.chunk_by(|_, _| *cut.next().unwrap()).collect();
        prop_assert_eq!(merged(&parts), merged(&parts));
        let asked = features(&values(12, seed + 500), &[1, 2, 3, 2]);
        let scores = |templates: Templates| templates.finish(ScaleWeight::Entropy).query(&asked).unwrap();
        let (a, b) = (scores(merged(&parts)), scores(whole));
        prop_assert_eq!(a.classes, b.classes);
        prop_assert!(a.scores.iter().zip(&b.scores).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}

#[test]
fn accuracy_counts_what_is_right() {
    let mut accuracy = Accuracy::default();
    assert_eq!(accuracy.share(), None);
    accuracy.observe(Some(3), 3);
    accuracy.observe(None, 3);
    let mut later = Accuracy::default();
    later.observe(Some(1), 3);
    later.observe(Some(0), 0);
    accuracy.merge(later);
    assert_eq!((accuracy.share(), accuracy.samples()), (Some(0.5), 4));
}
