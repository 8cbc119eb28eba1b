//! The kinds of recurrent cells.

/// The kind of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rnn,
    Gru {
        /// Whether the state is multiplied before it is reset.
        is_linear_first: bool,
    },
    Lstm,
}

impl Kind {
    /// How many gates a cell has.
    pub(super) fn gates(self) -> usize {
        match self {
            Self::Rnn => 1,
            Self::Gru { .. } => 3,
            Self::Lstm => 4,
        }
    }

    /// How many functions a cell has.
    pub(super) fn functions(self) -> usize {
        match self {
            Self::Rnn => 1,
            Self::Gru { .. } => 2,
            Self::Lstm => 3,
        }
    }

    /// The functions of a layer that names none.
    pub(super) fn default_functions(self) -> Vec<&'static str> {
        match self {
            Self::Rnn => vec!["Tanh"],
            Self::Gru { .. } => vec!["Sigmoid", "Tanh"],
            Self::Lstm => vec!["Sigmoid", "Tanh", "Tanh"],
        }
    }
}
