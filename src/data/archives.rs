//! A folder of `.npz` archives, each with one sample or several: what differs in length from sample to sample, for models with
//! several inputs too.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::array::Array;
use super::arrays::{Outline, Stacked, stacked};
use super::error::DataError;
use super::labels::LabelFile;
use super::npz::Archive;
use super::source::{Labels, Opened, Source};
use super::{DataOptions, InputSpec};
use crate::runtime::lock;

/// Archives that stay open, those used last.
const OPEN: usize = 8;

/// An archive, and what its headers say.
struct Part {
    path: PathBuf,
    /// Number of its first sample.
    first: usize,
    shapes: Vec<Vec<usize>>,
}

/// The archives of a folder, one after the other.
struct Archives {
    parts: Vec<Part>,
    samples: usize,
    batch: usize,
    inputs: Vec<InputSpec>,
    options: DataOptions,
    open: Mutex<Vec<(usize, Arc<Stacked>)>>,
}

impl Archives {
    /// The archive of a sample.
    fn part(&self, index: usize) -> Result<usize, DataError> {
        let at = self.parts.partition_point(|part| part.first <= index);
        let found = at.checked_sub(1).filter(|_| index < self.samples);
        found.ok_or(DataError::OutOfRange { index, len: self.samples })
    }

    fn opened(&self, at: usize) -> Result<Arc<Stacked>, DataError> {
        let known = |open: &mut Vec<(usize, Arc<Stacked>)>| {
            let place = open.iter().position(|(part, _)| *part == at)?;
            open[..=place].rotate_right(1);
            Some(Arc::clone(&open[0].1))
        };
        if let Some(found) = known(&mut lock(&self.open)) {
            return Ok(found);
        }
        let path = &self.parts[at].path;
        let made = Arc::new(stacked(&mut Archive::open(path)?, &self.inputs, &self.options, path)?);
        let mut open = lock(&self.open);
        open.insert(0, (at, Arc::clone(&made)));
        open.truncate(OPEN);
        Ok(made)
    }
}

impl Source for Archives {
    fn len(&self) -> usize {
        self.samples
    }

    fn arrays(&self, index: usize) -> Result<Vec<Array>, DataError> {
        let at = self.part(index)?;
        self.opened(at)?.arrays(index - self.parts[at].first)
    }

    fn shapes(&self, index: usize) -> Result<Option<Vec<Vec<usize>>>, DataError> {
        Ok(Some(self.parts[self.part(index)?].shapes.clone()))
    }

    fn batch(&self) -> usize {
        self.batch
    }
}

/// Opens the archives of a folder.
pub(super) fn open(files: &[PathBuf], inputs: &[InputSpec], options: &DataOptions) -> Result<Opened, DataError> {
    let (mut parts, mut samples, mut batch) = (Vec::with_capacity(files.len()), 0, 1);
    let mut labels = Some(Vec::new());
    for path in files {
        let outline = Outline::of(path, inputs, options)?;
        parts.push(Part { path: path.clone(), first: samples, shapes: outline.shapes });
        samples += outline.samples;
        batch = outline.batch;
        labels = labels.zip(outline.labels).map(|(mut all, own)| {
            all.push(own);
            all
        });
    }
    let labels = match &options.labels {
        Some(file) => Some(of_file(LabelFile::read(file)?, files, samples, file)?),
        None => labels.and_then(joined),
    };
    let source =
        Archives { parts, samples, batch, inputs: inputs.to_vec(), options: options.clone(), open: Mutex::default() };
    // A first sample that cannot be read is an error on opening.
    source.arrays(0)?;
    Ok(Opened { labels, ..Opened::new(source) })
}

/// Labels of a file: one per archive where each has one sample, else one per sample.
fn of_file(labels: LabelFile, files: &[PathBuf], samples: usize, path: &Path) -> Result<Labels, DataError> {
    if files.len() == samples {
        return Ok(Labels { values: labels.of_images(files, path)?, per_sample: 1 });
    }
    let values = labels.into_values();
    if values.len() != samples {
        return Err(DataError::LabelCount { path: path.to_owned(), labels: values.len(), samples });
    }
    Ok(Labels { values, per_sample: 1 })
}

/// The labels that all archives have, if they have as many per sample.
fn joined(parts: Vec<Labels>) -> Option<Labels> {
    let per_sample = parts.first()?.per_sample;
    let alike = parts.iter().all(|part| part.per_sample == per_sample);
    alike.then(|| Labels { values: parts.into_iter().flat_map(|part| part.values).collect(), per_sample })
}
