//! Preprocessing, resolved: the form of an image input, the arithmetic on pixels, the geometry of image files.
//!
//! A pixel `p` in 0..255 becomes `(p · scale − mean_c) / std_c` for its channel `c`. Integer inputs take unscaled
//! pixels, unless a number is given.

use super::options::{Color, Filter, Layout, Letterbox, Preprocess, Preset, Resize, Size};

/// Crop that the presets for `ImageNet` were made for, and the short side they resize to before.
const CROP: u32 = 224;
const SHORT_SIDE: u32 = 256;

/// Sides of the letterbox of the preset for YOLO where the model's are free, and the value it is padded with.
const YOLO_SIDE: u32 = 640;
const YOLO_PAD: u8 = 114;

/// An input that takes images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ImageForm {
    pub(super) layout: Layout,
    pub(super) channels: Option<usize>,
    pub(super) height: Option<usize>,
    pub(super) width: Option<usize>,
    /// Height and width that the model asks for where its axes leave them open.
    pub(super) stated: Option<[usize; 2]>,
}

impl ImageForm {
    /// Derives the form from a shape: four axes with one or three channels at axis 1 (preferred) or last.
    ///
    /// `layout` overrides the shape. With `surely` the input is known to take images: three axes suffice, and channels
    /// first is assumed where the shape is ambiguous.
    pub(super) fn of(shape: Option<&[Option<usize>]>, layout: Option<Layout>, surely: bool) -> Option<Self> {
        let layout_known = surely || layout.is_some();
        let &[a, b, c] = (match shape {
            Some([_, rest @ ..]) if rest.len() == 3 => rest,
            Some(shape) if shape.len() == 3 && layout_known => shape,
            None if layout_known => &[None; 3],
            _ => return None,
        }) else {
            return None;
        };
        let is_channels = |dim: Option<usize>| matches!(dim, Some(1 | 3));
        let layout = match layout {
            Some(layout) => layout,
            None if is_channels(a) => Layout::Nchw,
            None if is_channels(c) => Layout::Nhwc,
            None if surely => Layout::Nchw,
            None => return None,
        };
        Some(match layout {
            Layout::Nchw => Self { layout, channels: a, height: b, width: c, stated: None },
            Layout::Nhwc => Self { layout, channels: c, height: a, width: b, stated: None },
        })
    }

    /// The size, when both sides are fixed.
    fn size(self) -> Option<Size> {
        let side = |n: Option<usize>| u32::try_from(n?).ok().filter(|&n| n > 0);
        Some(Size { width: side(self.width)?, height: side(self.height)? })
    }
}

/// `(p · scale − mean_c) / std_c`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Affine {
    scale: f32,
    mean: Vec<f32>,
    std: Vec<f32>,
}

impl Affine {
    /// The given numbers, else the preset's, for an input of this number of channels.
    pub(super) fn of(options: &Preprocess, channels: usize) -> Result<Self, String> {
        let (scale, mut mean, mut std) = match options.preset.unwrap_or(Preset::Raw) {
            Preset::Raw => (1.0, vec![0.0], vec![1.0]),
            Preset::Unit | Preset::Yolo => (1.0 / 255.0, vec![0.0], vec![1.0]),
            Preset::ImageNet => (1.0 / 255.0, vec![0.485, 0.456, 0.406], vec![0.229, 0.224, 0.225]),
            Preset::Lite => (1.0, vec![127.0], vec![128.0]),
        };
        if options.color == Some(Color::Bgr) {
            mean.reverse();
            std.reverse();
        }
        let affine = Self {
            scale: options.scale.unwrap_or(scale),
            mean: options.mean.clone().unwrap_or(mean),
            std: options.std.clone().unwrap_or(std),
        };
        affine.check(channels)?;
        Ok(affine)
    }

    fn check(&self, channels: usize) -> Result<(), String> {
        for (name, values) in [("mean", &self.mean), ("std", &self.std)] {
            if values.len() != 1 && values.len() != channels {
                return Err(format!("{} values of `{name}` for {channels} channels", values.len()));
            }
            if let Some(value) = values.iter().find(|v| !v.is_finite()) {
                return Err(format!("`{name}` holds {value}"));
            }
        }
        if self.std.contains(&0.0) {
            return Err("`std` holds 0".to_owned());
        }
        if self.scale.is_finite() { Ok(()) } else { Err(format!("`scale` is {}", self.scale)) }
    }

