//! Dead-leaves images: shapes of random position, size and colour that occlude each other.
//!
//! With radii of density r⁻³ the image is scale-invariant and its power spectrum falls as 1/f², like that of natural
//! images (Ruderman 1997; Lee, Mumford and Huang 2001; as training data: Baradad et al. 2021, arXiv:2106.05963).
//! Shapes are shaded and lightly textured, the image is blurred by a pixel, and brightness, contrast and tint differ
//! from image to image.

use super::random::Random;

/// Mean and standard deviation of the pixels over many images, in 0..1.
pub(super) const MEAN: f32 = 0.5;
pub(super) const STD: f32 = 0.24;

/// Area of all shapes in units of the image: a part of e⁻⁵ stays uncovered.
const COVERAGE: f32 = 5.0;
/// Bounds the work on huge images.
const MOST_SHAPES: f32 = 50_000.0;

/// An image of `channels` planes of `height` × `width` pixels in 0..1.
pub(super) fn draw(random: &mut Random, channels: usize, height: usize, width: usize) -> Vec<f32> {
    let plane = height * width;
    let mut image = vec![0.0; channels * plane];
    if image.is_empty() {
        return image;
    }
    let colour = colour(random, channels);
    image.chunks_mut(plane).zip(colour).for_each(|(plane, value)| plane.fill(value));
    let side = height.max(width) as f32;
    let (smallest, largest) = ((side / 200.0).max(0.8), (side / 2.0).max(1.6));
    // The mean of r² under density r⁻³ between the bounds.
    let ratio = smallest / largest;
    let mean_square = 2.0 * smallest * smallest * -ratio.ln() / (1.0 - ratio * ratio);
    let shapes = COVERAGE * (height as f32 + smallest) * (width as f32 + smallest) / (3.0 * mean_square);
    for _ in 0..shapes.min(MOST_SHAPES) as usize {
        let leaf = Leaf::random(random, channels, [height, width], [smallest, largest]);
        leaf.paint(random, &mut image, height, width);
    }
    for plane in image.chunks_mut(plane) {
        blur(plane, width);
    }
    expose(random, &mut image, plane);
    image
}

/// Channels share their brightness and differ a little in tint.
fn colour(random: &mut Random, channels: usize) -> Vec<f32> {
    let luma = random.between(0.02, 0.98);
    (0..channels).map(|_| if channels == 1 { luma } else { luma + 0.09 * random.normal() }).collect()
}

/// One shape.
struct Leaf {
    centre: [f32; 2],
    /// Half sizes along the rows and columns.
    half: [f32; 2],
    round: bool,
    colour: Vec<f32>,
    /// Change of brightness from the centre to the edge, along each axis.
    shade: [f32; 2],
    texture: f32,
}

impl Leaf {
    fn random(random: &mut Random, channels: usize, size: [usize; 2], [smallest, largest]: [f32; 2]) -> Self {
        // The inverse of the distribution of density r⁻³.
        let (a, b) = (smallest.powi(-2), largest.powi(-2));
        let radius = (a - random.unit() * (a - b)).powf(-0.5);
        let round = random.unit() < 0.6;
        let stretch = random.between(0.6, 1.6);
        Self {
            centre: size.map(|side| random.between(-radius, side as f32 + radius)),
            half: [radius * stretch, radius / stretch],
            round,
            colour: colour(random, channels),
            shade: [0.1 * random.normal(), 0.1 * random.normal()],
            texture: 0.06 * random.normal().abs(),
        }
    }

    fn paint(&self, random: &mut Random, image: &mut [f32], height: usize, width: usize) {
        let [y0, x0] = self.centre;
        let [h, w] = self.half;
        let range = |centre: f32, half: f32, side: usize| {
            let bound = |x: f32| (x.ceil().max(0.0) as usize).min(side);
            bound(centre - half)..bound(centre + half)
        };
        for y in range(y0, h, height) {
            let v = (y as f32 - y0) / h;
            // A round shape is narrower away from its centre.
            let reach = if self.round { (1.0 - v * v).max(0.0).sqrt() } else { 1.0 };
            for x in range(x0, w * reach, width) {
                let u = (x as f32 - x0) / w;
                let light = self.shade[0] * v + self.shade[1] * u + self.texture * random.between(-1.0, 1.0);
                let pixels = image.iter_mut().skip(y * width + x).step_by(height * width);
                pixels.zip(&self.colour).for_each(|(pixel, colour)| *pixel = colour + light);
            }
        }
    }
}

