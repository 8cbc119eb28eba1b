//! Synthetic inputs that suit a model: ids within the rows of its tables, which those of other data have to keep to as
//! well, images with the mean and spread of the data on which its first batch-norm was trained.
//!
//! A first convolution maps images x = α·u + m, with u of zero mean and unit spread, to channels of mean
//! b + α·(a − b) + m·S and variance α²·v, where a and v are the channel's mean and variance for u itself, b its bias
//! and S the sum of its weights. The batch-norm behind it stores the mean μ and variance σ² of the training data:
//! α² is the median of σ²/v over the channels, and m the least-squares solution of μ = b + α·(a − b) + m·S.

use super::CalibrateError;
use crate::data::{DataError, Dataset, InputSpec, SyntheticOptions, SyntheticScale, SyntheticValues};
use crate::engine::{Backend, EngineError};
use msq_passes::ir::{DataType, Graph, Model, Node, NodeId, ValueId};
use msq_passes::ops::{Trait, facts};
use msq_passes::pipelines;
use std::collections::HashSet;

/// Number of images from which the scale is estimated.
const PROBES: usize = 4;

/// Free lengths are not made longer than this, a second of sound and more.
const LONGEST: usize = 1 << 16;

/// Nor shorter than this.
const SHORTEST: usize = 4;

/// Bytes of models that are run to see which lengths suit them, at most.
const LARGEST: u64 = 1 << 29;

/// Synthetic samples for a model, whose first layers the back end runs.
pub fn made_up(model: &Model, options: &SyntheticOptions, backend: &dyn Backend) -> Result<Dataset, CalibrateError> {
    let mut specs = InputSpec::of(model);
    let mut options = options.clone();
    let mut lifted = model.clone();
    pipelines::examine().run(&mut lifted)?;
    for spec in specs.iter_mut().filter(|spec| spec.shape.is_none()) {
        spec.shape = lifted.graph.find(&spec.name).and_then(|value| shape_read(&lifted, value));
    }
    for spec in specs.iter().filter(|s| !s.dtype.is_float()) {
        if let Some(chosen) = lifted.graph.find(&spec.name).and_then(|v| chosen_from(&lifted, v, Selecting::Parts)) {
            let limit = match chosen {
                Chosen::Row(limit) | Chosen::Place(limit) => limit,
                // Of what has no known length there is a first element.
                Chosen::Unknown => 1,
            };
            options.values.insert(spec.name.clone(), SyntheticValues::Ids { limit });
        }
    }
    match image_scale(&lifted, &specs, &options, backend) {
        Ok(Some((name, scale))) => {
            tracing::info!(input = name, mean = scale.mean, std = scale.std, "scale of made-up images");
            options.values.insert(name, SyntheticValues::Images(scale));
        }
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, "the scale of made-up images is not known"),
    }
    of_lengths_that_run(&lifted, &specs, &options, backend)
}

/// Samples whose free lengths, where there are any, are doubled until no convolution or pool is left with nothing to read,
/// and halved where the engine only runs shorter ones: a table of positions may have few rows.
fn of_lengths_that_run(
    model: &Model,
    specs: &[InputSpec],
    options: &SyntheticOptions,
    backend: &dyn Backend,
) -> Result<Dataset, CalibrateError> {
    let is_windowed = |node: &Node| facts(node.op()).has(Trait::Pooling) || node.is("Conv");
    let looks_up = |node: &Node| node.is("Gather") && node.input(0).is_some_and(|v| model.graph.constant(v).is_some());
    let is_free = |spec: &InputSpec| spec.shape.iter().flatten().skip(1).any(Option::is_none);
    let is_bounded = |(_, node): (NodeId, &Node)| is_windowed(node) || looks_up(node);
    let bounded = specs.iter().any(is_free) && model.graph.nodes().any(is_bounded) && model.stored_bytes() <= LARGEST;
    let made = |length: usize| Dataset::synthetic(specs, &SyntheticOptions { length, ..options.clone() });
    let runs = |data: &Dataset| -> Result<Result<(), EngineError>, DataError> {
        let arrays = data.sample(0)?.arrays;
        let shapes: Vec<Vec<usize>> = arrays.iter().map(|array| array.shape().to_vec()).collect();
        Ok(backend.load(model, &shapes).and_then(|loaded| loaded.session()?.run(&arrays)).map(drop))
    };
    let mut length = options.length;
    loop {
        let data = made(length)?;
        if !bounded || data.is_empty() || length >= LONGEST {
            return Ok(data);
        }
        match runs(&data)? {
            Ok(()) => return Ok(data),
            Err(EngineError::Empty { .. }) => length *= 2,
            Err(_) => break,
        }
    }
    // What runs at no length is tried once more in vain.
    let is_run = |length: usize| -> Result<bool, DataError> { Ok(runs(&made(length)?)?.is_ok()) };
    if length <= SHORTEST || !is_run(SHORTEST)? {
        return Ok(made(length)?);
    }
    let halves = std::iter::successors(Some(length / 2), |length| Some(length / 2));
    for shorter in halves.take_while(|&length| length > SHORTEST) {
        if is_run(shorter)? {
            return Ok(made(shorter)?);
        }
    }
    Ok(made(SHORTEST)?)
}

