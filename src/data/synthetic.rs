//! Synthetic inputs where there is no data: images with natural statistics, uniform ids, noise.
//!
//! A sample depends only on the seed and its index, and is generated when it is needed.

use std::collections::BTreeMap;

use msq_passes::ir::DataType;

use super::InputSpec;
use super::array::{Array, ArrayData, count};
use super::error::{DataError, Place};
use super::feed::finish;
use super::leaves;
use super::options::{Layout, Size};
use super::preprocess::ImageForm;
use super::random::Random;
use super::source::Source;
use crate::runtime::memory;

/// The largest synthetic input, in elements, since dimensions come from the model.
const MOST_ELEMENTS: usize = 1 << 30;
/// Bytes per element during generation: a float, and the widest type it is cast to.
const BYTES: usize = 12;

/// Mean and standard deviation of synthetic values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SyntheticScale {
    /// Mean over many samples.
    pub mean: f32,
    /// Standard deviation over many samples.
    pub std: f32,
}

impl Default for SyntheticScale {
    fn default() -> Self {
        Self { mean: 0.0, std: 1.0 }
    }
}

/// The values of an input. Values for integer inputs are rounded and clipped to the type's range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SyntheticValues {
    /// Dead-leaves images.
    Images(SyntheticScale),
    /// Normal noise.
    Noise(SyntheticScale),
    /// Uniform whole numbers from 0 to the limit, exclusive.
    Ids {
        /// The limit, for instance the rows of the embedding that the input feeds.
        limit: u64,
    },
    /// One value everywhere, for instance 1 in a mask.
    Constant(f32),
}

impl SyntheticValues {
    /// What suits an input by its shape and type: images for four axes with one or three channels, of zero mean and
    /// unit deviation for floats and 0..255 for integers; else noise for floats, 0 or 1 for bool, ids below 128. An input
    /// of bool or integers that is called a mask says that every element counts: 1, or 0 in a mask of padding.
    pub fn for_input(spec: &InputSpec) -> Self {
        if !spec.dtype.is_float() && is_called(spec, "mask") {
            return Self::Constant(if is_called(spec, "pad") { 0.0 } else { 1.0 });
        }
        let is_image = ImageForm::of(spec.shape.as_deref(), None, false).is_some();
        let pixels = |offset: f32| SyntheticScale { mean: 255.0 * leaves::MEAN - offset, std: 255.0 * leaves::STD };
        match spec.dtype {
            DataType::Bool => Self::Ids { limit: 2 },
            DataType::Int8 if is_image => Self::Images(pixels(128.0)),
            dtype if is_image && !dtype.is_float() => Self::Images(pixels(0.0)),
            _ if is_image => Self::Images(SyntheticScale::default()),
            dtype if dtype.is_float() => Self::Noise(SyntheticScale::default()),
            _ => Self::Ids { limit: 128 },
        }
    }
}

/// How inputs are generated.
#[derive(Clone, Debug, PartialEq)]
pub struct SyntheticOptions {
    /// The number of samples.
    pub count: usize,
    /// Samples are a function of the seed and their index.
    pub seed: u64,
    /// Rows and columns of images, where the model leaves them free.
    pub image_size: Size,
    /// Other free dimensions, but for the batch, which becomes 1.
    pub length: usize,
    /// What inputs are filled with, by name; the others by [`SyntheticValues::for_input`].
    pub values: BTreeMap<String, SyntheticValues>,
    /// Whether floats are magnitudes, none below zero: for models that take logarithms or roots of them.
    pub non_negative: bool,
}

impl Default for SyntheticOptions {
    fn default() -> Self {
        let (image_size, values) = (Size::square(224), BTreeMap::new());
        Self { count: 64, seed: 0, image_size, length: 64, values, non_negative: false }
    }
}

/// An input and its values.
struct Recipe {
    spec: InputSpec,
    shape: Vec<usize>,
    values: SyntheticValues,
    form: Option<ImageForm>,
    non_negative: bool,
}

/// Synthetic samples.
pub(super) struct Synthetic {
    recipes: Vec<Recipe>,
    count: usize,
    seed: u64,
}

impl Synthetic {
    pub(super) fn new(inputs: &[InputSpec], options: &SyntheticOptions) -> Result<Self, DataError> {
        let lengths = Lengths::of(inputs, options);
        let recipes = inputs.iter().map(|spec| Recipe::new(spec, options, &lengths)).collect::<Result<_, _>>()?;
        Ok(Self { recipes, count: options.count, seed: options.seed })
    }

    /// No samples.
    pub(super) fn none() -> Self {
        Self { recipes: Vec::new(), count: 0, seed: 0 }
    }
}

impl Source for Synthetic {
    fn len(&self) -> usize {
        self.count
    }

    fn arrays(&self, index: usize) -> Result<Vec<Array>, DataError> {
        let make = |(stream, recipe): (usize, &Recipe)| {
            recipe.make(&mut Random::new(self.seed, stream as u64, index as u64), index)
        };
        self.recipes.iter().enumerate().map(make).collect()
    }