    pub(super) fn is_identity(&self) -> bool {
        self.scale == 1.0 && self.mean.iter().all(|&m| m == 0.0) && self.std.iter().all(|&s| s == 1.0)
    }

    /// Applies the numbers; the channel changes every `inner` elements.
    pub(super) fn apply(&self, values: &mut [f32], inner: usize) {
        let channels = self.mean.len().max(self.std.len());
        let of = |v: &[f32], c: usize, other: f32| v.get(if v.len() == 1 { 0 } else { c }).copied().unwrap_or(other);
        for (index, chunk) in values.chunks_mut(inner.max(1)).enumerate() {
            let c = index % channels.max(1);
            let (mean, std) = (of(&self.mean, c, 0.0), of(&self.std, c, 1.0));
            for value in chunk {
                *value = (*value * self.scale - mean) / std;
            }
        }
    }
}

/// What happens to an image file before its pixels are scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) resize: Step,
    pub(super) crop: Option<Size>,
    pub(super) border: Option<Border>,
    pub(super) filter: Filter,
    pub(super) color: Color,
}

/// How an image is resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Not at all.
    Keep,
    /// To the smallest size of the same aspect ratio that covers this one.
    Cover(Size),
    /// To the largest size of the same aspect ratio that fits into this one.
    Fit(Size),
    /// To exactly this size.
    Exact(Size),
}

/// What a letterbox adds around an image that fits into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Border {
    pub(super) size: Size,
    pub(super) place: Letterbox,
    pub(super) value: u8,
    /// Rows and columns are added only up to a multiple of this.
    pub(super) multiple: Option<u32>,
}

impl Border {
    fn of(options: &Preprocess, form: ImageForm) -> Option<Self> {
        let preset = (options.preset == Some(Preset::Yolo)).then_some(Letterbox::Center);
        let place = options.letterbox.or(preset)?;
        let side = |n: Option<usize>| n.and_then(|n| u32::try_from(n).ok()).filter(|&n| n > 0).unwrap_or(YOLO_SIDE);
        let size = match options.resize {
            Some(Resize::ShortSide(side)) => Size::square(side),
            Some(Resize::Exact(size)) => size,
            None => {
                let [height, width] = form.stated.map_or([None; 2], |sides| sides.map(Some));
                Size { width: side(form.width.or(width)), height: side(form.height.or(height)) }
            }
        };
        let multiple = options.pad_multiple.map(|multiple| multiple.max(1));
        Some(Self { size, place, value: options.pad_value.unwrap_or(YOLO_PAD), multiple })
    }

    /// The size with the border of an image that was fitted into it.
    pub(super) fn padded(self, image: Size) -> Size {
        let side = |whole: u32, own: u32| {
            let missing = whole.saturating_sub(own);
            own + self.multiple.map_or(missing, |multiple| missing % multiple)
        };
        Size { width: side(self.size.width, image.width), height: side(self.size.height, image.height) }
    }

    /// Columns to the left and rows above an image of this size.
    pub(super) fn offset(self, image: Size) -> (u32, u32) {
        let whole = self.padded(image);
        match self.place {
            Letterbox::Corner => (0, 0),
            Letterbox::Center => ((whole.width - image.width) / 2, (whole.height - image.height) / 2),
        }
    }
}

