//! From rows on disk to one model input: layout, arithmetic, element type, shape.
//!
//! An array of the input's rank is a stack of rows along the input's batch axis. A sample is `B` rows where the model's
//! batch is fixed at `B`, else one row with its batch axis. An array with one axis more stacks whole inputs. Only
//! layouts of `uint8` pixels are changed without a request, and only when the rows do not fit otherwise.

use msq_passes::ir::DataType;

use super::InputSpec;
use super::array::{Array, ArrayData};
use super::error::{DataError, Place, ShapeText};
use super::options::{Layout, Preprocess};
use super::preprocess::{Affine, ImageForm};

/// Assumptions of the plan about the data.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) preprocessing: Preprocess,
    /// The model has no other input: preprocessing numbers apply to this one, image or not.
    pub(super) only_input: bool,
    /// The rows are decoded images, channels last.
    pub(super) images: bool,
}

impl Rules {
    /// The layout of the rows, where it is known.
    fn layout(&self) -> Option<Layout> {
        if self.images { Some(Layout::Nhwc) } else { self.preprocessing.layout }
    }
}

/// How a row on disk becomes a row of the model's input.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Arrange {
    Keep,
    /// Channels last to channels first, or back.
    MoveChannels(Layout),
    /// An axis of length one is inserted.
    Reshape(Vec<usize>),
}

/// How one array feeds one input.
#[derive(Clone, Debug)]
pub(super) struct Feed {
    input: String,
    dtype: DataType,
    /// Rows per sample; `None` for an array without rows, which is the same for every sample.
    rows: Option<usize>,
    /// The row is a whole input: its leading axis is removed.
    whole: bool,
    arrange: Arrange,
    affine: Option<(Affine, Layout)>,
}

impl Feed {
    /// Plans how an array of shape `disk` feeds `spec`.
    pub(super) fn plan(
        spec: &InputSpec,
        disk: &[usize],
        dtype: DataType,
        place: &Place,
        rules: &Rules,
    ) -> Result<Self, DataError> {
        let mismatch = |hint: &str| shape_error(spec, disk, place, hint);
        let wanted = spec.shape.as_deref();
        let (whole, row_wanted) = match wanted {
            None => (false, None),
            Some([]) if disk.is_empty() => (true, wanted),
            Some(dims) if dims.len() + 1 == disk.len() => (true, wanted),
            Some([_, rest @ ..]) if disk.len() == rest.len() + 1 || has_unit_axis(rest, disk.len()) => {
                (false, Some(rest))
            }
            Some(_) => return Err(mismatch("")),
        };
        let row = disk.get(1..).unwrap_or_default();
        let form = ImageForm::of(wanted, rules.preprocessing.model_layout, rules.images);
        let arrange = arrange(row, row_wanted, form, dtype, rules).map_err(mismatch)?;
        let affine = affine(spec, &arrange.shape(row), dtype, form, rules)
            .map_err(|reason| DataError::Preprocess { input: spec.name.clone(), reason })?;
        let batch = if whole { None } else { wanted.and_then(|dims| dims.first().copied().flatten()) };
        let rows = (!disk.is_empty()).then(|| batch.unwrap_or(1).max(1));
        Ok(Self { input: spec.name.clone(), dtype: spec.dtype, rows, whole, arrange, affine })
    }

    /// Rows per sample; `None` when every sample takes the whole array.
    pub(super) fn rows(&self) -> Option<usize> {
        self.rows
    }

    /// The shape of the input in each sample, from the shape of the array.
    pub(super) fn sample_shape(&self, disk: &[usize]) -> Vec<usize> {
        let row = self.arrange.shape(disk.get(1..).unwrap_or_default());
        match (self.rows, disk.first()) {
            (Some(rows), _) if !self.whole => [&[rows], row.as_slice()].concat(),
            (None, Some(&rows)) if !self.whole => [&[rows], row.as_slice()].concat(),
            _ => row,
        }
    }

    /// Has every sample take the whole array.
    pub(super) fn take_all(&mut self) {
        self.rows = None;
    }

    /// The input's value from the rows of sample `sample`, their axis first.
    pub(super) fn apply(&self, rows: Array, place: &Place, sample: usize) -> Result<Array, DataError> {
        let (shape, data) = rows.into_parts();
        let (stack, row) = shape.split_first().map_or((1, [].as_slice()), |(&stack, row)| (stack, row));
        let data = match self.arrange {
            Arrange::MoveChannels(to) => move_channels(&data, row, to),
            _ => data,
        };
        let row = self.arrange.shape(row);
        let shape = if self.whole { row } else { [&[stack], row.as_slice()].concat() };
        let mut array = Array::new(shape.clone(), data).map_err(|e| self.impossible(place, &e.shape))?;
        if let Some((affine, layout)) = &self.affine {
            let mut values = array.to_f32();
            affine.apply(&mut values, inner(&shape, *layout));
            array = Array::new(shape, ArrayData::F32(values)).map_err(|e| self.impossible(place, &e.shape))?;
        }
        finish(array, self.dtype, &self.input, place, sample)
    }

    /// The error of rows that do not match the plan.
    fn impossible(&self, place: &Place, shape: &[usize]) -> DataError {
        DataError::Shape {
            place: Box::new(place.clone()),
            found: ShapeText::of(shape),
            input: self.input.clone(),
            wanted: ShapeText::wanted(None),
            hint: "the rows have different shapes".to_owned(),
        }
    }
}

