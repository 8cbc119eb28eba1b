//! What can be wrong with calibration data, one line each: the file, the array, and what to do.

use std::fmt;
use std::path::PathBuf;

use msq_passes::ir::DataType;

use super::temporary::is_of_spool;
use crate::runtime::ErrorKind;

/// Where an array is: a file, and for archives the array's name in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, or the folder of a test data set.
    pub path: PathBuf,
    /// The array's name in the archive; `None` where the file is one array.
    pub array: Option<String>,
}

impl Place {
    /// A file that holds one array.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), array: None }
    }

    /// An array in an archive.
    pub fn array(path: impl Into<PathBuf>, array: impl Into<String>) -> Self {
        Self { path: path.into(), array: Some(array.into()) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.array {
            Some(array) => write!(f, "`{}`: array `{array}`", self.path.display()),
            None => write!(f, "`{}`: the array", self.path.display()),
        }
    }
}

/// Calibration data that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] msq_passes::ir::SaveError),
    /// A temporary file cannot be written.
    #[error("{source}")]
    Temporary {
        /// The system's reason, and the folder.
        source: std::io::Error,
    },
    /// Nothing at this path.
    #[error("`{}`: no such file or folder", path.display())]
    Missing {
        /// The path as given.
        path: PathBuf,
    },
    /// A pipe or a device.
    #[error("`{}` is a pipe or a device: data are read from a file on disk", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("`{}`: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file of a kind that is not read.
    #[error(
        "`{}` is not calibration data: give an .npz, .npy or image file, or a folder of .npz or .npy files, of images or of `test_data_set_*` folders",
        path.display()
    )]
    UnknownKind {
        /// The file.
        path: PathBuf,
    },
    /// A folder without anything to read.
    #[error(
        "`{}` holds no .npz or .npy file, no image (png, jpg, jpeg, bmp, webp) and no `test_data_set_*` folder",
        path.display()
    )]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A file that is not an archive.
    #[error("`{}` is not an .npz archive: {reason}", path.display())]
    NotArchive {
        /// The file.
        path: PathBuf,
        /// The reader's error.
        reason: String,
    },
    /// An array whose header or size is wrong, or in a form that is not read.
    #[error("{place} cannot be read: {reason}")]
    Npy {
        /// The array.
        place: Box<Place>,
        /// What is wrong.
        reason: NpyError,
    },
    /// A `.pb` file that is no usable tensor.
    #[error("`{}` cannot be read as an ONNX tensor: {reason}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An input for which the data has no array.
    #[error("`{}`: no array `{wanted}` for the model's input `{input}`; there is {}", path.display(), list(present))]
    MissingArray {
        /// The archive or folder.
        path: PathBuf,
        /// The name looked for.
        wanted: String,
        /// The model's input.
        input: String,
        /// The arrays present.
        present: Vec<String>,
    },
    /// One array where the model has several inputs.
    #[error(
        "`{}` feeds one input, the model has {}: {}; give an .npz with one array an input, keyed by name",
        path.display(), inputs.len(), list(inputs)
    )]
    SeveralInputs {
        /// The data.
        path: PathBuf,
        /// The model's inputs.
        inputs: Vec<String>,
    },
    /// The model has no input that data could feed.
    #[error("the model has no inputs to feed")]
    NoInputs,
    /// A state feeds an input that the model does not have.
    #[error(
        "option `state={output}={input}`, an output and the input that it feeds: the model has no input `{input}`; it has \
         `{inputs}`",
        inputs = inputs.join("`, `")
    )]
    NoStateInput {
        /// The output.
        output: String,
        /// The input.
        input: String,
        /// The model's inputs.
        inputs: Vec<String>,
    },
    /// Sequences without states.
    #[error("option `state-reset` says where states begin anew: name them with option `state`")]
    NoStates,
    /// Two states feed the same input.
    #[error("option `state`: input `{input}` is fed by two outputs")]
    StateTwice {
        /// The input.
        input: String,
    },
    /// Nothing but states feeds the model.
    #[error(
        "option `state`: every input of the model is fed by an output, so that there is none left for the data to feed"
    )]
    OnlyStates,
    /// The shape of a state is not known, or too large.
    #[error("option `state`: the shape of input `{input}` is not known; add an array for it to the data, in an .npz")]
    StateShape {
        /// The input.
        input: String,
    },
    /// An element type that no array can have.
    #[error("the model's input `{input}` is `{dtype}`, which cannot be fed from data")]
    InputType {
        /// The input.
        input: String,
        /// Its element type.
        dtype: DataType,
    },
    /// An array whose shape is not the input's.
    #[error("{place} has shape {found}, the model's input `{input}` wants {wanted}{}", tail(hint))]
    Shape {
        /// The array.
        place: Box<Place>,
        /// Its shape.
        found: ShapeText,
        /// The model's input.
        input: String,
        /// The input's shape, `N` for a free batch and `?` for other free dimensions.
        wanted: ShapeText,
        /// What may help; often empty.
        hint: String,
    },
    /// An element that the input's type cannot hold.
    #[error("{place}, sample {sample}: {reason}, the type of the model's input `{input}`")]
    Value {
        /// The array.
        place: Box<Place>,
        /// Index of the sample, from 0.
        sample: usize,
        /// The model's input.
        input: String,
        /// The value and the type.
        reason: super::array::CastError,
    },
    /// NaN or an infinity.
    #[error("{place}, sample {sample}: element {element} is {value}")]
    NotFinite {
        /// The array.
        place: Box<Place>,
        /// Index of the sample, from 0.
        sample: usize,
        /// Index of the element in the flattened sample.
        element: usize,
        /// The value.
        value: f32,
    },
    /// No samples.
    #[error("{place} is empty: shape {found}")]
    Empty {
        /// The array.
        place: Box<Place>,
        /// Its shape.
        found: ShapeText,
    },
    /// Fewer samples than one batch of the model.
    #[error("`{}`: {count} samples do not fill the model's fixed batch of {batch}", path.display())]
    FewSamples {
        /// The data.
        path: PathBuf,
        /// Samples there are.
        count: usize,
        /// The model's batch.
        batch: usize,
    },
    /// Arrays with different numbers of samples.
    #[error(
        "`{}`: array `{first}` has {first_count} samples, array `{second}` has {second_count}",
        path.display()
    )]
    SampleCounts {
        /// The archive.
        path: PathBuf,
        /// One array.
        first: String,
        /// Its samples.
        first_count: usize,
        /// Another array.
        second: String,
        /// Its samples.
        second_count: usize,
    },
    /// An image that cannot be decoded or cropped.
    #[error("`{}`: unusable image: {reason}", path.display())]
    Image {
        /// The image file.
        path: PathBuf,
        /// The decoder's error.
        reason: String,
    },
    /// Every image was bad.
    #[error("`{}`: none of the {count} images could be read", path.display())]
    AllSkipped {
        /// The folder.
        path: PathBuf,
        /// Images there are.
        count: usize,
    },
    /// Preprocessing that does not fit the input.
    #[error("preprocessing of the model's input `{input}`: {reason}")]
    Preprocess {
        /// The model's input.
        input: String,
        /// What does not fit.
        reason: String,
    },
    /// A label file or array that cannot be used.
    #[error("labels in `{}`: {reason}", path.display())]
    Labels {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A wrong number of labels.
    #[error("labels in `{}`: {labels} labels for {samples} samples", path.display())]
    LabelCount {
        /// The file.
        path: PathBuf,
        /// Labels there are.
        labels: usize,
        /// Samples there are.
        samples: usize,
    },
    /// A label that is no class of the model.
    #[error(
        "sample {sample} has the label {label}, but output `{output}` has {classes} classes, from 0 to {}; if the labels are \
         something else, option `output-kind={output}=values` says that it holds no classes",
        classes.saturating_sub(1)
    )]
    ForeignLabel {
        /// The sample.
        sample: usize,
        /// The label.
        label: i64,
        /// The output.
        output: String,
        /// The number of its classes.
        classes: usize,
    },
    /// A sample without elements with which the engine fails.
    #[error(
        "sample {sample}: input `{input}` has shape {shape}, with which the model does not run; leave such samples out"
    )]
    EmptySample {
        /// The sample.
        sample: usize,
        /// The input.
        input: String,
        /// Its shape.
        shape: ShapeText,
    },
    /// An id beyond the table that it indexes.
    #[error(
        "sample {sample}: input `{input}` has {id}, but the table that it indexes has {rows} rows; is the data of another \
         tokenizer, or of another input?"
    )]
    ForeignId {
        /// The sample.
        sample: usize,
        /// The input.
        input: String,
        /// The id.
        id: i64,
        /// Rows of the table.
        rows: i64,
    },
    /// A sample past the end.
    #[error("sample {index} was asked for, there are {len}")]
    OutOfRange {
        /// The index.
        index: usize,
        /// The number of samples.
        len: usize,
    },
}

