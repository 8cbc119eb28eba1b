//! What gradients start from: vectors s by an output with `E ssᵀ = F`, the second derivative of the distance.
//!
//! * Rows of scores, compared by KL(p ‖ q): `F = diag p − ppᵀ` by the logits. Of up to [`ENUMERATED`] classes s is
//!   `√p_y·(e_y − p)` for every class y, `e_y` its unit vector: the squared gradients of `log p_y`, weighted by `p_y`. Of
//!   more classes, or with several rows, `s = √p ⊙ ε − p·(√p·ε)` for normal ε, some times.
//! * Rows that are probabilities: the softmax takes s/p to the same.
//! * Scores that each decide alone: 1/(p(1 − p)) by the probability p.
//! * Values: 1/σ², the variance of the float network's channel.

use crate::data::random::Random;
use crate::data::{Array, Dataset};
use crate::execute::masks::Kept;
use crate::measure::agreement::{RowLayout, is_probabilities, probabilities};
use crate::measure::channels::{CONSTANT, ChannelLayout};
use crate::measure::outputs::{OutputSpec, Outputs};
use crate::scheme::output_kind::OutputKind;
use crate::search::SearchError;

/// The most classes that are taken one by one.
const ENUMERATED: usize = 16;
/// Draws for each sample where that is not done.
const DRAWS: u64 = 2;
/// The stream of random numbers.
const STREAM: u64 = 0x6772_6164;
/// Probabilities are taken for no smaller.
const LEAST: f64 = 1e-30;

/// An output of one sample.
#[derive(Clone, Debug)]
pub(super) struct Ran {
    pub(super) values: Vec<f32>,
    pub(super) shape: Vec<usize>,
}

/// Where a run back starts.
#[derive(Clone, Debug)]
pub(super) struct Seed {
    pub(super) sample: usize,
    /// Its square by the logits, or what stands for it: its share of F's trace.
    pub(super) weight: f64,
    /// One array for each output.
    pub(super) arrays: Vec<Array>,
}

/// The seeds of all samples; or why the outputs have none.
pub(super) fn seeds(
    outputs: &Outputs,
    runs: &[Vec<Ran>],
    data: &Dataset,
    seed: u64,
) -> Result<Result<Vec<Seed>, String>, SearchError> {
    let mut forms = Vec::new();
    for (at, spec) in outputs.list.iter().enumerate() {
        match Form::of(spec, runs.iter().map(|run| &run[at])) {
            Ok(form) => forms.push(form),
            Err(reason) => return Ok(Err(reason)),
        }
    }
    let mut found = Vec::new();
    for (sample, run) in runs.iter().enumerate() {
        let kept = outputs.kept(data, sample)?;
        let specs = outputs.list.iter();
        let output = |((ran, form), spec)| Drawn { ran, form, spec, kept: kept.as_ref() };
        let drawn: Vec<Drawn> = run.iter().zip(&forms).zip(specs).map(output).collect();
        let made: Vec<Vec<(Vec<f64>, f64)>> = match &drawn[..] {
            [only] if only.classes().is_some_and(|classes| classes <= ENUMERATED) => only.enumerated(),
            _ => {
                let draw = |draw| {
                    let mut random = Random::new(seed, STREAM + draw, sample as u64);
                    drawn.iter().map(|output| output.drawn(&mut random)).collect()
                };
                (0..DRAWS).map(draw).collect()
            }
        };
        for vectors in made {
            let weight = vectors.iter().map(|(_, weight)| weight).sum();
            let arrays = vectors.into_iter().zip(run).map(|((vector, _), ran)| {
                Array::from_f32(ran.shape.clone(), vector.into_iter().map(|v| v as f32).collect())
            });
            let arrays =
                arrays.collect::<Result<_, _>>().map_err(|error| SearchError::Refused { reason: error.to_string() })?;
            found.push(Seed { sample, weight, arrays });
        }
    }
    Ok(Ok(found))
}

/// How an output is compared.
enum Form {
    /// Rows along an axis.
    Rows,
    /// Each number for itself, between 0 and 1.
    Alone,
    /// Values, with 1/σ of each channel.
    Values { layout: ChannelLayout, inverse: Vec<f64> },
}

