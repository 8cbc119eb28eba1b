//! Samples of many lengths: which axes of the inputs differ from sample to sample, and which go together.

use crate::engine::Length;

/// Of so many different shapes each gets a plan of its own: it runs faster than one for all lengths.
pub(crate) const FEW: usize = 4;

/// The axes of inputs that samples share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lengths(Vec<Vec<Length>>);

impl Lengths {
    /// What samples of these shapes have in common: axes that are equally long in all samples are fixed, and of the others
    /// those that agree in every sample share a number. None where there are few shapes, or where one is not known.
    pub(crate) fn of(samples: &[Option<Vec<Vec<usize>>>]) -> Option<Self> {
        let samples: Vec<&Vec<Vec<usize>>> = samples.iter().map(Option::as_ref).collect::<Option<_>>()?;
        let first = *samples.first()?;
        let ranks = |sample: &[Vec<usize>]| sample.iter().map(Vec::len).collect::<Vec<_>>();
        let mut different = samples.clone();
        different.sort_unstable();
        different.dedup();
        if different.len() <= FEW || samples.iter().any(|sample| ranks(sample) != ranks(first)) {
            return None;
        }
        let mut free: Vec<Vec<usize>> = Vec::new();
        let mut length = |input: usize, axis: usize| {
            let all: Vec<usize> = different.iter().map(|sample| sample[input][axis]).collect();
            if all.iter().all(|&one| one == all[0]) {
                return Length::Fixed(all[0]);
            }
            let number = free.iter().position(|known| *known == all).unwrap_or_else(|| {
                free.push(all);
                free.len() - 1
            });
            Length::Free(number)
        };
        let axes = |(input, shape): (usize, &Vec<usize>)| (0..shape.len()).map(|axis| length(input, axis)).collect();
        Some(Self(first.iter().enumerate().map(axes).collect()))
    }

    /// The axes of each input.
    pub(crate) fn shapes(&self) -> &[Vec<Length>] {
        &self.0
    }

    /// Whether inputs of these shapes are such a sample.
    pub(crate) fn include(&self, shapes: &[Vec<usize>]) -> bool {
        let mut free: Vec<(usize, usize)> = Vec::new();
        let mut fits = |length: &Length, &found: &usize| match *length {
            Length::Fixed(wanted) => wanted == found,
            Length::Free(number) => {
                let known = free.iter().find(|(known, _)| *known == number).map(|(_, wanted)| *wanted);
                if known.is_none() {
                    free.push((number, found));
                }
                known.is_none_or(|wanted| wanted == found)
            }
        };
        let mut same = |axes: &[Length], shape: &[usize]| {
            axes.len() == shape.len() && axes.iter().zip(shape).all(|(axis, found)| fits(axis, found))
        };
        self.0.len() == shapes.len() && self.0.iter().zip(shapes).all(|(axes, shape)| same(axes, shape))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Array, Dataset, Sample};
    use crate::engine::{Backend, EngineError, Facts, Plan, standard};
    use crate::execute::ExecuteError;
    use crate::execute::fold::Pool;
    use crate::execute::segment::{Ran, Segment};
    use crate::runtime::Runtime;
    use msq_passes::ir::{Model, NodeId, import, text};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// The standard back end, and how often it loads a model; for all lengths at once only where allowed.
    #[derive(Debug)]
    struct Counting {
        allowed: bool,
        loaded: Arc<AtomicUsize>,
    }

    impl Backend for Counting {
        fn name(&self) -> &'static str {
            "counting"
        }

