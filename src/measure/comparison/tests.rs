use super::*;
use crate::execute::masks::Masks;
use crate::scheme::output_kind::OutputChoice;
use msq_passes::ir::{Model, import, text};

fn parse(text: &str) -> Model {
    import(text::parse(text).unwrap()).unwrap()
}

/// The outputs of a model in text form.
fn outputs(text: &str, choices: &[&str], samples: usize) -> Outputs {
    let model = parse(text);
    let choices: Vec<OutputChoice> = choices.iter().map(|choice| choice.parse().unwrap()).collect();
    Outputs::of(&model, &choices, Masks::of(&model), samples).unwrap()
}

/// Numbers in [−1, 1), the same every time.
fn noise(at: usize) -> f32 {
    ((at as u32).wrapping_mul(2_654_435_761).rotate_left(13).wrapping_mul(0x9E37_79B9) >> 8) as f32 / 8_388_608.0 - 1.0
}

/// Compares samples of one output in shards of four, as a fold does.
fn compared(outputs: &Outputs, float: &[Vec<f32>], network: &[Vec<f32>], shape: &[usize]) -> Comparison {
    let mut total = Comparison::new(outputs);
    let samples: Vec<usize> = (0..float.len()).collect();
    for shard in samples.chunks(4) {
        let mut part = Comparison::new(outputs);
        for &at in shard {
            part.observe(at, &float[at..=at], &[OutputArray { values: &network[at], shape }], None, None);
        }
        total.merge(&part);
    }
    total
}

fn kind(text: &str, choices: &[&str], samples: &[Vec<f32>], shape: &[usize]) -> (OutputKind, String) {
    let found = compared(&outputs(text, choices, samples.len()), samples, samples, shape).metrics();
    (found.outputs[0].kind, found.outputs[0].because.clone())
}

/// A model whose last node makes an output of some shape.
fn ending(shape: &str, nodes: &str, name: &str) -> String {
    format!(
        "<ir_version: 8, opset_import: [\"\": 17]>
        net (float[N,4] x) => (float[{shape}] {name})
        <float[10,4] w = {{}}, float[8,3,1,1] f = {{}}>
        {{ h = Gemm <transB = 1> (x, w)
           {nodes} }}"
    )
}

fn gemm(name: &str) -> String {
    ending("N,10", &format!("{name} = Identity (h)"), name)
}

fn logits(samples: usize) -> Vec<Vec<f32>> {
    let row = |s: usize| (0..10).map(move |c| 2.0 * noise(10 * s + c) + if c == s % 7 { 9.0 } else { 0.0 });
    (0..samples).map(|s| row(s).collect()).collect()
}

fn landmarks(samples: usize) -> Vec<Vec<f32>> {
    let mean = [38.0, 51.0, 73.0, 51.0, 56.0, 71.0, 41.0, 92.0, 70.0, 92.0];
    let row = |s: usize| (0..10).map(move |c| mean[c] + 30.0 * noise(s) + 4.0 * noise(1000 + 10 * s + c));
    (0..samples).map(|s| row(s).collect()).collect()
}

/// A matrix alone is no scores: its numbers, its name or the caller has to say so.
/// Behind a layer norm rows are vectors, whether it is one operator or written out; a sum of a layer and a constant is none.
#[test]
fn what_a_layer_norm_leaves() {
    let one = "m = ReduceMean <axes = [-1]> (h)  d = Sub (h, m)  s = Mul (d, d)  v = ReduceMean <axes = [-1]> (s)
               e = Add (v, eps)  r = Sqrt (e)  n = Div (d, r)  g = Mul (n, gain)  y = Add (g, gain)";
    let of = |nodes: &str| {
        let text = ending("N,10", nodes, "y")
            .replace("float[10,4] w", "float eps = {1e-5}, float[10] gain = {}, float[10,4] w");
        kind(&text, &[], &landmarks(64), &[1, 10])
    };
    let fused = of("y = LayerNormalization (h, gain)");
    assert_eq!(fused, (OutputKind::Embedding, "ends in a layer norm".to_owned()));
    assert_eq!(of(one), fused);
    assert_eq!(of("y = Add (h, gain)").0, OutputKind::Values);
    assert_eq!(of("m = ReduceMean <axes = [-1]> (h)  y = Div (h, m)").0, OutputKind::Values);
}