/// Refuses samples with ids beyond the tables that they index, counted from the end where they are negative.
pub(crate) fn refuse_foreign_ids(model: &Model, data: &Dataset) -> Result<(), DataError> {
    let specs = InputSpec::of(model);
    let rows = |spec: &InputSpec| match chosen_from(model, model.graph.find(&spec.name)?, Selecting::Whole)? {
        Chosen::Row(rows) => i64::try_from(rows).ok(),
        Chosen::Place(_) | Chosen::Unknown => None,
    };
    let tables: Vec<Option<i64>> = specs.iter().map(|spec| rows(spec).filter(|_| !spec.dtype.is_float())).collect();
    if tables.iter().all(Option::is_none) {
        return Ok(());
    }
    for sample in 0..data.len() {
        for ((array, spec), rows) in data.sample(sample)?.arrays.iter().zip(&specs).zip(&tables) {
            let Some(rows) = *rows else { continue };
            if let Some(id) = array.integers().find(|id| !(-rows..rows).contains(id)) {
                return Err(DataError::ForeignId { sample, input: spec.name.clone(), id, rows });
            }
        }
    }
    Ok(())
}

/// What an integer says.
#[derive(Clone, Copy, Debug)]
enum Chosen {
    /// A row of a table of so many: of a `Gather` from a constant.
    Row(u64),
    /// One of so many places: of a `OneHot`, which takes others for none.
    Place(u64),
    /// An element of something computed.
    Unknown,
}

/// What of an integer value selects something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Selecting {
    /// All of it, in every table.
    Whole,
    /// Any part of it: each column may have a table of its own.
    Parts,
}

/// What an integer value selects from, by what reads it: the shortest of all tables.
fn chosen_from(model: &Model, value: ValueId, selecting: Selecting) -> Option<Chosen> {
    let graph = &model.graph;
    let (mut open, mut seen, mut found) = (vec![value], HashSet::from([value]), None);
    while let Some(value) = open.pop() {
        for reader in graph.value(value).uses() {
            let node = graph.node(reader.node);
            match (node.op(), reader.slot) {
                ("Gather" | "GatherElements" | "ScatterElements", 1) => {
                    found = least(found, row(graph, node).unwrap_or(Chosen::Unknown));
                }
                ("OneHot", 0) => {
                    let depth = node.input(1).and_then(|depth| graph.constant(depth)?.to_i64().ok()?.first().copied());
                    let places = depth.and_then(|depth| u64::try_from(depth).ok()).map(Chosen::Place);
                    found = places.map_or(found, |places| least(found, places));
                }
                (op, slot) if hands_on(op, slot, selecting) => {
                    let outputs = node.outputs().iter().flatten().copied();
                    open.extend(outputs.filter(|&output| seen.insert(output)));
                }
                _ => {}
            }
        }
    }
    found
}

/// Whether an operator hands on integers that it has at an input, or some of them.
fn hands_on(op: &str, slot: usize, selecting: Selecting) -> bool {
    let parts =
        matches!(op, "Slice" | "Split" | "Gather" | "GatherElements" | "GatherND") && slot == 0 || op == "Concat";
    let all = slot == 0 && (op == "Expand" || facts(op).has(Trait::Rearrangement));
    all || (parts && selecting == Selecting::Parts)
}

/// What a node that selects by index selects from.
fn row(graph: &Graph, node: &Node) -> Option<Chosen> {
    let shape = graph.constant(node.input(0)?)?.shape().ok()?;
    let axis = node.int_or("axis", 0);
    let axis = usize::try_from(if axis < 0 { axis + shape.len() as i64 } else { axis }).ok()?;
    shape.get(axis).map(|&rows| Chosen::Row(rows as u64))
}

/// The shorter of two tables; one of no known length where there is no other.
fn least(found: Option<Chosen>, other: Chosen) -> Option<Chosen> {
    let length = |chosen: &Chosen| match chosen {
        Chosen::Row(length) | Chosen::Place(length) => *length,
        Chosen::Unknown => u64::MAX,
    };
    found.into_iter().chain([other]).min_by_key(length)
}