impl Form {
    fn of<'r>(spec: &OutputSpec, runs: impl Iterator<Item = &'r Ran> + Clone) -> Result<Self, String> {
        let Some(kind) = spec.kind() else { return Err(format!("it is not known what output `{}` holds", spec.name)) };
        let rows = |run: &Ran| spec.row_axis(&run.shape).is_some_and(|axis| run.shape[axis] > 1);
        match kind {
            _ if spec.is_whole => Err(format!("output `{}` holds whole numbers", spec.name)),
            OutputKind::Scores if spec.is_behind_sigmoid() => Ok(Self::Alone),
            OutputKind::Scores | OutputKind::Sequence if runs.clone().all(rows) => Ok(Self::Rows),
            OutputKind::Values => Ok(Self::values(spec, runs)),
            kind => Err(format!("output `{}` holds {kind}, for which there is no second derivative", spec.name)),
        }
    }

    fn values<'r>(spec: &OutputSpec, runs: impl Iterator<Item = &'r Ran> + Clone) -> Self {
        let layout = runs.clone().next().map_or(ChannelLayout::WHOLE, |run| spec.channels.layout(&run.shape));
        let mut sums = vec![(0.0, 0.0, 0_u64); layout.channels];
        for run in runs {
            for (at, &value) in run.values.iter().enumerate().filter(|(_, value)| value.is_finite()) {
                let (sum, squares, count) = &mut sums[at / layout.inner % layout.channels];
                let value = f64::from(value);
                (*sum, *squares, *count) = (*sum + value, *squares + value * value, *count + 1);
            }
        }
        let inverse = |&(sum, squares, count): &(f64, f64, u64)| {
            let (mean, count) = (sum / count.max(1) as f64, count.max(1) as f64);
            let variance = squares / count - mean * mean;
            // A channel that is always the same says nothing of its scale.
            if variance > CONSTANT * mean * mean && variance > 0.0 { variance.sqrt().recip() } else { 0.0 }
        };
        Self::Values { layout, inverse: sums.iter().map(inverse).collect() }
    }
}

/// An output of a sample from which vectors are drawn.
struct Drawn<'d> {
    ran: &'d Ran,
    form: &'d Form,
    spec: &'d OutputSpec,
    kept: Option<&'d Kept<'d>>,
}

impl Drawn<'_> {
    /// The number of classes of an output of a single row.
    fn classes(&self) -> Option<usize> {
        let layout = self.layout().filter(|_| matches!(self.form, Form::Rows))?;
        (layout.count(self.ran.values.len()) == 1).then_some(layout.width)
    }

    /// For each class y the vector `√p_y·(e_y − p)`, with its square.
    fn enumerated(&self) -> Vec<Vec<(Vec<f64>, f64)>> {
        let p = probabilities(&self.ran.values);
        let vector = |y: usize| {
            let unit = |at: usize| if at == y { 1.0 } else { 0.0 };
            let logits: Vec<f64> = p.iter().enumerate().map(|(at, q)| p[y].sqrt() * (unit(at) - q)).collect();
            let weight = logits.iter().map(|v| v * v).sum();
            vec![(by_output(logits, &p, &self.ran.values), weight)]
        };
        (0..p.len()).map(vector).collect()
    }

    /// A vector with `E ssᵀ = F/draws`, and its share of the trace.
    fn drawn(&self, random: &mut Random) -> (Vec<f64>, f64) {
        let share = 1.0 / DRAWS as f64;
        let values = &self.ran.values;
        let mut found = vec![0.0; values.len()];
        let mut weight = 0.0;
        match self.form {
            Form::Rows => {
                let positions = self.kept.and_then(|kept| kept.of(&self.spec.name, &self.ran.shape));
                let Some(layout) = self.layout() else { return (found, 0.0) };
                let counts = |row: &usize| positions.as_ref().is_none_or(|kept| kept.keeps(layout.start(*row)));
                let rows: Vec<usize> = (0..layout.count(values.len())).filter(counts).collect();
                let scale = (share / rows.len().max(1) as f64).sqrt();
                for row in rows {
                    let scores = layout.row(values, row);
                    let p = probabilities(&scores);
                    let roots: Vec<f64> = p.iter().map(|p| p.sqrt() * f64::from(random.normal())).collect();
                    let sum: f64 = roots.iter().sum();
                    let logits: Vec<f64> = p.iter().zip(&roots).map(|(p, root)| scale * (root - p * sum)).collect();
                    weight += scale * scale * p.iter().map(|p| p * (1.0 - p)).sum::<f64>();
                    for (at, value) in by_output(logits, &p, &scores).into_iter().enumerate() {
                        found[layout.start(row) + at * layout.inner] = value;
                    }
                }
            }
            Form::Alone => {
                let scale = (share / values.len().max(1) as f64).sqrt();
                for (found, &value) in found.iter_mut().zip(values) {
                    let p = f64::from(value).clamp(1e-4, 1.0 - 1e-4);
                    *found = scale * f64::from(random.normal()) / (p * (1.0 - p)).sqrt();
                }
                weight = share;
            }
            Form::Values { layout, inverse } => {
                let scale = (share / values.len().max(1) as f64).sqrt();
                for (at, found) in found.iter_mut().enumerate() {
                    *found = scale * f64::from(random.normal()) * inverse[at / layout.inner % layout.channels];
                }
                weight = share;
            }
        }
        (found, weight)
    }

    fn layout(&self) -> Option<RowLayout> {
        RowLayout::of(&self.ran.shape, self.spec.row_axis(&self.ran.shape)?)
    }
}