#[test]
fn what_a_matrix_holds() {
    let kind = |name: &str, choices: &[&str], samples: &[Vec<f32>]| kind(&gemm(name), choices, samples, &[1, 10]);
    assert_eq!(kind("y", &[], &logits(32)).0, OutputKind::Scores);
    assert_eq!(kind("y", &[], &landmarks(64)).0, OutputKind::Values);
    assert_eq!(kind("y", &["y=scores"], &landmarks(64)), (OutputKind::Scores, "as asked".to_owned()));
    assert_eq!(kind("y", &["y=values"], &logits(32)).0, OutputKind::Values);
    assert_eq!(kind("logits", &[], &landmarks(64)).0, OutputKind::Scores);
    // Too few samples to tell.
    assert_eq!(kind("y", &[], &logits(4)).0, OutputKind::Values);
}

#[test]
fn the_end_of_the_branch_says_what_it_is() {
    let of = |shape: &str, nodes: &str, dims: &[usize]| {
        let elements = dims.iter().product();
        let samples: Vec<Vec<f32>> =
            (0..16).map(|s| (0..elements).map(|i| 0.3 + 0.2 * noise(1000 * s + i)).collect()).collect();
        kind(&ending(shape, nodes, "y"), &[], &samples, dims).0
    };
    assert_eq!(of("N,10", "y = Softmax (h)", &[1, 10]), OutputKind::Scores);
    assert_eq!(of("N,10", "p = LogSoftmax (h) q = Cast <to = 1> (p) y = Identity (q)", &[1, 10]), OutputKind::Scores);
    let turned = "s = int64[3] {1, 2, 5} r = Reshape (h, s) p = Softmax (r) y = Transpose <perm = [1, 0, 2]> (p)";
    let constant = turned.replace("s = int64[3] {1, 2, 5}", "s = Constant <value = int64[3] {1, 2, 5}> ()");
    assert_eq!(of("2,1,5", &constant, &[2, 1, 5]), OutputKind::Sequence);
    // Written out.
    let written = "e = Exp (h) a = Constant <value = int64[1] {1}> () s = ReduceSum (e, a) y = Div (e, s)";
    assert_eq!(of("N,10", written, &[1, 10]), OutputKind::Scores);
    let unit = "n = ReduceL2 <axes = [1]> (h) y = Div (h, n)";
    assert_eq!(of("N,10", unit, &[1, 10]), OutputKind::Embedding);
    // Coordinates between 0 and 1.
    assert_eq!(of("N,10", "y = Sigmoid (h)", &[1, 10]), OutputKind::Values);
    assert_eq!(of("N,10", "y = Relu (h)", &[1, 10]), OutputKind::Values);
}

#[test]
fn maps_and_signals_are_values() {
    for (shape, dims) in [("N,1,20,20", &[1, 1, 20, 20][..]), ("N,1,400", &[1, 1, 400]), ("N,20,20", &[1, 20, 20])] {
        let samples: Vec<Vec<f32>> = (0..16).map(|s| (0..400).map(|i| 20.0 + noise(400 * s + i)).collect()).collect();
        assert_eq!(kind(&ending(shape, "y = Relu (h)", "y"), &[], &samples, dims).0, OutputKind::Values, "{shape}");
    }
}

/// A depth map of 20 ± 1 from a network that returns 20 everywhere has lost all.
#[test]
fn a_map_that_is_lost() {
    let outputs = outputs(&ending("N,1,8,8", "y = Relu (h)", "y"), &[], 16);
    let float: Vec<Vec<f32>> = (0..16).map(|s| (0..64).map(|i| 20.0 + noise(64 * s + i)).collect()).collect();
    let metrics = compared(&outputs, &float, &vec![vec![20.0; 64]; 16], &[1, 1, 8, 8]).metrics();
    assert!((metrics.lost - 1.0).abs() < 0.01, "{metrics:?}");
    assert_eq!((metrics.agreement, metrics.accuracy), (None, None));
    assert!(metrics.worst_channel().unwrap().abs() < 0.1);
}

