//! Calibration and validation data: what feeds the model's inputs.
//!
//! A [`Dataset`] is opened from a path or generated, and returns samples by index: one array per input, of exactly the
//! shape and type that the model takes. Samples are loaded when they are needed, from any thread, and are not held in
//! memory, so that memory does not grow with the data.
//!
//! | path | samples |
//! |---|---|
//! | `.npz` | rows of the arrays named as the inputs; labels beside them |
//! | `.npy` | rows of the array |
//! | folder of `.npy` | one per file |
//! | folder of `.npz` | rows of the arrays of all files, which may differ in length |
//! | image, folder of images, folder of class folders | one per image, resized, cropped and scaled |
//! | folder of `input_*.pb`, or of `test_data_set_*` | one per folder |

mod archives;
mod array;
mod arrays;
mod augment;
mod contradicting;
mod element;
mod error;
mod feed;
mod folder;
mod groups;
mod images;
mod labels;
mod leaves;
mod npy;
mod npz;
mod options;
mod picture;
mod positional;
mod preprocess;
pub(crate) mod random;
mod recurrence;
mod source;
mod stored;
mod synthetic;
mod temporary;
mod tensor;
mod test_data;
#[cfg(test)]
mod tests;
mod whole;
mod write;

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use msq_passes::ir::{DataType, Model, TypeProto};

pub use array::{Array, ArrayData, CastError, LengthError};
pub(crate) use contradicting::contradicting;
pub use error::{DataError, NpyError, Place, ShapeText};
pub(crate) use groups::Groups;
pub use options::{Color, DataOptions, Filter, Layout, Letterbox, ParseError, Preprocess, Preset, Resize, Size};
pub use recurrence::StateLink;
pub(crate) use recurrence::{Link, StateWriter};
pub use source::Skipped;
pub use synthetic::{SyntheticOptions, SyntheticScale, SyntheticValues};
pub use tensor::TensorError;
pub use write::write_npz;
pub(crate) use write::write_npz_of_labels;

use recurrence::Recurrence;
use source::{Labels, Opened, Source, spread};

/// An input of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputSpec {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: DataType,
    /// Its shape, free dimensions `None`; `None` when not even the rank is known.
    pub shape: Option<Vec<Option<usize>>>,
    /// The names of free dimensions, axis by axis; axes of the same name are equally long. May be shorter than the shape.
    pub symbols: Vec<Option<String>>,
    /// Height and width of the images that the model says it is made for, where these axes may be free: Ultralytics'
    /// `imgsz` among its metadata.
    pub image_size: Option<[usize; 2]>,
}

impl InputSpec {
    /// The inputs that a caller of a model must feed.
    pub fn of(model: &Model) -> Vec<Self> {
        let image_size = model.metadata("imgsz").and_then(image_size);
        let spec = |v| {
            let value = model.graph.value(v);
            let dtype = value.element_type().unwrap_or(DataType::Float);
            let symbols = value.ty().map(TypeProto::symbols).unwrap_or_default();
            Self { name: value.name().to_owned(), dtype, shape: value.shape(), symbols, image_size }
        };
        model.graph.runtime_inputs().map(spec).collect()
    }
}

/// Height and width from a list such as `[480, 640]`.
fn image_size(text: &str) -> Option<[usize; 2]> {
    let sides = text.trim().strip_prefix('[')?.strip_suffix(']')?.split(',').map(|side| side.trim().parse().ok());
    let sides: Vec<usize> = sides.collect::<Option<_>>()?;
    <[usize; 2]>::try_from(sides).ok().filter(|sides| !sides.contains(&0))
}

/// One set of inputs of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// One array per input, in the model's order.
    pub arrays: Vec<Array>,
}

impl Hash for Sample {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for array in &self.arrays {
            array.shape().hash(state);
            array.to_f32().iter().for_each(|value| value.to_bits().hash(state));
        }
    }
}

