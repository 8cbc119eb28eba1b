//! Arguments that say where data comes from and how it is preprocessed.

use clap::Args;
use msq_onnx::Quantizer;
use msq_onnx::data::{
    Color, DataOptions, Dataset, Filter, InputSpec, Layout, Preprocess, Preset, Resize, Size, SyntheticOptions,
};
use std::num::NonZero;
use std::path::{Path, PathBuf};

/// Samples calibrated on by default.
pub(crate) const SAMPLES: usize = 512;

/// Where data comes from.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Data")]
pub(crate) struct DataArgs {
    /// Data: .npz, .npy, a folder of .npy, a folder of images, or ONNX `test_data_set`_* folders
    #[arg(long, value_name = "PATH")]
    calib: Option<PathBuf>,
    /// Labels: .csv (file,label), .npy or .npz; found by themselves in an .npz or in one folder a class
    #[arg(long, value_name = "PATH")]
    labels: Option<PathBuf>,
    /// Use at most this many samples, evenly spread [default: 512 to quantize, 1024 to search, all to evaluate or compare]
    #[arg(long, value_name = "N")]
    samples: Option<NonZero<usize>>,
    /// The array of the .npz that feeds the model's only input
    #[arg(long, value_name = "NAME")]
    input_array: Option<String>,
    /// The array of the .npz that holds the labels
    #[arg(long, value_name = "NAME")]
    label_array: Option<String>,
    /// Leave out images that cannot be read, and say which
    #[arg(long)]
    skip_bad: bool,
    /// Recipe for images and uint8 arrays: raw, unit, imagenet or lite
    #[arg(long, value_name = "NAME")]
    preset: Option<Preset>,
    /// Factor on the pixels, before mean and std
    #[arg(long, value_name = "F")]
    scale: Option<f32>,
    /// Mean of each channel, on the scaled pixels
    #[arg(long, value_name = "A,B,C", value_delimiter = ',', allow_hyphen_values = true)]
    mean: Option<Vec<f32>>,
    /// Standard deviation of each channel, on the scaled pixels
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    std: Option<Vec<f32>>,
    /// Layout of arrays on disk, nchw or nhwc, where the shapes do not tell
    #[arg(long, value_name = "LAYOUT")]
    layout: Option<Layout>,
    /// Channels of the model: rgb, bgr or gray
    #[arg(long, value_name = "ORDER")]
    color: Option<Color>,
    /// Resize images before the crop: a short side, or `WIDTHxHEIGHT`
    #[arg(long, value_name = "SIZE")]
    resize: Option<Resize>,
    /// Centre crop of images: `WIDTHxHEIGHT` or one side
    #[arg(long, value_name = "SIZE")]
    crop: Option<Size>,
    /// How images are resized: bilinear or bicubic
    #[arg(long, value_name = "NAME")]
    filter: Option<Filter>,
}

impl DataArgs {
    /// The files it names.
    pub(crate) fn reads(&self) -> impl Iterator<Item = &Path> {
        self.calib.iter().chain(&self.labels).map(PathBuf::as_path)
    }

    /// Whether any data is named.
    pub(crate) fn is_given(&self) -> bool {
        self.calib.is_some()
    }

    /// Opens the data, if any is named: all of it unless the user says how much.
    pub(crate) fn open(&self, inputs: &[InputSpec]) -> Result<Option<Dataset>, msq_onnx::Error> {
        self.open_at_most(inputs, None)
    }

    /// The quantizer with the data, if any is named; with so many samples unless the user says how many.
    pub(crate) fn applied<'a>(
        &self,
        quantizer: Quantizer<'a>,
        samples: usize,
        seed: u64,
    ) -> Result<Quantizer<'a>, msq_onnx::Error> {
        let quantizer = quantizer.made_up(self.made_up(seed));
        let Some(data) = self.open_at_most(&quantizer.inputs(), Some(samples))? else { return Ok(quantizer) };
        for skipped in data.skipped() {
            tracing::warn!(file = %skipped.path.display(), reason = %skipped.reason, "left out");
        }
        Ok(quantizer.calibration(data))
    }

    /// Opens other data of the same kind, as many samples as of the first.
    pub(crate) fn open_other(&self, path: &Path, inputs: &[InputSpec]) -> Result<Dataset, msq_onnx::Error> {
        let other = Self { calib: Some(path.to_owned()), labels: None, ..self.clone() };
        other.open_at_most(inputs, Some(SAMPLES))?.ok_or(msq_onnx::Error::NoSamples)
    }

    fn open_at_most(&self, inputs: &[InputSpec], samples: Option<usize>) -> Result<Option<Dataset>, msq_onnx::Error> {
        let Some(path) = &self.calib else { return Ok(None) };
        let options = DataOptions {
            samples: self.samples.map(NonZero::get).or(samples),
            preprocessing: self.preprocess(),
            labels: self.labels.clone(),
            input_array: self.input_array.clone(),
            label_array: self.label_array.clone(),
            skip_bad: self.skip_bad,
        };
        Ok(Some(Dataset::open(path, inputs, &options)?))
    }

    fn preprocess(&self) -> Preprocess {
        Preprocess {
            preset: self.preset,
            scale: self.scale,
            mean: self.mean.clone(),
            std: self.std.clone(),
            layout: self.layout,
            model_layout: None,
            color: self.color,
            resize: self.resize,
            crop: self.crop,
            filter: self.filter,
        }
    }

    /// How many samples to make up where there is no data.
    fn made_up(&self, seed: u64) -> SyntheticOptions {
        let default = SyntheticOptions::default();
        SyntheticOptions { count: self.samples.map_or(default.count, NonZero::get), seed, ..default }
    }
}
