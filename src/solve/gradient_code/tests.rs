#![allow(clippy::unwrap_used)]

use super::*;

const CODES: [GradientCode; 10] = [
    GradientCode::Float,
    GradientCode::OneBit,
    GradientCode::Threshold(1.5),
    GradientCode::Qsgd(1),
    GradientCode::Qsgd(4),
    GradientCode::Qsgd(8),
    GradientCode::TernGrad,
    GradientCode::DoReFa(1),
    GradientCode::DoReFa(2),
    GradientCode::DoReFa(8),
];

fn random() -> Random {
    Random::new(5, 0, 0)
}

fn normal(len: usize, index: u64) -> Vec<f32> {
    let mut random = Random::new(1, 1, index);
    (0..len).map(|_| 0.01 * random.normal()).collect()
}

/// Encodes once, and decodes all of the bytes.
#[track_caller]
fn coded(encoder: &mut Encoder, values: &[f32], random: &mut Random) -> (Vec<u8>, Vec<f32>) {
    let mut bytes = Vec::new();
    encoder.encode(values, random, &mut bytes);
    let mut rest = &bytes[..];
    let decoded = decode(encoder.code, values.len(), &mut rest).unwrap();
    assert!(rest.is_empty() && decoded.len() == values.len(), "{}", encoder.code);
    (bytes, decoded)
}

fn once(code: GradientCode, values: &[f32]) -> (Vec<u8>, Vec<f32>) {
    coded(&mut Encoder::new(code, values.len()), values, &mut random())
}

#[test]
fn floats_are_exact() {
    let values = [0.0, -0.0, 1.5, f32::MIN_POSITIVE, -f32::MAX, f32::INFINITY];
    let (bytes, decoded) = once(GradientCode::Float, &values);
    assert_eq!(bytes.len(), 24);
    assert!(values.iter().zip(&decoded).all(|(value, decoded)| value.to_bits() == decoded.to_bits()));
}

/// A bucket of 512 and one of 488 values.
#[test]
fn values_are_packed() {
    let values = normal(1_000, 0);
    for (code, wanted) in [
        (GradientCode::Float, 4 * 1_000),
        (GradientCode::OneBit, 2 * 8 + 64 + 61),
        (GradientCode::Qsgd(1), 2 * 4 + 128 + 122),
        (GradientCode::Qsgd(4), 2 * 4 + 320 + 305),
        (GradientCode::TernGrad, 2 * 4 + 103 + 98),
        (GradientCode::DoReFa(1), 2 * 4 + 64 + 61),
        (GradientCode::DoReFa(3), 2 * 4 + 192 + 183),
    ] {
        assert_eq!(once(code, &values).0.len(), wanted, "{code}");
    }
    // One value in 22 is beyond two standard deviations: a byte each, two where 64 or more before it are not sent.
    let (bytes, decoded) = once(GradientCode::Threshold(2.0), &values);
    let sent = decoded.iter().filter(|value| **value != 0.0).count();
    assert!((30..60).contains(&sent), "{sent}");
    assert!((5 + sent..15 + sent).contains(&bytes.len()), "{} {sent}", bytes.len());
}

#[test]
fn numbers_of_any_width_are_read_back() {
    let mut random = random();
    for width in 1..=16 {
        let numbers: Vec<u32> = (0..37).map(|_| random.below(1 << width) as u32).collect();
        let mut bytes = Vec::new();
        bits::pack(numbers.iter().copied(), width, &mut bytes);
        assert_eq!(bytes.len(), (37 * width as usize).div_ceil(8));
        assert_eq!(bits::unpack(&mut &bytes[..], width, 37), Some(numbers));
    }
    for number in [0, 127, 128, 16_384, usize::MAX] {
        let mut bytes = Vec::new();
        bits::put_number(number, &mut bytes);
        assert_eq!(bits::take_number(&mut &bytes[..]), Some(number));
    }
}

#[test]
fn one_value_none_and_zeros() {
    for code in CODES {
        assert!(once(code, &[]).1.is_empty(), "{code}");
        assert!(once(code, &[0.0; 600]).1.iter().all(|value| *value == 0.0), "{code}");
        for value in [0.25, -0.25] {
            let decoded = once(code, &[value]).1[0];
            match code {
                // Beyond 1.5 times itself nothing is.
                GradientCode::Threshold(_) => assert_eq!(decoded, 0.0),
                _ => assert_eq!(decoded, value, "{code}"),
            }
        }
    }
}