/// A state with large numbers does not hide a signal of zeros.
#[test]
fn the_worst_output_counts() {
    let text = "<ir_version: 8, opset_import: [\"\": 17]> net (float[N,64] x) => (float[N,64] wave, float[N,64] state)
        { wave = Relu (x) state = Neg (x) }";
    let outputs = outputs(text, &[], 8);
    let mut comparison = Comparison::new(&outputs);
    for s in 0..8 {
        let wave: Vec<f32> = (0..64).map(|i| 1e-2 * noise(64 * s + i)).collect();
        let state: Vec<f32> = (0..64).map(|i| 100.0 * noise(64 * s + i)).collect();
        let (zeros, shape) = (vec![0.0; 64], [1, 64]);
        let network = [OutputArray { values: &zeros, shape: &shape }, OutputArray { values: &state, shape: &shape }];
        comparison.observe(s, &[wave, state.clone()], &network, None, None);
    }
    let metrics = comparison.metrics();
    assert!(metrics.lost > 0.99, "{}", metrics.lost);
    assert_eq!(metrics.worst_output().map(|output| output.name.as_str()), Some("wave"));
    assert_eq!(metrics.outputs[1].lost, 0.0);
}

#[test]
fn labels_and_agreement() {
    let outputs = outputs(&gemm("y"), &[], 2);
    let mut comparison = Comparison::new(&outputs);
    let float = |at: usize| vec![(0..10).map(|c| if c == at { 5.0 } else { 0.0 }).collect::<Vec<f32>>()];
    for (s, other) in [(0, 1), (1, 0)] {
        let network = &float(other)[0];
        comparison.observe(s, &float(0), &[OutputArray { values: network, shape: &[1, 10] }], Some(&[0]), None);
    }
    assert!(comparison.is_of_classifier());
    let metrics = comparison.metrics();
    assert_eq!((metrics.agreement, metrics.accuracy), (Some(0.5), Some(0.5)));
    assert_eq!((metrics.lost, comparison.float_accuracy()), (0.5, Some(1.0)));
    assert!(metrics.distance > 0.1);
}

/// The last quarter of the samples is lost, which the mean hides.
#[test]
fn a_quarter_that_is_much_worse() {
    let outputs = outputs(&gemm("y"), &["y=values"], 32);
    let float = landmarks(32);
    let noisy = |s: usize, v: f32| if s >= 24 { v + 8.0 * noise(s) } else { v + 0.05 * noise(s) };
    let network: Vec<Vec<f32>> =
        float.iter().enumerate().map(|(s, row)| row.iter().map(|&v| noisy(s, v)).collect()).collect();
    let found = compared(&outputs, &float, &network, &[1, 10]).metrics().outputs[0].worst_quarter.clone().unwrap();
    assert_eq!(found.quarter, Some(4));
    // The same samples in between the others.
    let scattered = |s: usize, v: f32| if s % 4 == 1 { v + 8.0 * noise(s) } else { v + 0.05 * noise(s) };
    let network: Vec<Vec<f32>> =
        float.iter().enumerate().map(|(s, row)| row.iter().map(|&v| scattered(s, v)).collect()).collect();
    let found = compared(&outputs, &float, &network, &[1, 10]).metrics().outputs[0].worst_quarter.clone().unwrap();
    assert!(found.quarter.is_none() && found.samples.iter().all(|s| s % 4 == 1), "{found:?}");
    let even: Vec<Vec<f32>> =
        float.iter().map(|row| row.iter().map(|&v| v + 0.5 * noise(v as usize)).collect()).collect();
    assert_eq!(compared(&outputs, &float, &even, &[1, 10]).metrics().outputs[0].worst_quarter, None);
}

/// Shards of any size give the same bits only where they are merged alike; close they are always.
#[test]
fn parts_merge() {
    let outputs = outputs(&gemm("y"), &[], 16);
    let (float, network) = (landmarks(16), landmarks(17)[1..].to_vec());
    let one = compared(&outputs, &float, &network, &[1, 10]).metrics();
    let mut whole = Comparison::new(&outputs);
    for s in 0..16 {
        whole.observe(s, &float[s..=s], &[OutputArray { values: &network[s], shape: &[1, 10] }], None, None);
    }
    assert!((one.lost / whole.metrics().lost - 1.0).abs() < 1e-9);
    assert_eq!(one.outputs[0].worst_channel, whole.metrics().outputs[0].worst_channel);
}

