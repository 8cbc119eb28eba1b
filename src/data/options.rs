//! How calibration data is read: the choices of the command line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// What to read and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DataOptions {
    /// At most this many samples (and at least one), evenly spread over the data so that sorted data keeps all its kinds.
    pub samples: Option<usize>,
    /// From pixels to the model's values.
    pub preprocessing: Preprocess,
    /// Labels: a `.csv` (`file,label` for images, one label a line for arrays), `.npy` or `.npz`.
    pub labels: Option<PathBuf>,
    /// The array of an `.npz` that feeds a single-input model.
    pub input_array: Option<String>,
    /// The array of an `.npz` that holds the labels.
    pub label_array: Option<String>,
    /// Leave out images that cannot be decoded, instead of stopping. They are listed by `Dataset::skipped`.
    pub skip_bad: bool,
}

/// From pixels to the model's values: `(pixel · scale − mean) / std`, pixels being 0..255.
///
/// Each field that is given overrides the preset. Images are resized, cropped, and then scaled; `uint8` arrays are
/// scaled when they feed a float input and a preset or a number is given; float arrays are touched only by `scale`,
/// `mean`, `std` and `layout`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preprocess {
    /// A named recipe; nothing means [`Preset::Raw`].
    pub preset: Option<Preset>,
    /// Factor on the pixels, applied first.
    pub scale: Option<f32>,
    /// Mean of each channel in the model's order, or one for all, on the scaled pixels.
    pub mean: Option<Vec<f32>>,
    /// Standard deviation of each channel in the model's order, or one for all, on the scaled pixels.
    pub std: Option<Vec<f32>>,
    /// The layout of arrays on disk, where it cannot be told from the shapes.
    pub layout: Option<Layout>,
    /// The layout of the model's input, where it cannot be told from its shape.
    pub model_layout: Option<Layout>,
    /// The model's channels. Images are converted; arrays are taken as they are.
    pub color: Option<Color>,
    /// Size of images before the crop.
    pub resize: Option<Resize>,
    /// Size of the centre crop, as width and height.
    pub crop: Option<Size>,
    /// How images are resized.
    pub filter: Option<Filter>,
}

impl Preprocess {
    /// Whether a number is given, besides a preset.
    pub(super) fn has_numbers(&self) -> bool {
        self.scale.is_some() || self.mean.is_some() || self.std.is_some()
    }
}

/// Text that names no choice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is none of {choices}")]
pub struct ParseError {
    text: String,
    choices: &'static str,
}

/// An enum whose variants are words of the command line.
macro_rules! words {
    ($name:ident, $choices:literal, $($variant:ident = $word:literal),+) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word),+ })
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(ParseError { text: text.to_owned(), choices: $choices }),
                }
            }
        }
    };
}

/// A named recipe for images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Pixels as they are, 0..255.
    Raw,
    /// Pixels divided by 255.
    Unit,
    /// RGB, short side 256 bilinear, centre crop 224, divided by 255, mean .485 .456 .406, std .229 .224 .225.
    ImageNet,
    /// RGB, short side 256 bicubic, centre crop 224, `(pixel − 127) / 128`.
    Lite,
}
words!(Preset, "`raw`, `unit`, `imagenet`, `lite`", Raw = "raw", Unit = "unit", ImageNet = "imagenet", Lite = "lite");

/// Where the channels are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Channels before rows and columns.
    Nchw,
    /// Channels last.
    Nhwc,
}
words!(Layout, "`nchw`, `nhwc`", Nchw = "nchw", Nhwc = "nhwc");

/// The channels of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One channel of luma (ITU-R 601, as Pillow's `L`).
    Gray,
}
words!(Color, "`rgb`, `bgr`, `gray`", Rgb = "rgb", Bgr = "bgr", Gray = "gray");

/// The kernel that images are resized with. Both are widened when they shrink, as in Pillow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Triangle.
    Bilinear,
    /// Cubic with a = −0.5.
    Bicubic,
}
words!(Filter, "`bilinear`, `bicubic`", Bilinear = "bilinear", Bicubic = "bicubic");

/// A size in pixels, written `WIDTHxHEIGHT` or as one number for a square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
