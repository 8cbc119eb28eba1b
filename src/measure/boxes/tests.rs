use super::*;

/// Boxes (centre, size), how sure and of which class, among others that are nothing.
const FLOAT: [([f32; 4], f32, usize); 3] =
    [([50.0, 50.0, 20.0, 20.0], 0.9, 0), ([120.0, 60.0, 30.0, 10.0], 0.8, 1), ([20.0, 90.0, 10.0, 10.0], 0.3, 2)];

fn columns(found: &[([f32; 4], f32, usize)]) -> Vec<f32> {
    let (width, count) = (4 + 3, 32);
    let mut values = vec![0.01_f32; width * count];
    for b in 0..count {
        let own = found.get(b).copied().unwrap_or(([8.0 * b as f32, 5.0, 3.0, 3.0], 0.02, 0));
        (0..4).for_each(|at| values[at * count + b] = own.0[at]);
        values[(4 + own.2) * count + b] = own.1;
    }
    values
}

fn rows(found: &[([f32; 4], f32, usize)]) -> Vec<f32> {
    let columns = columns(found);
    let of = |column: usize, b: usize| columns[column * 32 + b];
    (0..32).flat_map(|b| [0, 1, 2, 3, 7, 4, 5, 6].map(|c| if c == 7 { 1.0 } else { of(c, b) })).collect()
}

fn matches(float: &[f32], network: &[f32], shape: &[usize]) -> BoxMatches {
    let part = |values| [OutputArray { values, shape }];
    let form = BoxForm::of(&part(float), &[true], &[false]).unwrap();
    let mut matches = BoxMatches::default();
    matches.observe(form, &part(float), &part(network));
    matches
}

