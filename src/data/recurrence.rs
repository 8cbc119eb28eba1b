//! Samples that are frames of sequences: what a frame writes feeds the next one.
//!
//! A [`StateLink`] says which output feeds which input. The first frame of a sequence gets that input from the data where
//! they have an array for it, else zeros. What the other frames get is known when the network has run over the frames
//! before, which is not done here: until then a data set gives every frame what a first frame gets. [`Dataset::frames`]
//! says in which order frames have to be run, [`Dataset::with_states`] takes what was found.

use super::array::{Array, ArrayData};
use super::error::{DataError, ShapeText};
use super::npz::Archive;
use super::positional::PositionalFile;
use super::source::{Opened, Source, spread};
use super::temporary::named;
use super::{DataOptions, Dataset, InputSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

/// An output that feeds an input of the next frame, written `OUT=IN`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct StateLink {
    /// The name of the output.
    pub output: String,
    /// The name of the input.
    pub input: String,
}

impl fmt::Display for StateLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.output, self.input)
    }
}

impl FromStr for StateLink {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((output, input)) if !output.is_empty() && !input.is_empty() => {
                Ok(Self { output: output.to_owned(), input: input.to_owned() })
            }
            _ => Err(format!("`{text}` is not OUT=IN, the names of an output and of the input that it feeds")),
        }
    }
}

impl TryFrom<String> for StateLink {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<StateLink> for String {
    fn from(link: StateLink) -> Self {
        link.to_string()
    }
}

/// An output and the position of the input that it feeds.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) output: String,
    pub(crate) input: usize,
    /// The input.
    pub(crate) spec: InputSpec,
}

impl Link {
    /// The shape of the input in words.
    pub(crate) fn shape(&self) -> ShapeText {
        ShapeText::wanted(self.spec.shape.as_deref())
    }
}

/// Frames of sequences, as they were opened.
pub(super) struct Recurrence {
    links: Arc<[Link]>,
    /// Gives every frame what a first frame gets.
    base: Arc<dyn Source>,
    /// The sequences: numbers of frames in their order.
    sequences: Vec<Vec<usize>>,
}

/// The inputs that the data have to feed: all but those that are fed back.
/// Of those an `.npz` may have arrays all the same, for first frames.
pub(super) fn fed_inputs(
    archive: Option<&Path>,
    inputs: &[InputSpec],
    links: &[StateLink],
) -> Result<Vec<InputSpec>, DataError> {
    for (at, link) in links.iter().enumerate() {
        if !inputs.iter().any(|spec| spec.name == link.input) {
            return Err(DataError::NoStateInput {
                output: link.output.clone(),
                input: link.input.clone(),
                inputs: inputs.iter().map(|spec| spec.name.clone()).collect(),
            });
        }
        if links[..at].iter().any(|other| other.input == link.input) {
            return Err(DataError::StateTwice { input: link.input.clone() });
        }
    }
    let is_state = |spec: &InputSpec| links.iter().any(|link| link.input == spec.name);
    if inputs.iter().all(is_state) {
        return Err(DataError::OnlyStates);
    }
    let archive = archive.map(Archive::open).transpose()?;
    let given = |spec: &InputSpec| archive.as_ref().is_some_and(|archive| archive.contains(&spec.name));
    Ok(inputs.iter().filter(|spec| !is_state(spec) || given(spec)).cloned().collect())
}