/// Samples that feed a model, or a selection of them. Cheap to clone; the data is shared.
#[derive(Clone)]
pub struct Dataset {
    source: Arc<dyn Source>,
    indices: Arc<[usize]>,
    labels: Option<Arc<Labels>>,
    skipped: Arc<[Skipped]>,
    name: Arc<str>,
    recurrence: Option<Arc<Recurrence>>,
}

impl Dataset {
    /// Opens the data at `path` for a model with these inputs.
    pub fn open(path: &Path, inputs: &[InputSpec], options: &DataOptions) -> Result<Self, DataError> {
        check_inputs(inputs)?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        if options.state.is_empty() && options.state_reset.is_some() {
            return Err(DataError::NoStates);
        }
        if !options.state.is_empty() {
            let fed = recurrence::fed_inputs(folder::archive(path)?.as_deref(), inputs, &options.state)?;
            let opened = folder::open(path, &fed, options)?;
            let (opened, recurrence) = recurrence::of_frames(opened, inputs, &fed, options);
            return Ok(Self::of(opened, name).of_sequences(recurrence));
        }
        let dataset = Self::of(folder::open(path, inputs, options)?, name);
        let Some(wanted) = options.samples else { return Ok(dataset) };
        let batches = wanted.max(1).div_ceil(dataset.source.batch().max(1));
        Ok(dataset.subset(&spread(dataset.len(), batches)))
    }

    /// Synthetic samples for a model with these inputs.
    pub fn synthetic(inputs: &[InputSpec], options: &SyntheticOptions) -> Result<Self, DataError> {
        check_inputs(inputs)?;
        Ok(Self::of(Opened::new(synthetic::Synthetic::new(inputs, options)?), String::new()))
    }

    /// No samples, for a model that nothing can feed.
    pub fn none() -> Self {
        Self::of(Opened::new(synthetic::Synthetic::none()), String::new())
    }

