//! Errors of an output channel by channel, centred: the error of a channel c is `E(ŷ_c − y_c)² / Var(y_c)`.
//!
//! The mean of a channel is no information that quantization could lose: a depth map of 20 ± 0.1 has lost everything
//! when it is off by 0.1, though Σ(ŷ − y)²/Σy² is tiny. Channels have their own units, so errors are divided channel by
//! channel before they are averaged. Means and sums of squares about them are merged by the formulas of Chan et al.,
//! which stay exact where the mean is large; nothing grows with the number of samples.

use crate::quant::lanes::{sums, sums_of};

/// Channels beyond which an output is compared as one: with so many they are pixels or samples of a signal.
pub(crate) const MOST: usize = 4096;
/// Groups of channels whose errors are remembered sample by sample.
const GROUPS: usize = 16;
/// Elements of a channel below which its variance means nothing.
const FEWEST: u64 = 4;
/// Share of its mean square below which the variance of a channel is rounding: float32 through many layers moves a value
/// by about a hundred thousandth.
pub(crate) const CONSTANT: f64 = 1e-10;
/// The squared error of an element that is no finite number where the float network's is.
const BROKEN: f64 = 1e30;

/// Where the channels of an output are: elements are `outer` × `channels` × `inner`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChannelLayout {
    pub(crate) channels: usize,
    pub(crate) inner: usize,
}

impl ChannelLayout {
    /// One channel.
    pub(crate) const WHOLE: Self = Self { channels: 1, inner: usize::MAX };

    /// Of a shape with channels on an axis.
    pub(crate) fn of(shape: &[usize], axis: Option<usize>) -> Self {
        match axis.and_then(|axis| Some((*shape.get(axis)?, shape.get(axis + 1..)?))) {
            Some((channels @ 1..=MOST, behind)) => Self { channels, inner: behind.iter().product::<usize>().max(1) },
            _ => Self::WHOLE,
        }
    }
}

/// Moments of the float values and the error, over elements.
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    count: u64,
    mean: f64,
    /// Sum of squares about the mean.
    squares: f64,
    noise: f64,
}

impl Moments {
    /// Of pairs of a float value and the network's; those without a finite float value are left out.
    fn of(pairs: impl Iterator<Item = (f32, f32)> + Clone) -> Self {
        let terms = pairs.clone().map(|(float, network)| terms(float, network));
        let sums = terms.fold([0.0; 3], |sum, term| [sum[0] + term[0], sum[1] + term[1], sum[2] + term[2]]);
        Self::from_sums(sums, |mean| pairs.map(|(float, _)| square(float, mean)).sum())
    }

    /// The same of pairs that are neighbours in memory.
    fn of_slices(float: &[f32], network: &[f32]) -> Self {
        Self::from_sums(sums(float, network, terms), |mean| sums_of(float, |float| [square(float, mean)])[0])
    }

    /// The same of each channel of pairs whose channels are neighbours in memory.
    fn of_columns(float: &[f32], network: &[f32], channels: usize) -> Vec<Self> {
        let mut sums = vec![[0.0; 3]; channels];
        for (float, network) in float.chunks_exact(channels).zip(network.chunks_exact(channels)) {
            for ((sums, &float), &network) in sums.iter_mut().zip(float).zip(network) {
                sums.iter_mut().zip(terms(float, network)).for_each(|(sum, term)| *sum += term);
            }
        }
        let mut moments: Vec<Self> = sums.into_iter().map(|sums| Self::from_sums(sums, |_| 0.0)).collect();
        for float in float.chunks_exact(channels) {
            moments.iter_mut().zip(float).for_each(|(own, &float)| own.squares += square(float, own.mean));
        }
        moments
    }

    /// From the sums of [`terms`], and the sum of squares about a mean.
    fn from_sums([count, sum, noise]: [f64; 3], squares: impl FnOnce(f64) -> f64) -> Self {
        let mean = sum / count.max(1.0);
        Self { count: count as u64, mean, squares: squares(mean), noise }
    }

    fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        let (own, more) = (self.count as f64, other.count as f64);
        let (total, apart) = (own + more, other.mean - self.mean);
        self.squares += other.squares + apart * apart * own * more / total;
        self.mean += apart * more / total;
        self.noise += other.noise;
        self.count += other.count;
    }

    fn variance(&self) -> f64 {
        self.squares / self.count.max(1) as f64
    }

    fn error(&self) -> f64 {
        self.noise / self.count.max(1) as f64
    }

    /// What an error is divided by: the variance; without one the mean square and the variance of others; else 1.
    fn against(&self, typical: f64) -> f64 {
        let against = if self.is_constant() { self.mean * self.mean + typical } else { self.variance() };
        if against > 0.0 { against } else { 1.0 }
    }

    fn is_constant(&self) -> bool {
        self.variance() <= CONSTANT * self.mean * self.mean
    }
}

/// What a pair of a float value and the network's adds to the number of pairs, to the sum and to the noise.
fn terms(float: f32, network: f32) -> [f64; 3] {
    let apart = f64::from(network) - f64::from(float);
    let noise = if network.is_finite() { apart * apart } else { BROKEN };
    if float.is_finite() { [1.0, f64::from(float), noise] } else { [0.0; 3] }
}

/// The square of a value about a mean; 0 of one that is not finite.
fn square(float: f32, mean: f64) -> f64 {
    let apart = f64::from(float) - mean;
    if float.is_finite() { apart * apart } else { 0.0 }
}

/// Errors of all channels of an output; parts merge.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChannelErrors {
    whole: Moments,
    channels: Vec<Moments>,
    /// Whether all channels have one unit.
    alike: bool,
    /// Whether samples differ in their number of channels, so that the output can only be compared as one.
    uneven: bool,
}

/// What the channels lose.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ChannelFigures {
    /// Mean over channels of the share of variance lost.
    pub(crate) mean: f64,
    /// The largest share.
    pub(crate) worst: f64,
    /// The channel of that; none where the output is compared as one.
    pub(crate) worst_channel: Option<usize>,
    pub(crate) channels: usize,
    /// Largest root mean square error of a channel without variance.
    pub(crate) constant_error: Option<f64>,
    /// Whether any channel has variance.
    pub(crate) varies: bool,
}

impl ChannelErrors {
    /// Of a sample. `excluded` says which elements count nowhere.
    pub(crate) fn of(
        float: &[f32],
        network: &[f32],
        layout: ChannelLayout,
        excluded: Option<&dyn Fn(usize) -> bool>,
    ) -> Self {
        let length = float.len().min(network.len());
        let (float, network) = (&float[..length], &network[..length]);
        let ChannelLayout { channels, inner } = layout;
        let even = channels.checked_mul(inner).is_some_and(|size| size > 0 && length.is_multiple_of(size));
        let channels = match (channels, excluded) {
            (0..=1, None) => return Self { whole: Moments::of_slices(float, network), ..Self::default() },
            (_, None) if even && inner == 1 => Moments::of_columns(float, network, channels),
            (_, None) if even => of_blocks(float, network, layout),
            (0..=1, _) => {
                let kept = (0..length).filter(|&at| excluded.is_none_or(|excluded| !excluded(at)));
                return Self { whole: Moments::of(kept.map(|at| (float[at], network[at]))), ..Self::default() };
            }
            _ => of_elements(float, network, layout, excluded),
        };
        let mut whole = Moments::default();
        for channel in &channels {
            whole.merge(channel);
        }
        Self { whole, channels, ..Self::default() }
    }

    /// The same of channels that have one unit, as probabilities have: one that hardly varies is no more exact than others.
    pub(crate) fn in_one_unit(self, alike: bool) -> Self {
        Self { alike, ..self }
    }

    /// Elements compared: those that are finite in the float network.
    pub(crate) fn elements(&self) -> u64 {
        self.whole.count
    }