impl Geometry {
    /// The given steps, else the preset's, else those that the model's size requires.
    ///
    /// The presets for `ImageNet` resize to 256/224 of the model's size and crop the centre. The others cover the
    /// model's size, so that images of this size are not changed.
    pub(super) fn of(options: &Preprocess, form: ImageForm) -> Self {
        let preset = options.preset.unwrap_or(Preset::Raw);
        let border = Border::of(options, form);
        let for_imagenet = matches!(preset, Preset::ImageNet | Preset::Lite);
        let target = options.crop.or(form.size()).or(for_imagenet.then_some(Size::square(CROP)));
        let fit = border.map(|border| Step::Fit(border.size));
        let resize = fit.unwrap_or_else(|| match (options.resize, target) {
            (Some(Resize::ShortSide(side)), _) => Step::Cover(Size::square(side)),
            (Some(Resize::Exact(size)), _) => Step::Exact(size),
            (None, Some(target)) if for_imagenet => Step::Cover(enlarged(target)),
            (None, _) if options.crop.is_some() => Step::Keep,
            (None, _) => form.size().map_or(Step::Keep, Step::Cover),
        });
        let filter = match preset {
            Preset::Lite => Filter::Bicubic,
            Preset::Yolo => Filter::Linear,
            _ => Filter::Bilinear,
        };
        let color = if form.channels == Some(1) { Color::Gray } else { Color::Rgb };
        let (filter, color) = (options.filter.unwrap_or(filter), options.color.unwrap_or(color));
        Self { resize, crop: target.filter(|_| border.is_none()), border, filter, color }
    }

