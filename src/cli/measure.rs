//! What the commands that run models, and write none, have in common.

use super::CommonArgs;
use super::config::ConfigArgs;
use super::data::DataArgs;
use super::output::{self, Usage, line};
use super::progress::Bars;
use clap::Args;
use msq_onnx::MeasureOptions;
use msq_onnx::data::Dataset;
use msq_onnx::data::InputSpec;
use msq_onnx::metrics::OutputMetrics;
use msq_onnx::report::numbers;
use msq_onnx::report::outputs::{reading, words};
use msq_onnx::runtime::Runtime;
use msq_passes::ir::Model;
use std::num::NonZero;
use std::path::Path;

/// Outputs that are listed at most.
const OUTPUTS: usize = 6;

/// Data, threads, and what every command takes.
#[derive(Args, Debug)]
pub(crate) struct MeasureArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
    /// Memory the engine may take, about: 500MB, 4GiB; models that take more run in stages
    #[arg(long, value_name = "SIZE", value_parser = output::parse_bytes)]
    memory: Option<u64>,
    #[command(flatten)]
    pub(crate) options: MeasureOptions,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

impl MeasureArgs {
    /// The data for a model; it has to be named.
    pub(crate) fn open(&self, model: &Model, command: &str) -> anyhow::Result<Dataset> {
        let data = self.data.open(&InputSpec::of(model))?;
        data.ok_or_else(|| Usage(format!("{command} needs data: add --calib PATH")).into())
    }

    pub(crate) fn bars(&self) -> Bars {
        Bars::new(!self.common.quiet && !self.common.json)
    }

    /// What the run may use, with these progress bars.
    pub(crate) fn runtime<'a>(&self, bars: &'a Bars) -> Runtime<'a> {
        let runtime = self.threads.map_or_else(Runtime::default, |threads| Runtime::with_threads(threads.get()));
        runtime.memory(self.memory).progress(bars)
    }

    /// The files that are read besides models.
    pub(crate) fn reads(&self) -> impl Iterator<Item = &Path> {
        self.data.reads().chain(self.config.reads())
    }
}

/// Lines on the outputs: what each holds and how far it is from float, where there are several; the worst first.
pub(crate) fn output_lines(text: &mut String, outputs: &[OutputMetrics]) {
    if let [one] = outputs {
        line(text, "", &reading(one));
        return;
    }
    let mut sorted: Vec<&OutputMetrics> = outputs.iter().collect();
    sorted.sort_by(|a, b| b.lost.total_cmp(&a.lost));
    for output in sorted.iter().take(OUTPUTS) {
        line(text, "", &format!("{}: {}", reading(output), words(output)));
    }
    if sorted.len() > OUTPUTS {
        line(text, "", &format!("and {} more (--json lists all)", sorted.len() - OUTPUTS));
    }
}

/// Lines on how far a model is from another.
pub(crate) fn agreement(text: &mut String, outputs: &[OutputMetrics], lost: f64) {
    if let [one] = outputs {
        line(text, "output", &words(one));
    }
    output_lines(text, outputs);
    line(text, "lost", &format!("{} as --max-drop counts it", numbers::percent(lost, 2)));
}
