//! Image files: one, a folder, or a folder with one sub-folder per class.
//!
//! Class folders determine labels: where every folder's name is a number, that number; else the folder's position among
//! the names in byte order, as torchvision and Keras count.

use std::path::{Path, PathBuf};

use super::array::{Array, ArrayData};
use super::error::{DataError, Place};
use super::feed::{Feed, Rules, shape_error};
use super::labels::LabelFile;
use super::picture::{self, Picture};
use super::preprocess::{Geometry, ImageForm};
use super::source::{Labels, Opened, Skipped, Source, only_input, spread};
use super::{Color, DataOptions, InputSpec, Layout, Preset};

/// Images in order, one or several per sample.
struct Images {
    folder: PathBuf,
    files: Vec<PathBuf>,
    spec: InputSpec,
    rules: Rules,
    geometry: Geometry,
    layout: Layout,
    batch: usize,
}

impl Source for Images {
    fn len(&self) -> usize {
        self.files.len() / self.batch
    }

    fn arrays(&self, index: usize) -> Result<Vec<Array>, DataError> {
        let start = index * self.batch;
        let files = self.files.get(start..start + self.batch).unwrap_or_default();
        let [first, rest @ ..] = files else { return Err(DataError::OutOfRange { index, len: self.len() }) };
        let Picture { size, channels, mut pixels } = picture::load(first, self.geometry)?;
        for file in rest {
            let next = picture::load(file, self.geometry)?;
            if next.size != size {
                let reason = format!("{} pixels, the first image of its batch has {size}", next.size);
                return Err(DataError::Image { path: file.clone(), reason });
            }
            pixels.extend(next.pixels);
        }
        let shape = vec![files.len(), size.height as usize, size.width as usize, channels];
        let place = Place::file(first);
        let mismatch = |e: super::array::LengthError| shape_error(&self.spec, &e.shape, &place, "");
        let array = Array::new(shape, ArrayData::U8(pixels)).map_err(mismatch)?;
        let feed = Feed::plan(&self.spec, array.shape(), array.dtype(), &place, &self.rules)?;
        Ok(vec![feed.apply(array, &place, index)?])
    }

    /// Known without decoding, and asked for only where images may end with different sizes.
    fn shapes(&self, index: usize) -> Result<Option<Vec<Vec<usize>>>, DataError> {
        let file = self.files.get(index * self.batch).filter(|_| !self.geometry.is_fixed());
        let Some(file) = file else { return Ok(None) };
        let Some(size) = self.geometry.result(picture::size(file)?) else { return Ok(None) };
        let channels = if self.geometry.color == Color::Gray { 1 } else { 3 };
        let (height, width) = (size.height as usize, size.width as usize);
        let mut shape = match self.layout {
            Layout::Nchw => vec![channels, height, width],
            Layout::Nhwc => vec![height, width, channels],
        };
        if self.spec.shape.as_ref().is_none_or(|shape| shape.len() == 4) {
            shape.insert(0, self.batch);
        }
        Ok(Some(vec![shape]))
    }

    fn batch(&self) -> usize {
        self.batch
    }

    fn files(&self, index: usize) -> Vec<String> {
        let start = index * self.batch;
        let files = self.files.get(start..start + self.batch).unwrap_or_default();
        files.iter().map(|file| relative(file, &self.folder)).collect()
    }

    fn preprocessing(&self) -> Option<String> {
        Some(self.geometry.describe(&self.rules.preprocessing))
    }

    fn noun(&self) -> &'static str {
        "images"
    }
}

/// Opens image files; `classes` are those of class folders, one per file.
pub(super) fn open(
    path: &Path,
    files: &[PathBuf],
    classes: Option<Vec<i64>>,
    inputs: &[InputSpec],
    options: &DataOptions,
) -> Result<Opened, DataError> {
    let spec = only_input(inputs, path)?.clone();
    let preprocess = |reason: &str| DataError::Preprocess { input: spec.name.clone(), reason: reason.to_owned() };
    let form = ImageForm::of(spec.shape.as_deref(), options.preprocessing.model_layout, true)
        .ok_or_else(|| preprocess("images were given, and the input does not have the shape of images"))?;
    let form = ImageForm { stated: spec.image_size, ..form };
    let preprocessing = options.preprocessing.clone();
    let crops = options.preprocessing.crop.is_some();
    if crops && (options.preprocessing.letterbox.is_some() || options.preprocessing.preset == Some(Preset::Yolo)) {
        return Err(preprocess("a letterbox takes whole images, and a crop is asked for: leave out one of them"));
    }
    let rules = Rules { only_input: true, images: true, preprocessing };
    let geometry = Geometry::of(&options.preprocessing, form);
    let has_batch_axis = spec.shape.as_ref().is_none_or(|s| s.len() == 4);
    let fixed = spec.shape.as_ref().and_then(|s| s.first().copied().flatten());
    let batch = if has_batch_axis { fixed.unwrap_or(1).max(1) } else { 1 };
    let labels = match &options.labels {
        Some(file) => Some(LabelFile::read(file)?.of_images(files, file)?),
        None => classes,
    };
    let kept = select(path, files, options, batch, geometry)?;
    let labels = labels.map(|values| kept.indices.iter().filter_map(|&i| values.get(i).copied()).collect());
    let files: Vec<PathBuf> = kept.indices.iter().filter_map(|&i| files.get(i).cloned()).collect();
    if files.len() < batch {
        return Err(DataError::FewSamples { path: path.to_owned(), count: files.len(), batch });
    }
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) }.to_owned();
    let source = Images { folder, files, spec, rules, geometry, layout: form.layout, batch };
    // A first image that does not fit is an error on opening.
    source.arrays(0)?;
    let labels = labels.map(|values| Labels { values, per_sample: batch });
    Ok(Opened { labels, skipped: kept.skipped, ..Opened::new(source) })
}

/// The path of a file below a folder, parts separated by `/`.
fn relative(file: &Path, folder: &Path) -> String {
    let parts = file.strip_prefix(folder).unwrap_or(file).components();
    parts.map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// The images to use, and the skipped ones.
struct Kept {
    indices: Vec<usize>,
    skipped: Vec<Skipped>,
}

/// Spreads the samples over the images, in whole batches. Every header is read, so that a broken file is reported
/// before the first sample runs; where broken files are skipped, every image is decoded once.
fn select(
    path: &Path,
    files: &[PathBuf],
    options: &DataOptions,
    batch: usize,
    geometry: Geometry,
) -> Result<Kept, DataError> {
    let wanted = options.samples.unwrap_or(files.len()).max(1).div_ceil(batch).saturating_mul(batch);
    let mut kept = Kept { indices: Vec::new(), skipped: Vec::new() };
    for index in spread(files.len(), wanted) {
        let Some(file) = files.get(index) else { continue };
        let check = if options.skip_bad { picture::load(file, geometry).map(drop) } else { picture::probe(file) };
        match check {
            Ok(()) => kept.indices.push(index),
            Err(error) if options.skip_bad => {
                tracing::debug!(file = %file.display(), %error, "image left out");
                kept.skipped.push(Skipped { path: file.clone(), reason: error.to_string() });
            }
            Err(error) => return Err(error),
        }
    }
    if kept.indices.is_empty() {
        return Err(DataError::AllSkipped { path: path.to_owned(), count: files.len() });
    }
    Ok(kept)
}