        fn version(&self) -> &'static str {
            "0"
        }

        fn load(&self, model: &Model, shapes: &[Vec<usize>]) -> Result<Arc<dyn Plan>, EngineError> {
            self.loaded.fetch_add(1, Ordering::Relaxed);
            standard().load(model, shapes)
        }

        fn load_any_length(&self, model: &Model, shapes: &[Vec<Length>]) -> Result<Option<Arc<dyn Plan>>, EngineError> {
            if !self.allowed {
                return Ok(None);
            }
            self.loaded.fetch_add(1, Ordering::Relaxed);
            standard().load_any_length(model, shapes)
        }

        fn infer(&self, model: &Model) -> Result<Facts, EngineError> {
            standard().infer(model)
        }

        fn unknown(&self, model: &Model) -> Vec<(NodeId, String)> {
            standard().unknown(model)
        }
    }

    /// Attention without its projections, one layer, and a mean over the sequence.
    const SEQUENCE: &str =
        "<ir_version: 8, opset_import: [\"\": 17]> g (float[1,S,4] x, float[1,S] mask) => (float[1,3] y)
        <float[4,3] w = {1, -2, 3, -1, 2, 0.5, 4, -3, 1, 0, 1, -1}, int64[1] axis = {-1}> {
            transposed = Transpose <perm = [0, 2, 1]> (x)
            scores = MatMul (x, transposed)
            row = Unsqueeze (mask, axis)
            masked = Mul (x, row)
            weights = Softmax (scores)
            mixed = MatMul (weights, masked)
            z = MatMul (mixed, w)
            y = ReduceMean <axes = [1], keepdims = 0> (z)
        }";

    #[test]
    fn samples_of_many_lengths_share_a_plan() {
        let model = import(text::parse(SEQUENCE).unwrap()).unwrap();
        let sample = |length: usize| {
            let value = |i: usize| ((i * 7 + length) % 11) as f32 / 11.0 - 0.4;
            let x = Array::from_f32(vec![1, length, 4], (0..4 * length).map(value).collect()).unwrap();
            let mask = Array::from_f32(vec![1, length], (0..length).map(|i| (i % 3) as f32).collect()).unwrap();
            Sample { arrays: vec![x, mask] }
        };
        let run = |lengths: &[usize], allowed: bool, threads: usize| {
            let loaded = Arc::new(AtomicUsize::new(0));
            let backend = Counting { allowed, loaded: Arc::clone(&loaded) };
            let runtime = Runtime::with_threads(threads).with_backend(Arc::new(backend));
            let data = Dataset::stored(lengths.iter().map(|&length| sample(length)).collect());
            let segment = Segment::whole(&model);
            let mut found: Vec<Vec<f32>> = Vec::new();
            let visit = |sum: &mut Vec<Vec<f32>>, _: usize, ran: Ran| -> Result<(), ExecuteError> {
                sum.push(ran.values(0)?.into_owned());
                Ok(())
            };
            let merge = |sum: Vec<Vec<f32>>| {
                found.extend(sum);
                Ok(())
            };
            Pool::new(&segment, &runtime).fold(&data, &runtime, Vec::new, visit, merge).unwrap();
            (found, loaded.load(Ordering::Relaxed))
        };
        let lengths: Vec<usize> = (2..14).collect();
        let (together, loads) = run(&lengths, true, 1);
        assert_eq!(loads, 1);
        assert_eq!(run(&lengths, true, 3), (together.clone(), 1));
        let (apart, loads) = run(&lengths, false, 1);
        assert_eq!(loads, lengths.len());
        for (together, apart) in together.iter().flatten().zip(apart.iter().flatten()) {
            assert!((together - apart).abs() < 1e-5, "{together} {apart}");
        }
        assert_eq!(run(&[3, 5, 3, 5, 3], true, 1).1, 2);
    }

    #[test]
    fn axes_that_agree_in_every_sample_are_equally_long() {
        let sample = |length: usize, other: usize| Some(vec![vec![1, length], vec![1, length, 8], vec![other]]);
        let samples: Vec<_> = (3..9).map(|length| sample(length, length * length % 5)).collect();
        let lengths = Lengths::of(&samples).unwrap();
        let (one, free, other) = (Length::Fixed(1), Length::Free(0), Length::Free(1));
        assert_eq!(lengths.shapes(), [vec![one, free], vec![one, free, Length::Fixed(8)], vec![other]]);
        assert!(lengths.include(&[vec![1, 70], vec![1, 70, 8], vec![2]]));
        assert!(!lengths.include(&[vec![1, 70], vec![1, 71, 8], vec![2]]));
        assert!(!lengths.include(&[vec![2, 70], vec![2, 70, 8], vec![2]]));
        assert!(!lengths.include(&[vec![1, 70], vec![1, 70, 8]]));
    }

    #[test]
    fn few_or_unknown_shapes_have_plans_of_their_own() {
        let sample = |length: usize| Some(vec![vec![length]]);
        assert_eq!(Lengths::of(&(1..5).cycle().take(40).map(sample).collect::<Vec<_>>()), None);
        assert!(Lengths::of(&(1..6).map(sample).collect::<Vec<_>>()).is_some());
        assert_eq!(Lengths::of(&(1..6).map(sample).chain([None]).collect::<Vec<_>>()), None);
        assert_eq!(Lengths::of(&(1..6).map(sample).chain([Some(vec![vec![3, 3]])]).collect::<Vec<_>>()), None);
        assert_eq!(Lengths::of(&[]), None);
    }
}
