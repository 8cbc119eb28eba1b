//! What a caller can choose.

use crate::calibrate::ObserverKind;
use msq_passes::Profile;

/// Choices of a quantization run. The defaults do the job.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The runtime to write for.
    pub profile: Profile,
    /// How activation ranges are chosen.
    pub observer: ObserverKind,
    /// Bits of the weights, 2 to 8.
    pub weight_bits: u8,
    /// Layers to leave float: their names, or regular expressions that match a whole name.
    pub skip: Vec<String>,
    /// Operators to leave float.
    pub keep_float: Vec<String>,
    /// Threads.
    pub threads: usize,
    /// Bytes of activations and plans the engine may hold at once; nothing for no limit.
    pub memory: Option<u64>,
    /// Samples whose outputs are compared with the float model's after the fact.
    pub verify: usize,
    /// Whether names of inner values are shortened and node names dropped.
    pub strip_names: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            profile: Profile::ORT_CPU,
            observer: ObserverKind::default(),
            weight_bits: 8,
            skip: Vec::new(),
            keep_float: Vec::new(),
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory: None,
            verify: 16,
            strip_names: false,
        }
    }
}
