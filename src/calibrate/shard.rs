//! Calibration in parts: which samples a machine sees, and what it has counted, as a file.

use super::CalibrateError;
use super::collect::{Sums, Tap};
use crate::execute::fold::SHARD;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What the files begin with.
const FORMAT: &str = "msq-onnx statistics 2";

/// One of several parts of the data, as `3/8`: numbered from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    number: usize,
    of: usize,
}

impl Shard {
    /// All of the data.
    pub const WHOLE: Self = Self { number: 1, of: 1 };

    /// The samples of this part of so many. Parts are of equal size, but for a few samples.
    pub fn samples(self, samples: usize) -> Range<usize> {
        // What is added at once is never cut.
        let pieces = self.items(samples.div_ceil(SHARD));
        (pieces.start * SHARD).min(samples)..(pieces.end * SHARD).min(samples)
    }

    /// The items of this part of so many. Parts are of equal size, but for one item.
    pub fn items(self, items: usize) -> Range<usize> {
        items * (self.number - 1) / self.of..items * self.number / self.of
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match numbers {
            Some((number, of)) if (1..=of).contains(&number) => Ok(Self { number, of }),
            _ => Err(format!("`{text}` is no part: give 1/8 to 8/8 for eight of them")),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

/// Statistics of the activations over some of the samples. Those of all parts, in any order, are what one machine would
/// have counted, bit for bit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShardStatistics {
    format: String,
    origin: Origin,
    samples: Range<usize>,
    counted: Counted,
    /// Where it was read from.
    #[serde(skip)]
    path: PathBuf,
}

/// What counts follow from, besides which samples they are of: alike in all parts and in the run that joins them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Origin {
    /// A hash of the model.
    pub model: u64,
    /// A hash of the first sample: other data, or the same read in another way, differ in it.
    pub data: u64,
    /// How many samples there are in all.
    pub samples: usize,
    /// Of how many samples the outputs are kept.
    pub outputs: usize,
    /// What is taken for a mask, in words.
    pub masks: Vec<String>,
}

impl Origin {
    /// What of this run is not as it was for these statistics.
    fn differs_from(&self, counted: &Self) -> Option<String> {
        if self.model != counted.model {
            return Some("statistics of another model, or of options with which it is another".to_owned());
        }
        if self.samples != counted.samples {
            return Some(format!("statistics of {} samples in all, not {}", counted.samples, self.samples));
        }
        if self.data != counted.data {
            return Some("statistics of other data, or of the same read in another way".to_owned());
        }
        let words =
            [(self.masks != counted.masks, "other masks"), (self.outputs != counted.outputs, "another `verify`")];
        words.iter().find(|(differs, _)| *differs).map(|(_, what)| format!("statistics with {what}"))
    }
}

/// What was counted of consecutive samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Counted {
    /// By the name of the value.
    pub taps: IndexMap<String, (Tap, Sums)>,
    /// The float model's outputs for the first samples.
    pub outputs: Vec<Vec<Vec<f32>>>,
}

impl Counted {
    /// Appends what was counted of the samples that come next.
    pub(super) fn append(&mut self, later: Self) {
        for (name, (tap, sums)) in later.taps {
            self.taps.entry(name).or_insert_with(|| (tap, Sums::default())).1.append(sums);
        }
        self.outputs.extend(later.outputs);
    }
}

impl ShardStatistics {
    pub(super) fn new(origin: Origin, samples: Range<usize>, counted: Counted) -> Self {
        Self { format: FORMAT.to_owned(), origin, samples, counted, path: PathBuf::new() }
    }

    /// The samples that were counted.
    pub fn samples(&self) -> Range<usize> {
        self.samples.clone()
    }

    /// How many samples there are, with those of the other parts.
    pub fn total(&self) -> usize {
        self.origin.samples
    }

    /// How many values were looked at.
    pub fn values(&self) -> usize {
        self.counted.taps.len()
    }

