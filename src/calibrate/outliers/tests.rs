use super::*;
use crate::calibrate::smooth::Reader;
use crate::quant::{GridKind, GridSpec};

const CHANNELS: usize = 24;

/// Numbers spread evenly over −1 to 1.
fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    (0..count).map(next).collect()
}

fn site() -> Site {
    let grid = GridSpec::new(GridKind::Unsigned, 8).unwrap();
    let reader = Reader { rows: random(CHANNELS * 8, 3), columns: 8, most: Some(127.0) };
    Site { name: "x".to_owned(), channels: CHANNELS, grid, readers: vec![reader] }
}

/// Samples of 16 rows; `spread` says how much larger an element is, by row and channel.
fn observed(samples: usize, spread: impl Fn(usize, usize) -> f32) -> Rows {
    let mut rows = Rows::default();
    for sample in 0..samples {
        let place = |at: usize| (sample * 16 + at / CHANNELS, at % CHANNELS);
        let values: Vec<f32> = random(16 * CHANNELS, sample as u64 + 7)
            .iter()
            .enumerate()
            .map(|(at, x)| x * spread(place(at).0, place(at).1))
            .collect();
        rows.observe(&values.chunks_exact(CHANNELS).collect::<Vec<_>>(), 8);
    }
    rows
}

/// Two channels are far larger than the others, in every eleventh row: they are split, and the others fill the range.
#[test]
fn outliers_are_found() {
    let rows = observed(40, |row, channel| if [5, 17].contains(&channel) && row % 11 == 0 { 80.0 } else { 1.0 });
    let found = best(&site(), &rows).unwrap();
    assert_eq!(found.channels, [5, 17]);
    assert!(found.range.absolute_maximum() <= 1.0 && found.range.absolute_maximum() > 0.9, "{:?}", found.range);
}

#[test]
fn even_channels_stay_together() {
    assert_eq!(best(&site(), &observed(40, |_, _| 1.0)), None);
}

/// Large values in another channel of each half: what is found on one would clip the other.
#[test]
fn what_one_half_alone_shows_is_not_split() {
    let large = |row: usize| if row < 20 * 16 { 3 } else { 9 };
    let rows = observed(40, |row, channel| if row % 11 == 0 && channel == large(row) { 80.0 } else { 1.0 });
    assert_eq!(best(&site(), &rows), None);
}

#[test]
fn nothing_is_found_in_what_is_no_number() {
    assert_eq!(best(&site(), &Rows::default()), None);
    assert_eq!(best(&site(), &observed(4, |_, _| 0.0)), None);
    assert_eq!(best(&site(), &observed(4, |_, _| f32::NAN)), None);
}

/// Of five rows three are kept: the one with the largest value for itself, two for the other four.
#[test]
fn rows_count_for_all() {
    let mut rows = Rows::default();
    rows.observe(&[&[1.0, 0.5], &[2.0, -1.0], &[0.0, -9.0], &[3.0, 0.0], &[4.0, 0.0]], 3);
    assert_eq!(rows.values, [0.0, -9.0, 4.0, 0.0, 2.0, -1.0]);
    assert_eq!(rows.counts, [1.0, 2.0, 2.0]);
    let mut later = Rows::default();
    later.observe(&[&[-1.0, 7.0]], 3);
    rows.append(later);
    assert_eq!(rows.reach, [Range::new(-1.0, 4.0), Range::new(-9.0, 7.0)]);
    assert_eq!(rows.counts, [1.0, 2.0, 2.0, 1.0]);
    assert_eq!(rows.without(1), (vec![1], Range::new(-1.0, 4.0)));
    let [first, second] = rows.split_at(3);
    assert_eq!((first.values.len(), first.reach[1]), (6, Range::new(-9.0, 0.0)));
    assert_eq!(second.reach, [Range::new(-1.0, 0.0), Range::new(0.0, 7.0)]);
}

/// The error of channels that are split is that of rounding within the range alone.
#[test]
fn what_is_clipped_of_split_channels_is_no_error() {
    let mut rows = Rows::default();
    rows.observe(&[&[300.0, 10.0]], 1);
    let grid = GridSpec::new(GridKind::Unsigned, 8).unwrap().affine(Range::new(0.0, 255.0));
    assert_eq!(error(&rows, &[2.0, 1.0], grid, &[]), 2.0 * 45.0 * 45.0);
    assert_eq!(error(&rows, &[2.0, 1.0], grid, &[0]), 0.0);
}
