//! The windows of convolutions and pools: kernel, strides, dilations, padding, with `auto_pad` and defaults resolved.

use crate::ir::{AttributeProto, Node};

/// Windows over spatial axes.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) kernel: Vec<usize>,
    pub(super) strides: Vec<usize>,
    pub(super) dilations: Vec<usize>,
    /// Padding in front of and behind each axis; behind it, also what `ceil_mode` reads beyond the padding.
    pub(super) pads: [Vec<i64>; 2],
    /// Lengths of the axes of the image.
    pub(super) image: Vec<usize>,
    /// Positions of the window along each axis.
    pub(super) positions: Vec<usize>,
}

impl Window {
    /// The windows of a node over images of shape `image`, `[N, C, …]`, at `positions`, `[N, M, …]`.
    pub(super) fn of(node: &Node, kernel: &[usize], image: &[usize], positions: &[usize]) -> Result<Self, String> {
        let (Some(image), Some(positions)) = (image.get(2..), positions.get(2..)) else {
            return Err("it has no spatial axes".to_owned());
        };
        let axes = image.len();
        if kernel.len() != axes || positions.len() != axes {
            return Err("its kernel does not have the axes of its input".to_owned());
        }
        let list = |name: &str| match node.ints(name) {
            [] => vec![1; axes],
            given => given.iter().map(|&n| usize::try_from(n).unwrap_or(1).max(1)).collect::<Vec<usize>>(),
        };
        let (strides, dilations) = (list("strides"), list("dilations"));
        let given = match node.ints("pads") {
            [] => vec![0; 2 * axes],
            given => given.to_vec(),
        };
        if given.len() != 2 * axes || strides.len() != axes || dilations.len() != axes {
            return Err("its attributes do not have the axes of its input".to_owned());
        }
        let mode = node.string("auto_pad").unwrap_or("NOTSET");
        let mut pads = [vec![0; axes], vec![0; axes]];
        for axis in 0..axes {
            let reach = (dilations[axis] * (kernel[axis] - 1) + 1) as i64;
            let needed = (strides[axis] * (positions[axis] - 1)) as i64 + reach - image[axis] as i64;
            let front = match mode {
                "SAME_UPPER" => needed.max(0) / 2,
                "SAME_LOWER" => (needed.max(0) + 1) / 2,
                "VALID" => 0,
                _ => given[axis],
            };
            // No further than the last window reaches; what lies behind that no window reads.
            pads[0][axis] = front;
            pads[1][axis] = needed - front;
        }
        let (image, positions) = (image.to_vec(), positions.to_vec());
        Ok(Self { kernel: kernel.to_vec(), strides, dilations, pads, image, positions })
    }

    /// What stands between the first and the last element of a window along an axis.
    pub(super) fn reach(&self, axis: usize) -> i64 {
        (self.dilations[axis] * (self.kernel[axis] - 1)) as i64
    }

    /// Elements of the kernel.
    pub(super) fn elements(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Elements at the end of each axis that no window reads.
    pub(super) fn unread(&self) -> Vec<i64> {
        self.pads[1].iter().map(|&behind| (-behind).max(0)).collect()
    }

    /// The attributes of the transposed convolution from the positions back to the image.
    pub(super) fn transposed(&self, group: usize) -> Vec<AttributeProto> {
        let behind: Vec<i64> = self.pads[1].iter().map(|&behind| behind.max(0)).collect();
        let mut attributes = self.attributes(group, [&self.pads[0], &behind]);
        if self.unread().iter().any(|&n| n > 0) {
            attributes.push(AttributeProto::ints("output_padding", &self.unread()));
        }
        attributes
    }

    /// The attributes of a convolution with these windows and the given padding.
    pub(super) fn attributes(&self, group: usize, pads: [&[i64]; 2]) -> Vec<AttributeProto> {
        let numbers = |list: &[usize]| list.iter().map(|&n| n as i64).collect::<Vec<i64>>();
        vec![
            AttributeProto::int("group", group as i64),
            AttributeProto::ints("kernel_shape", &numbers(&self.kernel)),
            AttributeProto::ints("strides", &numbers(&self.strides)),
            AttributeProto::ints("dilations", &numbers(&self.dilations)),
            AttributeProto::ints("pads", &pads.concat()),
        ]
    }

    /// How many elements of the image, or of the image and `pads` around it, each position's window holds.
    pub(super) fn counts(&self, pads: &[Vec<i64>; 2]) -> Vec<f32> {
        let mut counts = vec![1.0];
        let sides = pads[0].iter().zip(&pads[1]);
        for (axis, (&front, &behind)) in sides.enumerate() {
            let last = self.image[axis] as i64 + behind;
            let along = (0..self.positions[axis]).map(|position| {
                let start = (position * self.strides[axis]) as i64 - self.pads[0][axis];
                let places = (0..self.kernel[axis]).map(|k| start + (k * self.dilations[axis]) as i64);
                places.filter(|&place| place >= -front && place < last).count() as f32
            });
            let along: Vec<f32> = along.collect();
            counts = counts.iter().flat_map(|count| along.iter().map(move |n| count * n)).collect();
        }
        counts
    }
}