/// Data whose samples are frames: `opened` feeds the inputs `fed`.
pub(super) fn of_frames(
    opened: Opened,
    inputs: &[InputSpec],
    fed: &[InputSpec],
    options: &DataOptions,
) -> (Opened, Recurrence) {
    let DataOptions { state, state_reset, samples, .. } = options;
    let position = |name: &str| inputs.iter().position(|spec| spec.name == name);
    let links: Arc<[Link]> = state
        .iter()
        .filter_map(|link| {
            let input = position(&link.input)?;
            Some(Link { output: link.output.clone(), input, spec: inputs[input].clone() })
        })
        .collect();
    let places = inputs.iter().map(|spec| fed.iter().position(|other| other.name == spec.name)).collect();
    let base: Arc<dyn Source> =
        Arc::new(Framed { source: Arc::clone(&opened.source), inputs: inputs.to_vec(), places });
    let sequences = sequences(base.len(), *state_reset, *samples);
    let recurrence = Recurrence { links, base: Arc::clone(&base), sequences };
    (Opened { source: base, ..opened }, recurrence)
}

/// The frames of each sequence: as many whole sequences as there is room for in so many samples, evenly spread; of one that
/// is longer, its beginning.
fn sequences(frames: usize, length: Option<usize>, samples: Option<usize>) -> Vec<Vec<usize>> {
    let length = length.unwrap_or(frames).clamp(1, frames.max(1));
    let count = frames.div_ceil(length);
    let wanted = samples.map_or(count, |samples| (samples / length).max(1));
    let kept = length.min(samples.unwrap_or(length).max(1));
    let frames_of = |sequence: usize| (sequence * length..frames.min(sequence * length + kept)).collect();
    spread(count, wanted).into_iter().map(frames_of).collect()
}

/// A source with zeros for the inputs that it does not feed.
struct Framed {
    source: Arc<dyn Source>,
    inputs: Vec<InputSpec>,
    /// Where the source has each input.
    places: Vec<Option<usize>>,
}

impl Source for Framed {
    fn len(&self) -> usize {
        self.source.len()
    }

    fn arrays(&self, index: usize) -> Result<Vec<Array>, DataError> {
        let fed = self.source.arrays(index)?;
        let mut lengths: HashMap<&str, usize> = HashMap::new();
        for (spec, array) in self.inputs.iter().zip(&self.places).filter_map(|(spec, at)| Some((spec, &fed[(*at)?]))) {
            let named = spec.symbols.iter().zip(array.shape());
            lengths.extend(named.filter_map(|(symbol, &length)| Some((symbol.as_deref()?, length))));
        }
        let array = |(spec, place): (&InputSpec, &Option<usize>)| match place {
            Some(at) => Ok(fed[*at].clone()),
            None => zeros(spec, &lengths),
        };
        self.inputs.iter().zip(&self.places).map(array).collect()
    }

    fn shapes(&self, index: usize) -> Result<Option<Vec<Vec<usize>>>, DataError> {
        if self.source.shapes(index)?.is_none() {
            return Ok(None);
        }
        Ok(Some(self.arrays(index)?.iter().map(|array| array.shape().to_vec()).collect()))
    }

    fn batch(&self) -> usize {
        self.source.batch()
    }

    fn noun(&self) -> &'static str {
        "frames"
    }
}

/// What a state begins with. A free axis is as long as the axis of that name in the data. Else the first one, of a batch, is
/// 1, and so is one without a name; one of a name of its own counts what came before, which is nothing yet.
fn zeros(spec: &InputSpec, lengths: &HashMap<&str, usize>) -> Result<Array, DataError> {
    let Some(dims) = &spec.shape else { return Err(DataError::StateShape { input: spec.name.clone() }) };
    let symbol = |axis: usize| spec.symbols.get(axis).and_then(Option::as_deref);
    let free = |axis: usize| match symbol(axis) {
        Some(name) => lengths.get(name).copied().unwrap_or(usize::from(axis == 0 || is_batch(name))),
        None => 1,
    };
    let shape: Vec<usize> = dims.iter().enumerate().map(|(axis, dim)| dim.unwrap_or_else(|| free(axis))).collect();
    let none = || DataError::StateShape { input: spec.name.clone() };
    let count = super::array::count(&shape).filter(|&count| count <= MOST_ELEMENTS).ok_or_else(none)?;
    let array = Array::new(shape, ArrayData::F32(vec![0.0; count])).map_err(|_| none())?;
    array.cast(spec.dtype).map_err(|_| none())
}