    fn of(opened: Opened, name: String) -> Self {
        let indices = (0..opened.source.len()).collect();
        let Opened { source, labels, skipped } = opened;
        let labels = labels.map(Arc::new);
        Self { source, indices, labels, skipped: skipped.into(), name: name.into(), recurrence: None }
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// Loads a sample.
    pub fn sample(&self, index: usize) -> Result<Sample, DataError> {
        let at = self.indices.get(index).copied().ok_or(DataError::OutOfRange { index, len: self.len() })?;
        Ok(Sample { arrays: self.source.arrays(at)? })
    }

    /// Whether the samples have labels.
    pub fn has_labels(&self) -> bool {
        self.labels.is_some()
    }

    /// The label of a sample; the first one where the model's batch has several rows.
    pub fn label(&self, index: usize) -> Option<i64> {
        self.labels(index)?.first().copied()
    }

    /// The labels of a sample, one per row of the model's fixed batch.
    pub fn labels(&self, index: usize) -> Option<&[i64]> {
        let labels = self.labels.as_ref()?;
        let start = self.indices.get(index)?.checked_mul(labels.per_sample)?;
        labels.values.get(start..start.checked_add(labels.per_sample)?)
    }

    /// The number of a sample in the data as it was opened.
    pub(crate) fn number(&self, index: usize) -> Option<usize> {
        self.indices.get(index).copied()
    }

    /// The files of a sample, one per row of its batch, as paths below the folder that was opened; none where the samples are
    /// no files of their own.
    pub(crate) fn files(&self, index: usize) -> Vec<String> {
        self.indices.get(index).map(|&at| self.source.files(at)).unwrap_or_default()
    }

    /// What a message calls a sample: its files, or its number in the data as it was opened.
    pub(crate) fn name(&self, index: usize) -> String {
        let files = self.files(index);
        let quoted = || files.iter().map(|file| format!("`{file}`")).collect::<Vec<_>>().join(", ");
        if files.is_empty() { format!("sample {}", self.number(index).unwrap_or(index)) } else { quoted() }
    }

    /// The images that were skipped because they could not be decoded.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// The data set in words, for instance ``512 samples from `calib.npz` ``, or ``128 × 4 images from `photos` `` for
    /// a model whose batch is fixed at 4.
    pub fn describe(&self) -> String {
        let (noun, batch) = (self.source.noun(), self.source.batch());
        let noun = match self.len() {
            _ if batch > 1 => format!("× {batch} {noun}"),
            1 => noun.trim_end_matches('s').to_owned(),
            _ => noun.to_owned(),
        };
        let from = if self.name.is_empty() { String::new() } else { format!(" from `{}`", self.name) };
        format!("{} {noun}{from}", self.len())
    }

    /// How image files become numbers, in words; none for other data.
    pub fn preprocessing(&self) -> Option<String> {
        self.source.preprocessing()
    }

    /// The samples `start .. end`, as far as they exist.
    #[must_use]
    pub fn range(&self, start: usize, end: usize) -> Self {
        let end = end.min(self.len());
        let indices = self.indices.get(start.min(end)..end).unwrap_or_default().into();
        Self { indices, ..self.clone() }
    }

    /// The samples of these indices, in this order; indices past the end are skipped.
    #[must_use]
    pub fn subset(&self, indices: &[usize]) -> Self {
        let indices = indices.iter().filter_map(|&i| self.indices.get(i).copied()).collect();
        Self { indices, ..self.clone() }
    }

    /// The shapes of the inputs in each sample; `None` for one that would have to be read for that.
    pub(crate) fn sample_shapes(&self) -> Result<Vec<Option<Vec<Vec<usize>>>>, DataError> {
        self.indices.iter().map(|&at| self.source.shapes(at)).collect()
    }

    /// How many different shapes the samples have.
    pub(crate) fn shapes(&self) -> Result<usize, DataError> {
        Ok(self.sample_shapes()?.into_iter().collect::<BTreeSet<_>>().len())
    }

    /// The same samples, those of one shape one after the other, so that what is prepared for a shape serves all of them.
    /// The first `lead` are spread over all shapes: they stand for the rest. Samples that are all alike keep their order.
    pub(crate) fn grouped(&self, lead: usize) -> Result<Self, DataError> {
        let shapes = |&at: &usize| self.source.shapes(at);
        let Some(first) = self.indices.first().map(shapes).transpose()?.flatten() else { return Ok(self.clone()) };
        let found = self.sample_shapes()?;
        if found.iter().all(|shapes| shapes.as_ref() == Some(&first)) {
            return Ok(self.clone());
        }
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by(|&a, &b| found[a].cmp(&found[b]).then(a.cmp(&b)));
        let ahead = spread(order.len(), lead);
        let rest = (0..order.len()).filter(|place| ahead.binary_search(place).is_err());
        let places: Vec<usize> = ahead.iter().copied().chain(rest).map(|place| order[place]).collect();
        Ok(self.subset(&places))
    }

    /// Whether several samples are all the same, as far as `looked_at` of them show.
    pub(crate) fn is_one_repeated(&self, looked_at: usize) -> Result<bool, DataError> {
        let (_, some) = self.split(looked_at.min(self.len()));
        if some.len() < 2 {
            return Ok(false);
        }
        let first = some.sample(0)?;
        for at in 1..some.len() {
            if some.sample(at)? != first {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Two parts without a common sample: all but `held_out` samples, and `held_out` evenly spread ones.
    pub fn split(&self, held_out: usize) -> (Self, Self) {
        let held = spread(self.len(), held_out);
        let kept: Vec<usize> = (0..self.len()).filter(|i| held.binary_search(i).is_err()).collect();
        (self.subset(&kept), self.subset(&held))
    }
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dataset").field("samples", &self.describe()).finish_non_exhaustive()
    }
}

/// Refuses inputs that no array can feed.
fn check_inputs(inputs: &[InputSpec]) -> Result<(), DataError> {
    if inputs.is_empty() {
        return Err(DataError::NoInputs);
    }
    match inputs.iter().find(|i| !array::is_supported(i.dtype)) {
        Some(bad) => Err(DataError::InputType { input: bad.name.clone(), dtype: bad.dtype }),
        None => Ok(()),
    }
}

/// The ending of a file name, in lower case, without the dot.
fn extension(path: &Path) -> String {
    path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}
