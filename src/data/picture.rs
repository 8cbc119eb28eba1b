//! Image files: decoding, resizing as Pillow does, cropping.

use std::io::Cursor;
use std::path::Path;

use fast_image_resize as fir;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};

use super::error::DataError;
use super::options::{Color, Filter, Size};
use super::preprocess::{Border, Geometry, Step, resized};
use super::whole;

/// The largest decoded image, in bytes: an image file may declare any size.
const DECODED_LIMIT: u64 = 1 << 30;

/// Pixels of one or three channels, channels last.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) size: Size,
    pub(super) channels: usize,
    pub(super) pixels: Vec<u8>,
}

/// Decodes, resizes and crops the image of a file, or pads it.
pub(super) fn load(path: &Path, geometry: Geometry) -> Result<Picture, DataError> {
    let bad = |reason: String| DataError::Image { path: path.to_owned(), reason };
    let image = decode(path)?;
    let picture = convert(image, geometry.color);
    let size = resized(geometry.resize, picture.size);
    let picture = if geometry.resize == Step::Keep || size == picture.size {
        picture
    } else {
        resize(picture, size, geometry.filter).map_err(bad)?
    };
    match (geometry.border, geometry.crop) {
        (Some(border), _) => pad(&picture, border).map_err(bad),
        (None, Some(size)) => crop(picture, size).map_err(bad),
        (None, None) => Ok(picture),
    }
}

/// The size of the image of a file, turned upright, from its header.
pub(super) fn size(path: &Path) -> Result<Size, DataError> {
    let bad = |e: image::ImageError| DataError::Image { path: path.to_owned(), reason: e.to_string() };
    let io = |source| DataError::Io { path: path.to_owned(), source };
    let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format).map_err(io)?;
    let mut decoder = reader.into_decoder().map_err(bad)?;
    let (width, height) = decoder.dimensions();
    Ok(match decoder.orientation().map_err(bad)? {
        Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH => {
            Size { width: height, height: width }
        }
        _ => Size { width, height },
    })
}

/// Checks that a file has the header of an image, and is whole.
pub(super) fn probe(path: &Path) -> Result<(), DataError> {
    let bad = |e: image::ImageError| DataError::Image { path: path.to_owned(), reason: e.to_string() };
    let bytes = read(path)?;
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let reader = reader.map_err(|source| DataError::Io { path: path.to_owned(), source })?;
    reader.into_dimensions().map(|_| ()).map_err(bad)
}

/// The bytes of an image file, which must be whole.
fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    let bytes = std::fs::read(path).map_err(|source| DataError::Io { path: path.to_owned(), source })?;
    let bad = |reason: &str| DataError::Image { path: path.to_owned(), reason: reason.to_owned() };
    whole::check(&bytes).map_err(bad)?;
    Ok(bytes)
}

/// The image of a file, turned upright by its EXIF orientation.
fn decode(path: &Path) -> Result<DynamicImage, DataError> {
    let bytes = read(path)?;
    let bad = |e: image::ImageError| DataError::Image { path: path.to_owned(), reason: e.to_string() };
    // The content determines the format, since file extensions may be wrong.
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let mut reader = reader.map_err(|source| DataError::Io { path: path.to_owned(), source })?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODED_LIMIT);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(bad)?;
    let orientation = decoder.orientation().map_err(bad)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(bad)?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// The requested channels. Transparency is dropped.
fn convert(image: DynamicImage, color: Color) -> Picture {
    let size = Size { width: image.width(), height: image.height() };
    let mut pixels = image.into_rgb8().into_raw();
    match color {
        Color::Rgb => Picture { size, channels: 3, pixels },
        Color::Bgr => {
            pixels.as_chunks_mut::<3>().0.iter_mut().for_each(|p| p.swap(0, 2));
            Picture { size, channels: 3, pixels }
        }
        Color::Gray => {
            let pixels = pixels.as_chunks::<3>().0.iter().copied().map(luma).collect();
            Picture { size, channels: 1, pixels }
        }
    }
}

/// ITU-R 601 luma in the fixed-point form of Pillow.
fn luma([r, g, b]: [u8; 3]) -> u8 {
    let sum = u32::from(r) * 19_595 + u32::from(g) * 38_470 + u32::from(b) * 7_471 + 0x8000;
    (sum >> 16) as u8
}

fn resize(picture: Picture, size: Size, filter: Filter) -> Result<Picture, String> {
    let kernel = match filter {
        Filter::Bilinear => fir::ResizeAlg::Convolution(fir::FilterType::Bilinear),
        Filter::Bicubic => fir::ResizeAlg::Convolution(fir::FilterType::CatmullRom),
        Filter::Linear => fir::ResizeAlg::Interpolation(fir::FilterType::Bilinear),
    };
    if u64::from(size.width) * u64::from(size.height) * picture.channels as u64 > DECODED_LIMIT {
        return Err(format!("{size} pixels are too many to resize to"));
    }
    if picture.channels == 1 {
        resize_pixels::<fir::pixels::U8>(picture, size, kernel)
    } else {
        resize_pixels::<fir::pixels::U8x3>(picture, size, kernel)
    }
}

