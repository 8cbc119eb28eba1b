//! Outputs of detectors that hold a box per row.

use super::*;
use crate::execute::masks::Masks;
use msq_passes::ir::{import, text};

/// One sample: corners, classes, scores, and a mask of two pixels per box.
struct Found {
    values: [Vec<f32>; 4],
    shapes: [Vec<usize>; 4],
}

impl Found {
    fn new(boxes: &[([f32; 4], f32, f32, [f32; 2])]) -> Self {
        let count = boxes.len();
        let values = [
            boxes.iter().flat_map(|found| found.0).collect(),
            boxes.iter().map(|found| found.1).collect(),
            boxes.iter().map(|found| found.2).collect(),
            boxes.iter().flat_map(|found| found.3).collect(),
        ];
        Self { values, shapes: [vec![count, 4], vec![count], vec![count], vec![count, 1, 2]] }
    }

    fn arrays(&self) -> Vec<OutputArray<'_>> {
        self.values.iter().zip(&self.shapes).map(|(values, shape)| OutputArray { values, shape }).collect()
    }
}

fn compared(samples: &[[Found; 2]]) -> Comparison {
    let model = "<ir_version: 8, opset_import: [\"\": 17]>
        g (float[1,3] x) => (float[n,4] boxes, int64[n] labels, float[n] scores, float[n,1,2] masks)
        { boxes = Relu (x)  labels = Relu (x)  scores = Relu (x)  masks = Relu (x) }";
    let model = import(text::parse(model).unwrap()).unwrap();
    let outputs = Outputs::of(&model, &[], Masks::default(), samples.len()).unwrap();
    let mut all = Comparison::new(&outputs);
    for (at, [float, network]) in samples.iter().enumerate() {
        let mut part = Comparison::new(&outputs);
        part.observe(at, &float.values, &network.arrays(), None, None);
        all.merge(&part);
    }
    all
}

const FIRST: ([f32; 4], f32, f32, [f32; 2]) = ([10.0, 10.0, 20.0, 20.0], 1.0, 0.9, [0.1, 0.8]);
const SECOND: ([f32; 4], f32, f32, [f32; 2]) = ([40.0, 40.0, 50.0, 50.0], 3.0, 0.6, [0.7, 0.2]);
const OTHER: ([f32; 4], f32, f32, [f32; 2]) = ([80.0, 80.0, 95.0, 95.0], 2.0, 0.7, [0.5, 0.5]);

/// Boxes are compared by what they enclose, and their masks with those of their partners, in whatever order and number they
/// are written.
#[test]
fn what_belongs_to_boxes_is_compared_between_partners() {
    let sample = || [Found::new(&[FIRST, SECOND]), Found::new(&[OTHER, SECOND, FIRST])];
    let metrics = compared(&[sample(), sample()]).metrics();
    let kinds: Vec<OutputKind> = metrics.outputs.iter().map(|output| output.kind).collect();
    assert_eq!(kinds, [OutputKind::Boxes, OutputKind::Boxes, OutputKind::Boxes, OutputKind::Values]);
    let [boxes, .., masks] = &metrics.outputs[..] else { panic!() };
    assert_eq!((boxes.figures.boxes, boxes.figures.kept, boxes.figures.invented), (Some(4), Some(4), Some(2)));
    assert_eq!((masks.lost, masks.sqnr), (0.0, None));
}

/// Samples without boxes say nothing of how boxes are written, and those that only the network finds are invented.
#[test]
fn samples_without_boxes() {
    let none = || Found::new(&[]);
    let samples =
        [[none(), none()], [Found::new(&[FIRST, SECOND]), Found::new(&[FIRST])], [none(), Found::new(&[OTHER])]];
    let metrics = compared(&samples).metrics();
    assert_eq!(metrics.outputs[0].kind, OutputKind::Boxes);
    let figures = metrics.outputs[0].figures;
    assert_eq!((figures.boxes, figures.kept, figures.invented), (Some(2), Some(1), Some(1)));
    assert!(compared(&[[none(), none()]]).metrics().outputs.iter().all(|output| output.lost == 0.0));
}

