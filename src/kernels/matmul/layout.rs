//! A product of two tensors as matrix products.
//!
//! Every axis has a stride in each operand and in the output, 0 where it is missing or of length 1 there. Axes of the left
//! operand and the output alone are rows, those of the right operand and the output alone columns, those of both operands
//! alone are summed over; each list of axes becomes one list of places. What is left is looped over.

/// One axis of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Axis {
    /// Positions along it.
    pub(crate) length: usize,
    /// Distance between its positions in the left operand, in elements; 0 where they are the same element.
    pub(crate) left: usize,
    /// Its stride in the right operand.
    pub(crate) right: usize,
    /// Its stride in the output.
    pub(crate) output: usize,
}

/// Where one matrix product starts in the operands and in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) left: usize,
    pub(super) right: usize,
    pub(super) output: usize,
}

/// Matrix products that make up a product of two tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Whether rows come from the right operand. In the other fields, it is then the left one.
    pub(super) swapped: bool,
    /// Where each term of a sum lies in the left and in the right operand.
    pub(super) depth: [Vec<usize>; 2],
    /// Where each row lies in the left operand.
    pub(super) rows: Vec<usize>,
    /// Distance between rows in the output.
    pub(super) stride: usize,
    /// Where each column lies in the right operand. In the output columns are neighbours.
    pub(super) columns: Vec<usize>,
    /// Row axes, then column axes, each from the outermost in.
    pub(super) axes: [Vec<Axis>; 2],
    /// The products.
    pub(super) places: Vec<Place>,
}

impl Layout {
    /// Layout of the given axes; `None` where nothing is computed, or the innermost axis of the output belongs to both
    /// operands or to none.
    pub(super) fn new(axes: &[Axis]) -> Option<Self> {
        if axes.iter().any(|axis| axis.length == 0) {
            return None;
        }
        let mut axes: Vec<Axis> = axes.iter().copied().filter(|axis| axis.length > 1).collect();
        // From the innermost of the output out.
        axes.sort_by_key(|axis| (axis.output, axis.right, axis.left));
        let summed = axes.partition_point(|axis| axis.output == 0);
        let swapped = axes.get(summed).is_some_and(|axis| axis.left > 0);
        if swapped {
            for axis in &mut axes {
                (axis.left, axis.right) = (axis.right, axis.left);
            }
        }
        let mut outer = axes.split_off(summed);
        if outer.first().is_some_and(|axis| axis.left > 0 || axis.right == 0) {
            return None;
        }
        let columns = run(&mut outer, 1, |axis| axis.left == 0 && axis.right > 0);
        let stride = outer.iter().find(|axis| is_row(axis)).map_or(1, |axis| axis.output);
        let rows = run(&mut outer, stride, is_row);
        axes.reverse();
        outer.reverse();
        let start = |of: fn(&Axis) -> usize| places(&outer, of);
        let starts = start(|axis| axis.left).into_iter().zip(start(|axis| axis.right)).zip(start(|axis| axis.output));
        Some(Self {
            swapped,
            depth: [places(&axes, |axis| axis.left), places(&axes, |axis| axis.right)],
            rows: places(&rows, |axis| axis.left),
            stride,
            columns: places(&columns, |axis| axis.right),
            axes: [rows, columns],
            places: starts.map(|((left, right), output)| Place { left, right, output }).collect(),
        })
    }
}

fn is_row(axis: &Axis) -> bool {
    axis.left > 0 && axis.right == 0
}

/// Takes the axes of one kind that follow each other in the output, from the given stride on; returns them from the
/// outermost in.
fn run(axes: &mut Vec<Axis>, mut stride: usize, of_kind: impl Fn(&Axis) -> bool) -> Vec<Axis> {
    let mut taken = Vec::new();
    while let Some(at) = axes.iter().position(|axis| axis.output == stride && of_kind(axis)) {
        let axis = axes.remove(at);
        stride *= axis.length;
        taken.insert(0, axis);
    }
    taken
}

/// Where each combination of positions lies, the last axis running fastest.
pub(super) fn places(axes: &[Axis], stride: impl Fn(&Axis) -> usize) -> Vec<usize> {
    axes.iter().fold(vec![0], |places, axis| {
        let at = |place: usize| (0..axis.length).map(move |position| (place, position));
        places.into_iter().flat_map(at).map(|(place, position)| place + position * stride(axis)).collect()
    })
}