/// Casts to the input's type and refuses NaN and infinities. −∞ stands for nothing in an input that is named a mask.
pub(super) fn finish(
    array: Array,
    dtype: DataType,
    input: &str,
    place: &Place,
    sample: usize,
) -> Result<Array, DataError> {
    let masks = input.to_lowercase().contains("mask");
    let bad = |value: f32| !(value.is_finite() || masks && value == f32::NEG_INFINITY);
    if let Some((element, value)) = array.first_of(bad) {
        return Err(DataError::NotFinite { place: Box::new(place.clone()), sample, element, value });
    }
    let value = |reason| DataError::Value { place: Box::new(place.clone()), sample, input: input.to_owned(), reason };
    array.cast(dtype).map_err(value)
}

/// The error of an array that does not fit.
pub(super) fn shape_error(spec: &InputSpec, disk: &[usize], place: &Place, hint: &str) -> DataError {
    DataError::Shape {
        place: Box::new(place.clone()),
        found: ShapeText::of(disk),
        input: spec.name.clone(),
        wanted: ShapeText::wanted(spec.shape.as_deref()),
        hint: hint.to_owned(),
    }
}

/// Whether a shape is an input's: the same rank, fixed dimensions equal.
pub(super) fn fits(shape: &[usize], wanted: Option<&[Option<usize>]>) -> bool {
    let Some(wanted) = wanted else { return true };
    shape.len() == wanted.len() && shape.iter().zip(wanted).all(|(have, want)| want.is_none_or(|w| w == *have))
}

/// Whether rows of an array with `rank` axes lack exactly one axis, which has length one in the input.
fn has_unit_axis(row_wanted: &[Option<usize>], rank: usize) -> bool {
    row_wanted.len() == rank && row_wanted.contains(&Some(1))
}

/// Chooses the arrangement, or returns advice.
fn arrange(
    row: &[usize],
    wanted: Option<&[Option<usize>]>,
    form: Option<ImageForm>,
    dtype: DataType,
    rules: &Rules,
) -> Result<Arrange, &'static str> {
    let moved = form.filter(|_| row.len() == 3).map(|form| Arrange::MoveChannels(form.layout));
    if let (Some(form), Some(layout), 3) = (form, rules.layout(), row.len()) {
        let arrange = if layout == form.layout { Arrange::Keep } else { Arrange::MoveChannels(form.layout) };
        return if fits(&arrange.shape(row), wanted) { Ok(arrange) } else { Err("") };
    }
    if fits(row, wanted) {
        return Ok(Arrange::Keep);
    }
    if let Some(moved) = moved.filter(|m| fits(&m.shape(row), wanted)) {
        return if dtype == DataType::Uint8 {
            Ok(moved)
        } else {
            Err("if its channels are at the other end, say so with option `layout`")
        };
    }
    let wanted = wanted.unwrap_or_default();
    let with_axis = |axis: usize| {
        let mut shape = row.to_vec();
        shape.insert(axis, 1);
        (wanted.get(axis) == Some(&Some(1)) && fits(&shape, Some(wanted))).then_some(Arrange::Reshape(shape))
    };
    (0..=row.len()).find_map(with_axis).ok_or("")
}

impl Arrange {
    /// The row's shape afterwards.
    fn shape(&self, row: &[usize]) -> Vec<usize> {
        match (self, row) {
            (Self::MoveChannels(Layout::Nchw), &[h, w, c]) => vec![c, h, w],
            (Self::MoveChannels(Layout::Nhwc), &[c, h, w]) => vec![h, w, c],
            (Self::Reshape(shape), _) => shape.clone(),
            _ => row.to_vec(),
        }
    }
}

/// The arithmetic for an input whose row has shape `row`; `None` where values do not change.
fn affine(
    spec: &InputSpec,
    row: &[usize],
    dtype: DataType,
    form: Option<ImageForm>,
    rules: &Rules,
) -> Result<Option<(Affine, Layout)>, String> {
    let options = &rules.preprocessing;
    let pixels = dtype == DataType::Uint8 && spec.dtype.is_float() && options.preset.is_some();
    let applies = (pixels || options.has_numbers()) && (form.is_some() || rules.only_input);
    if !applies {
        return Ok(None);
    }
    let (channels, layout) = match (form.map(|f| f.layout), row) {
        (Some(Layout::Nchw), &[.., c, _, _]) => (c, Layout::Nchw),
        (Some(Layout::Nhwc), &[.., c]) => (c, Layout::Nhwc),
        _ => (1, Layout::Nhwc),
    };
    let affine = Affine::of(options, channels)?;
    Ok((!affine.is_identity()).then_some((affine, layout)))
}

/// Elements between two channels.
fn inner(shape: &[usize], layout: Layout) -> usize {
    match (layout, shape) {
        (Layout::Nchw, &[.., h, w]) => h * w,
        _ => 1,
    }
}

/// Moves the channels of every row from first to last, or back.
fn move_channels(data: &ArrayData, row: &[usize], to: Layout) -> ArrayData {
    let &[a, b, c] = row else { return data.clone() };
    let image = (a * b * c).max(1);
    // The row is a matrix, pixels by channels or back, and this transposes it.
    let (from_rows, from_columns) = match to {
        Layout::Nchw => (a * b, c),
        Layout::Nhwc => (a, b * c),
    };
    data.gather(|i| {
        let (start, within) = (i / image * image, i % image);
        start + within % from_rows.max(1) * from_columns + within / from_rows.max(1)
    })
}