    /// Power of the float network's values, their mean included, over that of the error: a ratio, infinite without one.
    pub(crate) fn power_ratio(&self) -> f64 {
        let Moments { count, mean, squares, noise } = self.whole;
        if noise > 0.0 { (squares + count as f64 * mean * mean) / noise } else { f64::INFINITY }
    }

    /// Mean squared errors of channels in at most [`GROUPS`] groups.
    pub(crate) fn errors(&self) -> Vec<f64> {
        self.grouped(Moments::error)
    }

    /// What these errors are divided by to be shares of variance.
    pub(crate) fn scales(&self) -> Vec<f64> {
        self.grouped(|channel| self.scale(channel, self.whole.variance()))
    }

    /// What the error of a channel is divided by, where channels vary as much as is `typical`.
    fn scale(&self, channel: &Moments, typical: f64) -> f64 {
        let own = channel.against(typical);
        if self.alike { own.max(typical) } else { own }
    }

    /// The mean variance of channels.
    fn typical(&self) -> f64 {
        self.channels.iter().map(Moments::variance).sum::<f64>() / self.channels.len() as f64
    }

    fn grouped(&self, of: impl Fn(&Moments) -> f64) -> Vec<f64> {
        let channels = if self.channels.is_empty() { std::slice::from_ref(&self.whole) } else { &self.channels[..] };
        let groups = channels.chunks(channels.len().div_ceil(GROUPS));
        groups.map(|group| group.iter().map(&of).sum::<f64>() / group.len() as f64).collect()
    }

    /// Adds what another part compared.
    pub(crate) fn merge(&mut self, other: &Self) {
        if other.whole.count == 0 {
            return;
        }
        self.alike |= other.alike;
        self.uneven |= other.uneven || (self.whole.count > 0 && self.channels.len() != other.channels.len());
        self.whole.merge(&other.whole);
        if self.uneven {
            self.channels.clear();
        } else if self.channels.is_empty() {
            self.channels.clone_from(&other.channels);
        } else {
            self.channels.iter_mut().zip(&other.channels).for_each(|(own, other)| own.merge(other));
        }
    }

    /// Mean over channels of the error of these samples as a share of the variance over all of them.
    pub(crate) fn share_of(&self, all: &Self) -> f64 {
        let share = |own: &Moments, scale: f64| if own.count == 0 { 0.0 } else { own.error() / scale };
        let one = |own: &Moments, of: &Moments| share(own, of.against(of.variance()));
        if all.channels.is_empty() || self.channels.len() != all.channels.len() {
            return one(&self.whole, &all.whole);
        }
        let typical = all.typical();
        let scale = |of: &Moments| if all.alike { all.scale(of, typical) } else { of.against(of.variance()) };
        let channels = self.channels.iter().zip(&all.channels);
        channels.map(|(own, of)| share(own, scale(of))).sum::<f64>() / all.channels.len() as f64
    }

    /// The figures. The error of a channel without variance is taken relative to its mean square and the variance of
    /// the others; where all is 0, as it is.
    pub(crate) fn figures(&self) -> ChannelFigures {
        let one = std::slice::from_ref(&self.whole);
        let few = self.channels.iter().any(|channel| channel.count < FEWEST);
        let channels = if self.channels.is_empty() || few { one } else { &self.channels[..] };
        let typical = channels.iter().map(Moments::variance).sum::<f64>() / channels.len() as f64;
        let mut figures = ChannelFigures { channels: channels.len(), ..ChannelFigures::default() };
        for (at, channel) in channels.iter().enumerate() {
            let error = channel.error();
            if channel.is_constant() {
                figures.constant_error = Some(figures.constant_error.unwrap_or(0.0).max(error.sqrt()));
            } else {
                figures.varies = true;
            }
            let share = error / self.scale(channel, typical);
            figures.mean += share / channels.len() as f64;
            if share > figures.worst {
                figures.worst = share;
                figures.worst_channel = (channels.len() > 1).then_some(at);
            }
        }
        figures
    }
}

