//! Where windows end in the bytes of a string.

use crate::quantize::trellis::TrellisRate;

/// The bytes of strings that windows end in at the same places.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Their places in a string.
    pub(super) bytes: Vec<usize>,
    /// Bits of such a byte up to the end of a window, 1 to 8.
    pub(super) ends: Vec<usize>,
}

/// The ends of windows in each byte of a period.
pub(super) fn period(rate: TrellisRate) -> Vec<Vec<usize>> {
    let mut ends: Vec<Vec<usize>> = Vec::new();
    for i in 0.. {
        let end = rate.end(i);
        ends.resize(ends.len().max(end.div_ceil(8)), Vec::new());
        ends[(end - 1) / 8].push((end - 1) % 8 + 1);
        // Where windows end with a byte at a whole number of bits, everything begins anew.
        if end.is_multiple_of(8) && ((i + 1) * usize::from(rate.quarters())).is_multiple_of(4) {
            break;
        }
    }
    ends
}

/// The bytes of a column, by the ends of their windows.
pub(super) fn parts(rate: TrellisRate, length: usize) -> Vec<Part> {
    let (bytes, period) = (rate.bytes(length), period(rate));
    let whole = bytes % period.len() == 0 && rate.end(length - 1) == 8 * bytes;
    if whole || period.len() == 1 {
        let every = period.len();
        let part = |(at, ends)| Part { bytes: (at..bytes).step_by(every).collect(), ends };
        return period.into_iter().enumerate().map(part).collect();
    }
    vec![Part { bytes: (0..bytes).collect(), ends: (1..=8).collect() }]
}