#[test]
fn an_output_that_is_not_there_is_named() {
    let model = parse(&gemm("y"));
    let error = Outputs::of(&model, &["z=values".parse().unwrap()], Masks::default(), 1).unwrap_err();
    assert_eq!(error.to_string(), "option `output-kind`: no output is called `z`; there are `y`");
}

/// What a tagger says of padding counts nowhere.
#[test]
fn masked_positions_count_nowhere() {
    use crate::data::{Array, ArrayData, Dataset, Sample};
    let text = "<ir_version: 8, opset_import: [\"\": 17]>
        net (int64[N,T] ids, int64[N,T] attention_mask) => (float[N,T,4] tags)
        <float[20,4] table = {}, float[4,4] w = {}, float one = {1.0}, float huge = {-10000.0}, int64[1] at = {2}>
        { h = Gather (table, ids)
          m = Cast <to = 1> (attention_mask)
          n = Sub (one, m)
          a = Mul (n, huge)
          u = Unsqueeze (a, at)
          s = Add (h, u)
          p = Softmax <axis = 1> (s)
          x = Mul (p, h)
          tags = MatMul (x, w) }";
    let outputs = outputs(text, &["tags=sequence"], 2);
    let integers = |values: &[i64]| Array::new(vec![1, 4], ArrayData::I64(values.to_vec())).unwrap();
    let sample = |mask: &[i64]| Sample { arrays: vec![integers(&[5, 6, 7, 0]), integers(mask)] };
    let data = Dataset::stored(vec![sample(&[1, 1, 0, 0]), sample(&[1, 1, 1, 1])]);
    let rows = |answers: [usize; 4]| -> Vec<f32> {
        answers.iter().flat_map(|&a| (0..4).map(move |c| if c == a { 5.0 } else { 0.0 })).collect()
    };
    let mut comparison = Comparison::new(&outputs);
    for at in 0..2 {
        let (float, network) = (rows([0, 1, 2, 3]), rows([0, 1, 3, 2]));
        let kept = outputs.kept(&data, at).unwrap();
        comparison.observe(at, &[float], &[OutputArray { values: &network, shape: &[1, 4, 4] }], None, kept.as_ref());
    }
    // Two of two in the first sample, two of four in the second.
    let figures = comparison.metrics().outputs[0].figures;
    assert_eq!((figures.rows, figures.agreement), (Some(6), Some(4.0 / 6.0)));
    assert_eq!(figures.same_sequences, Some(0.5));
    let model = parse(text);
    let all = Outputs::of(&model, &[], Masks::chosen(&model, false), 2).unwrap();
    assert!(all.kept(&data, 0).unwrap().is_none());
}