/// For the two types of pixels that pictures have: `Resizer::resize` would be compiled for all thirteen of its crate.
fn resize_pixels<P: fir::PixelTrait>(picture: Picture, size: Size, kernel: fir::ResizeAlg) -> Result<Picture, String> {
    let Size { width, height } = picture.size;
    let source =
        fir::images::Image::from_vec_u8(width, height, picture.pixels, P::pixel_type()).map_err(|e| e.to_string())?;
    let mut target = fir::images::Image::new(size.width, size.height, P::pixel_type());
    let (from, to) = (source.typed_image::<P>(), target.typed_image_mut::<P>());
    let (from, mut to) = from.zip(to).ok_or_else(|| fir::ResizeError::PixelTypesAreDifferent.to_string())?;
    let options = fir::ResizeOptions::new().resize_alg(kernel);
    fir::Resizer::new().resize_typed(&from, &mut to, &options).map_err(|e| e.to_string())?;
    Ok(Picture { size, channels: picture.channels, pixels: target.into_vec() })
}

/// A picture with the border of a letterbox around it.
fn pad(picture: &Picture, border: Border) -> Result<Picture, String> {
    let (size, (left, top)) = (border.padded(picture.size), border.offset(picture.size));
    if u64::from(size.width) * u64::from(size.height) * picture.channels as u64 > DECODED_LIMIT {
        return Err(format!("{size} pixels are too many for a letterbox"));
    }
    let row = |width: u32| width as usize * picture.channels;
    let mut pixels = vec![border.value; row(size.width) * size.height as usize];
    let rows = pixels.chunks_exact_mut(row(size.width).max(1)).skip(top as usize);
    for (to, from) in rows.zip(picture.pixels.chunks_exact(row(picture.size.width).max(1))) {
        to[row(left)..row(left + picture.size.width)].copy_from_slice(from);
    }
    Ok(Picture { size, channels: picture.channels, pixels })
}

/// The centre of a picture.
fn crop(picture: Picture, size: Size) -> Result<Picture, String> {
    let from = picture.size;
    if from == size {
        return Ok(picture);
    }
    if size.width > from.width || size.height > from.height {
        return Err(format!("{from} pixels after resizing do not hold a crop of {size}"));
    }
    let (left, top) = (margin(from.width - size.width), margin(from.height - size.height));
    let columns = size.width as usize * picture.channels;
    let rows = picture.pixels.chunks_exact((from.width as usize * picture.channels).max(1));
    let rows = rows.skip(top as usize).take(size.height as usize);
    let pixels =
        rows.flat_map(|row| row.iter().skip(left as usize * picture.channels).take(columns)).copied().collect();
    Ok(Picture { size, channels: picture.channels, pixels })
}

/// Half of the length that is cropped, halves to even, as in torchvision's centre crop.
fn margin(excess: u32) -> u32 {
    let half = excess / 2;
    if excess % 2 == 1 && half % 2 == 1 { half + 1 } else { half }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Letterbox;

    fn gradient(width: u32, height: u32) -> Picture {
        let pixels = (0..height).flat_map(|y| (0..width).flat_map(move |x| [x as u8, y as u8, 0])).collect();
        Picture { size: Size { width, height }, channels: 3, pixels }
    }

    #[test]
    fn crop_takes_the_centre() {
        let cut = crop(gradient(10, 6), Size { width: 4, height: 2 }).unwrap();
        assert_eq!(&cut.pixels[..3], [3, 2, 0]);
        assert_eq!(cut.pixels.len(), 4 * 2 * 3);
        assert_eq!([1, 2, 3, 5, 7].map(margin), [0, 1, 2, 2, 4]);
        assert!(crop(gradient(3, 9), Size::square(4)).unwrap_err().contains("3x9"));
    }

    #[test]
    fn a_border_is_around_the_picture() {
        let border = Border { size: Size::square(5), place: Letterbox::Center, value: 9, multiple: None };
        let boxed = pad(&gradient(5, 2), border).unwrap();
        let rows: Vec<&[u8]> = boxed.pixels.chunks(15).collect();
        assert_eq!((rows.len(), rows[0], rows[3], rows[4]), (5, &[9; 15][..], &[9; 15][..], &[9; 15][..]));
        assert_eq!((&rows[1][..6], &rows[2][3..6]), (&[0, 0, 0, 1, 0, 0][..], &[1, 1, 0][..]));
        let corner = Border { place: Letterbox::Corner, multiple: Some(2), ..border };
        let boxed = pad(&gradient(2, 5), corner).unwrap();
        assert_eq!((boxed.size, &boxed.pixels[..9]), (Size { width: 3, height: 5 }, &[0, 0, 0, 1, 0, 0, 9, 9, 9][..]));
    }

    #[test]
    fn constants_survive_resizing() {
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Linear] {
            let flat = Picture { size: Size::square(50), channels: 1, pixels: vec![77; 2500] };
            let small = resize(flat, Size { width: 13, height: 70 }, filter).unwrap();
            assert!(small.pixels.iter().all(|&p| p == 77));
        }
    }

    /// Values computed with Pillow 13: a short line, shrunk and grown.
    #[test]
    fn kernels_are_those_of_pillow() {
        let line = |filter, width| {
            let picture = Picture {
                size: Size { width: 8, height: 1 },
                channels: 1,
                pixels: vec![0, 0, 0, 255, 255, 255, 10, 10],
            };
            resize(picture, Size { width, height: 1 }, filter).unwrap().pixels
        };
        assert_eq!(line(Filter::Bilinear, 3), [20, 201, 87]);
        assert_eq!(line(Filter::Bicubic, 3), [4, 217, 83]);
        assert_eq!(line(Filter::Bicubic, 11), [0, 0, 0, 7, 209, 255, 255, 255, 78, 0, 10]);
    }

    #[test]
    fn luma_is_that_of_pillow() {
        assert_eq!([[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]].map(luma), [255, 76, 150, 29]);
    }
}