/// The shape of an input that declares none, by the layer that reads it: its channels or columns, all other axes open.
fn shape_read(model: &Model, value: ValueId) -> Option<Vec<Option<usize>>> {
    let graph = &model.graph;
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        for reader in graph.value(value).uses() {
            let node = graph.node(reader.node);
            let weight = || node.input(1).and_then(|weight| graph.initializer(weight)?.shape().ok());
            match (node.op(), weight().as_deref()) {
                ("Conv", Some([_, inputs, kernel @ ..])) if reader.slot == 0 => {
                    let group = usize::try_from(node.int_or("group", 1)).ok()?;
                    let channels = [None, inputs.checked_mul(group)];
                    return Some(channels.into_iter().chain(kernel.iter().map(|_| None)).collect());
                }
                ("Gemm" | "MatMul", Some(&[rows, columns])) if reader.slot == 0 => {
                    let transposed = node.op() == "Gemm" && node.int_or("transB", 0) != 0;
                    return Some(vec![None, Some(if transposed { columns } else { rows })]);
                }
                ("Gather", _) if reader.slot == 1 => return Some(vec![None, None]),
                (op, _) if reader.slot == 0 && facts(op).has(Trait::Conversion) => open.extend(node.output(0)),
                _ => {}
            }
        }
    }
    None
}

/// A convolution of an image input and the batch-norm behind it.
struct Stem {
    input: String,
    weight: ValueId,
    bias: Option<ValueId>,
    output: String,
    norm: NodeId,
}

fn stem(graph: &Graph, specs: &[InputSpec]) -> Option<Stem> {
    let is_image = |s: &&InputSpec| {
        s.dtype == DataType::Float && matches!(SyntheticValues::for_input(s), SyntheticValues::Images(_))
    };
    specs.iter().filter(is_image).find_map(|spec| {
        let conv = graph.only_use(graph.find(&spec.name)?)?.node;
        let conv = graph.node(conv);
        let output = conv.is("Conv").then(|| conv.output(0)).flatten()?;
        let norm = graph.only_use(output)?.node;
        graph.node(norm).is("BatchNormalization").then(|| Stem {
            input: spec.name.clone(),
            weight: conv.input(1).unwrap_or(output),
            bias: conv.input(2),
            output: graph.value(output).name().to_owned(),
            norm,
        })
    })
}

fn image_scale(
    model: &Model,
    specs: &[InputSpec],
    options: &SyntheticOptions,
    backend: &dyn Backend,
) -> Result<Option<(String, SyntheticScale)>, CalibrateError> {
    let Some(stem) = stem(&model.graph, specs) else { return Ok(None) };
    let constant = |value: Option<ValueId>| -> Result<Vec<f32>, CalibrateError> {
        let Some(tensor) = value.and_then(|v| model.constant(v)) else { return Ok(Vec::new()) };
        Ok(tensor?.to_f32()?)
    };
    let norm = model.graph.node(stem.norm);
    let (mean, variance) = (constant(norm.input(3))?, constant(norm.input(4))?);
    let (weight, bias) = (constant(Some(stem.weight))?, constant(stem.bias)?);
    let unit = unit_response(model, &stem, specs, options, backend)?;
    let channels = mean.len();
    let known = channels > 0 && unit.len() == channels && variance.len() == channels && !weight.is_empty();
    if !known || weight.len() % channels != 0 {
        return Ok(None);
    }
    let sums: Vec<f64> =
        weight.chunks(weight.len() / channels).map(|w| w.iter().map(|&v| f64::from(v)).sum()).collect();
    let bias = |c: usize| bias.get(c).map_or(0.0, |&b| f64::from(b));
    let mut ratios: Vec<f64> =
        (0..channels).filter(|&c| unit[c].1 > 0.0).map(|c| f64::from(variance[c]) / unit[c].1).collect();
    ratios.sort_by(f64::total_cmp);
    let Some(&ratio) = ratios.get(ratios.len() / 2) else { return Ok(None) };
    let alpha = ratio.sqrt();
    let residual = |c: usize| f64::from(mean[c]) - bias(c) - alpha * (unit[c].0 - bias(c));
    let (above, below) = (0..channels).fold((0.0, 0.0), |(a, b), c| (a + sums[c] * residual(c), b + sums[c] * sums[c]));
    let scale = SyntheticScale { mean: if below > 0.0 { (above / below) as f32 } else { 0.0 }, std: alpha as f32 };
    Ok((scale.mean.is_finite() && scale.std.is_normal()).then_some((stem.input, scale)))
}