/// What three axes of probabilities are read as, with another output beside them that has so many numbers for each position.
fn beside(symbols: usize, numbers: usize) -> OutputKind {
    let text = format!(
        "<ir_version: 8, opset_import: [\"\": 17]>
         net (float[N,30,8] x) => (float[N,30,{symbols}] scores, float[N,30,{numbers}] offsets)
         <float[8,{symbols}] v = {{}}, float[8,{numbers}] w = {{}}>
         {{ h = MatMul (x, v)  scores = Softmax (h)  offsets = MatMul (x, w) }}"
    );
    let model = import(text::parse(&text).unwrap()).unwrap();
    let outputs = Outputs::of(&model, &[], Masks::default(), 8).unwrap();
    let mut all = Comparison::new(&outputs);
    for at in 0..8 {
        let of = |width: usize, small: f32| -> Vec<f32> {
            (0..30 * width).map(|i| small * ((7 * at + i) % 5) as f32 / width as f32).collect()
        };
        let values = [of(symbols, 0.5), of(numbers, 0.01)];
        let shapes = [[1, 30, symbols], [1, 30, numbers]];
        let arrays: Vec<OutputArray> =
            values.iter().zip(&shapes).map(|(values, shape)| OutputArray { values, shape }).collect();
        let mut part = Comparison::new(&outputs);
        part.observe(at, &values, &arrays, None, None);
        all.merge(&part);
    }
    all.metrics().outputs[0].kind
}

#[test]
fn scores_of_anchors_spell_nothing() {
    assert_eq!(beside(12, 5), OutputKind::Sequence);
    assert_eq!(beside(12, 4), OutputKind::Scores);
    assert_eq!(beside(2, 5), OutputKind::Scores);
}

/// A detector's output `[N, 4 + C, boxes]`: centres, sizes, and scores of two classes, all scores but one the same.
fn columns(best: f32) -> Vec<f32> {
    let column = |number: usize, at: usize| match number {
        0 | 1 => 10.0 * at as f32,
        2 | 3 => 8.0,
        4 if at == 3 => best,
        _ => 0.01,
    };
    (0..6).flat_map(|number| (0..16).map(move |at| column(number, at))).collect()
}

/// Samples without things leave nothing to compare, and say so; by what their numbers are off, networks are still told apart.
#[test]
fn boxes_of_which_none_counts() {
    let metrics = |float: f32, network: &[f32], op: &str| {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": 17]>
             net (float[1,3,4,4] x) => (float[1,6,16] y) <float[4,3,1,1] v = {{}}, float[2,3,1,1] w = {{}}>
             {{ a = Conv (x, v)  b = Conv (x, w)  p = {op} (b)  c = Concat <axis = 1> (a, p)  s = Shape (c)
               y = Reshape (c, s) }}"
        );
        let model = import(text::parse(&text).unwrap()).unwrap();
        let outputs = Outputs::of(&model, &[], Masks::default(), 2).unwrap();
        let mut all = Comparison::new(&outputs);
        for at in 0..2 {
            let found = [OutputArray { values: network, shape: &[1, 6, 16] }];
            all.observe(at, &[columns(float)], &found, None, None);
        }
        all.metrics().outputs.remove(0)
    };
    let off = |by: f32| columns(0.1).iter().map(|value| value + by).collect::<Vec<f32>>();
    let (near, far) = (metrics(0.1, &off(0.01), "Sigmoid"), metrics(0.1, &off(0.1), "Sigmoid"));
    assert_eq!((near.kind, near.compared, near.lost, near.figures.boxes), (OutputKind::Boxes, false, 0.0, Some(0)));
    assert!(0.0 < near.distance && near.distance < far.distance);
    let invented = metrics(0.1, &columns(0.9), "Sigmoid");
    assert_eq!((invented.compared, invented.lost, invented.figures.invented), (true, 1.0, Some(2)));
    assert!(metrics(0.9, &columns(0.9), "Sigmoid").compared);
    assert_eq!(metrics(0.1, &off(0.01), "Relu").kind, OutputKind::Values);
}