/// A shape as messages show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeText(Box<str>);

impl DataError {
    /// What is wrong with an array, unless it is a temporary file.
    pub(super) fn npy(place: &Place, reason: NpyError) -> Self {
        match reason {
            NpyError::Read(source) if is_of_spool(&source) => Self::Temporary { source },
            reason => Self::Npy { place: Box::new(place.clone()), reason },
        }
    }

    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Write(_) | Self::Temporary { .. } => ErrorKind::Other,
            Self::NoStateInput { .. } | Self::NoStates | Self::StateTwice { .. } | Self::OnlyStates => ErrorKind::Usage,
            _ => ErrorKind::Data,
        }
    }
}

impl ShapeText {
    /// The shape of an array.
    pub fn of(shape: &[usize]) -> Self {
        Self(format!("{shape:?}").into())
    }

    /// The shape of an input: `N` for a free first dimension, `?` for other free ones.
    pub fn wanted(shape: Option<&[Option<usize>]>) -> Self {
        let Some(shape) = shape else { return Self("any shape".into()) };
        let text = |(axis, dim): (usize, &Option<usize>)| match dim {
            Some(dim) => dim.to_string(),
            None if axis == 0 => "N".to_owned(),
            None => "?".to_owned(),
        };
        let dims: Vec<String> = shape.iter().enumerate().map(text).collect();
        Self(format!("[{}]", dims.join(", ")).into())
    }
}

