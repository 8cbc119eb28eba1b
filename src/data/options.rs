//! What a caller can choose about how data is read: the flags, keys and help of the command line follow from it.

use super::recurrence::StateLink;
#[cfg(feature = "cli")]
use crate::runtime::flags::at_least_one;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// What to read and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Data"))]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DataOptions {
    /// Labels: .csv (`file,label` for images, one label per line for arrays), .npy or .npz; found by themselves in an .npz
    /// or in one folder per class.
    #[cfg_attr(feature = "cli", arg(long, value_name = "PATH"))]
    pub labels: Option<PathBuf>,
    /// Use at most this many samples, evenly spread over the data so that sorted data keeps all its kinds [default: 512 to
    /// quantize, 1024 to search, all to evaluate or compare].
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", value_parser = at_least_one))]
    pub samples: Option<usize>,
    /// The array of the .npz that feeds the model's only input.
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME"))]
    pub input_array: Option<String>,
    /// The array of the .npz that holds the labels.
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME"))]
    pub label_array: Option<String>,
    /// Samples are frames of sequences, in order: this output of a frame feeds this input of the next; may be given again.
    /// The first frame gets the input from the data where it is there, else zeros.
    #[cfg_attr(feature = "cli", arg(long, value_name = "OUT=IN"))]
    pub state: Vec<StateLink>,
    /// Frames of a sequence, after which the next one begins [default: all data are one sequence].
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", value_parser = at_least_one))]
    pub state_reset: Option<usize>,
    /// Leave out images that cannot be decoded, and say which, instead of stopping.
    #[cfg_attr(feature = "cli", arg(long))]
    pub skip_bad: bool,
    /// From pixels to the model's values.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub preprocessing: Preprocess,
}

/// From pixels to the model's values: `(pixel · scale − mean) / std`, pixels being 0..255.
///
/// Each field that is given overrides the preset. Images are resized, cropped, and then scaled; `uint8` arrays are
/// scaled when they feed a float input and a preset or a number is given; float arrays are touched only by `scale`,
/// `mean`, `std` and `layout`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Data"))]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Preprocess {
    /// Recipe for images and uint8 arrays [default: raw].
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME"))]
    pub preset: Option<Preset>,
    /// Factor on the pixels, before mean and std.
    #[cfg_attr(feature = "cli", arg(long, value_name = "F"))]
    pub scale: Option<f32>,
    /// Mean of each channel in the model's order, or one for all, on the scaled pixels.
    #[cfg_attr(feature = "cli", arg(long, value_name = "A,B,C", value_delimiter = ',', allow_hyphen_values = true))]
    pub mean: Option<Vec<f32>>,
    /// Standard deviation of each channel in the model's order, or one for all, on the scaled pixels.
    #[cfg_attr(feature = "cli", arg(long, value_name = "A,B,C", value_delimiter = ','))]
    pub std: Option<Vec<f32>>,
    /// Layout of arrays on disk, where the shapes do not tell.
    #[cfg_attr(feature = "cli", arg(long, value_name = "LAYOUT"))]
    pub layout: Option<Layout>,
    /// The layout of the model's input, where its shape does not tell.
    #[cfg_attr(feature = "cli", arg(skip))]
    pub model_layout: Option<Layout>,
    /// Channels of the model. Images are converted, arrays are taken as they are.
    #[cfg_attr(feature = "cli", arg(long, value_name = "ORDER"))]
    pub color: Option<Color>,
    /// Size of images before the crop: a short side, or `WIDTHxHEIGHT`.
    #[cfg_attr(feature = "cli", arg(long, value_name = "SIZE"))]
    pub resize: Option<Resize>,
    /// Centre crop of images: `WIDTHxHEIGHT` or one side.
    #[cfg_attr(feature = "cli", arg(long, value_name = "SIZE"))]
    pub crop: Option<Size>,
    /// How images are resized.
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME"))]
    pub filter: Option<Filter>,
    /// Fit the whole image into the model's size (or `resize`) without a crop, and pad the rest [default: center with the
    /// preset yolo, else no].
    #[cfg_attr(feature = "cli", arg(long, value_name = "WHERE", conflicts_with = "crop"))]
    pub letterbox: Option<Letterbox>,
    /// Pixel value, 0..255, of what a letterbox pads [default: 114].
    #[cfg_attr(feature = "cli", arg(long, value_name = "V"))]
    pub pad_value: Option<u8>,
    /// Pad a letterbox only to multiples of this many pixels, for models of free height and width [default: to the whole
    /// size].
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..)))]
    pub pad_multiple: Option<u32>,
}