/// Values that are none, or infinite, are nothing to stop at.
#[test]
fn broken_gradients_are_encoded() {
    let mut values = normal(600, 0);
    (values[3], values[70], values[550]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
    for code in CODES {
        let mut encoder = Encoder::new(code, values.len());
        for _ in 0..3 {
            coded(&mut encoder, &values, &mut random());
        }
    }
}

#[test]
fn bytes_that_end_early_are_no_code() {
    let values = normal(600, 0);
    for code in CODES {
        let (bytes, _) = once(code, &values);
        assert_eq!(decode(code, values.len(), &mut &bytes[..bytes.len() - 1]), None, "{code}");
        assert_eq!(decode(code, values.len(), &mut &[][..]), None, "{code}");
    }
    // An index behind the last value.
    let mut bytes = 1.0_f32.to_le_bytes().to_vec();
    bytes.extend([1, 2 * 7]);
    assert_eq!(decode(GradientCode::Threshold(1.0), 7, &mut &bytes[..]), None);
}

/// The mean over many draws is the gradient, within five standard errors of each value; and they are draws.
#[test]
fn random_codes_have_the_gradient_as_their_mean() {
    let (values, draws) = (normal(96, 0), 3_000);
    let codes = [
        GradientCode::Qsgd(1),
        GradientCode::Qsgd(4),
        GradientCode::TernGrad,
        GradientCode::DoReFa(1),
        GradientCode::DoReFa(4),
    ];
    for code in codes {
        let mut random = random();
        let mut sums = vec![[0.0_f64; 2]; values.len()];
        for _ in 0..draws {
            let (_, decoded) = coded(&mut Encoder::new(code, values.len()), &values, &mut random);
            for (sum, value) in sums.iter_mut().zip(decoded) {
                sum[0] += f64::from(value);
                sum[1] += f64::from(value).powi(2);
            }
        }
        let mut spread = 0.0;
        for ([sum, squares], &value) in sums.into_iter().zip(&values) {
            let mean = sum / f64::from(draws);
            let variance = (squares / f64::from(draws) - mean * mean).max(0.0);
            spread += variance;
            let error = 5.0 * (variance / f64::from(draws)).sqrt() + 1e-6;
            assert!((mean - f64::from(value)).abs() < error, "{code}: {mean} {value} {error}");
        }
        assert!(spread > 1e-6, "{code} draws nothing");
    }
}

/// The variance of QSGD is within the bound of its lemma 3.1.
#[test]
fn more_bits_vary_less() {
    let values = normal(BUCKET, 0);
    let squares = |values: &[f32]| values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>();
    let variance = |code: GradientCode| {
        let mut random = random();
        let one = |_| {
            let (_, decoded) = coded(&mut Encoder::new(code, BUCKET), &values, &mut random);
            squares(&decoded.iter().zip(&values).map(|(decoded, value)| decoded - value).collect::<Vec<_>>())
        };
        (0..50).map(one).sum::<f64>() / 50.0 / squares(&values)
    };
    let n = BUCKET as f64;
    let mut last = f64::INFINITY;
    for bits in [1, 2, 4, 6, 8] {
        let (found, s) = (variance(GradientCode::Qsgd(bits)), f64::from((1_u32 << bits) - 1));
        assert!(found < last && found < (n / (s * s)).min(n.sqrt() / s), "{bits}: {found}");
        last = found;
    }
    assert!(variance(GradientCode::DoReFa(8)) < variance(GradientCode::DoReFa(4)));
    assert!(variance(GradientCode::DoReFa(4)) < variance(GradientCode::TernGrad));
}

/// Over many steps nothing is lost: what was decoded and what is kept add up to the gradients.
#[test]
fn error_feedback_loses_nothing() {
    for code in [GradientCode::OneBit, GradientCode::Threshold(2.0)] {
        let len = 700;
        let (mut encoder, mut random) = (Encoder::new(code, len), random());
        let mut totals = vec![[0.0_f64; 2]; len];
        let mut largest = 0.0_f32;
        for step in 0..200 {
            let values: Vec<f32> = normal(len, step).iter().map(|value| value + 0.003).collect();
            let (_, decoded) = coded(&mut encoder, &values, &mut random);
            for (total, (value, decoded)) in totals.iter_mut().zip(values.iter().zip(decoded)) {
                total[0] += f64::from(*value);
                total[1] += f64::from(decoded);
            }
            largest = encoder.residual.iter().fold(largest, |largest, error| largest.max(error.abs()));
        }
        for ([given, sent], error) in totals.into_iter().zip(&encoder.residual) {
            assert!((given - sent - f64::from(*error)).abs() < 1e-4, "{code}: {given} {sent} {error}");
        }
        // What is kept does not grow with the steps: the mean of each gradient's 200 steps is 0.6.
        assert!(largest < 0.2, "{code}: {largest}");
    }
}

#[test]
fn a_seed_gives_the_same_bytes() {
    let values = normal(600, 0);
    for code in CODES {
        assert_eq!(once(code, &values), once(code, &values), "{code}");
    }
}
