//! What the commands that run models, and write none, have in common.

use super::CommonArgs;
use super::config::ConfigArgs;
use super::data::DataArgs;
use super::output::{self, Usage, line};
use super::progress::Bars;
use clap::Args;
use msq_onnx::agreement::AgreementFigures;
use msq_onnx::data::Dataset;
use msq_onnx::data::InputSpec;
use msq_onnx::report::numbers;
use msq_onnx::runtime::Runtime;
use msq_passes::ir::Model;
use std::num::NonZero;
use std::path::Path;

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

/// Lines on how far outputs agree.
pub(crate) fn agreement(text: &mut String, figures: &AgreementFigures) {
    if let Some(same) = figures.same_argmax {
        line(text, "agreement", &numbers::percent(same, 2));
    }
    if let Some(divergence) = figures.divergence {
        line(text, "KL", &format!("{divergence:.5} nats"));
    }
    line(text, "output", &figures.sqnr.map_or("equal".to_owned(), numbers::decibels));
}
