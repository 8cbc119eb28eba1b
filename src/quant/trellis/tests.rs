use super::*;
use msq_passes::{TrellisCode, TrellisRate};
use proptest::prelude::*;

fn codes() -> Vec<TrellisCode> {
    (0..=32).filter_map(TrellisRate::of_quarters).map(TrellisCode::new).collect()
}

/// Numbers of a normal distribution, 36 to a standard deviation, as sums of twelve uniform ones.
fn column(length: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 24) as f32
    };
    (0..length).map(|_| 36.0 * ((0..12).map(|_| uniform()).sum::<f32>() - 6.0)).collect()
}

fn encode(encoder: &mut Encoder, targets: &[f32], importance: &[f32]) -> Vec<i8> {
    let windows = encoder.encode(targets, importance).to_vec();
    windows.into_iter().map(|window| encoder.integer(window)).collect()
}

fn error(integers: &[i8], targets: &[f32], importance: &[f32]) -> f64 {
    let terms = integers.iter().zip(targets).zip(importance);
    terms.map(|((&q, &y), &weight)| f64::from(weight) * (f64::from(y) - f64::from(q)).powi(2)).sum()
}

/// The least error of any string, all of them tried.
fn brute(code: &TrellisCode, targets: &[f32], importance: &[f32]) -> f64 {
    let bytes = code.rate().bytes(targets.len());
    let strings = (0..1_u32 << (8 * bytes)).map(|string| string.to_le_bytes()[..bytes].to_vec());
    strings.map(|s| error(&code.unpack(&s, targets.len()), targets, importance)).fold(f64::INFINITY, f64::min)
}

#[test]
fn short_columns_are_encoded_as_well_as_possible() {
    let mut count = 0;
    for code in codes() {
        for length in (1..=16).filter(|&n| code.rate().bytes(n) <= 2) {
            // Trying two bytes takes long: not for every length.
            if code.rate().bytes(length) == 2 && length % 3 != 0 {
                continue;
            }
            for seed in 0..if code.rate().bytes(length) == 1 { 10 } else { 2 } {
                let targets = column(length, seed);
                let importance: Vec<f32> = (0..length).map(|i| 0.25 + (i % 3) as f32).collect();
                let integers = encode(&mut Encoder::new(code, length), &targets, &importance);
                assert!(code.pack(&integers).is_some(), "{:?} {length}", code.rate());
                let (one, best) = (error(&integers, &targets, &importance), brute(&code, &targets, &importance));
                assert!((one - best).abs() <= best * 1e-5, "{:?} {length}: {one} for {best}", code.rate());
                count += 1;
            }
        }
    }
    assert!(count > 300, "{count}");
}

/// The figures of the literature for 8-bit windows and long columns: .31, .16, .088, .025 and less.
#[test]
fn errors_of_long_columns_are_near_the_bound() {
    let expected = [
        (4, 0.32),
        (5, 0.235),
        (6, 0.175),
        (7, 0.128),
        (8, 0.092),
        (9, 0.069),
        (10, 0.051),
        (12, 0.0265),
        (16, 0.0078),
    ];
    for (quarters, most) in expected {
        let code = TrellisCode::new(TrellisRate::of_quarters(quarters).unwrap());
        for length in [64, 255] {
            let (mut noise, mut signal) = (0.0, 0.0);
            for seed in 100..112 {
                let (targets, importance) = (column(length, seed), vec![1.0; length]);
                let integers = encode(&mut Encoder::new(code, length), &targets, &importance);
                noise += error(&integers, &targets, &importance);
                signal += error(&vec![0; length], &targets, &importance);
            }
            assert!(noise / signal < most, "{quarters} {length}: {}", noise / signal);
        }
    }
}

#[test]
fn an_encoder_remembers_nothing_of_other_columns() {
    for code in codes() {
        let mut encoder = Encoder::new(code, 20);
        let importance = vec![1.0; 20];
        let once = encode(&mut encoder, &column(20, 5), &importance);
        encode(&mut encoder, &column(20, 6), &importance);
        assert_eq!(encode(&mut encoder, &column(20, 5), &importance), once);
    }
}

#[test]
fn improving_makes_no_column_worse() {
    let cost = |encoder: &Encoder, windows: &[u8], targets: &[f32], importance: &[f32]| {
        let integers: Vec<i8> = windows.iter().map(|&window| encoder.integer(window)).collect();
        error(&integers, targets, importance)
    };
    for code in codes() {
        for length in [1, 9, 47, 200] {
            let mut encoder = Encoder::new(code, length);
            let importance: Vec<f32> = column(length, 3).into_iter().map(f32::abs).collect();
            let mut windows = encoder.encode(&column(length, 1), &importance).to_vec();
            let targets = column(length, 2);
            let mut before = cost(&encoder, &windows, &targets, &importance);
            let first = before;
            for start in [length / 2, 0, length / 2] {
                windows = encoder.improve(&windows, start, &targets, &importance).to_vec();
                let integers: Vec<i8> = windows.iter().map(|&window| encoder.integer(window)).collect();
                assert!(code.pack(&integers).is_some(), "{:?} {length}", code.rate());
                let after = cost(&encoder, &windows, &targets, &importance);
                assert!(after <= before * (1.0 + 1e-5), "{:?} {length}: {after} after {before}", code.rate());
                before = after;
            }
            let best = encode(&mut encoder, &targets, &importance);
            let best = error(&best, &targets, &importance);
            // Of few elements the seam, which stays, says much.
            assert!(length < 40 || before <= best * 1.1, "{:?} {length}: {before} for {best}", code.rate());
            assert!(length < 40 || before < first * 0.5, "{:?} {length}: {before} from {first}", code.rate());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever the targets, integers are packed and come back, and what a code can say exactly is found or beaten by none.
    #[test]
    fn integers_are_of_the_code(which in 0_usize..9, length in 1_usize..40, seed in 0_u64..1000, factor in 0.01_f32..40.0) {
        let code = codes()[which];
        let targets: Vec<f32> = column(length, seed).into_iter().map(|y| y * factor).collect();
        let importance: Vec<f32> = column(length, seed + 1).into_iter().map(f32::abs).collect();
        let integers = encode(&mut Encoder::new(code, length), &targets, &importance);
        let string = code.pack(&integers).unwrap();
        prop_assert_eq!(code.unpack(&string, length), integers);
    }

    /// Strings of the code are found again where the search has their seam, which it mostly has.
    #[test]
    fn exact_columns_cost_little(which in 0_usize..9, length in 24_usize..60, seed in 0_u64..1000) {
        let code = codes()[which];
        let bytes = code.rate().bytes(length);
        let string: Vec<u8> = column(bytes, seed).into_iter().map(|y| y as i32 as u8).collect();
        let targets: Vec<f32> = code.unpack(&string, length).into_iter().map(f32::from).collect();
        let importance = vec![1.0; length];
        let integers = encode(&mut Encoder::new(code, length), &targets, &importance);
        prop_assert_eq!(error(&integers, &targets, &importance), 0.0);
    }
}