/// The kernel 1 6 1 along rows, then along columns; edges keep their weight.
fn blur(plane: &mut [f32], width: usize) {
    let mut before = Vec::with_capacity(plane.len());
    for stride in [1, width] {
        before.clear();
        before.extend_from_slice(plane);
        let line = if stride == 1 { width } else { plane.len() };
        for (i, pixel) in plane.iter_mut().enumerate() {
            let within = i % line;
            let previous = if within >= stride { before.get(i - stride) } else { None };
            let next = if within + stride < line { before.get(i + stride) } else { None };
            let here = *pixel;
            let (previous, next) = (previous.copied().unwrap_or(here), next.copied().unwrap_or(here));
            *pixel = 0.75 * here + 0.125 * (previous + next);
        }
    }
}

/// Brightness, contrast and tint of the whole image, and the limits of a sensor.
fn expose(random: &mut Random, image: &mut [f32], plane: usize) {
    let contrast = random.between(0.5, 1.15);
    let brightness = 0.5 + 0.08 * random.normal();
    let tinted = image.len() > plane;
    for plane in image.chunks_mut(plane) {
        let level = brightness + if tinted { 0.03 * random.normal() } else { 0.0 };
        for pixel in plane {
            *pixel = (level + contrast * (*pixel - 0.5)).clamp(0.0, 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(count: u64, side: usize) -> Vec<Vec<f32>> {
        (0..count).map(|i| draw(&mut Random::new(7, 0, i), 3, side, side)).collect()
    }

    fn moments(values: impl Iterator<Item = f32> + Clone) -> (f32, f32) {
        let n = values.clone().count() as f32;
        let mean = values.clone().sum::<f32>() / n;
        (mean, (values.map(|v| (v - mean).powi(2)).sum::<f32>() / n).sqrt())
    }

    #[test]
    fn moments_are_those_stated() {
        let images = images(60, 64);
        let (mean, std) = moments(images.iter().flatten().copied());
        assert!((mean - MEAN).abs() < 0.03 && (std - STD).abs() < 0.03, "{mean} {std}");
    }

    /// Under a 1/f² power spectrum every octave holds the same energy, up to what the blur takes from the finest.
    #[test]
    fn octaves_hold_similar_energy() {
        let side = 128;
        let mut energy = [0.0_f32; 5];
        for image in images(12, side) {
            let mut plane = image[..side * side].to_vec();
            let mut width = side;
            for octave in &mut energy {
                let half = width / 2;
                let coarse: Vec<f32> = (0..half * half)
                    .map(|i| {
                        let (y, x) = (2 * (i / half), 2 * (i % half));
                        [(0, 0), (0, 1), (1, 0), (1, 1)]
                            .iter()
                            .map(|(a, b)| plane[(y + a) * width + x + b])
                            .sum::<f32>()
                            / 4.0
                    })
                    .collect();
                let fine = (0..width * width).map(|i| plane[i] - coarse[i / width / 2 * half + i % width / 2]);
                *octave += fine.map(|d| d * d).sum::<f32>() / (width * width) as f32;
                (plane, width) = (coarse, half);
            }
        }
        let (low, high) = energy[1..].iter().fold((f32::MAX, 0.0_f32), |(l, h), &e| (l.min(e), h.max(e)));
        assert!(high / low < 3.0, "{energy:?}");
        assert!(energy[0] < energy[1] && energy[0] > energy[1] / 20.0, "{energy:?}");
    }

    #[test]
    fn any_size_is_drawn() {
        for (height, width) in [(0, 5), (1, 1), (3, 400), (31, 2)] {
            let image = draw(&mut Random::new(1, 2, 3), 1, height, width);
            assert_eq!(image.len(), height * width);
            assert!(image.iter().all(|p| (0.0..=1.0).contains(p)));
        }
    }
}