fn zipped<'a>(values: &'a [Vec<f32>], shapes: &[&'a [usize]]) -> Vec<OutputArray<'a>> {
    values.iter().zip(shapes).map(|(values, shape)| OutputArray { values, shape }).collect()
}

#[test]
fn boxes_are_kept_lost_and_invented() {
    let mut network = FLOAT;
    network[0].0[0] += 2.0; // overlaps well
    network[1].2 = 0; // another class
    network[2].1 = 0.22; // less sure, but there
    for (found, shape) in [
        (matches(&columns(&FLOAT), &columns(&network), &[1, 7, 32]), "columns"),
        (matches(&rows(&FLOAT), &rows(&network), &[1, 32, 8]), "rows"),
    ] {
        assert_eq!(found.counts(), [3, 2, 1], "{shape}");
        assert!((found.lost() - 0.5).abs() < 1e-12);
    }
    let same = matches(&columns(&FLOAT), &columns(&FLOAT), &[1, 7, 32]);
    assert_eq!((same.counts(), same.lost(), same.shifted()), ([3, 3, 0], 0.0, 0.0));
}

/// Two boxes on the same thing are one.
#[test]
fn raw_boxes_are_suppressed() {
    let twice = [FLOAT[0], ([51.0, 50.0, 20.0, 20.0], 0.85, 0)];
    let found = matches(&columns(&twice), &columns(&FLOAT[..1]), &[1, 7, 32]);
    assert_eq!(found.counts(), [1, 1, 0]);
}

#[test]
fn final_boxes_in_one_output_and_in_three() {
    let float = [10.0, 10.0, 20.0, 20.0, 0.9, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let network = [10.0, 10.0, 20.0, 21.0, 0.8, 3.0, 40.0, 40.0, 50.0, 50.0, 0.5, 1.0];
    assert_eq!(matches(&float, &network, &[1, 2, 6]).counts(), [1, 1, 1]);
    let shapes: [&[usize]; 3] = [&[1, 2, 4], &[1, 2], &[1, 2]];
    let split = |v: &[f32]| -> [Vec<f32>; 3] {
        [v.chunks(6).flat_map(|r| r[..4].to_vec()).collect(), vec![v[4], v[10]], vec![v[5], v[11]]]
    };
    let (float, network) = (split(&float), split(&network));
    let parts = |v| zipped(v, &shapes);
    let (float, network) = (parts(&float), parts(&network));
    let form = BoxForm::of(&float, &[false; 3], &[false; 3]).unwrap();
    assert_eq!(form, BoxForm::FinalParts { boxes: 0, scores: 1, classes: 2 });
    let mut matches = BoxMatches::default();
    matches.observe(form, &float, &network);
    assert_eq!(matches.counts(), [1, 1, 1]);
}

#[test]
fn nothing_is_lost_where_nothing_was_found() {
    assert_eq!(BoxMatches::default().lost(), 0.0);
    let empty = [0.0; 12];
    let invented = [10.0, 10.0, 20.0, 20.0, 0.9, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    for (network, lost) in [(empty, 0.0), (invented, 1.0)] {
        let [float, network] = [&empty, &network].map(|values| [OutputArray { values, shape: &[1, 2, 6] }]);
        let mut matches = BoxMatches::default();
        matches.observe(BoxForm::Final { at: 0 }, &float, &network);
        assert_eq!(matches.lost(), lost);
    }
}

/// The class of nothing takes no boxes.
#[test]
fn boxes_and_scores_in_two_outputs() {
    let boxes: Vec<f32> = (0..16).flat_map(|i| [i as f32 * 10.0, 0.0, i as f32 * 10.0 + 5.0, 5.0]).collect();
    let scores = |thing: usize| -> Vec<f32> {
        (0..16).flat_map(|i| if i == thing { [0.1, 0.1, 0.8] } else { [0.9, 0.05, 0.05] }).collect()
    };
    let (float, network) = (scores(3), scores(4));
    let shapes: [&[usize]; 2] = [&[1, 16, 4], &[1, 16, 3]];
    let (float, network) = ([boxes.clone(), float], [boxes, network]);
    let (float, network) = (zipped(&float, &shapes), zipped(&network, &shapes));
    let form = BoxForm::of(&float, &[false; 2], &[false; 2]).unwrap();
    assert_eq!(form, BoxForm::Parts { boxes: 0, scores: 1 });
    let mut matches = BoxMatches::default();
    matches.observe(form, &float, &network);
    assert_eq!(matches.counts(), [1, 0, 1]);
}

#[test]
fn other_numbers_are_no_boxes() {
    let values: Vec<f32> = (0..32 * 8).map(|i| (i % 7) as f32 - 3.0).collect();
    let part = [OutputArray { values: &values, shape: &[1, 32, 8] }];
    assert_eq!(BoxForm::of(&part, &[true], &[false]), None);
    let six = [OutputArray { values: &values[..12], shape: &[1, 2, 6] }];
    assert_eq!(BoxForm::of(&six, &[true], &[false]), None);
}

/// As torchvision writes them: one image, and no axis for it.
#[test]
fn final_boxes_without_an_axis_of_images() {
    let float = [vec![10.0, 10.0, 20.0, 20.0, 40.0, 40.0, 50.0, 50.0], vec![1.0, 3.0], vec![0.9, 0.6]];
    let network = [
        vec![40.0, 40.0, 50.0, 51.0, 70.0, 70.0, 80.0, 80.0, 10.0, 10.0, 20.0, 20.0],
        vec![3.0, 1.0, 2.0],
        vec![0.8, 0.5, 0.9],
    ];
    let (float, network) = (zipped(&float, &[&[2, 4], &[2], &[2]]), zipped(&network, &[&[3, 4], &[3], &[3]]));
    let form = BoxForm::of(&float, &[false; 3], &[false; 3]).unwrap();
    assert_eq!(form, BoxForm::FinalParts { boxes: 0, scores: 2, classes: 1 });
    let mut matches = BoxMatches::default();
    matches.observe(form, &float, &network);
    assert_eq!(matches.counts(), [2, 1, 2]);
    assert_eq!((form.rows(&float), form.rows(&network)), (Some(2), Some(3)));
    assert_eq!(form.partners(&float, &network), [(1, 0)]);
    let nothing = [Vec::new(), Vec::new(), Vec::new()];
    let nothing = zipped(&nothing, &[&[0, 4], &[0], &[0]]);
    assert!(are_none(&nothing) && !are_none(&float));
    let mut matches = BoxMatches::default();
    matches.observe(form, &nothing, &network);
    assert_eq!(matches.counts(), [0, 0, 3]);
}

/// A fixed number of final boxes of which none is one: by the numbers alone they are something else.
#[test]
fn final_boxes_that_are_none() {
    let rows = |score: f32| [[1.0, 2.0, 9.0, 8.0, score, 3.0], [4.0, 4.0, 4.0, 4.0, 0.001, 0.0]].concat();
    let form = |score: f32, joined| {
        let values = rows(score);
        BoxForm::of(&[OutputArray { values: &values, shape: &[1, 2, 6] }], &[joined], &[false])
    };
    assert_eq!([form(0.5, false), form(0.5, true)], [Some(BoxForm::Final { at: 0 }); 2]);
    assert_eq!([form(0.005, false), form(0.005, true)], [None, Some(BoxForm::Final { at: 0 })]);
    assert_eq!(form(-0.5, true), None);
    let empty = |shape| are_none(&[OutputArray { values: &[], shape }]);
    assert!(empty(&[0, 7]) && empty(&[1, 0, 6]) && empty(&[0, 4]) && !empty(&[0, 10]));
}

/// Boxes with two numbers more, as coefficients of masks: compared where boxes are kept, and no scores.
#[test]
fn numbers_beside_scores() {
    let further = |row: usize, number: usize| (row as f32 - 3.0) * (number as f32 + 1.5);
    let of_columns = |found: &[([f32; 4], f32, usize)], off: f32| {
        let mut values = columns(found);
        (0..2).for_each(|number| values.extend((0..32).map(|row| further(row, number) + off)));
        values
    };
    let of_rows = |found: &[([f32; 4], f32, usize)], off: f32| -> Vec<f32> {
        let extra = |row: usize| [further(row, 0) + off, further(row, 1) + off];
        rows(found).chunks(8).enumerate().flat_map(|(row, own)| [own, &extra(row)].concat()).collect()
    };
    let of_final = |found: &[([f32; 4], f32, usize)], off: f32| -> Vec<f32> {
        let row = |row: usize| {
            let own = found.get(row).copied().unwrap_or(([0.0; 4], 0.0, 0));
            let [x, y, width, height] = own.0;
            let numbers = [x, y, x + width, y + height, own.1, own.2 as f32];
            numbers.into_iter().chain((0..2).map(move |number| further(row, number) + off))
        };
        (0..32).flat_map(row).collect()
    };
    let moved = [FLOAT[0], FLOAT[1], ([20.0, 90.0, 10.0, 10.0], 0.1, 2)];
    for (float, network, shape) in [
        (of_columns(&FLOAT, 0.0), of_columns(&moved, 0.1), [1, 9, 32]),
        (of_rows(&FLOAT, 0.0), of_rows(&moved, 0.1), [1, 32, 10]),
        (of_final(&FLOAT, 0.0), of_final(&moved, 0.1), [1, 32, 8]),
    ] {
        let found = matches(&float, &network, &shape);
        assert_eq!(found.counts(), [3, 2, 0], "{shape:?}");
        // Off by 0.1; of two boxes the numbers deviate from their mean by 0.75 and 1.25.
        let expected = [0.75_f64, 1.25].map(|deviation| (0.1 / deviation).powi(2)).iter().sum::<f64>() / 2.0;
        let whole = found.beside().unwrap();
        assert!(whole > 0.2 * expected && whole < 5.0 * expected, "{shape:?} {whole} {expected}");
        assert_eq!(matches(&float, &float, &shape).beside(), Some(0.0));
    }
    // The other network may write fewer rows.
    let (float, network) = (of_final(&FLOAT, 0.0), of_final(&FLOAT, 0.1));
    let fewer = [OutputArray { values: &network[..20 * 8], shape: &[1, 20, 8] }];
    let mut found = BoxMatches::default();
    found.observe(BoxForm::Final { at: 0 }, &[OutputArray { values: &float, shape: &[1, 32, 8] }], &fewer);
    assert_eq!((found.counts(), found.beside().is_some()), ([3, 3, 0], true));
    // Numbers that are nearly shares are nothing that is known.
    let near: Vec<f32> = columns(&FLOAT).into_iter().chain((0..32).map(|_| 1.005)).collect();
    assert_eq!(BoxForm::of(&[OutputArray { values: &near, shape: &[1, 8, 32] }], &[true], &[false]), None);
    assert_eq!(matches(&columns(&FLOAT), &columns(&FLOAT), &[1, 7, 32]).beside(), None);
}