    fn noun(&self) -> &'static str {
        "synthetic samples"
    }
}

impl Recipe {
    fn new(spec: &InputSpec, options: &SyntheticOptions, lengths: &Lengths) -> Result<Self, DataError> {
        let unusable = |reason: String| DataError::Preprocess { input: spec.name.clone(), reason };
        let values = values_of(spec, options);
        let wanted =
            spec.shape.as_deref().ok_or_else(|| unusable("no data can be made up for an unknown shape".into()))?;
        let form = ImageForm::of(Some(wanted), None, matches!(values, SyntheticValues::Images(_)));
        let shape = wanted
            .iter()
            .enumerate()
            .map(|(axis, dim)| dim.unwrap_or_else(|| lengths.free(spec, axis)))
            .collect::<Vec<_>>();
        match count(&shape) {
            Some(elements) if elements <= MOST_ELEMENTS && memory::is_there(elements * BYTES) => {
                Ok(Self { spec: spec.clone(), shape, values, form, non_negative: options.non_negative })
            }
            _ => Err(unusable(format!("shape {shape:?} is too large to make data up for"))),
        }
    }

    fn make(&self, random: &mut Random, sample: usize) -> Result<Array, DataError> {
        let elements: usize = self.shape.iter().product();
        let scaled = |scale: SyntheticScale, unit: f32| scale.mean + scale.std * unit;
        let data = match self.values {
            SyntheticValues::Images(scale) => {
                let pixels = self.images(random).into_iter();
                ArrayData::F32(pixels.map(|p| scaled(scale, (p - leaves::MEAN) / leaves::STD)).collect())
            }
            SyntheticValues::Noise(scale) => {
                ArrayData::F32((0..elements).map(|_| scaled(scale, random.normal())).collect())
            }
            SyntheticValues::Ids { limit } => ArrayData::U64((0..elements).map(|_| random.below(limit)).collect()),
            SyntheticValues::Constant(value) => ArrayData::F32(vec![value; elements]),
        };
        let place = Place::array("synthetic data", self.spec.name.clone());
        let error = |e: super::array::LengthError| super::feed::shape_error(&self.spec, &e.shape, &place, "");
        let array = Array::new(self.shape.clone(), self.in_range(data)).map_err(error)?;
        finish(array, self.spec.dtype, &self.spec.name, &place, sample)
    }

    /// Pixels in 0..1 of every image of the batch, in the input's layout.
    fn images(&self, random: &mut Random) -> Vec<f32> {
        let (batch, row) = match self.shape.as_slice() {
            [batch, row @ ..] if row.len() == 3 => (*batch, row),
            row => (1, row),
        };
        let (Some(form), &[a, b, c]) = (self.form, row) else {
            // Not the shape of images: one plane as wide as the last axis.
            let width = self.shape.last().copied().unwrap_or(1).max(1);
            return leaves::draw(random, 1, self.shape.iter().product::<usize>() / width, width);
        };
        let mut pixels = Vec::new();
        for _ in 0..batch {
            match form.layout {
                Layout::Nchw => pixels.extend(leaves::draw(random, a, b, c)),
                Layout::Nhwc => {
                    let planes = leaves::draw(random, c, a, b);
                    let pixel = |at: usize| planes.iter().skip(at).step_by(a * b).copied();
                    pixels.extend((0..a * b).flat_map(pixel));
                }
            }
        }
        pixels
    }

    /// Without signs where none are wanted.
    fn signed(&self, data: ArrayData) -> ArrayData {
        match data {
            ArrayData::F32(values) if self.non_negative => ArrayData::F32(values.into_iter().map(f32::abs).collect()),
            data => data,
        }
    }

    /// Whole numbers within the type for integer inputs.
    fn in_range(&self, data: ArrayData) -> ArrayData {
        let (low, high) = match self.spec.dtype {
            DataType::Int8 => (-128.0, 127.0),
            DataType::Uint8 => (0.0, 255.0),
            DataType::Bool => (0.0, 1.0),
            dtype if dtype.is_float() => return self.signed(data),
            DataType::Int16 | DataType::Int32 | DataType::Int64 => (-32_768.0, 32_767.0),
            _ => (0.0, 65_535.0),
        };
        match data {
            ArrayData::F32(values) => ArrayData::F32(values.iter().map(|v| v.round().clamp(low, high)).collect()),
            ids => ids,
        }
    }
}

fn values_of(spec: &InputSpec, options: &SyntheticOptions) -> SyntheticValues {
    options.values.get(&spec.name).copied().unwrap_or_else(|| SyntheticValues::for_input(spec))
}