/// Mean and variance of every channel of the first convolution for images of zero mean and unit spread.
fn unit_response(
    model: &Model,
    stem: &Stem,
    specs: &[InputSpec],
    options: &SyntheticOptions,
    backend: &dyn Backend,
) -> Result<Vec<(f64, f64)>, CalibrateError> {
    let mut tapped = model.clone();
    pipelines::tap(vec![stem.output.clone()]).run(&mut tapped)?;
    let Some(output) = tapped.graph.find(&stem.output) else { return Ok(Vec::new()) };
    tapped.graph.set_outputs(&[output]);
    let mut options = SyntheticOptions { count: PROBES, ..options.clone() };
    options.values.insert(stem.input.clone(), SyntheticValues::Images(SyntheticScale::default()));
    let data = Dataset::synthetic(specs, &options)?;
    let mut sums: Vec<(f64, f64, f64)> = Vec::new();
    for index in 0..data.len() {
        let sample = data.sample(index)?;
        let shapes: Vec<Vec<usize>> = sample.arrays.iter().map(|a| a.shape().to_vec()).collect();
        let plan = backend.load(&tapped, &shapes)?;
        let outputs = plan.session()?.run(&sample.arrays)?;
        let (values, channels) = (outputs[0].to_f32()?, outputs[0].shape().get(1).copied().unwrap_or(1).max(1));
        sums.resize(channels, (0.0, 0.0, 0.0));
        for (sum, channel) in sums.iter_mut().zip(values.chunks((values.len() / channels).max(1))) {
            for &v in channel {
                *sum = (sum.0 + 1.0, sum.1 + f64::from(v), sum.2 + f64::from(v) * f64::from(v));
            }
        }
    }
    Ok(sums.into_iter().map(|(n, s, q)| (s / n, (q / n - (s / n).powi(2)).max(0.0))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use msq_passes::ir::{import, text};

    /// Ids of two columns, each with a table of its own, and ids that index two tables.
    const TABLES: &str = "<ir_version: 8, opset_import: [\"\": 17]>
        net (int64[N,3] sparse, int32[N,2] both, int64[N,4] cut) => (float[N,4] y)
        <float[50,4] a = {}, float[7,4] b = {}, float[90,4] c = {}, int64 zero = {0}, int64 one = {1},
         int64[2] sizes = {1, 3}>
        { i = Gather <axis = 1> (sparse, zero) j = Gather <axis = 1> (sparse, one) l = Cast <to = 6> (j)
          p = Gather (a, i) q = Gather (b, l) r = Gather (c, both) s = Gather (a, both)
          u, v = Split <axis = 1> (cut, sizes) w = Concat <axis = 1> (v, u) t = Gather (b, w) y = Add (p, q) }";

    fn model() -> Model {
        import(text::parse(TABLES).unwrap()).unwrap()
    }

    #[test]
    fn ids_are_rows_of_the_shortest_table() {
        let model = model();
        let options = SyntheticOptions { count: 32, ..SyntheticOptions::default() };
        let data = made_up(&model, &options, &*crate::engine::standard()).unwrap();
        let most = |input: usize| {
            let largest = |at: usize| data.sample(at).unwrap().arrays[input].integers().max().unwrap();
            (0..data.len()).map(largest).max().unwrap()
        };
        assert_eq!([most(0), most(1), most(2)], [6, 49, 6]);
    }

    /// The table of positions has fewer rows than made-up samples are long.
    #[test]
    fn samples_are_no_longer_than_positions_are_known() {
        let text = "<ir_version: 8, opset_import: [\"\": 17]> net (int64[N,T] ids) => (float[N,T,4] y)
            <float[50,4] words = {}, float[1,20,4] positions = {}, int64[1] zero = {0}, int64[1] one = {1}> {
              e = Gather (words, ids) t = Shape <start = 1, end = 2> (ids) p = Slice (positions, zero, t, one) y = Add (e, p) }";
        let model = import(text::parse(text).unwrap()).unwrap();
        let made = |model: &Model| {
            let data = made_up(model, &SyntheticOptions::default(), &*crate::engine::standard()).unwrap();
            data.sample(0).unwrap().arrays[0].shape().to_vec()
        };
        assert_eq!(made(&model), [1, 16]);
        let free = text.replace("p = Slice (positions, zero, t, one) y = Add (e, p)", "y = Relu (e)");
        assert_eq!(made(&import(text::parse(&free).unwrap()).unwrap()), [1, 64]);
    }

    /// One column may hold ids that another must not.
    #[test]
    fn data_is_refused_only_for_tables_that_all_of_it_indexes() {
        use crate::data::{Array, ArrayData, Sample};
        let integers =
            |shape: &[usize], values: &[i64]| Array::new(shape.to_vec(), ArrayData::I64(values.to_vec())).unwrap();
        let data = |both: [i64; 2]| {
            let arrays = vec![integers(&[1, 3], &[49, 6, 999]), integers(&[1, 2], &both), integers(&[1, 4], &[6; 4])];
            Dataset::stored(vec![Sample { arrays }])
        };
        refuse_foreign_ids(&model(), &data([49, 0])).unwrap();
        assert!(matches!(
            refuse_foreign_ids(&model(), &data([50, 0])),
            Err(DataError::ForeignId { id: 50, rows: 50, .. })
        ));
    }
}
