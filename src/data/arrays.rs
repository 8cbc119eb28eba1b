//! Arrays of samples: an `.npz`, an `.npy`, a folder of `.npy` files; for folders of `.npz` see
//! [`archives`](super::archives).
//!
//! The array of an archive with an input's name feeds that input. A model with one input also takes the array named in
//! the options, the only array, the only array besides labels, or one called `x`, `input`, `images` or `data`; other
//! arrays are ignored.

use std::path::{Path, PathBuf};

use msq_passes::ir::DataType;

use super::array::Array;
use super::error::{DataError, Place, ShapeText};
use super::feed::{Feed, Rules, fits};
use super::labels::{self, LabelFile, NAMES};
use super::npy::Rows;
use super::npz::Archive;
use super::source::{Labels, Opened, Source};
use super::{DataOptions, InputSpec};

/// Names of arrays that may feed the input when nothing else identifies one.
const CONVENTIONAL: [&str; 4] = ["x", "input", "images", "data"];

/// One array, by its header, and the input it feeds.
struct Column {
    place: Place,
    shape: Vec<usize>,
    feed: Feed,
    /// Whether it may be the whole input of one sample.
    fits: bool,
}

impl Column {
    fn plan(
        place: Place,
        shape: &[usize],
        dtype: DataType,
        spec: &InputSpec,
        rules: &Rules,
    ) -> Result<Self, DataError> {
        if shape.first() == Some(&0) {
            return Err(DataError::Empty { place: Box::new(place), found: ShapeText::of(shape) });
        }
        let feed = Feed::plan(spec, shape, dtype, &place, rules)?;
        Ok(Self { place, shape: shape.to_vec(), feed, fits: fits(shape, spec.shape.as_deref()) })
    }

    /// The number of samples; `None` for an array that every sample takes whole.
    fn samples(&self) -> Option<usize> {
        Some(self.shape.first()? / self.feed.rows()?)
    }

    /// The shape of the input in each sample.
    fn sample_shape(&self) -> Vec<usize> {
        self.feed.sample_shape(&self.shape)
    }

    fn read(&self, rows: &Rows, sample: usize) -> Result<Array, DataError> {
        let rows = match self.feed.rows() {
            Some(count) => rows.read(sample * count, count)?,
            None => rows.read_all()?,
        };
        self.feed.apply(rows, &self.place, sample)
    }
}

/// Arrays whose first axis counts the samples.
pub(super) struct Stacked {
    columns: Vec<(Column, Rows)>,
    samples: usize,
}

impl Source for Stacked {
    fn len(&self) -> usize {
        self.samples
    }

    fn arrays(&self, index: usize) -> Result<Vec<Array>, DataError> {
        self.columns.iter().map(|(column, rows)| column.read(rows, index)).collect()
    }

    fn batch(&self) -> usize {
        self.columns.iter().find_map(|(column, _)| column.feed.rows()).unwrap_or(1)
    }
}

/// The arrays of an archive that feed the inputs, by their headers, and their names.
fn columns(
    archive: &mut Archive,
    inputs: &[InputSpec],
    options: &DataOptions,
    path: &Path,
) -> Result<Vec<(String, Column)>, DataError> {
    let rules = rules(inputs, options);
    let mut columns = Vec::with_capacity(inputs.len());
    for spec in inputs {
        let name = choose(archive, spec, inputs.len() == 1, options, path)?;
        tracing::debug!(array = %name, input = %spec.name, "calibration array");
        let header = archive.header(&name)?;
        let column = Column::plan(archive.place(&name), &header.shape, header.dtype, spec, &rules)?;
        columns.push((name, column));
    }
    let mut counts = columns.iter().filter_map(|(_, column)| column.samples());
    let first = counts.next();
    let uneven = counts.any(|count| Some(count) != first);
    if uneven && have_no_batch(inputs) && columns.iter().all(|(_, column)| column.fits) {
        for (_, column) in &mut columns {
            column.feed.take_all();
        }
    }
    Ok(columns)
}