/// Lengths of free dimensions: those of one name are equal in all inputs.
#[derive(Debug)]
struct Lengths<'a> {
    options: &'a SyntheticOptions,
    named: BTreeMap<&'a str, Length>,
    /// Where masks reach over a past and a present: an axis of an input as long as each.
    reached: Option<[(&'a InputSpec, usize); 2]>,
}

/// The length of a free dimension, by how much speaks for it: the side of an image more than another axis, and that
/// more than the first, which is 1 where nothing else asks for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Length {
    Batch,
    Other,
    Side(usize),
}

impl<'a> Lengths<'a> {
    fn of(inputs: &'a [InputSpec], options: &'a SyntheticOptions) -> Self {
        let mut lengths = Self { options, named: BTreeMap::new(), reached: reached(inputs) };
        for spec in inputs {
            let free = spec.shape.iter().flatten().zip(&spec.symbols).enumerate();
            for (axis, symbol) in
                free.filter_map(|(axis, (dim, symbol))| Some((axis, symbol.as_ref().filter(|_| dim.is_none())?)))
            {
                let length = lengths.unnamed(spec, axis);
                let named = lengths.named.entry(symbol.as_str()).or_insert(length);
                *named = length.max(*named);
            }
        }
        lengths
    }

    /// The length of a free dimension of an input.
    fn free(&self, spec: &InputSpec, axis: usize) -> usize {
        if let Some(past_and_present) = self.reached.filter(|past| reaches(spec, axis, past)) {
            return past_and_present.iter().map(|(spec, axis)| self.length(spec, *axis)).sum();
        }
        match spec.symbols.get(axis).and_then(Option::as_deref) {
            Some(symbol) => self.sum(symbol).unwrap_or_else(|| self.number(self.named[symbol])),
            None => self.number(self.unnamed(spec, axis)),
        }
    }

    fn length(&self, spec: &InputSpec, axis: usize) -> usize {
        spec.shape.as_ref().and_then(|shape| shape[axis]).unwrap_or_else(|| self.free(spec, axis))
    }

    /// The length of a dimension that is called a sum of others and of numbers, as `past + 1`.
    fn sum(&self, symbol: &str) -> Option<usize> {
        if !symbol.contains('+') {
            return None;
        }
        symbol.split('+').map(str::trim).try_fold(0_usize, |sum, term| {
            let named = || self.number(self.named.get(term).copied().unwrap_or(Length::Other));
            sum.checked_add(term.parse().ok().unwrap_or_else(named)).filter(|_| !term.is_empty())
        })
    }

    fn number(&self, length: Length) -> usize {
        match length {
            Length::Batch => 1,
            Length::Other => self.options.length,
            Length::Side(side) => side,
        }
    }

    fn unnamed(&self, spec: &InputSpec, axis: usize) -> Length {
        let wanted = spec.shape.as_deref().unwrap_or_default();
        let images = matches!(values_of(spec, self.options), SyntheticValues::Images(_));
        let Size { width, height } = self.options.image_size;
        let (channels, rows, columns) = (3, height as usize, width as usize);
        let image = ImageForm::of(Some(wanted), None, images).map(|form| match form.layout {
            Layout::Nchw => [channels, rows, columns],
            Layout::Nhwc => [rows, columns, channels],
        });
        match (image, axis.checked_sub(wanted.len().saturating_sub(3))) {
            (Some(image), Some(side)) => image.get(side).map_or(Length::Batch, |&side| Length::Side(side)),
            _ if axis == 0 => Length::Batch,
            _ => Length::Other,
        }
    }
}

/// The axes of past and present positions, where a model reads keys and values of the past: the last but one of the first
/// such input, and the last of the first input of ids.
fn reached(inputs: &[InputSpec]) -> Option<[(&InputSpec, usize); 2]> {
    let rank = |spec: &InputSpec| spec.shape.as_ref().map_or(0, Vec::len);
    let past = inputs.iter().find(|spec| is_called(spec, "past") && !is_called(spec, "mask") && rank(spec) >= 3)?;
    let is_ids = |spec: &&InputSpec| rank(spec) == 2 && !spec.dtype.is_float() && !is_called(spec, "mask");
    let present = inputs.iter().find(is_ids)?;
    Some([(past, rank(past) - 2), (present, 1)])
}

/// Whether a free axis of a mask reaches over past and present: it is the last one, and has the name of neither.
fn reaches(spec: &InputSpec, axis: usize, past_and_present: &[(&InputSpec, usize); 2]) -> bool {
    let symbol = |spec: &InputSpec, axis: usize| spec.symbols.get(axis).cloned().flatten();
    let own = symbol(spec, axis);
    let is_one_of = past_and_present.iter().any(|(other, at)| own.is_some() && symbol(other, *at) == own);
    let is_last = spec.shape.as_ref().is_some_and(|shape| axis > 0 && axis + 1 == shape.len());
    is_last && is_called(spec, "mask") && !is_one_of && own.is_none_or(|name| !name.contains('+'))
}

fn is_called(spec: &InputSpec, word: &str) -> bool {
    spec.name.to_ascii_lowercase().contains(word)
}