impl Preprocess {
    /// Whether a number is given, besides a preset.
    pub(super) fn has_numbers(&self) -> bool {
        self.scale.is_some() || self.mean.is_some() || self.std.is_some()
    }
}

/// Text that is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is none of {choices}")]
pub struct ParseError {
    text: String,
    choices: &'static str,
}

/// A named recipe for images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::EnumString, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[strum(serialize_all = "lowercase")]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", value(rename_all = "lower"))]
pub enum Preset {
    /// Pixels as they are, 0..255.
    Raw,
    /// Pixels divided by 255.
    Unit,
    /// RGB, short side 256 bilinear, centre crop 224, divided by 255, mean .485 .456 .406, std .229 .224 .225.
    ImageNet,
    /// RGB, short side 256 bicubic, centre crop 224, `(pixel − 127) / 128`.
    Lite,
    /// RGB, letterbox into the model's size or 640×640, padded with 114, divided by 255, as Ultralytics' YOLO.
    Yolo,
}

/// Where a letterbox puts the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::EnumString, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[strum(serialize_all = "kebab-case")]
#[serde(rename_all = "kebab-case")]
pub enum Letterbox {
    /// In the middle, as Ultralytics: of an odd number of padded rows the larger part is below.
    Center,
    /// At the top left, as YOLOX and `MMDetection`.
    Corner,
}

/// Where the channels are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::EnumString, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[strum(serialize_all = "kebab-case")]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Channels before rows and columns.
    Nchw,
    /// Channels last.
    Nhwc,
}

/// The channels of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::EnumString, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[strum(serialize_all = "kebab-case")]
#[serde(rename_all = "kebab-case")]
pub enum Color {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One channel of luma (ITU-R 601, as Pillow's `L`).
    Gray,
}

/// The kernel that images are resized with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::EnumString, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[strum(serialize_all = "kebab-case")]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// Triangle, widened when an image shrinks, as in Pillow.
    Bilinear,
    /// Cubic with a = −0.5, widened when an image shrinks, as in Pillow.
    Bicubic,
    /// Triangle between the nearest pixels whatever the size, as `INTER_LINEAR` of `OpenCV`.
    Linear,
}

/// A size in pixels, written `WIDTHxHEIGHT` or as one number for a square.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Size {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Size {
    /// As many rows as columns.
    pub fn square(side: u32) -> Self {
        Self { width: side, height: side }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

impl FromStr for Size {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (width, height) = text.split_once('x').unwrap_or((text, text));
        match (width.parse(), height.parse()) {
            (Ok(width), Ok(height)) if width > 0 && height > 0 => Ok(Self { width, height }),
            _ => Err(ParseError { text: text.to_owned(), choices: "a side in pixels or `WIDTHxHEIGHT`" }),
        }
    }
}

/// How large an image becomes before the crop: `256` for the short side, `320x240` for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum Resize {
    /// The short side becomes this long, the aspect ratio stays.
    ShortSide(u32),
    /// Exactly this size.
    Exact(Size),
}

impl fmt::Display for Resize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShortSide(side) => write!(f, "{side}"),
            Self::Exact(size) => size.fmt(f),
        }
    }
}

impl FromStr for Resize {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let size: Size = text.parse()?;
        Ok(if text.contains('x') { Self::Exact(size) } else { Self::ShortSide(size.width) })
    }
}

/// JSON of a type that is written as text.
macro_rules! text {
    ($($name:ident)*) => {
        $(
            impl TryFrom<String> for $name {
                type Error = ParseError;

                fn try_from(text: String) -> Result<Self, ParseError> {
                    text.parse()
                }
            }

            impl From<$name> for String {
                fn from(value: $name) -> Self {
                    value.to_string()
                }
            }
        )*
    };
}

text!(Size Resize);
