//! `--print-passes` and `--dump-after`: the pipelines, and the model after a pass.

use super::output;
use super::paths;
use super::search;
use clap::Args;
use clap::builder::PossibleValuesParser;
use msq_passes::ir::{self, Model, write_file};
use msq_passes::{PassObserver, PipelineDescription, Record, pipelines};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Flags about passes.
#[derive(Args, Debug)]
#[command(next_help_heading = "Run")]
pub(crate) struct PassArgs {
    /// Print the pipelines, their passes in order and the reason for each place, and exit
    #[arg(long)]
    pub(crate) print_passes: bool,
    /// Write the model in the ONNX textual syntax after each run of this pass, to OUTPUT.PASS.onnxtxt; may be given
    /// again
    #[arg(long, value_name = "PASS", value_parser = PossibleValuesParser::new(names()), hide_possible_values = true)]
    dump_after: Vec<String>,
}

impl PassArgs {
    /// The first file of each pass to be dumped.
    pub(crate) fn writes(&self, output: &Path) -> impl Iterator<Item = PathBuf> {
        self.passes().map(move |pass| dump(output, pass, 1))
    }

    /// Writes the dumps, beside `output`. None of the files in `reads` is overwritten.
    pub(crate) fn dumps<'a>(&'a self, output: &'a Path, reads: Vec<PathBuf>) -> Dumps<'a> {
        Dumps { output, reads, runs: Mutex::new(self.passes().map(|pass| (pass, 0)).collect()) }
    }

    fn passes(&self) -> impl Iterator<Item = &str> {
        let pass = |(at, pass): (usize, &'_ String)| !self.dump_after[..at].contains(pass);
        self.dump_after.iter().enumerate().filter(move |&entry| pass(entry)).map(|(_, pass)| pass.as_str())
    }
}

/// Names of all passes, in the order of the pipelines.
fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = Vec::new();
    for step in pipelines::descriptions().iter().flat_map(|pipeline| &pipeline.steps) {
        if !names.contains(&step.pass) {
            names.push(step.pass);
        }
    }
    names
}

/// Where the model goes after a run of a pass.
fn dump(output: &Path, pass: &str, run: usize) -> PathBuf {
    let number = if run == 1 { String::new() } else { format!(".{run}") };
    search::beside(output, &format!(".{pass}{number}.onnxtxt"))
}

/// Writes the model after each run of some passes.
#[derive(Debug)]
pub(crate) struct Dumps<'a> {
    output: &'a Path,
    reads: Vec<PathBuf>,
    /// How often each pass has run.
    runs: Mutex<BTreeMap<&'a str, usize>>,
}

impl PassObserver for Dumps<'_> {
    fn after(&self, pipeline: &str, record: &Record, model: &Model) -> Result<(), Box<dyn Error + Send + Sync>> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(run) = runs.get_mut(record.pass) else { return Ok(()) };
        *run += 1;
        let path = dump(self.output, record.pass, *run);
        paths::refuse_input(&path, self.reads.iter().map(PathBuf::as_path))?;
        write_file(&path, ir::text::print(&ir::export(model)).as_bytes())?;
        tracing::info!(pass = record.pass, pipeline, path = %path.display(), "model written");
        Ok(())
    }
}

impl Dumps<'_> {
    /// Warns of passes that have not run.
    pub(crate) fn report(&self) {
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        for (pass, _) in runs.iter().filter(|(_, run)| **run == 0) {
            tracing::warn!("nothing was dumped after `{pass}`, which did not run on the model that is written");
        }
    }
}

/// Prints every pipeline.
pub(crate) fn print() -> anyhow::Result<()> {
    let texts: Vec<String> = pipelines::descriptions().iter().map(text).collect();
    output::print(&texts.join("\n"))
}

fn text(pipeline: &PipelineDescription) -> String {
    const INDENT: &str = "      ";
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(text, "{}: {}", pipeline.name, pipeline.about);
    for (at, step) in pipeline.steps.iter().enumerate() {
        let _ = writeln!(text, "  {:>2}. {}: {}", at + 1, step.pass, step.about);
        if let Some(option) = step.option {
            let _ = writeln!(text, "{INDENT}with {option}");
        }
        let _ = writeln!(text, "{INDENT}place: {}", step.place);
    }
    text
}