/// The largest state, in elements.
const MOST_ELEMENTS: usize = 1 << 28;

fn is_batch(name: &str) -> bool {
    name.to_lowercase().contains("batch") || name == "N"
}

/// What the frames were found to be fed with, in a temporary file that the system removes.
pub(crate) struct States {
    file: PositionalFile,
    /// By frame: of each link.
    entries: BTreeMap<usize, Vec<Entry>>,
}

#[derive(Clone, Debug)]
struct Entry {
    offset: u64,
    bytes: usize,
    shape: Vec<usize>,
}

/// Takes states of frames in any order, from any thread.
pub(crate) struct StateWriter {
    written: Mutex<(File, u64, BTreeMap<usize, Vec<Entry>>)>,
}

impl StateWriter {
    /// An empty file.
    pub(crate) fn new() -> Result<Self, DataError> {
        Ok(Self { written: Mutex::new((tempfile::tempfile().map_err(spooling)?, 0, BTreeMap::new())) })
    }

    /// Adds what a frame is fed with: an array for each link.
    pub(crate) fn add(&self, frame: usize, states: &[Array]) -> Result<(), DataError> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, end, entries) = &mut *written;
        for state in states {
            let bytes = state.data().to_bytes();
            file.write_all(&bytes).map_err(spooling)?;
            let entry = Entry { offset: *end, bytes: bytes.len(), shape: state.shape().to_vec() };
            entries.entry(frame).or_default().push(entry);
            *end += bytes.len() as u64;
        }
        Ok(())
    }

    /// All that was added.
    pub(crate) fn finish(self) -> States {
        let (file, _, entries) = self.written.into_inner().unwrap_or_else(PoisonError::into_inner);
        States { file: PositionalFile::new(file), entries }
    }
}

fn spooling(source: std::io::Error) -> DataError {
    DataError::Temporary { source: named(source) }
}

/// Frames with the states that they were found to be fed with.
struct Stateful {
    base: Arc<dyn Source>,
    links: Arc<[Link]>,
    states: States,
}

impl Source for Stateful {
    fn len(&self) -> usize {
        self.base.len()
    }

    fn arrays(&self, index: usize) -> Result<Vec<Array>, DataError> {
        let mut arrays = self.base.arrays(index)?;
        let Some(entries) = self.states.entries.get(&index) else { return Ok(arrays) };
        for (link, entry) in self.links.iter().zip(entries) {
            let mut bytes = vec![0; entry.bytes];
            self.states.file.read_exact_at(&mut bytes, entry.offset).map_err(spooling)?;
            let array = Array::from_bytes(link.spec.dtype, false, entry.shape.clone(), &bytes);
            arrays[link.input] = array.ok_or_else(|| DataError::StateShape { input: link.spec.name.clone() })?;
        }
        Ok(arrays)
    }

    fn shapes(&self, index: usize) -> Result<Option<Vec<Vec<usize>>>, DataError> {
        let base = self.base.shapes(index)?;
        let same = |entries: &[Entry]| {
            let first = self.states.entries.values().next();
            first.is_some_and(|first| first.iter().zip(entries).all(|(a, b)| a.shape == b.shape))
        };
        if base.is_none() && self.states.entries.values().all(|entries| same(entries)) {
            return Ok(None);
        }
        let mut shapes = match base {
            Some(shapes) => shapes,
            None => self.base.arrays(index)?.iter().map(|array| array.shape().to_vec()).collect(),
        };
        for (link, entry) in self.links.iter().zip(self.states.entries.get(&index).into_iter().flatten()) {
            shapes[link.input].clone_from(&entry.shape);
        }
        Ok(Some(shapes))
    }

    fn batch(&self) -> usize {
        self.base.batch()
    }

    fn noun(&self) -> &'static str {
        "frames"
    }
}