/// Of channels whose elements are blocks in memory.
fn of_blocks(float: &[f32], network: &[f32], ChannelLayout { channels, inner }: ChannelLayout) -> Vec<Moments> {
    let mut moments = vec![Moments::default(); channels];
    for (at, (float, network)) in float.chunks(inner).zip(network.chunks(inner)).enumerate() {
        moments[at % channels].merge(&Moments::of_slices(float, network));
    }
    moments
}

/// Of channels of which some elements count nowhere, or the last block is cut off.
fn of_elements(
    float: &[f32],
    network: &[f32],
    ChannelLayout { channels, inner }: ChannelLayout,
    excluded: Option<&dyn Fn(usize) -> bool>,
) -> Vec<Moments> {
    let of_channel = |channel: usize| {
        let blocks = (channel * inner..float.len()).step_by(channels * inner);
        let elements = blocks.flat_map(|start| start..(start + inner).min(float.len()));
        let kept = elements.filter(|&at| excluded.is_none_or(|excluded| !excluded(at)));
        Moments::of(kept.map(|at| (float[at], network[at])))
    };
    (0..channels).map(of_channel).collect()
}

/// A share of variance in decibels; none where nothing is lost.
pub(crate) fn decibels(share: f64) -> Option<f64> {
    (share > 0.0).then(|| -10.0 * share.log10())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(float: &[f32], network: &[f32], shape: &[usize], axis: Option<usize>) -> ChannelFigures {
        let mut errors = ChannelErrors::default();
        let size: usize = shape.iter().product();
        for (float, network) in float.chunks(size).zip(network.chunks(size)) {
            errors.merge(&ChannelErrors::of(float, network, ChannelLayout::of(shape, axis), None));
        }
        errors.figures()
    }

    /// Values of 1000 ± 1 whose detail is lost have lost everything, whatever the mean.
    #[test]
    fn the_mean_is_no_signal() {
        let float: Vec<f32> = (0..64).map(|i| 1000.0 + if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
        let figures = errors(&float, &[1000.0; 64], &[1, 1, 8, 8], Some(1));
        assert!((figures.worst - 1.0).abs() < 1e-9, "{figures:?}");
        assert_eq!((figures.channels, figures.worst_channel), (1, None));
    }

    /// The channel with small numbers is not hidden by that with large ones.
    #[test]
    fn channels_have_their_own_units() {
        let float: Vec<f32> = (0..32).flat_map(|i| [1e4 * i as f32, 1e-3 * (i % 4) as f32]).collect();
        let network: Vec<f32> = (0..32).flat_map(|i| [1e4 * i as f32 + 100.0, 0.0015]).collect();
        let figures = errors(&float, &network, &[1, 2], Some(1));
        assert_eq!(figures.worst_channel, Some(1));
        assert!((figures.worst - 1.0).abs() < 1e-6 && figures.mean < 0.51, "{figures:?}");
        // Channels first and channels last are the same numbers.
        let turned = |values: &[f32]| -> Vec<f32> {
            values.iter().step_by(2).chain(values.iter().skip(1).step_by(2)).copied().collect()
        };
        let first = errors(&turned(&float), &turned(&network), &[1, 2, 32], Some(1));
        assert!((first.worst - figures.worst).abs() < 1e-12 && first.worst_channel == Some(1));
    }

    /// Of many probabilities those that are hardly ever above 0 need not be exact in their own measure.
    #[test]
    fn channels_of_one_unit_are_measured_alike() {
        let float: Vec<f32> = (0..32).flat_map(|i| [(i % 2) as f32, 1e-4 * (i % 4) as f32]).collect();
        let network: Vec<f32> = (0..32).flat_map(|i| [(i % 2) as f32, 0.01]).collect();
        let errors = ChannelErrors::of(&float, &network, ChannelLayout { channels: 2, inner: 1 }, None);
        assert!(errors.figures().worst > 1e3);
        let alike = errors.clone().in_one_unit(true);
        assert!(alike.figures().worst < 1e-3, "{:?}", alike.figures());
        assert!(alike.share_of(&alike) < 1e-3 && errors.share_of(&errors) > 1e3);
    }

    #[test]
    fn a_channel_without_variance_is_compared_in_absolute_terms() {
        let float: Vec<f32> = (0..16).flat_map(|i| [i as f32, 5.0]).collect();
        let network: Vec<f32> = (0..16).flat_map(|i| [i as f32, 5.5]).collect();
        let figures = errors(&float, &network, &[1, 2], Some(1));
        assert_eq!((figures.constant_error, figures.worst_channel), (Some(0.5), Some(1)));
        assert!(figures.worst < 0.02);
        let zeros = errors(&[0.0; 8], &[0.25; 8], &[1, 1], Some(1));
        assert_eq!((zeros.worst, zeros.constant_error), (0.0625, Some(0.25)));
        assert!(figures.varies && !zeros.varies);
    }

    /// What rounding moves by a hundred thousandth does not vary, and an error of a hundredth is not compared with that.
    #[test]
    fn rounding_is_no_variance() {
        let float: Vec<f32> = (0..64).map(|i| 1e-4 + 1e-10 * noise(i)).collect();
        let network: Vec<f32> = float.iter().map(|v| v * 1.01).collect();
        let figures = errors(&float, &network, &[1, 2], Some(1));
        assert!(!figures.varies && figures.worst < 2e-4, "{figures:?}");
        assert!(errors(&[20.0, 20.1, 19.9, 20.0], &[20.0; 4], &[4], None).varies);
    }

    /// Numbers in [−1, 1), the same every time.
    fn noise(at: u32) -> f32 {
        (at.wrapping_mul(2_654_435_761).rotate_left(13).wrapping_mul(0x9E37_79B9) >> 8) as f32 / 8_388_608.0 - 1.0
    }

    /// Two passes over all elements at once give the same as parts merged one by one, also far from 0.
    #[test]
    fn moments_are_stable_when_merged() {
        let float: Vec<f32> = (0..4096).map(|i| 1e6 + (i * 37 % 101) as f32 / 8.0).collect();
        let network: Vec<f32> = float.iter().enumerate().map(|(i, v)| v + (i % 3) as f32).collect();
        let whole = errors(&float, &network, &[4096], None);
        let parts = errors(&float, &network, &[16], None);
        assert!((whole.worst / parts.worst - 1.0).abs() < 1e-9, "{whole:?} {parts:?}");
    }

    #[test]
    fn numbers_that_are_not_finite_are_the_worst_error() {
        let float = [1.0, 2.0, 3.0, 4.0, f32::NEG_INFINITY];
        let figures = errors(&float, &[1.0, 2.0, 3.0, f32::NAN, f32::NEG_INFINITY], &[5], None);
        assert!(figures.worst > 1e20);
        assert_eq!(errors(&float, &float, &[5], None).worst, 0.0);
    }

    /// Rows of another length cannot be told apart by channel.
    #[test]
    fn outputs_of_changing_width_are_one_channel() {
        let mut errors = ChannelErrors::default();
        errors.merge(&ChannelErrors::of(&[1.0, 2.0], &[1.0, 2.0], ChannelLayout::of(&[1, 2], Some(1)), None));
        let wide = ChannelLayout::of(&[1, 3], Some(1));
        errors.merge(&ChannelErrors::of(&[1.0, 2.0, 3.0], &[1.0, 2.0, 4.0], wide, None));
        assert_eq!(errors.figures().channels, 1);
        assert!(errors.figures().worst > 0.0);
    }

    #[test]
    fn excluded_elements_count_nowhere() {
        let float = [1.0, 2.0, 3.0, 4.0, 100.0, 100.0];
        let network = [1.0, 2.0, 3.0, 4.0, 0.0, 0.0];
        let errors = ChannelErrors::of(&float, &network, ChannelLayout::WHOLE, Some(&|at| at >= 4));
        assert_eq!(errors.figures().worst, 0.0);
    }
}
