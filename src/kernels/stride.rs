//! Which of many positions are looked at, when not all are.
//!
//! Positions `start + i·stride` are taken. A stride that shares a factor with the length of an axis would meet the same
//! places of every row, and a start that stays would meet them in every sample. So the stride has no factor in common with
//! the number of positions, which is the product of all axes, and the start moves with the sample by the golden ratio:
//! consecutive samples start about evenly spread, and those of every k-th sample of a sorted set meet all places before long.

/// The golden ratio less one, as a fraction of 2^64.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The stride for `count` positions, near `wanted`, that leaves at least about `least` of them.
pub(crate) fn coprime_stride(count: usize, wanted: usize, least: usize) -> usize {
    let most = (count / least.max(1)).max(1);
    let wanted = wanted.clamp(1, most);
    let coprime = |stride: &usize| common_divisor(*stride, count.max(1)) == 1;
    // Upwards as far as enough positions are left, else downwards: 1 shares no factor with anything.
    (wanted..=most).find(coprime).or_else(|| (1..wanted).rev().find(coprime)).unwrap_or(1)
}

/// Where a sample starts, below its stride.
pub(crate) fn start(sample: usize, stride: usize) -> usize {
    let fraction = (sample as u64).wrapping_mul(GOLDEN) >> 32;
    ((fraction * stride as u64) >> 32) as usize
}

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_share_no_factor_and_leave_enough() {
        for count in 1..3000 {
            for (wanted, least) in [(8, 32), (5, 1), (count / 17 + 1, 0)] {
                let stride = coprime_stride(count, wanted, least);
                assert_eq!(common_divisor(stride, count), 1, "{count} {wanted}");
                assert!(count / stride >= least.min(count), "{count} {wanted} {least}: {stride}");
            }
        }
        assert_eq!((coprime_stride(64, 8, 32), coprime_stride(3136, 8, 32), coprime_stride(0, 8, 32)), (1, 9, 1));
    }

    /// Of every k-th sample too: data are sorted by class, by length, or read in batches.
    #[test]
    fn starts_meet_every_place() {
        for stride in [2, 3, 7, 8, 11, 64, 97] {
            for step in [1, 2, 7, 8, 64] {
                let mut seen = vec![false; stride];
                (0..8 * stride).for_each(|sample| seen[start(sample * step, stride)] = true);
                assert!(seen.iter().all(|seen| *seen), "{stride} {step}");
            }
        }
    }
}