/// Whether the model says that the first axes of its inputs count different things, as the nodes and edges of a graph.
fn have_no_batch(inputs: &[InputSpec]) -> bool {
    let first = |spec: &InputSpec| match spec.shape.as_ref()?.first()? {
        Some(length) => Some(length.to_string()),
        None => spec.symbols.first().cloned().flatten(),
    };
    let firsts: Option<Vec<String>> = inputs.iter().map(first).collect();
    firsts.is_some_and(|firsts| firsts.iter().any(|other| *other != firsts[0]))
}

/// The samples of an archive, which stays open.
pub(super) fn stacked(
    archive: &mut Archive,
    inputs: &[InputSpec],
    options: &DataOptions,
    path: &Path,
) -> Result<Stacked, DataError> {
    let columns = columns(archive, inputs, options, path)?;
    let samples = count(&columns.iter().map(|(_, column)| column).collect::<Vec<_>>(), path)?;
    let opened = columns.into_iter().map(|(name, column)| Ok((column, archive.rows(&name)?)));
    Ok(Stacked { columns: opened.collect::<Result<_, DataError>>()?, samples })
}

/// What an archive holds, by the headers of its arrays.
pub(super) struct Outline {
    pub(super) samples: usize,
    /// The shapes of the inputs in each sample.
    pub(super) shapes: Vec<Vec<usize>>,
    pub(super) labels: Option<Labels>,
    /// Rows per sample.
    pub(super) batch: usize,
}

impl Outline {
    pub(super) fn of(path: &Path, inputs: &[InputSpec], options: &DataOptions) -> Result<Self, DataError> {
        let mut archive = Archive::open(path)?;
        let columns: Vec<Column> =
            columns(&mut archive, inputs, options, path)?.into_iter().map(|(_, column)| column).collect();
        let samples = count(&columns.iter().collect::<Vec<_>>(), path)?;
        let numbered = Numbered::of(&columns, samples);
        let labels = match options.labels {
            Some(_) => None,
            None => labels_inside(&mut archive, &numbered, inputs, options, path)?,
        };
        let shapes = columns.iter().map(Column::sample_shape).collect();
        Ok(Self { samples, shapes, labels, batch: numbered.batch })
    }
}

/// Opens an `.npz`.
pub(super) fn open_npz(path: &Path, inputs: &[InputSpec], options: &DataOptions) -> Result<Opened, DataError> {
    let mut archive = Archive::open(path)?;
    let stacked = stacked(&mut archive, inputs, options, path)?;
    let numbered = stacked.numbered();
    let labels = match &options.labels {
        Some(file) => Some(labels_of(LabelFile::read(file)?, &numbered, file)?),
        None => labels_inside(&mut archive, &numbered, inputs, options, path)?,
    };
    Ok(Opened { labels, ..Opened::new(stacked) })
}

/// Opens an `.npy` whose first axis counts the samples.
pub(super) fn open_npy(path: &Path, inputs: &[InputSpec], options: &DataOptions) -> Result<Opened, DataError> {
    let spec = super::source::only_input(inputs, path)?;
    let rows = Rows::open(path)?;
    let column = Column::plan(rows.place().clone(), rows.shape(), rows.dtype(), spec, &rules(inputs, options))?;
    let samples = count(&[&column], path)?;
    let stacked = Stacked { columns: vec![(column, rows)], samples };
    let labels = |file| labels_of(LabelFile::read(file)?, &stacked.numbered(), file);
    let labels = options.labels.as_deref().map(labels).transpose()?;
    Ok(Opened { labels, ..Opened::new(stacked) })
}

fn rules(inputs: &[InputSpec], options: &DataOptions) -> Rules {
    Rules { preprocessing: options.preprocessing.clone(), only_input: inputs.len() == 1, images: false }
}

/// The number of samples, which the arrays have to agree on.
fn count(columns: &[&Column], path: &Path) -> Result<usize, DataError> {
    let name = |column: &Column| column.place.array.clone().unwrap_or_default();
    let counted = || columns.iter().filter_map(|c| Some((c, c.samples()?)));
    // Without any counted array, every input is a constant: one sample.
    let Some((first, samples)) = counted().next() else { return Ok(1) };
    if let Some((other, count)) = counted().find(|&(_, count)| count != samples) {
        return Err(DataError::SampleCounts {
            path: path.to_owned(),
            first: name(first),
            first_count: samples,
            second: name(other),
            second_count: count,
        });
    }
    if samples == 0 {
        let count = first.shape.first().copied().unwrap_or(0);
        return Err(DataError::FewSamples { path: path.to_owned(), count, batch: first.feed.rows().unwrap_or(1) });
    }
    Ok(samples)
}

