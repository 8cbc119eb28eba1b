//! Flags of every run that quantizes or searches.

use super::output;
use super::progress::ProgressArgs;
use clap::Args;
use msq_onnx::Quantizer;
use std::num::NonZero;

/// What a run may use.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Run")]
pub(crate) struct RunArgs {
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = output::parse_count)]
    threads: Option<NonZero<usize>>,
    /// Memory the engine may take, about: 500MB, 4GiB; fewer threads run where they would take more
    #[arg(long, value_name = "SIZE", value_parser = output::parse_bytes)]
    memory: Option<u64>,
    #[command(flatten)]
    pub(crate) progress: ProgressArgs,
}

impl RunArgs {
    /// The same for each of so many processes: the cores are shared among them.
    pub(crate) fn shared_by(self, processes: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let each = NonZero::new((cores / processes.max(1)).max(1)).filter(|_| processes > 1);
        Self { threads: self.threads.or(each), ..self }
    }

    /// The quantizer within these limits.
    pub(crate) fn applied<'a>(&self, quantizer: Quantizer<'a>) -> Quantizer<'a> {
        let quantizer = quantizer.memory(self.memory);
        match self.threads {
            Some(threads) => quantizer.threads(threads.get()),
            None => quantizer,
        }
    }
}
