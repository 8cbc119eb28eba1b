//! `Resize`: a matrix along each axis, whose transpose takes the gradient back.

use super::site::{Handed, Site, axis_at};

/// How one axis is resampled.
struct Axis {
    input: usize,
    output: usize,
    scale: f64,
}

pub(super) fn resize(site: &mut Site) -> Handed {
    site.only_before(1)?;
    let (x, y, mut g) = (site.input(0)?, site.output()?, site.gradient()?);
    let (before, after) = (site.shape(x)?, site.shape(y)?);
    let mut scales: Vec<f64> = before.iter().zip(&after).map(|(&a, &b)| b as f64 / a as f64).collect();
    if let Some(stated) = site.node.input(2).filter(|&v| site.shape(v).is_ok_and(|shape| shape != [0])) {
        let axes = match site.node.ints("axes") {
            [] => (0..before.len() as i64).collect(),
            axes => axes.to_vec(),
        };
        for (axis, scale) in axes.into_iter().zip(site.floats(stated)?) {
            scales[axis_at(axis, before.len())?] = f64::from(scale);
        }
    }
    let mut shape = after.clone();
    for axis in 0..before.len() {
        let along = Axis { input: before[axis], output: after[axis], scale: scales[axis] };
        if along.input == along.output && along.scale == 1.0 {
            continue;
        }
        let matrix = along.transposed(site)?;
        let matrix = site.tensor(&[along.input, along.output], &matrix);
        g = site.along(g, &shape, axis, (matrix, along.input));
        shape[axis] = along.input;
    }
    Ok(vec![Some(g)])
}

impl Axis {
    /// The matrix of shape `[input, output]`.
    fn transposed(&self, site: &Site) -> Result<Vec<f32>, String> {
        let node = &site.node;
        let mode = node.string("mode").unwrap_or("nearest");
        if node.int_or("antialias", 0) != 0 || node.string("keep_aspect_ratio_policy").unwrap_or("stretch") != "stretch"
        {
            return Err("there is no rule with antialiasing or a kept aspect ratio".to_owned());
        }
        let mut matrix = vec![0.0; self.input * self.output];
        for output in 0..self.output {
            let place = self.place(output, node.string("coordinate_transformation_mode").unwrap_or("half_pixel"))?;
            let mut add = |input: f64, weight: f64| {
                let input = input.clamp(0.0, self.input as f64 - 1.0) as usize;
                matrix[input * self.output + output] += weight as f32;
            };
            match mode {
                "nearest" => add(nearest(place, node.string("nearest_mode").unwrap_or("round_prefer_floor"))?, 1.0),
                "linear" => {
                    let place = place.clamp(0.0, self.input as f64 - 1.0);
                    let share = place - place.floor();
                    add(place.floor(), 1.0 - share);
                    add(place.floor() + 1.0, share);
                }
                other => return Err(format!("there is no rule for its mode `{other}`")),
            }
        }
        Ok(matrix)
    }

    /// Where an element of the output lies along the input.
    fn place(&self, output: usize, mode: &str) -> Result<f64, String> {
        let (at, input, length) = (output as f64, self.input as f64, self.output as f64);
        Ok(match mode {
            "pytorch_half_pixel" | "align_corners" if self.output <= 1 => 0.0,
            "half_pixel" | "pytorch_half_pixel" => (at + 0.5) / self.scale - 0.5,
            "half_pixel_symmetric" => {
                let centre = input / 2.0 * (1.0 - length / (self.scale * input));
                centre + (at + 0.5) / self.scale - 0.5
            }
            "asymmetric" => at / self.scale,
            "align_corners" => at * (input - 1.0) / (length - 1.0),
            other => return Err(format!("there is no rule for its coordinates `{other}`")),
        })
    }
}

fn nearest(place: f64, mode: &str) -> Result<f64, String> {
    Ok(match mode {
        "round_prefer_floor" => (place - 0.5).ceil(),
        "round_prefer_ceil" => (place + 0.5).floor(),
        "floor" => place.floor(),
        "ceil" => place.ceil(),
        other => return Err(format!("there is no rule for its rounding `{other}`")),
    })
}