/// A map that is flattened has the channels of the map, and a depth map without its axis of one channel has one.
#[test]
fn channels_are_those_of_the_layer_before_the_output() {
    let channels = |shape: &str, nodes: &str, dims: &[usize]| {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": 17]>
            net (float[N,3,4,5] x) => (float[{shape}] y)
            <float[2,3,1,1] two = {{}}, float[1,3,1,1] one = {{}}, float[5,7] w = {{}}, float[4] four = {{}},
             int64[3] three = {{1, 4, 5}}>
            {{ {nodes} }}"
        );
        let mut model = parse(&text);
        let backend = crate::engine::standard();
        crate::prepare::annotate(&mut model, &*backend);
        let outputs = Outputs::of(&model, &[], Masks::default(), 16).unwrap();
        let elements = dims.iter().product();
        let samples: Vec<Vec<f32>> = (0..16).map(|s| (0..elements).map(|i| noise(1000 * s + i)).collect()).collect();
        compared(&outputs, &samples, &samples, dims).metrics().outputs[0].channels
    };
    assert_eq!(channels("N,2,4,5", "y = Conv (x, two)", &[1, 2, 4, 5]), 2);
    assert_eq!(channels("N,4,5,2", "c = Conv (x, two) y = Transpose <perm = [0, 2, 3, 1]> (c)", &[1, 4, 5, 2]), 2);
    assert_eq!(channels("N,40", "c = Conv (x, two) r = Relu (c) y = Flatten (r)", &[1, 40]), 2);
    assert_eq!(channels("N,3,4,7", "y = MatMul (x, w)", &[1, 3, 4, 7]), 7);
    assert_eq!(channels("N,20", "c = Conv (x, one) y = Flatten (c)", &[1, 20]), 1);
    let merged = "c = Conv (x, two) s = Constant <value = int64[3] {0, 2, 20}> () y = Reshape (c, s)";
    assert_eq!(channels("N,2,20", merged, &[1, 2, 20]), 2);
    assert_eq!(channels("1,4,5", "c = Conv (x, one) y = Reshape (c, three)", &[1, 4, 5]), 1);
    let squeezed = "c = Conv (x, one) a = Constant <value = int64[1] {1}> () y = Squeeze (c, a)";
    assert_eq!(channels("N,4,5", squeezed, &[1, 4, 5]), 1);
    // Each row of a matrix times a vector is a number of its own, as in a bilinear layer.
    let bilinear = "m = ReduceMean <axes = [1], keepdims = 0> (x) p = MatMul (m, w) v = ReduceMean <axes = [1]> (p)
                    t = Transpose <perm = [0, 2, 1]> (v) q = MatMul (p, t) a = Constant <value = int64[1] {2}> ()
                    s = Squeeze (q, a) y = Add (s, four)";
    assert_eq!(channels("N,4", bilinear, &[1, 4]), 4);
    let summed = "m = ReduceMean <axes = [1], keepdims = 0> (x) p = MatMul (m, w) g = Mul (p, p)
                  y = ReduceMean <axes = [2], keepdims = 0> (g)";
    assert_eq!(channels("N,4", summed, &[1, 4]), 4);
}

/// Without a layer that tells, channels lie along the only axis of a fixed size.
#[test]
fn channels_have_a_fixed_number() {
    let channels = |of: &str, dims: &[usize]| {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": 17]> net (float[{of}] x, int64[{rank}] r) => (float[{of}] y)
             {{ y = Tile (x, r) }}",
            rank = dims.len()
        );
        let elements = dims.iter().product();
        let samples: Vec<Vec<f32>> = (0..16).map(|s| (0..elements).map(|i| noise(1000 * s + i)).collect()).collect();
        compared(&outputs(&text, &[], 16), &samples, &samples, dims).metrics().outputs[0].channels
    };
    assert_eq!(channels("N,3,T", &[1, 3, 20]), 3);
    assert_eq!(channels("N,T,3", &[1, 20, 3]), 3);
    assert_eq!(channels("N,H,W,3", &[1, 4, 5, 3]), 3);
    assert_eq!(channels("N,3,H,W", &[1, 3, 4, 5]), 3);
    // A signal.
    assert_eq!(channels("N,1,T", &[1, 1, 20]), 1);
    assert_eq!(channels("N,6", &[1, 6]), 6);
}

