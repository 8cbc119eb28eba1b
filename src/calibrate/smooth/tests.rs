use super::*;
use crate::data::random::Random;
use crate::quant::GridKind;

fn site(rows: Vec<f32>, channels: usize) -> Site {
    let columns = rows.len() / channels;
    let grid = GridSpec::new(GridKind::Unsigned, 8).unwrap();
    Site { name: "x".to_owned(), channels, grid, readers: vec![Reader { rows, columns, most: Some(127.0) }] }
}

/// Numbers spread evenly over −1 to 1.
fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    (0..count).map(next).collect()
}

fn observed(values: &[f32], channels: usize) -> Rows {
    let mut rows = Rows::default();
    rows.observe(&values.chunks_exact(channels).collect::<Vec<_>>(), ROWS);
    rows
}

/// ‖X·W − Q(X/S)·Q(S·W)‖² itself, with ranges from end to end.
fn true_error(site: &Site, rows: &Rows, factors: &[f32]) -> f64 {
    let divided: Vec<f32> = rows.values.iter().zip(factors.iter().cycle()).map(|(x, s)| x / s).collect();
    let range = divided.iter().fold(Range::default(), |r, &x| Range::new(r.min.min(x), r.max.max(x)));
    let grid = site.grid.affine(range);
    let (reader, channels) = (&site.readers[0], site.channels);
    let column = |at: usize| -> (Vec<f32>, Vec<f32>) {
        let own: Vec<f32> = (0..channels).map(|j| reader.rows[j * reader.columns + at]).collect();
        let scaled: Vec<f32> = own.iter().zip(factors).map(|(w, s)| w * s).collect();
        let step = scaled.iter().fold(0.0_f32, |most, w| most.max(w.abs())) / 127.0;
        (own, scaled.iter().map(|w| (w / step).round() * step).collect())
    };
    let product = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f32>();
    let mut total = 0.0;
    for (own, rounded) in (0..reader.columns).map(column) {
        for (x, divided) in rows.values.chunks(channels).zip(divided.chunks(channels)) {
            let quantized: Vec<f32> = divided.iter().map(|&x| grid.fake_quantize(x)).collect();
            total += f64::from(product(x, &own) - product(&quantized, &rounded)).powi(2);
        }
    }
    total
}

/// One channel is 50 times larger than the others: the factors take more than nine tenths of the true error away.
#[test]
fn an_outlier_is_smoothed() {
    for seed in 1..4 {
        let channels = 24;
        let site = site(random(channels * 32, seed), channels);
        let spread = |(at, x): (usize, &f32)| x * if at % channels == 5 { 50.0 } else { 1.0 };
        let values: Vec<f32> = random(channels * 256, seed + 9).iter().enumerate().map(spread).collect();
        let rows = observed(&values, channels);
        let factors = site.best(&rows).unwrap();
        let mean = factors.iter().map(|factor| factor.ln()).sum::<f32>();
        assert!(mean.abs() < 1e-3 && factors[5] > 4.0 * factors[6], "{factors:?}");
        let (before, after) = (true_error(&site, &rows, &vec![1.0; channels]), true_error(&site, &rows, &factors));
        assert!(after < 0.1 * before, "{before} {after}");
    }
}

/// Products of two normal numbers beside small numbers: with few rows every channel's largest value is soon surpassed, and
/// factors that lose little on these rows lose more than none on others.
#[test]
fn factors_that_fit_few_rows_alone_are_not_used() {
    let channels = 48;
    let large = |channel: usize| channel < 32;
    let weights = random(channels, 5).iter().enumerate().map(|(at, w)| if large(at) { *w } else { 5.0 * w }).collect();
    let site = site(weights, channels);
    let normal = |seed| -> Vec<f32> {
        let mut random = Random::new(seed, 0, 0);
        (0..channels * 64).map(|_| random.normal()).collect()
    };
    for seed in 1..5 {
        let pairs = normal(seed).into_iter().zip(normal(seed + 10)).enumerate();
        let value = |(at, (a, b)): (usize, (f32, f32))| if large(at % channels) { a * b } else { 0.1 * a };
        let values: Vec<f32> = pairs.map(value).collect();
        assert_eq!(site.best(&observed(&values, channels)), None, "{seed}");
    }
}

/// The estimate is the error itself, but for what errors have to do with each other.
#[test]
fn the_estimate_is_near_the_error() {
    let channels = 32;
    let site = site(random(channels * 48, 3), channels);
    let rows = observed(&random(channels * 200, 4), channels);
    let objective = Objective::new(&site, rows.values.clone()).unwrap();
    for factors in [vec![1.0; channels], (0..channels).map(|j| 1.0 + (j % 4) as f32).collect()] {
        let found = objective.error(&factors) / objective.shares[0];
        let wanted = true_error(&site, &rows, &factors);
        assert!((found / wanted - 1.0).abs() < 0.15, "{found} {wanted}");
    }
}

#[test]
fn like_channels_and_no_channels_stay() {
    let site = site(random(16 * 16, 1), 16);
    assert_eq!(site.best(&observed(&random(16 * 64, 2), 16)), None);
    assert_eq!(site.best(&Rows::default()), None);
    assert_eq!(site.best(&observed(&[0.0; 64], 16)), None);
    assert_eq!(site.best(&observed(&[f32::NAN; 64], 16)), None);
}

#[test]
fn rows_that_count_and_parts_that_merge() {
    let mut rows = Rows::default();
    rows.observe(&[&[1.0, -2.0], &[3.0, 0.5]], 1);
    assert_eq!((rows.most.clone(), rows.values.clone()), (vec![3.0, 2.0], vec![1.0, -2.0]));
    let mut total = Rows::default();
    total.append(rows);
    total.append(observed(&[0.0, 7.0], 2));
    assert_eq!((total.most, total.values), (vec![3.0, 7.0], vec![1.0, -2.0, 0.0, 7.0]));
}
