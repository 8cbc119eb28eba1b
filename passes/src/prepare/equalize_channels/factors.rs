//! Powers of two that bring the two ranges of every channel together.
//!
//! With ρ = log₂(r1/r2) the factor is s = 2^e, e the integer next to ρ/2. Of two equally near the one next to zero is
//! taken: ρ = ±1 would otherwise turn into ∓1 and back for ever. So e ≠ 0 only for |ρ| > 1, the larger of the two ranges
//! falls, and the smaller one stays below what the larger was. Sorted from the largest down, the weights therefore fall
//! in alphabetical order with every step, which rules out cycles over any number of layers.

use super::pairs::{Pair, Weight};
use crate::ir::ValueId;
use indexmap::IndexMap;
use std::ops::RangeInclusive;

/// Turns over all pairs at most. What is left undone by then keeps its function all the same.
const ROUNDS: usize = 20;

/// Ranges that are scaled, 2⁻⁹⁶ to 2⁹⁶: the factors and what they make stay finite.
const RANGES: RangeInclusive<f32> = f32::from_bits((127 - 96) << 23)..=f32::from_bits((127 + 96) << 23);

/// A channel whose weights are all below this part of its bias is a constant: its weights have nothing to gain, and the
/// factor would make it by far the largest number of its tensor.
const CONSTANT: f32 = 1.0 / 4096.0;

/// Scales the constants of the pairs in turns. Says for each pair whether any channel was scaled.
pub(super) fn equalize(pairs: &[Pair], elements: &mut IndexMap<ValueId, Vec<f32>>) -> Vec<bool> {
    let mut totals: Vec<Vec<i32>> = pairs.iter().map(|pair| vec![0; pair.first.channels.total]).collect();
    for _ in 0..ROUNDS {
        let mut moved = false;
        for (pair, totals) in pairs.iter().zip(&mut totals) {
            let exponents = exponents(pair, elements);
            if exponents.iter().all(|&e| e == 0) {
                continue;
            }
            moved = true;
            totals.iter_mut().zip(&exponents).for_each(|(total, e)| *total += e);
            apply(pair, &exponents, elements);
        }
        if !moved {
            break;
        }
    }
    totals.iter().map(|totals| totals.iter().any(|&total| total != 0)).collect()
}

/// The exponent of each channel's factor.
fn exponents(pair: &Pair, elements: &IndexMap<ValueId, Vec<f32>>) -> Vec<i32> {
    let ranges = |weight: &Weight| {
        let mut ranges = vec![0.0_f32; weight.channels.total];
        for (i, w) in elements[&weight.value].iter().enumerate() {
            let range = &mut ranges[weight.channels.of(i)];
            *range = range.max(w.abs());
        }
        ranges
    };
    let bias = |channel: usize| pair.bias.map_or(0.0, |bias| elements[&bias][channel].abs());
    let both = ranges(&pair.first).into_iter().zip(ranges(&pair.second));
    both.enumerate().map(|(channel, (first, second))| exponent(first, bias(channel), second)).collect()
}

fn exponent(first: f32, bias: f32, second: f32) -> i32 {
    if !RANGES.contains(&first) || !RANGES.contains(&second) || first < CONSTANT * bias {
        return 0;
    }
    let half = (f64::from(first) / f64::from(second)).log2() / 2.0;
    (half.abs() - 0.5).ceil().copysign(half) as i32
}

/// Divides the outputs of the layer in front and multiplies the inputs of the one behind.
fn apply(pair: &Pair, exponents: &[i32], elements: &mut IndexMap<ValueId, Vec<f32>>) {
    let factors: Vec<f64> = exponents.iter().map(|&e| f64::from(e).exp2()).collect();
    let mut scale = |value: ValueId, factor: &dyn Fn(usize) -> f64| {
        for (i, element) in elements.get_mut(&value).into_iter().flatten().enumerate() {
            *element = (f64::from(*element) * factor(i)) as f32;
        }
    };
    scale(pair.first.value, &|i| factors[pair.first.channels.of(i)].recip());
    scale(pair.second.value, &|i| factors[pair.second.channels.of(i)]);
    if let Some(bias) = pair.bias {
        scale(bias, &|channel| factors[channel].recip());
    }
}