/// Whole numbers that are rounded floats are compared as values, whether the caller says so or the graph does; classes are
/// not, however far they are apart.
#[test]
fn whole_numbers() {
    let text = |nodes: &str, element: &str| {
        format!(
            "<ir_version: 8, opset_import: [\"\": 17]> net (float[N,3,8,8] x) => ({element}[N,3,8,8] y)
             <float[3,3,1,1] w = {{}}> {{ c = Conv (x, w) {nodes} }}"
        )
    };
    let cast = |to: i32| format!("r = Round (c) y = Cast <to = {to}> (r)");
    let float: Vec<Vec<f32>> =
        (0..16).map(|s| (0..192).map(|i| (100.0 + 50.0 * noise(192 * s + i)).round()).collect()).collect();
    let network: Vec<Vec<f32>> = float.iter().map(|row| row.iter().map(|v| v + 20.0).collect()).collect();
    let found = |text: &str, choices: &[&str]| {
        let outputs = outputs(text, choices, 16);
        (compared(&outputs, &float, &network, &[1, 3, 8, 8]), compared(&outputs, &float, &float, &[1, 3, 8, 8]))
    };
    for (element, to) in [("uint8", 2), ("int8", 3), ("int32", 6), ("int64", 7)] {
        for choices in [&[][..], &["y=values"]] {
            let (off, same) = found(&text(&cast(to), element), choices);
            let [off, same] = [off.metrics(), same.metrics()];
            assert_eq!((off.outputs[0].kind, off.outputs[0].channels), (OutputKind::Values, 3), "{element}");
            assert!(off.lost > 0.3 && off.outputs[0].sqnr.is_some_and(|sqnr| sqnr < 6.0), "{element} {off:?}");
            assert!(same.lost == 0.0 && same.outputs[0].compared, "{element} {same:?}");
        }
    }
    let (off, _) = found(&text(&cast(2), "uint8"), &["y=scores"]);
    assert_eq!((off.metrics().lost, off.figures().sqnr), (1.0, None));
    // A mask takes few values.
    let bits: Vec<Vec<f32>> = float.iter().map(|row| row.iter().map(|v| f32::from(*v > 100.0)).collect()).collect();
    assert_eq!(kind(&text(&cast(2), "uint8"), &[], &bits, &[1, 3, 8, 8]).0, OutputKind::Scores);
    let classes = text("y = ArgMax <axis = 1> (c)", "int64");
    assert_eq!(kind(&classes, &[], &float, &[1, 3, 8, 8]).0, OutputKind::Scores);
    assert_eq!(kind(&classes, &["y=sequence"], &float, &[1, 3, 8, 8]).0, OutputKind::Scores);
    assert!(found(&classes, &["y=values"]).0.metrics().lost > 0.3);
}

/// Where no element can be compared, nothing is said to be equal.
#[test]
fn what_cannot_be_compared() {
    let outputs = outputs(&gemm("y"), &["y=values"], 16);
    let never = vec![vec![f32::NAN; 10]; 16];
    assert!(!compared(&outputs, &never, &never, &[1, 10]).metrics().outputs[0].compared);
    let empty = vec![Vec::new(); 16];
    assert!(!compared(&outputs, &empty, &empty, &[0, 10]).metrics().outputs[0].compared);
    assert!(compared(&outputs, &landmarks(16), &landmarks(16), &[1, 10]).metrics().outputs[0].compared);
}

/// Offsets between columns are no signal: 30 dB of all numbers together may be nothing of any column.
#[test]
fn columns_are_compared_about_their_own_mean() {
    let outputs = outputs(&gemm("y"), &["y=values"], 32);
    let row = |s: usize| (0..10).map(move |c| 10.0 * c as f32 + 0.1 * noise(10 * s + c)).collect::<Vec<f32>>();
    let float: Vec<Vec<f32>> = (0..32).map(row).collect();
    let means: Vec<f32> = (0..10).map(|c| 10.0 * c as f32).collect();
    let metrics = compared(&outputs, &float, &vec![means; 32], &[1, 10]).metrics();
    assert!(metrics.outputs[0].channels == 10 && metrics.lost > 0.9, "{metrics:?}");
}

/// What does not vary cannot be lost, unless it becomes something else altogether.
#[test]
fn an_output_that_does_not_vary() {
    let outputs = outputs(&gemm("y"), &["y=values"], 16);
    let row = |s: usize, scale: f32| -> Vec<f32> {
        (0..10).map(|c| scale * (1e-4 * (c + 1) as f32 + 1e-10 * noise(10 * s + c))).collect()
    };
    let float: Vec<Vec<f32>> = (0..16).map(|s| row(s, 1.0)).collect();
    let found = |scale: f32| {
        let network: Vec<Vec<f32>> = (0..16).map(|s| row(s, scale)).collect();
        compared(&outputs, &float, &network, &[1, 10]).metrics()
    };
    let near = found(1.1);
    assert!(near.lost == 0.0 && near.distance > 0.0 && !near.outputs[0].varies(), "{near:?}");
    assert_eq!((near.outputs[0].sqnr, near.outputs[0].worst_sqnr), (None, None));
    assert!(near.outputs[0].constant_error.is_some_and(|error| (error - 1e-4).abs() < 1e-5));
    assert!(found(1.0).outputs[0].varies());
    assert!(found(f32::NAN).lost >= 1.0);
}
