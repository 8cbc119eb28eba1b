//! Other processes that share the work of a run.

/// Processes that share the learning of a run. Each of them does the same run, with the same options on the same data; in
/// each step of learning it computes its share, hands it in and gets those of all.
///
/// The result does not depend on whether there are any: how many shares there are is an option of the run
/// (`solver-processes`), and a run without peers computes all of them in turn.
pub trait Peers: Send + Sync {
    /// How many processes there are, this one included.
    fn count(&self) -> usize;

    /// Which of them this one is, from 0.
    fn rank(&self) -> usize;

    /// Gives all processes a message of this one, and returns one of each, its own included, in order of rank. Called in
    /// turn: as often, and at the same places of the run, in every process.
    fn exchange(&self, message: Vec<u8>) -> Result<Vec<Vec<u8>>, PeerError>;
}

/// Why processes do not share the work any longer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// A process is gone.
    #[error("process {rank} of those that learn together has ended: {reason}")]
    Lost {
        /// Its rank.
        rank: usize,
        /// What is known of its end.
        reason: String,
    },
    /// A process is not at the same place of the same run.
    #[error("process {rank} of those that learn together does not compute the same as process {own}")]
    Disagrees {
        /// Its rank.
        rank: usize,
        /// The rank of the process that says so.
        own: usize,
    },
    /// There are more or fewer processes than the options say.
    #[error("{found} processes learn together, not {wanted} (option `solver-processes`)")]
    Count {
        /// How many there are.
        found: usize,
        /// How many there should be.
        wanted: usize,
    },
}
