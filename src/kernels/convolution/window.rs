//! Where the taps of a convolution lie in its input.

/// One spatial axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Axis {
    /// Positions of the input.
    pub(crate) input: usize,
    /// Positions of the output.
    pub(crate) output: usize,
    /// Taps of the kernel.
    pub(crate) kernel: usize,
    /// Distance between output positions, in input positions.
    pub(crate) stride: usize,
    /// Distance between taps, in input positions.
    pub(crate) dilation: usize,
    /// Zeros before the first input position.
    pub(crate) before: usize,
}

impl Axis {
    /// An axis of one position, for convolutions with one spatial axis.
    pub(crate) const SINGLE: Self = Self { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, before: 0 };

    /// The phase of a tap, its position modulo the stride, and its position in the phase.
    pub(super) fn tap(&self, tap: usize) -> (usize, usize) {
        let at = tap * self.dilation;
        (at % self.stride, at / self.stride)
    }

    /// How many positions of a phase lie behind the first that an output reads.
    pub(super) fn reach(&self) -> usize {
        (self.kernel - 1) * self.dilation / self.stride
    }

    /// Whether nothing is read or written along it.
    pub(super) fn is_empty(&self) -> bool {
        [self.input, self.output, self.kernel, self.stride].contains(&0)
    }

    /// Whether every output position reads the input position of the same number and nothing else.
    pub(super) fn is_pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.before == 0 && self.input == self.output
    }
}

/// Shape of a convolution over two spatial axes, for one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Window {
    /// Channels of the input.
    pub(crate) inputs: usize,
    /// Channels of the output.
    pub(crate) outputs: usize,
    /// Groups of channels.
    pub(crate) groups: usize,
    /// Rows and columns.
    pub(crate) axes: [Axis; 2],
}

impl Window {
    /// Products in the sum of one output.
    pub(crate) fn depth(&self) -> usize {
        self.inputs / self.groups * self.axes[0].kernel * self.axes[1].kernel
    }

    /// Elements of one sample's input.
    pub(crate) fn input_len(&self) -> usize {
        self.inputs * self.axes[0].input * self.axes[1].input
    }

    /// Elements of one sample's output.
    pub(crate) fn output_len(&self) -> usize {
        self.outputs * self.output_plane()
    }

    /// Elements of one channel of the output.
    pub(super) fn output_plane(&self) -> usize {
        self.axes[0].output * self.axes[1].output
    }
}
