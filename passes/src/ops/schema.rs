//! What ONNX defines of an operator.

/// The schema of an operator of the default domain, over all operator sets that have it.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// The operator.
    pub name: &'static str,
    /// The operator sets that define it anew, in ascending order; the first introduces it.
    pub versions: &'static [i64],
    /// Whether it may have more than one output.
    pub several_outputs: bool,
    /// The inputs that have the element type of output 0, in ascending order.
    pub like_output: &'static [usize],
    /// The operator set since which input 0 may hold integers of 8 bits, signed or not.
    pub bytes_since: Option<i64>,
    /// Where float16 may stand in the place of float; nothing where it may not, in the newest operator set.
    pub half: Option<Half>,
    /// Attributes that may be absent: the name, the operator set since which the default holds, and the default. For
    /// the operator sets from 7 on, of two rows for one attribute the later one counts. Attributes that a later set
    /// took away are left out.
    pub defaults: &'static [(&'static str, i64, Absent)],
    /// Attributes that became inputs: the operator set, the name, the slot.
    pub moved: &'static [(i64, &'static str, usize)],
}

/// Inputs and outputs that may hold float16 beside float.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Half {
    /// The first operator set in which it is these inputs and outputs.
    pub since: i64,
    /// The slots of inputs, in ascending order.
    pub inputs: &'static [usize],
    /// The slots of outputs, in ascending order.
    pub outputs: &'static [usize],
    /// Whether the last of these slots is the first of a list without end.
    pub endless: bool,
}

impl Half {
    /// Whether an input may hold float16.
    pub fn reads(&self, slot: usize) -> bool {
        self.has(self.inputs, slot)
    }

    /// Whether an output may hold float16.
    pub fn writes(&self, slot: usize) -> bool {
        self.has(self.outputs, slot)
    }

    fn has(&self, slots: &[usize], slot: usize) -> bool {
        slots.contains(&slot) || self.endless && slots.last().is_some_and(|&last| slot > last)
    }
}

/// The value that an absent attribute stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Absent {
    /// An integer.
    Int(i64),
    /// A float.
    Float(f32),
    /// A string.
    Text(&'static str),
    /// A 0 for each spatial axis and side.
    Zeros,
    /// A 1 for each spatial axis.
    Ones,
}

impl Schema {
    /// What a row leaves out.
    pub(super) const NONE: Self = Self {
        name: "",
        versions: &[],
        several_outputs: false,
        like_output: &[],
        bytes_since: None,
        half: None,
        defaults: &[],
        moved: &[],
    };

    /// The operator set that introduced the operator.
    pub fn first_opset(&self) -> i64 {
        self.versions.first().copied().unwrap_or(1)
    }

    /// The value that an absent attribute stands for in an operator set, if there is one.
    pub fn default_of(&self, attribute: &str, opset: i64) -> Option<Absent> {
        let mut rows = self.defaults.iter().rev();
        rows.find(|(name, since, _)| *name == attribute && *since <= opset).map(|&(.., absent)| absent)
    }

    /// The attributes that an operator set made inputs, with their slots.
    pub fn moved_in(&self, opset: i64) -> impl Iterator<Item = (&'static str, usize)> {
        self.moved.iter().filter(move |(since, ..)| *since == opset).map(|&(_, name, slot)| (name, slot))
    }
}
