//! Whether an image file is whole, by its structure: decoders fill what is missing of a JPEG with grey and say nothing.

/// The signature that a PNG starts with.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
const EARLY: &str = "the image ends too early: it was not copied or written whole";
const DAMAGED: &str = "the image is damaged: its compressed data contain a marker that JPEG does not define";

/// Checks that a JPEG, PNG or WebP reaches its end. Other formats, and bytes that are no image, pass.
pub(super) fn check(bytes: &[u8]) -> Result<(), &'static str> {
    let is_whole = if bytes.starts_with(b"\xff\xd8\xff") {
        return jpeg(bytes);
    } else if bytes.starts_with(PNG) {
        png(bytes)
    } else {
        webp(bytes).unwrap_or(true)
    };
    if is_whole { Ok(()) } else { Err(EARLY) }
}

/// Looks for the marker `EOI`, past segments, which state their length, and compressed data, in which `0xff` is followed by
/// zero or a restart marker. A thumbnail inside a segment has an end of its own.
fn jpeg(bytes: &[u8]) -> Result<(), &'static str> {
    let mut at = 0;
    while let Some(&[first, second]) = bytes.get(at..at + 2) {
        at += match (first, second) {
            (0xff, 0xd9) => return Ok(()),
            (0xff, 0x00 | 0x01 | 0xd0..=0xd8) => 2,
            (0xff, 0x02..=0xbf) => return Err(DAMAGED),
            (0xff, 0xc0..=0xfe) => match bytes.get(at + 2..at + 4) {
                Some(&[high, low]) => 2 + usize::from(u16::from_be_bytes([high, low])),
                _ => return Err(EARLY),
            },
            _ => 1,
        };
    }
    Err(EARLY)
}

/// Looks for the chunk `IEND`. Every chunk has a length, a name, as many bytes, and a checksum.
fn png(bytes: &[u8]) -> bool {
    let mut at = PNG.len();
    while let Some((length, rest)) = bytes.get(at..).and_then(|rest| rest.split_first_chunk::<4>()) {
        if rest.starts_with(b"IEND") {
            return rest.len() >= 8;
        }
        at = at.saturating_add(12).saturating_add(u32::from_be_bytes(*length) as usize);
    }
    false
}

/// Compares the length of the container with that of the file; none where it is no WebP.
fn webp(bytes: &[u8]) -> Option<bool> {
    let (length, rest) = bytes.strip_prefix(b"RIFF")?.split_first_chunk::<4>()?;
    rest.starts_with(b"WEBP").then(|| rest.len() >= u32::from_le_bytes(*length) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageFormat, Rgb, RgbImage};
    use std::io::Cursor;

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let noise = |x: u32, y: u32| Rgb([(x * 37 + y * 91) as u8, (x * x * 7) as u8, (y * y * 13) as u8]);
        let mut bytes = Cursor::new(Vec::new());
        RgbImage::from_fn(40, 40, noise).write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn files_cut_anywhere_are_found() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP] {
            let whole = encoded(format);
            assert_eq!(check(&whole), Ok(()), "{format:?}");
            for length in 16..whole.len() {
                assert_eq!(check(&whole[..length]), Err(EARLY), "{format:?}: {length} of {} bytes", whole.len());
            }
            assert_eq!(check(&[&whole[..], b"more"].concat()), Ok(()), "{format:?}");
        }
        assert_eq!(check(b"no image"), Ok(()));
    }

    /// The end of a thumbnail is not the end of the image.
    #[test]
    fn ends_inside_of_segments_do_not_count() {
        let whole = encoded(ImageFormat::Jpeg);
        let segment = [0xff, 0xe1, 0, 6, 0xff, 0xd9, 0xff, 0xd9];
        let with = [&whole[..2], &segment[..], &whole[2..]].concat();
        assert_eq!(check(&with), Ok(()));
        assert_eq!(check(&with[..with.len() / 2]), Err(EARLY));
    }

    #[test]
    fn unknown_markers_are_damage() {
        let mut bytes = encoded(ImageFormat::Jpeg);
        let at = bytes.len() - 20;
        bytes[at..at + 2].copy_from_slice(&[0xff, 0x77]);
        assert_eq!(check(&bytes), Err(DAMAGED));
    }
}