    /// Reads a file that [`bytes`](Self::bytes) makes.
    pub fn load(path: &Path) -> Result<Self, CalibrateError> {
        let refused = |reason: String| CalibrateError::Statistics { path: path.to_owned(), reason };
        let bytes = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
        let read: Result<Self, _> = ciborium::from_reader(&bytes[..]);
        match read {
            Ok(read) if read.format != FORMAT => {
                Err(refused(format!("is `{}`, and this version reads `{FORMAT}`", read.format)))
            }
            Ok(read) if read.is_whole() => Ok(Self { path: path.to_owned(), ..read }),
            Ok(_) => Err(refused("a damaged file: its sums are not over the samples that it names".to_owned())),
            Err(_) => Err(refused("not a file that command `calibrate` writes, or a damaged one".to_owned())),
        }
    }

    /// The file: CBOR (RFC 8949).
    pub fn bytes(&self) -> Result<Vec<u8>, CalibrateError> {
        let mut bytes = Vec::new();
        let failed = |error: ciborium::ser::Error<_>| CalibrateError::Statistics {
            path: self.path.clone(),
            reason: format!("cannot be written: {error}"),
        };
        ciborium::into_writer(self, &mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    /// Whether the sums are over the samples named.
    fn is_whole(&self) -> bool {
        let Range { start, end } = self.samples;
        let ordered = start <= end && end <= self.origin.samples && start % SHARD == 0;
        let pieces = (start / SHARD) as u64..end.div_ceil(SHARD) as u64;
        ordered && (start == end || self.counted.taps.values().all(|(_, sums)| sums.cover(pieces.clone())))
    }

    fn refused(&self, reason: String) -> CalibrateError {
        CalibrateError::Statistics { path: self.path.clone(), reason }
    }
}

/// Joins all parts of a run that looks at these values.
pub(super) fn joined(parts: &[ShardStatistics], origin: &Origin, wanted: &[Tap]) -> Result<Counted, CalibrateError> {
    let mut parts: Vec<&ShardStatistics> = parts.iter().collect();
    parts.sort_by_key(|part| (part.samples.start, part.samples.end));
    let mut counted = Counted::default();
    let mut next = 0;
    let missing = |part: &ShardStatistics, from: usize, to: usize| {
        part.refused(format!("samples {from} to {} are in none of the files", to.saturating_sub(1)))
    };
    for part in &parts {
        if let Some(reason) = origin.differs_from(&part.origin) {
            return Err(part.refused(format!("{reason}: run `calibrate` with the same model, data and options")));
        }
        if part.samples.start > next {
            return Err(missing(part, next, part.samples.start));
        }
        if part.samples.start < next && !part.samples.is_empty() {
            return Err(part.refused(format!("sample {} is in another file too", part.samples.start)));
        }
        let lacking = wanted.iter().find(|tap| part.counted.taps.get(&tap.name).is_none_or(|(own, _)| own != *tap));
        if let Some(tap) = lacking.filter(|_| !part.samples.is_empty()) {
            let reason =
                format!("no statistics of value `{}` as these options need: give `calibrate` the same", tap.name);
            return Err(part.refused(reason));
        }
        counted.append(part.counted.clone());
        next = part.samples.end.max(next);
    }
    match parts.last() {
        Some(last) if next < origin.samples => Err(missing(last, next, origin.samples)),
        None => Err(CalibrateError::NoSamples),
        Some(_) => Ok(counted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hold_each_sample_once() {
        for samples in 0..70 {
            for of in 1..9 {
                let ends: Vec<Range<usize>> = (1..=of).map(|number| Shard { number, of }.samples(samples)).collect();
                assert!(ends.windows(2).all(|pair| pair[0].end == pair[1].start), "{samples} {ends:?}");
                assert_eq!((ends[0].start, ends[of - 1].end), (0, samples));
                assert!(ends.iter().all(|part| part.start % SHARD == 0));
            }
        }
    }

    #[test]
    fn only_numbers_from_one_on_are_parts() {
        assert_eq!("3/8".parse::<Shard>().unwrap().to_string(), "3/8");
        assert!(["0/8", "9/8", "3", "a/b", "1/0", "/"].iter().all(|text| text.parse::<Shard>().is_err()));
    }
}
