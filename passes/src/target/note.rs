//! What users of a target have to know of the choices that they made.

/// A choice that a note is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Choice {
    /// No layer on integers has weights of 8 bits.
    NarrowWeights,
    /// The format `integer`.
    IntegerFormat,
    /// Weights are unpacked by functions of the model.
    Functions,
    /// What stays float computes in float16.
    Float16,
    /// Activations have 16 bits.
    WideActivations,
    /// A weight has scales of blocks.
    Blocks,
    /// A weight is stored as INT4.
    Int4,
    /// A weight is stored as INT2.
    Int2,
    /// Lengths of inputs are open.
    OpenShapes,
}

/// A sentence for users who made a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// The choice.
    pub about: Choice,
    /// The sentence.
    pub text: &'static str,
}

/// What holds of every target that takes INT2 at all.
pub(super) const INT2: Note = Note { about: Choice::Int2, text: "INT2 tensors: opset 25, which few runtimes take" };

/// What holds where INT4 constants are cast to int8.
pub(super) const INT4: Note = Note { about: Choice::Int4, text: "INT4 tensors: opset 21, onnxruntime 1.23 or newer" };
