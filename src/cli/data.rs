//! Arguments that say where data comes from and how it is preprocessed.

use super::output::Usage;
use clap::Args;
use msq_onnx::Quantizer;
use msq_onnx::data::{DataOptions, Dataset, InputSpec, SyntheticOptions};
use std::path::{Path, PathBuf};

/// Samples calibrated on by default.
pub(crate) const SAMPLES: usize = 512;

/// Where data comes from.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Data")]
pub(crate) struct DataArgs {
    /// Data: .npz, .npy, a folder of either, a folder of images, or ONNX `test_data_set`_* folders
    #[arg(long, value_name = "PATH")]
    calib: Option<PathBuf>,
    #[command(flatten)]
    options: DataOptions,
}

impl DataArgs {
    /// The files it names.
    pub(crate) fn reads(&self) -> impl Iterator<Item = &Path> {
        self.calib.iter().chain(&self.options.labels).map(PathBuf::as_path)
    }

    /// The path of the data, if any is named.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.calib.as_deref()
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
    ) -> anyhow::Result<Quantizer<'a>> {
        let quantizer = quantizer.made_up(self.made_up(seed));
        let Some(data) = self.open_at_most(&quantizer.inputs(), Some(samples))? else {
            if self.options.state.is_empty() {
                return Ok(quantizer);
            }
            return Err(Usage("--state needs frames to run over: add --calib PATH".to_owned()).into());
        };
        self.warn_of(&self.calib.as_deref().map(|path| quantizer.contradicted(path)).unwrap_or_default());
        for skipped in data.skipped() {
            tracing::warn!(file = %skipped.path.display(), reason = %skipped.reason, "left out");
        }
        Ok(quantizer.calibration(data))
    }

    /// Warns of arrays in the data that are not used, since their inputs are fixed at other values.
    pub(crate) fn warn_of(&self, contradicted: &[String]) {
        let path = self.calib.as_deref().unwrap_or(Path::new("")).display();
        for name in contradicted {
            tracing::warn!("array `{name}` of `{path}` is not used: the input is fixed at another value");
        }
    }

    /// Opens other data of the same kind, as many samples as of the first.
    pub(crate) fn open_other(&self, path: &Path, inputs: &[InputSpec]) -> Result<Dataset, msq_onnx::Error> {
        let other =
            Self { calib: Some(path.to_owned()), options: DataOptions { labels: None, ..self.options.clone() } };
        other.open_at_most(inputs, Some(SAMPLES))?.ok_or(msq_onnx::Error::NoSamples)
    }

    fn open_at_most(&self, inputs: &[InputSpec], samples: Option<usize>) -> Result<Option<Dataset>, msq_onnx::Error> {
        let Some(path) = &self.calib else { return Ok(None) };
        let options = DataOptions { samples: self.options.samples.or(samples), ..self.options.clone() };
        Ok(Some(Dataset::open(path, inputs, &options)?))
    }

    /// How many samples to make up where there is no data.
    fn made_up(&self, seed: u64) -> SyntheticOptions {
        let default = SyntheticOptions::default();
        SyntheticOptions { count: self.options.samples.unwrap_or(default.count), seed, ..default }
    }
}