/// The array for an input.
fn choose(
    archive: &Archive,
    spec: &InputSpec,
    only_input: bool,
    options: &DataOptions,
    path: &Path,
) -> Result<String, DataError> {
    let names = archive.names();
    let missing = |wanted: &str| DataError::MissingArray {
        path: path.to_owned(),
        wanted: wanted.to_owned(),
        input: spec.name.clone(),
        present: names.clone(),
    };
    if !only_input {
        return if archive.contains(&spec.name) { Ok(spec.name.clone()) } else { Err(missing(&spec.name)) };
    }
    if let Some(name) = &options.input_array {
        return if archive.contains(name) { Ok(name.clone()) } else { Err(missing(name)) };
    }
    let is_label = |n: &str| options.label_array.as_deref() == Some(n) || NAMES.contains(&n);
    let others: Vec<&String> = names.iter().filter(|n| !is_label(n)).collect();
    let only = match (names.as_slice(), others.as_slice()) {
        ([name], _) => Some(name.clone()),
        (_, [name]) => Some((*name).clone()),
        _ => None,
    };
    let conventional = || CONVENTIONAL.iter().find(|n| archive.contains(n)).map(|&n| n.to_owned());
    let own = archive.contains(&spec.name).then(|| spec.name.clone());
    own.or(only).or_else(conventional).ok_or_else(|| missing(&spec.name))
}

/// How many samples and rows there are, for which there may be labels.
struct Numbered {
    samples: usize,
    rows: usize,
    /// Rows per sample.
    batch: usize,
}

impl Numbered {
    fn of<'a>(columns: impl IntoIterator<Item = &'a Column>, samples: usize) -> Self {
        let rows = columns.into_iter().find_map(|c| Some((c.feed.rows()?, c.shape.first().copied()?)));
        let (batch, rows) = rows.unwrap_or((1, 1));
        Self { samples, rows, batch }
    }

    /// The possible numbers of labels: one per sample, or one per row.
    fn fit(&self, values: Vec<i64>) -> Option<Labels> {
        match values.len() {
            n if n == self.rows => Some(Labels { values, per_sample: self.batch }),
            n if n == self.samples => Some(Labels { values, per_sample: 1 }),
            _ => None,
        }
    }
}

impl Stacked {
    fn numbered(&self) -> Numbered {
        Numbered::of(self.columns.iter().map(|(column, _)| column), self.samples)
    }
}

fn labels_of(file: LabelFile, numbered: &Numbered, path: &Path) -> Result<Labels, DataError> {
    let values = file.into_values();
    let labels = values.len();
    let error = DataError::LabelCount { path: path.to_owned(), labels, samples: numbered.samples };
    numbered.fit(values).ok_or(error)
}

/// The labels in the archive: those that the options name, else an array with a usual label name and a label's form.
fn labels_inside(
    archive: &mut Archive,
    numbered: &Numbered,
    inputs: &[InputSpec],
    options: &DataOptions,
    path: &Path,
) -> Result<Option<Labels>, DataError> {
    if let Some(name) = &options.label_array {
        if !archive.contains(name) {
            let known = archive.names().iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let reason = format!("no array `{name}`, which option `label-array` names; there is {known}");
            return Err(DataError::Labels { path: path.to_owned(), reason });
        }
        let values = labels::integers(&archive.rows(name)?.read_all()?, path)?;
        let count = DataError::LabelCount { path: path.to_owned(), labels: values.len(), samples: numbered.samples };
        return numbered.fit(values).map(Some).ok_or(count);
    }
    for name in NAMES.iter().filter(|n| inputs.iter().all(|i| i.name != **n)) {
        // An array of text with such a name holds class names: it cannot be read here, and is not labels.
        let Some(header) = archive.contains(name).then(|| archive.header(name).ok()).flatten() else { continue };
        let found = if labels::is_label_shape(&header.shape) {
            labels::integers(&archive.rows(name)?.read_all()?, path).map_err(|_| "its numbers are not whole".to_owned())
        } else {
            Err(format!("its shape is {:?}, labels are one number a sample", header.shape))
        };
        let fitting = found.and_then(|values| {
            let refused = format!("it has {} for {} samples", values.len(), numbered.samples);
            numbered.fit(values).ok_or(refused)
        });
        match fitting {
            Ok(labels) => return Ok(Some(labels)),
            Err(reason) => tracing::warn!("`{name}` in `{}` is not taken for labels: {reason}", path.display()),
        }
    }
    Ok(None)
}