#[cfg(test)]
mod tests {
    use super::super::pairs::Channels;
    use super::*;
    use crate::ir::{import, text};

    const INPUTS: usize = 24;
    const HIDDEN: usize = 32;
    const OUTPUTS: usize = 16;

    /// Numbers spread evenly over −1 to 1.
    fn random(seed: u64) -> impl FnMut() -> f32 {
        let mut state = seed;
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / 8_388_608.0 - 1.0
        }
    }

    /// A `[HIDDEN, INPUTS]` and a `[OUTPUTS, HIDDEN]` matrix whose channels differ by up to 2^±5, and the pair of them.
    fn badly_scaled(seed: u64) -> (Pair, IndexMap<ValueId, Vec<f32>>) {
        let text = "<ir_version: 8, opset_import: [\"\": 17]>\n\
            g (float[1,24] x) => (float[1,16] y)\n\
            <float[32,24] a = {}, float[32] c = {}, float[16,32] b = {}>\n\
            { h = Gemm<transB = 1>(x, a, c)\n y = Gemm<transB = 1>(h, b) }";
        let graph = import(text::parse(text).unwrap()).unwrap().graph;
        let [a, c, b] = ["a", "c", "b"].map(|name| graph.find(name).unwrap());
        let mut next = random(seed);
        let scales: Vec<f32> = (0..HIDDEN).map(|_| (5.0 * next()).exp2()).collect();
        let first = (0..HIDDEN * INPUTS).map(|i| next() * scales[i / INPUTS]).collect();
        let bias = scales.iter().map(|s| next() * s).collect();
        let second = (0..OUTPUTS * HIDDEN).map(|i| next() / scales[i % HIDDEN]).collect();
        let pair = Pair {
            first: Weight {
                value: a,
                channels: Channels { inner: INPUTS, count: HIDDEN, block: HIDDEN * INPUTS, total: HIDDEN },
            },
            bias: Some(c),
            second: Weight {
                value: b,
                channels: Channels { inner: 1, count: HIDDEN, block: HIDDEN * OUTPUTS, total: HIDDEN },
            },
            between: Vec::new(),
        };
        (pair, [(a, first), (c, bias), (b, second)].into_iter().collect())
    }

    /// relu(A·x + c), then B.
    fn outputs([first, bias, second]: [&[f32]; 3], x: &[f32]) -> Vec<f32> {
        let product = |row: &[f32], x: &[f32]| row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>();
        let hidden: Vec<f32> =
            first.chunks(INPUTS).zip(bias).map(|(row, bias)| (product(row, x) + bias).max(0.0)).collect();
        second.chunks(HIDDEN).map(|row| product(row, &hidden)).collect()
    }

    /// Rounded to int8 with one scale.
    fn rounded(weights: &[f32]) -> Vec<f32> {
        let scale = weights.iter().fold(0.0_f32, |most, w| most.max(w.abs())) / 127.0;
        weights.iter().map(|w| (w / scale).round() * scale).collect()
    }

    /// Signal-to-noise ratio in decibels of the outputs with rounded weights.
    fn decibels(elements: &IndexMap<ValueId, Vec<f32>>) -> f64 {
        let [a, c, b] = [0, 1, 2].map(|i| &elements[i][..]);
        let (a8, b8) = (rounded(a), rounded(b));
        let mut next = random(99);
        let (mut signal, mut noise) = (0.0, 0.0);
        for _ in 0..64 {
            let x: Vec<f32> = (0..INPUTS).map(|_| next()).collect();
            for (wanted, found) in outputs([a, c, b], &x).into_iter().zip(outputs([&a8, c, &b8], &x)) {
                signal += f64::from(wanted).powi(2);
                noise += f64::from(wanted - found).powi(2);
            }
        }
        10.0 * (signal / noise).log10()
    }

    /// Equalizes with √(r1/r2) itself for factors.
    fn exactly_equal(elements: &IndexMap<ValueId, Vec<f32>>) -> IndexMap<ValueId, Vec<f32>> {
        let most = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0_f32, |most, w| most.max(w.abs()));
        let mut equal = elements.clone();
        for channel in 0..HIDDEN {
            let row = &elements[0][channel * INPUTS..][..INPUTS];
            let column = elements[2].iter().skip(channel).step_by(HIDDEN);
            let factor = (most(&mut row.iter().copied()) / most(&mut column.copied())).sqrt();
            equal[0][channel * INPUTS..][..INPUTS].iter_mut().for_each(|w| *w /= factor);
            equal[1][channel] /= factor;
            equal[2].iter_mut().skip(channel).step_by(HIDDEN).for_each(|w| *w *= factor);
        }
        equal
    }

    #[test]
    fn powers_of_two_are_as_good_as_exact_factors() {
        for seed in 0..8 {
            let (pair, before) = badly_scaled(seed);
            let mut after = before.clone();
            assert_eq!(equalize(&[pair], &mut after), [true]);
            let [plain, equal, exact] = [&before, &after, &exactly_equal(&before)].map(decibels);
            assert!(equal > plain + 35.0, "{plain:.1} dB became {equal:.1}");
            // Ranges, and with them steps, end at most √2 above the equal ones, which doubles the noise: 3 dB, and a
            // bit for chance.
            assert!(equal > exact - 4.0, "{exact:.1} dB with exact factors, {equal:.1} with powers of two");
        }
    }

    #[test]
    fn ranges_end_within_a_factor_of_two_and_outputs_stay_bit_for_bit() {
        let (pair, before) = badly_scaled(3);
        let mut after = before.clone();
        equalize(&[pair], &mut after);
        for channel in 0..HIDDEN {
            let first = after[0][channel * INPUTS..][..INPUTS].iter().fold(0.0_f32, |most, w| most.max(w.abs()));
            let column = after[2].iter().skip(channel).step_by(HIDDEN);
            let ratio = first / column.fold(0.0_f32, |most, w| most.max(w.abs()));
            assert!((0.5..=2.0).contains(&ratio), "{ratio}");
        }
        let mut next = random(7);
        let x: Vec<f32> = (0..INPUTS).map(|_| next()).collect();
        let of = |elements: &IndexMap<ValueId, Vec<f32>>| outputs([0, 1, 2].map(|i| &elements[i][..]), &x);
        assert_eq!(of(&before), of(&after));
    }

    #[test]
    fn exponents() {
        // ρ/2 = 2; 1.16, to the nearest; a half, towards zero, on either side; just above.
        assert_eq!(exponent(16.0, 0.0, 1.0), 2);
        assert_eq!(exponent(5.0, 0.0, 1.0), 1);
        assert_eq!(exponent(2.0, 0.0, 1.0), 0);
        assert_eq!(exponent(1.0, 0.0, 2.0), 0);
        assert_eq!(exponent(1.0, 0.0, 2.01), -1);
        assert_eq!(exponent(8.0, 0.0, 1.0), 1);
        // Nothing to scale, or a constant beside its bias.
        assert_eq!(exponent(0.0, 0.0, 1.0), 0);
        assert_eq!(exponent(1.0, 0.0, 0.0), 0);
        assert_eq!(exponent(f32::INFINITY, 0.0, 1.0), 0);
        assert_eq!(exponent(f32::NAN, 0.0, 1.0), 0);
        assert_eq!(exponent(1e-6, 1.0, 1.0), 0);
        assert_eq!(exponent(1e-6, 1e-3, 1.0), -10);
    }

    #[test]
    fn bounds_are_the_powers_they_say() {
        assert_eq!((*RANGES.start(), *RANGES.end()), (2.0_f32.powi(-96), 2.0_f32.powi(96)));
    }
}