    /// In words, with the numbers that pixels are scaled by.
    pub(super) fn describe(self, options: &Preprocess) -> String {
        let range = match options.preset {
            Some(preset) => format!("preset {preset}"),
            None if options.has_numbers() => "own scale".to_owned(),
            None => "raw pixels 0 to 255".to_owned(),
        };
        let list = |values: &[f32]| values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let scale = options.scale.map(|scale| format!("scale {scale}"));
        let mean = options.mean.as_deref().map(|mean| format!("mean {}", list(mean)));
        let std = options.std.as_deref().map(|std| format!("std {}", list(std)));
        let size = match (self.border, self.crop, self.resize) {
            (Some(border), _, _) => format!("letterbox {}", border.size),
            (None, Some(size), _) | (None, None, Step::Exact(size)) => size.to_string(),
            (None, None, _) => "sizes of the images".to_owned(),
        };
        let color = match self.color {
            Color::Rgb => "RGB",
            Color::Bgr => "BGR",
            Color::Gray => "gray",
        };
        let none = options.preset.is_none().then(|| "no option `preset`".to_owned());
        let said = [Some(range), scale, mean, std, Some(format!("{size} {color}")), none];
        said.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// The size that an image of size `from` ends with; `None` where the crop does not fit into it.
    pub(super) fn result(self, from: Size) -> Option<Size> {
        let size = resized(self.resize, from);
        match (self.border, self.crop) {
            (Some(border), _) => Some(border.padded(size)),
            (None, Some(crop)) => (crop.width <= size.width && crop.height <= size.height).then_some(crop),
            (None, None) => Some(size),
        }
    }

    /// Whether images of all sizes end with the same size.
    pub(super) fn is_fixed(self) -> bool {
        match self.border {
            Some(border) => border.multiple.is_none(),
            None => self.crop.is_some() || matches!(self.resize, Step::Exact(_)),
        }
    }
}

/// 256/224 of a size, rounded.
fn enlarged(size: Size) -> Size {
    let side = |n: u32| ((u64::from(n) * u64::from(SHORT_SIDE) + u64::from(CROP / 2)) / u64::from(CROP)) as u32;
    Size { width: side(size.width), height: side(size.height) }
}

/// The new size of an image of size `from`. One side is exact. The other is rounded down as in torchvision where the image
/// covers the size, and to the nearest, halves to even, as in Ultralytics where it fits into it.
pub(super) fn resized(step: Step, from: Size) -> Size {
    let Size { width, height } = from;
    match step {
        Step::Keep => from,
        Step::Exact(size) => size,
        Step::Fit(size) => {
            let by = f64::min(ratio(size.width, width), ratio(size.height, height));
            let side = |n: u32, most: u32| ((f64::from(n) * by).round_ties_even() as u32).clamp(1, most);
            Size { width: side(width, size.width), height: side(height, size.height) }
        }
        Step::Cover(size) => {
            let (w, h) = (u64::from(width), u64::from(height));
            let (tw, th) = (u64::from(size.width), u64::from(size.height));
            let scaled = |side: u64, by: u64, of: u64| u32::try_from(side * by / of.max(1)).unwrap_or(u32::MAX).max(1);
            // The image covers the size when the scale is the larger of tw / w and th / h.
            if tw * h >= th * w {
                Size { width: size.width, height: scaled(h, tw, w) }
            } else {
                Size { width: scaled(w, th, h), height: size.height }
            }
        }
    }
}

fn ratio(to: u32, from: u32) -> f64 {
    f64::from(to) / f64::from(from.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(shape: [usize; 4]) -> Option<ImageForm> {
        let dims: Vec<Option<usize>> = shape.iter().map(|&d| (d > 0).then_some(d)).collect();
        ImageForm::of(Some(&dims), None, false)
    }

    #[test]
    fn form_follows_the_channel_axis() {
        assert_eq!(
            form([1, 3, 32, 48]).map(|f| (f.layout, f.height, f.width)),
            Some((Layout::Nchw, Some(32), Some(48)))
        );
        assert_eq!(
            form([0, 32, 48, 1]).map(|f| (f.layout, f.height, f.width)),
            Some((Layout::Nhwc, Some(32), Some(48)))
        );
        assert_eq!(form([1, 8, 32, 32]), None);
        assert_eq!(ImageForm::of(None, None, true).map(|f| f.layout), Some(Layout::Nchw));
    }

    #[test]
    fn what_is_done_is_said() {
        let said = |options: Preprocess, shape| Geometry::of(&options, form(shape).unwrap()).describe(&options);
        let none = Preprocess::default();
        assert_eq!(said(none.clone(), [0, 1, 8, 8]), "raw pixels 0 to 255, 8x8 gray, no option `preset`");
        assert_eq!(
            said(none.clone(), [0, 3, 0, 0]),
            "raw pixels 0 to 255, sizes of the images RGB, no option `preset`"
        );
        let preset = |preset| Preprocess { preset: Some(preset), ..none.clone() };
        assert_eq!(said(preset(Preset::ImageNet), [0, 3, 0, 0]), "preset imagenet, 224x224 RGB");
        assert_eq!(said(preset(Preset::Yolo), [0, 3, 0, 0]), "preset yolo, letterbox 640x640 RGB");
        let stated = ImageForm { stated: Some([320, 416]), ..form([0, 3, 0, 0]).unwrap() };
        let described = |form, options: Preprocess| Geometry::of(&options, form).describe(&options);
        assert_eq!(described(stated, preset(Preset::Yolo)), "preset yolo, letterbox 416x320 RGB");
        let half = ImageForm { height: Some(640), ..stated };
        assert_eq!(described(half, preset(Preset::Yolo)), "preset yolo, letterbox 416x640 RGB");
        let numbers = Preprocess { scale: Some(0.5), mean: Some(vec![1.0, 2.0, 3.0]), ..none };
        assert_eq!(said(numbers, [0, 3, 4, 4]), "own scale, scale 0.5, mean 1 2 3, 4x4 RGB, no option `preset`");
    }

    #[test]
    fn presets_compute_what_they_say() {
        let value = |preset, channel: usize| {
            let affine = Affine::of(&Preprocess { preset: Some(preset), ..Preprocess::default() }, 3).unwrap();
            let mut pixels = [200.0; 3];
            affine.apply(&mut pixels, 1);
            pixels[channel]
        };
        assert_eq!(value(Preset::Raw, 0), 200.0);
        assert!((value(Preset::Unit, 0) - 200.0 / 255.0).abs() < 1e-6);
        assert!((value(Preset::ImageNet, 1) - (200.0 / 255.0 - 0.456) / 0.224).abs() < 1e-5);
        assert_eq!(value(Preset::Lite, 2), 73.0 / 128.0);
    }

    #[test]
    fn numbers_override_the_preset_and_are_checked() {
        let mut options = Preprocess { preset: Some(Preset::ImageNet), mean: Some(vec![0.5]), ..Preprocess::default() };
        let affine = Affine::of(&options, 3).unwrap();
        assert_eq!((affine.mean.len(), affine.std.len()), (1, 3));
        assert!(Affine::of(&options, 1).unwrap_err().contains("3 values of `std` for 1 channels"));
        options.std = Some(vec![0.0]);
        assert!(Affine::of(&options, 3).is_err());
        options.std = Some(vec![f32::NAN]);
        assert!(Affine::of(&options, 3).is_err());
    }

    #[test]
    fn bgr_reverses_the_means_of_a_preset() {
        let options = Preprocess { preset: Some(Preset::ImageNet), color: Some(Color::Bgr), ..Preprocess::default() };
        assert_eq!(Affine::of(&options, 3).unwrap().mean, [0.406, 0.456, 0.485]);
    }

    #[test]
    fn geometry_of_the_presets() {
        let imagenet = Preprocess { preset: Some(Preset::ImageNet), ..Preprocess::default() };
        let geometry = Geometry::of(&imagenet, form([1, 3, 224, 224]).unwrap());
        assert_eq!((geometry.resize, geometry.crop), (Step::Cover(Size::square(256)), Some(Size::square(224))));
        let free = Geometry::of(&imagenet, form([1, 3, 0, 0]).unwrap());
        assert_eq!((free.resize, free.crop), (geometry.resize, geometry.crop));
        let raw = Geometry::of(&Preprocess::default(), form([1, 3, 0, 0]).unwrap());
        assert_eq!((raw.resize, raw.crop), (Step::Keep, None));
    }

    #[test]
    fn covering_sizes() {
        let size = |width, height| Size { width, height };
        assert_eq!(resized(Step::Cover(Size::square(256)), size(500, 375)), size(341, 256));
        assert_eq!(resized(Step::Cover(Size::square(256)), size(375, 500)), size(256, 341));
        assert_eq!(resized(Step::Cover(size(64, 32)), size(100, 100)), size(64, 64));
        assert_eq!(resized(Step::Cover(Size::square(32)), Size::square(32)), Size::square(32));
    }

    /// Sizes and margins of Ultralytics' `LetterBox` (8.3), with `auto` where there is a multiple.
    #[test]
    fn letterboxes_are_those_of_ultralytics() {
        let size = |width, height| Size { width, height };
        let boxed = |options: Preprocess, shape, from| {
            let options = Preprocess { preset: Some(Preset::Yolo), ..options };
            let geometry = Geometry::of(&options, form(shape).unwrap());
            let fitted = resized(geometry.resize, from);
            (fitted, geometry.result(from).unwrap(), geometry.border.unwrap().offset(fitted))
        };
        let default = Preprocess::default;
        let (square, free) = ([1, 3, 640, 640], [1, 3, 0, 0]);
        let whole = size(640, 640);
        assert_eq!(boxed(default(), square, size(1280, 719)), (size(640, 360), whole, (0, 140)));
        assert_eq!(boxed(default(), free, size(333, 500)), (size(426, 640), whole, (107, 0)));
        assert_eq!(boxed(default(), free, size(500, 333)).2, (0, 107));
        // Of 5 rows 2 are above; half a row more is rounded to even: 320.5 rows become 320.
        assert_eq!(boxed(default(), square, size(640, 635)), (size(640, 635), whole, (0, 2)));
        assert_eq!(boxed(default(), square, size(1280, 641)).0, size(640, 320));
        assert_eq!(boxed(default(), square, size(20, 10)).0, size(640, 320));
        let short = Preprocess { pad_multiple: Some(32), ..default() };
        assert_eq!(boxed(short.clone(), free, size(810, 1080)), (size(480, 640), size(480, 640), (0, 0)));
        assert_eq!(boxed(short, free, size(1280, 719)), (size(640, 360), size(640, 384), (0, 12)));
        let corner =
            Preprocess { letterbox: Some(Letterbox::Corner), resize: Some(Resize::ShortSide(320)), ..default() };
        assert_eq!(boxed(corner, free, size(100, 50)), (size(320, 160), size(320, 320), (0, 0)));
        assert_eq!(boxed(default(), [1, 3, 384, 0], size(640, 384)), (size(640, 384), size(640, 384), (0, 0)));
    }
}