/// The vector by the output itself, where it holds probabilities.
fn by_output(logits: Vec<f64>, p: &[f64], row: &[f32]) -> Vec<f64> {
    if is_probabilities(row) { logits.into_iter().zip(p).map(|(v, p)| v / p.max(LEAST)).collect() } else { logits }
}

#[cfg(test)]
mod tests {
    use super::{DRAWS, Drawn, Form, Ran};
    use crate::data::random::Random;
    use crate::execute::masks::Masks;
    use crate::measure::agreement::probabilities;
    use crate::measure::outputs::{OutputSpec, Reading};
    use crate::scheme::output_kind::OutputKind;
    use msq_passes::ir::{import, text};

    fn spec(kind: OutputKind) -> OutputSpec {
        let model = "<ir_version: 8, opset_import: [\"\": 17]> g (float[1,3] x) => (float[1,3] y) { y = Neg(x) }";
        let model = import(text::parse(model).unwrap()).unwrap();
        let outputs = crate::measure::outputs::Outputs::of(&model, &[], Masks::default(), 1).unwrap();
        let asked = Some(Reading { kind, because: "test".into() });
        OutputSpec { asked, ..outputs.list[0].clone() }
    }

    /// E ssᵀ of vectors, by three elements.
    fn second(vectors: impl Iterator<Item = Vec<f64>>) -> [[f64; 3]; 3] {
        let mut sum = [[0.0; 3]; 3];
        for vector in vectors {
            for (row, a) in sum.iter_mut().zip(&vector) {
                row.iter_mut().zip(&vector).for_each(|(sum, b)| *sum += a * b);
            }
        }
        sum
    }

    fn close(found: [[f64; 3]; 3], wanted: [[f64; 3]; 3], tolerance: f64) {
        for (found, wanted) in found.iter().flatten().zip(wanted.iter().flatten()) {
            assert!((found - wanted).abs() < tolerance, "{found} is not {wanted}");
        }
    }

    fn fisher(p: &[f64]) -> [[f64; 3]; 3] {
        let element = |a: usize, b: usize| if a == b { p[a] - p[a] * p[b] } else { -p[a] * p[b] };
        [0, 1, 2].map(|a| [0, 1, 2].map(|b| element(a, b)))
    }

    #[test]
    fn vectors_have_the_second_derivative_of_the_divergence() {
        let ran = Ran { values: vec![1.0, -0.5, 0.3], shape: vec![1, 3] };
        let spec = spec(OutputKind::Scores);
        let form = Form::of(&spec, [&ran].into_iter()).unwrap();
        let drawn = Drawn { ran: &ran, form: &form, spec: &spec, kept: None };
        let wanted = fisher(&probabilities(&ran.values));
        assert_eq!(drawn.classes(), Some(3));
        close(second(drawn.enumerated().into_iter().map(|one| one[0].0.clone())), wanted, 1e-9);
        let count = 20_000;
        let draws = (0..count).map(|at| drawn.drawn(&mut Random::new(1, 2, at)).0);
        let scale = DRAWS as f64 / count as f64;
        close(second(draws).map(|row| row.map(|v| v * scale)), wanted, 0.01);
    }

    /// The softmax takes the vector by probabilities to that by logits.
    #[test]
    fn probabilities_are_led_back_to_logits() {
        let p = [0.6, 0.3, 0.1];
        let ran = Ran { values: p.map(|p| p as f32).to_vec(), shape: vec![1, 3] };
        let spec = spec(OutputKind::Scores);
        let form = Form::of(&spec, [&ran].into_iter()).unwrap();
        let drawn = Drawn { ran: &ran, form: &form, spec: &spec, kept: None };
        let back = |one: Vec<(Vec<f64>, f64)>| {
            let sum: f64 = one[0].0.iter().zip(p).map(|(u, p)| u * p).sum();
            one[0].0.iter().zip(p).map(|(u, p)| p * (u - sum)).collect::<Vec<f64>>()
        };
        close(second(drawn.enumerated().into_iter().map(back)), fisher(&p), 1e-6);
    }

    #[test]
    fn values_count_by_their_variance() {
        let runs =
            [[1.0, 10.0, 5.0], [3.0, 30.0, 5.0]].map(|values| Ran { values: values.to_vec(), shape: vec![1, 3] });
        let spec = spec(OutputKind::Values);
        let Form::Values { inverse, .. } = Form::of(&spec, runs.iter()).unwrap() else { panic!("no values") };
        assert_eq!(inverse.len(), 3);
        assert!((inverse[0] - 1.0).abs() < 1e-9 && (inverse[1] - 0.1).abs() < 1e-9 && inverse[2] == 0.0, "{inverse:?}");
    }
}