impl fmt::Display for ShapeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// At most sixteen names in backticks, and the number of further names.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 16;
    if names.is_empty() {
        return "none".to_owned();
    }
    let text = names.iter().take(SHOWN).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{text} and {} more", names.len() - SHOWN) } else { text }
}

fn tail(hint: &str) -> String {
    if hint.is_empty() { String::new() } else { format!("; {hint}") }
}

/// What is wrong with an `.npy` file or a member of an archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NpyError {
    /// Other bytes.
    #[error("it does not start as an .npy file does")]
    NotNpy,
    /// A version from the future.
    #[error("version {0}.{1} of the .npy format is not known")]
    Version(u8, u8),
    /// A header that is not the fixed dictionary.
    #[error("its header is not valid at `{0}`")]
    Header(String),
    /// A header of absurd length.
    #[error("its header is {0} bytes long")]
    HeaderLength(usize),
    /// Pickled Python objects.
    #[error("it holds Python objects: save it again with a numeric dtype")]
    Objects,
    /// Text, complex numbers, dates, records.
    #[error("it holds elements of type `{0}`: only real numbers, integers and bool are read")]
    ElementType(String),
    /// More bytes than any calibration array has.
    #[error("its header declares shape {0}, which is more than 64 GiB")]
    TooLarge(ShapeText),
    /// Fewer bytes than the shape wants.
    #[error("it ends after {found} of {wanted} bytes of data")]
    Truncated {
        /// Bytes there are.
        found: u64,
        /// Bytes that shape and element type want.
        wanted: u64,
    },
    /// More bytes than the shape wants.
    #[error("it has {found} bytes of data where its shape wants {wanted}")]
    TooLong {
        /// Bytes there are.
        found: u64,
        /// Bytes that shape and element type want.
        wanted: u64,
    },
    /// A file that ends before what it says that it holds.
    #[error("the file ends too early: it was not copied or written whole")]
    EndsEarly,
    /// Damaged compression, a wrong checksum, or the system's refusal.
    #[error(transparent)]
    Read(std::io::Error),
}

impl From<std::io::Error> for NpyError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Self::EndsEarly,
            _ => Self::Read(error),
        }
    }
}