impl Dataset {
    /// The outputs that are fed back; none where samples are not frames of sequences.
    pub(crate) fn links(&self) -> &[Link] {
        self.recurrence.as_ref().map(|recurrence| &*recurrence.links).unwrap_or_default()
    }

    /// The frames that have to be run, in their order, so that the states of all samples are known: one list for each
    /// sequence, from its first frame to the last that is among the samples.
    pub(crate) fn frames(&self) -> Vec<&[usize]> {
        let Some(recurrence) = &self.recurrence else { return Vec::new() };
        let wanted: BTreeSet<usize> = self.indices.iter().copied().collect();
        let needed = |sequence: &'_ Vec<usize>| sequence.iter().rposition(|frame| wanted.contains(frame));
        let runs = recurrence.sequences.iter().filter_map(|sequence| Some(&sequence[..=needed(sequence)?]));
        runs.collect()
    }

    /// What feeds a frame, given by its number in the data as it was opened, if it is the first of its sequence.
    pub(crate) fn first_frame(&self, frame: usize) -> Result<Vec<Array>, DataError> {
        self.recurrence.as_ref().map_or_else(|| self.source.arrays(frame), |recurrence| recurrence.base.arrays(frame))
    }

    /// The same samples, fed with these states.
    #[must_use]
    pub(crate) fn with_states(&self, states: States) -> Self {
        let Some(recurrence) = &self.recurrence else { return self.clone() };
        let (base, links) = (Arc::clone(&recurrence.base), Arc::clone(&recurrence.links));
        Self { source: Arc::new(Stateful { base, links, states }), ..self.clone() }
    }

    pub(super) fn of_sequences(self, recurrence: Recurrence) -> Self {
        let indices = recurrence.sequences.iter().flatten().copied().collect();
        Self { indices, recurrence: Some(Arc::new(recurrence)), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use msq_passes::ir::DataType;

    #[test]
    fn links_are_two_names() {
        let link: StateLink = "h_out=h_in".parse().unwrap();
        assert_eq!(
            (link.output.as_str(), link.input.as_str(), link.to_string().as_str()),
            ("h_out", "h_in", "h_out=h_in")
        );
        for bad in ["h", "=h", "h=", ""] {
            assert!(bad.parse::<StateLink>().unwrap_err().contains("OUT=IN"), "{bad}");
        }
    }

    #[test]
    fn sequences_are_whole_or_begin_at_their_first_frame() {
        assert_eq!(sequences(5, None, None), [vec![0, 1, 2, 3, 4]]);
        assert_eq!(sequences(5, None, Some(3)), [vec![0, 1, 2]]);
        assert_eq!(sequences(5, Some(2), None), [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(sequences(8, Some(2), Some(4)), [vec![0, 1], vec![4, 5]]);
        assert_eq!(sequences(8, Some(4), Some(3)), [vec![0, 1, 2]]);
    }

    #[test]
    fn states_begin_with_zeros_of_what_is_known() {
        let spec = |shape: &[Option<usize>], symbols: &[Option<&str>]| InputSpec {
            name: "h".to_owned(),
            dtype: DataType::Float,
            shape: Some(shape.to_vec()),
            symbols: symbols.iter().map(|symbol| symbol.map(str::to_owned)).collect(),
            image_size: None,
        };
        let lengths = HashMap::from([("T", 7)]);
        let shape = |spec: &InputSpec| zeros(spec, &lengths).unwrap().shape().to_vec();
        assert_eq!(shape(&spec(&[Some(2), None, Some(8)], &[None, Some("batch"), None])), [2, 1, 8]);
        assert_eq!(shape(&spec(&[None, Some(4), None, Some(8)], &[Some("B"), None, Some("past"), None])), [1, 4, 0, 8]);
        assert_eq!(shape(&spec(&[None, None, None], &[])), [1, 1, 1]);
        assert_eq!(shape(&spec(&[Some(1), None], &[None, Some("T")])), [1, 7]);
    }
}