/// A folder of `.npy` files, one sample per file, with or without the batch axis.
struct NpyFolder {
    files: Vec<PathBuf>,
    spec: InputSpec,
    rules: Rules,
    /// Files per sample.
    batch: usize,
}

impl Source for NpyFolder {
    fn len(&self) -> usize {
        self.files.len() / self.batch
    }

    fn arrays(&self, index: usize) -> Result<Vec<Array>, DataError> {
        let start = index * self.batch;
        let files = self.files.get(start..start + self.batch).unwrap_or_default();
        let mut stack: Option<Array> = None;
        let mut last = Place::file("");
        for file in files {
            let rows = Rows::open(file)?;
            let shape = self.stacked_shape(rows.shape());
            last = rows.place().clone();
            let array = rows.read_all()?;
            let found = array.shape().to_vec();
            let mismatch = |_| super::feed::shape_error(&self.spec, &found, &last, "the files of a batch differ");
            let array = array.reshape(shape).map_err(mismatch)?;
            stack = Some(match stack {
                None => array,
                Some(stack) => stack.concat(&array).map_err(mismatch)?,
            });
        }
        let stack = stack.ok_or(DataError::OutOfRange { index, len: self.len() })?;
        let feed = self.plan(&stack, &last)?;
        Ok(vec![feed.apply(stack, &last, index)?])
    }

    fn shapes(&self, index: usize) -> Result<Option<Vec<Vec<usize>>>, DataError> {
        let start = index * self.batch;
        let files = self.files.get(start..start + self.batch).unwrap_or_default();
        files.iter().map(|file| Ok(Rows::open(file)?.shape().to_vec())).collect::<Result<_, _>>().map(Some)
    }

    fn batch(&self) -> usize {
        self.batch
    }
}

impl NpyFolder {
    /// A file's shape with the axis that counts samples in front.
    fn stacked_shape(&self, shape: &[usize]) -> Vec<usize> {
        let rank = self.spec.shape.as_ref().map_or(shape.len(), Vec::len);
        if shape.len() >= rank { shape.to_vec() } else { [&[1], shape].concat() }
    }

    fn plan(&self, stack: &Array, place: &Place) -> Result<Feed, DataError> {
        Feed::plan(&self.spec, stack.shape(), stack.dtype(), place, &self.rules)
    }
}

/// Opens a folder of `.npy` files.
pub(super) fn open_folder(
    path: &Path,
    files: Vec<PathBuf>,
    inputs: &[InputSpec],
    options: &DataOptions,
) -> Result<Opened, DataError> {
    let spec = super::source::only_input(inputs, path)?.clone();
    let first = files.first().ok_or_else(|| DataError::EmptyFolder { path: path.to_owned() })?;
    let header = Rows::open(first)?;
    let rank = spec.shape.as_ref().map_or(0, Vec::len);
    let fixed = spec.shape.as_ref().and_then(|s| s.first().copied().flatten()).unwrap_or(1).max(1);
    // A file that holds the whole batch is one sample.
    let whole = header.shape().len() == rank && header.shape().first() == Some(&fixed);
    let batch = if whole { 1 } else { fixed };
    let labels = options.labels.as_ref().map(|file| LabelFile::read(file)?.of_images(&files, file)).transpose()?;
    if files.len() < batch {
        return Err(DataError::FewSamples { path: path.to_owned(), count: files.len(), batch });
    }
    let labels = labels.map(|values| Labels { values, per_sample: batch });
    let source = NpyFolder { files, spec, rules: rules(inputs, options), batch };
    // A first sample that does not fit is an error on opening.
    source.arrays(0)?;
    Ok(Opened { labels, ..Opened::new(source) })
}
